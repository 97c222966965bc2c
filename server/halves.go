package server

import (
	"net"
	"sync"

	"ferry/proto"
)

// HalveFrom is the size in bytes from which a file is worth halving the processors for.
const HalveFrom = 64 << 20

// halves has the process use half of the processors while it receives one file that a client
// on the same machine has as much work with: each end has processors for itself then.
type halves struct {
	halve func() (restore func()) // nil: it never does

	mu        sync.Mutex
	receiving int    // guarded by mu: files
	restore   func() // guarded by mu: nil unless it has halved
}

// begin counts a file that is received until end is called. even tells that its client has as
// much work with it, on this machine.
func (h *halves) begin(even bool) (end func()) {
	if h.halve == nil {
		return func() {}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.whole() // there is more to do than before
	if h.receiving++; h.receiving == 1 && even {
		h.restore = h.halve()
	}
	return h.end
}

func (h *halves) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.receiving--
	h.whole()
}

// whole is called with mu held.
func (h *halves) whole() {
	if h.restore != nil {
		h.restore()
		h.restore = nil
	}
}

// even reports whether the client of a file works as much for it as the server: it hashes what it
// sends, as it has not stated the sums, and nobody else takes part, as with a gateway.
// Version 3, whose files have no id, never states them.
func even(o proto.Offer, conn net.Conn) bool {
	return o.Sum == nil && o.ID != (proto.TransferID{}) && o.Size >= HalveFrom && SameMachine(conn)
}

// SameMachine reports whether both ends of a connection, of TCP or UDP, are on this machine, as far as
// their addresses tell: a proxy has one of its own.
func SameMachine(conn net.Conn) bool {
	here, there := ipOf(conn.LocalAddr()), ipOf(conn.RemoteAddr())
	return here != nil && there != nil && (there.IsLoopback() || there.Equal(here))
}

func ipOf(a net.Addr) net.IP {
	switch a := a.(type) {
	case *net.TCPAddr:
		return a.IP
	case *net.UDPAddr:
		return a.IP
	}
	return nil
}
