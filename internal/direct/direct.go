// Package direct writes the bytes of a large file to the disk past the kernel's
// cache (O_DIRECT of open(2)), some writes being under way while more is taken.
//
// What is taken is copied with stores that pass the processor's caches as well:
// memory that a disk has read is slow to write to otherwise. The writes are
// asynchronous (io_submit(2)): no thread waits for one. docs/performance.md says
// what that brings.
package direct

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const (
	// pieceSize is how much is written at once.
	pieceSize = 1 << 20
	// pieces is how many a Writer has: all but the one that is being filled may
	// be under way.
	pieces = 8
	// block is what sizes and offsets of direct writes are multiples of, and
	// addresses of memory.
	block = 4 << 10
	// ahead is by how much a file is made longer than what was written: a write
	// beyond its end is not asynchronous.
	ahead = 64 << 20
)

// A Pool has what Writers need, keeps it for the next ones, but for the memory, and
// bounds how many there are at once. It is safe for concurrent use.
type Pool struct {
	idle chan *ring // one for each Writer that there may be yet; nil where it is to be made
}

// NewPool returns a Pool of so many Writers, of [Memory] each.
func NewPool(most int) *Pool {
	p := &Pool{make(chan *ring, most)}
	for range most {
		p.idle <- nil
	}
	return p
}

// Memory is how many bytes a Writer has at most.
const Memory = pieces * pieceSize

// A Writer appends to a file. It is used by one goroutine.
type Writer struct {
	pool   *Pool
	file   *os.File // of the usual kind
	direct *os.File // the same, opened with O_DIRECT
	ring   *ring

	size int64 // of the file, with all that was taken
	end  int64 // where the file ends, as it was made longer
	cur  int   // the piece that is being filled; -1 if none is
	at   int64 // its offset in the file; a multiple of block
	n    int   // how much is in it
	err  error // of the first write that failed
}

// New returns a Writer that appends to a file of that size. The file is open
// twice, the second time with O_DIRECT, which is the Writer's to close if there is
// no error. Nobody else writes there meanwhile.
//
// The error is [errors.ErrUnsupported] where this cannot be had: the file's
// filesystem does not say that it can and how (STATX_DIOALIGN of statx(2), since
// Linux 6.1), the machine is none that the package knows a copy for, or so many
// Writers as the Pool allows are there.
func (p *Pool) New(file, direct *os.File, size int64) (*Writer, error) {
	if !streams || !aligned(direct) {
		return nil, errors.ErrUnsupported
	}
	var r *ring
	select {
	case r = <-p.idle:
	default:
		return nil, fmt.Errorf("%w: there are enough", errors.ErrUnsupported)
	}
	if r == nil {
		var err error
		if r, err = newRing(); err != nil {
			p.idle <- nil
			return nil, err
		}
	}
	return &Writer{pool: p, file: file, direct: direct, ring: r, size: size, end: size, cur: -1}, nil
}

// aligned reports whether a file takes blocks from memory that begins with one.
func aligned(f *os.File) bool {
	var st unix.Statx_t
	err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &st)
	return err == nil && st.Mask&unix.STATX_DIOALIGN != 0 && divides(st.Dio_mem_align) && divides(st.Dio_offset_align)
}

func divides(n uint32) bool { return n != 0 && block%n == 0 }

// Write takes b. An error may be that of bytes taken before: then nothing more is
// taken.
func (w *Writer) Write(b []byte) (taken int, err error) {
	for len(b) > 0 {
		if err := w.room(); err != nil {
			return taken, err
		}
		n := min(len(b), pieceSize-w.n)
		stream(w.ring.piece(w.cur)[w.n:][:n], b)
		w.n += n
		w.size += int64(n)
		taken += n
		b = b[n:]
		if w.n == pieceSize {
			w.submit()
		}
	}
	return taken, w.err
}

// room makes sure that there is a piece to fill.
func (w *Writer) room() error {
	if w.err != nil || w.cur >= 0 {
		return w.err
	}
	w.done(w.ring.reap())
	for len(w.ring.free) == 0 && w.err == nil {
		w.done(w.ring.wait())
	}
	if w.err != nil {
		return w.err
	}
	w.at, w.n = w.size, 0
	w.cur = w.ring.take()
	head := w.at % block
	if head == 0 {
		return nil
	}
	// What the block has already is written with what follows.
	w.at -= head
	if _, w.err = w.file.ReadAt(w.ring.piece(w.cur)[:head], w.at); w.err != nil {
		w.ring.give(w.cur)
		w.cur = -1
		return w.err
	}
	w.n = int(head)
	return nil
}

// submit sends the blocks of the piece that is being filled on their way. It has one
// at least, and what is left of it, less than a block, is in the file already.
func (w *Writer) submit() {
	piece, whole := w.cur, w.n&^(block-1)
	w.cur = -1
	if end := w.at + int64(whole); end > w.end {
		if err := w.file.Truncate(end + ahead); err == nil { // else it waits for the write
			w.end = end + ahead
		}
	}
	if err := w.ring.submit(w.direct, piece, whole, w.at); err != nil {
		w.usual(piece, whole, w.at) // the kernel has no room for more, say
	}
}

// usual writes a piece that could not be written directly, or not all of it: by way
// of the cache it may do, and if not, the error is one that the kernel means.
func (w *Writer) usual(piece, n int, at int64) {
	if w.err == nil {
		_, w.err = w.file.WriteAt(w.ring.piece(piece)[:n], at)
	}
	w.ring.give(piece)
}

// done takes note of what has been written.
func (w *Writer) done(events []event) {
	for _, e := range events {
		piece := int(e.data)
		if f := w.ring.under[piece]; e.res == int64(f.n) {
			w.ring.give(piece)
		} else {
			w.usual(piece, f.n, f.at)
		}
	}
}

// Flush returns when all that was taken is in the file: what is no whole block at
// its end is in the kernel's cache. The file may be longer yet.
func (w *Writer) Flush() error {
	w.part()
	for w.ring.flying > 0 {
		w.done(w.ring.wait())
	}
	return w.err
}

// part writes what there is of a piece.
func (w *Writer) part() {
	if w.cur < 0 || w.err != nil {
		return
	}
	whole := w.n &^ (block - 1)
	if tail := w.ring.piece(w.cur)[whole:w.n]; len(tail) > 0 {
		_, w.err = w.file.WriteAt(tail, w.at+int64(whole))
	}
	if whole > 0 && w.err == nil {
		w.submit()
		return
	}
	w.ring.give(w.cur)
	w.cur = -1
}

// Settle is Flush, after which the file is as long as what is in it.
func (w *Writer) Settle() error {
	if err := w.Flush(); err != nil || w.end <= w.size {
		return err
	}
	if w.err = w.file.Truncate(w.size); w.err == nil {
		w.end = w.size
	}
	return w.err
}

// Close waits for what is under way, and gives back what the Writer has. The error has that
// of the first write that failed. Without Settle before it, the file may be longer than
// what was written, and what was taken last may be missing.
func (w *Writer) Close() error {
	for w.ring.flying > 0 {
		w.done(w.ring.wait())
	}
	if w.cur >= 0 {
		w.ring.give(w.cur)
	}
	w.ring.forget()
	w.pool.idle <- w.ring
	w.ring = nil
	return errors.Join(w.err, w.direct.Close())
}
