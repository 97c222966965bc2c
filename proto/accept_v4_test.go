package proto_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ferry/proto"
	"ferry/proto/v4"
)

// A gatekeeper is a Directory that wants a token, which can be used once.
type gatekeeper struct {
	*directory
	tokens   sync.Mutex
	good     map[string]bool // guarded by tokens
	lasting  proto.ClientID  // the client whose key a token may replace
	revoked  map[proto.ClientID]bool
	register int // calls of Register
}

func newGatekeeper(tokens ...string) *gatekeeper {
	g := &gatekeeper{directory: newDirectory(), good: map[string]bool{}, revoked: map[proto.ClientID]bool{}}
	for _, token := range tokens {
		g.good[token] = true
	}
	return g
}

func (g *gatekeeper) ByID(ctx context.Context, id proto.ClientID) (proto.Registration, error) {
	if g.revoked[id] {
		return proto.Registration{}, proto.ErrRevoked
	}
	return g.directory.ByID(ctx, id)
}

func (g *gatekeeper) Admits(ctx context.Context, name proto.ClientName, id proto.ClientID, token string) (proto.ClientID, error) {
	g.tokens.Lock()
	defer g.tokens.Unlock()
	if !g.good[token] {
		return id, proto.ErrUnauthorized
	}
	if g.lasting != (proto.ClientID{}) {
		return g.lasting, nil
	}
	return g.directory.Admits(ctx, name, id, token)
}

func (g *gatekeeper) Register(ctx context.Context, r proto.Registration, token string) error {
	g.tokens.Lock()
	defer g.tokens.Unlock()
	g.register++
	if !g.good[token] {
		return proto.ErrUnauthorized
	}
	if g.lasting == (proto.ClientID{}) {
		if err := g.directory.Register(ctx, r, token); err != nil {
			return err
		}
	} else {
		g.clients[r.ID] = r
	}
	delete(g.good, token)
	return nil
}

func (r *rawV4) register(name, token string) *rawV4 {
	r.t.Helper()
	r.say(v4.CodeRegister, 0, v4.Register{Name: name, Token: token}.Append(nil))
	m, err := v4.ParseClient(r.expect(v4.CodeRegistered).Payload)
	if err != nil {
		r.t.Fatal(err)
	}
	r.id = m.ID
	return r
}

func (r *rawV4) giveKey() *rawV4 {
	r.t.Helper()
	r.say(v4.CodePublicKey, 0, v4.PublicKey{Key: spki(r.key)}.Append(nil))
	r.unwrap(r.expect(v4.CodeKey))
	return r
}

func (r *rawV4) reconnect(id proto.ClientID, name string) {
	r.t.Helper()
	r.say(v4.CodeReconnect, 0, v4.Reconnect{ID: id, Name: name}.Append(nil))
}

func TestV4Registers(t *testing.T) {
	g := newGatekeeper("once")
	h := newHostV4()
	h.dir = g
	r := h.rawTCP(t).register("bob", "once")
	if len(g.all()) != 0 {
		t.Fatal("a client is recorded before its key")
	}
	r.giveKey()
	if len(g.all()) != 0 || g.register != 0 {
		t.Fatal("a client is recorded before its proof")
	}
	r.prove()
	want := proto.Registration{ID: r.id, Name: clientName(t, "bob"), PublicKey: spki(keyV4())}
	if got := g.all()[r.id]; got.ID != want.ID || got.Name != want.Name || !bytes.Equal(got.PublicKey, want.PublicKey) {
		t.Fatalf("recorded is %+v, want %+v", got, want)
	}
	if r.welcome.Packet != v4.MaxPacket || r.welcome.Window != 16<<20 || r.welcome.Unanswered != 256 {
		t.Errorf("welcome %+v", r.welcome)
	}
	r.bye()

	again := h.rawTCP(t)
	again.reconnect(r.id, "bob")
	again.unwrap(again.expect(v4.CodeReconnKey))
	again.prove()
	again.bye()

	late := h.rawTCP(t)
	late.say(v4.CodeRegister, 0, v4.Register{Name: "carol", Token: "once"}.Append(nil))
	late.expectRefused(0, v4.ReasonUnauthorized)
	late.expectEnd()
	if errs := h.errors(); len(errs) != 1 || !errors.Is(errs[0], proto.ErrUnauthorized) {
		t.Errorf("got errors %v, want one of the token that was used", errs)
	}
}

// TestV4TokenUsedMeanwhile: two register with one token at the same time.
func TestV4TokenUsedMeanwhile(t *testing.T) {
	g := newGatekeeper("once")
	h := newHostV4()
	h.dir = g
	first, second := h.rawTCP(t).register("bob", "once").giveKey(), h.rawTCP(t).register("carol", "once").giveKey()
	first.prove()
	second.say(v4.CodeProve, 0, v4.Prove{Packet: v4.MinPacket}.Append(nil))
	second.expectRefused(0, v4.ReasonUnauthorized)
	second.expectEnd()
	if all := g.all(); len(all) != 1 || all[first.id].Name.String() != "bob" {
		t.Errorf("recorded are %v, want bob alone", all)
	}
}

func TestV4TokenReplacesKey(t *testing.T) {
	g := newGatekeeper("for alice")
	a := alice(t)
	a.PublicKey = []byte("a key of version 3")
	g.clients[a.ID] = a
	g.lasting = a.ID
	h := newHostV4()
	h.dir = g
	r := h.rawTCP(t)
	r.reconnect(a.ID, "alice")
	if words := r.expectRefused(0, v4.ReasonUnauthorized).Words; !strings.Contains(words, "join anew with a token") {
		t.Errorf("the words are %q", words)
	}
	r.expectEnd()
	r = h.rawTCP(t).register("alice", "for alice").giveKey().prove()
	if r.id != a.ID {
		t.Errorf("the id became %v, want %v", r.id, a.ID)
	}
	r.bye()
	h.rawTCP(t).enter().bye()
}

func TestV4Unknown(t *testing.T) {
	h := newHostV4(alice(t))
	var refused []string
	h.cfg.Refused = func(client, _ string, why error) { refused = append(refused, fmt.Sprint(client, ": ", why)) }
	r := h.rawTCP(t)
	for _, c := range []struct {
		id   proto.ClientID
		name string
	}{{proto.ClientID{9}, "alice"}, {proto.ClientID{0xa1}, "bob"}} {
		r.reconnect(c.id, c.name)
		m, err := v4.ParseClient(r.expect(v4.CodeUnknown).Payload)
		if err != nil || m.ID != c.id {
			t.Errorf("unknown is %x, %v, want %x", m.ID, err, c.id)
		}
	}
	r.say(v4.CodeRegister, 0, v4.Register{Name: "alice"}.Append(nil))
	r.expect(v4.CodeNameTaken)
	r.register("bob", "").giveKey().prove().bye()
	h.conns.Wait()
	if len(refused) != 3 {
		t.Errorf("told of %q, want three", refused)
	}
}

func TestV4TurnedAway(t *testing.T) {
	short := must(rsa.GenerateKey(rand.Reader, 2048))
	broken := errors.New("disk I/O error at /var/lib")
	for what, c := range map[string]struct {
		dir    func(*gatekeeper)
		say    func(r *rawV4)
		reason v4.Reason
		after  bool
		want   error
	}{
		"token":   {say: func(r *rawV4) { r.say(v4.CodeRegister, 0, v4.Register{Name: "bob", Token: "x"}.Append(nil)) }, reason: v4.ReasonUnauthorized, want: proto.ErrUnauthorized},
		"name":    {say: func(r *rawV4) { r.say(v4.CodeRegister, 0, v4.Register{Name: "a/b", Token: "good"}.Append(nil)) }, reason: v4.ReasonName, want: proto.ErrName},
		"revoked": {dir: func(g *gatekeeper) { g.revoked[proto.ClientID{9}] = true }, say: func(r *rawV4) { r.reconnect(proto.ClientID{9}, "bob") }, reason: v4.ReasonRevoked, want: proto.ErrRevoked},
		"short key": {
			say: func(r *rawV4) {
				r.register("bob", "good").say(v4.CodePublicKey, 0, v4.PublicKey{Key: spki(short)}.Append(nil))
			},
			reason: v4.ReasonUnauthorized, want: proto.ErrUnauthorized,
		},
		"key that encrypts nothing": {
			say: func(r *rawV4) {
				even := rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), v4.KeyBits-1), E: 65537}
				r.register("bob", "good").say(v4.CodePublicKey, 0, v4.PublicKey{Key: must(x509.MarshalPKIXPublicKey(&even))}.Append(nil))
			},
			reason: v4.ReasonUnauthorized, want: proto.ErrUnauthorized,
		},
		"no key": {
			say: func(r *rawV4) {
				r.register("bob", "good").say(v4.CodePublicKey, 0, v4.PublicKey{Key: []byte("key")}.Append(nil))
			},
			reason: v4.ReasonUnauthorized, want: proto.ErrUnauthorized,
		},
		"broken directory": {
			dir:    func(g *gatekeeper) { g.err = broken },
			say:    func(r *rawV4) { r.reconnect(proto.ClientID{9}, "bob") },
			reason: v4.ReasonInternal, after: true, want: broken,
		},
		"broken at the proof": {
			say: func(r *rawV4) {
				r.register("bob", "good").giveKey()
				r.host.dir.(*gatekeeper).err = broken
				r.say(v4.CodeProve, 0, v4.Prove{Packet: v4.MinPacket}.Append(nil))
			},
			reason: v4.ReasonInternal, after: true, want: broken,
		},
		"small packets": {
			say: func(r *rawV4) {
				r.register("bob", "good").giveKey().say(v4.CodeProve, 0, v4.Prove{Packet: v4.MinPacket - 1}.Append(nil))
			},
			reason: v4.ReasonViolation, want: proto.ErrProtocol,
		},
	} {
		t.Run(what, func(t *testing.T) {
			g := newGatekeeper("good")
			if c.dir != nil {
				c.dir(g)
			}
			h := newHostV4()
			h.dir, h.id = g, quickV4
			r := h.rawTCP(t)
			c.say(r)
			m := r.expectRefused(0, c.reason)
			if strings.Contains(m.Words, "/var") || (m.After > 0) != c.after {
				t.Errorf("refused with %+v", m)
			}
			r.expectEnd()
			if errs := h.errors(); len(errs) != 1 || !errors.Is(errs[0], c.want) {
				t.Errorf("got errors %v, want %v", errs, c.want)
			}
			if len(g.all()) != 0 {
				t.Errorf("recorded are %v", g.all())
			}
		})
	}
}

// TestV4ProofDoesNotOpen is all that keys are bound to: the client's private
// key, the TLS connection, the client's id.
func TestV4ProofDoesNotOpen(t *testing.T) {
	for what, change := range map[string]func(r *rawV4){
		"another exporter": func(r *rawV4) { r.keys(r.secret, bytes.Repeat([]byte{1}, v4.ExporterSize)) },
		"another secret":   func(r *rawV4) { r.keys(v4.NewSecret(), r.exporter()) },
		"another id":       func(r *rawV4) { r.id[0]++; r.keys(r.secret, r.exporter()) },
		"the second message": func(r *rawV4) {
			if _, err := r.sealer.Reserve(); err != nil {
				r.t.Fatal(err)
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			g := newGatekeeper("good")
			h := newHostV4()
			h.dir, h.id = g, quickV4
			r := h.rawTCP(t).register("bob", "good").giveKey()
			change(r)
			r.say(v4.CodeProve, 0, v4.Prove{Packet: v4.MinPacket}.Append(nil))
			r.opener = nil // the answer is not sealed
			r.expectRefused(0, v4.ReasonUnauthorized)
			r.expectEnd()
			if errs := h.errors(); len(errs) != 1 || !errors.Is(errs[0], v4.ErrOpen) {
				t.Errorf("got errors %v", errs)
			}
			if len(g.all()) != 0 || !g.good["good"] {
				t.Error("the client is recorded, or the token was used")
			}
		})
	}
}

// TestV4OutOfOrder says each message where it has no place before the client is
// known.
func TestV4OutOfOrder(t *testing.T) {
	codes := []v4.Code{
		v4.CodeRegister, v4.CodePublicKey, v4.CodeReconnect, v4.CodePacket, v4.CodeProve, v4.CodeOffer, v4.CodeEnd, v4.CodeFile,
		v4.CodeRotate, v4.CodeAgain, v4.CodeGiveUp, v4.CodeRegistered, v4.CodeStored, v4.CodeRefused, v4.CodeWelcome, 0, 834, 900, 65535,
	}
	for stage, c := range map[string]struct {
		enter func(r *rawV4)
		good  []v4.Code
	}{
		"first":      {enter: func(*rawV4) {}, good: []v4.Code{v4.CodeRegister, v4.CodeReconnect}},
		"registered": {enter: func(r *rawV4) { r.register("bob", "") }, good: []v4.Code{v4.CodeRegister, v4.CodeReconnect, v4.CodePublicKey}},
		"wrapped":    {enter: func(r *rawV4) { r.register("bob", "").giveKey() }, good: []v4.Code{v4.CodeProve}},
	} {
		for _, code := range codes {
			if slices.Contains(c.good, code) {
				continue
			}
			t.Run(fmt.Sprint(stage, " ", code), func(t *testing.T) {
				h := newHostV4()
				h.id = quickV4
				r := h.rawTCP(t)
				c.enter(r)
				r.say(code, 0, nil)
				r.expectRefused(0, v4.ReasonViolation)
				r.expectEnd()
				if errs := h.errors(); len(errs) != 1 || !errors.Is(errs[0], proto.ErrProtocol) {
					t.Errorf("got errors %v", errs)
				}
			})
		}
	}
}

func TestV4MalformedHandshake(t *testing.T) {
	for what, b := range map[string][]byte{
		"reserved bytes":   {0x39, 0x03, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"too long":         v4.Header{Code: v4.CodeRegister, Length: v4.MaxClear + 1}.Append(nil), // nothing follows
		"as long as can":   v4.Header{Code: v4.CodeReconnect, Length: 1<<32 - 1}.Append(nil),
		"payload too few":  append(v4.Header{Code: v4.CodeRegister, Length: 3}.Append(nil), 1, 0, 'a'),
		"payload too many": append(v4.Header{Code: v4.CodeRegister, Length: 6}.Append(nil), 1, 0, 'a', 0, 0, 0),
	} {
		t.Run(what, func(t *testing.T) {
			h := newHostV4()
			h.id = quickV4
			r := h.rawTCP(t)
			r.write(b)
			r.expectRefused(0, v4.ReasonViolation)
			r.expectEnd()
		})
	}
}

func TestV4HandshakeWithoutEnd(t *testing.T) {
	h := newHostV4()
	h.id = quickV4
	r := h.rawTCP(t)
	for range 16 {
		r.reconnect(proto.ClientID{1}, "x")
		r.expect(v4.CodeUnknown)
	}
	r.expectRefused(0, v4.ReasonViolation)
	r.expectEnd()
}

// TestV4OtherTLS is who speaks another TLS, or another protocol in it.
func TestV4OtherTLS(t *testing.T) {
	for what, c := range map[string]struct {
		change func(*tls.Config)
		shakes bool // the client's own handshake comes to its end
	}{
		"no ALPN":     {change: func(c *tls.Config) { c.NextProtos = nil }, shakes: true},
		"HTTP":        {change: func(c *tls.Config) { c.NextProtos = []string{"h2", "http/1.1"} }},
		"TLS 1.2":     {change: func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }},
		"as it is to": {change: func(*tls.Config) {}, shakes: true},
	} {
		t.Run(what, func(t *testing.T) {
			h := newHostV4(alice(t))
			near, far := net.Pipe()
			h.conns.Go(func() { h.serve(far) })
			cfg := clientConfigV4()
			c.change(cfg)
			conn := tls.Client(near, cfg)
			if err := conn.Handshake(); (err == nil) != c.shakes {
				t.Errorf("handshake: %v", err)
			}
			good := cfg.NextProtos != nil && c.shakes
			if good {
				if conn.ConnectionState().DidResume || conn.ConnectionState().Version != tls.VersionTLS13 {
					t.Errorf("state %+v", conn.ConnectionState())
				}
				_, _ = conn.Write([]byte{0})
			}
			near.Close()
			errs := h.errors()
			if len(errs) != 1 || !good && what == "no ALPN" && !errors.Is(errs[0], proto.ErrProtocol) {
				t.Errorf("got errors %v", errs)
			}
		})
	}
}

// TestV4Silence is clients that say nothing, or a byte now and then, before they
// are known.
func TestV4Silence(t *testing.T) {
	serverV4()
	keyV4()
	for what, say := range map[string]func(t *testing.T, conn net.Conn, h *hostV4){
		"at once": func(_ *testing.T, conn net.Conn, _ *hostV4) { _, _ = conn.Read(make([]byte, 1)) },
		"a byte a second": func(_ *testing.T, conn net.Conn, _ *hostV4) {
			for _, b := range []byte{22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3, 1, 2, 3, 4, 5, 6, 7, 8, 9} {
				if _, err := conn.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		},
		"after TLS":          func(t *testing.T, conn net.Conn, h *hostV4) { h.over(t, conn) },
		"instead of the key": func(t *testing.T, conn net.Conn, h *hostV4) { h.over(t, conn).register("bob", "") },
		"instead of the proof": func(t *testing.T, conn net.Conn, h *hostV4) {
			h.over(t, conn).register("bob", "").giveKey()
		},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHostV4()
				h.cfg.HandshakeTimeout = 7 * time.Second
				near, far := net.Pipe()
				start, d := time.Now(), time.Duration(0)
				h.conns.Go(func() {
					h.serve(far)
					d = time.Since(start)
				})
				say(t, near, h)
				errs := h.errors() // it has ended
				if d != h.cfg.HandshakeTimeout {
					t.Errorf("it ended after %v, want %v", d, h.cfg.HandshakeTimeout)
				}
				if len(errs) != 1 || !errors.Is(errs[0], os.ErrDeadlineExceeded) || len(h.dir.(*directory).all()) != 0 {
					t.Errorf("errors %v, clients %v", errs, h.dir.(*directory).all())
				}
				near.Close()
			})
		})
	}
}

// TestV4Probe is somebody who looks whether the port is open.
func TestV4Probe(t *testing.T) {
	h := newHostV4()
	near, far := net.Pipe()
	h.conns.Go(func() { h.serve(far) })
	near.Close()
	if errs := h.errors(); len(errs) != 1 || !errors.Is(errs[0], io.EOF) || errors.Is(errs[0], io.ErrUnexpectedEOF) {
		t.Errorf("got errors %v, want EOF", errs)
	}
}

// TestV4HandshakeStopped ends the context while a client is awaited.
func TestV4HandshakeStopped(t *testing.T) {
	h := newHostV4(alice(t))
	ctx, stop := context.WithCancelCause(t.Context())
	h.ctx = ctx
	r := h.rawTCP(t)
	r.reconnect(proto.ClientID{1}, "x")
	r.expect(v4.CodeUnknown)
	stop(fmt.Errorf("later: %w", proto.ErrStopping))
	if r.expectRefused(0, v4.ReasonStopping).After == 0 {
		t.Error("it may not come again")
	}
	r.expectEnd()
	if errs := h.errors(); len(errs) != 1 || !errors.Is(errs[0], proto.ErrStopping) {
		t.Errorf("got errors %v", errs)
	}
}
