package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"ferry/proto"
)

// away is a sender to a destination that cannot be reached while it is down.
type away struct {
	*remote
	down   bool // guarded by remote.mu
	failed chan struct{}
}

func newAway() *away {
	return &away{remote: newRemote(), down: true, failed: make(chan struct{}, 1000)}
}

func (a *away) Send(ctx context.Context, o proto.Offer, src proto.Source, w proto.Watcher) (proto.Receipt, error) {
	a.mu.Lock()
	down := a.down
	if down {
		a.sends = append(a.sends, o.Name.String())
	}
	a.mu.Unlock()
	if down {
		a.failed <- struct{}{}
		return proto.Receipt{}, fmt.Errorf("send: %w", errBroken)
	}
	return a.remote.Send(ctx, o, src, w)
}

func (a *away) comeBack() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.down = false
}

// to has a gateway deliver there, with so many workers.
func (a *away) with(deliveries int) func(*Config, *parts) {
	return func(cfg *Config, p *parts) {
		cfg.Destinations[0].Deliveries = deliveries
		p.sender = func(_ Destination, k proto.Keyring) sender { a.keys = k; return a }
	}
}

// awaitFailures waits for attempts to fail, and for the lane to have taken note.
func (c *core) awaitFailures(a *away, n int) {
	c.t.Helper()
	limit := time.After(patience)
	for range n {
		select {
		case <-a.failed:
		case <-limit:
			c.t.Fatalf("fewer than %d attempts: %q", n, a.begun())
		}
	}
	for {
		_, ok := c.lanes.first().breaker.unreachable()
		if ok && c.live.idle() {
			return
		}
		select {
		case <-time.After(time.Millisecond): // its end is not logged
		case <-limit:
			c.t.Fatal("the attempt does not end")
		}
	}
}

// TestUnreachable has many wait for a destination that cannot be reached: one tries it,
// the others stay as they are and say why; then all go, in the order in which they came.
func TestUnreachable(t *testing.T) {
	a := newAway()
	g := openCore(t, t.TempDir(), a.remote, a.with(1))
	var all []Upload
	var want []string
	for i := range 50 {
		all = append(all, g.see(g.take(fmt.Sprint("file ", i), "x").ID))
		want = append(want, all[i].Name)
	}
	g.deliverAll()
	begun := g.now()
	for i, wait := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
		g.awaitFailures(a, 1)
		if first := g.see(all[0].ID); first.State != StateWaiting || first.Attempts.Count != i+1 || !first.Attempts.NextAt.Equal(begun.Add(wait)) {
			t.Errorf("the first is %s after %d attempts, next at %v; want it to wait for %v", first.State, first.Attempts.Count, first.Attempts.NextAt, begun.Add(wait))
		}
		for _, before := range all[1:] {
			words := "default cannot be reached: one upload after another tries it, the next at " + begun.Add(wait).Format("15:04:05") + " UTC"
			if u := g.see(before.ID); u.State != StateQueued || u.Attempts.Count != 0 || u.Change != before.Change ||
				!strings.Contains(*orEmpty(u.Blocked), words) || u.Attempts.NextAt == nil || !u.Attempts.NextAt.Equal(begun.Add(wait)) {
				t.Fatalf("%s is %s after %d attempts, next at %v, change %d, blocked: %s; want it untouched, and %q", u.Name, u.State, u.Attempts.Count, u.Attempts.NextAt, u.Change, *orEmpty(u.Blocked), words)
			}
		}
		s, err := g.destination(t.Context(), DefaultDestination)
		if err != nil || s.State != DestinationFailing || s.Queued != 50 || s.NextAt == nil || !s.NextAt.Equal(begun.Add(wait)) || !strings.Contains(*orEmpty(s.LastError), "connection broken") {
			t.Errorf("the destination: %+v, %v", s, err)
		}
		if i == 2 {
			a.comeBack()
		}
		g.time.await(t, begun.Add(wait))
		g.time.advance(wait)
		begun = g.now()
	}
	for _, u := range all {
		if u := g.await(u.ID, StateDelivered); u.Blocked != nil {
			t.Errorf("%s is delivered, and blocked: %s", u.Name, *u.Blocked)
		}
	}
	want = slices.Concat([]string{want[0], want[0], want[0]}, want)
	if got := a.begun(); !slices.Equal(got, want) {
		t.Errorf("tried in the order %q, want %q", got, want)
	}
	if s, err := g.destination(t.Context(), DefaultDestination); err != nil || s.State != DestinationReady || s.NextAt != nil {
		t.Errorf("the destination: %+v, %v", s, err)
	}
}

// TestProbeOfBefore: a probe for which there was no upload ends none but itself.
func TestProbeOfBefore(t *testing.T) {
	b, now := newBreaker(), time.Now()
	before, _ := b.admit(now, false)
	b.answered() // by an older attempt, as this one looks for an upload
	p, _ := b.admit(now, false)
	b.failed(p, false, now, func(int) time.Duration { return 0 })
	if probe, _ := b.admit(now, false); !before.probe || p.probe || !probe.probe {
		t.Errorf("probes: %v, %v and %v; want the first and the last", before.probe, p.probe, probe.probe)
	}
	again := b.unused(before)
	if p, _ := b.admit(now, false); again || p.given {
		t.Errorf("asked again %v, given %v, as another probe is under way", again, p.given)
	}
}

// breakJobs has all fail that changes a job, by update or by delete, until mend is called.
func (c *core) breakJobs(change string) (mend func()) {
	c.t.Helper()
	c.exec("create trigger broken before " + change + " on jobs begin select raise(abort, 'no'); end")
	return func() {
		c.t.Helper()
		c.exec("drop trigger broken")
	}
}

// TestDatabaseFailsBeside: what is to be tried at once, or because a destination can be reached
// again, is when the database can be written to.
func TestDatabaseFailsBeside(t *testing.T) {
	g := openCore(t, t.TempDir(), newRemote())
	l, u := g.lanes.first(), g.take("f", "x")
	p, _ := l.breaker.admit(g.now(), false)
	l.breaker.failed(p, false, g.now(), func(int) time.Duration { return time.Hour })
	l.breaker.urge(u.ID)
	l.unreachable.Store(true)
	g.exec("update jobs set network = 1, due_at = 1000000000000000000")
	mend := g.breakJobs("update")
	g.reachable(l)
	if mend(); !l.breaker.pulls() {
		t.Error("no worker will pull what waits")
	}
	g.reachable(l)
	var due int64
	if err := g.db.Read().QueryRowContext(t.Context(), "select due_at from jobs").Scan(&due); err != nil || due > g.now().UnixMicro() {
		t.Errorf("due at %d, %v; want now", due, err)
	}
	mend = g.breakJobs("update")
	if d, _, err := g.claim(t.Context(), t.Context(), l, false); err == nil || d != nil {
		t.Errorf("claimed %p, %v", d, err)
	}
	mend()
	d, _, err := g.claim(t.Context(), t.Context(), l, false)
	if err != nil || d == nil {
		t.Fatalf("claimed %p, %v", d, err)
	}
	// That all is well again is recorded, or it is not known.
	g.exec("update destinations set failing = 1")
	l.failing.Store(true)
	mend = g.breakJobs("delete")
	g.deliver(d)
	if mend(); !l.failing.Load() {
		t.Error("what could not be recorded counts")
	}
}

// TestRungWhileDatabaseFails: what has come in for a destination that could not be reached is
// tried at once, if the database could not be written to at first.
func TestRungWhileDatabaseFails(t *testing.T) {
	g := openCore(t, t.TempDir(), newRemote())
	l := g.lanes.first()
	p, _ := l.breaker.admit(g.now(), false)
	l.breaker.failed(p, false, g.now(), func(int) time.Duration { return time.Hour })
	g.deliverAll()
	g.time.await(t, g.now().Add(time.Hour)) // a worker has looked
	g.time.advance(askEach)
	mend := g.breakJobs("update")
	u := g.take("f", "x")
	soon(t, g.events.more) // no job could be claimed
	mend()
	g.time.await(t, g.now().Add(afterTrouble))
	g.time.advance(afterTrouble)
	g.await(u.ID, StateDelivered)
}

// TestUnreachableIsOfOne: another destination is not held up.
func TestUnreachableIsOfOne(t *testing.T) {
	a, other := newAway(), newRemote()
	g := openCore(t, t.TempDir(), a.remote, toOther(other), func(cfg *Config, p *parts) {
		before := p.sender
		p.sender = func(d Destination, k proto.Keyring) sender {
			if d.Name == "other" {
				return before(d, k)
			}
			a.keys = k
			return a
		}
	})
	waits, behind := g.take("f", "x"), g.take("g", "x")
	g.deliverAll()
	g.awaitFailures(a, 1)
	g.await(g.takeFor("other", "f", "x").ID, StateDelivered)
	for _, u := range []Upload{waits, behind} {
		if u := g.see(u.ID); u.Blocked == nil || strings.Contains(*u.Blocked, "paused") {
			t.Errorf("%s, blocked: %s", u.State, *orEmpty(u.Blocked))
		}
	}
}

// TestUnreachableAtStart: a gateway that has just been started has one upload find out,
// and does not wait for what an earlier one has waited for.
func TestUnreachableAtStart(t *testing.T) {
	dir, a := t.TempDir(), newAway()
	g := openCore(t, dir, a.remote, a.with(8))
	var all []Upload
	for i := range 20 {
		all = append(all, g.take(fmt.Sprint("file ", i), "x"))
	}
	stop := g.deliverAll()
	g.awaitFailures(a, 1)
	stop()
	g.shut()
	g = openCore(t, dir, a.remote, a.with(8))
	stop = g.deliverAll()
	g.awaitFailures(a, 1)
	if got := a.begun(); !slices.Equal(got, []string{"file 0", "file 0"}) {
		t.Errorf("tried %q, want the oldest, once each time", got)
	}
	stop()
	g.shut()
	a.comeBack()
	g = openCore(t, dir, a.remote, a.with(8))
	g.deliverAll()
	for _, u := range all {
		g.await(u.ID, StateDelivered)
	}
}

// TestRetryOfUnreachable: what somebody retries or releases is tried at once, whether it
// was tried before or not, and nothing else is; if that works, all is delivered.
func TestRetryOfUnreachable(t *testing.T) {
	a := newAway()
	g := openCore(t, t.TempDir(), a.remote, a.with(4))
	tried, queued, held, other := g.take("tried", "x"), g.take("queued", "x"), g.take("held", "x"), g.take("other", "x")
	if _, err := g.hold(t.Context(), held.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := g.retry(t.Context(), queued.ID); !errors.Is(err, errState) {
		t.Errorf("retry of one that is queued: %v, want %v", err, errState)
	}
	g.deliverAll()
	g.awaitFailures(a, 1)
	if u := g.see(held.ID); u.Blocked != nil {
		t.Errorf("what is held is blocked: %s", *u.Blocked)
	}
	for _, act := range []func() (Upload, error){
		func() (Upload, error) { return g.retry(t.Context(), tried.ID) },
		func() (Upload, error) { return g.retry(t.Context(), queued.ID) },
		func() (Upload, error) { return g.release(t.Context(), held.ID) },
		func() (Upload, error) { return g.retry(t.Context(), tried.ID) },
	} {
		if u, err := act(); err != nil || u.State != StateQueued {
			t.Fatalf("%s is %s, %v", u.Name, u.State, err)
		}
		g.awaitFailures(a, 1)
	}
	if got := a.begun(); !slices.Equal(got, []string{"tried", "tried", "queued", "held", "tried"}) {
		t.Errorf("tried %q", got)
	}
	if next, _ := g.lanes.first().breaker.unreachable(); !next.Equal(g.now().Add(time.Second)) {
		t.Errorf("the next is at %v, want it as it was before", next)
	}
	a.comeBack()
	if _, err := g.retry(t.Context(), queued.ID); err != nil {
		t.Fatal(err)
	}
	for _, u := range []Upload{tried, queued, held, other} {
		g.await(u.ID, StateDelivered)
	}
}

// TestCancelProbe: another one tries when the one that did is gone, and later than at
// the beginning.
func TestCancelProbe(t *testing.T) {
	a := newAway()
	g := openCore(t, t.TempDir(), a.remote, a.with(2))
	first, second := g.take("first", "x"), g.take("second", "x")
	g.deliverAll()
	g.awaitFailures(a, 1)
	g.time.advance(time.Second)
	g.awaitFailures(a, 1)
	g.cancel(first.ID)
	g.time.advance(2 * time.Second)
	g.awaitFailures(a, 1)
	if got := a.begun(); !slices.Equal(got, []string{"first", "first", "second"}) {
		t.Errorf("tried %q", got)
	}
	if at := g.see(second.ID).Attempts.NextAt; !at.Equal(g.now().Add(4 * time.Second)) {
		t.Errorf("next at %v, want %v", at, g.now().Add(4*time.Second))
	}
}

// TestProbeIsLarge: the others do not wait for the end of the file that has shown that
// the destination takes one.
func TestProbeIsLarge(t *testing.T) {
	r := newRemote()
	g := openCore(t, t.TempDir(), r)
	hold := newGate()
	r.expect("large", fails(errBroken), hold.then((*sending).deliver))
	large := g.take("large", "x")
	g.deliverAll()
	g.await(large.ID, StateWaiting)
	small := g.take("small", "x")
	g.time.await(t, g.now().Add(time.Second))
	if u := g.see(small.ID); u.Attempts.Count > 0 {
		t.Errorf("%s after %d attempts, want it queued", u.State, u.Attempts.Count)
	}
	g.time.advance(time.Second)
	hold.await(t)
	g.await(small.ID, StateDelivered)
	close(hold.open)
	g.await(large.ID, StateDelivered)
}

// TestRefusalIsReach: a destination that refuses one has been reached, and an upload's
// own trouble says nothing of it.
func TestRefusalIsReach(t *testing.T) {
	for name, err := range map[string]error{
		"busy": &proto.RefusedError{Why: proto.ErrBusy}, "unauthorized": proto.ErrUnauthorized, "its name": &proto.RefusedError{Why: proto.ErrName},
		"too large here": proto.ErrTooLarge, "its bytes": proto.ErrSource,
	} {
		t.Run(name, func(t *testing.T) {
			r := newRemote()
			g := openCore(t, t.TempDir(), r)
			r.expect("f", fails(errBroken), fails(err))
			u := g.take("f", "x")
			g.deliverAll()
			g.await(u.ID, StateWaiting)
			behind := g.take("behind", "x")
			g.time.await(t, g.now().Add(time.Second))
			g.time.advance(time.Second)
			g.await(behind.ID, StateDelivered)
		})
	}
}

// TestBreaker goes through what is hard to bring about from outside.
func TestBreaker(t *testing.T) {
	now := time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC)
	later := func(n int) time.Duration { return backOff(n, 0.5) }
	closed := func() *breaker {
		b := newBreaker()
		b.answered()
		return b
	}
	admit := func(b *breaker, at time.Time) pass {
		t.Helper()
		p, again := b.admit(at, false)
		if !p.given {
			t.Fatalf("no pass until %v", again)
		}
		return p
	}
	t.Run("what runs when it opens counts once", func(t *testing.T) {
		b := closed()
		one, two := admit(b, now), admit(b, now)
		if !b.failed(one, false, now, later) || b.failed(two, false, now.Add(time.Second), later) {
			t.Error("want the first to open it, and the second to change nothing")
		}
		if next, ok := b.unreachable(); !ok || !next.Equal(now.Add(time.Second)) {
			t.Errorf("next at %v, %v", next, ok)
		}
		if closed, _ := b.reached(two); closed {
			t.Error("closed by what had begun before")
		}
	})
	t.Run("not to blame", func(t *testing.T) {
		b := closed()
		p := admit(b, now)
		b.answered()
		if b.failed(p, false, now, later) {
			t.Error("opened, though another one was answered meanwhile")
		}
	})
	t.Run("cut off again and again", func(t *testing.T) {
		b := closed()
		for i := range mostCut {
			if b.failed(admit(b, now), true, now, later) != (i == mostCut-1) {
				t.Errorf("cut %d opens it: %v", i+1, i != mostCut-1)
			}
		}
		// One that gets through lets the others go, and the next cut opens it for longer.
		probe := admit(b, now.Add(time.Second))
		if closed, since := b.reached(probe); !closed || !since.Equal(now) {
			t.Errorf("closed %v, since %v", closed, since)
		}
		at := now.Add(2 * time.Second)
		if !b.failed(admit(b, at), true, at, later) {
			t.Error("not opened again")
		}
		if next, ok := b.unreachable(); !ok || !next.Equal(at.Add(2*time.Second)) {
			t.Errorf("next at %v, %v", next, ok)
		}
		b.giveBack(probe, at, 0) // which is another's turn by now
		if p, _ := b.admit(at, false); p.given {
			t.Error("a probe before its time")
		}
	})
	t.Run("one probe at a time", func(t *testing.T) {
		b := newBreaker()
		p := admit(b, now)
		if other, again := b.admit(now, false); other.given || !again.IsZero() {
			t.Errorf("%+v, %v", other, again)
		}
		if !b.unused(p) {
			t.Error("who asked meanwhile is forgotten")
		}
		if b.unused(admit(b, now)) {
			t.Error("nobody has asked")
		}
		b.giveBack(admit(b, now), now, time.Second)
		if _, again := b.admit(now, false); !again.Equal(now.Add(time.Second)) {
			t.Errorf("again at %v", again)
		}
	})
	t.Run("what comes in asks, now and then", func(t *testing.T) {
		b := closed()
		for range 10 {
			b.failed(admit(b, now), false, now, later)
			now = now.Add(later(b.failures))
		}
		now = now.Add(-later(b.failures)) // when it has failed last
		if p, again := b.admit(now.Add(askEach-1), true); p.given || !again.Equal(now.Add(maxDelay)) {
			t.Errorf("%+v, again at %v", p, again)
		}
		if p, _ := b.admit(now.Add(askEach), false); p.given {
			t.Errorf("nothing came in: %+v", p)
		}
		if p, _ := b.admit(now.Add(askEach), true); !p.probe {
			t.Errorf("%+v", p)
		}
	})
	t.Run("urgent", func(t *testing.T) {
		b := newBreaker()
		id := ulid.Make()
		b.urge(id)
		if p := admit(b, now); p.only == nil || *p.only != id || p.probe {
			t.Errorf("%+v", p)
		}
		b.urge(id)
		b.answered()
		if p := admit(b, now); p.only != nil || !b.pulls() || b.pulls() {
			t.Errorf("%+v", p)
		}
	})
}
