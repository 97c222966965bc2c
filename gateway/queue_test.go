package gateway

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"

	"ferry/internal/datadir"
	"ferry/internal/identity"
	"ferry/proto"
)

// cancel removes an upload that is not final.
func (c *core) cancel(id ulid.ULID) Upload {
	c.t.Helper()
	u, gone, err := c.remove(c.t.Context(), id)
	if err != nil || gone {
		c.t.Fatalf("gone %v, %v", gone, err)
	}
	return u
}

func TestCancelQueued(t *testing.T) {
	dir, r := t.TempDir(), newRemote()
	g := openCore(t, dir, r)
	first, second, third := g.take("same", content(1, large)), g.take("same", "2"), g.take("same", "3")
	if u := g.cancel(first.ID); u.State != StateCancelled || u.Attempts.LastError != nil {
		t.Errorf("%+v", u)
	}
	g.cancel(third.ID) // parked
	g.deliverAll()
	g.await(second.ID, StateDelivered)
	if d := cmp.Diff(map[string]string{"same": "2"}, r.stored()); d != "" {
		t.Error(d)
	}
	wantSpool(t, dir, first.ID.String()) // for a retry
	if _, gone, err := g.remove(t.Context(), first.ID); err != nil || !gone {
		t.Errorf("gone %v, %v", gone, err)
	}
	wantSpool(t, dir)
	if _, err := g.get(t.Context(), first.ID); !errors.Is(err, errNotFound) {
		t.Errorf("after it was forgotten: %v", err)
	}
}

func TestCancelWaiting(t *testing.T) {
	for _, c := range []struct {
		name string
		do   step
		last string
	}{{"not sent", fails(errBroken), "connection broken"}, {"perhaps stored", loses, mayBeStored}} {
		t.Run(c.name, func(t *testing.T) {
			r := newRemote()
			g := openCore(t, t.TempDir(), r)
			r.expect("f", c.do)
			u := g.take("f", "x")
			g.deliverAll()
			g.await(u.ID, StateWaiting)
			u = g.cancel(u.ID)
			if u.State != StateCancelled || !strings.Contains(*u.Attempts.LastError, c.last) || u.Attempts.NextAt != nil {
				t.Errorf("%s, last error %q", u.State, *orEmpty(u.Attempts.LastError))
			}
			// Whoever wants it all the same gets it, once.
			if u, err := g.retry(t.Context(), u.ID); err != nil || u.State != StateQueued {
				t.Errorf("retry: %s, %v", u.State, err)
			}
			g.await(u.ID, StateDelivered)
			if d := cmp.Diff(map[string]string{"f": "x"}, r.stored()); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestCancelDelivering returns what really happened.
func TestCancelDelivering(t *testing.T) {
	sends := newGate()
	matches, then := newGate(), newGate()
	cases := []struct {
		name string
		gate *gate
		do   step
		want State
		last string
	}{
		{"while bytes are sent", sends, sends.then((*sending).deliver), StateCancelled, ""},
		{"matched, and it is stored", matches, matches.matchedThen(storeMatched), StateDelivered, ""},
		{"matched, and nobody knows", then, then.matchedThen(fails(errBroken)), StateCancelled, mayBeStored},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := newRemote()
			g := openCore(t, t.TempDir(), r)
			r.expect("f", c.do)
			u := g.take("f", "x")
			g.deliverAll()
			c.gate.await(t)
			d := g.live.delivery(u.ID)
			got := make(chan Upload, 1)
			go func() {
				u, gone, err := g.remove(t.Context(), u.ID)
				if gone || err != nil {
					t.Errorf("gone %v, %v", gone, err)
				}
				got <- u
			}()
			if c.want != StateCancelled || c.last != "" {
				awaitCancelled(t, d)
				close(c.gate.open)
			}
			u = soon(t, got)
			if u.State != c.want || *orEmpty(u.Attempts.LastError) != c.last {
				t.Errorf("%s, last error %q; want %s, %q", u.State, *orEmpty(u.Attempts.LastError), c.want, c.last)
			}
		})
	}
}

// TestCancelAtTheEnd: whoever cancels an upload when its attempt has ended, and before
// that is recorded, does not find it waiting for the next.
func TestCancelAtTheEnd(t *testing.T) {
	for name, c := range map[string]struct {
		ends step
		last string
	}{"not sent": {fails(errBroken), ""}, "perhaps stored": {loses, mayBeStored}} {
		t.Run(name, func(t *testing.T) {
			r := newRemote()
			g := openCore(t, t.TempDir(), r)
			u := g.take("f", "x")
			r.expect("f", func(s *sending) error {
				err := c.ends(s)
				// As remove leaves it, before it stops what it has found running.
				return errors.Join(err, g.db.Update(s.ctx, func(ctx context.Context, tx *sql.Tx) error {
					_, err := tx.ExecContext(ctx, "update jobs set cancel = 1 where upload = $1", u.ID)
					return err
				}))
			})
			g.deliverAll()
			if u := g.await(u.ID, StateCancelled); *orEmpty(u.Attempts.LastError) != c.last {
				t.Errorf("last error %q, want %q", *orEmpty(u.Attempts.LastError), c.last)
			}
		})
	}
}

// awaitCancelled waits until a delivery knows that somebody wants it cancelled.
func awaitCancelled(t *testing.T, d *delivery) {
	t.Helper()
	for limit := time.Now().Add(patience); !d.attempt().cancelled; time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("nobody cancelled it")
		}
	}
}

// TestCancelIsSeenAtMatch finds a wish that is in the database alone, before
// anything is confirmed.
func TestCancelIsSeenAtMatch(t *testing.T) {
	r := newRemote()
	g := openCore(t, t.TempDir(), r)
	hold := newGate()
	r.expect("f", hold.then((*sending).deliver))
	u := g.take("f", "x")
	g.deliverAll()
	hold.await(t)
	g.exec("update jobs set cancel = 1 where upload = $1", u.ID)
	close(hold.open)
	if u := g.await(u.ID, StateCancelled); u.Attempts.LastError != nil || len(r.stored()) > 0 {
		t.Errorf("last error %q, stored %v", *orEmpty(u.Attempts.LastError), r.stored())
	}
}

// TestCancelIsRemembered: who waits for too long is told so, and the wish is
// kept, also over a restart.
func TestCancelIsRemembered(t *testing.T) {
	dir, r := t.TempDir(), newRemote()
	g := openCore(t, dir, r, func(cfg *Config, _ *parts) { cfg.Grace = 50 * time.Millisecond })
	hold := newGate()
	r.expect("f", hold.matchedThen(storeMatched))
	u := g.take("f", "x")
	stop := g.deliverAll()
	hold.await(t)
	begun := g.now()
	got := make(chan Upload, 1)
	go func() {
		u, _, err := g.remove(t.Context(), u.ID)
		if err != nil {
			t.Error(err)
		}
		got <- u
	}()
	g.time.await(t, begun.Add(cancelWait))
	g.time.advance(cancelWait)
	if u := soon(t, got); u.State != StateDelivering || *u.Phase != proto.PhaseVerifying {
		t.Errorf("%s, phase %v", u.State, u.Phase)
	}
	snapshot := t.TempDir()
	if err := errors.Join(os.CopyFS(snapshot, os.DirFS(dir)), os.Chmod(filepath.Join(snapshot, identity.Name), 0o600)); err != nil {
		t.Fatal(err)
	}
	stop()
	if u := g.see(u.ID); u.State != StateCancelled || *orEmpty(u.Attempts.LastError) != mayBeStored {
		t.Errorf("after the stop: %s, %q", u.State, *orEmpty(u.Attempts.LastError))
	}
	g = openCore(t, snapshot, r)
	g.deliverAll()
	if u := g.await(u.ID, StateCancelled); len(r.begun()) != 1 {
		t.Errorf("it was sent again: %+v", u)
	}
}

// TestCancelBesideRetried: an older upload of the name that was retried waits behind
// the one that is first, also when a third is cancelled.
func TestCancelBesideRetried(t *testing.T) {
	g := openCore(t, t.TempDir(), newRemote())
	retried := g.take("f", "1")
	g.cancel(retried.ID)
	first, third := g.take("f", "1"), g.take("f", "1")
	if _, err := g.retry(t.Context(), retried.ID); err != nil {
		t.Fatal(err)
	}
	g.cancel(third.ID)
	g.deliverAll()
	g.await(first.ID, StateDelivered)
	g.await(retried.ID, StateDelivered)
}

// TestRetry tries it in every state.
func TestRetry(t *testing.T) {
	r := newRemote()
	g := openCore(t, t.TempDir(), r)
	hold := newGate()
	r.expect("delivering", hold.then((*sending).deliver))
	r.expect("waiting", fails(proto.ErrRefused))
	r.expect("failed", fails(proto.ErrName))
	queued := g.take("delivering", "0")
	delivering := queued
	queued = g.take("delivering", "0")
	delivered, waiting := g.take("delivered", "1"), g.take("waiting", "2")
	failed, cancelled := g.take("failed", "3"), g.take("cancelled", "4")
	g.cancel(cancelled.ID)
	g.deliverAll()
	hold.await(t)
	g.await(delivered.ID, StateDelivered)
	g.await(waiting.ID, StateWaiting)
	g.await(failed.ID, StateFailed)
	for name, u := range map[string]Upload{"queued": queued, "delivering": delivering, "delivered": delivered} {
		if _, err := g.retry(t.Context(), u.ID); !errors.Is(err, errState) {
			t.Errorf("%s: %v, want %v", name, err, errState)
		}
	}
	for name, u := range map[string]Upload{"waiting": waiting, "failed": failed, "cancelled": cancelled} {
		again, err := g.retry(t.Context(), u.ID)
		if err != nil || again.State != StateQueued || again.Error != nil || again.Attempts.NextAt != nil {
			t.Errorf("%s: %+v, %v", name, again, err)
		}
		g.await(u.ID, StateDelivered)
	}
	if _, err := g.retry(t.Context(), ulid.ULID{}); !errors.Is(err, errNotFound) {
		t.Errorf("unknown: %v, want %v", err, errNotFound)
	}
	rec := g.receive(t.Context())
	defer rec.abort()
	if _, err := rec.add(fileName(t, "receiving"), -1, strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := g.retry(t.Context(), rec.files[0].id); !errors.Is(err, errState) {
		t.Errorf("receiving: %v, want %v", err, errState)
	}
	close(hold.open)
	g.await(queued.ID, StateDelivered)
}

// TestStaleClaim: what a worker writes with the claim of an earlier attempt
// changes nothing, also after the job was made anew.
func TestStaleClaim(t *testing.T) {
	g := openCore(t, t.TempDir(), newRemote())
	u := g.take("f", "x")
	take := func() (c claim) {
		t.Helper()
		err := g.db.Update(t.Context(), func(ctx context.Context, tx *sql.Tx) (err error) {
			c, _, err = claimDue(ctx, tx, g.lanes.first(), pass{}, g.now())
			return err
		})
		if err != nil || c.id != u.ID {
			t.Fatalf("claim %+v, %v", c, err)
		}
		return c
	}
	stale := take()
	g.time.advance(lease)
	second := take()
	if second.fence <= stale.fence {
		t.Errorf("fence %d after %d", second.fence, stale.fence)
	}
	check := func() {
		t.Helper()
		err := g.db.Update(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
			now := g.now()
			_, err1 := stale.heartbeat(ctx, tx, now)
			for _, err := range []error{err1, stale.finish(ctx, tx), stale.giveUp(ctx, tx, now, 1, true)} {
				if !errors.Is(err, errLeaseLost) {
					t.Errorf("a stale claim: %v, want %v", err, errLeaseLost)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	check()
	g.cancel(u.ID) // its worker is nowhere to be found
	check()
	if _, err := g.retry(t.Context(), u.ID); err != nil {
		t.Fatal(err)
	}
	check()
	take()
	check()
}

// TestPlans wants every statement that is asked all the time to use an index,
// however many rows there are.
func TestPlans(t *testing.T) {
	g := openCore(t, t.TempDir(), newRemote())
	id := ulid.Make()
	cases := map[string]struct {
		statement string
		args      []any
		want      string
	}{
		"claim":    {claimJob, []any{1, "a", 2}, "jobs_due (lane=?"},
		"next due": {nextDue, []any{"a", 1}, "jobs_due (lane=?"},
		"pull":     {pullJobs, []any{1, "a", 2, 3}, "jobs_due (lane=?"},
		"unpark":   {unparkJob, []any{"a", "f", "a", "f"}, "jobs_parked (lane=? AND name=?"},
		"status":   {selectStatus, []any{"a"}, "uploads_by_lane (lane=? AND state=?)"},
		"cut off":  {insertCutOff, []any{1, "a"}, "uploads_by_lane (lane=? AND state=?)"},
		"one":      {selectOne, []any{id}, "PRIMARY KEY"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			plan := planOf(t, g, c.statement, c.args...)
			t.Log(plan)
			if strings.Contains(plan, "SCAN u") || strings.Contains(plan, "TEMP B-TREE") || !strings.Contains(plan, c.want) {
				t.Errorf("plan: %s; want an index, %s", plan, c.want)
			}
			for line := range strings.Lines(plan) {
				// Walking an index in its order, as far as the limit, is no scan of the table;
				// and there are few destinations.
				if line = strings.TrimSpace(line); strings.Contains(line, "SCAN") && line != "SCAN d" && !strings.Contains(line, "USING") {
					t.Errorf("a whole table is read: %s", line)
				}
			}
		})
	}
}

func planOf(t *testing.T, g *core, statement string, args ...any) string {
	t.Helper()
	rows, err := g.db.Read().Query("explain query plan "+statement, args...)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var lines []string
	for rows.Next() {
		var a, b, c int
		var detail string
		if err := rows.Scan(&a, &b, &c, &detail); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, detail)
	}
	if rows.Err() != nil || len(lines) == 0 {
		t.Fatalf("no plan: %v", rows.Err())
	}
	return strings.Join(lines, "\n")
}

// TestSweep puts right what a crash, or somebody with rm, left behind.
func TestSweep(t *testing.T) {
	dir, r := t.TempDir(), newRemote()
	g := openCore(t, dir, r)
	lost, short, kept := g.take("lost", content(1, large)), g.take("lost", content(2, large)), g.take("kept", content(3, large))
	idle := g.take("cancelled", content(4, large))
	g.cancel(idle.ID)
	g.shut()
	spool := filepath.Join(dir, "files", "spool")
	stray := ulid.Make().String()
	for _, err := range []error{
		os.Remove(filepath.Join(spool, lost.ID.String())),
		os.Remove(filepath.Join(spool, idle.ID.String())),
		os.Truncate(filepath.Join(spool, short.ID.String()), 10),
		os.WriteFile(filepath.Join(spool, stray), []byte("stray"), 0o600),
		os.WriteFile(filepath.Join(spool, "notes.txt"), []byte("stray"), 0o600),
		os.WriteFile(filepath.Join(dir, "staging", "staged-1"), []byte("half"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	g = openCore(t, dir, r)
	wantSpool(t, dir, kept.ID.String())
	for _, u := range []Upload{lost, short} {
		if u := g.see(u.ID); u.State != StateFailed || u.Error == nil || *u.Error != bytesGone {
			t.Errorf("%s is %s", u.Name, u.State)
		}
		if _, err := g.retry(t.Context(), u.ID); !errors.Is(err, errState) {
			t.Errorf("retry: %v, want %v", err, errState)
		}
	}
	if u := g.see(idle.ID); u.State != StateCancelled {
		t.Errorf("the cancelled one is %s", u.State)
	}
	again := g.take("lost", content(1, large)) // nothing of that name is in its way
	g.deliverAll()
	g.await(kept.ID, StateDelivered)
	g.await(again.ID, StateDelivered)
}

func TestFolderIsLocked(t *testing.T) {
	dir := t.TempDir()
	g := openCore(t, dir, newRemote())
	_, err := Open(t.Context(), g.cfg)
	if !errors.Is(err, datadir.ErrLocked) {
		t.Errorf("the second: %v, want %v", err, datadir.ErrLocked)
	}
}

func TestIncompleteConfig(t *testing.T) {
	name, _ := proto.ParseClientName("n")
	where := to(t, "v3://127.0.0.1")
	for _, cfg := range []Config{
		{Destinations: where, Name: name},
		{Data: t.TempDir(), Name: name},
		{Data: t.TempDir(), Destinations: where},
		{Data: t.TempDir(), Destinations: []Destination{{Name: "a"}}, Name: name},
		{Data: t.TempDir(), Destinations: []Destination{{To: where[0].To, Deliveries: -1}}, Name: name},
		{Data: t.TempDir(), Destinations: []Destination{{To: where[0].To, Name: "A/b"}}, Name: name},
		{Data: t.TempDir(), Destinations: append(to(t, "v3://h"), where...), Name: name},
		{Data: t.TempDir(), Destinations: []Destination{where[0], {Name: "same", To: destination(t, "v3://127.0.0.1?window=2")}}, Name: name},
	} {
		if g, err := Open(t.Context(), cfg); err == nil {
			t.Errorf("%+v was taken", cfg)
			_ = g.Close()
		}
	}
}

// TestAnotherServer: what the destination holds is known by what it calls this
// gateway. A server that knows nothing of it any more holds nothing.
func TestAnotherServer(t *testing.T) {
	r := newRemote()
	g := openCore(t, t.TempDir(), r)
	g.deliverAll()
	first := g.take("f", "x")
	g.await(first.ID, StateDelivered)
	name, _ := proto.ParseClientName("test")
	if err := g.lanes.first().keys.Save(t.Context(), proto.Identity{Name: name, ID: proto.ClientID{9}, PrivateKey: []byte("key")}); err != nil {
		t.Fatal(err)
	}
	second := g.take("f", "x")
	if u := g.await(second.ID, StateFailed); strings.Contains(*u.Error, *first.SHA256) {
		t.Errorf("error %q: nothing is known of what the other server holds", *u.Error)
	}
}

// TestEverythingAtOnce does all that users do, at random, and wants every file
// delivered whose upload says so, and nothing else.
func TestEverythingAtOnce(t *testing.T) {
	dir, r := t.TempDir(), newRemote()
	g := openCore(t, dir, r, func(_ *Config, p *parts) { p.clock = clock{}; p.jitter = func() float64 { return 0 } })
	stop := g.deliverAll()
	var all sync.WaitGroup
	for worker := range 8 {
		all.Go(func() {
			for i := range 15 {
				name := fmt.Sprintf("%d", (worker*15+i)%40)
				r.expect(name, []step{(*sending).deliver, loses, breaks, fails(proto.ErrRefused), fails(proto.ErrChecksum)}[(worker+i)%5])
				u := g.take(name, fmt.Sprint("content ", (worker+i)%3, content(1, large*(i%2))))
				switch i % 4 {
				case 1:
					_, _, err := g.remove(t.Context(), u.ID)
					if err != nil {
						t.Error(err)
					}
				case 2:
					if _, err := g.retry(t.Context(), u.ID); err != nil && !errors.Is(err, errState) {
						t.Error(err)
					}
				}
			}
		})
	}
	all.Wait()
	for {
		page, err := g.list(t.Context(), filter{}, 1000)
		if err != nil {
			t.Fatal(err)
		}
		var open []ulid.ULID
		for _, u := range page {
			if u.State == StateQueued || u.State == StateDelivering || u.State == StateWaiting {
				open = append(open, u.ID)
			}
		}
		if len(open) == 0 {
			break
		}
		for _, id := range open { // do not wait for the delay
			if _, err := g.retry(t.Context(), id); err != nil && !errors.Is(err, errState) && !errors.Is(err, errNotFound) {
				t.Fatal(err)
			}
		}
		select {
		case <-g.events.more:
		case <-time.After(patience):
			t.Fatal("nothing moves")
		}
	}
	stop()
	page, err := g.list(t.Context(), filter{}, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if r.twice {
		t.Error("two of one name were sent at once")
	}
	stored, counts := r.stored(), map[State]int{}
	var kept []string
	for _, u := range page {
		counts[u.State]++
		body, there := stored[u.Name]
		same := there && sum([]byte(body)) == *u.SHA256
		switch {
		case u.State == StateDelivered && !same:
			t.Errorf("%s is delivered, and what is stored differs", u.Name)
		case u.State == StateFailed && (!there || same):
			t.Errorf("%s failed, stored %v, the same %v: %s", u.Name, there, same, *u.Error)
		}
		if u.State != StateDelivered && *u.Size > smallBody {
			kept = append(kept, u.ID.String())
		}
	}
	wantSpool(t, dir, kept...)
	t.Log(counts)
	var jobs int
	if err := g.db.Read().QueryRow("select count(*) from jobs").Scan(&jobs); err != nil || jobs > 0 {
		t.Errorf("%d jobs, %v; want none", jobs, err)
	}
}

// TestPlaceInLine: what was accepted first goes first, also after a restart
// that interrupted it, and after it waited for another one of its name.
func TestPlaceInLine(t *testing.T) {
	dir, r := t.TempDir(), newRemote()
	g := openCore(t, dir, r)
	claim := func() (id ulid.ULID) {
		t.Helper()
		err := g.db.Update(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
			c, _, err := claimDue(ctx, tx, g.lanes.first(), pass{}, g.now())
			id = c.id
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	var want []string
	for _, name := range []string{"a", "b", "a", "c"} {
		g.time.advance(time.Second)
		want = append(want, g.take(name, "same").ID.String())
	}
	if got := claim().String(); got != want[0] {
		t.Fatalf("claimed %s, want %s", got, want[0])
	}
	g.time.advance(time.Second)
	g.shut() // as if killed: nobody gives the claim back
	same := g.time.clock()
	g = openCore(t, dir, r, func(_ *Config, p *parts) { p.clock = same })
	var got []string
	for range want {
		id := claim()
		got = append(got, id.String())
		name := g.see(id).Name
		err := g.db.Update(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, "delete from jobs where upload = $1", id); err != nil {
				return err
			}
			return unpark(ctx, tx, DefaultDestination, name)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("order of claims (-accepted +claimed):\n%s", d)
	}
}
