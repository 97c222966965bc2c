package proto_test

import (
	"bytes"
	"crypto/rsa"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"ferry/proto"
	"ferry/proto/v3"
)

// answer is a response as it was on the wire.
type answer struct {
	Code    v3.Code
	Payload []byte
}

func readAnswer(r io.Reader) (answer, error) {
	var h [v3.ResponseHeaderSize]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return answer{}, err
	}
	header, err := v3.ParseResponseHeader(h[:])
	if err != nil {
		return answer{}, err
	}
	a := answer{Code: header.Code, Payload: make([]byte, header.PayloadSize)}
	_, err = io.ReadFull(r, a.Payload)
	return a, err
}

// answersIn splits what a server said.
func answersIn(t testing.TB, b []byte) []answer {
	t.Helper()
	var all []answer
	for r := bytes.NewReader(b); r.Len() > 0; {
		a, err := readAnswer(r)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, a)
	}
	return all
}

// requestsIn splits what a client said.
func requestsIn(t testing.TB, b []byte) [][]byte {
	t.Helper()
	var all [][]byte
	for len(b) > 0 {
		h, err := v3.ParseRequestHeader(b[:v3.RequestHeaderSize])
		if err != nil {
			t.Fatal(err)
		}
		size := v3.RequestHeaderSize + int(h.PayloadSize)
		if h.Code == v3.CodePacket {
			size = v3.RequestHeaderSize + packetSize(t, h, b[v3.RequestHeaderSize:])
		}
		all, b = append(all, b[:size]), b[size:]
	}
	return all
}

// packetSize is what follows the header of an 828, whose own word a seed's
// client does not keep.
func packetSize(t testing.TB, h v3.RequestHeader, payload []byte) int {
	t.Helper()
	if h.PayloadSize != v3.Seed().StatedPayload {
		return int(h.PayloadSize)
	}
	p, err := v3.ParsePacketHeader(payload[:v3.PacketHeaderSize])
	if err != nil {
		t.Fatal(err)
	}
	plan, err := v3.Seed().Plan(int64(p.OriginalSize))
	if err != nil {
		t.Fatal(err)
	}
	return v3.PacketHeaderSize + plan.CipherSize(int(p.Numbers[1]))
}

func codeOf(request []byte) v3.Code {
	return v3.Code(binary.LittleEndian.Uint16(request[17:]))
}

// raw is a client that says what a test wants it to.
type raw struct {
	t    testing.TB
	conn net.Conn
	id   v3.ID
	priv *rsa.PrivateKey
	key  v3.Key
}

func (r *raw) say(messages ...[]byte) {
	r.t.Helper()
	if _, err := r.conn.Write(slices.Concat(messages...)); err != nil {
		r.t.Fatal(err)
	}
}

// mutter says something that may not be read to its end.
func (r *raw) mutter(b []byte) { go func() { _, _ = r.conn.Write(b) }() }

func (r *raw) read() answer {
	r.t.Helper()
	a, err := readAnswer(r.conn)
	if err != nil {
		r.t.Fatalf("no answer: %v", err)
	}
	return a
}

// expect reads answers with these codes.
func (r *raw) expect(codes ...v3.Code) {
	r.t.Helper()
	for i, want := range codes {
		if got := r.read(); got.Code != want {
			r.t.Fatalf("answer %d of %d is %v, want %v", i+1, len(codes), got.Code, want)
		}
	}
}

// expectEnd reads until the server closes, which is to be at once.
func (r *raw) expectEnd() {
	r.t.Helper()
	start := time.Now()
	if a, err := readAnswer(r.conn); err == nil {
		r.t.Fatalf("answer %v: want the end", a.Code)
	}
	if d := time.Since(start); d > 0 {
		r.t.Fatalf("it ended after %v", d)
	}
}

func (r *raw) request(code v3.Code, payload []byte) []byte {
	h := v3.RequestHeader{Client: r.id, Code: code, PayloadSize: uint32(len(payload))}
	return append(h.Append(nil), payload...)
}

func (r *raw) registerAs(name string) []byte {
	return r.request(v3.CodeRegister, v3.Register{Name: name}.Append(nil))
}

func (r *raw) publicKey(name string) []byte {
	r.t.Helper()
	if r.priv == nil {
		var err error
		if r.priv, err = v3.GenerateKey(); err != nil {
			r.t.Fatal(err)
		}
	}
	field, err := v3.MarshalPublicKeyInfo(&r.priv.PublicKey)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.request(v3.CodePublicKey, v3.PublicKey{Name: name, Key: field}.Append(nil))
}

func (r *raw) reconnectAs(name string) []byte {
	return r.request(v3.CodeReconnect, v3.Reconnect{Name: name}.Append(nil))
}

// enter registers.
func (r *raw) enter(name string) *raw {
	r.t.Helper()
	r.say(r.registerAs(name))
	m, err := v3.ParseRegistered(r.read().Payload)
	if err != nil {
		r.t.Fatal(err)
	}
	r.id = m.Client
	r.say(r.publicKey(name))
	r.unwrap(r.read())
	return r
}

func (r *raw) unwrap(a answer) {
	r.t.Helper()
	m, err := v3.ParseWrappedKey(a.Payload)
	if err != nil {
		r.t.Fatalf("%v: %v", a.Code, err)
	}
	if r.key, err = v3.UnwrapKey(r.priv, m.Key); err != nil {
		r.t.Fatal(err)
	}
}

// packets returns a file as its messages.
func (r *raw) packets(d v3.Dialect, name string, b []byte) [][]byte {
	r.t.Helper()
	plan, err := d.Plan(int64(len(b)))
	if err != nil {
		r.t.Fatal(err)
	}
	p := v3.NewPacker(plan, r.key, r.id, name)
	var all [][]byte
	for src := bytes.NewReader(b); !p.Done(); {
		m, err := p.Append(nil, src)
		if err != nil {
			r.t.Fatal(err)
		}
		all = append(all, m)
	}
	return all
}

func (r *raw) confirm(code v3.Code, name string) []byte {
	return r.request(code, v3.Confirm{Name: name}.Append(nil))
}

// raw connects a raw client to the host; at the test's end it has left.
func (h *host) raw(t testing.TB) *raw {
	t.Helper()
	conn, err := h.dial(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		h.conns.Wait()
	})
	return &raw{t: t, conn: conn}
}

func publicKeyOf(t testing.TB, der []byte) (*rsa.PrivateKey, []byte) {
	t.Helper()
	priv, err := v3.ParsePrivateKey(der)
	if err != nil {
		t.Fatal(err)
	}
	field, err := v3.MarshalPublicKeyInfo(&priv.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return priv, field[:]
}

// registration is of a client with that name and id and some key.
func registration(t testing.TB, name string, id proto.ClientID, publicKey []byte) proto.Registration {
	t.Helper()
	return proto.Registration{ID: id, Name: clientName(t, name), PublicKey: publicKey}
}

func (a answer) String() string { return fmt.Sprintf("%v %x", a.Code, a.Payload) }
