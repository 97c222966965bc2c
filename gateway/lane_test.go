package gateway

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"

	"ferry/proto"
)

// andOther gives a gateway a second destination.
func andOther(cfg *Config, _ *parts) {
	to, err := proto.ParseDestination("v4://other:1")
	if err != nil {
		panic(err)
	}
	cfg.Destinations = append(cfg.Destinations, Destination{Name: "other", To: to})
}

// toOther has a remote of its own there.
func toOther(r *remote) func(*Config, *parts) {
	return func(cfg *Config, p *parts) {
		andOther(cfg, p)
		first := p.sender
		p.sender = func(d Destination, k proto.Keyring) sender {
			if d.Name != "other" {
				return first(d, k)
			}
			r.keys = k
			return r
		}
	}
}

// takeFor is take for a destination.
func (c *core) takeFor(destination, name, content string) Upload {
	c.t.Helper()
	o, err := c.choose(c.t.Context(), destination)
	if err != nil {
		c.t.Fatal(err)
	}
	r := c.receiveOnce(c.t.Context())
	r.to(o)
	return c.takeIn(r, name, content)
}

// wantStatus compares how it stands with a destination, apart from when it failed.
func (c *core) wantStatus(want DestinationStatus) {
	c.t.Helper()
	got, err := c.destination(c.t.Context(), want.Name)
	if err != nil {
		c.t.Fatal(err)
	}
	if (got.LastError == nil) != (got.LastErrorAt == nil) {
		c.t.Errorf("last error %v at %v", got.LastError, got.LastErrorAt)
	}
	got.URL, got.Deliveries, got.LastErrorAt = "", 0, nil
	if d := cmp.Diff(want, got); d != "" {
		c.t.Errorf("how it stands with %s (-want +got):\n%s", want.Name, d)
	}
}

// TestLanes: while every worker of one destination is stuck, the other one gets its
// files, of the same names as well.
func TestLanes(t *testing.T) {
	first, second := newRemote(), newRemote()
	dir := t.TempDir()
	g := openCore(t, dir, first, toOther(second), func(cfg *Config, _ *parts) { cfg.Destinations[0].Deliveries = 1 })
	g.deliverAll()
	stuck := newGate()
	first.expect("f", stuck.then((*sending).deliver))
	held := g.takeFor("", "f", "one")
	behind := g.takeFor(DefaultDestination, "g", "behind it")
	stuck.await(t)
	for name, content := range map[string]string{"f": "other content", "g": "behind it", "h": "x"} {
		g.await(g.takeFor("other", name, content).ID, StateDelivered)
	}
	g.wantStatus(DestinationStatus{Name: DefaultDestination, State: DestinationReady, Queued: 1, Delivering: 1})
	g.wantStatus(DestinationStatus{Name: "other", State: DestinationReady})
	close(stuck.open)
	g.await(held.ID, StateDelivered)
	u := g.await(behind.ID, StateDelivered)
	if u.DestinationName != DefaultDestination || u.Destination != "v3://127.0.0.1:1?window=64" {
		t.Errorf("delivered to %s, %s", u.DestinationName, u.Destination)
	}
	if d := cmp.Diff(map[string]string{"f": "one", "g": "behind it"}, first.stored()); d != "" {
		t.Errorf("the first has (-want +got):\n%s", d)
	}
	if got := slices.Sorted(maps.Keys(second.stored())); !slices.Equal(got, []string{"f", "g", "h"}) {
		t.Errorf("the second has %q", got)
	}
	for _, folder := range []string{dir, filepath.Join(dir, "destinations", "other")} {
		if _, err := os.Stat(filepath.Join(folder, "identity")); err != nil {
			t.Errorf("each destination has a key of its own: %v", err)
		}
	}
}

// TestSameForEachDestination: what one destination has got is not there for another.
func TestSameForEachDestination(t *testing.T) {
	g := openCore(t, t.TempDir(), newRemote(), toOther(newRemote()))
	g.deliverAll()
	one := g.takeFor("", "f", "x")
	g.await(one.ID, StateDelivered)
	two := g.takeFor("other", "f", "x")
	if two.ID == one.ID {
		t.Fatal("it was taken for the upload to another destination")
	}
	g.await(two.ID, StateDelivered)
	for to, want := range map[string]ulid.ULID{"": one.ID, "other": two.ID} {
		if again := g.takeFor(to, "f", "x"); again.ID != want {
			t.Errorf("again for %q: %s, want %s", to, again.ID, want)
		}
	}
}

// TestNotesAreOfOneDestination: what is known of a name at one destination says
// nothing of the other, not even if both call the gateway the same.
func TestNotesAreOfOneDestination(t *testing.T) {
	second := newRemote()
	second.files["f"] = "something else"
	g := openCore(t, t.TempDir(), newRemote(), toOther(second))
	g.deliverAll()
	g.await(g.takeFor("", "f", "x").ID, StateDelivered)
	g.await(g.takeFor("other", "f", "x").ID, StateFailed)
}

// TestPause: what is being delivered is, the rest waits and says why, over a restart
// as well.
func TestPause(t *testing.T) {
	first, second := newRemote(), newRemote()
	dir := t.TempDir()
	g := openCore(t, dir, first, toOther(second))
	stop := g.deliverAll()
	under := newGate()
	second.expect("under way", under.then((*sending).deliver))
	running := g.takeFor("other", "under way", "x")
	under.await(t)
	for range 2 {
		if s, err := g.pause(t.Context(), "other"); err != nil || !s.Paused || s.State != DestinationPaused {
			t.Fatalf("paused: %+v, %v", s, err)
		}
	}
	later := g.takeFor("other", "later", "x")
	close(under.open)
	g.await(running.ID, StateDelivered)
	g.await(g.takeFor("", "elsewhere", "x").ID, StateDelivered)
	check := func() {
		t.Helper()
		for _, u := range []Upload{later, g.see(later.ID)} {
			if u.State != StateQueued || u.Blocked == nil || !strings.Contains(*u.Blocked, "other is paused") {
				t.Errorf("state %s, blocked %q; want it to wait and to say why", u.State, *orEmpty(u.Blocked))
			}
		}
		g.wantStatus(DestinationStatus{Name: "other", State: DestinationPaused, Paused: true, Queued: 1})
	}
	check()
	stop()
	g.shut()
	g = openCore(t, dir, first, toOther(second))
	g.deliverAll()
	g.await(g.takeFor("", "elsewhere again", "x").ID, StateDelivered)
	check()
	if got := second.begun(); !slices.Equal(got, []string{"under way"}) {
		t.Errorf("sent while it was paused: %q", got)
	}
	if s, err := g.resume(t.Context(), "other"); err != nil || s.Paused {
		t.Fatalf("resumed: %+v, %v", s, err)
	}
	if u := g.await(later.ID, StateDelivered); u.Blocked != nil {
		t.Errorf("delivered, and blocked: %s", *u.Blocked)
	}
	if _, err := g.pause(t.Context(), "nowhere"); !errors.Is(err, errNoDestination) {
		t.Errorf("pause of none: %v, want %v", err, errNoDestination)
	}
}

// TestPausedBetweenAttempts: an upload that waits for its next attempt has none as
// long as the destination is paused, whatever the time.
func TestPausedBetweenAttempts(t *testing.T) {
	r := newRemote()
	g := openCore(t, t.TempDir(), r)
	g.deliverAll()
	r.expect("f", fails(errBroken))
	u := g.take("f", "x")
	next := g.await(u.ID, StateWaiting).Attempts.NextAt
	if _, err := g.pause(t.Context(), DefaultDestination); err != nil {
		t.Fatal(err)
	}
	if u := g.see(u.ID); u.Blocked == nil || u.Attempts.NextAt != nil {
		t.Errorf("blocked %v, next attempt at %v", u.Blocked, u.Attempts.NextAt)
	}
	g.time.advance(next.Sub(g.now()))
	g.lanes.first().wake(1)
	if _, err := g.resume(t.Context(), DefaultDestination); err != nil {
		t.Fatal(err)
	}
	g.await(u.ID, StateDelivered)
	if got := g.see(u.ID).Attempts.Count; got != 2 {
		t.Errorf("%d attempts, want 2", got)
	}
}

// TestPauseAndResumeAtOnce has several people pause and resume a destination at the same
// time: whoever was last, what workers go by is what the database says.
func TestPauseAndResumeAtOnce(t *testing.T) {
	g := openCore(t, t.TempDir(), newRemote())
	for round := range 100 {
		var all sync.WaitGroup
		for range 4 {
			for _, change := range []func(context.Context, string) (DestinationStatus, error){g.pause, g.resume} {
				all.Go(func() {
					if _, err := change(t.Context(), DefaultDestination); err != nil {
						t.Error(err)
					}
				})
			}
		}
		all.Wait()
		s, err := g.destination(t.Context(), DefaultDestination)
		if err != nil {
			t.Fatal(err)
		}
		if got := g.lanes.first().paused.Load(); got != s.Paused {
			t.Fatalf("round %d: for workers it is paused: %t; in the database: %t", round, got, s.Paused)
		}
	}
}

// TestHealth follows a destination that fails and gets well again.
func TestHealth(t *testing.T) {
	r := newRemote()
	dir := t.TempDir()
	g := openCore(t, dir, r)
	stop := g.deliverAll()
	r.expect("f", fails(&proto.RefusedError{Why: proto.ErrBusy}), fails(&proto.RefusedError{Why: proto.ErrBusy}))
	u := g.take("f", "x")
	busy := *g.await(u.ID, StateWaiting).Attempts.LastError
	failing := DestinationStatus{Name: DefaultDestination, State: DestinationFailing, Queued: 1, LastError: &busy}
	g.wantStatus(failing)
	stop()
	g.shut()
	g = openCore(t, dir, r)
	g.wantStatus(failing)
	g.deliverAll()
	g.awaitInTime(u.ID, StateDelivered)
	g.wantStatus(DestinationStatus{Name: DefaultDestination, State: DestinationReady, LastError: &busy})
	// What is an upload's own fault says nothing of the destination.
	r.expect("bad", fails(proto.ErrName))
	g.await(g.take("bad", "x").ID, StateFailed)
	g.wantStatus(DestinationStatus{Name: DefaultDestination, State: DestinationReady, LastError: &busy})
}

// TestHealthOfTogether has the end of an attempt that fails recorded together with that of one
// that delivers: what follows shows that the destination is well again.
func TestHealthOfTogether(t *testing.T) {
	for i := range 5 {
		t.Run(fmt.Sprint(i), testHealthOfTogether)
	}
}

func testHealthOfTogether(t *testing.T) {
	r := newRemote()
	g := openCore(t, t.TempDir(), r)
	g.deliverAll()
	g.await(g.take("first", "x").ID, StateDelivered)
	fail, deliver := newGate(), newGate()
	r.expect("fails", fail.then(fails(&proto.RefusedError{Why: proto.ErrBusy})))
	r.expect("delivers", deliver.matchedThen(storeMatched))
	a, b := g.take("fails", "1"), g.take("delivers", "2")
	fail.await(t)
	deliver.await(t)
	release := g.holdWriter()
	close(fail.open)
	time.Sleep(10 * time.Millisecond) // for the one to wait before the other; it is right as well if it does not
	close(deliver.open)
	time.Sleep(10 * time.Millisecond)
	release()
	words := *orEmpty(g.await(a.ID, StateWaiting).Attempts.LastError)
	g.await(b.ID, StateDelivered)
	g.await(g.take("more", "x").ID, StateDelivered)
	g.wantStatus(DestinationStatus{Name: DefaultDestination, State: DestinationReady, Queued: 1, LastError: &words})
}

// TestRemovedDestination: what is for a destination that is configured no more waits,
// says so, can be cancelled, and is delivered when it is there again.
func TestRemovedDestination(t *testing.T) {
	first, second := newRemote(), newRemote()
	dir := t.TempDir()
	g := openCore(t, dir, first, toOther(second))
	waits, unwanted := g.takeFor("other", "f", "x"), g.takeFor("other", "g", "x")
	g.shut()

	g = openCore(t, dir, first)
	stop := g.deliverAll()
	g.await(g.take("f", "x").ID, StateDelivered)
	u := g.see(waits.ID)
	if u.State != StateQueued || u.Blocked == nil || !strings.Contains(*u.Blocked, "no destination other any more") || u.Destination != "v4://other:1" {
		t.Errorf("state %s, blocked %q, to %s", u.State, *orEmpty(u.Blocked), u.Destination)
	}
	g.wantStatus(DestinationStatus{Name: "other", State: DestinationRemoved, Queued: 2})
	if _, err := g.choose(t.Context(), "other"); err == nil {
		t.Error("it can be chosen still")
	}
	if _, err := g.Gateway.cancel(t.Context(), unwanted.ID); err != nil {
		t.Error(err)
	}
	if all, err := g.destinations(t.Context()); err != nil || len(all) != 2 || all[1].Queued != 1 {
		t.Errorf("destinations %+v, %v", all, err)
	}
	stop()
	g.shut()

	g = openCore(t, dir, first, toOther(second))
	g.deliverAll()
	g.await(waits.ID, StateDelivered)
	g.wantStatus(DestinationStatus{Name: "other", State: DestinationReady})
}

// TestBeforeDestinations: what a gateway had taken before it could have several
// destinations goes to its only one.
func TestBeforeDestinations(t *testing.T) {
	dir := t.TempDir()
	db := openOlder(t, dir, 8)
	queued, other := ulid.Make(), ulid.Make()
	err := db.Update(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
		for i, id := range []ulid.ULID{queued, other} {
			if _, err := tx.ExecContext(ctx, `insert into uploads (id, name, size, sha256, cksum, state, body, created_at, updated_at)
				values ($1, 'f', 1, unhex($2), 1, 'queued', 'row', 1, 1)`, id, sum([]byte("x"))); err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, "insert into bodies (upload, content) values ($1, $2)", id, []byte("x")); err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, "insert into jobs (upload, name, parked, due_at, fence) values ($1, 'f', $2, 1, 0)", id, i); err != nil {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	g := openCore(t, dir, newRemote(), func(cfg *Config, _ *parts) { cfg.Destinations[0].Name = "named" })
	if u := g.see(queued); u.DestinationName != DefaultDestination || u.Blocked == nil {
		t.Errorf("for %s, blocked %v; want it to wait for the one without a name", u.DestinationName, u.Blocked)
	}
	g.shut()
	g = openCore(t, dir, newRemote())
	g.deliverAll()
	g.await(queued, StateDelivered)
	g.await(other, StateDelivered)
}
