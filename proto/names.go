package proto

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of names in bytes.
const (
	// MaxFileName is the longest file name, its folders included.
	MaxFileName = 1024
	// MaxClientName is the longest client name, and the longest part of a file
	// name: the NUL-padded field of wire version 3, and NAME_MAX of Linux.
	MaxClientName = 255
)

// FileName is the name of a file at a native server: a relative path with "/"
// between its parts that is safe to create on disk. Names are compared byte by
// byte. The zero value is no name.
type FileName struct{ s string }

// ParseFileName accepts 1 to [MaxFileName] bytes of valid UTF-8, in parts of 1 to
// [MaxClientName] bytes without control characters (NUL among them) and "\",
// other than "." and "..". Any other string is an [ErrName] that says what is
// wrong with it. A destination may want more: see [Destination.CheckName].
func ParseFileName(s string) (FileName, error) {
	if len(s) > MaxFileName {
		return FileName{}, fmt.Errorf("file %w: it has %d bytes, %d are the limit", ErrName, len(s), MaxFileName)
	}
	if s == "" {
		return FileName{}, fmt.Errorf("file %w: it is empty", ErrName)
	}
	folders := strings.Contains(s, "/")
	for part := range strings.SplitSeq(s, "/") {
		err := checkName(part)
		if err == nil {
			continue
		}
		if folders {
			return FileName{}, fmt.Errorf("file %w: its part %q: %w", ErrName, part, err)
		}
		return FileName{}, fmt.Errorf("file %w: %w", ErrName, err)
	}
	return FileName{s}, nil
}

// String returns the name as it was given.
func (n FileName) String() string { return n.s }

// ClientName is the name that a client registers under, and the folder that
// its files are stored in. The rules are those of one part of a [FileName].
type ClientName struct{ s string }

// ParseClientName is [ParseFileName] for the names of clients, which have one
// part.
func ParseClientName(s string) (ClientName, error) {
	if err := checkName(s); err != nil {
		return ClientName{}, fmt.Errorf("client %w: %w", ErrName, err)
	}
	return ClientName{s}, nil
}

// String returns the name as it was given.
func (n ClientName) String() string { return n.s }

func checkName(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("it is empty")
	case len(s) > MaxClientName:
		return fmt.Errorf("it has %d bytes, %d are the limit", len(s), MaxClientName)
	case s == "." || s == "..":
		return fmt.Errorf("%q means a folder", s)
	case !utf8.ValidString(s):
		return fmt.Errorf("it is not valid UTF-8")
	case strings.Contains(s, "/"):
		return fmt.Errorf("it contains a slash")
	case strings.Contains(s, `\`):
		return fmt.Errorf("it contains a back-slash")
	case strings.ContainsFunc(s, unicode.IsControl):
		return fmt.Errorf("it contains a control character")
	}
	return nil
}
