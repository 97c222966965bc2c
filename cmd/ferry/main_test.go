package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"testing/fstest"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"ferry/internal/datadir"
	"ferry/internal/sqldb"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"ferry": main, "older": older})
}

// TestScripts runs testdata/script: what a user types, and what comes back.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			repo, err := filepath.Abs(filepath.Join("..", ".."))
			env.Setenv("REPO", repo)
			return err
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"await": await},
	})
}

// older DATABASE MIGRATIONS [DATABASE MIGRATIONS...] stands for the version of ferry that
// did not know the last of those migrations yet, and runs on the folders of those
// databases: it opens them, says so, and works on until it is killed.
func older() {
	for args := os.Args[1:]; len(args) > 1; args = args[2:] {
		if err := openOlder(args[0], args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	fmt.Println("ready")
	select {}
}

func openOlder(database, migrations string) error {
	names, err := filepath.Glob(filepath.Join(migrations, "*.sql"))
	if err != nil || len(names) < 2 {
		return fmt.Errorf("%d migrations in %s: %w", len(names), migrations, err)
	}
	known := fstest.MapFS{}
	for _, name := range names[:len(names)-1] {
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		known[filepath.Base(name)] = &fstest.MapFile{Data: text}
	}
	if _, err := datadir.Open(filepath.Dir(database)); err != nil {
		return err
	}
	_, err = sqldb.Open(context.Background(), database, known)
	return err
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
