package e2e_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"ferry/proto"
	"ferry/proto/v4"
)

// exitUnauthorized is what ferry send ends with for a server that is not the one
// it knows, and for one that does not let it in.
const exitUnauthorized = 7

// readerOfTheNetwork sees everything that passes, and looks for what it is about.
func readerOfTheNetwork(s *siegeV4) error {
	var mu sync.Mutex
	var seen bytes.Buffer // both ways
	l := layLine(s.t, s.server.v4)
	l.watch(func(_ bool, b []byte) {
		mu.Lock()
		defer mu.Unlock()
		seen.Write(b)
	})
	small, large := bytesOf(21, 1000), bytesOf(22, 300_000)
	for name, b := range map[string][]byte{"secret name": small, "secret large": large} {
		if _, err := s.mallory.deliver(s.t.Context(), s.server.url(l.address), name, b); err != nil {
			return err
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if seen.Len() < len(small)+len(large) {
		return fmt.Errorf("only %d bytes were seen", seen.Len())
	}
	sum := sumOfBytes(small)
	for _, part := range [][]byte{
		[]byte("secret"), []byte("mallory"), s.mallory.id[:], []byte("in-toto"), []byte(sum),
		small[:16], small[500:516], large[:16], large[150_000:150_016], large[len(large)-16:],
	} {
		if bytes.Contains(seen.Bytes(), part) {
			return fmt.Errorf("%q can be read on the network", part)
		}
	}
	return nil
}

// changerOfTheNetwork flips a bit somewhere in what passes, in either direction:
// that delivery fails, unless it was over, and the next one is right.
func changerOfTheNetwork(s *siegeV4) error {
	const tries = 24
	b := bytesOf(23, 100_000)
	want := sumOfBytes(b)
	failed := 0
	for i := range tries {
		l := layLine(s.t, s.server.v4)
		up, at := i%2 == 0, int64(mathrand.IntN(4000))
		if i%4 == 0 {
			at = int64(mathrand.IntN(len(b)))
		}
		var passed [2]atomic.Int64 // by direction
		l.watch(func(isUp bool, b []byte) {
			way := &passed[0]
			if isUp {
				way = &passed[1]
			}
			end := way.Add(int64(len(b)))
			if from := end - int64(len(b)); isUp == up && from <= at && at < end {
				b[at-from] ^= 1 << mathrand.IntN(8)
			}
		})
		name := fmt.Sprintf("changed %d", i)
		_, err := s.mallory.deliver(s.t.Context(), s.server.url(l.address), name, b)
		if err != nil {
			failed++
			if _, err = s.mallory.deliver(s.t.Context(), s.url(), name, b); err != nil {
				return fmt.Errorf("after a flipped bit: %w", err)
			}
		}
		if got, err := sha256OfFile(s.server.stored("mallory", name)); err != nil || got != want {
			return fmt.Errorf("after a flipped bit, stored with SHA-256 %s, %w; want %s", got, err, want)
		}
	}
	s.t.Logf("%d of %d deliveries failed", failed, tries)
	if failed < tries/3 {
		return fmt.Errorf("only %d of %d deliveries were affected", failed, tries)
	}
	return nil
}

// replacedKey is somebody with a copy of the key that a client had before.
func replacedKey(s *siegeV4) error {
	if r := s.send(s.url(), "--join", s.token()); r.status != 0 {
		return fmt.Errorf("ferry send: %+v", r)
	}
	folder, err := clientFolder(s.home)
	if err != nil {
		return err
	}
	before, err := os.ReadFile(filepath.Join(folder, "identity"))
	if err != nil {
		return err
	}
	copied := s.t.TempDir()
	if err := os.WriteFile(filepath.Join(copied, "identity"), before, 0o600); err != nil {
		return err
	}
	if r := s.send(s.url(), "--identity", copied); r.status != 0 {
		return fmt.Errorf("ferry send with a copy of the key: %+v", r)
	}
	if r := ferry(s.t, s.home, "key", "rotate", "--to", s.url(), "--name", "sender"); r.status != 0 {
		return fmt.Errorf("ferry key rotate: %+v", r)
	}
	after, err := os.ReadFile(filepath.Join(folder, "identity"))
	if err != nil || bytes.Equal(before, after) {
		return fmt.Errorf("after ferry key rotate the identity is as it was, %w", err)
	}
	if r := s.send(s.url()); r.status != 0 {
		return fmt.Errorf("ferry send with the new key: %+v", r)
	}
	if r := s.send(s.url(), "--identity", copied); r.status != exitUnauthorized {
		return fmt.Errorf("ferry send with the key that was replaced: %+v; want status %d", r, exitUnauthorized)
	}
	return nil
}

// wrongPin is a server that is not the one with the pin.
func wrongPin(s *siegeV4) error {
	other := "sha256:" + strings.Repeat("5a", 32)
	r := s.send("v4://"+s.server.v4+"?pin="+other, "--join", s.token())
	if r.status != exitUnauthorized || !r.says(other, s.server.pin) {
		return fmt.Errorf("ferry send: %+v; want status %d and both pins", r, exitUnauthorized)
	}
	return s.notRegistered("sender")
}

// notRegistered wants the server not to know a client.
func (s *siegeV4) notRegistered(name string) error {
	r := ferry(s.t, "", "server", "clients", "--data", s.server.data, "--json")
	if r.status != 0 || !r.says(`"victim"`) || r.says(`"`+name+`"`) {
		return fmt.Errorf("ferry server clients: %+v; want the victim, and not %s", r, name)
	}
	return nil
}

// swappedCertificate is a server in the place of one that was trusted.
func swappedCertificate(s *siegeV4) error {
	address := s.server.v4
	if r := ferry(s.t, s.home, "trust", address, "--pin", s.server.pin); r.status != 0 {
		return fmt.Errorf("ferry trust: %+v", r)
	}
	known := "v4://" + address
	if r := s.send(known, "--join", s.token()); r.status != 0 {
		return fmt.Errorf("ferry send to the known server: %+v", r)
	}
	s.server.stop()
	identity := filepath.Join(s.server.data, identityFile)
	right, err := os.ReadFile(identity)
	if err != nil {
		return err
	}
	wrong, err := proto.NewServerIdentity()
	if err := errors.Join(err, os.WriteFile(identity, wrong, 0o600)); err != nil {
		return err
	}
	pin := s.server.pin
	s.server.args[slices.Index(s.server.args, "--listen")+1] = address
	s.server.again()
	for what, r := range map[string]result{"send": s.send(known), "trust": ferry(s.t, s.home, "trust", address)} {
		if r.status != exitUnauthorized || !r.says(pin, s.server.pin, "ferry trust") {
			return fmt.Errorf("ferry %s: %+v; want status %d, both pins and what to do", what, r, exitUnauthorized)
		}
	}
	s.server.stop()
	log := s.log()
	if err := os.WriteFile(identity, right, 0o600); err != nil {
		return err
	}
	s.server.again()
	// What the impostor has written is looked at as well.
	_, err = s.server.stderr.WriteString(log)
	return err
}

// interceptingProxy opens TLS towards both sides, with a certificate that the
// client's machine trusts, and passes everything on as it is.
func interceptingProxy(s *siegeV4) error {
	p, err := s.intercept()
	if err != nil {
		return err
	}
	defer p.close()
	token := s.token()
	trusting := func(to string, more ...string) result {
		s.t.Setenv("SSL_CERT_FILE", p.authority)
		return s.send(to, more...)
	}
	throughTLS := "v4://" + p.address + "?ca=system"
	if r := trusting("v4://"+p.address+"?pin="+s.server.pin, "--join", token); r.status != exitUnauthorized || !r.says(s.server.pin) || p.carried() > 0 {
		return fmt.Errorf("ferry send that knows the pin: %+v, and the proxy has seen %d bytes; want status %d, the pin and none", r, p.carried(), exitUnauthorized)
	}
	for range 2 {
		if r := trusting(throughTLS, "--join", token); r.status != exitUnauthorized || !r.says("proxy") {
			return fmt.Errorf("ferry send that trusts the proxy's CA: %+v; want status %d and that it can be a proxy", r, exitUnauthorized)
		}
	}
	if p.carried() == 0 {
		return errors.New("nobody has talked through the proxy")
	}
	if err := s.notRegistered("sender"); err != nil {
		return err
	}
	// The token was seen, and not used: whoever has it can still join. With a
	// pin it would not have been seen.
	if err := s.joins("joins later", token); err != nil {
		return fmt.Errorf("with the token that the proxy has seen: %w", err)
	}
	// A client that is known fares no better.
	if r := s.send(s.url(), "--join", s.token()); r.status != 0 {
		return fmt.Errorf("ferry send: %+v", r)
	}
	identity, err := clientFolder(s.home)
	if err != nil {
		return err
	}
	if r := trusting(throughTLS, "--identity", identity); r.status != exitUnauthorized || !r.says("proxy") {
		return fmt.Errorf("ferry send of a known client: %+v; want status %d and that it can be a proxy", r, exitUnauthorized)
	}
	return nil
}

// clientFolder is the folder that ferry send keeps the identity for the server in.
func clientFolder(home string) (string, error) {
	found, err := filepath.Glob(filepath.Join(home, "state", "ferry", "identities", "v4", "*", "sender", "identity"))
	for _, path := range found {
		if b, err := os.ReadFile(path); err == nil && len(b) > 0 {
			return filepath.Dir(path), nil
		}
	}
	return "", errors.Join(fmt.Errorf("no identity among %q", found), err)
}

// A tlsProxy ends TLS on both sides.
type tlsProxy struct {
	address   string
	authority string // the file of its CA's certificate
	ln        net.Listener
	server    string
	work      sync.WaitGroup
	mu        sync.Mutex
	bytes     int64 // guarded by mu
}

func (p *tlsProxy) close() {
	_ = p.ln.Close()
	p.work.Wait()
}

func (p *tlsProxy) carried() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bytes
}

func (s *siegeV4) intercept() (*tlsProxy, error) {
	p := &tlsProxy{server: s.server.v4, authority: filepath.Join(s.t.TempDir(), "ca.pem")}
	certificate, authority, err := certify()
	if err := errors.Join(err, os.WriteFile(p.authority, authority, 0o600)); err != nil {
		return nil, err
	}
	p.ln, err = tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{v4.Protocol}, Certificates: []tls.Certificate{certificate},
	})
	if err != nil {
		return nil, err
	}
	p.address = p.ln.Addr().String()
	p.work.Go(func() {
		for {
			client, err := p.ln.Accept()
			if err != nil {
				return
			}
			p.work.Go(func() { p.carry(client) })
		}
	})
	return p, nil
}

func (p *tlsProxy) carry(client net.Conn) {
	defer client.Close()
	_ = client.SetDeadline(time.Now().Add(rawLimit))
	if tc, ok := client.(*tls.Conn); !ok || tc.Handshake() != nil { // as a client does that knows the pin
		return
	}
	far, err := tls.Dial("tcp", p.server, rawTLS)
	if err != nil {
		return
	}
	defer far.Close()
	var ways sync.WaitGroup
	for _, way := range [][2]net.Conn{{client, far}, {far, client}} {
		ways.Go(func() {
			defer way[0].Close()
			n, _ := io.Copy(way[0], way[1])
			p.mu.Lock()
			defer p.mu.Unlock()
			p.bytes += n
		})
	}
	ways.Wait()
}

// certify makes an authority, and a certificate of it for this machine.
func certify() (leaf tls.Certificate, authority []byte, err error) {
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "the proxy's authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	host := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "the proxy"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return leaf, nil, err
	}
	hostKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return leaf, nil, err
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return leaf, nil, err
	}
	hostDER, err := x509.CreateCertificate(rand.Reader, host, ca, &hostKey.PublicKey, caKey)
	return tls.Certificate{Certificate: [][]byte{hostDER}, PrivateKey: hostKey},
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}), err
}

// replayedSession says again what a client has said: inside TLS, and as it was
// on the network.
func replayedSession(s *siegeV4) error {
	onTheWay := &recorder{}
	l := layLine(s.t, s.server.v4)
	l.watch(onTheWay.note)
	r, err := dialRawV4(l.address)
	if err != nil {
		return err
	}
	r.siege, r.sent = s, &onTheWay.inside
	b := bytesOf(1, 100)
	err = errors.Join(r.reconnect(s.mallory.id, "mallory", s.mallory.key), r.store(1, "recorded", b))
	r.close()
	if err != nil {
		return err
	}

	again, err := s.raw()
	if err != nil {
		return err
	}
	defer again.close()
	if err := again.write(onTheWay.inside.Bytes()); err != nil {
		return err
	}
	if _, err := again.expect("the first message, again", v4.CodeReconnKey); err != nil {
		return err
	}
	if err := again.expectRefusal("the proof, again", v4.ReasonUnauthorized); err != nil {
		return err
	}
	if err := again.expectEnd("a session, again"); err != nil {
		return err
	}
	return s.wantSilence("a connection, again", onTheWay.bytes())
}

// silenceLimit is how much a server says to somebody who is not understood: a
// handshake's first flight, at most.
const silenceLimit = 8 << 10

// wantSilence says bytes to the server and wants no more than a beginning of TLS
// and the end.
func (s *siegeV4) wantSilence(what string, b []byte) error {
	conn, err := net.Dial("tcp", s.server.v4)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(rawLimit)); err != nil {
		return err
	}
	_, _ = conn.Write(b) // it may have closed before the end
	got, err := io.ReadAll(io.LimitReader(conn, silenceLimit+1))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("%s: the server neither answers nor closes", what)
	}
	if len(got) > silenceLimit {
		return fmt.Errorf("%s: the server says %d bytes", what, len(got))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard.Write(got)
	return nil
}

// otherProtocols are what a port is asked for that strangers find.
func otherProtocols(s *siegeV4) error {
	var v3 raw
	for what, b := range map[string][]byte{
		"version 3":      append(v3.reconnect("victim"), v3.register("mallory")...),
		"HTTP":           []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
		"SSH":            []byte("SSH-2.0-OpenSSH_9.9\r\n"),
		"zeros":          make([]byte, 1000),
		"garbage":        bytesOf(4, 100_000),
		"4 clear":        clearMessage(v4.CodeReconnect, v4.Reconnect{ID: s.victim.id, Name: "victim"}.Append(nil)),
		"huge TLS hello": append([]byte{22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff}, bytesOf(5, 100_000)...),
	} {
		if err := s.wantSilence(what, b); err != nil {
			return err
		}
	}
	for what, change := range map[string]func(*tls.Config){
		"TLS 1.2":         func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 },
		"no ALPN":         func(c *tls.Config) { c.NextProtos = nil },
		"another ALPN":    func(c *tls.Config) { c.NextProtos = []string{"h2", "http/1.1"} },
		"a later version": func(c *tls.Config) { c.NextProtos = []string{"ferry/5"} },
	} {
		cfg := rawTLS.Clone()
		change(cfg)
		r, err := dialRawTLS(s.server.v4, cfg)
		if err != nil {
			continue // refused in the handshake
		}
		r.siege = s
		_ = r.write(clearMessage(v4.CodeReconnect, v4.Reconnect{ID: s.mallory.id, Name: "mallory"}.Append(nil)))
		err = r.expectEnd(what)
		r.close()
		if err != nil {
			return err
		}
	}
	return nil
}

// silentConnections are 2,000 connections that say nothing, some of them after
// TLS, all of which the server holds.
func silentConnections(s *siegeV4) error {
	c := gather(s.t, s.server.v4, crowdSize)
	defer c.leave()
	for range 50 {
		r, err := s.raw()
		if err != nil {
			return err
		}
		c.conns = append(c.conns, r.conn.NetConn())
	}
	s.serves()
	if held := c.held(); held < crowdSize {
		return fmt.Errorf("%d connections are held, want %d", held, crowdSize)
	}
	if err := s.joins("joins beside", s.token()); err != nil {
		return err
	}
	return nil
}

// slowHandshakes come byte by byte, before TLS is up and after it.
func slowHandshakes(s *siegeV4) error {
	const limit = time.Second // --handshake-timeout
	hello, err := clientHello()
	if err != nil {
		return err
	}
	var drips sync.WaitGroup
	errs := make(chan error, 100)
	start := time.Now()
	for i := range 40 {
		drips.Go(func() {
			if i%2 == 0 {
				conn, err := net.Dial("tcp", s.server.v4)
				if err != nil {
					errs <- err
					return
				}
				defer conn.Close()
				errs <- drip(conn, hello)
				return
			}
			r, err := s.raw()
			if err != nil {
				errs <- err
				return
			}
			defer r.close()
			errs <- drip(r.conn, clearMessage(v4.CodeReconnect, v4.Reconnect{ID: s.mallory.id, Name: strings.Repeat("m", 200)}.Append(nil)))
		})
	}
	s.serves()
	drips.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	if took := time.Since(start); took > 5*limit {
		return fmt.Errorf("the last of the slow was cut after %v, want about %v", took, limit)
	}
	return nil
}

// drip writes b byte by byte, slower than anybody honest, until it is cut.
func drip(conn net.Conn, b []byte) error {
	for i := range b {
		if _, err := conn.Write(b[i : i+1]); err != nil {
			return nil //nolint:nilerr // cut, as it should be
		}
		_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		var in [1]byte
		if _, err := conn.Read(in[:]); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
	}
	return errors.New("a handshake of a byte now and then was not cut")
}

// clientHello is how an honest client begins.
func clientHello() ([]byte, error) {
	ours, theirs := net.Pipe()
	defer ours.Close()
	go func() {
		_ = tls.Client(theirs, rawTLS).Handshake()
		_ = theirs.Close()
	}()
	head := make([]byte, recordHeader)
	if _, err := io.ReadFull(ours, head); err != nil {
		return nil, err
	}
	body := make([]byte, int(head[3])<<8|int(head[4]))
	_, err := io.ReadFull(ours, body)
	return append(head, body...), err
}
