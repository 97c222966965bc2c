package server

import (
	"container/list"
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"ferry/proto"
)

// Why a connection was closed at once.
var (
	errConns           = errors.New("the server has as many connections as it serves")
	errConnsPerAddress = errors.New("the address has as many connections as it may")
	errConnsPerClient  = &ending{"the client has as many connections as it may", proto.ErrBusy}
	errDisplaced       = errors.New("it had not said who it is when others wanted its place")
)

// patience is how long a connection has its place for itself before it says who
// it is. After that a newcomer may have it, so that connections that say
// nothing keep nobody out. A handshake takes a few round trips.
const patience = 250 * time.Millisecond

// gate counts connections and keeps them within the limits. It is safe for
// concurrent use.
type gate struct {
	limits Limits

	mu        sync.Mutex
	running   int // visits that have not left, displaced ones included
	total     int // visits that hold a place
	addresses map[netip.Addr]*crowd
	clients   map[proto.ClientID]map[*visit]struct{}
	strangers list.List // of *visit, that hold a place and have not said who they are, oldest first
}

// crowd is what has come from one address. The gate's mu guards it.
type crowd struct {
	total     int
	strangers list.List // of *visit, as the gate's
}

// visit is one connection. The gate's mu guards it.
type visit struct {
	address netip.Addr
	since   time.Time
	end     func(cause error)
	placed  bool            // it counts in total
	client  *proto.ClientID // nil while a stranger
	all     *list.Element   // in the gate's strangers; nil if not there
	near    *list.Element   // in the crowd's
}

func newGate(limits Limits) *gate {
	return &gate{limits: limits, addresses: map[netip.Addr]*crowd{}, clients: map[proto.ClientID]map[*visit]struct{}{}}
}

// enter gives a place to a connection, or says why not. end is called if another
// one gets the place, or if the client is to go. leave must follow.
func (g *gate) enter(address netip.Addr, end func(cause error)) (*visit, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	// Displaced connections need a moment to go; they are bounded as well.
	if g.running >= 2*g.limits.Conns {
		return nil, errConns
	}
	now := time.Now()
	c := g.addresses[address]
	if c != nil && c.total >= g.limits.ConnsPerAddress && !g.displace(&c.strangers, now) {
		return nil, errConnsPerAddress
	}
	if g.total >= g.limits.Conns && !g.displace(&g.strangers, now) {
		return nil, errConns
	}
	if c = g.addresses[address]; c == nil { // displace may have taken it away
		c = new(crowd)
		g.addresses[address] = c
	}
	v := &visit{address: address, since: now, end: end, placed: true}
	v.all, v.near = g.strangers.PushBack(v), c.strangers.PushBack(v)
	c.total++
	g.total++
	g.running++
	return v, nil
}

// displace takes the place of the oldest stranger, if it had its time.
func (g *gate) displace(strangers *list.List, now time.Time) bool {
	oldest := strangers.Front()
	if oldest == nil {
		return false
	}
	v, _ := oldest.Value.(*visit)
	if now.Sub(v.since) < patience {
		return false
	}
	g.free(v)
	v.end(errDisplaced)
	return true
}

// free takes a visit's place away, if it has one. The caller holds mu.
func (g *gate) free(v *visit) {
	if !v.placed {
		return
	}
	v.placed = false
	g.total--
	c := g.addresses[v.address]
	g.introduce(v, c)
	if c.total--; c.total == 0 {
		delete(g.addresses, v.address)
	}
	if v.client != nil {
		delete(g.clients[*v.client], v)
		if len(g.clients[*v.client]) == 0 {
			delete(g.clients, *v.client)
		}
	}
}

// introduce takes a visit off the lists of strangers. The caller holds mu.
func (g *gate) introduce(v *visit, c *crowd) {
	if v.all != nil {
		g.strangers.Remove(v.all)
		c.strangers.Remove(v.near)
		v.all, v.near = nil, nil
	}
}

// know notes who a visit is: it keeps its place from now on. The error says
// that it must go.
func (g *gate) know(v *visit, id proto.ClientID) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !v.placed {
		return errDisplaced
	}
	if len(g.clients[id]) >= g.limits.ConnsPerClient {
		return errConnsPerClient
	}
	g.introduce(v, g.addresses[v.address])
	if g.clients[id] == nil {
		g.clients[id] = map[*visit]struct{}{}
	}
	g.clients[id][v] = struct{}{}
	v.client = &id
	return nil
}

// present returns the clients that have connections.
func (g *gate) present() []proto.ClientID {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Collect(maps.Keys(g.clients))
}

// cut ends the connections of a client but one, which may be nil.
func (g *gate) cut(id proto.ClientID, but *visit, cause error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for v := range g.clients[id] {
		if v != but {
			v.end(cause)
		}
	}
}

// leave ends a visit.
func (g *gate) leave(v *visit) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.free(v)
	g.running--
}

// origin is the part of a connection's remote address that is counted.
func origin(conn net.Conn) netip.Addr {
	tcp, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	a := tcp.AddrPort().Addr().Unmap().WithZone("")
	if a.Is6() {
		if network, err := a.Prefix(64); err == nil {
			return network.Addr()
		}
	}
	return a
}
