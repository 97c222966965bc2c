package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"ferry/proto"
)

// FuzzKnownServers: what parses reads the same as it is written back, no server
// is in it twice, and nothing comes with an error.
func FuzzKnownServers(f *testing.F) {
	pin := proto.Pin{1}.String()
	for _, s := range []string{
		"", "# comment\n\n", "a:1 " + pin + "\n", " [::1]:1257 \t" + pin + " \r\nb:2 " + pin, "a:1 " + pin + "\na:1 " + pin,
		"a:1", pin, "a:1 " + strings.ToUpper(pin), "a:1  " + pin + " x", strings.Repeat("x", 70_000),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		all, err := parseKnown(strings.NewReader(text), "known")
		if err != nil {
			if all != nil || !strings.HasPrefix(err.Error(), "known:") {
				t.Fatalf("%q: %v, with %v", text, err, all)
			}
			return
		}
		var written strings.Builder
		seen := map[string]bool{}
		for _, s := range all {
			if seen[s.address] {
				t.Fatalf("%q: %s twice", text, s.address)
			}
			seen[s.address] = true
			fmt.Fprintf(&written, "%s %s\n", s.address, s.pin)
		}
		if again, err := parseKnown(strings.NewReader(written.String()), "known"); err != nil || !slices.Equal(again, all) {
			t.Fatalf("%q is written as %q, which reads as %v, %v", text, written.String(), again, err)
		}
	})
}

// FuzzJoin: a token is taken as it is given or not at all, and an error does not
// show it.
func FuzzJoin(f *testing.F) {
	for _, s := range []string{"", joinPrefix, joinPrefix + "abc234", joinPrefix + "abc1", joinPrefix + "ABC", " " + joinPrefix + "abc", "ferry-join", "secret\n", joinPrefix + "a\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, join string) {
		if strings.HasPrefix(join, "@") {
			t.Skip("that is a file")
		}
		token, err := readJoin(join)
		if err == nil {
			secret, ok := strings.CutPrefix(token, joinPrefix)
			if token != join || token != "" && (!ok || secret == "") {
				t.Fatalf("%q is taken as %q", join, token)
			}
			for _, r := range secret {
				if (r < 'a' || r > 'z') && (r < '2' || r > '7') {
					t.Fatalf("%q is taken, with %q in it", join, r)
				}
			}
			return
		}
		const words = "--join: that is no join token: want one that begins with " + joinPrefix + ", as \"ferry server token create\" prints it, or @FILE"
		if token != "" || err.Error() != words {
			t.Fatalf("%q: %q, %v", join, token, err)
		}
	})
}
