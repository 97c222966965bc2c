package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"

	"ferry/internal/smalldisk"
	"ferry/internal/sqldb"
	"ferry/proto"
)

// TestWhereBodiesAre keeps small bodies in the database and others as files, to
// the byte, and knows what each adds up to.
func TestWhereBodiesAre(t *testing.T) {
	for _, size := range []int{0, 1, firstPiece - 1, firstPiece, firstPiece + 1, 20_000, smallBody - 1, smallBody, smallBody + 1, copyPiece * 2, 300_000, 2*copyPiece + 3*largePiece + 1} {
		for _, declared := range []bool{true, false} {
			t.Run(fmt.Sprintf("%d/%v", size, declared), func(t *testing.T) {
				dir := t.TempDir()
				g := openCore(t, dir, newRemote())
				want := content(5, size)
				length := int64(-1)
				if declared {
					length = int64(size)
				}
				r := g.receive(t.Context())
				i, err := r.add(fileName(t, "f"), length, iotest.DataErrReader(strings.NewReader(want)))
				if err != nil || i != 0 {
					t.Fatal(i, err)
				}
				kept, err := r.commit()
				if err != nil {
					t.Fatal(err)
				}
				r.abort() // does nothing
				u := kept[0]
				sum := sha256.Sum256([]byte(want))
				if *u.SHA256 != hex.EncodeToString(sum[:]) || *u.Size != int64(size) || u.State != StateQueued || u.Name != "f" {
					t.Errorf("upload %+v", u)
				}
				got := g.see(u.ID)
				if got.Change == 0 {
					t.Error("that it came has no number")
				}
				if got.Change = 0; cmp.Diff(u, got) != "" {
					d := cmp.Diff(u, got)
					t.Errorf("commit and get differ:\n%s", d)
				}
				var inDatabase []byte
				err = g.db.Read().QueryRow("select content from contents where upload = $1", u.ID).Scan(&inDatabase)
				if size <= smallBody {
					wantSpool(t, dir)
					if err != nil || string(inDatabase) != want {
						t.Errorf("%d bytes in the database, %v; want %d", len(inDatabase), err, size)
					}
					return
				}
				wantSpool(t, dir, u.ID.String())
				if err == nil {
					t.Error("it is in the database, too")
				}
				b, err := os.ReadFile(filepath.Join(dir, "files", "spool", u.ID.String()))
				if err != nil || string(b) != want {
					t.Errorf("%d bytes in the spool, %v; want %d", len(b), err, size)
				}
			})
		}
	}
}

// TestManySmallBodies bounds what a request's small bodies take in memory: what
// is beyond goes to the spool, and is kept and delivered as well.
func TestManySmallBodies(t *testing.T) {
	dir, remote := t.TempDir(), newRemote()
	g := openCore(t, dir, remote)
	r := g.receive(t.Context())
	defer r.abort()
	const files, size = 30, 30_000
	want := map[string]string{}
	for i := range files {
		name := fmt.Sprint("f", i)
		want[name] = content(byte(i), size)
		if _, err := r.add(fileName(t, name), -1, strings.NewReader(want[name])); err != nil {
			t.Fatal(err)
		}
	}
	if r.held > maxHeld {
		t.Errorf("%d bytes in memory, %d are the limit", r.held, maxHeld)
	}
	held := 0
	for _, in := range r.files {
		held += cap(in.small)
	}
	if held > maxHeld*4/3 {
		t.Errorf("buffers of %d bytes in memory", held)
	}
	kept, err := r.commit()
	if err != nil || len(kept) != files {
		t.Fatalf("%d kept, %v", len(kept), err)
	}
	g.deliverAll()
	for i, u := range kept {
		if u.Name != fmt.Sprint("f", i) {
			t.Errorf("upload %d is %s", i, u.Name)
		}
		g.await(u.ID, StateDelivered)
	}
	if d := cmp.Diff(want, remote.stored()); d != "" {
		t.Error("what was delivered differs")
	}
	waitSpool(t, g, dir)
}

// TestRefusedBodies keeps nothing of a request of which one file cannot be
// taken.
func TestRefusedBodies(t *testing.T) {
	broken := errors.New("broken")
	cases := []struct {
		name     string
		declared int64
		body     io.Reader
		want     error
	}{
		{"too short, small", 11, strings.NewReader("ten bytes!"), errLength},
		{"too long, small", 9, strings.NewReader("ten bytes!"), errLength},
		{"too long, empty", 0, strings.NewReader("x"), errLength},
		{"too short, large", 2 * large, strings.NewReader(content(1, 2*large-1)), errLength},
		{"too long, large", 2 * large, strings.NewReader(content(1, 2*large+1)), errLength},
		{"body's error, small", -1, iotest.ErrReader(broken), broken},
		{"body's error, large", -1, io.MultiReader(strings.NewReader(content(1, 3*large)), iotest.ErrReader(broken)), broken},
		{"declared too large", 1 << 30, iotest.ErrReader(errors.New("it was read")), proto.ErrTooLarge},
		{"too large", -1, zeros{}, proto.ErrTooLarge},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			g := openCore(t, dir, newRemote(), func(cfg *Config, _ *parts) {
				cfg.Destinations = to(t, "v3://127.0.0.1:1?dialect=mainstream&slice=734")
			})
			r := g.receive(t.Context())
			for _, size := range []int{10, large} {
				if _, err := r.add(fileName(t, "fine"), -1, strings.NewReader(content(2, size))); err != nil {
					t.Fatal(err)
				}
			}
			_, err := r.add(fileName(t, "f"), c.declared, c.body)
			if !errors.Is(err, c.want) {
				t.Errorf("error %v, want %v", err, c.want)
			}
			if strings.Contains(c.name, "short") && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("error %v, want an unexpected EOF, too", err)
			}
			r.abort()
			r.abort()
			wantNothing(t, g, dir)
		})
	}
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// wantNothing wants no upload, and nothing of one.
func wantNothing(t *testing.T, g *core, dir string) {
	t.Helper()
	wantSpool(t, dir)
	page, err := g.list(t.Context(), filter{}, 10)
	if err != nil || len(page) > 0 {
		t.Errorf("listed: %+v, %v", page, err)
	}
	for _, table := range []string{"uploads", "jobs", "contents"} {
		var n int
		if err := g.db.Read().QueryRow("select count(*) from " + table).Scan(&n); err != nil || n > 0 {
			t.Errorf("%d rows in %s, %v", n, table, err)
		}
	}
}

// TestReceiving shows a file while it comes in, and takes its name later.
func TestReceiving(t *testing.T) {
	dir := t.TempDir()
	g := openCore(t, dir, newRemote())
	g.take("older", "1")
	r := g.receive(t.Context())
	defer r.abort()
	if _, err := r.add(fileName(t, "first"), -1, strings.NewReader("abc")); err != nil {
		t.Fatal(err)
	}
	body := newStalled(content(1, 2*large))
	added := make(chan error, 1)
	go func() {
		_, err := r.add(fileName(t, "second"), 3*large, body)
		added <- err
	}()
	soon(t, body.stalls)
	g.take("newer", "2")
	page, err := g.list(t.Context(), filter{}, 10)
	if err != nil {
		t.Fatal(err)
	}
	type row struct {
		Name  string
		State State
		Progress
	}
	var got []row
	for _, u := range page {
		got = append(got, row{u.Name, u.State, u.Progress})
		if d := cmp.Diff(u, g.see(u.ID)); d != "" {
			t.Errorf("list and get differ:\n%s", d)
		}
	}
	want := []row{
		{"newer", StateQueued, Progress{TotalBytes: 1}},
		{"second", StateReceiving, Progress{Bytes: 2 * large, TotalBytes: 3 * large}},
		{"first", StateReceiving, Progress{Bytes: 3, TotalBytes: 3}},
		{"older", StateQueued, Progress{TotalBytes: 1}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("list (-want +got):\n%s", d)
	}
	if page[1].Size == nil || *page[1].Size != 3*large || page[2].Size != nil || page[1].SHA256 != nil {
		t.Errorf("second %+v, first %+v", page[1], page[2])
	}
	for i := range page { // one at a time is the same list
		before := ulid.ULID{}
		if i > 0 {
			before = page[i-1].ID
		}
		one, err := g.list(t.Context(), filter{after: position{id: before}}, 1)
		if err != nil || len(one) != 1 || one[0].ID != page[i].ID {
			t.Errorf("page %d: %+v, %v", i, one, err)
		}
	}
	body.more <- content(2, large)
	close(body.more)
	if err := soon(t, added); err != nil {
		t.Fatal(err)
	}
	r.rename(0, fileName(t, "renamed"))
	kept, err := r.commit()
	if err != nil {
		t.Fatal(err)
	}
	if kept[0].Name != "renamed" || kept[0].ID != page[2].ID || kept[1].ID != page[1].ID {
		t.Errorf("kept %+v", kept)
	}
}

// stalled is a body that waits for the test between its pieces.
type stalled struct {
	rest   string
	stalls chan struct{} // gets a value before each wait
	more   chan string
	halt   chan struct{}
	once   sync.Once
}

func newStalled(start string) *stalled {
	return &stalled{rest: start, stalls: make(chan struct{}, 10), more: make(chan string), halt: make(chan struct{})}
}

var errHalted = errors.New("deadline")

func (b *stalled) Read(p []byte) (int, error) {
	if b.rest == "" {
		b.stalls <- struct{}{}
		select {
		case more, ok := <-b.more:
			if !ok {
				return 0, io.EOF
			}
			b.rest = more
		case <-b.halt:
			return 0, errHalted
		}
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

func (b *stalled) Interrupt() { b.once.Do(func() { close(b.halt) }) }

// TestCancelReceiving ends the whole request, in the middle of a silent body.
func TestCancelReceiving(t *testing.T) {
	for _, target := range []int{0, 1} {
		t.Run(fmt.Sprint("file ", target), func(t *testing.T) {
			dir := t.TempDir()
			g := openCore(t, dir, newRemote())
			r := g.receive(t.Context())
			if _, err := r.add(fileName(t, "whole"), -1, strings.NewReader(content(1, large))); err != nil {
				t.Fatal(err)
			}
			body := newStalled(content(1, large))
			added := make(chan error, 1)
			go func() {
				_, err := r.add(fileName(t, "silent"), -1, body)
				added <- err
			}()
			soon(t, body.stalls)
			page, err := g.list(t.Context(), filter{}, 10)
			if err != nil || len(page) != 2 {
				t.Fatalf("%+v, %v", page, err)
			}
			u, gone, err := g.remove(t.Context(), page[target].ID)
			if err != nil || !gone || u.State != StateCancelled {
				t.Errorf("%s, gone %v, %v; want cancelled and gone", u.State, gone, err)
			}
			if err := soon(t, added); !errors.Is(err, errInterrupted) {
				t.Errorf("add: %v, want %v", err, errInterrupted)
			}
			if _, err := r.add(fileName(t, "late"), -1, strings.NewReader("x")); !errors.Is(err, errInterrupted) {
				t.Errorf("add afterwards: %v, want %v", err, errInterrupted)
			}
			if _, err := r.commit(); !errors.Is(err, errInterrupted) {
				t.Errorf("commit: %v, want %v", err, errInterrupted)
			}
			r.abort()
			wantNothing(t, g, dir)
			if _, _, err := g.remove(t.Context(), u.ID); !errors.Is(err, errNotFound) {
				t.Errorf("again: %v, want %v", err, errNotFound)
			}
		})
	}
}

// TestClientLeaves ends with the request.
func TestClientLeaves(t *testing.T) {
	dir := t.TempDir()
	g := openCore(t, dir, newRemote())
	left := errors.New("the client has left")
	ctx, leave := context.WithCancelCause(t.Context())
	r := g.receive(ctx)
	if _, err := r.add(fileName(t, "f"), -1, strings.NewReader(content(1, large))); err != nil {
		t.Fatal(err)
	}
	leave(left)
	if _, err := r.add(fileName(t, "g"), -1, strings.NewReader("x")); !errors.Is(err, left) {
		t.Errorf("add: %v, want %v", err, left)
	}
	if _, err := r.commit(); !errors.Is(err, left) {
		t.Errorf("commit: %v, want %v", err, left)
	}
	wantNothing(t, g, dir)
}

// TestManyReceptions takes in 200 requests at once, of several files each.
func TestManyReceptions(t *testing.T) {
	dir, remote := t.TempDir(), newRemote()
	g := openCore(t, dir, remote)
	g.deliverAll()
	var all sync.WaitGroup
	var mu sync.Mutex
	want := map[string]string{}
	var kept []Upload
	for i := range 200 {
		all.Go(func() {
			r := g.receive(t.Context())
			defer r.abort()
			for k := range 3 {
				name, c := fmt.Sprintf("%d %d", i, k), content(byte(i), []int{0, 1000, large}[(i+k)%3])
				if _, err := r.add(fileName(t, name), int64(len(c)), strings.NewReader(c)); err != nil {
					t.Error(err)
				}
				if i%5 > 0 {
					mu.Lock()
					want[name] = c
					mu.Unlock()
				}
			}
			if i%5 == 0 {
				return // aborted
			}
			u, err := r.commit()
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			kept = append(kept, u...)
			mu.Unlock()
		})
	}
	all.Wait()
	for _, u := range kept {
		g.await(u.ID, StateDelivered)
	}
	if got := remote.stored(); !cmp.Equal(got, want) {
		t.Errorf("%d files were delivered, want %d that are the same", len(got), len(want))
	}
	waitSpool(t, g, dir)
	if len(g.live.receiving) > 0 {
		t.Errorf("%d files are shown as receiving still", len(g.live.receiving))
	}
}

// TestCommitsMeetCancels cancels what is receiving while it is committed: it is
// gone, or cancelled, and never half of each.
func TestCommitsMeetCancels(t *testing.T) {
	dir := t.TempDir()
	g := openCore(t, dir, newRemote())
	for i := range 100 {
		r := g.receive(t.Context())
		var ids []ulid.ULID
		for k := range 2 {
			if _, err := r.add(fileName(t, fmt.Sprint(i, k)), -1, strings.NewReader(content(1, large*(i%2)))); err != nil {
				t.Fatal(err)
			}
			ids = append(ids, r.files[k].id)
		}
		var both sync.WaitGroup
		var kept []Upload
		both.Go(func() {
			var err error
			if kept, err = r.commit(); err != nil && !errors.Is(err, errInterrupted) {
				t.Error(err)
			}
		})
		u, gone, err := g.remove(t.Context(), ids[1])
		both.Wait()
		if err != nil || u.State != StateCancelled || gone != (kept == nil) {
			t.Fatalf("%s, gone %v, %v; %d were kept", u.State, gone, err, len(kept))
		}
		if _, err := g.get(t.Context(), ids[0]); (err == nil) != (kept != nil) {
			t.Errorf("the other file: %v; %d were kept", err, len(kept))
		}
	}
}

// TestFullDisk gives the room of a refused upload back, whether the disk is
// full or the reserve is reached, and goes on.
func TestFullDisk(t *testing.T) {
	for _, reserve := range []int64{1, 2 * checkRoom} {
		t.Run(fmt.Sprint("reserve ", reserve), func(t *testing.T) {
			dir, remote := smalldisk.Mount(t, "24m"), newRemote()
			g := openCore(t, dir, remote, func(_ *Config, p *parts) { p.reserve = reserve })
			before, err := g.spool.Free()
			if err != nil {
				t.Fatal(err)
			}
			if err := g.ready(t.Context()); err != nil {
				t.Fatal(err)
			}
			r := g.receive(t.Context())
			if _, err := r.add(fileName(t, "fine"), -1, strings.NewReader(content(1, large))); err != nil {
				t.Fatal(err)
			}
			least := before
			body := readerFunc(func(p []byte) (int, error) {
				free, err := g.spool.Free()
				least = min(least, free)
				return len(p), err
			})
			if _, err := r.add(fileName(t, "f"), -1, io.LimitReader(body, 100<<20)); !errors.Is(err, errSpoolFull) {
				t.Errorf("undeclared: %v, want %v", err, errSpoolFull)
			}
			if least < reserve-checkRoom-copyPiece {
				t.Errorf("%d bytes were left at some moment, %d are the reserve", least, reserve)
			}
			r.abort()
			if _, err := r.add(fileName(t, "f"), 80<<20, iotest.ErrReader(errors.New("it was read"))); !errors.Is(err, errSpoolFull) {
				t.Errorf("declared: %v, want %v", err, errSpoolFull)
			}
			if after, err := g.spool.Free(); err != nil || before-after > 256<<10 {
				t.Errorf("%d bytes of %d are free again, %v", after, before, err)
			}
			wantNothing(t, g, dir)
			u := g.take("fits", content(1, 1<<20))
			g.deliverAll()
			g.await(u.ID, StateDelivered)
		})
	}
}

// TestRoomIsPromised: what one upload has declared, another one does not get.
func TestRoomIsPromised(t *testing.T) {
	dir := smalldisk.Mount(t, "64m")
	g := openCore(t, dir, newRemote(), func(_ *Config, p *parts) { p.reserve = 1 << 20 })
	const large = 40 << 20
	body, more := io.Pipe()
	first := g.receive(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := first.add(fileName(t, "first"), large, body)
		done <- err
	}()
	if _, err := more.Write(make([]byte, 8<<20)); err != nil {
		t.Fatal(err)
	}
	second := g.receive(t.Context())
	_, err := second.add(fileName(t, "second"), large, iotest.ErrReader(errors.New("it was read")))
	if full, ok := errors.AsType[*fullError](err); !ok || full.needs != large || full.has > 64<<20-large || !errors.Is(err, errSpoolFull) {
		t.Errorf("beside the first: %+v, want it refused with numbers", err)
	}
	endless := io.LimitReader(readerFunc(func(p []byte) (int, error) { return len(p), nil }), large)
	if _, err := second.add(fileName(t, "undeclared"), -1, endless); !errors.Is(err, errSpoolFull) {
		t.Errorf("undeclared: %v, want %v", err, errSpoolFull)
	}
	if _, err := second.add(fileName(t, "fits"), 5<<20, strings.NewReader(content(1, 5<<20))); err != nil {
		t.Error(err)
	}
	second.abort()
	// The first gets all that it was promised.
	if _, err := more.Write(make([]byte, large-8<<20)); err != nil {
		t.Fatal(err)
	}
	if err := more.Close(); err != nil {
		t.Fatal(err)
	}
	if err := soon(t, done); err != nil {
		t.Error(err)
	}
	first.abort()
	if g.room.promised != 0 {
		t.Errorf("%d bytes are still promised", g.room.promised)
	}
	third := g.receive(t.Context())
	defer third.abort()
	if _, err := third.add(fileName(t, "third"), large, io.LimitReader(readerFunc(func(p []byte) (int, error) { return len(p), nil }), large)); err != nil {
		t.Errorf("when there is room again: %v", err)
	}
}

// TestMaxSize has the gateway take less than its destination would.
func TestMaxSize(t *testing.T) {
	c := openCore(t, t.TempDir(), newRemote(), func(cfg *Config, _ *parts) { cfg.MaxSize = 1000 })
	s := newTestAPI(t, c.httpAPI())
	s.ask(t, "PUT", "/uploads/fits", strings.NewReader(strings.Repeat("x", 1000))).upload(t, http.StatusAccepted)
	p := s.ask(t, "PUT", "/uploads/large", strings.NewReader(strings.Repeat("x", 1001))).problem(t, kindTooLarge)
	if p.Limit != 1000 || p.Size != 1001 {
		t.Errorf("%+v, want the numbers", p)
	}
	unsized := io.MultiReader(strings.NewReader(strings.Repeat("x", 1001)))
	s.ask(t, "PUT", "/uploads/unsized", unsized).problem(t, kindTooLarge)
}

// TestFullDatabase fills the disk under the database: an upload that cannot be
// recorded is refused, and nothing of it stays.
func TestFullDatabase(t *testing.T) {
	dir := smalldisk.Mount(t, "8m")
	g := openCore(t, dir, newRemote(), func(_ *Config, p *parts) { p.reserve = 1 })
	g.take("first", "x")
	fill, err := os.Create(filepath.Join(dir, "fill"))
	if err != nil {
		t.Fatal(err)
	}
	defer fill.Close()
	for err == nil {
		_, err = fill.WriteString(content(1, 4096))
	}
	if end, err := fill.Seek(0, io.SeekEnd); err != nil || fill.Truncate(end-8192) != nil {
		t.Fatal(err)
	}
	r := g.receive(t.Context())
	defer r.abort()
	if _, err := r.add(fileName(t, "f"), -1, strings.NewReader(content(1, smallBody))); err != nil {
		t.Fatal(err)
	}
	_, err = r.commit()
	if !errors.Is(err, errSpoolFull) {
		t.Errorf("commit: %v, want %v", err, errSpoolFull)
	}
	if err := os.Remove(fill.Name()); err != nil {
		t.Fatal(err)
	}
	if err := fill.Truncate(0); err != nil {
		t.Fatal(err)
	}
	g.take("fits", content(1, smallBody))
	if page, err := g.list(t.Context(), filter{}, 10); err != nil || len(page) != 2 {
		t.Errorf("%d uploads, %v; want 2", len(page), err)
	}
}

// TestNotReady says why no uploads can be taken.
func TestNotReady(t *testing.T) {
	g := openCore(t, t.TempDir(), newRemote(), func(_ *Config, p *parts) { p.reserve = 1 << 60 })
	if err := g.ready(t.Context()); !errors.Is(err, errSpoolFull) {
		t.Errorf("no room: %v, want %v", err, errSpoolFull)
	}
	g = openCore(t, t.TempDir(), newRemote())
	if err := g.db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := g.ready(t.Context()); !errors.Is(err, sqldb.ErrClosed) {
		t.Errorf("no database: %v, want %v", err, sqldb.ErrClosed)
	}
}

// TestIDsGrow makes ids that are greater than all before, also when the clock
// goes back.
func TestIDsGrow(t *testing.T) {
	g := openCore(t, t.TempDir(), newRemote())
	last := ulid.ULID{}
	for range 10_000 {
		id, _ := g.newID()
		if id.Compare(last) <= 0 {
			t.Fatalf("%s after %s", id, last)
		}
		last = id
		g.time.advance(-1 * 100_000)
	}
}

// TestListPages walks through all uploads while more come in: each is there
// once, newest first.
func TestPagesAreStable(t *testing.T) {
	g := openCore(t, t.TempDir(), newRemote())
	var want []ulid.ULID
	for i := range 57 {
		want = append(want, g.take(fmt.Sprint(i), "x").ID)
		if rand.IntN(2) == 0 {
			g.time.advance(1_000_000)
		}
	}
	var got []ulid.ULID
	before := ulid.ULID{}
	for {
		page, err := g.list(t.Context(), filter{after: position{id: before}}, 10)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		for _, u := range page {
			got = append(got, u.ID)
		}
		before = page[len(page)-1].ID
		g.take("new", "y")
	}
	for i, j := 0, len(want)-1; i < j; i, j = i+1, j-1 {
		want[i], want[j] = want[j], want[i]
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("pages (-want +got):\n%s", d)
	}
}

// BenchmarkSmallUploads takes in files of 4 KiB, 64 at a time.
func BenchmarkSmallUploads(b *testing.B) {
	g := openCore(b, b.TempDir(), newRemote())
	body := content(1, 4096)
	name := fileName(b, "f")
	b.SetParallelism(32)
	b.SetBytes(int64(len(body)))
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r := g.receive(b.Context())
			if _, err := r.add(name, int64(len(body)), strings.NewReader(body)); err != nil {
				b.Error(err)
			}
			if _, err := r.commit(); err != nil {
				b.Error(err)
			}
		}
	})
}
