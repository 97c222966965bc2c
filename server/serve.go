package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"ferry/proto"
)

// Accepting goes on after an error that passes, such as too many open files,
// at first after the shorter of these and at last after the longer.
const (
	minBackoff = 5 * time.Millisecond
	maxBackoff = time.Second
)

// Serve takes connections from ln, which speak what accept does, until ctx
// ends; then it stops accepting, lets what runs finish within Config.Grace,
// and returns nil. Connections between two files are ended at once. What has come
// is stored and answered before it returns. It closes ln, and may run for several
// listeners at a time, which share the limits.
func (s *Server) Serve(ctx context.Context, ln net.Listener, accept proto.Accept, a Admission) error {
	resting, stop := context.WithCancelCause(ctx)
	working, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cut(errStopping)
	closed := context.AfterFunc(ctx, func() { _ = ln.Close() }) // its error is Accept's
	defer closed()

	h := &host{Server: s, accept: accept, admission: a, resting: resting, working: working}
	err := h.acceptAll(ln)
	_ = ln.Close()
	stop(errStopping)

	graceOver := time.AfterFunc(s.grace, func() { cut(errStopping) })
	defer graceOver.Stop()
	h.conns.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// host serves one listener.
type host struct {
	*Server
	accept    proto.Accept
	admission Admission
	resting   context.Context // ends when the server is to stop: for what waits for a client
	working   context.Context // ends when the time to finish is over: for a file on its way
	conns     sync.WaitGroup
}

// acceptAll returns when the listener is closed or fails for good.
func (h *host) acceptAll(ln net.Listener) error {
	backoff := minBackoff
	for {
		conn, err := ln.Accept()
		switch {
		case err == nil:
			backoff = minBackoff
			h.admit(conn)
		case h.resting.Err() != nil:
			return nil //nolint:nilerr // we closed it
		case passes(err):
			if unsaid, ok := h.broken.say(); ok {
				h.log.Warn("connections wait: none can be taken just now", "err", err, "more", unsaid)
			}
			pause(h.resting, backoff)
			backoff = min(2*backoff, maxBackoff)
		default:
			return fmt.Errorf("accept: %w", err)
		}
	}
}

// passes reports whether accepting may work again soon.
func passes(err error) bool {
	for _, e := range []error{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM,
		syscall.ECONNABORTED, syscall.ECONNRESET, syscall.EINTR,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// admit serves a connection in a goroutine of its own, if there is a place.
func (h *host) admit(conn net.Conn) {
	resting, rest := context.WithCancelCause(h.resting)
	working, work := context.WithCancelCause(h.working)
	end := func(cause error) {
		rest(cause)
		work(cause)
	}
	v, err := h.gate.enter(origin(conn), end)
	if err != nil {
		end(nil)
		h.crowd(conn, "", err)
		_ = conn.Close() // there is nothing to lose
		return
	}
	h.conns.Go(func() {
		defer end(nil)
		defer h.gate.leave(v)
		h.serve(visitor{v, conn, resting, working, end})
	})
}

// visitor is a connection that has a place.
type visitor struct {
	visit   *visit
	conn    net.Conn
	resting context.Context   // ends when the connection is not to wait for more
	working context.Context   // ends when it is not to go on
	end     func(cause error) // ends both
}

// crowd logs a connection that is over a limit.
func (h *host) crowd(conn net.Conn, client string, err error) {
	if unsaid, ok := h.crowded.say(); ok {
		h.log.Warn("connection over a limit", "client", client, "address", conn.RemoteAddr().String(), "err", err, "more", unsaid)
	}
}

// serve is one connection from its handshake to its end. It closes conn.
func (h *host) serve(v visitor) {
	conn, address := v.conn, v.conn.RemoteAddr().String()
	defer closeAfter(v.working, conn)()
	defer func() {
		if p := recover(); p != nil {
			h.log.Error("internal error", "address", address, "err", p, "stack", string(debug.Stack()))
		}
	}()
	session, err := h.accept(v.resting, conn, h.sessionConfig(v.visit, address))
	if err != nil {
		h.stranger(v.resting, conn, err)
		return
	}
	client := session.Client()
	if err := h.know(v, client); err != nil {
		h.crowd(conn, client.Name.String(), err)
		v.end(err)
		_, _ = session.Next(v.resting) // says why, if the version can
		_ = session.Close()
		return
	}
	c := newConnection(h, v, session)
	h.farewell(c, c.run())
}

// know lets a client in whose connection may stay.
func (h *host) know(v visitor, client proto.Registration) error {
	if err := h.gate.know(v.visit, client.ID); err != nil {
		return err
	}
	// One that was shut out, or lost its key, since the handshake is noticed here,
	// and one that is from now on by the watch, or by whoever replaces the key.
	switch now, err := h.catalog.byID(v.resting, client.ID); {
	case errors.Is(err, proto.ErrRevoked):
		return errRevoked
	case err == nil && !bytes.Equal(now.PublicKey, client.PublicKey):
		return errReplaced
	}
	return nil
}

// closeAfter closes a connection when the returned function is called, or a while
// after ctx has ended: a session has that long to say why.
func closeAfter(ctx context.Context, conn net.Conn) (now func()) {
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		timer := time.NewTimer(lastTime)
		defer timer.Stop()
		select {
		case <-timer.C:
			_ = conn.Close()
		case <-ended:
		}
	})
	return func() {
		stop()
		close(ended)
		_ = conn.Close()
	}
}

func (h *host) sessionConfig(v *visit, address string) proto.SessionConfig {
	return proto.SessionConfig{
		Directory:        directory{h.Server, address, h.admission.Open, v},
		HandshakeTimeout: h.limits.Handshake,
		IdleTimeout:      h.limits.Idle,
		MinRate:          h.limits.Rate,
		MaxFileSize:      h.limits.FileSize,
		Refused: func(client, file string, why error) {
			if unsaid, ok := h.refused.say(); ok {
				h.log.Warn("request refused", "client", client, "address", address, "file", file, "err", why, "more", unsaid)
			}
		},
	}
}

// stranger ends a connection whose client did not become known.
func (h *host) stranger(resting context.Context, conn net.Conn, err error) {
	switch cause := context.Cause(resting); {
	case errors.Is(cause, errDisplaced):
		h.crowd(conn, "", cause)
		return
	case cause != nil:
		return // the server is stopping
	case errors.Is(err, io.EOF): // somebody looked whether the port is open
		h.log.Debug("connection said nothing", "address", conn.RemoteAddr().String())
		return
	}
	if unsaid, ok := h.strangers.say(); ok {
		h.log.Warn("no client became known", "address", conn.RemoteAddr().String(), "err", err, "more", unsaid)
	}
	hangUp(h.resting, conn)
}

// farewell ends a client's connection.
func (h *host) farewell(c *connection, err error) {
	level, message := slog.LevelWarn, "connection cut"
	fault := c.failed()
	switch cause := context.Cause(c.resting); {
	case fault != nil:
		err = fault
		hangUp(h.resting, c.conn)
	case errors.Is(err, io.EOF):
		level, message = slog.LevelDebug, "client left"
	case errors.Is(cause, proto.ErrRevoked), errors.Is(cause, proto.ErrUnauthorized):
		message, err = "connection ended", cause
	case cause != nil:
		level, message = slog.LevelDebug, "connection ended"
	default:
		hangUp(h.resting, c.conn)
	}
	if _, said := errors.AsType[logged](err); said {
		return
	}
	h.log.Log(h.working, level, message, "client", c.client.Name.String(), "address", c.address, "err", err)
}

// What a client may still send when it has been told that this was all, so that
// it reads that: bytes that nobody took would make the kernel drop the answer.
const (
	lastBytes = 1 << 20
	lastTime  = time.Second
)

// hangUp closes our half of the connection and drops what is on its way.
func hangUp(ctx context.Context, conn net.Conn) {
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil || conn.SetReadDeadline(time.Now().Add(lastTime)) != nil {
		return
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	_, _ = io.CopyN(io.Discard, conn, lastBytes)
}
