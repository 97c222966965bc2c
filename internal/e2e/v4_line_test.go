package e2e_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// A line lies between clients and a server of version 4, sees nothing but TLS,
// and can do to the connections what networks do.
type line struct {
	address string // where clients find it
	ln      net.Listener
	up      atomic.Int64 // bytes that came from clients
	down    atomic.Int64 // bytes that came from the server
	count   atomic.Int64 // connections so far

	mu    sync.Mutex
	to    string                  // the server's address; guarded by mu
	links map[*link]struct{}      // guarded by mu
	held  *hold                   // guarded by mu; nil: nothing is held up
	lose  func(conn int64) int64  // guarded by mu; see loseAnswers
	tap   func(up bool, b []byte) // guarded by mu; sees all that passes
	lost  map[int64]int           // how many answers were lost, by how many records had come before; guarded by mu
	work  sync.WaitGroup
}

// A link is one connection of a client's, and the one to the server behind it.
type link struct{ client, server net.Conn }

// A hold is a point in what clients send at which the line holds it up.
type hold struct {
	at       int64 // of line.up
	reached  chan struct{}
	once     sync.Once
	released chan struct{}
}

// layLine lies before the server at an address, until the end of the test.
func layLine(t testing.TB, to string) *line {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &line{address: ln.Addr().String(), ln: ln, to: to, links: map[*link]struct{}{}, lost: map[int64]int{}}
	l.work.Go(func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			l.work.Go(func() { l.carry(client) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		l.release()
		l.cut()
		l.work.Wait()
	})
	return l
}

// leadTo has new connections go to another address.
func (l *line) leadTo(address string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.to = address
}

// loseAnswers breaks the nth connection off, counted from 0, when as many TLS
// records as lose returns have come from the server and the next one is due:
// that one never arrives. A negative number loses none, as does a nil lose.
func (l *line) loseAnswers(lose func(conn int64) int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lose = lose
}

// losses is how many answers were lost, and at how many points.
func (l *line) losses() (answers, points int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range l.lost {
		answers += n
	}
	return answers, len(l.lost)
}

// watch has tap see all that passes, which it may change, and must not keep.
func (l *line) watch(tap func(up bool, b []byte)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tap = tap
}

// holdAfter holds up what clients send, on all connections, once n bytes more
// have come from them.
func (l *line) holdAfter(n int64) *hold {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = &hold{at: l.up.Load() + n, reached: make(chan struct{}), released: make(chan struct{})}
	return l.held
}

// release lets what is held up go on.
func (l *line) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held != nil {
		close(l.held.released)
		l.held = nil
	}
}

// cut resets all connections on both sides.
func (l *line) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k := range l.links {
		k.reset()
	}
}

// loseAll cuts all connections, and what is held up never arrives.
func (l *line) loseAll() {
	l.cut()
	l.release()
}

func (k *link) reset() {
	for _, c := range []net.Conn{k.client, k.server} {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = c.Close()
	}
}

func (l *line) carry(client net.Conn) {
	n := l.count.Add(1) - 1
	l.mu.Lock()
	to, lose, tap := l.to, int64(-1), l.tap
	if l.lose != nil {
		lose = l.lose(n)
	}
	l.mu.Unlock()
	server, err := net.Dial("tcp", to)
	if err != nil {
		_ = client.Close()
		return
	}
	k := &link{client, server}
	l.mu.Lock()
	l.links[k] = struct{}{}
	l.mu.Unlock()
	var ways sync.WaitGroup
	ways.Go(func() { l.carryUp(k, tap) })
	ways.Go(func() { l.carryDown(k, lose, tap) })
	ways.Wait()
	l.mu.Lock()
	delete(l.links, k)
	l.mu.Unlock()
	k.reset()
}

// carryUp passes on what a client sends, and stops where it is held up.
func (l *line) carryUp(k *link, tap func(bool, []byte)) {
	buf := make([]byte, 64<<10)
	for {
		n, err := k.client.Read(buf)
		if n > 0 {
			if tap != nil {
				tap(true, buf[:n])
			}
			if !l.pass(k.server, buf[:n]) {
				k.reset()
				return
			}
		}
		if err != nil {
			passOn(k, k.server, err)
			return
		}
	}
}

// pass writes b, in two parts if it is to be held up within.
func (l *line) pass(to net.Conn, b []byte) bool {
	end := l.up.Add(int64(len(b)))
	l.mu.Lock()
	h := l.held
	l.mu.Unlock()
	if h != nil && end > h.at {
		first := max(0, int64(len(b))-(end-h.at))
		if _, err := to.Write(b[:first]); err != nil {
			return false
		}
		h.once.Do(func() { close(h.reached) })
		<-h.released
		b = b[first:]
	}
	_, err := to.Write(b)
	return err == nil
}

// recordHeader is that of a TLS record: its type, version and length.
const recordHeader = 5

// carryDown passes on what the server sends, record by record, up to the one
// that is to be lost.
func (l *line) carryDown(k *link, lose int64, tap func(bool, []byte)) {
	buf := make([]byte, recordHeader+1<<16)
	for n := int64(0); ; n++ {
		record, err := readRecord(k.server, buf)
		if err == nil && lose >= 0 && n >= lose {
			l.mu.Lock()
			l.lost[n]++
			l.mu.Unlock()
			k.reset()
			return
		}
		l.down.Add(int64(len(record)))
		if tap != nil {
			tap(false, record)
		}
		if len(record) > 0 {
			if _, err := k.client.Write(record); err != nil {
				k.reset()
				return
			}
		}
		if err != nil {
			passOn(k, k.client, err)
			return
		}
	}
}

func readRecord(src io.Reader, buf []byte) ([]byte, error) {
	n, err := io.ReadFull(src, buf[:recordHeader])
	if err != nil {
		return buf[:n], err
	}
	m, err := io.ReadFull(src, buf[recordHeader:recordHeader+int(binary.BigEndian.Uint16(buf[3:]))])
	return buf[:n+m], err
}

// passOn passes the end of one direction on, as an end or as a cut.
func passOn(k *link, to net.Conn, err error) {
	if tcp, ok := to.(*net.TCPConn); ok && errors.Is(err, io.EOF) {
		_ = tcp.CloseWrite()
		return
	}
	k.reset()
}

// A recorder notes what a client sends.
type recorder struct {
	inside bytes.Buffer // within TLS
	mu     sync.Mutex
	way    bytes.Buffer // on the network; guarded by mu
}

func (r *recorder) note(up bool, b []byte) {
	if up {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.way.Write(b)
	}
}

func (r *recorder) bytes() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Clone(r.way.Bytes())
}
