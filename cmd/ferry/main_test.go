package main

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"ferry": main})
}

// TestScripts runs testdata/script: what a user types, and what comes back.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds:                map[string]func(ts *testscript.TestScript, neg bool, args []string){"await": await},
	})
}

// await FILE PATTERN [VARIABLE...] waits until FILE matches PATTERN and sets
// the variables to what its groups matched.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: await file pattern [variable...]")
	}
	pattern, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		b, err := os.ReadFile(ts.MkAbs(args[0]))
		if m := pattern.FindStringSubmatch(string(b)); m != nil {
			for i, name := range args[2:] {
				ts.Setenv(name, m[i+1])
			}
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%s does not match %s: %q, %v", args[0], args[1], b, err)
		}
	}
}
