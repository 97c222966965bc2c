package proto_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"sync"
	"testing"

	"ferry/proto"
	"ferry/proto/v3"
)

// content is n bytes that repeat nowhere near a packet's size.
func content(n int64) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i/251)
	}
	return b
}

func sumOf(b []byte) proto.Sum {
	s := proto.NewSummer()
	_, _ = s.Write(b)
	return s.Sum()
}

func bytesOf(b []byte) proto.Source {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
}

func fileName(t testing.TB, s string) proto.FileName {
	t.Helper()
	n, err := proto.ParseFileName(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func clientName(t testing.TB, s string) proto.ClientName {
	t.Helper()
	n, err := proto.ParseClientName(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func destination(t testing.TB, s string) proto.Destination {
	t.Helper()
	d, err := proto.ParseDestination(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// directory is a Directory in memory.
type directory struct {
	mu      sync.Mutex
	clients map[proto.ClientID]proto.Registration
	seen    int
	err     error // of every call
}

func newDirectory(known ...proto.Registration) *directory {
	d := &directory{clients: map[proto.ClientID]proto.Registration{}}
	for _, r := range known {
		d.clients[r.ID] = r
	}
	return d
}

func (d *directory) ByID(_ context.Context, id proto.ClientID) (proto.Registration, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return proto.Registration{}, d.err
	}
	r, ok := d.clients[id]
	if !ok {
		return proto.Registration{}, proto.ErrUnknownClient
	}
	return r, nil
}

func (d *directory) Admits(_ context.Context, name proto.ClientName, id proto.ClientID, _ string) (proto.ClientID, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err == nil && !d.free(name) {
		return id, proto.ErrNameTaken
	}
	return id, d.err
}

func (d *directory) free(name proto.ClientName) bool {
	for _, r := range d.clients {
		if r.Name == name {
			return false
		}
	}
	return true
}

func (d *directory) Register(_ context.Context, r proto.Registration, _ string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return d.err
	}
	if !d.free(r.Name) {
		return proto.ErrNameTaken
	}
	r.PublicKey = bytes.Clone(r.PublicKey)
	d.clients[r.ID] = r
	return nil
}

func (d *directory) Replace(_ context.Context, id proto.ClientID, old, fresh []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	r, ok := d.clients[id]
	if !ok || !bytes.Equal(r.PublicKey, old) {
		return proto.ErrUnauthorized
	}
	r.PublicKey = bytes.Clone(fresh)
	d.clients[id] = r
	return d.err
}

func (d *directory) Seen(context.Context, proto.ClientID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen++
	return d.err
}

func (d *directory) all() map[proto.ClientID]proto.Registration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.clients)
}

func (d *directory) forgetAll() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.clients)
}

// keyring is a Keyring in memory.
type keyring struct {
	mu      sync.Mutex
	id      proto.Identity
	ok      bool
	saves   int
	saveErr error
}

func (k *keyring) Load(context.Context) (proto.Identity, bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.id, k.ok, nil
}

func (k *keyring) Save(_ context.Context, id proto.Identity) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.saveErr != nil {
		return k.saveErr
	}
	k.id, k.ok = id, true
	k.saves++
	return nil
}

// sink is a Sink in memory that takes at most limit bytes, if there is one.
type sink struct {
	bytes.Buffer
	limit  int
	err    error // of a Write beyond limit, and of Reset
	resets int
	hook   func() // before each Write
}

func (s *sink) Write(p []byte) (int, error) {
	if s.hook != nil {
		s.hook()
	}
	if s.err != nil && s.Len()+len(p) > s.limit {
		return 0, s.err
	}
	return s.Buffer.Write(p)
}

func (s *sink) Reset() error {
	s.Buffer.Reset()
	s.resets++
	return nil
}

func (s *sink) Kept() (int64, []byte) { return 0, nil }
func (s *sink) Keep([]byte) error     { return nil }

// host is a native server in memory: sessions of AcceptV3, files in a map. Its
// hooks may be nil.
type host struct {
	dir    *directory
	cfg    proto.SessionConfig
	ctx    context.Context                     // of all sessions
	sink   func() *sink                        // where a file goes
	refuse func(o proto.Offer) error           // asked before Receive
	accept func(o proto.Offer, b []byte) error // asked after it
	wrap   func(net.Conn) net.Conn             // what the server sees of a connection

	id  proto.ClientID // given out next, with key, unless zero
	key v3.Key

	mu       sync.Mutex
	files    map[string][]byte
	errs     []error // sessions' and transfers'
	accepted int     // connections
	conns    sync.WaitGroup
}

func newHost() *host {
	return &host{dir: newDirectory(), files: map[string][]byte{}}
}

// dial makes a connection to the host.
func (h *host) dial(context.Context, string, string) (net.Conn, error) {
	near, far := net.Pipe()
	h.mu.Lock()
	h.accepted++
	h.mu.Unlock()
	h.conns.Go(func() { h.serve(far) })
	return near, nil
}

func (h *host) serve(conn net.Conn) {
	defer conn.Close()
	if h.wrap != nil {
		conn = h.wrap(conn)
	}
	cfg := h.cfg
	cfg.Directory = h.dir
	ctx := cmp.Or(h.ctx, context.Background())
	accept := proto.AcceptV3
	if h.id != (proto.ClientID{}) {
		accept = proto.AcceptV3With(h.key, h.id)
	}
	s, err := accept(ctx, conn, cfg)
	for err == nil {
		var t proto.Transfer
		if t, err = s.Next(ctx); err == nil {
			if err := h.take(ctx, t); err != nil {
				h.note(err)
			}
		}
	}
	if !errors.Is(err, io.EOF) {
		h.note(err)
	}
}

func (h *host) take(ctx context.Context, t proto.Transfer) error {
	name := t.Offer().Name.String()
	if h.refuse != nil {
		if why := h.refuse(t.Offer()); why != nil {
			return t.Refuse(ctx, why)
		}
	}
	if h.file(name) != nil {
		return t.Refuse(ctx, proto.ErrExists)
	}
	dst := &sink{}
	if h.sink != nil {
		dst = h.sink()
	}
	sum, err := t.Receive(ctx, dst)
	if err != nil {
		return err
	}
	if got := sumOf(dst.Bytes()); got != sum || sum.Size != t.Offer().Size {
		panic("a file was received that is not what was offered")
	}
	if h.accept != nil {
		if why := h.accept(t.Offer(), dst.Bytes()); why != nil {
			return t.Refuse(ctx, why)
		}
	}
	h.mu.Lock()
	h.files[name] = append([]byte{}, dst.Bytes()...)
	h.mu.Unlock()
	return t.Accept(ctx, proto.Stored{})
}

// file returns what is stored under name, or nil.
func (h *host) file(name string) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.files[name]
}

func (h *host) note(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.errs = append(h.errs, err)
}

// errors returns what the sessions and transfers ended with, other than EOF.
func (h *host) errors() []error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.errs
}

func (h *host) connections() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.accepted
}

// aliceKey is a private key, the same in each test.
var aliceKey = sync.OnceValue(func() []byte { return must(v3.MarshalPrivateKey(must(v3.GenerateKey()))) })

// known returns a keyring with an identity that the host knows, to spare the
// test the making of a key.
func (h *host) known(t testing.TB, name string) *keyring {
	t.Helper()
	der := aliceKey()
	_, public := publicKeyOf(t, der)
	id := proto.Identity{Name: clientName(t, name), ID: proto.ClientID{0xa1}, PrivateKey: der}
	h.dir.mu.Lock()
	defer h.dir.mu.Unlock()
	h.dir.clients[id.ID] = registration(t, name, id.ID, public)
	return &keyring{id: id, ok: true}
}

// client returns a Client of the host that is registered, closed at the test's
// end. The host has then ended, too.
func (h *host) client(t testing.TB, url string, change ...func(*proto.ClientConfig)) *proto.Client {
	t.Helper()
	cfg := proto.ClientConfig{
		To:   destination(t, url),
		Name: clientName(t, "alice"),
		Dial: h.dial,
	}
	for _, f := range change {
		f(&cfg)
	}
	if cfg.Keyring == nil {
		cfg.Keyring = h.known(t, "alice")
	}
	c := proto.NewClient(cfg)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		h.conns.Wait()
	})
	return c
}
