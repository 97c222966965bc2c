package gateway

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"ferry/internal/blob"
	"ferry/proto"
)

const (
	// firstPiece is what a body gets in memory, at most, before it has sent anything.
	firstPiece = 4 << 10
	// checkRoom is how many bytes are written between two looks at the room left.
	checkRoom = 4 << 20
)

// firstPieces are used again once what they hold is in the database, or elsewhere.
var firstPieces = sync.Pool{New: func() any { return new([firstPiece]byte) }}

// reuse gives a small body's memory back, of which nobody knows any more.
func reuse(b []byte) {
	if cap(b) == firstPiece {
		firstPieces.Put((*[firstPiece]byte)(b[:firstPiece]))
	}
}

// intake copies one body.
type intake struct {
	*reception
	in       *incoming
	body     io.Reader
	promised *promise
	sum      *proto.Summer
}

// begin reads a body into memory as far as it may be a small one. It takes
// memory as the bytes come, not before. whole is true if that was all.
func (c *intake) begin() (b []byte, whole bool, err error) {
	for len(b) <= smallBody {
		if len(b) == cap(b) {
			more := append(c.memory(len(b)), b...)
			reuse(b)
			b = more
		}
		n, err := c.read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if errors.Is(err, io.EOF) && len(b) <= smallBody {
			_, _ = c.sum.Write(b)
			if len(b) < cap(b)*3/4 {
				less := append(make([]byte, 0, len(b)), b...)
				reuse(b)
				b = less
			}
			return b, true, nil
		}
		if err != nil && !errors.Is(err, io.EOF) { // which comes again
			reuse(b)
			return nil, false, err
		}
	}
	return b, false, nil
}

// memory is what a body gets of which so much has come: no more than was declared,
// unless more comes.
func (c *intake) memory(came int) []byte {
	more := max(firstPiece, 4*came)
	if declared := int(c.in.declared); declared > came {
		more = min(more, declared)
	}
	if more == firstPiece {
		p, _ := firstPieces.Get().(*[firstPiece]byte)
		return p[:0]
	}
	return make([]byte, 0, min(more, smallBody+1)) // one more than fits tells that it does not
}

// read is one Read of the body, with all that bounds it.
func (c *intake) read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.body.Read(p)
	total := c.in.came(n)
	if limit := c.g.maxSize(c.lane()); total > limit {
		return n, tooLarge(limit)
	}
	if err := callerOf(c.ctx).tooLarge(total); err != nil {
		return n, err
	}
	if c.in.declared >= 0 && total > c.in.declared {
		return n, fmt.Errorf("%w: more than %d bytes came", errLength, c.in.declared)
	}
	return n, err
}

// spool writes a body, of which start was read already, to a file of the spool
// that is named by the upload's id, whole and durable.
func (c *intake) spool(start []byte) (err error) {
	staged, err := c.g.spool.Stage()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, staged.Discard()) }()
	if len(start) > 0 {
		_, _ = c.sum.Write(start)
		if _, err := staged.Write(start); err != nil {
			return err
		}
		c.promised.wrote(int64(len(start)))
	}
	if err := c.copy(staged); err != nil {
		return err
	}
	if err := staged.Publish(spoolFolder, c.in.id.String()); err != nil {
		return err
	}
	c.in.spooled = true
	return nil
}

func (c *intake) copy(to *blob.Staged) error {
	h := c.g.hashing(c.sum)
	defer h.end()
	for looked := to.Size(); ; {
		p := h.piece()
		n, err := c.fill(*p)
		h.add(p, n)
		if _, err := to.Write((*p)[:n]); err != nil {
			return err
		}
		c.promised.wrote(int64(n))
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if to.Size()-looked >= checkRoom {
			looked = to.Size()
			if err := c.promised.check(); err != nil {
				return err
			}
		}
	}
}

// fill reads until p is full or the body has ended: few large writes.
func (c *intake) fill(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var more int
		more, err = c.read(p[n:])
		n += more
	}
	return n, err
}
