package proto

import (
	"context"
	"sync"
)

// A flight is something that one goroutine does for all that want it at that
// time. The zero value is ready.
type flight struct {
	mu  sync.Mutex
	now *flown // guarded by mu; nil if nobody does it
}

// flown is one time that it is done.
type flown struct {
	done chan struct{} // closed at the end
	err  error
	left bool // whoever did it was called off: that says nothing about it
}

// do does work, or waits for whoever does it and returns the error of that. led
// is true if it was ours.
func (f *flight) do(ctx context.Context, work func() error) (led bool, err error) {
	for {
		now, ours := f.board()
		if ours {
			defer f.land(now)
			now.err = work()
			now.left = now.err != nil && ctx.Err() != nil
			return true, now.err
		}
		select {
		case <-now.done:
			if !now.left {
				return false, now.err
			}
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
}

func (f *flight) board() (now *flown, ours bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.now != nil {
		return f.now, false
	}
	f.now = &flown{done: make(chan struct{})}
	return f.now, true
}

func (f *flight) land(now *flown) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = nil
	close(now.done)
}
