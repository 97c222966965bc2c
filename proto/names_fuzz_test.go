package proto_test

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"unicode/utf8"

	"ferry/proto"
)

var oddNames = []string{
	"", "a", "a/b", "/a", "a/", "a//b", ".", "..", "a/../b", "a\\b", "a\x00", "a\x7f", "\u0085", "\xff", "e\u0301", "\u00e9/\U0001f6a2",
	strings.Repeat("x", proto.MaxClientName), strings.Repeat("x", proto.MaxClientName+1), strings.Repeat("x/", proto.MaxFileName/2), strings.Repeat("x/", proto.MaxFileName/2-1) + "yz",
}

// FuzzParseFileName: a name is taken as it is given, and is a path below a folder;
// its parts are names of clients, and those of clients are names of files.
func FuzzParseFileName(f *testing.F) {
	for _, s := range oddNames {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name, err := proto.ParseFileName(s)
		if err != nil {
			if name != (proto.FileName{}) || !errors.Is(err, proto.ErrName) || !utf8.ValidString(err.Error()) {
				t.Fatalf("%q: %v, with %v", s, err, name)
			}
			return
		}
		if name.String() != s || len(s) > proto.MaxFileName || !fs.ValidPath(s) || s == "." || strings.ContainsAny(s, "\x00\\\n\r\x1b") {
			t.Fatalf("%q is taken as %q", s, name)
		}
		for part := range strings.SplitSeq(s, "/") {
			if _, err := proto.ParseClientName(part); err != nil {
				t.Fatalf("%q is taken with the part %q: %v", s, part, err)
			}
		}
	})
}

// FuzzParseClientName: a client's name is one part of a path.
func FuzzParseClientName(f *testing.F) {
	for _, s := range oddNames {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name, err := proto.ParseClientName(s)
		file, fileErr := proto.ParseFileName(s)
		if err != nil {
			if name != (proto.ClientName{}) || !errors.Is(err, proto.ErrName) || fileErr == nil && !strings.Contains(s, "/") {
				t.Fatalf("%q: %v, with %v; as a file's %v", s, err, name, fileErr)
			}
			return
		}
		if name.String() != s || len(s) > proto.MaxClientName || strings.Contains(s, "/") || fileErr != nil || file.String() != s {
			t.Fatalf("%q is taken as %q; as a file's %v", s, name, fileErr)
		}
	})
}

// FuzzParsePin: a pin prints as what was read, in lower case.
func FuzzParsePin(f *testing.F) {
	for _, s := range []string{"", aPin, "sha256:" + strings.ToUpper(aPin[7:]), strings.ToUpper(aPin), aPin[:70], aPin[:69], aPin + "0", aPin[7:], "sha256:" + strings.Repeat("g", 64), " " + aPin} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		pin, err := proto.ParsePin(s)
		if err != nil {
			if pin != (proto.Pin{}) {
				t.Fatalf("%q: %v, with %v", s, err, pin)
			}
			return
		}
		if !strings.HasPrefix(s, "sha256:") || pin.String() != strings.ToLower(s) {
			t.Fatalf("%q is taken as %s", s, pin)
		}
	})
}
