package gateway

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"ferry/proto"
)

// waiters waits until so many requests wait.
func (c *core) waiters(n int) {
	c.t.Helper()
	for limit := time.After(patience); ; {
		c.live.changes.mu.Lock()
		got := c.live.changes.waiting
		c.live.changes.mu.Unlock()
		if got == n {
			return
		}
		select {
		case <-limit:
			c.t.Fatalf("%d requests wait, want %d", got, n)
		case <-time.After(time.Millisecond):
		}
	}
}

// asked is the answer of a request that is sent beside the test.
func asked(t *testing.T, s *testAPI, method, path string, header ...string) <-chan answer {
	answers := make(chan answer, 1)
	go func() {
		var body *strings.Reader
		if method == http.MethodPost {
			body = strings.NewReader("hello")
			answers <- s.ask(t, method, path, body, header...)
			return
		}
		answers <- s.ask(t, method, path, nil, header...)
	}()
	return answers
}

// TestLongPoll follows an upload from one state to the next, with nobody
// polling in between.
func TestLongPoll(t *testing.T) {
	r := newRemote()
	c := openCore(t, t.TempDir(), r)
	s := newTestAPI(t, c.httpAPI())
	g := newGate()
	r.expect("a", g.then((*sending).deliver))
	u := c.take("a", "hello")
	path := u.address() + "?wait=60"

	first := s.ask(t, "GET", u.address(), nil)
	if u = first.upload(t, http.StatusOK); u.State != StateQueued {
		t.Fatalf("state %s, want queued", u.State)
	}
	second := asked(t, s, "GET", path, "If-None-Match", first.Header.Get("ETag"))
	c.waiters(1)
	c.deliverAll()
	a := soon(t, second)
	if u = a.upload(t, http.StatusOK); u.State != StateDelivering {
		t.Fatalf("state %s, want delivering", u.State)
	}
	third := asked(t, s, "GET", path, "If-None-Match", a.Header.Get("ETag"))
	soon(t, g.reached) // with progress, that ends no wait
	c.waiters(1)
	close(g.open)
	a = soon(t, third)
	if u = a.upload(t, http.StatusOK); u.State != StateDelivered {
		t.Fatalf("state %s, want delivered", u.State)
	}
	// It is final: at once.
	if u = s.ask(t, "GET", path, nil).upload(t, http.StatusOK); u.State != StateDelivered {
		t.Errorf("state %s, want delivered", u.State)
	}
	// What is known is not answered again, and going is a change.
	if again := s.ask(t, "GET", u.address(), nil, "If-None-Match", a.Header.Get("ETag")); again.StatusCode != http.StatusNotModified {
		t.Errorf("answer %d, want 304", again.StatusCode)
	}
	last := asked(t, s, "GET", path, "If-None-Match", a.Header.Get("ETag"))
	c.waiters(1)
	if a := s.ask(t, "DELETE", u.address(), nil); a.StatusCode != http.StatusNoContent {
		t.Fatalf("DELETE: %d", a.StatusCode)
	}
	soon(t, last).problem(t, kindNotFound)
	c.waiters(0)
	if n := len(c.live.changes.watched); n != 0 {
		t.Errorf("%d uploads are still watched", n)
	}
}

// TestLongPollEndsInTime wants 304 when nothing changed, and the progress if
// that is all that did.
func TestLongPollEndsInTime(t *testing.T) {
	r := newRemote()
	c := openCore(t, t.TempDir(), r)
	s := newTestAPI(t, c.httpAPI())
	u := c.take("a", "hello")
	tag := s.ask(t, "HEAD", u.address(), nil).Header.Get("ETag")
	pending := asked(t, s, "GET", u.address()+"?wait=60", "If-None-Match", `"other", `+tag)
	c.waiters(1)
	c.time.advance(maxWait)
	if a := soon(t, pending); a.StatusCode != http.StatusNotModified || a.Header.Get("ETag") != tag {
		t.Errorf("answer %d %s, want 304 and %s", a.StatusCode, a.Header.Get("ETag"), tag)
	}
	if a := s.ask(t, "GET", u.address()+"?wait=60", nil, "If-None-Match", `"other"`); a.StatusCode != http.StatusOK {
		t.Errorf("another ETag: %d, want 200 at once", a.StatusCode)
	}
	for _, wait := range []string{"-1", "61", "1.5", "", "x", "1&wait=2"} {
		s.ask(t, "GET", u.address()+"?wait="+wait, nil).problem(t, kindParameter)
	}
	c.live.changes.mu.Lock()
	c.live.changes.waiting += maxWaiting
	c.live.changes.mu.Unlock()
	a := s.ask(t, "GET", u.address()+"?wait=1", nil)
	a.problem(t, kindBusy)
	if a.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	c.live.changes.mu.Lock()
	c.live.changes.waiting -= maxWaiting
	c.live.changes.mu.Unlock()
}

// TestWaitsEndWhenTheGatewayStops lets no request that waits use up the time
// that those have whose bytes come in.
func TestWaitsEndWhenTheGatewayStops(t *testing.T) {
	r := newRemote()
	g := newGate()
	r.expect("a", g.then((*sending).deliver))
	c := openCore(t, t.TempDir(), r)
	s := newTestAPI(t, c.httpAPI())
	u := c.take("a", "hello")
	stop := c.deliverAll()
	soon(t, g.reached)
	pending := asked(t, s, "GET", u.address()+"?wait=60")
	c.waiters(1)
	var stopped sync.WaitGroup
	stopped.Go(stop)
	if u := soon(t, pending).upload(t, http.StatusOK); u.State != StateDelivering {
		t.Errorf("state %s, want delivering", u.State)
	}
	close(g.open)
	stopped.Wait()
}

func TestPrefer(t *testing.T) {
	r := newRemote()
	r.expect("failed", fails(proto.ErrTooLarge))
	hold := newGate()
	r.expect("cancelled", hold.then((*sending).deliver))
	r.expect("late", fails(errBroken), fails(errBroken), fails(errBroken))
	c := openCore(t, t.TempDir(), r)
	s := newTestAPI(t, c.httpAPI())
	c.deliverAll()
	post := func(name string) <-chan answer {
		return asked(t, s, "POST", "/uploads?name="+name, "Prefer", "respond-async, wait=600; x=y")
	}
	applied := func(a answer, want string) {
		t.Helper()
		if got := a.Header.Get("Preference-Applied"); got != want {
			t.Errorf("Preference-Applied is %q, want %q", got, want)
		}
	}

	a := soon(t, post("delivered"))
	applied(a, "wait=60")
	if u := a.upload(t, http.StatusCreated); u.State != StateDelivered || a.Header.Get("Location") != u.address() {
		t.Errorf("%s at %s, want delivered", u.State, a.Header.Get("Location"))
	}

	p := soon(t, post("failed")).problem(t, kindUndelivered)
	if u := s.ask(t, "GET", p.Upload, nil).upload(t, http.StatusOK); u.State != StateFailed {
		t.Errorf("%s is %s, want failed", p.Upload, u.State)
	}

	pending := post("cancelled")
	c.waiters(1)
	u := s.ask(t, "GET", "/uploads", nil).uploads(t, http.StatusOK)[0]
	hold.await(t)
	s.ask(t, "DELETE", u.address(), nil).upload(t, http.StatusOK)
	if p := soon(t, pending).problem(t, kindCancelled); p.Upload != u.address() {
		t.Errorf("upload is %q, want %q", p.Upload, u.address())
	}

	pending = post("late")
	c.waiters(1)
	c.time.advance(maxWait)
	a = soon(t, pending)
	applied(a, "wait=60")
	if a.upload(t, http.StatusAccepted); a.Header.Get("Retry-After") == "" {
		t.Error("202 without Retry-After")
	}
	a = s.ask(t, "POST", "/uploads?name=x", strings.NewReader(""), "Prefer", "wait=soon")
	applied(a, "")
	if a.upload(t, http.StatusAccepted); a.Header.Get("Retry-After") == "" {
		t.Error("202 without Retry-After")
	}
}

func TestPreferredWait(t *testing.T) {
	for field, want := range map[string]int{
		"wait=5": 5, `wait="5"`: 5, "Wait = 5 ; x=y": 5, "respond-async, wait=600": 60, "wait=99999999999999999999": 60, "wait=5, wait=6": 5,
		`foo="a,wait=1", wait=5`: 5, `foo="a\",wait=1", wait=5`: 5, `foo; x="a;b,wait=1", wait=5`: 5,
		"": -1, "wait": -1, "wait=soon": -1, "wait=-1": -1, `foo="a,wait=1"`: -1, `foo="wait=1`: -1, `wait="5;6"`: -1,
	} {
		r := &http.Request{Header: http.Header{"Prefer": {field}}}
		got, ok := preferredWait(r)
		if !ok {
			got = -1
		}
		if got != want {
			t.Errorf("%s: %d, want %d", field, got, want)
		}
	}
}

// TestPreferWithAForm wants all files of a form delivered, and curl to see it.
func TestPreferWithAForm(t *testing.T) {
	c := openCore(t, t.TempDir(), newRemote())
	s := newTestAPI(t, c.httpAPI())
	c.deliverAll()
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte(content(1, large)), 0o600); err != nil {
		t.Fatal(err)
	}
	answer, trace := curl(t, "-F", "file=@"+file+";filename=a", "-F", "file=@"+file+";filename=b", "-H", "Prefer: wait=30", s.url+"/uploads")
	if strings.Count(answer, `"state":"delivered"`) != 2 || !strings.Contains(trace, "HTTP/1.1 201 Created") {
		t.Errorf("answer:\n%s\n%s", answer, trace)
	}
}

// TestWaitFromTheFirstByte follows a file whose bytes still come in.
func TestWaitFromTheFirstByte(t *testing.T) {
	c := openCore(t, t.TempDir(), newRemote())
	s := newTestAPI(t, c.httpAPI())
	conn := s.raw(t, "POST /uploads?name=a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhe")
	var id ulid.ULID
	for limit := time.Now().Add(patience); id.IsZero(); {
		if page := s.ask(t, "GET", "/uploads", nil).uploads(t, http.StatusOK); len(page) == 1 {
			id = page[0].ID
		} else if time.Now().After(limit) {
			t.Fatal("the upload does not appear")
		}
	}
	pending := asked(t, s, "GET", "/uploads/"+id.String()+"?wait=60")
	c.waiters(1)
	if _, err := conn.Write([]byte("llo")); err != nil {
		t.Fatal(err)
	}
	if u := soon(t, pending).upload(t, http.StatusOK); u.State != StateQueued {
		t.Errorf("state %s, want queued", u.State)
	}
	read(t, conn).upload(t, http.StatusAccepted)
}

// TestMovedReadsOnce has what a wait for progress ends with be from the look at its
// beginning, but for the progress.
func TestMovedReadsOnce(t *testing.T) {
	r := newRemote()
	at := newGate()
	r.expect("a", at.then((*sending).deliver))
	c := openCore(t, t.TempDir(), r)
	id := c.take("a", "hello").ID
	c.deliverAll()
	at.await(t)
	const most = lease / 2 // another worker must not take the delivery over
	looked, got := make(chan struct{}), make(chan Upload, 1)
	begun := c.time.clock().now()
	go func() {
		u, err := c.moved(t.Context(), id, most, func(Upload) bool { close(looked); return false })
		if err != nil {
			t.Error(err)
		}
		got <- u
	}()
	soon(t, looked)
	c.exec("update uploads set name = 'other' where id = $1", id)
	c.live.delivery(id).progressed(proto.Progress{Phase: proto.PhaseSending, Bytes: 4, TotalBytes: 5, TotalPackets: 1})
	c.time.await(t, begun.Add(most))
	c.time.advance(most)
	if u := soon(t, got); u.Name != "a" || u.Progress.Bytes != 4 || u.State != StateDelivering {
		t.Errorf("%+v; want it as it was at the beginning, and its progress", u)
	}
	close(at.open)
}
