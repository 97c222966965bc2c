package proto_test

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ferry/proto"
	"ferry/proto/prototest"
	v4 "ferry/proto/v4"
)

// diary is a keyring that remembers what was saved.
type diary struct {
	keyring
	saved []proto.Identity
}

// diaryOfAlice is that of [aliceV4].
func diaryOfAlice(t testing.TB) *diary {
	d := &diary{}
	d.id, d.ok = aliceV4(t).id, true
	return d
}

func (d *diary) Save(ctx context.Context, id proto.Identity) error {
	if err := d.keyring.Save(ctx, id); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.saved = append(d.saved, id)
	return nil
}

func (d *diary) saves() []proto.Identity {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.saved)
}

// keyPairOf returns a private key, and its public one in DER.
func keyPairOf(t testing.TB, der []byte) (*rsa.PrivateKey, []byte) {
	t.Helper()
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		t.Fatal(err)
	}
	return key.(*rsa.PrivateKey), spki(key.(*rsa.PrivateKey))
}

func withKeys(k proto.Keyring) func(*proto.ClientConfig) {
	return func(cfg *proto.ClientConfig) { cfg.Keyring = k }
}

func sendV4(t testing.TB, c *proto.Client, name string, size int64) error {
	t.Helper()
	o, src := offered(t, name, content(size), true)
	_, err := c.Send(t.Context(), o, src, proto.Watcher{})
	return err
}

// strict is a directory that wants a token.
type strict struct {
	*directory
	token string
	used  func() error // asked by Register
}

func (d *strict) Admits(ctx context.Context, name proto.ClientName, id proto.ClientID, token string) (proto.ClientID, error) {
	if token != d.token {
		return id, proto.ErrUnauthorized
	}
	return d.directory.Admits(ctx, name, id, token)
}

func (d *strict) Register(ctx context.Context, r proto.Registration, token string) error {
	if d.used != nil {
		if err := d.used(); err != nil {
			return err
		}
	}
	return d.directory.Register(ctx, r, token)
}

// However many files come first, the client registers once.
func TestV4RegistersOnce(t *testing.T) {
	h := newHostV4()
	h.dir = &strict{directory: newDirectory(), token: "ferry-join-x"}
	keys := &diary{}
	r := &relayV4{to: h.listen(t)}
	c := clientV4(t, r.listen(t), withKeys(keys), func(cfg *proto.ClientConfig) { cfg.Join = "ferry-join-x" })
	made := 0
	proto.MakeKeys(c, func() (*rsa.PrivateKey, error) { made++; return someKey() })
	var all sync.WaitGroup
	for i := range 24 {
		all.Go(func() {
			size := int64(100)
			if i%8 == 0 {
				size = 100_000
			}
			if err := sendV4(t, c, fmt.Sprint(i), size); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	clients := h.dir.(*strict).all()
	if len(clients) != 1 || len(keys.saves()) != 1 || made != 1 {
		t.Fatalf("%d clients, saved %d times, made %d keys", len(clients), len(keys.saves()), made)
	}
	for id, got := range clients {
		me := keys.saves()[0]
		key, public := keyPairOf(t, me.PrivateKey)
		if me.ID != id || me.Name != got.Name || !bytes.Equal(public, got.PublicKey) || key.N.BitLen() != 3072 {
			t.Errorf("registered as %+v, saved as %v %v with %d bits", got, me.Name, me.ID, key.N.BitLen())
		}
	}
	if n := r.made.Load(); n > 5 { // one for small files, and one for each large one
		t.Errorf("%d connections", n)
	}
	if errs := h.errors; c.Close() != nil || len(errs()) > 0 {
		t.Errorf("the server: %v", errs())
	}
}

// Nobody goes by an identity that is saved and not welcomed yet.
func TestV4WaitsForWelcome(t *testing.T) {
	h := newHostV4()
	dir := &strict{directory: newDirectory()}
	h.dir = dir
	var dialled, early atomic.Int32
	c := clientV4(t, h.listen(t), withKeys(&diary{}), func(cfg *proto.ClientConfig) {
		cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			dialled.Add(1)
			return (&net.Dialer{}).DialContext(ctx, network, address)
		}
	})
	others := make(chan error, 2)
	dir.used = func() error {
		for i := range cap(others) {
			go func() { others <- sendV4(t, c, fmt.Sprint("other", i), 70_000*int64(i)) }()
		}
		time.Sleep(50 * time.Millisecond) // for one that does not wait to be found out
		early.Store(dialled.Load())
		return nil
	}
	if err := sendV4(t, c, "a", 100_000); err != nil {
		t.Fatal(err)
	}
	if n := early.Load(); n != 1 {
		t.Errorf("%d connections were made before the welcome", n)
	}
	for range cap(others) {
		if err := <-others; err != nil {
			t.Error(err)
		}
	}
}

// A handshake that is out of order ends in ErrProtocol.
func TestV4HandshakeViolations(t *testing.T) {
	id := proto.ClientID{0xa1}
	welcome := func(w v4.Welcome) func(p *peerV4) {
		return func(p *peerV4) {
			p.wrap(v4.CodeReconnKey, id, spki(keyV4()))
			p.read()
			p.say(v4.CodeWelcome, 0, w.Append(nil))
		}
	}
	for name, answer := range map[string]func(p *peerV4){
		"another client's":    func(p *peerV4) { p.wrap(v4.CodeReconnKey, proto.ClientID{9}, spki(keyV4())) },
		"that of registering": func(p *peerV4) { p.wrap(v4.CodeKey, id, spki(keyV4())) },
		"welcome at once":     func(p *peerV4) { p.say(v4.CodeWelcome, 0, usualWelcome.Append(nil)) },
		"name taken":          func(p *peerV4) { p.say(v4.CodeNameTaken, 0, nil) },
		"a number":            func(p *peerV4) { p.say(v4.CodeUnknown, 7, v4.Client{ID: id}.Append(nil)) },
		"too short":           func(p *peerV4) { p.say(v4.CodeReconnKey, 0, []byte{1, 2, 3}) },
		"too long":            func(p *peerV4) { p.say(v4.CodeReconnKey, 0, make([]byte, 5000)) },
		"a client's message":  func(p *peerV4) { p.say(v4.CodeReconnect, 0, nil) },
		"packets too large":   welcome(v4.Welcome{Packet: 128 << 10, Window: 1 << 20, Unanswered: 1}),
		"packets too small":   welcome(v4.Welcome{Packet: 8<<10 - 1, Window: 1 << 20, Unanswered: 1}),
		"no window":           welcome(v4.Welcome{Packet: 8 << 10, Window: 0, Unanswered: 1}),
		"nothing unanswered":  welcome(v4.Welcome{Packet: 8 << 10, Window: 1 << 20}),
	} {
		for _, size := range []int64{10, 100_000} {
			address, _ := scriptedV4(t, func(p *peerV4) {
				if _, ok := p.read(); ok {
					answer(p)
					p.read()
				}
			})
			c := clientV4(t, address, func(cfg *proto.ClientConfig) { cfg.IdleTimeout = 5 * time.Second })
			if err := sendV4(t, c, "a", size); !errors.Is(err, proto.ErrProtocol) {
				t.Errorf("%s, %d bytes: %v, want %v", name, size, err, proto.ErrProtocol)
			}
		}
	}
}

// lastConn is the connection that a server took last.
type lastConn struct{ atomic.Value }

func (l *lastConn) wrap(c net.Conn) net.Conn { l.Store(c); return c }
func (l *lastConn) Close()                   { l.Load().(net.Conn).Close() }

// A welcome that is lost is met by a reconnect, by the same client and by one that
// has been started anew, whether or not the server has recorded the client.
func TestV4LostWelcome(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		for _, recorded := range []bool{false, true} {
			t.Run(fmt.Sprintf("restarted=%v/recorded=%v", restarted, recorded), func(t *testing.T) {
				h := newHostV4()
				dir := &strict{directory: newDirectory()}
				lost, out := make(chan struct{}, 1), errors.New("out")
				lost <- struct{}{}
				var conn lastConn
				h.dir, h.wrap = dir, conn.wrap
				dir.used = func() error {
					select {
					case <-lost:
						conn.Close()
						if !recorded {
							return out
						}
					default:
					}
					return nil
				}
				keys := &diary{}
				address := h.listen(t)
				c := clientV4(t, address, withKeys(keys))
				err := sendV4(t, c, "a", 10)
				if err == nil || errors.Is(err, proto.ErrRefused) || len(keys.saves()) != 1 {
					t.Fatalf("%v; saved %d times", err, len(keys.saves()))
				}
				if restarted {
					c = clientV4(t, address, withKeys(keys))
				}
				if err := sendV4(t, c, "a", 10); err != nil {
					t.Fatal(err)
				}
				saves, clients := keys.saves(), dir.all()
				if _, ok := clients[saves[len(saves)-1].ID]; !ok || len(clients) != 1 {
					t.Errorf("registered %v, saved %v", clients, saves)
				}
				if recorded && len(saves) != 1 || !recorded && len(saves) != 2 {
					t.Errorf("saved %d times", len(saves))
				}
			})
		}
	}
}

func TestV4JoinRefused(t *testing.T) {
	before := proto.Identity{Name: clientName(t, "alice"), ID: proto.ClientID{3}, PrivateKey: aliceKey()} // of version 3
	for _, late := range []bool{false, true} {
		for _, token := range []string{"", "ferry-join-used"} {
			for _, had := range []bool{false, true} {
				t.Run(fmt.Sprintf("late=%v/token=%s/had=%v", late, token, had), func(t *testing.T) {
					h := newHostV4()
					dir := &strict{directory: newDirectory(), token: "ferry-join-good"}
					if late {
						dir.token, dir.used = token, func() error { return proto.ErrUnauthorized }
					}
					h.dir = dir
					keys := &diary{}
					keys.id, keys.ok = before, had
					c := clientV4(t, h.listen(t), withKeys(keys), func(cfg *proto.ClientConfig) { cfg.Join = token })
					for range 2 {
						err := sendV4(t, c, "a", 10)
						if !errors.Is(err, proto.ErrUnauthorized) || !errors.Is(err, proto.ErrRefused) || proto.Permanent(err) {
							t.Fatalf("got %v", err)
						}
						for _, word := range []string{"ask the server's operator", "ferry server token create", "--join"} {
							if !strings.Contains(strings.ToLower(err.Error()), word) {
								t.Errorf("%q does not say %q", err, word)
							}
						}
					}
					if had && (keys.id.ID != before.ID || !bytes.Equal(keys.id.PrivateKey, before.PrivateKey)) {
						t.Errorf("the identity of before is gone: it is %v", keys.id.ID)
					}
					if !late && len(keys.saves()) > 0 {
						t.Errorf("saved %d times", len(keys.saves()))
					}
				})
			}
		}
	}
}

func TestV4NameTaken(t *testing.T) {
	h := newHostV4(alice(t))
	keys := &diary{}
	c := clientV4(t, h.listen(t), withKeys(keys))
	if err := sendV4(t, c, "a", 10); !errors.Is(err, proto.ErrNameTaken) || !strings.Contains(err.Error(), "ferry server token create") {
		t.Errorf("got %v", err)
	}
	if len(keys.saves()) > 0 {
		t.Error("an identity was saved")
	}
}

// A server that does not know the client is registered at in the same connection;
// an identity of version 3, or of another name, is none.
func TestV4RegistersAnew(t *testing.T) {
	for name, id := range map[string]proto.Identity{
		"unknown":      aliceV4(t).id,
		"version 3":    {Name: clientName(t, "alice"), ID: proto.ClientID{3}, PrivateKey: aliceKey()},
		"another name": {Name: clientName(t, "bob"), ID: proto.ClientID{0xa1}, PrivateKey: pkcs8(keyV4())},
	} {
		for _, size := range []int64{10, 100_000} {
			t.Run(fmt.Sprintf("%s/%d", name, size), func(t *testing.T) {
				h := newHostV4()
				keys := &diary{}
				keys.id, keys.ok = id, true
				r := &relayV4{to: h.listen(t)}
				c := clientV4(t, r.listen(t), withKeys(keys))
				if err := sendV4(t, c, "a", size); err != nil {
					t.Fatal(err)
				}
				if r.made.Load() != 1 || len(keys.saves()) != 1 || keys.id.ID == id.ID {
					t.Errorf("%d connections; saved %v", r.made.Load(), keys.saves())
				}
				if err := sendV4(t, c, "b", size); err != nil || len(keys.saves()) != 1 {
					t.Errorf("%v; saved %d times", err, len(keys.saves()))
				}
			})
		}
	}
}

func TestV4UnreadableIdentity(t *testing.T) {
	keys := aliceV4(t)
	keys.id.PrivateKey = []byte("no key")
	h := newHostV4(alice(t))
	c := clientV4(t, h.listen(t), withKeys(keys))
	if err := sendV4(t, c, "a", 10); err == nil || !strings.Contains(err.Error(), "private key") {
		t.Errorf("got %v", err)
	}
	keys.id = aliceV4(t).id
	keys.saveErr = errors.New("disk full")
	h.dir.(*directory).forgetAll()
	if err := sendV4(t, c, "a", 10); !errors.Is(err, keys.saveErr) || len(h.dir.(*directory).all()) > 0 {
		t.Errorf("got %v; registered %v", err, h.dir.(*directory).all())
	}
}

func TestV4Rotate(t *testing.T) {
	h := newHostV4(alice(t))
	dir := h.dir.(*directory)
	keys := diaryOfAlice(t)
	address := h.listen(t)
	c := clientV4(t, address, withKeys(keys))
	if err := c.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	saves := keys.saves()
	if len(saves) != 2 || !bytes.Equal(saves[0].PrivateKey, pkcs8(keyV4())) || len(saves[0].NextKey) == 0 ||
		!bytes.Equal(saves[1].PrivateKey, saves[0].NextKey) || saves[1].NextKey != nil || saves[1].ID != saves[0].ID {
		t.Fatalf("saved %d times", len(saves))
	}
	if _, public := keyPairOf(t, saves[1].PrivateKey); !bytes.Equal(dir.all()[proto.ClientID{0xa1}].PublicKey, public) {
		t.Error("the server has another key")
	}
	for _, c := range []*proto.Client{c, clientV4(t, address, withKeys(keys))} {
		if err := sendV4(t, c, "a", 10); err != nil {
			t.Error(err)
		}
	}
	if err := c.Rotate(t.Context()); err != nil || len(keys.saves()) != 4 {
		t.Errorf("again: %v; saved %d times", err, len(keys.saves()))
	}
}

// replacing tells of each key that is replaced, once it is.
type replacing struct {
	*directory
	before, after func() error
}

func (d *replacing) Replace(ctx context.Context, id proto.ClientID, old, fresh []byte) error {
	if err := d.before(); err != nil {
		return err
	}
	if err := d.directory.Replace(ctx, id, old, fresh); err != nil {
		return err
	}
	return d.after()
}

// Whether or not the server has the new key when the connection breaks, the client
// goes on, and can replace its key again.
func TestV4RotateCut(t *testing.T) {
	for _, recorded := range []bool{false, true} {
		for _, restarted := range []bool{false, true} {
			t.Run(fmt.Sprintf("recorded=%v/restarted=%v", recorded, restarted), func(t *testing.T) {
				h := newHostV4(alice(t))
				var conn lastConn
				h.wrap = conn.wrap
				var failing atomic.Bool
				failing.Store(true)
				cut := func(now bool) func() error {
					return func() error {
						if failing.Load() && now {
							conn.Close()
							return io.ErrClosedPipe
						}
						return nil
					}
				}
				dir := &replacing{directory: h.dir.(*directory), before: cut(!recorded), after: cut(recorded)}
				h.dir = dir
				keys := diaryOfAlice(t)
				address := h.listen(t)
				c := clientV4(t, address, withKeys(keys))
				if err := c.Rotate(t.Context()); err == nil {
					t.Fatal("it was not cut")
				}
				failing.Store(false)
				if restarted {
					c = clientV4(t, address, withKeys(keys))
				}
				if err := sendV4(t, c, "a", 10); err != nil {
					t.Fatal(err)
				}
				if promoted := keys.id.NextKey == nil; promoted != recorded {
					t.Errorf("the next key has been promoted: %v", promoted)
				}
				if err := c.Rotate(t.Context()); err != nil {
					t.Fatal(err)
				}
				_, public := keyPairOf(t, keys.id.PrivateKey)
				if keys.id.NextKey != nil || !bytes.Equal(dir.all()[proto.ClientID{0xa1}].PublicKey, public) {
					t.Error("the server and the keyring have different keys")
				}
			})
		}
	}
}

func TestV4RotateRefused(t *testing.T) {
	h := newHostV4(alice(t))
	h.dir = &replacing{directory: h.dir.(*directory), before: func() error { return errors.New("no disk") }}
	keys := diaryOfAlice(t)
	c := clientV4(t, h.listen(t), withKeys(keys))
	if err := c.Rotate(t.Context()); !errors.Is(err, proto.ErrRefused) {
		t.Errorf("got %v, want %v", err, proto.ErrRefused)
	}
	if err := sendV4(t, c, "a", 10); err != nil {
		t.Error(err)
	}
}

// Another process has replaced the key: its keyring says so.
func TestV4KeyringChanges(t *testing.T) {
	h := newHostV4(alice(t))
	keys := diaryOfAlice(t)
	address := h.listen(t)
	c := clientV4(t, address, withKeys(keys), func(cfg *proto.ClientConfig) { cfg.IdleConns = -1 })
	if err := sendV4(t, c, "a", 100_000); err != nil {
		t.Fatal(err)
	}
	if err := clientV4(t, address, withKeys(keys)).Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := sendV4(t, c, "b", 100_000); err != nil {
		t.Fatal(err)
	}
	// And one that has another key altogether is told so.
	keys.id = aliceV4(t).id
	err := sendV4(t, clientV4(t, address, withKeys(keys)), "c", 10)
	if !errors.Is(err, proto.ErrUnauthorized) || !strings.Contains(err.Error(), "another key registered") {
		t.Errorf("got %v", err)
	}
}

// Somebody who has the server's key opens TLS on both sides and passes on what
// he reads: the client says what it can be.
func TestV4ProxyInBetween(t *testing.T) {
	h := newHostV4(alice(t))
	server := h.listen(t)
	address := prototest.ListenAndCut(t, func(conn net.Conn) {
		near := tls.Server(conn, serverConfigV4())
		far, err := (&tls.Dialer{Config: clientConfigV4()}).DialContext(context.Background(), "tcp", server)
		if err != nil {
			t.Error(err)
			return
		}
		defer far.Close()
		var both sync.WaitGroup
		both.Go(func() { _, _ = io.Copy(far, near); far.Close() })
		both.Go(func() { _, _ = io.Copy(near, far); near.Close() })
		both.Wait()
	})
	err := sendV4(t, clientV4(t, address), "a", 10)
	if !errors.Is(err, proto.ErrUnauthorized) || !strings.Contains(err.Error(), "a proxy that opens TLS is in between") {
		t.Errorf("got %v", err)
	}
}

func TestV4RevokedAndSealedRefusals(t *testing.T) {
	for _, reason := range []v4.Reason{v4.ReasonRevoked, v4.ReasonUnauthorized, v4.ReasonBusy, v4.ReasonStopping} {
		for step := range 2 {
			address, _ := scriptedV4(t, func(p *peerV4) {
				m := v4.Refused{Reason: reason, After: 1500, Words: "no\x1b[2J\u202e words"}
				if _, ok := p.read(); !ok {
					return
				}
				if step == 1 {
					p.wrap(v4.CodeReconnKey, proto.ClientID{0xa1}, spki(keyV4()))
					p.read()
				}
				p.refuse(0, m)
			})
			err := sendV4(t, clientV4(t, address), "a", 10)
			after, _ := proto.RetryAfter(err)
			if !errors.Is(err, proto.ErrRefused) || !strings.HasSuffix(err.Error(), "no[2J words") || after != 1500*time.Millisecond {
				t.Errorf("reason %d at step %d: %v, after %v", reason, step, err, after)
			}
			if strings.Contains(err.Error(), "proxy") {
				t.Errorf("a sealed refusal says %q", err)
			}
		}
	}
}

func TestV4Pins(t *testing.T) {
	h := newHostV4()
	address := h.listen(t)
	other := identityOf(t, goodKeys[0].name).identity.Pin()
	for _, test := range []struct {
		url  string
		says []string
	}{
		{"v4://" + address, []string{"ferry trust " + address, "?pin="}},
		{"v4://" + address + "?pin=" + other.String(), []string{serverV4().Pin().String(), other.String(), "Nothing was sent", "ferry trust --forget HOST:PORT"}},
		{"v4://" + address + "?ca=system", []string{"do not vouch"}},
	} {
		keys := &diary{}
		c := clientV4(t, address, withKeys(keys), func(cfg *proto.ClientConfig) { cfg.To = destination(t, test.url) })
		for _, size := range []int64{10, 100_000} {
			err := sendV4(t, c, "a", size)
			if !errors.Is(err, proto.ErrPin) {
				t.Fatalf("%s: %v, want %v", test.url, err, proto.ErrPin)
			}
			for _, word := range test.says {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("%s: %q does not say %q", test.url, err, word)
				}
			}
		}
		if err := c.Rotate(t.Context()); !errors.Is(err, proto.ErrPin) {
			t.Errorf("%s: rotate: %v", test.url, err)
		}
		if len(keys.saves()) > 0 || len(h.dir.(*directory).all()) > 0 {
			t.Errorf("%s: a client registered", test.url)
		}
	}
}

func TestServerPin(t *testing.T) {
	h := newHostV4()
	address := h.listen(t)
	if pin, err := proto.ServerPin(t.Context(), address); err != nil || pin != serverV4().Pin() {
		t.Errorf("%v, %v; want %v", pin, err, serverV4().Pin())
	}
	silent := prototest.ListenAndCut(t, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(20*time.Millisecond, func() { cancel(why) })
	if _, err := proto.ServerPin(ctx, silent); !errors.Is(err, why) {
		t.Errorf("got %v, want %v", err, why)
	}
	for _, address := range []string{"nowhere", "127.0.0.1:1", ""} {
		if pin, err := proto.ServerPin(t.Context(), address); err == nil || pin != (proto.Pin{}) {
			t.Errorf("%q: %v, %v", address, pin, err)
		}
	}
}

// What is not a port of version 4 is said to be none, and nothing else is tried.
func TestV4OtherServers(t *testing.T) {
	speaks := func(cfg *tls.Config) func(net.Conn) {
		return func(conn net.Conn) { _ = tls.Server(conn, cfg).Handshake(); _, _ = io.Copy(io.Discard, conn) }
	}
	without, old, other := serverConfigV4(), serverConfigV4(), serverConfigV4()
	without.NextProtos = nil
	other.NextProtos = []string{"h2"}
	old.MinVersion, old.MaxVersion = 0, tls.VersionTLS12
	for name, serve := range map[string]func(net.Conn){
		"plain TCP": func(conn net.Conn) {
			_, _ = conn.Write([]byte("220 mail.example.org ESMTP ready\r\n"))
			_, _ = io.Copy(io.Discard, conn)
		},
		"version 3": func(conn net.Conn) {
			_, _ = proto.AcceptV3(context.Background(), conn, proto.SessionConfig{Directory: newDirectory()})
		},
		"TLS without ALPN": speaks(without), "TLS for others": speaks(other), "TLS 1.2": speaks(old),
	} {
		address := prototest.ListenAndCut(t, serve)
		for _, size := range []int64{10, 100_000} {
			err := sendV4(t, clientV4(t, address), "a", size)
			if err == nil || !strings.Contains(err.Error(), "is that a port of version 4?") {
				t.Errorf("%s: %v", name, err)
			}
			if !errors.Is(err, proto.ErrProtocol) {
				t.Errorf("%s: %v, want %v", name, err, proto.ErrProtocol)
			}
		}
		if _, err := proto.ServerPin(t.Context(), address); !errors.Is(err, proto.ErrProtocol) {
			t.Errorf("%s: its pin: %v", name, err)
		}
	}
	gone := prototest.ListenAndCut(t, func(conn net.Conn) {})
	if err := sendV4(t, clientV4(t, gone), "a", 10); err == nil || errors.Is(err, proto.ErrProtocol) {
		t.Errorf("a server that closes: %v", err)
	}
}
