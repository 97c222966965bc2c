package v4

import (
	"encoding/binary"
	"fmt"
)

// A cursor reads a payload from front to back. The first error stays.
type cursor struct {
	b   []byte
	err error
}

func (c *cursor) take(n int) []byte {
	if c.err == nil && len(c.b) < n {
		c.err = fmt.Errorf("%w: it ends %d bytes early", ErrFormat, n-len(c.b))
	}
	if c.err != nil {
		return nil
	}
	taken := c.b[:n:n]
	c.b = c.b[n:]
	return taken
}

func (c *cursor) u8() uint8 {
	if b := c.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) u16() uint16 {
	if b := c.take(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (c *cursor) u32() uint32 {
	if b := c.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (c *cursor) u64() uint64 {
	if b := c.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// size reads a length in bytes that an int64 holds.
func (c *cursor) size() int64 {
	n := c.u64()
	if n > 1<<63-1 && c.err == nil {
		c.err = fmt.Errorf("%w: size %d", ErrFormat, n)
	}
	return int64(n) //nolint:gosec // checked
}

// id copies an id.
func (c *cursor) id() (id [IDSize]byte) {
	copy(id[:], c.take(IDSize))
	return id
}

func (c *cursor) sha256() (sum [32]byte) {
	copy(sum[:], c.take(32))
	return sum
}

// bytes reads bytes of at most limit behind their length of 16 bits, without
// copying them.
func (c *cursor) bytes(limit int) []byte {
	n := int(c.u16())
	if n > limit && c.err == nil {
		c.err = fmt.Errorf("%w: %d bytes where %d are the limit", ErrFormat, n, limit)
	}
	return c.take(n)
}

// rest is what has not been read.
func (c *cursor) rest() []byte { return c.take(len(c.b)) }

// end is the error, one of bytes that are left over included.
func (c *cursor) end() error {
	if c.err == nil && len(c.b) > 0 {
		c.err = fmt.Errorf("%w: %d bytes too many", ErrFormat, len(c.b))
	}
	return c.err
}

// whole is m if c has read all of its bytes, and otherwise nothing.
func whole[M any](c *cursor, m M) (M, error) {
	if err := c.end(); err != nil {
		var none M
		return none, err
	}
	return m, nil
}

// appendBytes appends b behind its length. Callers keep to the limits.
func appendBytes[T ~string | ~[]byte](dst []byte, b T) []byte {
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(b))) //nolint:gosec // of bounded length
	return append(dst, b...)
}
