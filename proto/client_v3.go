package proto

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

// A clientV3 is a [Client] that speaks version 3. It registers once, under its
// configured name, and is known again by its id afterwards. It is safe for
// concurrent use; at most Destination.Parallel sends run at a time and others
// wait for their turn.
type clientV3 struct {
	cfg   ClientConfig
	to    destinationV3
	turns chan struct{} // holds a value for each send that runs
	me    self
	// buffers are those of packets on their way out, *[]byte; readers those of
	// sources, *bufio.Reader.
	buffers, readers sync.Pool

	mu     sync.Mutex
	idle   []*lineV3 // guarded by mu; the one used last is at the end
	closed bool      // guarded by mu
}

// self is what a client knows of itself. Whoever holds the value in its lock
// may use the other fields.
type self struct {
	lock chan struct{}
	identityV3
}

func newClientV3(cfg ClientConfig, to destinationV3) *clientV3 {
	cfg.IdleConns = cmp.Or(cfg.IdleConns, to.parallel())
	return &clientV3{
		cfg:     cfg,
		to:      to,
		turns:   make(chan struct{}, to.parallel()),
		me:      self{lock: make(chan struct{}, 1)},
		readers: sync.Pool{New: func() any { return bufio.NewReaderSize(nil, readAhead) }},
	}
}

// rotate is not possible: the version has one key for each client.
func (c *clientV3) rotate(context.Context) error {
	return fmt.Errorf("%w: version 3 cannot replace a client's key", ErrUnsupported)
}

func (c *clientV3) send(ctx context.Context, o Offer, src Source, w Watcher) (Receipt, error) {
	select {
	case c.turns <- struct{}{}:
	case <-ctx.Done():
		return Receipt{}, context.Cause(ctx)
	}
	defer func() { <-c.turns }()
	d, err := newDeliveryV3(c, o, src, w)
	if err != nil {
		return Receipt{}, err
	}
	return c.deliver(ctx, d)
}

// deliver runs d on a connection. A kept one may turn out to have been closed
// by the server meanwhile, which says nothing about the file; then another one
// is made.
func (c *clientV3) deliver(ctx context.Context, d *deliveryV3) (Receipt, error) {
	d.phase(PhaseConnecting)
	if l := c.take(); l != nil {
		r, err := c.deliverOn(ctx, l, d)
		if err == nil || l.answered || decided(err) || ctx.Err() != nil {
			return r, err
		}
		d.phase(PhaseConnecting)
	}
	l, err := c.connect(ctx)
	if err != nil {
		return Receipt{}, err
	}
	return c.deliverOn(ctx, l, d)
}

func (c *clientV3) connect(ctx context.Context) (*lineV3, error) {
	c.mu.Lock()
	closed := c.closed
	c.mu.Unlock()
	if closed {
		return nil, fmt.Errorf("client is closed: %w", net.ErrClosed)
	}
	dialing, cancel := context.WithTimeout(ctx, c.cfg.DialTimeout)
	defer cancel()
	conn, err := c.cfg.Dial(dialing, "tcp", c.cfg.To.address)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return newLineV3(conn, c.cfg.IdleTimeout), nil
}

// deliverOn owns l: it keeps it for the next file or closes it.
func (c *clientV3) deliverOn(ctx context.Context, l *lineV3, d *deliveryV3) (Receipt, error) {
	stop := context.AfterFunc(ctx, l.hangUp)
	r, err := func() (Receipt, error) {
		if !l.entered {
			d.phase(PhaseKeying)
			if err := c.enter(ctx, l); err != nil {
				return Receipt{}, err
			}
		}
		return d.run(ctx, l)
	}()
	if stop() && err == nil && c.keep(l) {
		return r, nil
	}
	l.close()
	return r, err
}

// take returns the kept connection that was used last, or nil.
func (c *clientV3) take() *lineV3 {
	for {
		c.mu.Lock()
		if len(c.idle) == 0 {
			c.mu.Unlock()
			return nil
		}
		last := len(c.idle) - 1
		l := c.idle[last]
		c.idle[last] = nil
		c.idle = c.idle[:last]
		l.expiry.Stop()
		c.mu.Unlock()
		if l.quiet() {
			l.answered = false
			return l
		}
		l.close()
	}
}

// keep takes l for the next file, if the server takes several in a connection.
func (c *clientV3) keep(l *lineV3) bool {
	if !c.to.copes() || !l.reusable {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || len(c.idle) >= c.cfg.IdleConns {
		return false
	}
	l.rest()
	l.expiry = time.AfterFunc(c.cfg.KeepAlive, func() { c.expire(l) })
	c.idle = append(c.idle, l)
	return true
}

func (c *clientV3) expire(l *lineV3) {
	c.mu.Lock()
	var kept []*lineV3
	for _, other := range c.idle {
		if other != l {
			kept = append(kept, other)
		}
	}
	ours := len(kept) < len(c.idle)
	c.idle = kept
	c.mu.Unlock()
	if ours { // else it was taken at this moment
		l.close()
	}
}

func (c *clientV3) close() error {
	c.mu.Lock()
	idle := c.idle
	c.idle, c.closed = nil, true
	c.mu.Unlock()
	for _, l := range idle {
		l.expiry.Stop()
		l.close()
	}
	return nil
}
