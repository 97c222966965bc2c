package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ferry/proto/v3"
)

const (
	crowdSize   = 2000
	crowdMemory = 200 << 10 // KiB
)

// A crowd is many connections.
type crowd struct {
	conns []net.Conn
	stop  context.CancelFunc
	work  sync.WaitGroup
}

// gather opens n connections to the server. Those that the server closes, now or
// later, stay closed.
func gather(t *testing.T, address string, n int) *crowd {
	t.Helper()
	allowFiles(t, uint64(2*n))
	c := &crowd{}
	for range n {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			c.leave()
			t.Fatal(err)
		}
		c.conns = append(c.conns, conn)
	}
	return c
}

// each calls say with every connection once a second, until the crowd leaves.
func (c *crowd) each(say func(second int, conn net.Conn)) {
	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	c.work.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for second := 0; ; second++ {
			for _, conn := range c.conns {
				say(second, conn)
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
}

// leave closes all.
func (c *crowd) leave() {
	if c.stop != nil {
		c.stop()
	}
	c.work.Wait()
	for _, conn := range c.conns {
		_ = conn.Close()
	}
}

// held is how many the server has not closed.
func (c *crowd) held() int {
	n := 0
	for _, conn := range c.conns {
		_ = conn.SetReadDeadline(time.Now().Add(50 * time.Microsecond))
		var b [1]byte
		_, err := conn.Read(b[:])
		if netErr, ok := errors.AsType[net.Error](err); ok && netErr.Timeout() {
			n++
		}
	}
	return n
}

// allowFiles makes sure that this process, and what it starts, may have so many
// files open.
func allowFiles(t *testing.T, n uint64) {
	t.Helper()
	n += 500
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		t.Fatal(err)
	}
	if l.Cur >= n {
		return
	}
	was := l
	l.Cur, l.Max = n, max(n, l.Max)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		t.Skipf("SKIPPED, NOT TESTED: %d open files are needed and %d allowed: %v", n, was.Cur, err)
	}
	t.Cleanup(func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was) })
}

// roomy makes a server hold the whole crowd at once, from one address, and as
// long as the test needs them.
var roomy = []string{"--max-conns", "5000", "--max-conns-per-address", "5000", "--handshake-timeout", "5m"}

// TestCrowds wants honest clients to deliver while a crowd is there, at the
// server's defaults, where most of the crowd is turned away, and with limits so
// high that all are held. A client that was connected before notices nothing of
// it. Others may be turned away for a moment at the defaults, while the crowd's
// connections are so young that they could be honest, and are served then at the
// first try. The server may never have more than 200 MiB.
func TestCrowds(t *testing.T) {
	// The crowd and the honest clients share this process. With threads enough, the
	// system decides who runs, as between processes; else the one would wait here
	// for the other, which is no fault of the server's.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(16))
	silent := func(*siege, *crowd) error { return nil }
	slow := func(s *siege, c *crowd) error {
		var r raw
		r.id = s.victimID
		hello := r.reconnect("victim")
		c.each(func(second int, conn net.Conn) {
			_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
			_, _ = conn.Write(hello[second%len(hello):][:1]) // the server may have closed it
		})
		return nil
	}
	for _, test := range []struct {
		name  string
		args  []string
		begin func(*siege, *crowd) error
		held  int // of the crowd, at least
	}{
		{"silent", nil, silent, 200},
		{"silent, and all held", roomy, silent, crowdSize},
		{"one byte a second", nil, slow, 200},
		{"one byte a second, and all held", roomy, slow, crowdSize},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := besiege(t, test.args...)
			goOn := s.connected()
			c := gather(t, s.server.native, crowdSize)
			defer c.leave()
			if err := test.begin(s, c); err != nil {
				t.Fatal(err)
			}
			goOn()
			s.servedWithin(time.Second)
			s.servesBeside()
			if held := c.held(); held < test.held {
				t.Errorf("%d of the crowd are held, want at least %d", held, test.held)
			}
			s.servesBeside()
			goOn()
			c.leave()
			s.unharmed(crowdMemory)
			if test.args == nil {
				s.logged([][]string{{"connection over a limit", "address=127.0.0.1:"}})
			}
		})
	}
}

// connected connects an honest client, as a gateway does that always has
// something to deliver, and returns what has it deliver in that connection.
func (s *siege) connected() (deliver func()) {
	s.t.Helper()
	c, err := native(s.server.native, "window=64", "connected", new(memoryKeyring))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Close() })
	deliver = func() {
		s.t.Helper()
		for range 10 {
			name, b := s.fresh("file"), bytesOf(10, 50_000)
			src := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
			if _, err := sendWith(s.t.Context(), c, name, int64(len(b)), src); err != nil {
				s.t.Fatalf("a client that is connected: %v", err)
			}
			s.stores("connected", name, sumOfBytes(b))
		}
	}
	deliver()
	return deliver
}

// servedWithin has a known client that is turned away try again.
func (s *siege) servedWithin(limit time.Duration) {
	s.t.Helper()
	start := time.Now()
	for {
		_, err := s.deliver()
		if err == nil {
			break
		}
		if time.Since(start) > limit {
			s.t.Fatalf("not served within %v: %v", limit, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	s.t.Logf("served after %v", time.Since(start))
}

// servesBeside wants honest clients to deliver: one that is known, and new ones.
func (s *siege) servesBeside() {
	s.t.Helper()
	const soon = 2 * time.Second
	var worst time.Duration
	for range 20 {
		d, err := s.deliver()
		if err != nil {
			s.t.Fatal(err)
		}
		worst = max(worst, d)
	}
	for range 3 {
		name, b := s.fresh("newcomer"), bytesOf(9, 100_000)
		start := time.Now()
		if _, err := send(s.t.Context(), s.server.native, "window=64", name, new(memoryKeyring), "file", b); err != nil {
			s.t.Fatal(err)
		}
		worst = max(worst, time.Since(start))
		s.stores(name, "file", sumOfBytes(b))
	}
	s.t.Logf("the slowest delivery took %v", worst)
	if worst > soon {
		s.t.Errorf("a delivery took %v beside the crowd, want at most %v", worst, soon)
	}
}

// TestSlowFiles has a client send files of one byte a second, over as many
// connections as it may have: others are served, and the slow are cut.
func TestSlowFiles(t *testing.T) {
	const idle = 3 * time.Second
	s := besiege(t, "--idle-timeout", idle.String())
	var all []*raw
	c := &crowd{}
	for i := range 32 {
		r, err := s.mallory.dial()
		if err != nil {
			t.Fatal(err)
		}
		packets, err := r.packets(v3.Seed(), fmt.Sprintf("slow %d", i), bytesOf(1, 100_000))
		if err := errors.Join(err, r.say(packets[0]), r.expect("the first packet", v3.CodeThanks), r.say(packets[1][:1000])); err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
		c.conns = append(c.conns, r.conn)
	}
	defer c.leave()
	start := time.Now()
	c.each(func(_ int, conn net.Conn) { _, _ = conn.Write([]byte{0}) })
	s.servesBeside()
	for _, r := range all {
		if _, _, err := r.hear(); err == nil {
			t.Error("a client that sends a byte a second was answered")
		}
	}
	// 9 KB came at once, so that at 1 KiB a second the client has some seconds of
	// grace, and then the wait for a read.
	if took := time.Since(start); took > 5*idle {
		t.Errorf("the last slow connection was cut after %v, want at most %v", took, 5*idle)
	}
	c.leave()
	s.unharmed(crowdMemory)
	s.logged([][]string{{"file broken off", "client=mallory", "address=127.0.0.1:", "file=\"slow 31\""}})
}

// TestOneClientManyConnections has one client open 500 connections, of which it
// is given as many as one may have. Others are served.
func TestOneClientManyConnections(t *testing.T) {
	const (
		wanted  = 500
		allowed = 32 // --max-conns-per-client
	)
	s := besiege(t)
	allowFiles(t, 2*wanted)
	c := &crowd{}
	defer c.leave()
	for range wanted {
		r, err := s.mallory.dial()
		if r != nil {
			c.conns = append(c.conns, r.conn)
		}
		if err != nil { // its place was taken by another connection, or it is one too many
			continue
		}
	}
	s.servesBeside()
	// A client that is over its limit is welcomed, and closed.
	if held := c.held(); held != allowed {
		t.Errorf("%d connections of one client are held, want %d", held, allowed)
	}
	c.leave()
	s.unharmed(crowdMemory)
	s.logged([][]string{{"connection over a limit", "client=mallory", "address=127.0.0.1:", "the client has as many connections as it may"}})
}

// TestLoopbackOnly wants version 3, which cannot be made safe against somebody
// in the middle, to be out of reach of other machines unless the operator says
// so in words that name the risk.
func TestLoopbackOnly(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", "[::]:0", ":0", "192.0.2.1:0"} {
		for _, command := range [][]string{{"server", "--data", t.TempDir()}, {"up", "--data", t.TempDir(), "--http", "127.0.0.1:0"}} {
			cmd := exec.CommandContext(t.Context(), ferryBinary, append(command, "--v3-listen", address)...)
			cmd.Env = withoutFerryVariables(cmd.Environ())
			out, err := cmd.CombinedOutput()
			exit, ok := errors.AsType[*exec.ExitError](err)
			if !ok || exit.ExitCode() != 2 || !strings.Contains(string(out), "--v3-anywhere") || !strings.Contains(string(out), "not safe") {
				t.Errorf("ferry %s --v3-listen %s: %v, %s\nwant exit status 2 and the flag that allows it", command[0], address, err, out)
			}
		}
	}
	// Without the flag nothing listens for version 3.
	for _, p := range []*process{startV4(t, t.TempDir()).process, up(t, t.TempDir())} {
		p.stop()
		if p.native != "" {
			t.Errorf("%s listens for version 3 at %s, unasked", args(p.cmd), p.native)
		}
	}
	anywhere := start(t, "server", "--data", t.TempDir(), "--listen", "none", "--v3-listen", "127.0.0.1:0", "--v3-anywhere")
	anywhere.stop()
	s := besiege(t)
	host, _, err := net.SplitHostPort(s.server.native)
	if err != nil || !net.ParseIP(host).IsLoopback() {
		t.Errorf("the server is at %s, %v; want loopback", s.server.native, err)
	}
}
