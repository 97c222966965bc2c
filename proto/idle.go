package proto

import (
	"fmt"
	"net"
	"sync"
	"time"
)

// An idleLine is a connection that a client can keep for its next file.
type idleLine interface {
	comparable
	// rest makes it wait without owing anything.
	rest()
	// quiet reports whether nothing came while it rested.
	quiet() bool
	close()
}

// idleLines are the connections of a client that wait for its next file, each
// for a bounded time.
type idleLines[L idleLine] struct {
	most      int // at once
	keepAlive time.Duration

	mu      sync.Mutex
	resting []restingLine[L] // guarded by mu; the one used last is at the end
	closed  bool             // guarded by mu: nothing is kept or opened any more
}

type restingLine[L idleLine] struct {
	line   L
	expiry *time.Timer
}

func newIdleLines[L idleLine](most int, keepAlive time.Duration) *idleLines[L] {
	return &idleLines[L]{most: most, keepAlive: keepAlive}
}

// take returns the line that was used last; ok is false if there is none.
func (i *idleLines[L]) take() (l L, ok bool) {
	for {
		r, ok := i.last()
		if !ok || r.line.quiet() {
			return r.line, ok
		}
		r.line.close()
	}
}

func (i *idleLines[L]) last() (r restingLine[L], ok bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	n := len(i.resting) - 1
	if n < 0 {
		return r, false
	}
	r, i.resting[n] = i.resting[n], r
	i.resting = i.resting[:n]
	r.expiry.Stop()
	return r, true
}

// keep takes l in, unless there are enough.
func (i *idleLines[L]) keep(l L) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed || len(i.resting) >= i.most {
		return false
	}
	l.rest()
	i.resting = append(i.resting, restingLine[L]{l, time.AfterFunc(i.keepAlive, func() { i.expire(l) })})
	return true
}

func (i *idleLines[L]) expire(l L) {
	i.mu.Lock()
	var kept []restingLine[L]
	for _, r := range i.resting {
		if r.line != l {
			kept = append(kept, r)
		}
	}
	ours := len(kept) < len(i.resting)
	i.resting = kept
	i.mu.Unlock()
	if ours { // else it was taken at this moment
		l.close()
	}
}

// open returns why no connection may be made any more, or nil.
func (i *idleLines[L]) open() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return fmt.Errorf("client is closed: %w", net.ErrClosed)
	}
	return nil
}

// drop closes what rests, and reports whether there was something.
func (i *idleLines[L]) drop() bool {
	i.mu.Lock()
	resting := i.resting
	i.resting = nil
	i.mu.Unlock()
	for _, r := range resting {
		r.expiry.Stop()
		r.line.close()
	}
	return len(resting) > 0
}

// close closes what rests, and what would.
func (i *idleLines[L]) close() {
	i.mu.Lock()
	i.closed = true
	i.mu.Unlock()
	i.drop()
}
