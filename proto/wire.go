package proto

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// A wire is a server's connection: what is read is buffered, what is written
// waits until the peer is waited for, and every read and write has a deadline.
// It is used by one goroutine.
type wire struct {
	pacing
	conn net.Conn

	in   []byte // the buffer; in[r:w] is unread
	r, w int
	out  []byte // to be written before the next wait

	until time.Time // no read may last longer; zero: nothing but idle bounds it

	mu    sync.Mutex
	ended bool // guarded by mu; the context has: deadlines stay in the past
}

var longAgo = time.Unix(1, 0) // never written to

// under makes every wait end with ctx, until release is called.
func (c *wire) under(ctx context.Context) (release func()) {
	c.mu.Lock()
	c.ended = false
	c.mu.Unlock()
	return atEnd(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.ended = true
		_ = c.conn.SetDeadline(longAgo)
	})
}

// atEnd calls f when ctx ends, until release is called, which waits for an f
// that has begun.
func atEnd(ctx context.Context, f func()) (release func()) {
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		f()
	})
	return func() {
		if !stop() {
			<-done
		}
	}
}

// set sets a deadline with one of the connection's methods, unless the context
// has ended. Where that fails, the connection has ended, and the read or write
// that follows says how.
func (c *wire) set(deadline func(time.Time) error, t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return os.ErrDeadlineExceeded
	}
	_ = deadline(t)
	return nil
}

// peek returns the next n bytes without taking them. io.EOF means that there
// were none; they are valid until the next call.
func (c *wire) peek(n int) ([]byte, error) {
	for c.w-c.r < n {
		if err := c.fill(); err != nil {
			if errors.Is(err, io.EOF) && c.w > c.r {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	return c.in[c.r : c.r+n], nil
}

// some returns what is there of the next n bytes, at least one, without taking
// them.
func (c *wire) some(n int) ([]byte, error) {
	if _, err := c.peek(1); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return c.in[c.r:min(c.w, c.r+n)], nil
}

func (c *wire) take(n int) { c.r += n }

// fill waits for more. Whatever the peer may be waiting for is written first.
func (c *wire) fill() error {
	if err := c.flush(); err != nil {
		return err
	}
	c.compact()
	start := time.Now()
	if err := c.set(c.conn.SetReadDeadline, c.deadline(start, c.until)); err != nil {
		return err
	}
	n, err := c.conn.Read(c.in[c.w:])
	c.w += n
	c.count(start, n)
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// compact makes room in the buffer.
func (c *wire) compact() {
	switch {
	case c.r == c.w:
		c.r, c.w = 0, 0
	case c.w == len(c.in):
		c.w = copy(c.in, c.in[c.r:c.w])
		c.r = 0
	}
}

// soon reports whether anything comes within d.
func (c *wire) soon(d time.Duration) (bool, error) {
	if c.w > c.r {
		return true, nil
	}
	idle := c.idle
	c.idle = min(idle, d)
	c.begin()
	err := c.fill()
	c.idle = idle
	c.begin()
	if err == nil || errors.Is(err, io.EOF) {
		return true, nil // the next read says so again
	}
	if errors.Is(err, os.ErrDeadlineExceeded) && !c.hasEnded() {
		return false, nil
	}
	return false, err
}

func (c *wire) hasEnded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended
}

// flush writes what waits to be written.
func (c *wire) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	if err := c.set(c.conn.SetWriteDeadline, time.Now().Add(c.idle)); err != nil {
		return err
	}
	_, err := c.conn.Write(c.out)
	c.out = c.out[:0]
	return err
}

// use puts another buffer in place of the one there is, which must have room
// for what is unread.
func (c *wire) use(in []byte) {
	c.w = copy(in, c.in[c.r:c.w])
	c.r = 0
	c.in = in
}
