package gateway

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"

	"ferry/internal/identity"
	"ferry/proto"
)

// tried is what the API has of an upload's attempts.
func (c *core) tried(id ulid.ULID) attemptList {
	c.t.Helper()
	all, err := c.attempts(c.t.Context(), id)
	if err != nil {
		c.t.Fatal(err)
	}
	return all
}

// attemptRows is how many attempts are kept of an upload.
func (c *core) attemptRows(id ulid.ULID) (n int) {
	c.t.Helper()
	if err := c.db.Read().QueryRow("select count(*) from attempts where upload = $1", id).Scan(&n); err != nil {
		c.t.Fatal(err)
	}
	return n
}

// anAttempt is one to the usual destination, of which everything is known.
func anAttempt(number int, began, ended time.Time, how AttemptOutcome, words string, bytes, resumed int64, sends int) AttemptStatus {
	a := AttemptStatus{
		Number: number, BeganAt: began, EndedAt: &ended, Outcome: &how, Bytes: &bytes, ResumedFrom: &resumed, Sends: &sends,
		Destination: "v3://127.0.0.1:1?window=64",
	}
	if words != "" {
		a.Error = &words
	}
	return a
}

// sends is a part of the file on its way, of which the destination had some.
func sends(part, from int64, then step) step {
	return func(s *sending) error {
		s.watch.Progress(proto.Progress{Phase: proto.PhaseSending, Bytes: part, From: from, TotalBytes: s.offer.Size, Send: 2})
		return then(s)
	}
}

func wantAttempts(t *testing.T, g *core, id ulid.ULID, count int, want ...AttemptStatus) {
	t.Helper()
	if want == nil {
		want = []AttemptStatus{}
	}
	if d := cmp.Diff(attemptList{count, want}, g.tried(id)); d != "" {
		t.Errorf("attempts (-want +got):\n%s", d)
	}
}

// TestAttempts follows an upload through attempts that end in each way that leaves it
// to be tried again, over a restart.
func TestAttempts(t *testing.T) {
	dir, r := t.TempDir(), newRemote()
	short := func(cfg *Config, _ *parts) { cfg.Grace = 50 * time.Millisecond }
	g := openCore(t, dir, r, short)
	hold := newGate()
	r.expect("f", fails(errBroken), sends(40, 30, fails(proto.ErrTooLarge)), sends(50, 40, hold.then((*sending).deliver)))
	u := g.take("f", content(1, 100))
	wantAttempts(t, g, u.ID, 0)
	stop := g.deliverAll()
	begun := g.now()
	g.await(u.ID, StateWaiting)
	want := []AttemptStatus{anAttempt(1, begun, begun, AttemptPostponed, "connection broken", 0, 0, 0)}
	wantAttempts(t, g, u.ID, 1, want...)

	g.time.advance(time.Minute)
	second := g.now()
	failed := g.await(u.ID, StateFailed)
	want = append(want, anAttempt(2, second, second, AttemptFailed, *failed.Error, 40, 30, 2))
	wantAttempts(t, g, u.ID, 2, want...)

	g.time.advance(time.Minute)
	third := g.now()
	if _, err := g.retry(t.Context(), u.ID); err != nil {
		t.Fatal(err)
	}
	hold.await(t)
	running := anAttempt(3, third, third, "", "", 1, 0, 1)
	running.EndedAt, running.Outcome = nil, nil
	wantAttempts(t, g, u.ID, 3, append(want, running)...)
	wantDescribed(t, g, u)
	g.time.advance(time.Second)
	stop()
	want = append(want, anAttempt(3, third, third.Add(time.Second), AttemptInterrupted, wasStopped, 1, 0, 1))
	wantAttempts(t, g, u.ID, 3, want...)
	g.shut()

	same := g.time.clock()
	g = openCore(t, dir, r, short, func(_ *Config, p *parts) { p.clock = same })
	wantAttempts(t, g, u.ID, 3, want...)
	r.expect("f", func(*sending) error { return &proto.ExistsError{Sum: *r.offers[0].Sum} })
	fourth := same.now()
	g.deliverAll()
	g.await(u.ID, StateDelivered)
	want = append(want, anAttempt(4, fourth, fourth, AttemptDelivered, "", 100, 100, 0))
	wantAttempts(t, g, u.ID, 4, want...)

	if _, gone, err := g.remove(t.Context(), u.ID); err != nil || !gone {
		t.Fatalf("gone %v, %v", gone, err)
	}
	if n := g.attemptRows(u.ID); n != 0 {
		t.Errorf("%d attempts are left of what was forgotten", n)
	}
	if _, err := g.attempts(t.Context(), u.ID); !errors.Is(err, errNotFound) {
		t.Errorf("attempts of what was forgotten: %v", err)
	}
}

// TestOnlyAttempt: an upload that is delivered by its first attempt has it shown, and
// no row is written for that.
func TestOnlyAttempt(t *testing.T) {
	r := newRemote()
	g := openCore(t, t.TempDir(), r)
	hold := newGate()
	r.expect("f", hold.then((*sending).deliver))
	u := g.take("f", content(1, 100))
	g.time.advance(time.Second)
	begun := g.now()
	g.deliverAll()
	hold.await(t)
	g.time.advance(time.Second)
	ended := g.now()
	close(hold.open)
	g.await(u.ID, StateDelivered)
	wantAttempts(t, g, u.ID, 1, anAttempt(1, begun, ended, AttemptDelivered, "", 100, 0, 1))
	if n := g.attemptRows(u.ID); n != 0 {
		t.Errorf("%d rows were written", n)
	}
}

// TestAttemptsOfCancelled: an attempt that was cancelled says so, and that the file
// may be at the destination all the same.
func TestAttemptsOfCancelled(t *testing.T) {
	r := newRemote()
	g := openCore(t, t.TempDir(), r)
	hold, matched := newGate(), newGate()
	r.expect("a", hold.then((*sending).deliver))
	r.expect("b", matched.matchedThen(func(*sending) error { return errBroken }))
	a, b, queued := g.take("a", "12"), g.take("b", "34"), g.take("b", "34")
	begun := g.now()
	g.deliverAll()
	hold.await(t)
	matched.await(t)
	g.cancel(queued.ID)
	wantAttempts(t, g, queued.ID, 0)
	g.cancel(a.ID)
	wantAttempts(t, g, a.ID, 1, anAttempt(1, begun, begun, AttemptCancelled, "", 1, 0, 1))
	var cancelling sync.WaitGroup
	cancelling.Go(func() { g.cancel(b.ID) })
	for !g.live.delivery(b.ID).attempt().cancelled {
		time.Sleep(time.Millisecond)
	}
	close(matched.open)
	cancelling.Wait()
	wantAttempts(t, g, b.ID, 1, anAttempt(1, begun, begun, AttemptCancelled, mayBeStored, 2, 0, 1))
}

// cutOff is an attempt that nobody saw the end of.
func cutOff(number int, began, ended time.Time) AttemptStatus {
	a := anAttempt(number, began, ended, AttemptInterrupted, wasCutOff, 0, 0, 0)
	a.Bytes, a.ResumedFrom, a.Sends = nil, nil, nil
	return a
}

// TestAttemptsThatAreCutOff: what the end of the process cuts off is an attempt, which
// ended with its last heartbeat and went to where it went then.
func TestAttemptsThatAreCutOff(t *testing.T) {
	dir, r := t.TempDir(), newRemote()
	g := openCore(t, dir, r)
	hold := newGate()
	r.expect("f", hold.then((*sending).deliver))
	u := g.take("f", "x")
	begun := g.now()
	g.deliverAll()
	hold.await(t)
	g.time.await(t, begun.Add(heartbeatEvery))
	g.time.advance(heartbeatEvery)
	g.time.await(t, begun.Add(2*heartbeatEvery)) // the first one was written
	snapshot := t.TempDir()
	if err := errors.Join(os.CopyFS(snapshot, os.DirFS(dir)), os.Chmod(filepath.Join(snapshot, identity.Name), 0o600)); err != nil {
		t.Fatal(err)
	}
	// A process that comes no further than to note it leaves that to the next one.
	db, err := openStore(t.Context(), snapshot)
	if err != nil {
		t.Fatal(err)
	}
	unfinished := &Gateway{db: db, log: slog.New(slog.DiscardHandler)}
	if err := errors.Join(unfinished.noteCutOff(t.Context()), db.Close()); err != nil {
		t.Fatal(err)
	}
	close(hold.open)
	g.await(u.ID, StateDelivered)
	g.time.advance(time.Hour)
	now := g.time.clock()
	after := newRemote()
	elsewhere := func(cfg *Config, p *parts) { cfg.Destinations, p.clock = to(t, "v3://127.0.0.1:2"), now }
	g = openCore(t, snapshot, after, elsewhere)
	want := cutOff(1, begun, begun.Add(heartbeatEvery))
	wantAttempts(t, g, u.ID, 1, want)
	g.shut()
	g = openCore(t, snapshot, after, elsewhere)
	wantAttempts(t, g, u.ID, 1, want)
	g.deliverAll()
	g.await(u.ID, StateDelivered)
	second := anAttempt(2, now.now(), now.now(), AttemptDelivered, "", 1, 0, 1)
	second.Destination = "v3://127.0.0.1:2"
	wantAttempts(t, g, u.ID, 2, want, second)
	wantDescribed(t, g, u)
}

// wantDescribed wants the attempts of an upload to be answered as they are described.
func wantDescribed(t *testing.T, g *core, u Upload) {
	t.Helper()
	want, got := g.tried(u.ID), attemptList{}
	a := newTestAPI(t, g.httpAPI()).ask(t, "GET", u.address()+"/attempts", nil)
	if err := json.Unmarshal(a.body, &got); err != nil || a.StatusCode != http.StatusOK {
		t.Fatalf("answer %d, %v: %s", a.StatusCode, err, a.body)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("attempts (-want +got):\n%s", d)
	}
}

// TestAttemptsThatLapse: an attempt that loses its lease is listed beside the one that
// takes over.
func TestAttemptsThatLapse(t *testing.T) {
	r := newRemote()
	g := openCore(t, t.TempDir(), r)
	hold := newGate()
	r.expect("f", sends(1, 0, func(s *sending) error { return hold.wait(s.ctx) }))
	u := g.take("f", "xyz")
	begun := g.now()
	g.deliverAll()
	hold.await(t)
	d := g.live.delivery(u.ID)
	g.takeLease(u.ID)
	g.time.await(t, begun.Add(heartbeatEvery))
	g.time.advance(heartbeatEvery)
	soon(t, d.done)
	first := anAttempt(1, begun, begun.Add(heartbeatEvery), AttemptInterrupted, wasCutOff, 1, 0, 2)
	g.time.await(t, begun.Add(lease))
	g.time.advance(lease - heartbeatEvery)
	g.await(u.ID, StateDelivered)
	now := g.now()
	wantAttempts(t, g, u.ID, 3, first, anAttempt(3, now, now, AttemptDelivered, "", 3, 0, 1))
}

// TestAttemptsOnFullDisk: while the disk is full, what becomes of an upload is
// recorded, and how it was tried is not.
func TestAttemptsOnFullDisk(t *testing.T) {
	full := false
	r := newRemote()
	g := openCore(t, t.TempDir(), r)
	free := g.room.free
	g.room.free = func() (int64, error) {
		if full {
			return 0, nil
		}
		return free()
	}
	r.expect("f", fails(errBroken), fails(proto.ErrName))
	u := g.take("f", "x")
	full = true // before anybody delivers
	g.deliverAll()
	g.await(u.ID, StateWaiting)
	g.time.advance(time.Minute)
	if u := g.await(u.ID, StateFailed); u.Attempts.Count != 2 {
		t.Errorf("%d attempts, want 2", u.Attempts.Count)
	}
	wantAttempts(t, g, u.ID, 2)
}

// TestAttemptsAreBounded: of very many, the first and the latest are kept, whatever
// they came to.
func TestAttemptsAreBounded(t *testing.T) {
	dir, r := t.TempDir(), newRemote()
	g := openCore(t, dir, r)
	u := g.take("f", "x")
	const all = 25
	for range all {
		r.expect("f", fails(errBroken))
	}
	stop := g.deliverAll()
	for n := 1; n <= all; n++ {
		for g.see(u.ID).Attempts.Count < n || g.await(u.ID, StateWaiting).Attempts.Count < n {
			time.Sleep(time.Millisecond)
		}
		if n < all {
			g.time.advance(2 * maxDelay)
		}
	}
	stop()
	wantNumbers(t, g.tried(u.ID), all, 16)
	// The same for those that are cut off.
	for range 3 {
		err := g.db.Update(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
			_, _, err := claimDue(ctx, tx, g.lanes.first(), pass{}, g.now().Add(time.Hour))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		g.shut()
		g = openCore(t, dir, r)
	}
	wantNumbers(t, g.tried(u.ID), all+3, 19)
}

// wantNumbers wants the first attempts, and those from a number on.
func wantNumbers(t *testing.T, list attemptList, count, from int) {
	t.Helper()
	var want, got []int
	for n := range firstAttempts {
		want = append(want, n+1)
	}
	for n := range latestAttempts {
		want = append(want, from+n)
	}
	for _, a := range list.Attempts {
		got = append(got, a.Number)
	}
	if d := cmp.Diff(want, got); d != "" || list.Count != count {
		t.Errorf("%d attempts, want %d; numbers (-want +got):\n%s", list.Count, count, d)
	}
}

// TestAttemptsOfBefore opens a database from before attempts were kept, whose last
// process was killed in the middle of one.
func TestAttemptsOfBefore(t *testing.T) {
	dir := t.TempDir()
	db := openOlder(t, dir, 9)
	done, cut := ulid.Make(), ulid.Make()
	at := time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC)
	err := db.Update(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
		const columns = "insert into uploads (id, name, size, sha256, cksum, state, body, attempts, destination, created_at, updated_at, delivered_at) values "
		_, err1 := tx.ExecContext(ctx, columns+"($1, 'done', 1, $2, 1, 'delivered', 'gone', 1, 'v3://h:1256', $3, $4, $5)", done, make([]byte, 32), 1, 1, 1)
		_, err2 := tx.ExecContext(ctx, columns+"($1, 'cut', 1, $2, 1, 'delivering', 'row', 3, null, $3, $4, null)", cut, make([]byte, 32), 1, at.UnixMicro())
		_, err3 := tx.ExecContext(ctx, "insert into jobs (upload, name, parked, due_at, leased, fence) values ($1, 'cut', 0, $2, 1, 3)", cut, at.Add(lease).UnixMicro())
		_, err4 := tx.ExecContext(ctx, "insert into destinations (name, url) values ('default', 'v3://127.0.0.1:1?window=64')")
		return errors.Join(err1, err2, err3, err4)
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	g := openCore(t, dir, newRemote())
	wantAttempts(t, g, done, 1)
	wantAttempts(t, g, cut, 3, cutOff(3, at, at))
}

// TestAttemptsOverTheWire: with the real clients, what is delivered at once takes no
// row, and what goes on where it was says from where on.
func TestAttemptsOverTheWire(t *testing.T) {
	v3 := listenNative(t, proto.AcceptV3)
	v4, id := listenV4(t)
	for _, url := range []string{"v3://" + v3.address + "?window=16", "v4://" + v4.address + "?pin=" + id.Pin().String()} {
		g := openCore(t, t.TempDir(), newRemote(), func(cfg *Config, p *parts) {
			cfg.Destinations = to(t, url)
			p.sender, p.clock = nil, clock{}
		})
		stop := g.deliverAll()
		for name, c := range map[string]string{"empty": "", "small": content(1, 7902), "large": content(3, 3<<20)} {
			u := g.take(name, c)
			g.await(u.ID, StateDelivered)
			list := g.tried(u.ID)
			if n := g.attemptRows(u.ID); n != 0 || len(list.Attempts) != 1 || *list.Attempts[0].Outcome != AttemptDelivered || *list.Attempts[0].Bytes != *u.Size {
				t.Errorf("%s to %.5s: %d rows, attempts %+v", name, url, n, list)
			}
		}
		stop()
		g.shut()
	}
}

func TestGetAttempts(t *testing.T) {
	forBoth(t, func(t *testing.T, s *testAPI) {
		u := s.ask(t, "POST", "/uploads?name=a", strings.NewReader("x")).upload(t, http.StatusAccepted)
		if a := s.ask(t, "GET", u.address()+"/attempts", nil); a.StatusCode != http.StatusOK || string(a.body) != `{"count":0,"attempts":[]}`+"\n" {
			t.Errorf("answer %d: %s", a.StatusCode, a.body)
		}
		if a := s.ask(t, "HEAD", u.address()+"/attempts", nil); a.StatusCode != http.StatusOK || len(a.body) > 0 {
			t.Errorf("HEAD: answer %d: %s", a.StatusCode, a.body)
		}
		s.ask(t, "GET", "/uploads/"+ulid.Make().String()+"/attempts", nil).problem(t, kindNotFound)
		s.ask(t, "GET", "/uploads/x/attempts", nil).problem(t, kindNotFound)
		s.ask(t, "POST", u.address()+"/attempts", strings.NewReader("")).problem(t, kindMethod)
	})
	s := newFakeAPI(t)
	s.core.fail["attempts"] = errors.New("/var/lib/ferry")
	if p := s.ask(t, "GET", "/uploads/"+ulid.Make().String()+"/attempts", nil).problem(t, kindInternal); strings.Contains(p.Detail, "/var") {
		t.Errorf("detail %q", p.Detail)
	}
}
