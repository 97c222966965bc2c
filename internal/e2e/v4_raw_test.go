package e2e_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"ferry/proto"
	"ferry/proto/v4"
)

// clientKeys are keys for clients of tests, which take long to make: each name
// has its own.
var clientKeys = struct {
	mu   sync.Mutex
	keys map[string]*rsa.PrivateKey
}{keys: map[string]*rsa.PrivateKey{}}

func keyOf(name string) (*rsa.PrivateKey, error) {
	clientKeys.mu.Lock()
	defer clientKeys.mu.Unlock()
	if k := clientKeys.keys[name]; k != nil {
		return k, nil
	}
	k, err := rsa.GenerateKey(rand.Reader, v4.KeyBits)
	if err == nil {
		clientKeys.keys[name] = k
	}
	return k, err
}

// A rawV4 is a client of version 4 that says at a real socket what it likes,
// right or wrong.
type rawV4 struct {
	conn     *tls.Conn
	exporter []byte
	id       [v4.IDSize]byte
	seal     *v4.Sealer // nil until it has keys
	open     *v4.Opener
	welcome  v4.Welcome
	siege    *siegeV4      // nil: nobody takes notes
	sent     *bytes.Buffer // what was written inside TLS, if it is to be kept
}

// rawTLS takes any server: it is not the raw client that is to be safe.
var rawTLS = &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, NextProtos: []string{v4.Protocol}}

func dialRawV4(address string) (*rawV4, error) { return dialRawTLS(address, rawTLS) }

func dialRawTLS(address string, cfg *tls.Config) (*rawV4, error) {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: rawLimit}, "tcp", address, cfg)
	if err != nil {
		return nil, err
	}
	r := &rawV4{conn: conn}
	state := conn.ConnectionState()
	if r.exporter, err = state.ExportKeyingMaterial(v4.ExporterLabel, nil, v4.ExporterSize); err != nil {
		return nil, err
	}
	return r, conn.SetDeadline(time.Now().Add(rawLimit))
}

func (r *rawV4) close() { _ = r.conn.Close() }

// write says these bytes, whatever they are.
func (r *rawV4) write(b []byte) error {
	if r.sent != nil {
		r.sent.Write(b)
	}
	_, err := r.conn.Write(b)
	return err
}

// clear is a message that is not sealed.
func clearMessage(code v4.Code, payload []byte) []byte {
	return append(v4.Header{Code: code, Length: uint32(len(payload))}.Append(nil), payload...)
}

// sealed is a message that is.
func (r *rawV4) sealed(code v4.Code, number uint64, payload []byte) ([]byte, error) {
	return r.seal.Append(nil, code, number, payload)
}

// say seals a message and sends it.
func (r *rawV4) say(code v4.Code, number uint64, payload []byte) error {
	m, err := r.sealed(code, number, payload)
	if err != nil {
		return err
	}
	return r.write(m)
}

// An answerV4 is a message of the server's, opened if it was sealed.
type answerV4 struct {
	code    v4.Code
	number  uint64
	payload []byte
}

// refusal is what a 1607 says; a zero one is none.
func (a answerV4) refusal() v4.Refused {
	if a.code != v4.CodeRefused {
		return v4.Refused{}
	}
	m, err := v4.ParseRefused(a.payload)
	if err != nil {
		return v4.Refused{}
	}
	return m
}

// hear returns the next answer. io.EOF means that the server has closed.
func (r *rawV4) hear() (answerV4, error) {
	a, err := r.next()
	if err == nil && r.siege != nil {
		r.siege.notes(a)
	}
	return a, err
}

func (r *rawV4) next() (answerV4, error) {
	head := make([]byte, v4.HeaderSize)
	if _, err := io.ReadFull(r.conn, head); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return answerV4{}, errors.New("the server neither answers nor closes")
		}
		return answerV4{}, io.EOF // closed, reset, or an alert
	}
	h, err := v4.ParseHeader(head)
	if err != nil {
		return answerV4{}, err
	}
	if limit := v4.PayloadLimit(h.Code, v4.MaxPacket) + v4.TagSize; int(h.Length) > limit {
		return answerV4{}, fmt.Errorf("answer %v with %d bytes", h.Code, h.Length)
	}
	payload := make([]byte, h.Length)
	if _, err := io.ReadFull(r.conn, payload); err != nil {
		return answerV4{}, io.EOF
	}
	if r.open != nil {
		plain, err := r.open.Open(nil, head, payload)
		if err != nil {
			// A refusal of the proof is not sealed.
			if m, refused := v4.ParseRefused(payload); h.Code == v4.CodeRefused && refused == nil && m.Reason != 0 {
				return answerV4{h.Code, h.Number, payload}, nil
			}
			return answerV4{}, err
		}
		payload = plain
	}
	return answerV4{h.Code, h.Number, payload}, nil
}

// expect hears an answer with a code.
func (r *rawV4) expect(what string, want v4.Code) (answerV4, error) {
	a, err := r.hear()
	switch {
	case err != nil:
		return a, fmt.Errorf("%s: %w, want %v", what, err, want)
	case a.code != want && a.code == v4.CodeRefused:
		return a, fmt.Errorf("%s: refused with %+v, want %v", what, a.refusal(), want)
	case a.code != want:
		return a, fmt.Errorf("%s: answered %v, want %v", what, a.code, want)
	}
	return a, nil
}

// expectRefusal hears a 1607 for a reason.
func (r *rawV4) expectRefusal(what string, want v4.Reason) error {
	a, err := r.expect(what, v4.CodeRefused)
	if got := a.refusal().Reason; err == nil && got != want {
		err = fmt.Errorf("%s: refused for reason %d (%s), want %d", what, got, a.refusal().Words, want)
	}
	return err
}

// expectEnd hears what it takes until the server closes, of which nothing may be
// more than a refusal.
func (r *rawV4) expectEnd(what string) error {
	for {
		a, err := r.hear()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil || a.code != v4.CodeRefused {
			return fmt.Errorf("%s, until the end: %v, %w, want nothing but %v", what, a.code, err, v4.CodeRefused)
		}
	}
}

// agree makes the keys of a session from a secret.
func (r *rawV4) agree(secret v4.Secret) error {
	toServer, toClient, err := v4.Keys(secret, r.exporter, r.id)
	if err != nil {
		return err
	}
	if r.siege != nil {
		r.siege.hide(secret[:], toServer[:], toClient[:])
	}
	if r.seal, err = v4.NewSealer(toServer); err != nil {
		return err
	}
	r.open, err = v4.NewOpener(toClient)
	return err
}

// unwrap hears a wrapped secret and makes the keys.
func (r *rawV4) unwrap(code v4.Code, key *rsa.PrivateKey) error {
	a, err := r.expect("the wrapped secret", code)
	if err != nil {
		return err
	}
	w, err := v4.ParseWrapped(a.payload)
	if err != nil {
		return err
	}
	secret, err := v4.UnwrapSecret(key, w.Secret)
	if err != nil {
		return err
	}
	r.id = w.ID
	return r.agree(secret)
}

// prove says that the client has the key, and hears the welcome.
func (r *rawV4) prove() error {
	if err := r.say(v4.CodeProve, 0, v4.Prove{Packet: v4.MaxPacket}.Append(nil)); err != nil {
		return err
	}
	a, err := r.expect("the proof", v4.CodeWelcome)
	if err != nil {
		return err
	}
	r.welcome, err = v4.ParseWelcome(a.payload)
	return err
}

// register goes through the whole handshake of a new client.
func (r *rawV4) register(name, token string, key *rsa.PrivateKey) error {
	if err := r.askToRegister(name, token, key); err != nil {
		return err
	}
	return r.prove()
}

// askToRegister is register up to the proof.
func (r *rawV4) askToRegister(name, token string, key *rsa.PrivateKey) error {
	if err := r.write(clearMessage(v4.CodeRegister, v4.Register{Name: name, Token: token}.Append(nil))); err != nil {
		return err
	}
	if _, err := r.expect("register "+name, v4.CodeRegistered); err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return err
	}
	if err := r.write(clearMessage(v4.CodePublicKey, v4.PublicKey{Key: der}.Append(nil))); err != nil {
		return err
	}
	return r.unwrap(v4.CodeKey, key)
}

// reconnect goes through the whole handshake of a known client.
func (r *rawV4) reconnect(id [v4.IDSize]byte, name string, key *rsa.PrivateKey) error {
	if err := r.write(clearMessage(v4.CodeReconnect, v4.Reconnect{ID: id, Name: name}.Append(nil))); err != nil {
		return err
	}
	if err := r.unwrap(v4.CodeReconnKey, key); err != nil {
		return err
	}
	return r.prove()
}

// offerOf describes a file; its transfer is made from the name.
func offerOf(name string, b []byte) v4.Offer {
	s := proto.NewSummer()
	_, _ = s.Write(b) // never fails
	sum := s.Sum()
	id := sha256.Sum256([]byte(name))
	return v4.Offer{
		Transfer: [v4.IDSize]byte(id[:]), Size: int64(len(b)), Mode: 0o644, ModTime: v4.NoTime,
		Known: true, Sum: v4.Sum{Cksum: sum.Cksum, SHA256: sum.SHA256}, Name: name,
	}
}

// file sends a small file in one message.
func (r *rawV4) file(number uint64, o v4.Offer, b []byte) error {
	return r.say(v4.CodeFile, number, append(o.Append(nil), b...))
}

// store sends a small file and wants it stored.
func (r *rawV4) store(number uint64, name string, b []byte) error {
	if err := r.file(number, offerOf(name, b), b); err != nil {
		return err
	}
	_, err := r.expect("a small file", v4.CodeStored)
	return err
}

// offer offers a file and returns from where on it is wanted.
func (r *rawV4) offer(number uint64, o v4.Offer) (int64, error) {
	if err := r.say(v4.CodeOffer, number, o.Append(nil)); err != nil {
		return 0, err
	}
	a, err := r.expect("an offer", v4.CodeGo)
	if err != nil {
		return 0, err
	}
	m, err := v4.ParseOffset(a.payload)
	return m.Bytes, err
}

// A memberV4 is who a client is at a server.
type memberV4 struct {
	name string
	id   [v4.IDSize]byte
	key  *rsa.PrivateKey
}

// join registers a client with a token.
func join(address, name, token string) (*memberV4, error) {
	key, err := keyOf(name)
	if err != nil {
		return nil, err
	}
	r, err := dialRawV4(address)
	if err != nil {
		return nil, err
	}
	defer r.close()
	err = r.register(name, token, key)
	return &memberV4{name, r.id, key}, err
}

// keyring is what an honest client keeps of the member.
func (m *memberV4) keyring() (*memoryKeyring, error) {
	name, err := proto.ParseClientName(m.name)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(m.key)
	return &memoryKeyring{id: proto.Identity{Name: name, ID: proto.ClientID(m.id), PrivateKey: der}}, err
}

// deliver sends bytes as an honest client does, over a new connection.
func (m *memberV4) deliver(ctx context.Context, url, name string, b []byte) (r proto.Receipt, err error) {
	k, err := m.keyring()
	if err != nil {
		return r, err
	}
	to, err := proto.ParseDestination(url)
	if err != nil {
		return r, err
	}
	c := proto.NewClient(proto.ClientConfig{To: to, Name: k.id.Name, Keyring: k})
	defer func() { err = errors.Join(err, c.Close()) }()
	return sendWith(ctx, c, name, int64(len(b)), func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil })
}
