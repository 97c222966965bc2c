package proto

import "time"

// pacing bounds how long a peer is waited for. It is used by the goroutine that
// reads.
type pacing struct {
	idle time.Duration // the longest wait for one read or write, and for the rest of one message
	rest time.Time     // when the message begun has to be there; zero: not begun
	// A file has to come at a rate: time spent waiting, and how much is allowed.
	rate         int64 // bytes a second; 0: no file
	spent, spare time.Duration
}

// begin begins a message: waiting for it is one thing, and its coming to an
// end another, so that a byte now and then does not hold the connection.
func (p *pacing) begin() { p.rest = time.Time{} }

// pace begins a file, which has to come at least at that rate, averaged over
// idle. Time that the peer is not waited for does not count. 0 ends it.
func (p *pacing) pace(rate int64) { p.rate, p.spent, p.spare = rate, 0, p.idle }

// count notes n bytes that were waited for since start.
func (p *pacing) count(start time.Time, n int) {
	if p.rate <= 0 && !p.rest.IsZero() {
		return
	}
	now := time.Now()
	if p.rest.IsZero() {
		p.rest = now.Add(p.idle)
	}
	if p.rate > 0 {
		p.spent += now.Sub(start)
		p.spare += time.Duration(n) * time.Second / time.Duration(p.rate)
		p.spare = min(p.spare, p.spent+p.idle)
	}
}

// deadline is that of a read which begins now, and may not last beyond until; the
// zero time is no bound.
func (p *pacing) deadline(now, until time.Time) time.Time {
	t := now.Add(p.idle)
	if !p.rest.IsZero() && p.rest.Before(t) {
		t = p.rest
	}
	if !until.IsZero() && until.Before(t) {
		t = until
	}
	if p.rate > 0 && p.spare-p.spent < t.Sub(now) {
		t = now.Add(p.spare - p.spent)
	}
	return t
}
