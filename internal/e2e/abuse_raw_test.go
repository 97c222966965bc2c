package e2e_test

import (
	"bytes"
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"ferry/proto"
	"ferry/proto/v3"
)

// rawLimit bounds every conversation of a raw client: what hangs, fails.
const rawLimit = 20 * time.Second

// A raw is a client that says at a real socket what it likes, right or wrong.
type raw struct {
	conn net.Conn
	id   v3.ID
	key  v3.Key // zero, so that what is sealed is garbage, until it has one
}

func dialRaw(address string) (*raw, error) {
	conn, err := net.DialTimeout("tcp", address, rawLimit)
	if err != nil {
		return nil, err
	}
	return &raw{conn: conn}, conn.SetDeadline(time.Now().Add(rawLimit))
}

func (r *raw) close() { _ = r.conn.Close() }

func (r *raw) say(messages ...[]byte) error {
	_, err := r.conn.Write(slices.Concat(messages...))
	return err
}

// hear returns the next answer; io.EOF means that the server has closed.
func (r *raw) hear() (v3.Code, []byte, error) {
	m, err := readAnswer(r.conn)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return 0, nil, errors.New("the server neither answers nor closes")
	case err != nil:
		return 0, nil, io.EOF // closed or reset
	}
	h, _ := v3.ParseResponseHeader(m[:v3.ResponseHeaderSize]) // readAnswer has
	return h.Code, m[v3.ResponseHeaderSize:], nil
}

// expect hears answers with these codes.
func (r *raw) expect(what string, want ...v3.Code) error {
	for _, w := range want {
		if got, _, err := r.hear(); err != nil || got != w {
			return unexpected(what, got, err, w)
		}
	}
	return nil
}

// unexpected is the error of an answer, or of none, that is not the one wanted.
func unexpected(what string, got v3.Code, err error, want v3.Code) error {
	if err != nil {
		return fmt.Errorf("%s: %w, want %v", what, err, want)
	}
	return fmt.Errorf("%s: answered %v, want %v", what, got, want)
}

// expectRefusal hears 1607, before which the seed's dialect thanks for a first
// packet that is refused for another reason than its name.
func (r *raw) expectRefusal(what string) error {
	got, _, err := r.hear()
	if err == nil && got == v3.CodeThanks {
		got, _, err = r.hear()
	}
	if err != nil || got != v3.CodeGeneralError {
		return unexpected(what, got, err, v3.CodeGeneralError)
	}
	return nil
}

// expectEnd hears what it takes until the server closes, of which nothing may be
// more than a refusal.
func (r *raw) expectEnd(what string) error {
	for {
		got, _, err := r.hear()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil || got != v3.CodeGeneralError {
			return unexpected(what+", until the end", got, err, v3.CodeGeneralError)
		}
	}
}

func (r *raw) request(code v3.Code, payload []byte) []byte {
	h := v3.RequestHeader{Client: r.id, Code: code, PayloadSize: uint32(len(payload))}
	return append(h.Append(nil), payload...)
}

func (r *raw) register(name string) []byte {
	return r.request(v3.CodeRegister, v3.Register{Name: name}.Append(nil))
}

func (r *raw) publicKey(name string, key *rsa.PrivateKey) ([]byte, error) {
	field, err := v3.MarshalPublicKeyInfo(&key.PublicKey)
	return r.request(v3.CodePublicKey, v3.PublicKey{Name: name, Key: field}.Append(nil)), err
}

func (r *raw) reconnect(name string) []byte {
	return r.request(v3.CodeReconnect, v3.Reconnect{Name: name}.Append(nil))
}

func (r *raw) confirm(code v3.Code, name string) []byte {
	return r.request(code, v3.Confirm{Name: name}.Append(nil))
}

// packets are the messages of a file, sealed with the key there is.
func (r *raw) packets(d v3.Dialect, name string, b []byte) ([][]byte, error) {
	plan, err := d.Plan(int64(len(b)))
	if err != nil {
		return nil, err
	}
	p := v3.NewPacker(plan, r.key, r.id, name)
	var all [][]byte
	for src := bytes.NewReader(b); !p.Done(); {
		m, err := p.Append(nil, src)
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, nil
}

// An attacker is who the tests are about: a client named mallory, that may be
// registered, and what it has got to know.
type attacker struct {
	address string
	key     *rsa.PrivateKey
	id      v3.ID

	mu      sync.Mutex
	secrets map[string][]byte // what no log may show, by what it is; guarded by mu
}

func newAttacker(address string) (*attacker, error) {
	key, err := v3.GenerateKey()
	if err != nil {
		return nil, err
	}
	m := &attacker{address: address, key: key, secrets: map[string][]byte{}}
	r, err := dialRaw(address)
	if err != nil {
		return nil, err
	}
	defer r.close()
	if err := m.enter(r, "mallory"); err != nil {
		return nil, err
	}
	m.id = r.id
	return m, m.learnPrivate("mallory", key)
}

// enter registers r under a name, with the attacker's key.
func (m *attacker) enter(r *raw, name string) error {
	if err := r.say(r.register(name)); err != nil {
		return err
	}
	code, b, err := r.hear()
	if err != nil || code != v3.CodeRegistered {
		return unexpected("register "+name, code, err, v3.CodeRegistered)
	}
	r.id = v3.ID(b)
	key, err := r.publicKey(name, m.key)
	if err := errors.Join(err, r.say(key)); err != nil {
		return err
	}
	return m.unwrap(r, v3.CodeKey)
}

// unwrap hears the key of the connection.
func (m *attacker) unwrap(r *raw, want v3.Code) error {
	code, b, err := r.hear()
	if err != nil || code != want {
		return unexpected("the key", code, err, want)
	}
	w, err := v3.ParseWrappedKey(b)
	if err != nil {
		return err
	}
	if r.key, err = v3.UnwrapKey(m.key, w.Key); err != nil {
		return err
	}
	m.learn("an AES key", r.key[:])
	return nil
}

// maxSecrets is how many the attacker remembers: the first of thousands.
const maxSecrets = 200

func (m *attacker) learn(what string, secret []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.secrets) < maxSecrets {
		m.secrets[fmt.Sprintf("%s (%d)", what, len(m.secrets))] = bytes.Clone(secret)
	}
}

func (m *attacker) learnPrivate(whose string, key *rsa.PrivateKey) error {
	der, err := v3.MarshalPrivateKey(key)
	m.learn("private key of "+whose, der)
	m.learn("private exponent of "+whose, key.D.Bytes())
	for _, p := range key.Primes {
		m.learn("prime of "+whose, p.Bytes())
	}
	return err
}

// dial connects as mallory, known and with a key.
func (m *attacker) dial() (*raw, error) {
	r, err := dialRaw(m.address)
	if err != nil {
		return nil, err
	}
	r.id = m.id
	if err := r.say(r.reconnect("mallory")); err != nil {
		return r, err
	}
	return r, m.unwrap(r, v3.CodeReconnected)
}

// readAnswer reads a whole answer.
func readAnswer(src io.Reader) ([]byte, error) {
	m := make([]byte, v3.ResponseHeaderSize)
	if _, err := io.ReadFull(src, m); err != nil {
		return nil, err
	}
	h, err := v3.ParseResponseHeader(m)
	if err != nil {
		return nil, err
	}
	if limit, ok := v3.PayloadLimit(h.Code); !ok || int(h.PayloadSize) > limit {
		return nil, fmt.Errorf("answer %v with %d bytes", h.Code, h.PayloadSize)
	}
	m = append(m, make([]byte, h.PayloadSize)...)
	_, err = io.ReadFull(src, m[v3.ResponseHeaderSize:])
	return m, err
}

// readRequest reads a whole request.
func readRequest(src io.Reader) ([]byte, error) {
	m := make([]byte, v3.RequestHeaderSize)
	if _, err := io.ReadFull(src, m); err != nil {
		return nil, err
	}
	h, err := v3.ParseRequestHeader(m)
	if err != nil {
		return nil, err
	}
	size := int(h.PayloadSize)
	if h.Code == v3.CodePacket {
		m = append(m, make([]byte, v3.PacketHeaderSize)...)
		if _, err := io.ReadFull(src, m[v3.RequestHeaderSize:]); err != nil {
			return nil, err
		}
		p, err := v3.ParsePacketHeader(m[v3.RequestHeaderSize:])
		if err != nil {
			return nil, err
		}
		size -= v3.PacketHeaderSize
		if h.PayloadSize == v3.Seed().StatedPayload {
			plan, err := v3.Seed().Plan(int64(p.OriginalSize))
			if err != nil {
				return nil, err
			}
			size = plan.CipherSize(int(p.Numbers[1]))
		}
	}
	at := len(m)
	m = append(m, make([]byte, size)...)
	_, err = io.ReadFull(src, m[at:])
	return m, err
}

func codeOf(request []byte) v3.Code {
	h, err := v3.ParseRequestHeader(request[:v3.RequestHeaderSize])
	if err != nil {
		return 0
	}
	return h.Code
}

// A middle is somebody between a client and a server, who sees and changes what
// they say to each other. The functions may be nil; they return what is passed
// on instead, and nil to break the connection off. They are not called at once.
type middle struct {
	address string // where the client finds it
	request func(m []byte) []byte
	answer  func(m []byte) []byte

	mu    sync.Mutex
	ln    net.Listener
	conns sync.WaitGroup
}

// between puts somebody before a server, until close.
func between(server string, m *middle) (*middle, error) {
	var err error
	if m.ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	m.address = m.ln.Addr().String()
	m.conns.Go(func() {
		for {
			client, err := m.ln.Accept()
			if err != nil {
				return
			}
			m.conns.Go(func() { m.stand(client, server) })
		}
	})
	return m, nil
}

// close waits until nobody is talking any more: close the client before.
func (m *middle) close() {
	_ = m.ln.Close()
	m.conns.Wait()
}

func (m *middle) stand(client net.Conn, server string) {
	defer client.Close()
	far, err := net.Dial("tcp", server)
	if err != nil {
		return
	}
	defer far.Close()
	var ways sync.WaitGroup
	ways.Go(func() {
		defer far.Close()
		m.pass(far, client, readRequest, m.request)
	})
	ways.Go(func() {
		defer client.Close()
		m.pass(client, far, readAnswer, m.answer)
	})
	ways.Wait()
}

func (m *middle) pass(to io.Writer, from io.Reader, read func(io.Reader) ([]byte, error), change func([]byte) []byte) {
	for {
		b, err := read(from)
		if err != nil {
			return
		}
		if change != nil {
			m.mu.Lock()
			b = change(b)
			m.mu.Unlock()
		}
		if b == nil {
			return
		}
		if _, err := to.Write(b); err != nil {
			return
		}
	}
}

// memoryKeyring keeps a client's identity for the time of a test.
type memoryKeyring struct {
	mu sync.Mutex
	id proto.Identity // guarded by mu
}

var _ proto.Keyring = (*memoryKeyring)(nil)

func (k *memoryKeyring) Load(context.Context) (proto.Identity, bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.id, k.id.Name != proto.ClientName{}, nil
}

func (k *memoryKeyring) Save(_ context.Context, id proto.Identity) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.id = id
	return nil
}

// native is a client of the server at an address; query may name a dialect.
func native(address, query, name string, k *memoryKeyring) (*proto.Client, error) {
	to, err := proto.ParseDestination("v3://" + address + "?" + query)
	if err != nil {
		return nil, err
	}
	n, err := proto.ParseClientName(name)
	return proto.NewClient(proto.ClientConfig{To: to, Name: n, Keyring: k}), err
}

// send delivers bytes with a new connection of a client.
func send(ctx context.Context, address, query, client string, k *memoryKeyring, name string, b []byte) (r proto.Receipt, err error) {
	c, err := native(address, query, client, k)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	return sendWith(ctx, c, name, int64(len(b)), func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil })
}

func sendWith(ctx context.Context, c *proto.Client, name string, size int64, src proto.Source) (proto.Receipt, error) {
	n, err := proto.ParseFileName(name)
	if err != nil {
		return proto.Receipt{}, err
	}
	return c.Send(ctx, proto.Offer{Name: n, Size: size}, src, proto.Watcher{})
}

// bytesOf is content as a slice.
func bytesOf(seed uint64, size int64) []byte {
	b, err := io.ReadAll(content(seed, size))
	if err != nil {
		panic(err) // it is made in memory
	}
	return b
}

// TestReadRequest wants the middle to read a client's messages one by one,
// whatever their headers state: else it would show nothing.
func TestReadRequest(t *testing.T) {
	var k v3.Key
	r := &raw{key: k}
	for _, d := range []v3.Dialect{v3.Seed(), v3.Mainstream(4096), v3.PerSlice(1040)} {
		packets, err := r.packets(d, "file", bytesOf(1, 63_200))
		if err != nil {
			t.Fatal(err)
		}
		src := bytes.NewReader(slices.Concat(packets...))
		for i, want := range packets {
			if got, err := readRequest(src); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%s: packet %d has %d bytes, %v; want %d", d.Name, i+1, len(got), err, len(want))
			}
		}
	}
}
