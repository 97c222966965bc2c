package v3

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
)

// A cursor reads fields one after the other and remembers the first error;
// after it, fields read as zero.
type cursor struct {
	b   []byte
	err error
}

// fields returns a cursor over a message that has exactly size bytes: every
// message of version 3 has a fixed layout, so that after this check no field
// is missing and no byte is left over.
func fields(b []byte, what string, size int) cursor {
	if len(b) != size {
		return cursor{err: fmt.Errorf("%s: %d bytes, want %d", what, len(b), size)}
	}
	return cursor{b: b}
}

func (c *cursor) take(n int) []byte {
	if c.err != nil {
		return nil
	}
	f := c.b[:n]
	c.b = c.b[n:]
	return f
}

func (c *cursor) u8() uint8 {
	if f := c.take(1); f != nil {
		return f[0]
	}
	return 0
}

func (c *cursor) u16() uint16 {
	if f := c.take(2); f != nil {
		return binary.LittleEndian.Uint16(f)
	}
	return 0
}

func (c *cursor) u32() uint32 {
	if f := c.take(4); f != nil {
		return binary.LittleEndian.Uint32(f)
	}
	return 0
}

func (c *cursor) version() {
	if v := c.u8(); c.err == nil && v != Version {
		c.err = fmt.Errorf("%w: %d, want %d", ErrVersion, v, Version)
	}
}

// name reads a NUL-padded name. None of the recorded programs leaves anything
// but NULs behind the first one, so anything else is refused: it would be a
// name that two readers read differently.
func (c *cursor) name() string {
	f := c.take(NameSize)
	n := bytes.IndexByte(f, 0)
	if n < 0 {
		return string(f)
	}
	if !bytes.Equal(f[n:], noName[n:]) {
		c.err = fmt.Errorf("name has bytes behind its first NUL")
		return ""
	}
	return string(f[:n])
}

var noName [NameSize]byte // never written to

// parsed returns v, or the zero value if the cursor met an error.
func parsed[T any](v T, c *cursor) (T, error) {
	if c.err != nil {
		var zero T
		return zero, c.err
	}
	return v, nil
}

// appendName appends the NUL-padded field. Names are validated where they enter
// the program; one that does not fit here is our own bug.
func appendName(b []byte, name string) []byte {
	if len(name) > NameSize || strings.IndexByte(name, 0) >= 0 {
		panic(fmt.Sprintf("internal error: name %q does not fit the field", name))
	}
	b = append(b, name...)
	return append(b, noName[len(name):]...)
}
