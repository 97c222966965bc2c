package prototest

import (
	"net"
	"sync"
	"testing"
)

// Listen serves each connection to the address that it returns, on loopback and
// in a goroutine of conns, and closes it behind serve. At the end of the test
// nothing more is accepted, and what is served is waited for.
func Listen(t testing.TB, conns *sync.WaitGroup, serve func(conn net.Conn)) (address string) {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer conn.Close() //nolint:errcheck // serve may have done so
				serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		accepting.Wait()
		conns.Wait()
	})
	return ln.Addr().String()
}

// ListenAndCut is [Listen] for connections that do not end by themselves: those
// that are open at the end of the test are closed.
func ListenAndCut(t testing.TB, serve func(conn net.Conn)) (address string) {
	t.Helper()
	var mu sync.Mutex
	var open []net.Conn
	over := false
	address = Listen(t, new(sync.WaitGroup), func(conn net.Conn) {
		mu.Lock()
		if over {
			mu.Unlock()
			return
		}
		open = append(open, conn)
		mu.Unlock()
		serve(conn)
	})
	t.Cleanup(func() { // before that of Listen
		mu.Lock()
		defer mu.Unlock()
		over = true
		for _, conn := range open {
			_ = conn.Close()
		}
	})
	return address
}
