package gateway

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// testPatience is far more than anything here takes.
const testPatience = 30 * time.Second

// read reads an answer off a connection.
func read(t testing.TB, r io.Reader) answer {
	t.Helper()
	buffered, ok := r.(*bufio.Reader)
	if !ok {
		buffered = bufio.NewReader(r)
	}
	res, err := http.ReadResponse(buffered, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{res, body}
}

// wantClosed wants the other side to close.
func wantClosed(t testing.TB, conn net.Conn) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(stall / 2)); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(conn); len(rest) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the answer came %q, %v; want the end", rest, err)
	}
}

// TestTooLargeBeforeBody wants the answer before a byte of the body is sent.
func TestTooLargeBeforeBody(t *testing.T) {
	forBoth(t, func(t *testing.T, s *testAPI) {
		for _, expect := range []string{"", "Expect: 100-continue\r\n"} {
			limit := s.limit(t)
			size := limit + 1
			conn := s.raw(t, fmt.Sprintf("POST /uploads?name=x HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n%s\r\n", size, expect))
			a := read(t, conn)
			if p := a.problem(t, kindTooLarge); p.Size != size || p.Limit != limit || !strings.Contains(p.Detail, grouped(size)) || !strings.Contains(p.Detail, grouped(limit)) {
				t.Errorf("problem %+v", p)
			}
			wantClosed(t, conn)
		}
		// At the limit it would be taken: then 100 Continue is sent.
		conn := s.raw(t, fmt.Sprintf("POST /uploads?name=x HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", s.limit(t)))
		if line, err := bufio.NewReader(conn).ReadString('\n'); line != "HTTP/1.1 100 Continue\r\n" {
			t.Errorf("got %q, %v; want 100 Continue", line, err)
		}
	})
}

// TestRefusalsComeBeforeBody wants the answer, and no 100 Continue before it,
// where the header says enough.
func TestRefusalsComeBeforeBody(t *testing.T) {
	s := newFakeAPI(t, func(a *httpAPI, _ *fakeCore) { a.leave = time.Hour })
	for _, c := range []struct {
		target, header string
		kind           problemKind
	}{
		{"/uploads", "Host: localhost\r\n", kindName},
		{"/uploads?name=..", "Host: localhost\r\n", kindName},
		{"/uploads?name=x", "Host: example.org\r\n", kindHost},
		{"/uploads?name=x", "Host: localhost\r\nOrigin: http://example.org\r\n", kindOrigin},
		{"/uploads?name=x", "Host: localhost\r\nContent-Encoding: br\r\n", kindEncoding},
		{"/x", "Host: localhost\r\n", kindNotFound},
		{"/healthz", "Host: localhost\r\n", kindMethod},
	} {
		for _, expect := range []string{"", "Expect: 100-continue\r\n"} {
			conn := s.raw(t, "POST "+c.target+" HTTP/1.1\r\n"+c.header+"Content-Length: 1000\r\n"+expect+"\r\n")
			if err := conn.SetReadDeadline(time.Now().Add(stall / 2)); err != nil {
				t.Fatal(err)
			}
			a := read(t, conn)
			a.problem(t, c.kind)
			if !a.Close {
				t.Errorf("%s: the connection stays open", c.target)
			}
			if expect == "" { // this sender goes on, and then gets to see the end
				if _, err := io.WriteString(conn, strings.Repeat("x", 1000)); err != nil {
					t.Fatal(err)
				}
			}
			wantClosed(t, conn)
		}
	}
}

func TestLengthRequired(t *testing.T) {
	s := newFakeAPI(t)
	for _, version := range []string{"1.0", "1.1"} {
		conn := s.raw(t, "POST /uploads?name=x HTTP/"+version+"\r\nHost: localhost\r\n\r\n")
		read(t, conn).problem(t, kindLength)
	}
	conn := s.raw(t, "POST /uploads?name=empty HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
	if u := read(t, conn).upload(t, http.StatusAccepted); *u.Size != 0 {
		t.Errorf("%d bytes, want 0", *u.Size)
	}
}

// TestCurlIsToldFirst has curl meet 413: with Expect it sends nothing of the
// body, and without it understands the answer all the same.
func TestCurlIsToldFirst(t *testing.T) {
	s := newFakeAPI(t)
	path := filepath.Join(t.TempDir(), "large")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(64 << 20); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for _, header := range []string{"Expect: 100-continue", "Expect:"} {
		out, trace := curl(t, "-H", header, "--data-binary", "@"+path, s.url+"/uploads?name=large")
		if !strings.Contains(out, "/problems/too-large") || !strings.Contains(trace, "< HTTP/1.1 413") || strings.Contains(trace, "100 Continue") {
			t.Errorf("%s: %s\n%s", header, out, trace)
		}
	}
	out, trace := curl(t, "-H", "Expect: 100-continue", "--data-binary", "@handlers.go", s.url+"/uploads?name=small")
	if !strings.Contains(out, `"name":"small"`) || !strings.Contains(trace, "100 Continue") {
		t.Errorf("%s\n%s", out, trace)
	}
}

// TestTruncatedBody keeps nothing of what did not come whole.
func TestTruncatedBody(t *testing.T) {
	s := newFakeAPI(t)
	form := browser(file("a", "hello"), file("b", "world"))
	for name, request := range map[string]string{
		"raw":        "POST /uploads?name=x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n12345",
		"chunks":     "POST /uploads?name=x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
		"form":       "POST /uploads HTTP/1.1\r\nHost: localhost\r\nContent-Type: " + formType + "\r\nContent-Length: 1000\r\n\r\n" + form[:len(form)/2],
		"whole form": "POST /uploads HTTP/1.1\r\nHost: localhost\r\nContent-Type: " + formType + "\r\nContent-Length: 1000\r\n\r\n" + form,
	} {
		t.Run(name, func(t *testing.T) {
			conn := s.raw(t, request)
			if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			read(t, conn).problem(t, kindIncomplete)
			wantClosed(t, conn)
		})
	}
	conn := s.raw(t, "POST /uploads?name=x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n12345\r\n")
	read(t, conn).problem(t, kindIncomplete)
	if got := s.names(); len(got) > 0 {
		t.Errorf("kept %q, want nothing", got)
	}
}

// impatient is for bodies that will not come.
func impatient(a *httpAPI, _ *fakeCore) { a.stall, a.rate = 50*time.Millisecond, 1<<20 }

// brief has deadlines that pass in a test, and not before what is on its way
// has come.
func brief(a *httpAPI, _ *fakeCore) { a.stall = time.Second }

// TestSilentBody ends a request whose body stops coming.
func TestSilentBody(t *testing.T) {
	s := newFakeAPI(t, impatient)
	for _, request := range []string{
		"POST /uploads?name=x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n12345",
		"POST /uploads?name=x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
		"POST /uploads HTTP/1.1\r\nHost: localhost\r\nContent-Type: " + formType + "\r\nContent-Length: 1000\r\n\r\n--X\r\nContent-Dis",
		"POST /uploads HTTP/1.1\r\nHost: localhost\r\nContent-Type: " + formType + "\r\nContent-Length: 1000\r\n\r\n" + browser(file("a", "hello")),
	} {
		conn := s.raw(t, request)
		read(t, conn).problem(t, kindSlow)
		wantClosed(t, conn)
	}
	if got := s.names(); len(got) > 0 {
		t.Errorf("kept %q, want nothing", got)
	}
}

// TestSilentBodyOfUpload is the same before the real core, whose context net/http
// ends when a body cannot be read.
func TestSilentBodyOfUpload(t *testing.T) {
	s := newRealAPI(t)
	impatient(s.api, nil)
	conn := s.raw(t, "POST /uploads?name=x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n12345")
	read(t, conn).problem(t, kindSlow)
	wantClosed(t, conn)
}

// TestTrickle ends a request that sends a byte often enough never to be silent.
func TestTrickle(t *testing.T) {
	s := newFakeAPI(t, impatient)
	conn := s.raw(t, "POST /uploads?name=x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n")
	done := make(chan struct{})
	defer func() { <-done }()
	go func() {
		defer close(done)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for range tick.C {
			if _, err := io.WriteString(conn, "x"); err != nil {
				return
			}
		}
	}()
	read(t, conn).problem(t, kindSlow)
	_ = conn.Close()
}

// TestUnwantedBody bounds what the server reads of a body that nobody wants.
func TestUnwantedBody(t *testing.T) {
	s := newFakeAPI(t, impatient)
	conn := s.raw(t, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n12345")
	if a := read(t, conn); a.StatusCode != http.StatusOK {
		t.Errorf("answer %d, want 200", a.StatusCode)
	}
	wantClosed(t, conn)
}

// TestDeadlinesEnd shows that one request's deadlines do not reach into the
// next on its connection.
func TestDeadlinesEnd(t *testing.T) {
	s := newFakeAPI(t, brief)
	conn := s.raw(t, "")
	r := bufio.NewReader(conn)
	for i := range 2 {
		if i > 0 {
			time.Sleep(s.api.stall + s.api.stall/4) // the real clock is what the sockets go by
		}
		if _, err := fmt.Fprintf(conn, "POST /uploads?name=%d HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n", i); err != nil {
			t.Fatal(err)
		}
		if a := read(t, r); a.StatusCode != http.StatusContinue {
			t.Fatalf("answer %d, want 100", a.StatusCode)
		}
		if _, err := io.WriteString(conn, "x"); err != nil {
			t.Fatal(err)
		}
		read(t, r).upload(t, http.StatusAccepted)
	}
}

// TestSlowCommit shows that a body's deadline ends with the body: what follows
// may take longer.
func TestSlowCommit(t *testing.T) {
	s := newFakeAPI(t, brief)
	slow := &slowCommit{wait: s.api.stall + s.api.stall/4}
	receive := s.api.receive
	s.api.receive = func(ctx context.Context) receiver {
		slow.receiver, slow.ctx = receive(ctx), ctx
		return slow
	}
	s.ask(t, "POST", "/uploads?name=x", strings.NewReader("hello")).upload(t, http.StatusAccepted)
	s.form(t, browser(file("a", "hello"))).uploads(t, http.StatusAccepted)
}

// slowCommit takes its time, and sees whether the request lives.
type slowCommit struct {
	receiver
	ctx  context.Context
	wait time.Duration
}

func (s *slowCommit) commit() ([]Upload, error) {
	select {
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	case <-time.After(s.wait):
		return s.receiver.commit()
	}
}

// TestCancelSilentUpload deletes an upload whose sender is silent: the answer
// comes at once, not when the patience with the sender ends.
func TestCancelSilentUpload(t *testing.T) {
	s := newRealAPI(t)
	for _, request := range []string{
		"POST /uploads?name=x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n12345",
		"POST /uploads HTTP/1.1\r\nHost: localhost\r\nContent-Type: " + formType + "\r\nContent-Length: 1000\r\n\r\n--X\r\nContent-Disposition: form-data; filename=x\r\n\r\n12345",
	} {
		conn := s.raw(t, request)
		var coming []Upload
		for len(coming) == 0 {
			coming = s.ask(t, "GET", "/uploads", nil).uploads(t, http.StatusOK)
		}
		if coming[0].State != StateReceiving || coming[0].Name != "x" {
			t.Errorf("it shows as %+v, want receiving", coming[0])
		}
		if a := s.ask(t, "DELETE", "/uploads/"+coming[0].ID.String(), nil); a.StatusCode >= http.StatusBadRequest {
			t.Errorf("DELETE: %d %s", a.StatusCode, a.body)
		}
		if err := conn.SetReadDeadline(time.Now().Add(stall / 2)); err != nil {
			t.Fatal(err)
		}
		read(t, conn).problem(t, kindCancelled)
		wantClosed(t, conn)
		if got := s.ask(t, "GET", "/uploads", nil).uploads(t, http.StatusOK); len(got) > 0 {
			t.Errorf("afterwards there is %+v, want nothing", got)
		}
	}
}
