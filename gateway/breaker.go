package gateway

import (
	"errors"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"ferry/proto"
)

// mostCut is how many attempts may be cut off one after another, once they have got
// through, before that is taken for the destination's doing and not for that of a file or
// of a moment.
const mostCut = 8

// askEach is how often what comes in may have a destination tried before its time.
const askEach = 30 * time.Second

// A breaker keeps what waits for a destination from being tried as long as that cannot
// be reached: one upload after another would fail, and each failure is a row to be
// written. Once the network has failed, and no attempt of the time has been answered,
// one upload at a time tries the destination, the probe: later each time, but soon when
// another one comes in. All others stay as they are. They go on as soon as it takes a
// file's bytes, or answers anything at all. So does a gateway begin that has just been
// started: nothing is known of its destinations.
//
// An upload that somebody has retried is tried at once, whatever is known.
//
// It is safe for concurrent use.
type breaker struct {
	mu       sync.Mutex
	open     bool                   // as a fuse that has blown: the probe alone passes
	trips    int                    // how often it has opened, or a probe has failed
	answers  int                    // of the destination, to any attempt
	cut      int                    // attempts that had got through, since the last of the answers
	failures int                    // the same of those that opened it, and of probes
	since    time.Time              // when the first of them was
	last     time.Time              // when the last of them was
	next     time.Time              // when the next probe may begin
	probing  bool                   // it has
	refused  bool                   // somebody asked meanwhile
	pull     bool                   // what waits only for the network may be tried
	urgent   map[ulid.ULID]struct{} // what somebody has retried while it is open
}

// newBreaker returns one that lets a probe pass first.
func newBreaker() *breaker { return &breaker{open: true, urgent: map[ulid.ULID]struct{}{}} }

// A pass is what an attempt has to be made with. The zero value is none.
type pass struct {
	given   bool
	probe   bool       // unused or giveBack has to be called
	only    *ulid.ULID // the upload that it is for
	trips   int
	answers int
	since   time.Time // of an open breaker
}

// admit gives a pass, or tells when to ask again; zero if that will be said. rung says
// that something has come in.
func (b *breaker) admit(now time.Time, rung bool) (p pass, again time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p = pass{given: true, trips: b.trips, answers: b.answers}
	if !b.open {
		return p, time.Time{}
	}
	p.since = b.since
	for id := range b.urgent {
		delete(b.urgent, id)
		p.only = &id
		return p, time.Time{}
	}
	switch {
	case b.probing:
		b.refused = true
		return pass{}, time.Time{}
	case now.Before(b.next) && (!rung || now.Before(b.last.Add(askEach))):
		return pass{}, b.next
	}
	b.probing, p.probe = true, true
	return p, time.Time{}
}

// urge has an upload tried at once, if it would not be; a worker has to be woken.
func (b *breaker) urge(id ulid.ULID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open {
		b.urgent[id] = struct{}{}
	}
}

// unused ends a probe for which there was no upload. again tells that somebody has
// asked meanwhile, perhaps for one that has come in since.
func (b *breaker) unused(p pass) (again bool) {
	if !p.probe {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.trips != b.trips {
		return false // there may be another one by now
	}
	again = b.refused
	b.probing, b.refused = false, false
	return again
}

// giveBack ends a probe. If it has told nothing, the next one may begin after a while.
func (b *breaker) giveBack(p pass, now time.Time, wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.probe && b.open && p.trips == b.trips {
		b.probing, b.next = false, now.Add(wait)
	}
}

// failed takes note that the network has failed an attempt, which had got through or not.
// tripped tells that this has opened the breaker. It does not if the destination has
// answered another attempt meanwhile: then it is not to blame.
func (b *breaker) failed(p pass, through bool, now time.Time, delay func(failures int) time.Duration) (tripped bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.answers != b.answers || p.trips != b.trips || b.open && !p.probe {
		return false
	}
	if through {
		if b.cut++; b.cut < mostCut {
			return false
		}
	}
	tripped = !b.open || b.failures == 0
	if b.failures == 0 {
		b.since = now
	}
	b.failures++
	b.trips++
	b.last = now
	b.open, b.probing, b.next = true, false, now.Add(delay(b.failures))
	return tripped
}

// answered takes note that the destination has answered an attempt. closed tells that
// it was thought to be out of reach, and since when.
func (b *breaker) answered() (closed bool, since time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	closed, since = b.close(), b.since
	b.answers++
	b.cut, b.failures = 0, 0
	return closed, since
}

// reached takes note that an attempt has got through to the destination. It has yet to
// be answered: how often it was not before stays known.
func (b *breaker) reached(p pass) (closed bool, since time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.trips != b.trips {
		return false, time.Time{} // it has begun before that
	}
	return b.close(), b.since
}

// close lets everything pass; mu is held.
func (b *breaker) close() bool {
	if !b.open {
		return false
	}
	b.open, b.probing, b.pull = false, false, true
	clear(b.urgent)
	return true
}

// pulls reports, once, that what waits only for the network may be tried.
func (b *breaker) pulls() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	pull := b.pull
	b.pull = false
	return pull
}

// pullAgain has pulls report that again, as it could not be done.
func (b *breaker) pullAgain() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pull = true
}

// unreachable reports whether the destination is known to be out of reach, and when it
// is tried next: a time that has passed if that is now.
func (b *breaker) unreachable() (next time.Time, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.next, b.open && b.failures > 0
}

// urge has an upload tried at once that somebody has retried or released.
func (g *Gateway) urge(u *Upload) {
	if l := g.lanes.byName[u.DestinationName]; l != nil {
		l.breaker.urge(u.ID)
	}
	g.wake(u)
}

// reached lets others follow an attempt that has got through.
func (g *Gateway) reached(d *delivery) {
	if closed, since := d.lane.breaker.reached(d.pass); closed {
		g.follow(d.lane, since)
	}
}

// noteNetwork has the lane's breaker learn from how an attempt has ended. It is called
// before that is recorded: until it was, others would be tried in vain.
func (g *Gateway) noteNetwork(d *delivery, o outcome, err error) {
	b := d.lane.breaker
	if o.network && o.theirs {
		var wait time.Duration
		through := d.transfer().sends > 0 && !errors.Is(err, proto.ErrStopping)
		tripped := b.failed(d.pass, through, g.now(), func(failures int) time.Duration {
			wait = max(o.delay, backOff(failures, g.jitter()))
			return wait
		})
		if tripped {
			g.log.Warn("the destination cannot be reached: uploads wait until it can be", "destination", d.lane.Name, "err", err, "next_in", wait)
		}
		return
	}
	if !o.answered(err) {
		return
	}
	if closed, since := b.answered(); closed {
		g.follow(d.lane, since)
	}
}

// follow has what waits for a destination delivered that can be reached.
func (g *Gateway) follow(l *lane, since time.Time) {
	if !since.IsZero() {
		g.log.Info("the destination can be reached", "destination", l.Name, "after", g.now().Sub(since))
	}
	l.wake(cap(l.bell))
}
