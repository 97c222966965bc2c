package server_test

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"ferry/server"
)

// is reports whether a channel is closed.
func is(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// inBubble runs fn with a server under a clock that jumps.
func inBubble(t *testing.T, limits server.Limits, fn func(t *testing.T, h *harness)) {
	t.Helper()
	data := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		h := start(t, data, limits)
		fn(t, h)
		h.stop()
	})
}

// crowd connects n peers and returns them once the server has dealt with all.
func (h *harness) crowd(n int, name func(i int) string, address func(i int) string) (all []*peer) {
	h.t.Helper()
	for i := range n {
		all = append(all, h.connect(name(i), address(i)))
	}
	synctest.Wait()
	return all
}

func count(peers []*peer) (open int) {
	for _, p := range peers {
		if !is(p.gone) {
			open++
		}
	}
	return open
}

func always(s string) func(int) string { return func(int) string { return s } }

func numbered(format string) func(int) string {
	return func(i int) string { return fmt.Sprintf(format, i) }
}

func TestConnectionLimits(t *testing.T) {
	for what, c := range map[string]struct {
		limits        server.Limits
		name, address func(int) string
		want          int // of 20
	}{
		"in all":           {server.Limits{Conns: 7}, numbered("client %d"), numbered("192.0.2.%d"), 7},
		"address":          {server.Limits{ConnsPerAddress: 7}, numbered("client %d"), always("192.0.2.1"), 7},
		"IPv6 network":     {server.Limits{ConnsPerAddress: 7}, numbered("client %d"), numbered("2001:db8::1:%x"), 7},
		"mapped address":   {server.Limits{ConnsPerAddress: 7}, numbered("client %d"), always("::ffff:192.0.2.1"), 7},
		"loopback as well": {server.Limits{ConnsPerAddress: 7}, numbered("client %d"), always("127.0.0.1"), 7},
		"client":           {server.Limits{ConnsPerClient: 7}, always("alice"), numbered("192.0.2.%d"), 7},
		"none reached":     {server.Limits{}, numbered("client %d"), always("192.0.2.1"), 20},
		"silent":           {server.Limits{Conns: 7}, always(""), numbered("192.0.2.%d"), 7},
	} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, c.limits, func(t *testing.T, h *harness) {
				all := h.crowd(20, c.name, c.address)
				if got := count(all); got != c.want {
					t.Errorf("%d connections are open, want %d", got, c.want)
				}
				lines := 1
				if c.want == 20 {
					lines = 0
				}
				if got := h.log.lines("connection over a limit"); len(got) != lines {
					t.Errorf("the log says %q, want %d lines", got, lines)
				}
				// The places are free again when they have left.
				for _, p := range all {
					if !is(p.gone) && p.name != "" {
						close(p.offers)
					}
				}
				synctest.Wait()
				if c.name(0) != "" {
					if got := count(h.crowd(c.want, c.name, c.address)); got != c.want {
						t.Errorf("afterwards %d connections are open, want %d", got, c.want)
					}
				}
			})
		})
	}
}

// TestSilentConnectionsKeepNobodyOut: who has not said who it is gives its place
// to a newcomer; who has keeps it.
func TestSilentConnectionsKeepNobodyOut(t *testing.T) {
	for what, address := range map[string]func(int) string{
		"from one address": always("192.0.2.1"), "from many": numbered("192.0.2.%d"),
	} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, server.Limits{Conns: 10, ConnsPerAddress: 10}, func(t *testing.T, h *harness) {
				known := h.crowd(4, numbered("client %d"), address)
				silent := h.crowd(30, always(""), address)
				if got := count(silent); got != 6 {
					t.Errorf("%d silent connections are open, want 6", got)
				}
				early := h.connect("too early", "192.0.2.1")
				synctest.Wait()
				if !is(early.gone) {
					t.Error("a connection lost its place before its time")
				}
				time.Sleep(300 * time.Millisecond)
				honest := h.crowd(6, numbered("honest %d"), address)
				for _, p := range honest {
					p.send(file("f", "x"))
				}
				if got := count(silent); got != 0 {
					t.Errorf("%d silent connections are still open", got)
				}
				if got := count(known) + count(honest); got != 10 {
					t.Errorf("%d known connections are open, want 10", got)
				}
				late := h.crowd(1, always("late"), always("192.0.2.1"))
				if count(late) != 0 {
					t.Error("a known connection lost its place")
				}
			})
		})
	}
}

func TestLogOfABurst(t *testing.T) {
	inBubble(t, server.Limits{Conns: 1}, func(t *testing.T, h *harness) {
		h.crowd(1, always("alice"), always("192.0.2.1"))
		h.crowd(100, always("bob"), always("192.0.2.2"))
		time.Sleep(11 * time.Second)
		h.crowd(100, always("bob"), always("192.0.2.3"))
		got := h.log.lines("level=WARN", "connection over a limit")
		if len(got) != 2 || !strings.Contains(got[0], "address=192.0.2.2:9") || !strings.Contains(got[1], "more=99") {
			t.Errorf("the log says %q", got)
		}
	})
}

func TestAcceptGoesOn(t *testing.T) {
	inBubble(t, server.Limits{}, func(t *testing.T, h *harness) {
		for range 20 {
			h.ln.queue <- error(&net.OpError{Op: "accept", Err: syscall.EMFILE})
		}
		h.client("alice").send(file("f", "x"))
		if got := h.log.lines("level=WARN", "too many open files"); len(got) == 0 || len(got) > 2 {
			t.Errorf("the log says %q", got)
		}
		h.ln.queue <- syscall.EMFILE
		before := time.Now()
		h.stop() // does not wait
		if d := time.Since(before); d > 0 {
			t.Errorf("stopping took %v", d)
		}
	})
}

func TestAcceptFailsForGood(t *testing.T) {
	h := openOn(t, t.TempDir(), server.Limits{})
	h.ln = newListener()
	served := make(chan error, 1)
	go func() { served <- h.Serve(t.Context(), h.ln, accept, server.Admission{Open: true}) }()
	idle := h.client("alice")
	errBroken := errors.New("broken")
	h.ln.queue <- errBroken
	if err := <-served; !errors.Is(err, errBroken) || !is(idle.gone) {
		t.Errorf("got %v, want %v; the idle connection is closed: %v", err, errBroken, is(idle.gone))
	}
}
