package server_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"ferry/proto"
	"ferry/server"
)

// TestMain lets the test binary be an operator's command beside a server.
func TestMain(m *testing.M) {
	if what := os.Getenv("SERVER_TEST_OPERATE"); what != "" {
		if err := operate(os.Getenv("SERVER_TEST_DATA"), what, os.Getenv("SERVER_TEST_NAME")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// wait bounds what a test waits for; it is only reached by one that fails.
const wait = 30 * time.Second

// journal is a log that can be looked at.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.String()
}

// overheard is a log of which each message is told before it is written.
type overheard struct {
	slog.Handler
	tell *atomic.Pointer[func(message string)]
}

func (o overheard) Handle(ctx context.Context, r slog.Record) error {
	if tell := o.tell.Load(); tell != nil {
		(*tell)(r.Message)
	}
	return o.Handler.Handle(ctx, r)
}

// lines returns those that contain every one of parts.
func (j *journal) lines(parts ...string) (found []string) {
next:
	for line := range strings.Lines(j.String()) {
		for _, part := range parts {
			if !strings.Contains(line, part) {
				continue next
			}
		}
		found = append(found, line)
	}
	return found
}

// A harness is a server that speaks with fakes.
type harness struct {
	*server.Server
	t       testing.TB
	data    string
	log     *journal
	ln      *listener
	address string // of a real socket
	stop    func() // ends Serve and waits for it; may be called again
	end     context.CancelFunc
	done    chan error // what Serve returned

	admission server.Admission
	overhear  atomic.Pointer[func(message string)] // is called with what is logged
}

// start opens a server and serves fakes, on a folder that may have been used.
func start(t testing.TB, data string, limits server.Limits) *harness {
	t.Helper()
	h := openOn(t, data, limits)
	h.serve()
	return h
}

func openOn(t testing.TB, data string, limits server.Limits) *harness {
	t.Helper()
	return openWith(t, server.Config{Data: data, Limits: limits})
}

func openWith(t testing.TB, cfg server.Config) *harness {
	t.Helper()
	h := &harness{t: t, data: cfg.Data, log: new(journal), admission: server.Admission{Open: true}}
	cfg.Grace = time.Minute
	cfg.Log = slog.New(overheard{slog.NewTextHandler(h.log, &slog.HandlerOptions{Level: slog.LevelDebug}), &h.overhear})
	s, err := server.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	h.Server = s
	h.stop = sync.OnceFunc(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { h.stop() })
	return h
}

func (h *harness) serve() {
	h.ln = newListener()
	ctx, end := context.WithCancel(context.Background())
	h.end, h.done = end, make(chan error, 1)
	go func() { h.done <- h.Serve(ctx, h.ln, accept, h.admission) }()
	h.stop = sync.OnceFunc(func() {
		end()
		if err := <-h.done; err != nil {
			h.t.Errorf("Serve: %v", err)
		}
		if err := h.Close(); err != nil {
			h.t.Error(err)
		}
	})
}

// read returns what a client has stored; ok is false if there is nothing.
func (h *harness) read(client, name string) (content string, ok bool) {
	h.t.Helper()
	b, err := os.ReadFile(filepath.Join(h.data, "files", client, name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		h.t.Fatal(err)
	}
	return string(b), err == nil
}

// rows returns what is on record, as "client/name size".
func (h *harness) rows() []string {
	h.t.Helper()
	return rows(h.t, h.data)
}

func rows(t testing.TB, data string) (all []string) {
	t.Helper()
	in, err := server.Inspect(data)
	if err != nil {
		t.Fatal(err)
	}
	for f, err := range in.Files(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, fmt.Sprintf("%s/%s %d", f.Client, f.Name, f.Sum.Size))
	}
	return all
}

// verified fails the test unless disk and catalog agree on so many files.
func verified(t testing.TB, data string, want int) {
	t.Helper()
	in, err := server.Inspect(data)
	if err != nil {
		t.Fatal(err)
	}
	got := 0
	for c, err := range in.Verify(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		if c.Problem != nil {
			t.Errorf("%s/%s: %v", c.Client, c.Name, c.Problem)
		}
		got++
	}
	if got != want {
		t.Errorf("%d files are stored, want %d", got, want)
	}
}

// staged is how many bytes lie in staging.
func (h *harness) staged() (size int64) {
	h.t.Helper()
	entries, err := os.ReadDir(filepath.Join(h.data, "staging"))
	if err != nil {
		h.t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			h.t.Fatal(err)
		}
		size += info.Size()
	}
	return size
}

// listener takes connections from a channel.
type listener struct {
	queue  chan any // net.Conn or error
	closed chan struct{}
	once   sync.Once
}

func newListener() *listener {
	return &listener{queue: make(chan any), closed: make(chan struct{})}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case v := <-l.queue:
		if err, ok := v.(error); ok {
			return nil, err
		}
		return v.(net.Conn), nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *listener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// A peer is a client's end, and the session that the server gets for it.
type peer struct {
	t       testing.TB
	name    string // of the client; "" says nothing, so that the handshake never ends
	address string
	client  proto.Registration
	offers  chan *transfer
	entered chan struct{} // closed when the handshake is done
	gone    chan struct{} // closed when the server has closed the connection
	panics  bool          // in Next
	token   string        // to register with
	ended   error         // why there was no next file; valid when gone is closed
	closed  bool          // the session was; likewise
}

// conn is the server's end of a peer.
type conn struct {
	net.Conn
	peer *peer
	once sync.Once
}

func (c *conn) Close() error {
	c.once.Do(func() { close(c.peer.gone) })
	return c.Conn.Close()
}

func (c *conn) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.ParseIP(c.peer.address), Port: 9}
}

// connect makes a connection of that client, which is registered if need be.
func (h *harness) connect(name, address string) *peer {
	h.t.Helper()
	p := &peer{t: h.t, name: name, address: address,
		offers: make(chan *transfer), entered: make(chan struct{}), gone: make(chan struct{})}
	h.dial(p)
	return p
}

// client is connect that waits until the server knows the client.
func (h *harness) client(name string) *peer {
	h.t.Helper()
	p := h.connect(name, "127.0.0.1")
	await(h.t, p.entered, "the handshake")
	return p
}

func (h *harness) dial(p *peer) {
	h.t.Helper()
	near, far := net.Pipe()
	h.t.Cleanup(func() { _ = far.Close() })
	select {
	case h.ln.queue <- &conn{Conn: near, peer: p}:
	case <-h.ln.closed:
		h.t.Fatal("the server does not listen any more")
	}
}

func await(t testing.TB, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(wait):
		t.Fatalf("still waiting for %s", what)
	}
}

// accept is the fakes' handshake.
func accept(ctx context.Context, c net.Conn, cfg proto.SessionConfig) (proto.Session, error) {
	p := c.(*conn).peer
	if p.name == "" {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	name, err := proto.ParseClientName(p.name)
	if err != nil {
		return nil, err
	}
	p.client = proto.Registration{Name: name, PublicKey: []byte("key of " + p.name)}
	copy(p.client.ID[:], p.name)
	if p.ended = p.handshake(ctx, cfg.Directory, name); p.ended != nil {
		return nil, p.ended
	}
	close(p.entered)
	return p, nil
}

func (p *peer) handshake(ctx context.Context, d proto.Directory, name proto.ClientName) error {
	_, err := d.ByID(ctx, p.client.ID)
	if err == nil && p.token == "" {
		return d.Seen(ctx, p.client.ID)
	}
	if err != nil && !errors.Is(err, proto.ErrUnknownClient) && p.token == "" {
		return err
	}
	if p.client.ID, err = d.Admits(ctx, name, p.client.ID, p.token); err != nil {
		return err
	}
	err = d.Register(ctx, p.client, p.token)
	if errors.Is(err, proto.ErrNameTaken) && p.token == "" {
		return nil // another connection of the client was first
	}
	return err
}

func (p *peer) Client() proto.Registration { return p.client }

func (p *peer) Close() error {
	p.closed = true
	return nil
}

func (p *peer) Next(ctx context.Context) (_ proto.Transfer, err error) {
	defer func() { p.ended = err }()
	if p.panics {
		panic("the session is broken")
	}
	select {
	case t, ok := <-p.offers:
		if !ok {
			return nil, io.EOF
		}
		return t, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// A transfer is one file of a peer.
type transfer struct {
	offer   proto.Offer
	receive func(ctx context.Context, dst proto.Sink) error
	content string // what receive wrote at last
	outcome chan outcome
}

// outcome is what the server made of a transfer.
type outcome struct {
	accepted bool
	received bool         // Receive was called
	err      error        // of Refuse, or what Receive returned
	as       proto.Stored // of Accept or Exists
}

// file is a file that is sent as it should be.
func file(name, content string) *transfer {
	return sent(name, content, func(_ context.Context, dst proto.Sink) error {
		_, err := io.WriteString(dst, content)
		return err
	})
}

// sent is a file that is sent somehow.
func sent(name, content string, receive func(ctx context.Context, dst proto.Sink) error) *transfer {
	n, err := proto.ParseFileName(name)
	if err != nil {
		panic(err)
	}
	return &transfer{
		offer:   proto.Offer{Name: n, Size: int64(len(content))},
		receive: receive, content: content, outcome: make(chan outcome, 2),
	}
}

// large is a file that can go on when it breaks off, if it has 1 MiB. Only its
// size is known of its content.
func large(name string, size int64, receive func(ctx context.Context, dst proto.Sink) error) *transfer {
	f := sent(name, "", receive)
	f.offer.Size, f.offer.ID = size, proto.TransferID{1, 2, 3}
	return f
}

func (t *transfer) Offer() proto.Offer { return t.offer }

func (t *transfer) Receive(ctx context.Context, dst proto.Sink) (proto.Sum, error) {
	if err := t.receive(ctx, dst); err != nil {
		t.outcome <- outcome{received: true, err: err}
		return proto.Sum{}, fmt.Errorf("receive: %w", err)
	}
	return sumOf(t.content), nil
}

func sumOf(content string) proto.Sum {
	s := proto.NewSummer()
	_, _ = io.WriteString(s, content)
	return s.Sum()
}

func (t *transfer) Accept(_ context.Context, as proto.Stored) error {
	t.outcome <- outcome{accepted: true, as: as}
	return nil
}

func (t *transfer) Exists(_ context.Context, as proto.Stored) error {
	t.outcome <- outcome{err: proto.ErrExists, as: as}
	return nil
}

func (t *transfer) Refuse(_ context.Context, why error) error {
	t.outcome <- outcome{err: why}
	return nil
}

// offer hands a file over and returns what came of it, also that the connection
// ended without an answer.
func (p *peer) offer(f *transfer) outcome {
	p.t.Helper()
	select {
	case p.offers <- f:
	case <-p.gone:
		return outcome{err: errGone}
	}
	select {
	case o := <-f.outcome:
		return o
	case <-p.gone:
		select {
		case o := <-f.outcome:
			return o
		default:
			return outcome{err: errGone}
		}
	case <-time.After(wait):
		p.t.Fatal("no outcome")
		return outcome{}
	}
}

var errGone = errors.New("the connection ended without an answer")

// send offers files that must be stored.
func (p *peer) send(files ...*transfer) {
	p.t.Helper()
	for _, f := range files {
		if got := p.offer(f); !got.accepted {
			p.t.Fatalf("%s: %v, want it stored", f.offer.Name, got.err)
		}
	}
}
