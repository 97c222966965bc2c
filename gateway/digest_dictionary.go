package gateway

import (
	"encoding/base64"
	"strings"
)

// parseByteDictionary reads a dictionary of structured fields, RFC 8941, and
// returns those of its members that are sequences of bytes; the others are nil.
// Of members with the same key the last counts.
func parseByteDictionary(s string) (members map[string][]byte, ok bool) {
	members = map[string][]byte{}
	c := &fieldCursor{strings.Trim(s, " ")}
	for c.rest != "" {
		key := c.take(keyChars)
		if key == "" || strings.Trim(key[:1], "*abcdefghijklmnopqrstuvwxyz") != "" {
			return nil, false
		}
		var value []byte
		if c.skip("=") {
			if value, ok = c.item(); !ok {
				return nil, false
			}
		}
		members[key] = value
		if !c.parameters() {
			return nil, false
		}
		c.take(" \t")
		if c.rest == "" {
			return members, true
		}
		if !c.skip(",") {
			return nil, false
		}
		if c.take(" \t"); c.rest == "" { // a comma at the end
			return nil, false
		}
	}
	return members, true
}

const (
	keyChars   = "abcdefghijklmnopqrstuvwxyz0123456789_-.*"
	tokenChars = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~:/?"
)

// fieldCursor is what is left of a field.
type fieldCursor struct{ rest string }

// take takes as many of chars as there are.
func (c *fieldCursor) take(chars string) string {
	left := strings.TrimLeft(c.rest, chars)
	taken := c.rest[:len(c.rest)-len(left)]
	c.rest = left
	return taken
}

func (c *fieldCursor) skip(s string) bool {
	left, found := strings.CutPrefix(c.rest, s)
	c.rest = left
	return found
}

// item takes one item, or a list of them in parentheses.
func (c *fieldCursor) item() (bytes []byte, ok bool) {
	switch {
	case c.skip(":"):
		given, rest, ended := strings.Cut(c.rest, ":")
		c.rest = rest
		b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(given, "="))
		return b, ended && err == nil
	case c.skip("("):
		for !c.skip(")") {
			if c.take(" "); c.skip(")") {
				return nil, true
			}
			if strings.HasPrefix(c.rest, "(") {
				return nil, false
			}
			if _, ok := c.item(); !ok || !c.parameters() {
				return nil, false
			}
		}
		return nil, true
	case c.skip(`"`):
		for {
			i := strings.IndexAny(c.rest, `"\`)
			if i < 0 || c.rest[i] == '\\' && i+1 == len(c.rest) {
				return nil, false
			}
			end := c.rest[i] == '"'
			if !end {
				i++
			}
			if c.rest = c.rest[i+1:]; end {
				return nil, true
			}
		}
	}
	return nil, c.take(tokenChars) != ""
}

// parameters takes those of an item.
func (c *fieldCursor) parameters() bool {
	for c.skip(";") {
		c.take(" ")
		if c.take(keyChars) == "" {
			return false
		}
		if c.skip("=") {
			if strings.HasPrefix(c.rest, "(") {
				return false
			}
			if _, ok := c.item(); !ok {
				return false
			}
		}
	}
	return true
}
