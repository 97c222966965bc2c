package main

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"
)

// pushPhase is how far a file has come.
type pushPhase int

const (
	phaseHashing pushPhase = iota
	phaseSending
	phaseQueued // the gateway has it
	phaseDelivering
)

func (p pushPhase) String() string {
	return [...]string{"reading", "sending", "received", "delivering"}[p]
}

// moves reports whether there is a number of bytes to show.
func (p pushPhase) moves() bool { return p != phaseQueued }

// pushBar is a file on its way. Its fields are guarded by display.mu.
type pushBar struct {
	display *pushDisplay
	label   string
	size    int64
	number  int // in the order in which the files began
	phase   pushPhase
	since   time.Time // when the phase began
	retryAt time.Time // zero unless it waits for the next try
	note    string    // why it waits at the gateway

	bytes atomic.Int64 // of the phase
}

// resize says how large the file is.
func (b *pushBar) resize(size int64) {
	b.display.mu.Lock()
	defer b.display.mu.Unlock()
	b.size = size
}

// enter begins a phase.
func (b *pushBar) enter(p pushPhase) {
	b.display.mu.Lock()
	defer b.display.mu.Unlock()
	b.phase, b.since, b.retryAt = p, time.Now(), time.Time{}
	b.bytes.Store(0)
}

// pause notes that the next try begins then.
func (b *pushBar) pause(until time.Time) {
	b.display.mu.Lock()
	defer b.display.mu.Unlock()
	b.retryAt = until
}

// delivering notes how far the delivery has come.
func (b *pushBar) delivering(u remoteUpload) {
	b.display.mu.Lock()
	defer b.display.mu.Unlock()
	b.retryAt = time.Time{}
	if b.phase = phaseQueued; u.State == "delivering" {
		b.phase = phaseDelivering
	}
	b.bytes.Store(u.Progress.Bytes)
	b.note = ""
	if u.State == "waiting" {
		b.note = u.Attempts.LastError
	}
}

// line draws the bar, one cell short of the terminal's width.
func (b *pushBar) line(width int, now time.Time) string {
	width = max(width-1, 0)
	status := b.status(now)
	label := shorten(b.label, min(width, max(16, width/3)))
	room := width - cells(label) - cells(status) - len("  []  ")
	const least, most = 10, 40
	if b.phase.moves() && b.retryAt.IsZero() && room >= least {
		room = min(room, most)
		done := int(b.fraction() * float64(room))
		status = "[" + strings.Repeat("#", done) + strings.Repeat("-", room-done) + "]  " + status
	}
	return shorten(label+"  "+status, width)
}

func (b *pushBar) status(now time.Time) string {
	switch {
	case !b.retryAt.IsZero():
		return fmt.Sprintf("the gateway does not answer; trying again in %d s", max(0, int(b.retryAt.Sub(now).Round(time.Second)/time.Second)))
	case b.phase == phaseQueued && b.note != "":
		return "received, not delivered yet: " + printable(b.note)
	case b.phase == phaseQueued:
		return "received, waits for its delivery"
	}
	done := b.bytes.Load()
	s := fmt.Sprintf("%s %3d%%  %s of %s", b.phase, int(b.fraction()*100), bytesInWords(done), bytesInWords(b.size))
	if spent := now.Sub(b.since); b.phase == phaseSending && spent >= time.Second && done > 0 {
		speed := float64(done) / spent.Seconds()
		left := time.Duration(float64(b.size-done) / speed * float64(time.Second))
		s += fmt.Sprintf("  %s/s  %s left", bytesInWords(int64(speed)), clock(left))
	}
	return s
}

func (b *pushBar) fraction() float64 {
	if b.size <= 0 {
		return 0
	}
	return min(1, float64(b.bytes.Load())/float64(b.size))
}
