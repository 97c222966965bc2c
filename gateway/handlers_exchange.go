package gateway

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"sync"
	"time"
)

const (
	// writeTimeout bounds each write of an answer, but for the second that sameTime is.
	writeTimeout = 30 * time.Second
	// sameTime is how much earlier a write's deadline may be than it should: setting one
	// for each costs more than the write of a small answer.
	sameTime = time.Second
	// leaveTimeout is for the sender of a body that was refused to notice.
	leaveTimeout = time.Second
)

// An exchange is one request and its answer. It keeps a deadline on every read
// of the request's body and every write of the answer.
type exchange struct {
	http.ResponseWriter
	control *http.ResponseController
	front   *Front
	id      string
	token   string // the name of the token that was shown
	body    body
	until   time.Time // the deadline of writes
	again   bool      // what was sent is there already
	status  int       // 0 until the answer has begun
	err     error     // why it is not the answer that was asked for
}

// begin makes the exchange of a request, whose body is read by way of it from then on.
func (a *httpAPI) begin(w http.ResponseWriter, r *http.Request) *exchange {
	x := &exchange{ResponseWriter: w, control: http.NewResponseController(w), front: &a.front, id: rand.Text()}
	x.body = body{src: r.Body, control: x.control, stall: a.stall, left: a.stall, rate: a.rate, ended: r.ContentLength == 0}
	if !x.body.ended {
		// For what the server itself reads of a body that no handler wants.
		_ = x.body.setDeadline(time.Now().Add(a.stall))
	}
	// For "100 Continue", which net/http writes by itself.
	x.extend()
	r.Body = &x.body
	return x
}

// extend gives the next write its time.
func (x *exchange) extend() {
	until := time.Now().Add(writeTimeout)
	if until.Sub(x.until) < sameTime {
		return
	}
	// It fails on a connection that is gone, and so does the write then.
	if x.control.SetWriteDeadline(until) == nil {
		x.until = until
	}
}

// Unwrap is for http.ResponseController.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// WriteHeader begins the answer.
func (x *exchange) WriteHeader(status int) {
	if x.status == 0 {
		x.status = status
		x.front.relocate(x.Header())
	}
	x.extend()
	x.ResponseWriter.WriteHeader(status)
}

func (x *exchange) Write(p []byte) (int, error) {
	if x.status == 0 {
		x.status = http.StatusOK
		x.front.relocate(x.Header())
	}
	x.extend()
	return x.ResponseWriter.Write(p) //nolint:gosec // no page: its type is stated, and may not be guessed (secure)
}

// around is what every request passes through.
func (a *httpAPI) around(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		started := time.Now()
		r = a.front.arrive(r)
		x := a.begin(w, r)
		h := x.Header()
		h["X-Request-Id"] = []string{x.id}
		secure(h, r.Method)
		defer a.finish(x, r, started)
		if f := refuse(r, a.door.isClosed() || bySocket(r)); f != nil {
			a.fail(x, r, f)
			return
		}
		if to := a.elsewhere(r); to != "" {
			x.Header().Set("Location", to)
			x.WriteHeader(http.StatusPermanentRedirect)
			return
		}
		r, leave, err := a.admit(x, r)
		defer leave()
		if early := a.pace.keep(r, x.token); early != nil {
			err = early
		}
		if err != nil {
			a.fail(x, r, err)
			return
		}
		next.ServeHTTP(x, r)
	})
}

// finish answers for a handler that panicked, and logs the exchange.
func (a *httpAPI) finish(x *exchange, r *http.Request, started time.Time) {
	v := recover()
	err, _ := v.(error)
	broken := errors.Is(err, http.ErrAbortHandler)
	if v != nil && !broken {
		a.log.Error("handler panicked", "request", x.id, "err", fmt.Sprint(v), "stack", string(debug.Stack()))
		if broken = x.status != 0; !broken {
			a.fail(x, r, fmt.Errorf("panic: %v", v))
		}
	}
	attrs := []slog.Attr{
		slog.String("request", x.id), slog.String("method", r.Method), slog.String("path", r.URL.Path),
		slog.String("client", r.RemoteAddr), slog.Int("status", x.status), slog.Duration("took", time.Since(started)),
	}
	if x.token != "" {
		attrs = append(attrs, slog.String("token", x.token))
	}
	if x.err != nil {
		attrs = append(attrs, slog.Any("err", x.err))
	}
	a.log.LogAttrs(context.WithoutCancel(r.Context()), level(r, x), "answered", attrs...)
	if broken { // half an answer must not look like a whole one
		panic(http.ErrAbortHandler)
	}
}

// level keeps what is asked all the time out of the usual log.
func level(r *http.Request, x *exchange) slog.Level {
	switch {
	case x.status == http.StatusInternalServerError:
		return slog.LevelError
	case x.status > http.StatusInternalServerError:
		return slog.LevelWarn
	case x.err == nil && isSafe(r.Method):
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// bodyError says that the request's body could not be read.
type bodyError struct{ err error }

func (e *bodyError) Error() string { return "read request: " + e.err.Error() }

func (e *bodyError) Unwrap() error { return e.err }

// body is a request's body with a rolling deadline. Its sender has stall in
// hand to be silent; what is used up is earned again by bytes, at rate. So
// neither silence nor a trickle holds a connection for longer than the bytes
// that came are worth.
type body struct {
	src     io.ReadCloser
	control *http.ResponseController
	stall   time.Duration
	rate    int64 // bytes a second

	also io.Writer // gets what is read, if not nil; never fails

	left  time.Duration
	until time.Time // the deadline of reads
	err   error
	begun bool // something was asked of its sender
	ended bool // nothing is left to read

	mu          sync.Mutex
	waits       bool // in a Read; guarded by mu
	interrupted bool // guarded by mu
}

func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	b.begun = true
	started := time.Now()
	// One that is too early by a hundredth stays: most bodies are small, and come at once.
	if until := started.Add(b.left); until.Sub(b.until) > min(b.stall, b.left)/100 { // it is never earlier than the one before
		if err := b.setDeadline(until); err != nil {
			return 0, fmt.Errorf("set read deadline: %w", err)
		}
	}
	b.wait(true)
	n, err := b.src.Read(p)
	b.wait(false)
	if b.also != nil {
		_, _ = b.also.Write(p[:n])
	}
	earned := time.Duration(n) * time.Second / time.Duration(b.rate)
	b.left = min(b.stall, b.left-time.Since(started)+earned)
	switch {
	case errors.Is(err, io.EOF):
		b.err, b.ended = io.EOF, true // net/http ends the deadline
	case err != nil:
		b.err = &bodyError{err}
	}
	return n, b.err
}

// setDeadline sets that of the next Read.
func (b *body) setDeadline(until time.Time) error {
	err := b.control.SetReadDeadline(until)
	if b.until = until; err != nil {
		b.until = time.Time{}
	}
	return err
}

// Close leaves closing to the server.
func (b *body) Close() error { return nil }

// leave bounds how long the server goes on reading a body that was refused, so
// that its sender gets to see the answer before the connection ends: not at all
// if the sender waits to be asked for it.
func (b *body) leave(wait time.Duration, expected bool) {
	if expected && !b.begun {
		wait = 0
	}
	_ = b.control.SetReadDeadline(time.Now().Add(wait))
}

// Interrupt ends a Read that waits and every later one. It may be called from
// any goroutine.
func (b *body) Interrupt() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.interrupted = true
	b.cut()
}

// wait notes whether a Read waits.
func (b *body) wait(waits bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waits = waits
	b.cut()
}

// cut ends a Read that waits if it is to end. At other times it is the server that
// reads from the connection, and an end of that would be the end of all requests
// that come over it. mu is held.
func (b *body) cut() {
	if b.waits && b.interrupted {
		_ = b.control.SetReadDeadline(time.Unix(1, 0))
	}
}

// wasInterrupted reports whether Interrupt was called.
func (b *body) wasInterrupted() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.interrupted
}
