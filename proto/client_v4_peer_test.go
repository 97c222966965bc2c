package proto_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"ferry/proto"
	"ferry/proto/prototest"
	v4 "ferry/proto/v4"
)

// A peerV4 is a server that says what a test wants it to.
type peerV4 struct {
	t        testing.TB
	conn     net.Conn
	tls      *tls.Conn
	id       proto.ClientID
	exporter []byte
	sealer   *v4.Sealer // nil before the keys
	opener   *v4.Opener
}

// scriptedV4 serves each connection with script until the test ends, and counts
// them.
func scriptedV4(t testing.TB, script func(p *peerV4)) (address string, connections *atomic.Int32) {
	t.Helper()
	connections = new(atomic.Int32)
	return prototest.ListenAndCut(t, func(conn net.Conn) {
		connections.Add(1)
		p := &peerV4{t: t, conn: conn, tls: tls.Server(conn, serverConfigV4())}
		if p.tls.Handshake() == nil {
			script(p)
		}
	}), connections
}

func serverConfigV4() *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{proto.CertificateOf(serverV4())}, MinVersion: tls.VersionTLS13,
		NextProtos: []string{v4.Protocol}, SessionTicketsDisabled: true,
	}
}

// read returns the next message; ok is false at the end.
func (p *peerV4) read() (m messageV4, ok bool) {
	var h [v4.HeaderSize]byte
	if _, err := io.ReadFull(p.tls, h[:]); err != nil {
		return m, false
	}
	m.Header = must(v4.ParseHeader(h[:]))
	m.Payload = make([]byte, m.Length)
	if _, err := io.ReadFull(p.tls, m.Payload); err != nil {
		return m, false
	}
	if p.opener != nil {
		var err error
		if m.Payload, err = p.opener.Open(nil, h[:], m.Payload); err != nil {
			p.t.Errorf("%v: %v", m.Code, err)
			return m, false
		}
	}
	return m, true
}

// skipTo returns the next message that is no packet, and counts the bytes of those
// that are.
func (p *peerV4) skipTo() (m messageV4, bytes int64, ok bool) {
	for {
		m, ok = p.read()
		if !ok || m.Code != v4.CodePacket {
			return m, bytes, ok
		}
		bytes += int64(len(m.Payload))
	}
}

// say writes a message; what the client does not take any more is lost.
func (p *peerV4) say(code v4.Code, number uint64, payload []byte) {
	b := v4.Header{Code: code, Length: uint32(len(payload)), Number: number}.Append(nil)
	b = append(b, payload...)
	if p.sealer != nil {
		b = must(p.sealer.Append(nil, code, number, payload))
	}
	_, _ = p.tls.Write(b)
}

// wrap answers with a secret for alice's key, and makes what follows sealed.
func (p *peerV4) wrap(code v4.Code, id proto.ClientID, key []byte) {
	secret := v4.NewSecret()
	p.id = id
	p.say(code, 0, v4.Wrapped{ID: id, Secret: must(v4.WrapSecret(must(v4.ParseKey(key)), secret))}.Append(nil))
	state := p.tls.ConnectionState()
	p.exporter = must(state.ExportKeyingMaterial(v4.ExporterLabel, nil, v4.ExporterSize))
	toServer, toClient, err := v4.Keys(secret, p.exporter, id)
	if err != nil {
		panic(err)
	}
	p.opener, p.sealer = must(v4.NewOpener(toServer)), must(v4.NewSealer(toClient))
}

// usualWelcome is what a scripted server allows unless the test says otherwise.
var usualWelcome = v4.Welcome{Packet: 64 << 10, Window: 1 << 20, Unanswered: 64}

// enter recognises alice.
func (p *peerV4) enter() bool { return p.enterWith(usualWelcome) }

func (p *peerV4) enterWith(w v4.Welcome) bool {
	m, ok := p.read()
	if !ok || m.Code != v4.CodeReconnect {
		return false
	}
	p.wrap(v4.CodeReconnKey, proto.ClientID{0xa1}, spki(keyV4()))
	if m, ok = p.read(); !ok || m.Code != v4.CodeProve {
		return false
	}
	p.say(v4.CodeWelcome, 0, w.Append(nil))
	return true
}

// offered reads an offer, or a file in one message.
func (p *peerV4) offered() (number uint64, o v4.Offer, ok bool) {
	m, ok := p.read()
	if !ok {
		return 0, o, false
	}
	if m.Code == v4.CodeFile {
		o, _ = mustFile(m.Payload)
		return m.Number, o, true
	}
	return m.Number, must(v4.ParseOffer(m.Payload)), m.Code == v4.CodeOffer
}

func mustFile(b []byte) (v4.Offer, []byte) {
	o, c, err := v4.ParseFile(b)
	if err != nil {
		panic(err)
	}
	return o, c
}

// stored answers with a receipt for alice.
func (p *peerV4) stored(files []proto.Stored, numbers ...uint64) {
	client := proto.Registration{ID: p.id, Name: clientName(p.t, "alice")}
	p.say(v4.CodeStored, 0, v4.Stored{Numbers: numbers, Envelope: must(serverV4().SignReceipt(client, files))}.Append(nil))
}

func (p *peerV4) refuse(number uint64, m v4.Refused) { p.say(v4.CodeRefused, number, m.Append(nil)) }

// A relayV4 passes connections on to a server, and does something to them.
type relayV4 struct {
	to   string
	cut  func(connection int) (up, down int64) // after how many bytes; below 0: never
	up   atomic.Int64                          // bytes passed to the server
	down atomic.Int64
	made atomic.Int32
	over chan struct{} // has a value for each connection that has ended, if it is not nil
}

// listen relays until the test ends.
func (r *relayV4) listen(t testing.TB) string {
	return prototest.ListenAndCut(t, func(conn net.Conn) {
		n := int(r.made.Add(1))
		far, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", r.to)
		if err != nil {
			return
		}
		defer far.Close()
		up, down := int64(-1), int64(-1)
		if r.cut != nil {
			up, down = r.cut(n)
		}
		var both sync.WaitGroup
		both.Go(func() { pass(far, conn, up, &r.up) })
		both.Go(func() { pass(conn, far, down, &r.down) })
		both.Wait()
		if r.over != nil {
			r.over <- struct{}{}
		}
	})
}

// pass copies until the end, or for so many bytes, and then ends both ways.
func pass(to, from net.Conn, limit int64, count *atomic.Int64) {
	defer to.Close()
	defer from.Close()
	b := make([]byte, 64<<10)
	for limit != 0 {
		p := b
		if limit > 0 {
			p = b[:min(int64(len(b)), limit)]
		}
		n, err := from.Read(p)
		if limit > 0 {
			limit -= int64(n)
		}
		count.Add(int64(n))
		if _, e := to.Write(p[:n]); err != nil || e != nil {
			return
		}
	}
}
