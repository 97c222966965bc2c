package server

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"ferry/proto"
)

// holdings count what is in staging, in all and by client. They are safe for
// concurrent use.
type holdings struct {
	limits Limits

	mu      sync.Mutex
	all     int64 // bytes
	clients map[proto.ClientID]*holding
	left    map[string]int64  // bytes of unfinished transfers that nobody works on, by key; counted above
	claims  map[string]*claim // transfers that somebody works on, by key
}

// holding is one client's. The holdings' mu guards it.
type holding struct {
	bytes      int64
	unfinished int // transfers that can go on, left or worked on
}

// claim is a transfer that a connection works on. The holdings' mu guards end.
type claim struct {
	end  func(cause error) // ends the connection; nil once all has come
	left chan struct{}     // closed when it does so no more
	came atomic.Int64      // when bytes came last, in nanoseconds since 1970
}

// silent is for how long nothing has come.
func (c *claim) silent() time.Duration { return time.Since(time.Unix(0, c.came.Load())) }

// alive notes that bytes come.
func (c *claim) alive() {
	if c != nil {
		c.came.Store(time.Now().UnixNano())
	}
}

func newHoldings(limits Limits) *holdings {
	return &holdings{limits: limits, clients: map[proto.ClientID]*holding{}, left: map[string]int64{}, claims: map[string]*claim{}}
}

// of finds a client's, or makes it. The caller holds mu.
func (h *holdings) of(client proto.ClientID) *holding {
	if h.clients[client] == nil {
		h.clients[client] = new(holding)
	}
	return h.clients[client]
}

// add counts n bytes more, or less. The caller holds mu.
func (h *holdings) add(client proto.ClientID, n int64, unfinished int) {
	own := h.of(client)
	h.all += n
	own.bytes += n
	own.unfinished += unfinished
	if *own == (holding{}) {
		delete(h.clients, client)
	}
}

// grow counts n bytes more; they are counted also if that is over a limit.
func (h *holdings) grow(client proto.ClientID, n int64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.add(client, n, 0)
	return h.over(client, 0)
}

// shrink counts n bytes less.
func (h *holdings) shrink(client proto.ClientID, n int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.add(client, -n, 0)
}

// fits is nil if there is room for so many bytes, beside those kept under key.
func (h *holdings) fits(client proto.ClientID, key string, size int64) (more int64, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	more = max(size-h.left[key], 0)
	return more, h.over(client, more)
}

// over is an error if n bytes more are too many. The caller holds mu.
func (h *holdings) over(client proto.ClientID, n int64) error {
	own := int64(0)
	if c := h.clients[client]; c != nil {
		own = c.bytes
	}
	switch l := h.limits; {
	case n > l.StagedPerClient-own:
		return &proto.RefusedError{Why: proto.ErrQuota, After: time.Minute,
			Words: fmt.Sprintf("files of the client that are not finished hold %d bytes of %d", own, l.StagedPerClient)}
	case n > l.Staged-h.all:
		return &proto.RefusedError{Why: proto.ErrBusy, After: 10 * time.Second,
			Words: fmt.Sprintf("files that are not finished hold %d bytes of %d", h.all, l.Staged)}
	}
	return nil
}

// begin counts a transfer that can go on, of which kept bytes are there.
func (h *holdings) begin(client proto.ClientID, key string, kept int64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	was, known := h.left[key]
	delete(h.left, key)
	if known {
		h.add(client, kept-was, 0)
		return nil
	}
	h.add(client, kept, 1)
	if n := h.of(client).unfinished; n > h.limits.Unfinished {
		return &proto.RefusedError{Why: proto.ErrQuota, After: time.Minute,
			Words: fmt.Sprintf("%d transfers of the client are not finished, which is as many as there may be", h.limits.Unfinished)}
	}
	return nil
}

// leave counts a transfer that can go on, with kept bytes, and that nobody works
// on any more; held is what was counted for it. It is forgotten if nothing is kept.
func (h *holdings) leave(client proto.ClientID, key string, held, kept int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if kept == 0 {
		h.add(client, -held, -1)
		return
	}
	h.add(client, kept-held, 0)
	h.left[key] = kept
}

// find counts one that a process before this one left.
func (h *holdings) find(client proto.ClientID, key string, kept int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.add(client, kept, 1)
	h.left[key] = kept
}

// forget counts one no more that was left and is gone.
func (h *holdings) forget(client proto.ClientID, key string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	kept, ok := h.left[key]
	if !ok {
		return
	}
	delete(h.left, key)
	h.add(client, -kept, -1)
}

const (
	// handOver is how long a connection may take to leave a transfer to another one.
	handOver = 5 * time.Second
	// hush is for how long nothing may have come over a connection that another one
	// takes a transfer from: two programs that send the same file at once must not
	// throw each other out.
	hush = time.Second
)

// errTakenOver ends a connection whose transfer goes on in another one. What it
// has kept is there for that one.
var errTakenOver = &ending{"the client goes on with the file in another connection", proto.ErrBusy}

// claim has a transfer for one connection alone. One that has it already, and over
// which nothing comes, is ended: its client came again because it was cut off, and
// has nothing more to say there. If all has come, the outcome is waited for.
func (h *holdings) claim(ctx context.Context, key string, end func(cause error)) (*claim, error) {
	patience := time.NewTimer(handOver)
	defer patience.Stop()
	for {
		mine := &claim{end: end, left: make(chan struct{})}
		mine.alive()
		h.mu.Lock()
		other := h.claims[key]
		if other == nil {
			h.claims[key] = mine
			h.mu.Unlock()
			return mine, nil
		}
		wait := handOver
		if other.end != nil {
			if wait = hush - other.silent(); wait <= 0 {
				other.end(errTakenOver)
				wait = handOver
			}
		}
		h.mu.Unlock()
		look := time.NewTimer(wait)
		select {
		case <-other.left:
		case <-look.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-patience.C:
			look.Stop()
			return nil, &proto.RefusedError{Why: proto.ErrBusy, After: 5 * time.Second,
				Words: "another connection of the client is sending the same file"}
		}
		look.Stop()
	}
}

// arrived notes that all of a transfer has come: its connection is not ended for
// another one any more.
func (h *holdings) arrived(c *claim) {
	if c == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	c.end = nil
}

// unclaim leaves a transfer to others.
func (h *holdings) unclaim(key string, c *claim) {
	if c == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.claims, key)
	close(c.left)
}

// resumeFrom is the size from which a transfer is kept when it breaks off. To send
// less than that again is no loss.
const resumeFrom = 1 << 20

// transferKey is the key in staging of a transfer that can go on; "" if it cannot.
func transferKey(client proto.ClientID, o proto.Offer) string {
	if o.ID == (proto.TransferID{}) || o.Size < resumeFrom {
		return ""
	}
	return client.String() + "-" + o.ID.String()
}

// keyOwner is whose transfer a key in staging belongs to.
func keyOwner(key string) (proto.ClientID, error) {
	client, _, _ := strings.Cut(key, "-")
	return proto.ParseClientID(client)
}
