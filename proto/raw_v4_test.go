package proto_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"ferry/proto"
	"ferry/proto/prototest"
	v4 "ferry/proto/v4"
)

// serverV4 is the identity of every server in these tests.
var serverV4 = sync.OnceValue(func() proto.ServerIdentity {
	both := must(proto.NewServerIdentity())
	return must(proto.ParseServerIdentity(both, both))
})

// quickV4 is one whose signatures cost little.
var quickV4 = sync.OnceValue(func() proto.ServerIdentity {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	template := x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)}
	certificate := must(x509.CreateCertificate(rand.Reader, &template, &template, public, private))
	return must(proto.ParseServerIdentity(
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(private))})))
})

// keyV4 is a client's key, the same in each test.
var keyV4 = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, v4.KeyBits)) })

// otherKeyV4 is another one.
var otherKeyV4 = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, v4.KeyBits)) })

func spki(key *rsa.PrivateKey) []byte { return must(x509.MarshalPKIXPublicKey(&key.PublicKey)) }

// A hostV4 is a native server in memory: sessions of AcceptV4, files in a map.
type hostV4 struct {
	dir proto.Directory
	cfg proto.SessionConfig
	ctx context.Context // of all sessions
	// take deals with an offered file; storing it is the default.
	take func(ctx context.Context, t proto.Transfer) error
	wrap func(net.Conn) net.Conn // what the server sees of a connection
	// settle, if not nil, is called before a session is closed: all transfers have
	// ended then.
	settle func()
	id     func() proto.ServerIdentity

	mu       sync.Mutex
	files    map[string]proto.Stored
	contents map[string][]byte
	stages   map[proto.TransferID]*stageV4
	errs     []error // sessions' and transfers'
	closing  []error // of Session.Close
	conns    sync.WaitGroup
	waits    sync.Once
}

func newHostV4(known ...proto.Registration) *hostV4 {
	return &hostV4{
		dir:      newDirectory(known...),
		ctx:      context.Background(),
		id:       serverV4,
		files:    map[string]proto.Stored{},
		contents: map[string][]byte{},
		stages:   map[proto.TransferID]*stageV4{},
	}
}

// alice is a registered client's registration.
func alice(t testing.TB) proto.Registration {
	return registration(t, "alice", proto.ClientID{0xa1}, spki(keyV4()))
}

func (h *hostV4) serve(conn net.Conn) {
	defer conn.Close()
	if h.wrap != nil {
		conn = h.wrap(conn)
	}
	cfg := h.cfg
	cfg.Directory = h.dir
	s, err := proto.AcceptV4(h.id())(h.ctx, conn, cfg)
	if err != nil {
		h.note(err)
		return
	}
	for err == nil {
		var t proto.Transfer
		if t, err = s.Next(h.ctx); err == nil {
			take := h.store
			if h.take != nil {
				take = h.take
			}
			if err := take(h.ctx, t); err != nil {
				h.note(err)
			}
		}
	}
	if !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		h.note(err)
	}
	if h.settle != nil {
		h.settle()
	}
	err = s.Close()
	h.mu.Lock()
	h.closing = append(h.closing, err)
	h.mu.Unlock()
}

// store takes a file, or says what there is.
func (h *hostV4) store(ctx context.Context, t proto.Transfer) error {
	o := t.Offer()
	if as, ok := h.stored(o.Name.String()); ok {
		return t.Exists(ctx, as)
	}
	dst := h.stage(o.ID)
	sum, err := t.Receive(ctx, dst)
	if err != nil {
		return err
	}
	if got := sumOf(dst.b); got != sum || sum.Size != o.Size {
		panic("a file was received that is not what was offered")
	}
	return t.Accept(ctx, h.publish(o, dst, sum))
}

func (h *hostV4) publish(o proto.Offer, dst *stageV4, sum proto.Sum) proto.Stored {
	as := proto.Stored{Name: o.Name, Sum: sum, Transfer: o.ID, At: time.Now().UTC().Truncate(time.Millisecond)}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.files[o.Name.String()], h.contents[o.Name.String()] = as, dst.b
	delete(h.stages, o.ID)
	return as
}

func (h *hostV4) stored(name string) (proto.Stored, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	as, ok := h.files[name]
	return as, ok
}

func (h *hostV4) content(name string) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.contents[name]
}

// stage returns what is kept of a transfer, for it to go on.
func (h *hostV4) stage(id proto.TransferID) *stageV4 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stages[id] == nil {
		h.stages[id] = &stageV4{}
	}
	return h.stages[id].again()
}

func (h *hostV4) note(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.errs = append(h.errs, err)
}

// errors returns what sessions and transfers ended with, other than EOF. All
// connections have ended.
func (h *hostV4) errors() []error {
	h.conns.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.errs)
}

// A stageV4 is a Sink in memory that keeps.
type stageV4 struct {
	b      []byte
	writes []int
	kept   int64
	state  []byte
	keeps  []int64
	resets int
	limit  int   // what it takes, if err is set
	err    error // of a Write beyond limit
}

func (s *stageV4) Write(p []byte) (int, error) {
	if s.err != nil && len(s.b)+len(p) > s.limit {
		return 0, s.err
	}
	s.b = append(s.b, p...)
	s.writes = append(s.writes, len(p))
	return len(p), nil
}

func (s *stageV4) Reset() error {
	s.b, s.kept, s.state = nil, 0, nil
	s.resets++
	return nil
}

func (s *stageV4) Kept() (int64, []byte) { return s.kept, s.state }

func (s *stageV4) Keep(state []byte) error {
	s.kept, s.state = int64(len(s.b)), bytes.Clone(state)
	s.keeps = append(s.keeps, s.kept)
	return nil
}

// again is what another process finds: what was kept, and nothing behind it.
func (s *stageV4) again() *stageV4 {
	s.b = s.b[:s.kept]
	return s
}

// listen serves connections through sockets until the test ends.
func (h *hostV4) listen(t testing.TB) string { return prototest.Listen(t, &h.conns, h.serve) }

// A rawV4 is a client that says what a test wants it to.
type rawV4 struct {
	t       testing.TB
	host    *hostV4
	conn    net.Conn
	tls     *tls.Conn
	id      proto.ClientID
	key     *rsa.PrivateKey
	sealer  *v4.Sealer // nil before the keys
	opener  *v4.Opener
	secret  v4.Secret
	welcome v4.Welcome
}

// raw connects a raw client through a pipe. At the test's end it has left.
func (h *hostV4) raw(t testing.TB) *rawV4 {
	t.Helper()
	near, far := net.Pipe()
	h.conns.Go(func() { h.serve(far) })
	return h.over(t, near)
}

// rawTCP is raw through a socket.
func (h *hostV4) rawTCP(t testing.TB) *rawV4 {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	near, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	h.conns.Go(func() { h.serve(far) })
	return h.over(t, near)
}

func clientConfigV4() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, NextProtos: []string{v4.Protocol}}
}

// over is a client whose TLS is there.
func (h *hostV4) over(t testing.TB, conn net.Conn) *rawV4 {
	t.Helper()
	r := &rawV4{t: t, host: h, conn: conn, tls: tls.Client(conn, clientConfigV4()), key: keyV4()}
	h.waits.Do(func() { t.Cleanup(h.conns.Wait) }) // when all have been closed
	t.Cleanup(func() { conn.Close() })
	if err := r.tls.Handshake(); err != nil {
		t.Fatalf("TLS: %v", err)
	}
	return r
}

// A messageV4 is one as it was read.
type messageV4 struct {
	v4.Header
	Payload []byte
}

// message is one as it is written.
func (r *rawV4) message(code v4.Code, number uint64, payload []byte) []byte {
	r.t.Helper()
	if r.sealer == nil {
		return append(v4.Header{Code: code, Number: number, Length: uint32(len(payload))}.Append(nil), payload...)
	}
	b, err := r.sealer.Append(nil, code, number, payload)
	if err != nil {
		r.t.Fatal(err)
	}
	return b
}

func (r *rawV4) write(messages ...[]byte) {
	r.t.Helper()
	if _, err := r.tls.Write(slices.Concat(messages...)); err != nil {
		r.t.Fatal(err)
	}
}

// mutter writes what may not be read to its end.
func (r *rawV4) mutter(b []byte) { go func() { _, _ = r.tls.Write(b) }() }

func (r *rawV4) say(code v4.Code, number uint64, payload []byte) {
	r.t.Helper()
	r.write(r.message(code, number, payload))
}

func (r *rawV4) tryRead() (messageV4, error) {
	var head [v4.HeaderSize]byte
	if _, err := io.ReadFull(r.tls, head[:]); err != nil {
		return messageV4{}, err
	}
	h, err := v4.ParseHeader(head[:])
	if err != nil {
		return messageV4{}, err
	}
	m := messageV4{h, make([]byte, h.Length)}
	if _, err := io.ReadFull(r.tls, m.Payload); err != nil {
		return messageV4{}, err
	}
	if r.opener != nil {
		m.Payload, err = r.opener.Open(nil, head[:], m.Payload)
	}
	return m, err
}

func (r *rawV4) read() messageV4 {
	r.t.Helper()
	m, err := r.tryRead()
	if err != nil {
		r.t.Fatalf("no answer: %v", err)
	}
	return m
}

// expect reads a message with that code.
func (r *rawV4) expect(code v4.Code) messageV4 {
	r.t.Helper()
	m := r.read()
	if m.Code != code {
		what := ""
		if m.Code == v4.CodeRefused {
			refused, _ := v4.ParseRefused(m.Payload)
			what = refused.Words
		}
		r.t.Fatalf("got %v %q, want %v", m.Code, what, code)
	}
	return m
}

// expectRefused reads a 1607 for that number and reason.
func (r *rawV4) expectRefused(number uint64, reason v4.Reason) v4.Refused {
	r.t.Helper()
	m := r.expect(v4.CodeRefused)
	refused, err := v4.ParseRefused(m.Payload)
	if err != nil {
		r.t.Fatal(err)
	}
	if refused.Reason != reason || m.Number != number {
		r.t.Fatalf("refused with reason %d for number %d (%q), want reason %d for %d", refused.Reason, m.Number, refused.Words, reason, number)
	}
	return refused
}

// expectEnd reads the end of the conversation, as one ends it.
func (r *rawV4) expectEnd() {
	r.t.Helper()
	if m, err := r.tryRead(); !errors.Is(err, io.EOF) {
		r.t.Fatalf("got %v, %v, want the end", m.Code, err)
	}
	r.conn.Close()
}

// expectStored reads 1603 until each of these numbers has been named, and returns
// what the receipts say of them in the order of the answers.
func (r *rawV4) expectStored(numbers ...uint64) []proto.Stored {
	r.t.Helper()
	var all []proto.Stored
	for len(numbers) > 0 {
		m, err := v4.ParseStored(r.expect(v4.CodeStored).Payload)
		if err != nil {
			r.t.Fatal(err)
		}
		s, err := proto.VerifyReceipt(m.Envelope, r.host.id().Pin())
		if err != nil {
			r.t.Fatal(err)
		}
		if len(s.Files) != len(m.Numbers) || s.ClientID != r.id {
			r.t.Fatalf("a receipt for %d files of client %v with %d numbers", len(s.Files), s.ClientID, len(m.Numbers))
		}
		for _, n := range m.Numbers {
			i := slices.Index(numbers, n)
			if i < 0 {
				r.t.Fatalf("an answer for file %d, which was not sent", n)
			}
			numbers = slices.Delete(numbers, i, i+1)
		}
		all = append(all, s.Files...)
	}
	return all
}

func (r *rawV4) exporter() []byte {
	r.t.Helper()
	state := r.tls.ConnectionState()
	b, err := state.ExportKeyingMaterial(v4.ExporterLabel, nil, v4.ExporterSize)
	if err != nil {
		r.t.Fatal(err)
	}
	return b
}

// unwrap takes the keys from 1602 or 1605.
func (r *rawV4) unwrap(m messageV4) {
	r.t.Helper()
	w, err := v4.ParseWrapped(m.Payload)
	if err != nil {
		r.t.Fatal(err)
	}
	r.id = w.ID
	if r.secret, err = v4.UnwrapSecret(r.key, w.Secret); err != nil {
		r.t.Fatal(err)
	}
	r.keys(r.secret, r.exporter())
}

func (r *rawV4) keys(secret v4.Secret, exporter []byte) {
	r.t.Helper()
	toServer, toClient, err := v4.Keys(secret, exporter, r.id)
	if err == nil {
		r.sealer, err = v4.NewSealer(toServer)
	}
	if err == nil {
		r.opener, err = v4.NewOpener(toClient)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rawV4) prove() *rawV4 {
	r.t.Helper()
	r.say(v4.CodeProve, 0, v4.Prove{Packet: v4.MaxPacket}.Append(nil))
	var err error
	if r.welcome, err = v4.ParseWelcome(r.expect(v4.CodeWelcome).Payload); err != nil {
		r.t.Fatal(err)
	}
	return r
}

// enter is known already: [alice].
func (r *rawV4) enter() *rawV4 {
	r.t.Helper()
	r.say(v4.CodeReconnect, 0, v4.Reconnect{ID: proto.ClientID{0xa1}, Name: "alice"}.Append(nil))
	r.unwrap(r.expect(v4.CodeReconnKey))
	return r.prove()
}

// bye ends the conversation as one ends it, and waits until the server has.
func (r *rawV4) bye() {
	r.t.Helper()
	if err := r.tls.CloseWrite(); err != nil {
		r.t.Fatal(err)
	}
	r.expectEnd()
}

func offerV4(name string, content []byte, id byte) v4.Offer {
	sum := sumOf(content)
	return v4.Offer{
		Transfer: proto.TransferID{id}, Size: sum.Size, ModTime: v4.NoTime, Name: name,
		Known: true, Sum: v4.Sum{Cksum: sum.Cksum, SHA256: sum.SHA256},
	}
}

// small is a file in one message.
func (r *rawV4) small(number uint64, name string, content []byte) []byte {
	o := offerV4(name, content, 0)
	o.Transfer = proto.TransferID{1, byte(number), byte(number >> 8), byte(number >> 16)}
	return r.message(v4.CodeFile, number, append(o.Append(nil), content...))
}

// offer offers a large file and returns from where on it is wanted.
func (r *rawV4) offer(number uint64, o v4.Offer) int64 {
	r.t.Helper()
	r.say(v4.CodeOffer, number, o.Append(nil))
	m := r.expect(v4.CodeGo)
	offset, err := v4.ParseOffset(m.Payload)
	if err != nil || m.Number != number {
		r.t.Fatalf("go for %d, %v: want one for %d", m.Number, err, number)
	}
	return offset.Bytes
}

// packets are those of content from an offset on.
func (r *rawV4) packets(content []byte, from int64, size int) []byte {
	r.t.Helper()
	var b []byte
	for at := int(from); at < len(content); at += size {
		b = append(b, r.message(v4.CodePacket, uint64(at), content[at:min(at+size, len(content))])...)
	}
	return b
}

func (r *rawV4) end(number uint64, content []byte) []byte {
	sum := sumOf(content)
	return r.message(v4.CodeEnd, number, v4.Sum{Cksum: sum.Cksum, SHA256: sum.SHA256}.Append(nil))
}
