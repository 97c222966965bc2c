package prototest

import (
	"errors"
	"net"
	"sync/atomic"
)

// ErrFault is what a call on a connection cut by its [Fault] fails with.
var ErrFault = errors.New("connection cut by the test")

// A Fault is something that a [Faulty] connection does wrong.
type Fault func(*faulty)

// CutRead closes the connection as soon as n bytes have been read from it; with
// 0, when the first is about to be.
func CutRead(n int64) Fault { return func(c *faulty) { c.in.cut = n } }

// CutWrite closes the connection as soon as n bytes have been written to it,
// which may be within a Write; with 0, when the first is about to be.
func CutWrite(n int64) Fault { return func(c *faulty) { c.out.cut = n } }

// DropRead drops all that arrives after the first n bytes: a Read waits for
// its deadline, as on a network that is gone.
func DropRead(n int64) Fault { return func(c *faulty) { c.in.drop = n } }

// DropWrite drops all that is written after the first n bytes, and says that
// it was written.
func DropWrite(n int64) Fault { return func(c *faulty) { c.out.drop = n } }

// Pieces tears what is read and written into pieces of at most n bytes, of
// which each is a Read, or a Write of the connection beneath.
func Pieces(n int) Fault { return func(c *faulty) { c.in.piece, c.out.piece = n, n } }

// OnRead calls f before each piece is read, with how many bytes have been
// before it: to wait, to look, or to close something.
func OnRead(f func(passed int64)) Fault { return func(c *faulty) { c.in.hook = f } }

// OnWrite is [OnRead] for what is written.
func OnWrite(f func(passed int64)) Fault { return func(c *faulty) { c.out.hook = f } }

// Faulty returns conn with faults. It takes one Read and one Write at a time.
func Faulty(conn net.Conn, faults ...Fault) net.Conn {
	c := &faulty{Conn: conn, in: flawless, out: flawless}
	for _, f := range faults {
		f(c)
	}
	return c
}

type faulty struct {
	net.Conn
	in, out way
	broken  atomic.Bool
}

// A way is one direction: how far it has come, and what happens where.
type way struct {
	passed    int64
	cut, drop int64 // negative: never
	piece     int   // 0: any size
	hook      func(int64)
}

var flawless = way{cut: -1, drop: -1}

// begin returns how many of n bytes may pass in one piece; none if the
// connection ends here.
func (w *way) begin(n int) int {
	if w.hook != nil {
		w.hook(w.passed)
	}
	if w.piece > 0 {
		n = min(n, w.piece)
	}
	if w.cut >= 0 {
		n = int(min(int64(n), w.cut-w.passed))
	}
	if w.drop > w.passed {
		n = int(min(int64(n), w.drop-w.passed))
	}
	return n
}

func (w *way) dropping() bool { return w.drop >= 0 && w.passed >= w.drop }

// Read reads one piece.
func (c *faulty) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		allowed := c.in.begin(len(p))
		if allowed <= 0 {
			return 0, c.cutOff()
		}
		n, err := c.Conn.Read(p[:allowed])
		dropped := c.in.dropping()
		err = c.end(&c.in, n, err)
		switch {
		case !dropped:
			return n, err
		case err != nil:
			return 0, err
		}
	}
}

// Write writes p in pieces.
func (c *faulty) Write(p []byte) (int, error) {
	written := 0
	for written < len(p) {
		n, err := c.writePiece(p[written:])
		written += n
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

func (c *faulty) writePiece(p []byte) (int, error) {
	n := c.out.begin(len(p))
	if n <= 0 || c.broken.Load() {
		return 0, c.cutOff()
	}
	var err error
	if !c.out.dropping() {
		n, err = c.Conn.Write(p[:n])
	}
	return n, c.end(&c.out, n, err)
}

// end counts n bytes, and cuts the connection off if they were the last.
func (c *faulty) end(w *way, n int, err error) error {
	w.passed += int64(n)
	if err != nil {
		if c.broken.Load() {
			return ErrFault
		}
		return err
	}
	if w.cut >= 0 && w.passed >= w.cut {
		_ = c.cutOff()
	}
	return nil
}

func (c *faulty) cutOff() error {
	c.broken.Store(true)
	_ = c.Close() // the peer sees it; nothing else is to be told
	return ErrFault
}
