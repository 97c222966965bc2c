package gateway

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"ferry/proto"
)

// fakeCore is uploads in memory. What it does wrong on demand is in fail.
type fakeCore struct {
	limit int64
	names naming
	fail  map[string]error // by the name of the method; a panic for errPanic
	began chan struct{}    // gets a value when add begins, if not nil

	mu        sync.Mutex
	lists     int                  // how often list works before it fails; 0 for ever; guarded by mu
	kept      []Upload             // oldest first; guarded by mu
	envelopes map[ulid.ULID][]byte // guarded by mu
	lost      []string             // names that were added and not committed; guarded by mu
}

var errPanic = errors.New("panic")

func (c *fakeCore) fails(method string) error {
	err := c.fail[method]
	if errors.Is(err, errPanic) {
		panic("the fake was told to")
	}
	return err
}

func (c *fakeCore) find(id ulid.ULID) (int, error) {
	i := slices.IndexFunc(c.kept, func(u Upload) bool { return u.ID == id })
	if i < 0 {
		return 0, errNotFound
	}
	return i, nil
}

func (c *fakeCore) get(_ context.Context, id ulid.ULID) (Upload, error) {
	if err := c.fails("get"); err != nil {
		return Upload{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	i, err := c.find(id)
	if err != nil {
		return Upload{}, err
	}
	return c.kept[i], nil
}

// await waits for nothing: nothing here changes by itself.
func (c *fakeCore) await(ctx context.Context, id ulid.ULID, _ time.Duration, _ func(Upload) bool) (Upload, error) {
	if err := c.fails("await"); err != nil {
		return Upload{}, err
	}
	return c.get(ctx, id)
}

func (c *fakeCore) moved(ctx context.Context, id ulid.ULID, most time.Duration, done func(Upload) bool) (Upload, error) {
	return c.await(ctx, id, most, done)
}

func (c *fakeCore) list(_ context.Context, f filter, limit int) ([]Upload, error) {
	if err := c.fails("list"); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch c.lists {
	case -1:
		return nil, errors.New("internal error: the fake was told to")
	case 0:
	case 1:
		c.lists = -1
	default:
		c.lists--
	}
	var page []Upload
	for _, u := range c.kept {
		if f.has(&u) {
			page = append(page, u)
		}
	}
	slices.SortFunc(page, func(a, b Upload) int { return f.compare(f.positionOf(&a), f.positionOf(&b)) })
	return page[:min(limit, len(page))], nil
}

func (c *fakeCore) remove(_ context.Context, id ulid.ULID) (Upload, bool, error) {
	if err := c.fails("remove"); err != nil {
		return Upload{}, false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	i, err := c.find(id)
	if err != nil {
		return Upload{}, false, err
	}
	if c.kept[i].State == StateCancelled {
		c.kept = slices.Delete(c.kept, i, i+1)
		return Upload{}, true, nil
	}
	c.kept[i].State = StateCancelled
	return c.kept[i], false, nil
}

func (c *fakeCore) retry(_ context.Context, id ulid.ULID) (Upload, error) {
	if err := c.fails("retry"); err != nil {
		return Upload{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	i, err := c.find(id)
	if err != nil {
		return Upload{}, err
	}
	if c.kept[i].State != StateCancelled {
		return Upload{}, errState
	}
	c.kept[i].State = StateQueued
	return c.kept[i], nil
}

// control is what the fake makes of cancel, hold and release.
func (c *fakeCore) control(method string, id ulid.ULID, change func(u *Upload) error) (Upload, error) {
	if err := c.fails(method); err != nil {
		return Upload{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	i, err := c.find(id)
	if err != nil {
		return Upload{}, err
	}
	return c.kept[i], change(&c.kept[i])
}

func (c *fakeCore) cancel(_ context.Context, id ulid.ULID) (Upload, error) {
	u, err := c.control("cancel", id, func(u *Upload) error { u.State = StateCancelled; return nil })
	u.State = StateCancelled
	return u, err
}

func (c *fakeCore) hold(_ context.Context, id ulid.ULID) (Upload, error) {
	return c.held("hold", id, true)
}

func (c *fakeCore) release(_ context.Context, id ulid.ULID) (Upload, error) {
	return c.held("release", id, false)
}

func (c *fakeCore) held(method string, id ulid.ULID, held bool) (Upload, error) {
	u, err := c.control(method, id, func(u *Upload) error {
		if u.State != StateQueued {
			return errState
		}
		u.Held = held
		return nil
	})
	u.Held = held
	return u, err
}

func (c *fakeCore) attempts(ctx context.Context, id ulid.ULID) (attemptList, error) {
	if err := c.fails("attempts"); err != nil {
		return attemptList{}, err
	}
	u, err := c.get(ctx, id)
	return attemptList{Count: u.Attempts.Count, Attempts: []AttemptStatus{}}, err
}

func (c *fakeCore) receipt(ctx context.Context, id ulid.ULID) (Upload, []byte, error) {
	if err := c.fails("receipt"); err != nil {
		return Upload{}, nil, err
	}
	u, err := c.get(ctx, id)
	c.mu.Lock()
	defer c.mu.Unlock()
	return u, c.envelopes[id], err
}

// choose knows one destination.
func (c *fakeCore) choose(_ context.Context, name string) (outlet, error) {
	if name != "" && name != DefaultDestination {
		return outlet{}, refusal(kindDestination, "There is no such destination.")
	}
	return outlet{limit: c.limit, names: c.names}, nil
}

func (c *fakeCore) destinations(context.Context) ([]DestinationStatus, error) {
	return []DestinationStatus{{Name: DefaultDestination, State: DestinationReady}}, c.fails("destinations")
}

func (c *fakeCore) destination(_ context.Context, name string) (DestinationStatus, error) {
	return DestinationStatus{Name: name, State: DestinationReady}, c.fails("destination")
}

func (c *fakeCore) pause(_ context.Context, name string) (DestinationStatus, error) {
	return DestinationStatus{Name: name, State: DestinationPaused, Paused: true}, c.fails("pause")
}

func (c *fakeCore) resume(ctx context.Context, name string) (DestinationStatus, error) {
	return c.destination(ctx, name)
}

func (c *fakeCore) known(context.Context, outlet, proto.FileName, [32]byte) (Upload, bool, error) {
	return Upload{}, false, nil
}

func (c *fakeCore) unused(context.Context, outlet, proto.FileName) error { return nil }

func (c *fakeCore) answered(context.Context, *keyed) (bool, error) { return false, nil }

func (c *fakeCore) settled(context.Context, *keyed, int, []Upload) error { return nil }

func (c *fakeCore) changedAfter(context.Context, int64, int) ([]change, int64, error) {
	return nil, 0, c.fails("changedAfter")
}

func (c *fakeCore) lastChange(context.Context, int64) (int64, bool, error) {
	return 0, false, c.fails("lastChange")
}

func (c *fakeCore) active(context.Context, int64) ([]change, error) { return nil, nil }

func (c *fakeCore) nextChanges() (changed, stopped <-chan struct{}) { return nil, nil }

func (c *fakeCore) ready(context.Context) error { return c.fails("ready") }

func (c *fakeCore) receive(ctx context.Context) receiver {
	return &fakeReception{core: c, ctx: ctx}
}

type fakeReception struct {
	core  *fakeCore
	ctx   context.Context
	files []Upload

	labels map[string]string
	at     attributes
}

func (r *fakeReception) add(name proto.FileName, declared int64, body io.Reader) (int, error) {
	if r.core.began != nil {
		r.core.began <- struct{}{}
	}
	if err := r.core.fails("add"); err != nil {
		return 0, err
	}
	sum := sha256.New()
	n, err := io.Copy(sum, io.LimitReader(body, r.core.limit+1))
	switch {
	case err != nil:
		return 0, err
	case n > r.core.limit:
		return 0, tooLarge(r.core.limit)
	case declared >= 0 && n != declared:
		return 0, errLength
	}
	u := sample(ulid.Make().String())
	u.Name, u.Size, u.SHA256 = name.String(), &n, new(hex.EncodeToString(sum.Sum(nil)))
	r.files = append(r.files, u)
	return len(r.files) - 1, nil
}

func (r *fakeReception) sha256(i int) (sum [32]byte) {
	b, err := hex.DecodeString(*r.files[i].SHA256)
	if err != nil {
		panic(err)
	}
	copy(sum[:], b)
	return sum
}

func (r *fakeReception) to(outlet) {}

func (r *fakeReception) rename(i int, name proto.FileName) { r.files[i].Name = name.String() }

func (r *fakeReception) label(labels map[string]string) { r.labels = maps.Clone(labels) }

func (r *fakeReception) describe(at attributes) { r.at = at }

func (r *fakeReception) ifVacant() {}

func (r *fakeReception) commit() ([]Upload, error) {
	if err := r.core.fails("commit"); err != nil {
		return nil, err
	}
	r.core.mu.Lock()
	defer r.core.mu.Unlock()
	for i := range r.files {
		r.files[i].Labels = r.labels
		r.at.show(&r.files[i])
	}
	r.core.kept = append(r.core.kept, r.files...)
	files := r.files
	r.files = nil
	return files, nil
}

func (r *fakeReception) fresh() bool { return true }

func (r *fakeReception) abort() {
	r.core.mu.Lock()
	defer r.core.mu.Unlock()
	for _, f := range r.files {
		r.core.lost = append(r.core.lost, f.Name)
	}
	r.files = nil
}

// sample is a queued upload.
func sample(id string) Upload {
	at := time.Date(2026, 3, 14, 15, 9, 26, 535897000, time.UTC)
	return Upload{
		ID: ulid.MustParseStrict(id), Name: "a.txt", Size: new(int64(1)), State: StateQueued,
		SHA256: new(hex.EncodeToString(make([]byte, sha256.Size))), Cksum: new(uint32(1)),
		Destination: "v3://127.0.0.1:1256", DestinationName: DefaultDestination, CreatedAt: at, UpdatedAt: at, Labels: map[string]string{},
	}
}

// testAPI serves the handlers on loopback.
type testAPI struct {
	api *httpAPI
	url string
	log *lockedBuffer
}

// newTestAPI serves a on loopback and checks all it answers.
func newTestAPI(t testing.TB, a *httpAPI) *testAPI {
	s := &testAPI{api: a, log: &lockedBuffer{}}
	a.log = slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	srv := httptest.NewUnstartedServer(checked(t, a.around(a.routes())))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.Start()
	t.Cleanup(srv.Close)
	s.url = srv.URL
	return s
}

// limit is the size of the largest file that is taken.
func (s *testAPI) limit(t testing.TB) int64 {
	t.Helper()
	o, err := s.api.core.choose(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	return o.limit
}

// fakeAPI is a testAPI in front of a fakeCore.
type fakeAPI struct {
	*testAPI
	core *fakeCore
}

func newFakeAPI(t testing.TB, changes ...func(*httpAPI, *fakeCore)) *fakeAPI {
	t.Helper()
	core := &fakeCore{limit: 1 << 20, names: plain(), fail: map[string]error{}}
	a := newHTTPAPI(core, core.receive)
	a.version = "v0.0.0-test"
	for _, change := range changes {
		change(a, core)
	}
	return &fakeAPI{newTestAPI(t, a), core}
}

// names are those of the uploads kept, oldest first.
func (f *fakeAPI) names() []string {
	f.core.mu.Lock()
	defer f.core.mu.Unlock()
	var names []string
	for _, u := range f.core.kept {
		names = append(names, u.Name)
	}
	return names
}

// forBoth runs a test in front of a fake core and of a real Gateway that nobody
// delivers from.
func forBoth(t *testing.T, test func(t *testing.T, s *testAPI)) {
	t.Run("fake", func(t *testing.T) { test(t, newFakeAPI(t).testAPI) })
	t.Run("real", func(t *testing.T) { test(t, newRealAPI(t)) })
}

func newRealAPI(t testing.TB) *testAPI {
	t.Helper()
	return newRealAPITo(t, "v3://127.0.0.1:1")
}

func newRealAPITo(t testing.TB, url string) *testAPI {
	t.Helper()
	name, err := proto.ParseClientName("test")
	if err != nil {
		t.Fatal(err)
	}
	g, err := Open(t.Context(), Config{Data: t.TempDir(), Destinations: to(t, url), Name: name, Version: "v0.0.0-test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return newTestAPI(t, g.httpAPI())
}

// lockedBuffer is what a log is written to while it is read.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
