package apitest

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
)

// maxAnswer is how long an answer may be that is looked at as a whole.
const maxAnswer = 8 << 20

// A Tap passes connections on to a gateway, byte by byte, and checks what passes: so
// clients of any kind can be checked, and proxies before the gateway.
type Tap struct {
	listener net.Listener
	to       string // HOST:PORT of the gateway
	running  sync.WaitGroup

	mu     sync.Mutex
	closed bool              // guarded by mu
	open   map[net.Conn]bool // guarded by mu
	found  []error           // guarded by mu
	passed int               // guarded by mu
}

// NewTap listens on a port of loopback that is free, for a gateway at HOST:PORT that
// has no base path. Close must be called.
func NewTap(to string) (*Tap, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // listening on loopback does not wait
	if err != nil {
		return nil, err
	}
	t := &Tap{listener: l, to: to, open: map[net.Conn]bool{}}
	t.running.Go(t.serve)
	return t, nil
}

// Address is HOST:PORT where it listens.
func (t *Tap) Address() string { return t.listener.Addr().String() }

// Close ends all connections. It returns how many answers were checked, and what did
// not conform.
func (t *Tap) Close() (checked int, err error) {
	t.mu.Lock()
	t.closed = true
	for c := range t.open {
		_ = c.Close()
	}
	t.mu.Unlock()
	err = t.listener.Close()
	t.running.Wait()
	return t.passed, errors.Join(append(t.found, err)...)
}

func (t *Tap) serve() {
	for {
		client, err := t.listener.Accept()
		if err != nil {
			return
		}
		t.running.Go(func() { t.pass(client) })
	}
}

// keep notes a connection that Close has to end; it is false if it is too late.
func (t *Tap) keep(c net.Conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		_ = c.Close()
		return false
	}
	t.open[c] = true
	return true
}

func (t *Tap) leave(c net.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, c)
	_ = c.Close()
}

// pass passes one connection on until both ends are done with it. What breaks on one
// side breaks on the other.
func (t *Tap) pass(client net.Conn) {
	if !t.keep(client) {
		return
	}
	defer t.leave(client)
	gateway, err := net.Dial("tcp", t.to) //nolint:noctx // nor does connecting there
	if err != nil {
		_ = client.(*net.TCPConn).SetLinger(0)
		return
	}
	if !t.keep(gateway) {
		return
	}
	defer t.leave(gateway)
	requests, answers := newStream(), newStream()
	var both sync.WaitGroup
	both.Go(func() { passOn(gateway, client, requests) })
	both.Go(func() { t.follow(requests, answers) })
	passOn(client, gateway, answers)
	both.Wait()
}

// passOn copies what comes from one end to the other, and its end.
func passOn(to, from net.Conn, seen *stream) {
	_, err := io.Copy(to, io.TeeReader(from, seen))
	seen.end()
	if err != nil {
		_ = to.(*net.TCPConn).SetLinger(0)
		_ = to.Close()
		_ = from.Close()
		return
	}
	_ = to.(*net.TCPConn).CloseWrite()
}

// asked is a request that was sent.
type asked struct {
	*http.Request
	sent []byte
	done chan struct{} // closed once sent is complete
}

// follow checks the exchanges of a connection.
func (t *Tap) follow(requests, answers *stream) {
	defer answers.drop()
	all := make(chan *asked)
	over := make(chan struct{})
	defer close(over)
	t.running.Go(func() {
		defer requests.drop()
		defer close(all)
		readRequests(requests, all, over)
	})
	r := bufio.NewReader(answers)
	for a := range all {
		e, ok := exchange(a, r)
		if !ok {
			return
		}
		err := Check(e)
		t.mu.Lock()
		t.passed++
		if err != nil {
			t.found = append(t.found, err)
		}
		t.mu.Unlock()
	}
}

// readRequests reads one request after another, until what comes is none.
func readRequests(from io.Reader, all chan<- *asked, over <-chan struct{}) {
	for r := bufio.NewReader(from); ; {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		a := &asked{Request: req, done: make(chan struct{})}
		select {
		case all <- a:
		case <-over:
			return
		}
		a.sent, _ = io.ReadAll(io.LimitReader(req.Body, MaxSent))
		_, err = io.Copy(io.Discard, req.Body)
		close(a.done)
		if err != nil {
			return
		}
	}
}

// exchange reads the answer to a request. It is false for one that nobody gets, and for
// one that is not the gateway's but of net/http, which answers what it cannot read.
func exchange(a *asked, r *bufio.Reader) (Exchange, bool) {
	res, err := http.ReadResponse(r, a.Request)
	for err == nil && res.StatusCode < http.StatusOK {
		res, err = http.ReadResponse(r, a.Request)
	}
	if err != nil || res.Header.Get("X-Request-Id") == "" && res.Close {
		return Exchange{}, false
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if res.StatusCode == http.StatusBadRequest && a.ContentLength == 0 && bytes.Contains(body, []byte("/problems/incomplete")) {
		return Exchange{}, false // whoever asked was gone before the answer
	}
	whole := err == nil && len(body) < maxAnswer && a.Method != http.MethodHead
	_, _ = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
	if res.StatusCode < http.StatusBadRequest {
		<-a.done
	}
	return Exchange{Request: a.Request, Sent: a.sent, Status: res.StatusCode, Header: res.Header, Body: body, Whole: whole}, true
}

// A stream is what was seen of one direction and not read yet. Writing to it never
// waits: what is looked at must not slow what passes.
type stream struct {
	mu      sync.Mutex
	more    *sync.Cond
	b       bytes.Buffer // guarded by mu
	ended   bool         // guarded by mu
	dropped bool         // nobody reads any more; guarded by mu
}

func newStream() *stream {
	s := &stream{}
	s.more = sync.NewCond(&s.mu)
	return s
}

func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.dropped {
		s.b.Write(p)
		s.more.Broadcast()
	}
	return len(p), nil
}

func (s *stream) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.b.Len() == 0 && !s.ended {
		s.more.Wait()
	}
	if s.b.Len() == 0 {
		return 0, io.EOF
	}
	return s.b.Read(p)
}

func (s *stream) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.more.Broadcast()
}

func (s *stream) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropped = true
	s.b = bytes.Buffer{}
}
