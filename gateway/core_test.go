package gateway

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"go.uber.org/goleak"

	"ferry/proto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait in these tests; none is expected to come near it.
const patience = 20 * time.Second

// A remote is a destination in memory, and the sender that delivers to it. By
// default it does what a server does; script makes single sends end otherwise.
type remote struct {
	keys proto.Keyring
	// again: what is stored already is acknowledged once more, and what a name is
	// taken by is said, as in version 4.
	again bool
	sign  func(proto.Offer) []byte // makes receipts' envelopes; nil for none

	mu     sync.Mutex
	offers []proto.Offer     // in the order in which they were begun; guarded by mu
	files  map[string]string // by name: what was stored; guarded by mu
	script map[string][]step // by name: what the next sends do; guarded by mu
	sends  []string          // names in the order in which they were begun; guarded by mu
	active map[string]int    // by name: sends that run; guarded by mu
	most   int               // sends that ran at once, at most; guarded by mu
	twice  bool              // two sends of one name ran at once; guarded by mu
}

// A step is one send.
type step func(s *sending) error

type sending struct {
	*remote
	ctx   context.Context
	offer proto.Offer
	src   proto.Source
	watch proto.Watcher
}

func newRemote() *remote {
	return &remote{files: map[string]string{}, script: map[string][]step{}, active: map[string]int{}}
}

// expect makes the next sends of a name do steps.
func (r *remote) expect(name string, steps ...step) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.script[name] = append(r.script[name], steps...)
}

var remoteID = proto.ClientID{1, 2, 3}

func (r *remote) Send(ctx context.Context, o proto.Offer, src proto.Source, w proto.Watcher) (proto.Receipt, error) {
	if _, ok, _ := r.keys.Load(ctx); !ok {
		name, _ := proto.ParseClientName("test")
		if err := r.keys.Save(ctx, proto.Identity{Name: name, ID: remoteID, PrivateKey: []byte("key")}); err != nil {
			return proto.Receipt{}, err
		}
	}
	name := o.Name.String()
	r.mu.Lock()
	r.sends = append(r.sends, name)
	r.offers = append(r.offers, o)
	r.active[name]++
	r.twice = r.twice || r.active[name] > 1
	running := 0
	for _, n := range r.active {
		running += n
	}
	r.most = max(r.most, running)
	do := (*sending).deliver
	if steps := r.script[name]; len(steps) > 0 {
		do = func(s *sending) error { return steps[0](s) }
		r.script[name] = steps[1:]
	}
	r.mu.Unlock()
	err := do(&sending{r, ctx, o, src, w})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.active[name]--
	if err != nil {
		return proto.Receipt{}, fmt.Errorf("send %q to a fake: %w", name, err)
	}
	receipt := proto.Receipt{ClientID: remoteID, Name: o.Name}
	if r.sign != nil {
		receipt.Envelope = r.sign(o)
	}
	return receipt, nil
}

func (r *remote) Close() error { return nil }

// begun are the names of all sends so far, in their order.
func (r *remote) begun() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.sends)
}

func (r *remote) stored() map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.files)
}

// deliver is what happens if nothing goes wrong.
func (s *sending) deliver() error {
	if s.again {
		if held, there := s.stored()[s.offer.Name.String()]; there {
			return heldAlready(held, *s.offer.Sum)
		}
	}
	if err := s.match(); err != nil {
		return err
	}
	s.store()
	return nil
}

// heldAlready answers the offer of a name that is taken.
func heldAlready(held string, offered proto.Sum) error {
	sum := proto.NewSummer()
	_, _ = io.WriteString(sum, held)
	if got := sum.Sum(); got != offered {
		return &proto.ExistsError{Sum: got}
	}
	return nil
}

// match sends the bytes and has the checksums compared.
func (s *sending) match() error {
	s.progress(proto.PhaseSending, 0)
	s.mu.Lock()
	_, there := s.files[s.offer.Name.String()]
	s.mu.Unlock()
	if there {
		return proto.ErrExists
	}
	b, err := s.read()
	if err != nil {
		return fmt.Errorf("%w: %w", proto.ErrSource, err)
	}
	if sha256.Sum256(b) != s.offer.Sum.SHA256 || int64(len(b)) != s.offer.Size {
		return proto.ErrSource
	}
	s.progress(proto.PhaseVerifying, s.offer.Size)
	return s.watch.Matched(s.ctx)
}

func (s *sending) progress(p proto.Phase, bytes int64) {
	s.watch.Progress(proto.Progress{Phase: p, Bytes: bytes, TotalBytes: s.offer.Size, Packets: bytes, TotalPackets: s.offer.Size, Send: 1})
}

func (s *sending) read() ([]byte, error) {
	src, err := s.src()
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(src)
	return b, errors.Join(err, src.Close())
}

func (s *sending) store() {
	b, err := s.read()
	if err != nil {
		panic(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.files[s.offer.Name.String()]; there {
		panic("replaced " + s.offer.Name.String())
	}
	s.files[s.offer.Name.String()] = string(b)
}

var errBroken = errors.New("connection broken")

// fails is a send that ends before any byte was taken.
func fails(err error) step { return func(*sending) error { return err } }

// loses stores the file, and its acknowledgement gets lost.
func loses(s *sending) error {
	if err := s.deliver(); err != nil {
		return err
	}
	return errBroken
}

// breaks lets the connection break after the checksums matched and before
// anything was stored.
func breaks(s *sending) error {
	if err := s.match(); err != nil {
		return err
	}
	return errBroken
}

// A gate is where a send waits for the test.
type gate struct{ reached, open chan struct{} }

func newGate() *gate { return &gate{make(chan struct{}), make(chan struct{})} }

// wait tells the test and waits for it or for the end of the attempt.
func (g *gate) wait(ctx context.Context) error {
	close(g.reached)
	select {
	case <-g.open:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// then is a send that waits at the gate first.
func (g *gate) then(next step) step {
	return func(s *sending) error {
		s.progress(proto.PhaseSending, 1)
		if err := g.wait(s.ctx); err != nil {
			return err
		}
		return next(s)
	}
}

// matchedThen waits once the checksums have matched.
func (g *gate) matchedThen(next step) step {
	return func(s *sending) error {
		if err := s.match(); err != nil {
			return err
		}
		if err := g.wait(s.ctx); err != nil {
			return err
		}
		return next(s)
	}
}

func storeMatched(s *sending) error { s.store(); return nil }

func (g *gate) await(t testing.TB) {
	t.Helper()
	soon(t, g.reached)
}

// soon is the next value of c, or the zero value once it is closed.
func soon[T any](t testing.TB, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatal("nothing came in time")
		panic("unreachable")
	}
}

// testClock stands still until it is moved.
type testClock struct {
	mu     sync.Mutex
	t      time.Time     // guarded by mu
	timers []testTimer   // guarded by mu
	waits  chan struct{} // gets a value when somebody begins to wait
}

type testTimer struct {
	at time.Time
	c  chan time.Time
}

func newTestClock() *testClock {
	return &testClock{t: time.Now().UTC().Truncate(time.Second), waits: make(chan struct{}, 1)}
}

func (c *testClock) clock() clock {
	return clock{
		now: func() time.Time {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.t
		},
		after: func(d time.Duration) (<-chan time.Time, func()) {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.timer(c.t.Add(d)), func() {}
		},
		until: func(at time.Time) (<-chan time.Time, func()) {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.timer(at), func() {}
		},
	}
}

// timer gets a value at a moment. mu is held.
func (c *testClock) timer(at time.Time) <-chan time.Time {
	timer := testTimer{at, make(chan time.Time, 1)}
	if !at.After(c.t) {
		timer.c <- c.t
		return timer.c
	}
	c.timers = append(c.timers, timer)
	select {
	case c.waits <- struct{}{}:
	default:
	}
	return timer.c
}

// await waits until somebody waits for a moment, so that moving the clock there
// wakes them.
func (c *testClock) await(t testing.TB, at time.Time) {
	t.Helper()
	limit := time.After(patience)
	for {
		c.mu.Lock()
		waiting := slices.ContainsFunc(c.timers, func(timer testTimer) bool { return timer.at.Equal(at) })
		c.mu.Unlock()
		if waiting {
			return
		}
		select {
		case <-c.waits:
		case <-limit:
			t.Fatalf("nobody waits for %v", at)
		}
	}
}

func (c *testClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
	c.timers = slices.DeleteFunc(c.timers, func(timer testTimer) bool {
		if timer.at.After(c.t) {
			return false
		}
		timer.c <- c.t
		return true
	})
}

// A core is a Gateway under test, without HTTP.
type core struct {
	*Gateway
	t      testing.TB
	remote *remote
	time   *testClock
	events *events
	ended  chan struct{} // closed when the test has closed it
}

// events tells that something was logged: an outcome is, once it is durable.
type events struct {
	slog.Handler
	more chan struct{}
}

func (e *events) Handle(ctx context.Context, r slog.Record) error {
	err := e.Handler.Handle(ctx, r)
	select {
	case e.more <- struct{}{}:
	default:
	}
	return err
}

func (e *events) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &events{e.Handler.WithAttrs(attrs), e.more}
}

func destination(t testing.TB, url string) proto.Destination {
	t.Helper()
	to, err := proto.ParseDestination(url)
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// to is the only destination of a gateway.
func to(t testing.TB, url string) []Destination {
	t.Helper()
	return []Destination{{To: destination(t, url)}}
}

func fileName(t testing.TB, s string) proto.FileName {
	t.Helper()
	name, err := proto.ParseFileName(s)
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// openCore opens a gateway on a folder; nobody delivers until deliverAll.
func openCore(t testing.TB, dir string, r *remote, changes ...func(*Config, *parts)) *core {
	t.Helper()
	name, err := proto.ParseClientName("test")
	if err != nil {
		t.Fatal(err)
	}
	c := &core{t: t, remote: r, time: newTestClock(), events: &events{slog.NewTextHandler(t.Output(), nil), make(chan struct{}, 1)}, ended: make(chan struct{})}
	cfg := Config{Data: dir, Destinations: to(t, "v3://127.0.0.1:1?window=64"), Name: name, Log: slog.New(c.events)}
	p := parts{
		sender: func(_ Destination, k proto.Keyring) sender { r.keys = k; return r },
		clock:  c.time.clock(),
		jitter: func() float64 { return 0.5 },
	}
	for _, change := range changes {
		change(&cfg, &p)
	}
	if c.Gateway, err = openWith(t.Context(), cfg, p); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.shut)
	return c
}

// shut closes the gateway, once.
func (c *core) shut() {
	select {
	case <-c.ended:
		return
	default:
	}
	close(c.ended)
	if err := c.Close(); err != nil {
		c.t.Error(err)
	}
}

// deliverAll serves until stop is called, or until the end of the test.
func (c *core) deliverAll() (stop func()) {
	c.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Serve(ctx, ln) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				c.t.Error(err)
			}
		case <-time.After(min(c.cfg.Grace, defaultGrace) + patience):
			stacks := make([]byte, 1<<20)
			c.t.Errorf("the gateway does not end; what runs:\n%s", stacks[:runtime.Stack(stacks, true)])
		}
	})
	c.t.Cleanup(stop) // before shut, which was registered earlier
	return stop
}

// take receives one file and returns its upload.
func (c *core) take(name, content string) Upload {
	c.t.Helper()
	return c.takeIn(c.receive(c.t.Context()), name, content)
}

// takeIn is take by a reception that has begun.
func (c *core) takeIn(r *reception, name, content string) Upload {
	c.t.Helper()
	defer r.abort()
	if _, err := r.add(fileName(c.t, name), int64(len(content)), strings.NewReader(content)); err != nil {
		c.t.Fatal(err)
	}
	u, err := r.commit()
	if err != nil {
		c.t.Fatal(err)
	}
	return u[0]
}

// exec runs one statement.
func (c *core) exec(text string, args ...any) {
	c.t.Helper()
	err := c.db.Update(c.t.Context(), func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, text, args...)
		return err
	})
	if err != nil {
		c.t.Fatal(err)
	}
}

// holdWriter has all updates wait for release: those that come meanwhile are one group.
func (c *core) holdWriter() (release func()) {
	c.t.Helper()
	begun, begin, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- c.db.Update(context.Background(), func(context.Context, *sql.Tx) error { close(begun); <-begin; return nil })
	}()
	soon(c.t, begun)
	release = sync.OnceFunc(func() {
		close(begin)
		if err := soon(c.t, ended); err != nil {
			c.t.Error(err)
		}
	})
	c.t.Cleanup(release)
	return release
}

func (c *core) see(id ulid.ULID) Upload {
	c.t.Helper()
	u, err := c.get(context.Background(), id)
	if err != nil {
		c.t.Fatal(err)
	}
	return u
}

// await waits until an upload is in a state.
func (c *core) await(id ulid.ULID, want State) Upload {
	c.t.Helper()
	limit := time.After(patience)
	for {
		u := c.see(id)
		if u.State == want {
			return u
		}
		select {
		case <-c.events.more:
		case <-limit:
			c.t.Fatalf("upload %s is %s, want %s: %v", u.Name, u.State, want, *orEmpty(u.Attempts.LastError))
		}
	}
}

// awaitInTime moves the clock to an upload's next attempt until it is in a
// state.
func (c *core) awaitInTime(id ulid.ULID, want State) Upload {
	c.t.Helper()
	for limit := time.After(patience); ; {
		u := c.see(id)
		if u.State == want {
			return u
		}
		if next := u.Attempts.NextAt; next != nil && next.After(c.now()) {
			c.time.advance(next.Sub(c.now()))
		}
		select {
		case <-c.events.more:
		case <-limit:
			c.t.Fatalf("upload %s is %s, want %s: %v", u.Name, u.State, want, *orEmpty(u.Attempts.LastError))
		}
	}
}

func orEmpty(s *string) *string {
	if s == nil {
		return new("")
	}
	return s
}

// spoolFiles are the files with content in the spool and in staging.
func spoolFiles(t testing.TB, dir string) (names []string) {
	t.Helper()
	for _, folder := range []string{"files", "staging"} {
		err := filepath.WalkDir(filepath.Join(dir, folder), func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			if info, err := d.Info(); err != nil || info.Size() > 0 {
				names = append(names, filepath.Base(path))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return names
}

func wantSpool(t testing.TB, dir string, want ...string) {
	t.Helper()
	got := spoolFiles(t, dir)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("files in the spool: %q, want %q", got, want)
	}
}

const large = smallBody + 1

func content(seed byte, size int) string {
	b := make([]byte, size)
	for i := range b {
		b[i] = seed + byte(i*7>>3)
	}
	return string(b)
}
