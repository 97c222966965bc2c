package gateway

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/oklog/ulid/v2"

	"ferry/internal/identity"
	"ferry/proto"
)

// TestOutcomes has one attempt end in each way.
func TestOutcomes(t *testing.T) {
	secretPath := &fs.PathError{Op: "open", Path: "/var/lib/ferry/identity", Err: errors.New("gone")}
	cases := []struct {
		name  string
		do    step
		state State
		words string        // in the last error
		next  time.Duration // from now; 0 for none
	}{
		{"stored", (*sending).deliver, StateDelivered, "", 0},
		{"the name exists", fails(proto.ErrExists), StateFailed, "another name", 0},
		{"too large", fails(proto.ErrTooLarge), StateFailed, "split it", 0},
		{"name", fails(proto.ErrName), StateFailed, "another one", 0},
		{"source", fails(fmt.Errorf("%w: %w", proto.ErrSource, secretPath)), StateFailed, "send the file again", 0},
		{"network", fails(errBroken), StateWaiting, "connection broken", time.Second},
		{"timeout", fails(os.ErrDeadlineExceeded), StateWaiting, "timeout", time.Second},
		{"refused", fails(proto.ErrRefused), StateWaiting, "refused", time.Second},
		{"checksum", fails(proto.ErrChecksum), StateWaiting, "checksum", time.Second},
		{"protocol", fails(proto.ErrProtocol), StateWaiting, "protocol violation", time.Second},
		{"client name taken", fails(proto.ErrNameTaken), StateWaiting, "another client is registered", time.Minute},
		{"identity not saved", fails(secretPath), StateWaiting, "see its log", time.Second},
		{"refused in words", fails(&proto.RefusedError{Words: "no\x1b"}), StateWaiting, "refused (no\x1b)", time.Second},
		{"quota", fails(&proto.RefusedError{Why: proto.ErrQuota, Words: "10 GB", After: time.Minute}), StateWaiting, "quota (10 GB)", time.Minute},
		{"no room", fails(&proto.RefusedError{Why: proto.ErrNoRoom}), StateWaiting, "disk is full", time.Second},
		{"busy", fails(&proto.RefusedError{Why: proto.ErrBusy, After: time.Millisecond}), StateWaiting, "too much to do", time.Second},
		{"busy for long", fails(&proto.RefusedError{Why: proto.ErrBusy, After: 1000 * time.Hour}), StateWaiting, "too much to do", time.Hour},
		{"stopping", fails(&proto.RefusedError{Why: proto.ErrStopping, After: 5 * time.Second}), StateWaiting, "shutting down", 5 * time.Second},
		{"unauthorised", fails(&proto.RefusedError{Why: proto.ErrUnauthorized, Words: "the token is used up"}), StateWaiting, "the token is used up. If its key there", time.Minute},
		{"revoked", fails(&proto.RefusedError{Why: proto.ErrRevoked}), StateWaiting, "has revoked this gateway", time.Minute},
		{"another server", fails(fmt.Errorf("%w: it has the key A, and B is expected", proto.ErrPin)), StateWaiting, "the server is not known: it has the key A", time.Minute},
		{"identity readable by others", fails(fmt.Errorf("%w: make it 0600", identity.ErrUnusable)), StateWaiting, "0600", time.Minute},
		{"too large for its operator", fails(&proto.RefusedError{Why: proto.ErrTooLarge, Words: "1 GB"}), StateFailed, "(1 GB): split it", 0},
		{"name not for its operator", fails(&proto.RefusedError{Why: proto.ErrName, Words: "no folders"}), StateFailed, "(no folders): send it", 0},
		{"other content", fails(&proto.ExistsError{Sum: proto.Sum{SHA256: [32]byte{0xab, 0xcd}}}), StateFailed, "abcd0000", 0},
		{"lost answer", loses, StateWaiting, "may hold the file", time.Second},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dir, r := t.TempDir(), newRemote()
			g := openCore(t, dir, r)
			r.expect("f", c.do)
			u := g.take("f", content(1, large))
			g.deliverAll()
			u = g.await(u.ID, c.state)
			said := *orEmpty(u.Attempts.LastError)
			if c.words == "" && said != "" || !strings.Contains(said, c.words) || strings.Contains(said, "/var/lib") {
				t.Errorf("last error %q, want %q in it and no path", said, c.words)
			}
			if (u.Error != nil) != (c.state == StateFailed) {
				t.Errorf("error %q of an upload that is %s", *orEmpty(u.Error), u.State)
			}
			if u.Attempts.Count != 1 {
				t.Errorf("%d attempts, want 1", u.Attempts.Count)
			}
			if c.next == 0 && u.Attempts.NextAt != nil {
				t.Errorf("next at %v, want none", u.Attempts.NextAt)
			} else if c.next != 0 && !u.Attempts.NextAt.Equal(g.now().Add(c.next)) {
				t.Errorf("next at %v, want %v from %v", u.Attempts.NextAt, c.next, g.now())
			}
			if u.Phase != nil {
				t.Errorf("phase %s", *u.Phase)
			}
			if c.state == StateDelivered {
				wantDelivered(t, g, u)
				waitSpool(t, g, dir)
			} else {
				wantSpool(t, dir, u.ID.String())
			}
		})
	}
}

// waitSpool waits until the spool is empty: a file goes after the commit that
// says so.
func waitSpool(t *testing.T, g *core, dir string) {
	t.Helper()
	for d := range g.deliveries() {
		soon(t, d.done)
	}
	wantSpool(t, dir)
}

// deliveries are those that run just now.
func (c *core) deliveries() map[*delivery]bool {
	c.live.mu.Lock()
	defer c.live.mu.Unlock()
	all := map[*delivery]bool{}
	for _, d := range c.live.running {
		all[d] = true
	}
	return all
}

func wantDelivered(t *testing.T, g *core, u Upload) {
	t.Helper()
	if u.DeliveredAt == nil || !u.DeliveredAt.Equal(g.now()) {
		t.Errorf("delivered at %v, want %v", u.DeliveredAt, g.now())
	}
	if want := (Progress{*u.Size, *u.Size, *u.Size, *u.Size}); u.Progress != want {
		t.Errorf("progress %+v, want %+v", u.Progress, want)
	}
}

// TestRefusedAfterLostAnswer: the server is still busy storing what the first
// attempt confirmed when the second one confirms the same, and refuses that.
// What the first one may have left there is not forgotten.
func TestRefusedAfterLostAnswer(t *testing.T) {
	r := newRemote()
	r.expect("f",
		func(s *sending) error { return errors.Join(s.match(), errBroken) },
		func(s *sending) error {
			err := s.match()
			s.store() // by the first attempt
			return errors.Join(err, proto.ErrRefused)
		})
	g := openCore(t, t.TempDir(), r)
	u := g.take("f", "content")
	g.deliverAll()
	g.await(u.ID, StateWaiting)
	g.time.advance(maxDelay)
	for g.see(u.ID).Attempts.Count < 2 || g.see(u.ID).State == StateDelivering {
		time.Sleep(time.Millisecond)
	}
	g.time.advance(maxDelay)
	g.await(u.ID, StateDelivered)
}

// TestOpenOutcomeOfOtherContent: what was cancelled after it had matched may
// yet be stored. That the name exists does not mean then that the next upload
// of that name is.
func TestOpenOutcomeOfOtherContent(t *testing.T) {
	r := newRemote()
	matches := func(s *sending) error { return errors.Join(s.match(), errBroken) }
	r.expect("f", matches, matches)
	g := openCore(t, t.TempDir(), r)
	first := g.take("f", "first")
	second := g.take("f", "second")
	g.deliverAll()
	g.await(first.ID, StateWaiting)
	g.cancel(first.ID)
	g.await(second.ID, StateWaiting)
	r.mu.Lock()
	r.files["f"] = "first" // after all
	r.mu.Unlock()
	g.time.advance(maxDelay)
	if got := g.await(second.ID, StateFailed); got.Error == nil || !strings.Contains(*got.Error, "not known here what is in it") {
		t.Errorf("%+v, want that the content is not known", got)
	}
}

// TestPanicInDelivery wants other uploads to go on, and this one to be tried
// again.
func TestPanicInDelivery(t *testing.T) {
	r := newRemote()
	r.expect("f", func(*sending) error { panic("bug") })
	g := openCore(t, t.TempDir(), r)
	u := g.take("f", "content")
	g.deliverAll()
	g.await(u.ID, StateWaiting)
	g.await(g.take("other", "x").ID, StateDelivered)
	g.time.advance(maxDelay)
	g.await(u.ID, StateDelivered)
}

// TestLostAnswer loses the acknowledgement of what was stored: that the name
// exists then means that it is delivered.
func TestLostAnswer(t *testing.T) {
	r := newRemote()
	g := openCore(t, t.TempDir(), r)
	r.expect("f", loses)
	u := g.take("f", "content")
	g.deliverAll()
	g.await(u.ID, StateWaiting)
	g.time.advance(time.Minute)
	u = g.await(u.ID, StateDelivered)
	if u.Attempts.Count != 2 || u.Attempts.LastError != nil {
		t.Errorf("%d attempts, last error %q; want 2 and none", u.Attempts.Count, *orEmpty(u.Attempts.LastError))
	}
	if d := cmp.Diff(map[string]string{"f": "content"}, r.stored()); d != "" {
		t.Error(d)
	}
}

// TestRefusedAfterMatch: what the destination refused, it did not keep. If the
// name exists afterwards, somebody else's file has it.
func TestRefusedAfterMatch(t *testing.T) {
	r := newRemote()
	g := openCore(t, t.TempDir(), r)
	r.expect("f", func(s *sending) error {
		if err := s.match(); err != nil {
			return err
		}
		return proto.ErrRefused
	}, fails(proto.ErrExists))
	u := g.take("f", "content")
	g.deliverAll()
	g.await(u.ID, StateWaiting)
	g.time.advance(time.Minute)
	u = g.await(u.ID, StateFailed)
	if !strings.Contains(*u.Error, "not known here") {
		t.Errorf("error %q", *u.Error)
	}
}

// TestSameName sends the same name again: the same content is success, other
// content a conflict that names both, also after the first was forgotten and
// the gateway was started anew.
func TestSameName(t *testing.T) {
	dir, r := t.TempDir(), newRemote()
	g := openCore(t, dir, r)
	stop := g.deliverAll()
	first := g.take("f", "content")
	g.await(first.ID, StateDelivered)
	if _, gone, err := g.remove(t.Context(), first.ID); err != nil || !gone {
		t.Fatalf("gone %v, %v", gone, err)
	}
	stop()
	g.shut()

	g = openCore(t, dir, r)
	g.deliverAll()
	again := g.take("f", "content")
	other := g.take("f", "other content")
	g.await(again.ID, StateDelivered)
	other = g.await(other.ID, StateFailed)
	for _, sum := range []string{*first.SHA256, *other.SHA256, "another name"} {
		if !strings.Contains(*other.Error, sum) {
			t.Errorf("error %q, want %s in it", *other.Error, sum)
		}
	}
	if d := cmp.Diff(map[string]string{"f": "content"}, r.stored()); d != "" {
		t.Error(d)
	}
}

// TestOneOfANameAtATime has uploads of one name wait for each other, in order,
// while others pass.
func TestOneOfANameAtATime(t *testing.T) {
	r := newRemote()
	g := openCore(t, t.TempDir(), r)
	hold := newGate()
	r.expect("same", hold.then(loses))
	a, b, c := g.take("same", "1"), g.take("same", "1"), g.take("same", "3")
	d := g.take("other", "4")
	g.deliverAll()
	hold.await(t)
	g.await(d.ID, StateDelivered)
	close(hold.open)
	g.await(a.ID, StateWaiting) // it matched, and nobody knows yet
	for _, u := range []Upload{b, c} {
		if u := g.see(u.ID); u.State != StateQueued || u.Attempts.Count != 0 {
			t.Errorf("%s after %d attempts, want it queued", u.State, u.Attempts.Count)
		}
	}
	e := g.take("another", "5")
	g.await(e.ID, StateDelivered) // it passes, and shows that the network works again
	g.await(a.ID, StateDelivered)
	g.await(b.ID, StateDelivered)
	g.await(c.ID, StateFailed)
	if d := cmp.Diff([]string{"another", "other", "same", "same", "same", "same"}, slices.Sorted(slices.Values(r.begun()))); d != "" {
		t.Errorf("sends (-want +got):\n%s", d)
	}
	if r.twice {
		t.Error("two of one name were sent at once")
	}
}

// TestOrder delivers in the order in which uploads came, with one worker.
func TestOrder(t *testing.T) {
	r := newRemote()
	g := openCore(t, t.TempDir(), r, func(cfg *Config, _ *parts) { cfg.Destinations[0].Deliveries = 1 })
	var want []string
	var last Upload
	for i := range 50 {
		name := fmt.Sprint("file ", i)
		want = append(want, name)
		last = g.take(name, name)
		if i%7 == 0 {
			g.time.advance(time.Millisecond)
		}
	}
	g.deliverAll()
	g.await(last.ID, StateDelivered)
	if d := cmp.Diff(want, r.begun()); d != "" {
		t.Errorf("order (-want +got):\n%s", d)
	}
}

// TestWorkers has no more sends at once than are allowed, and as many.
func TestWorkers(t *testing.T) {
	for _, c := range []struct {
		to            string
		workers, want int
	}{{"v4://127.0.0.1:1", 0, 32}, {"v4://127.0.0.1:1", 5, 5}, {"v3://127.0.0.1:1?window=64", 0, 4}, {"v3://127.0.0.1:1?window=64", 2, 2}, {"v3://127.0.0.1:1?window=64", 100, 8}, {"v3://127.0.0.1:1", 4, 1}} {
		t.Run(fmt.Sprintf("%d to %s", c.workers, c.to), func(t *testing.T) {
			r := newRemote()
			g := openCore(t, t.TempDir(), r, func(cfg *Config, _ *parts) {
				cfg.Destinations = []Destination{{To: destination(t, c.to), Deliveries: c.workers}}
			})
			var gates []*gate
			var last Upload
			for i := range 3 * c.want {
				gates = append(gates, newGate())
				name := fmt.Sprint(i)
				r.expect(name, gates[i].then((*sending).deliver))
				last = g.take(name, name)
			}
			g.deliverAll()
			for i, hold := range gates {
				hold.await(t)
				if i >= c.want-1 {
					close(gates[i-c.want+1].open)
				}
			}
			for _, hold := range gates[len(gates)-c.want+1:] {
				close(hold.open)
			}
			g.await(last.ID, StateDelivered)
			if r.most != c.want {
				t.Errorf("%d sends at once, want %d", r.most, c.want)
			}
		})
	}
}

// TestBackOff wants longer and longer delays, visible, and no attempt before
// its time.
func TestBackOff(t *testing.T) {
	r := newRemote()
	g := openCore(t, t.TempDir(), r)
	want := []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second}
	for range want {
		r.expect("f", fails(errBroken))
	}
	u := g.take("f", "x")
	g.deliverAll()
	for i, d := range want {
		u = g.await(u.ID, StateWaiting)
		for u.Attempts.Count != i+1 {
			soon(t, g.events.more)
			u = g.await(u.ID, StateWaiting)
		}
		if next := g.now().Add(d); !u.Attempts.NextAt.Equal(next) {
			t.Errorf("after %d failures: next at %v, want %v", i+1, u.Attempts.NextAt, next)
		}
		g.time.advance(d - time.Millisecond)
		g.lanes.first().wake(1)
		if n := g.see(u.ID).Attempts.Count; n != i+1 {
			t.Errorf("attempt %d came too early", n)
		}
		g.time.advance(time.Millisecond)
	}
	g.await(u.ID, StateDelivered)
}

func TestBackOffIsBounded(t *testing.T) {
	before := time.Duration(0)
	for n := 1; n < 100; n++ {
		least, most := backOff(n, 0), backOff(n, 1)
		if least <= 0 || most > maxDelay*6/5 || least >= most || most < before {
			t.Errorf("after %d failures: %v to %v", n, least, most)
		}
		before = most
	}
	if got := backOff(1, 0.5); got != time.Second {
		t.Errorf("the first delay is %v, want 1s", got)
	}
	if got := backOff(50, 0.5); got != maxDelay {
		t.Errorf("the longest delay is %v, want %v", got, maxDelay)
	}
}

// TestNetworkWorksAgain pulls forward what waits for the network alone.
func TestNetworkWorksAgain(t *testing.T) {
	r := newRemote()
	g := openCore(t, t.TempDir(), r)
	// They are on their way when the network fails, and have got through.
	one, two := newGate(), newGate()
	r.expect("a", one.then(fails(errBroken)))
	r.expect("b", two.then(fails(errBroken)))
	r.expect("c", fails(proto.ErrRefused))
	a, b, c := g.take("a", "1"), g.take("b", "2"), g.take("c", "3")
	g.deliverAll()
	one.await(t)
	two.await(t)
	g.await(c.ID, StateWaiting)
	close(one.open)
	close(two.open)
	for _, u := range []Upload{a, b} {
		g.await(u.ID, StateWaiting)
	}
	d := g.take("d", "4")
	for _, u := range []Upload{a, b, d} {
		g.await(u.ID, StateDelivered)
	}
	if u := g.see(c.ID); u.State != StateWaiting {
		t.Errorf("what was refused is %s, want it to keep its delay", u.State)
	}
}

// TestLiveProgress shows phase and progress while a file is sent.
func TestLiveProgress(t *testing.T) {
	r := newRemote()
	g := openCore(t, t.TempDir(), r)
	hold := newGate()
	r.expect("f", hold.then((*sending).deliver))
	u := g.take("f", "12345")
	g.deliverAll()
	hold.await(t)
	page, err := g.list(t.Context(), filter{}, 10)
	if err != nil {
		t.Fatal(err)
	}
	for _, got := range []Upload{g.see(u.ID), page[0]} {
		if got.State != StateDelivering || *got.Phase != proto.PhaseSending || got.Progress != (Progress{1, 5, 1, 5}) {
			t.Errorf("%s, phase %v, progress %+v", got.State, *got.Phase, got.Progress)
		}
	}
	close(hold.open)
	g.await(u.ID, StateDelivered)
}

// takeLease has another worker claim a job, whoever has it.
func (c *core) takeLease(id ulid.ULID) {
	c.t.Helper()
	c.exec("update jobs set fence = fence + 1 where upload = $1", id)
}

// TestLostLease has somebody else claim a job: who had it must stop and must
// not write.
func TestLostLease(t *testing.T) {
	r := newRemote()
	g := openCore(t, t.TempDir(), r)
	hold := newGate()
	r.expect("f", hold.then((*sending).deliver))
	u := g.take("f", "x")
	g.deliverAll()
	hold.await(t)
	d := g.live.delivery(u.ID)
	g.takeLease(u.ID)
	begun := g.now()
	g.time.await(t, begun.Add(heartbeatEvery))
	g.time.advance(heartbeatEvery)
	soon(t, d.done)
	if cause := context.Cause(d.ctx); !errors.Is(cause, errLeaseLost) {
		t.Errorf("the delivery ended with %v, want %v", cause, errLeaseLost)
	}
	if u := g.see(u.ID); u.State != StateDelivering {
		t.Errorf("the upload is %s: who lost the lease wrote", u.State)
	}
	// Nobody extends the other lease, so that it lapses.
	g.time.await(t, begun.Add(lease))
	g.time.advance(lease - heartbeatEvery)
	g.await(u.ID, StateDelivered)
}

// TestClaimTakenBack has an upload become due between the claims of two workers, of one group
// that has to be run again as another member of it fails: then it is the first who gets it. Neither
// waits for the delivery that the second one had claimed, and did not keep.
func TestClaimTakenBack(t *testing.T) {
	for _, lapsed := range []bool{false, true} {
		t.Run(fmt.Sprintf("after a lease that lapsed %v", lapsed), func(t *testing.T) { testClaimTakenBack(t, lapsed) })
	}
}

func testClaimTakenBack(t *testing.T, lapsed bool) {
	g := openCore(t, t.TempDir(), newRemote())
	l := g.lanes.first()
	u := g.take("f", "x")
	claim := func() *delivery {
		d, _, err := g.claimWith(context.Background(), context.Background(), l, pass{given: true})
		if err != nil {
			t.Error(err)
		}
		return d
	}
	end := func(d *delivery) {
		d.stop(nil)
		g.live.end(d)
		close(d.done)
	}
	var before *delivery
	if lapsed {
		before = claim()
	} else {
		g.exec("update jobs set due_at = $1 where upload = $2", g.now().Add(time.Second).UnixMicro(), u.ID)
	}
	release := g.holdWriter()
	claims, others := make(chan *delivery, 2), make(chan error, 2)
	later := sync.OnceFunc(func() { g.time.advance(lease) })
	errBad := errors.New("bad")
	for _, next := range []func(){
		func() { claims <- claim() },
		func() {
			others <- g.db.Update(context.Background(), func(context.Context, *sql.Tx) error { later(); return nil })
		},
		func() { claims <- claim() },
		func() {
			others <- g.db.Update(context.Background(), func(context.Context, *sql.Tx) error { return errBad })
		},
	} {
		go next()
		time.Sleep(20 * time.Millisecond)
	}
	release()
	if err := errors.Join(soon(t, others), soon(t, others)); !errors.Is(err, errBad) {
		t.Error(err)
	}
	d, other := soon(t, claims), soon(t, claims)
	if d == nil {
		d, other = other, nil
	}
	if d == nil || other != nil {
		t.Fatalf("claimed are %p and %p, want one", d, other)
	}
	if d.ctx.Err() != nil || g.live.delivery(u.ID) != d {
		t.Errorf("%p is stopped by %v, and %p is to be found; want it, and on its way", d, d.ctx.Err(), g.live.delivery(u.ID))
	}
	if d.replaced != before {
		t.Errorf("it waits for %p, want %p", d.replaced, before)
	}
	if end(d); !g.live.idle() {
		t.Error("somebody delivers yet")
	}
}

// TestReplacedTakesLong: a delivery that has lost its lease takes long to end. The one that has
// replaced it waits for that, and keeps its own lease, also when it is cancelled.
func TestReplacedTakesLong(t *testing.T) {
	t.Run("", func(t *testing.T) { testReplacedTakesLong(t, StateDelivered) })
	t.Run("cancelled", func(t *testing.T) { testReplacedTakesLong(t, StateCancelled) })
}

func testReplacedTakesLong(t *testing.T, end State) {
	r := newRemote()
	g := openCore(t, t.TempDir(), r, func(cfg *Config, _ *parts) { cfg.Destinations[0].Deliveries = 2 })
	began, stuck, stopped := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	unstick := sync.OnceFunc(func() { close(stuck) })
	r.expect("f", func(s *sending) error {
		s.progress(proto.PhaseSending, 1)
		close(began)
		<-s.ctx.Done()
		stopped <- context.Cause(s.ctx)
		<-stuck
		return context.Cause(s.ctx)
	})
	u := g.take("f", "x")
	begun := g.now()
	g.deliverAll()
	t.Cleanup(unstick) // before the gateway is to end
	soon(t, began)
	g.takeLease(u.ID) // so that it cannot be kept
	g.time.await(t, begun.Add(heartbeatEvery))
	g.time.await(t, begun.Add(lease))
	g.time.advance(lease)
	if cause := soon(t, stopped); !errors.Is(cause, errLeaseLost) {
		t.Errorf("it was stopped by %v, want %v", cause, errLeaseLost)
	}
	if end == StateCancelled {
		d := g.live.delivery(u.ID)
		cancelled := make(chan struct{})
		go func() { g.cancel(u.ID); close(cancelled) }()
		soon(t, d.ctx.Done())
		defer func() { soon(t, cancelled) }()
	}
	for range 10 {
		g.time.await(t, g.now().Add(heartbeatEvery))
		g.time.advance(heartbeatEvery)
	}
	if n := len(r.begun()); n != 1 {
		t.Errorf("%d were sent, and the first has not ended", n)
	}
	unstick()
	if u := g.await(u.ID, end); u.Attempts.Count != 3 { // one is takeLease's
		t.Errorf("%d attempts, want 3", u.Attempts.Count)
	}
}

// TestTakeBackAfterEnd takes a claim back when the delivery that it had replaced has ended.
func TestTakeBackAfterEnd(t *testing.T) {
	l := newLive()
	a, b := &delivery{}, &delivery{}
	l.run(a)
	if l.run(b); b.replaced != a {
		t.Errorf("%p was replaced, want %p", b.replaced, a)
	}
	l.end(a)
	if l.takeBack(b); !l.idle() {
		t.Error("one that has ended is there again")
	}
	l.run(a)
	l.run(b)
	a.ended = false
	if l.takeBack(b); l.delivery(a.id) != a {
		t.Error("one that has not ended is gone")
	}
}

// TestHeartbeats keeps a lease for longer than it lasts by itself.
func TestHeartbeats(t *testing.T) {
	r := newRemote()
	g := openCore(t, t.TempDir(), r, func(cfg *Config, _ *parts) { cfg.Destinations[0].Deliveries = 1 })
	hold := newGate()
	r.expect("f", hold.then((*sending).deliver))
	u := g.take("f", "x")
	g.deliverAll()
	hold.await(t)
	for range 10 {
		g.time.await(t, g.now().Add(heartbeatEvery)) // after the one before was written
		g.time.advance(heartbeatEvery)
	}
	close(hold.open)
	if u := g.await(u.ID, StateDelivered); u.Attempts.Count != 1 {
		t.Errorf("%d attempts, want 1", u.Attempts.Count)
	}
}

// TestShutdown gives back what does not end in time, and what has ended is
// recorded.
func TestShutdown(t *testing.T) {
	dir, r := t.TempDir(), newRemote()
	g := openCore(t, dir, r, func(cfg *Config, _ *parts) { cfg.Grace = 50 * time.Millisecond })
	long, matched := newGate(), newGate()
	r.expect("long", long.then((*sending).deliver))
	r.expect("matched", matched.matchedThen(storeMatched))
	a, b := g.take("long", "1"), g.take("matched", "2")
	stop := g.deliverAll()
	long.await(t)
	matched.await(t)
	stop()
	for _, u := range []Upload{a, b} {
		if u := g.see(u.ID); u.State != StateQueued || u.Attempts.LastError != nil {
			t.Errorf("after the stop %s is %s, last error %q; want it queued", u.Name, u.State, *orEmpty(u.Attempts.LastError))
		}
	}
	g.shut()
	r.files["matched"] = "2" // it was stored after all
	g = openCore(t, dir, r)
	g.deliverAll()
	g.await(a.ID, StateDelivered)
	g.await(b.ID, StateDelivered)
	if d := cmp.Diff(map[string]string{"long": "1", "matched": "2"}, r.stored()); d != "" {
		t.Error(d)
	}
}

// TestShutdownWaits lets a delivery end that takes less than the grace.
func TestShutdownWaits(t *testing.T) {
	r := newRemote()
	g := openCore(t, t.TempDir(), r, func(cfg *Config, _ *parts) { cfg.Grace = time.Hour })
	hold := newGate()
	r.expect("f", hold.then((*sending).deliver))
	u := g.take("f", "x")
	stop := g.deliverAll()
	hold.await(t)
	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()
	later := g.take("later", "y") // a request that was under way
	close(hold.open)
	soon(t, stopped)
	if u := g.see(u.ID); u.State != StateDelivered {
		t.Errorf("after the stop it is %s, want delivered", u.State)
	}
	if s := g.see(later.ID).State; s != StateQueued && s != StateDelivered {
		t.Errorf("the other one is %s", s)
	}
}

// TestCrash copies the data folder at every step of a delivery, as kill -9
// leaves it, and goes on from there: each file is delivered once.
func TestCrash(t *testing.T) {
	copyAt := func(t *testing.T, dir string) (string, step) {
		snapshot := t.TempDir()
		return snapshot, func(*sending) error {
			return errors.Join(os.CopyFS(snapshot, os.DirFS(dir)), os.Chmod(filepath.Join(snapshot, identity.Name), 0o600))
		}
	}
	steps := map[string]func(snap step) step{
		"before anything is sent": func(snap step) step {
			return func(s *sending) error { return errors.Join(snap(s), s.deliver()) }
		},
		"matched, not stored": func(snap step) step {
			return func(s *sending) error { return errors.Join(s.match(), snap(s), errBroken) }
		},
		"stored, not acknowledged": func(snap step) step {
			return func(s *sending) error { return errors.Join(s.deliver(), snap(s)) }
		},
	}
	for name, at := range steps {
		for _, size := range []int{10, large} {
			t.Run(fmt.Sprintf("%s/%d", name, size), func(t *testing.T) {
				dir, r := t.TempDir(), newRemote()
				g := openCore(t, dir, r)
				snapshot, snap := copyAt(t, dir)
				taken := make(chan struct{})
				kept := map[string]string{}
				r.expect("f", at(func(s *sending) error {
					defer close(taken)
					kept = r.stored() // what the destination has at the crash
					return snap(s)
				}))
				u := g.take("f", content(3, size))
				g.deliverAll()
				soon(t, taken)

				after := newRemote()
				after.files = kept
				g2 := openCore(t, snapshot, after)
				if u := g2.see(u.ID); u.State != StateQueued {
					t.Errorf("after the crash it is %s, want queued", u.State)
				}
				g2.deliverAll()
				g2.await(u.ID, StateDelivered)
				if d := cmp.Diff(map[string]string{"f": content(3, size)}, after.stored()); d != "" {
					t.Error("what is stored differs")
				}
				waitSpool(t, g2, snapshot)
			})
		}
	}
}

// TestRestart makes everything runnable at once: what waits for its next
// attempt, too.
func TestRestart(t *testing.T) {
	dir, r := t.TempDir(), newRemote()
	g := openCore(t, dir, r)
	r.expect("waits", fails(errBroken))
	a := g.take("waits", "1")
	stop := g.deliverAll()
	g.await(a.ID, StateWaiting)
	stop()
	b := g.take("queued", "2")
	g.shut()
	g = openCore(t, dir, r)
	if u := g.see(a.ID); u.State != StateQueued || u.Attempts.NextAt != nil || u.Attempts.LastError == nil {
		t.Errorf("after the restart: %s, next at %v", u.State, u.Attempts.NextAt)
	}
	g.deliverAll()
	g.await(a.ID, StateDelivered)
	g.await(b.ID, StateDelivered)
}

// TestOverTheWire delivers with the real client to the server half of the
// protocol, over loopback.
func TestOverTheWire(t *testing.T) {
	srv := listenNative(t, proto.AcceptV3)
	dir := t.TempDir()
	g := openCore(t, dir, newRemote(), func(cfg *Config, p *parts) {
		cfg.Destinations = to(t, "v3://"+srv.address+"?window=16")
		p.sender, p.clock = nil, clock{}
	})
	g.deliverAll()
	want := map[string]string{"empty": "", "small": content(1, 7902), "edge": content(2, smallBody), "large": content(3, 1<<20)}
	ids := map[string]Upload{}
	for name, c := range want {
		ids[name] = g.take(name, c)
	}
	for name, u := range ids {
		u = g.await(u.ID, StateDelivered)
		if u.Progress.Bytes != int64(len(want[name])) || u.Progress.Packets != u.Progress.TotalPackets || u.Progress.Packets == 0 {
			t.Errorf("%s: progress %+v", name, u.Progress)
		}
	}
	if d := cmp.Diff(want, srv.stored()); d != "" {
		t.Error("what is stored differs")
	}
	same, other := g.take("small", want["small"]), g.take("small", "something else")
	g.await(same.ID, StateDelivered)
	g.await(other.ID, StateFailed)
	if n := srv.registrations(); n != 1 {
		t.Errorf("registered %d times, want once", n)
	}
}

// TestDestinationIsBack has the destination away, with the real client, and
// back again.
func TestDestinationIsBack(t *testing.T) {
	srv := listenNative(t, proto.AcceptV3)
	away, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	away.Close()
	dir := t.TempDir()
	to := func(address string) func(cfg *Config, p *parts) {
		return func(cfg *Config, p *parts) {
			cfg.Destinations = to(t, "v3://"+address+"?window=16")
			p.sender, p.clock = nil, clock{}
		}
	}
	g := openCore(t, dir, newRemote(), to(away.Addr().String()))
	stop := g.deliverAll()
	u := g.take("f", "content")
	u = g.await(u.ID, StateWaiting)
	if !strings.Contains(*u.Attempts.LastError, "refused") {
		t.Errorf("last error %q", *u.Attempts.LastError)
	}
	stop()
	g.shut()
	g = openCore(t, dir, newRemote(), to(srv.address))
	g.deliverAll()
	u = g.await(u.ID, StateDelivered)
	if want := g.lanes.first().To.String(); u.Destination != want {
		t.Errorf("destination %s, want %s", u.Destination, want)
	}
	if _, err := os.Stat(filepath.Join(dir, identity.Name)); err != nil {
		t.Error(err)
	}
}
