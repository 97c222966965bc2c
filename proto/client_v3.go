package proto

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"sync"
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
	idle             *idleLines[*lineV3]
}

// self is what a client knows of itself. Whoever holds the value in its lock
// may use the other fields.
type self struct {
	lock chan struct{}
	identityV3
}

func newClientV3(cfg ClientConfig, to destinationV3) *clientV3 {
	return &clientV3{
		cfg:     cfg,
		to:      to,
		turns:   make(chan struct{}, to.parallel()),
		me:      self{lock: make(chan struct{}, 1)},
		idle:    newIdleLines[*lineV3](cmp.Or(cfg.IdleConns, to.parallel()), cfg.KeepAlive),
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
	if l, ok := c.idle.take(); ok {
		l.answered = false
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
	if err := c.idle.open(); err != nil {
		return nil, err
	}
	conn, err := c.cfg.connect(ctx)
	if err != nil {
		return nil, err
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

// keep takes l for the next file, if the server takes several in a connection.
func (c *clientV3) keep(l *lineV3) bool { return c.to.copes() && l.reusable && c.idle.keep(l) }

func (c *clientV3) close() error {
	c.idle.close()
	return nil
}
