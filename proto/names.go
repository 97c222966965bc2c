package proto

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxName is the longest file or client name in bytes: the NUL-padded field of
// wire version 3, and NAME_MAX of Linux.
const MaxName = 255

// FileName is the name of a file at a native server: one path component that
// is safe to create on disk. Names are compared byte by byte. The zero value
// is no name.
type FileName struct{ s string }

// ParseFileName accepts 1 to [MaxName] bytes of valid UTF-8 without control
// characters (NUL among them), "/" and "\", other than "." and "..". Any other
// string is an [ErrName] that says what is wrong with it.
func ParseFileName(s string) (FileName, error) {
	if err := checkName(s); err != nil {
		return FileName{}, fmt.Errorf("file %w: %w", ErrName, err)
	}
	return FileName{s}, nil
}

// String returns the name as it was given.
func (n FileName) String() string { return n.s }

// ClientName is the name that a client registers under, and the folder that
// its files are stored in. The rules are those of [FileName].
type ClientName struct{ s string }

// ParseClientName is [ParseFileName] for the names of clients.
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
	case len(s) > MaxName:
		return fmt.Errorf("it has %d bytes, %d are the limit", len(s), MaxName)
	case s == "." || s == "..":
		return fmt.Errorf("%q means a folder", s)
	case !utf8.ValidString(s):
		return fmt.Errorf("it is not valid UTF-8")
	case strings.ContainsAny(s, `/\`):
		return fmt.Errorf("it contains a slash or back-slash")
	case strings.ContainsFunc(s, unicode.IsControl):
		return fmt.Errorf("it contains a control character")
	}
	return nil
}
