package server

import (
	"sync"
	"time"
)

// burst lets the first few of many events through to the log, so that nobody
// can fill it: a number of them in each span of time.
type burst struct {
	lines int
	span  time.Duration

	mu     sync.Mutex
	began  time.Time // of the span that runs
	said   int       // in it
	unsaid int       // since the last one that was said
}

// say reports whether this event is to be logged, and how many before it were
// not.
func (b *burst) say() (unsaid int, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now := time.Now(); now.Sub(b.began) >= b.span {
		b.began, b.said = now, 0
	}
	if b.said >= b.lines {
		b.unsaid++
		return 0, false
	}
	b.said++
	unsaid, b.unsaid = b.unsaid, 0
	return unsaid, true
}
