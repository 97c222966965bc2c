package proto

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Identity is what a client keeps of itself between connections.
type Identity struct {
	Name       ClientName
	ID         ClientID
	PrivateKey []byte // PKCS#8 in DER
}

// Keyring keeps a client's identity. It is safe for concurrent use.
type Keyring interface {
	// Load returns the identity that was saved last; ok is false if none was.
	Load(ctx context.Context) (id Identity, ok bool, err error)
	// Save keeps id in place of the one before, durably when it returns nil.
	Save(ctx context.Context, id Identity) error
}

// ClientConfig says how a Client reaches its server; zero values mean the
// defaults stated.
type ClientConfig struct {
	To      Destination
	Name    ClientName
	Keyring Keyring

	DialTimeout time.Duration // 10 s
	IdleTimeout time.Duration // 30 s: the longest wait for a single read or write
	IdleConns   int           // connections kept open for the next file; Destination.Parallel. A negative number is none
	KeepAlive   time.Duration // how long they are kept; 30 s
	// Dial replaces net.Dialer.DialContext, for tests.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Client delivers files to one native server. It registers once, under its
// configured name, and is known again by its id afterwards. It is safe for
// concurrent use; at most Destination.Parallel sends run at a time and others
// wait for their turn.
type Client struct {
	cfg   ClientConfig
	turns chan struct{} // holds a value for each send that runs
	me    self
	// buffers are those of packets on their way out, *[]byte; readers those of
	// sources, *bufio.Reader.
	buffers, readers sync.Pool

	mu     sync.Mutex
	idle   []*lineV3 // guarded by mu; the one used last is at the end
	closed bool      // guarded by mu
}

// self is what a Client knows of itself. Whoever holds the value in its lock
// may use the other fields.
type self struct {
	lock chan struct{}
	identityV3
}

// NewClient returns a Client that has not connected yet.
func NewClient(cfg ClientConfig) *Client {
	cfg.DialTimeout = cmp.Or(cfg.DialTimeout, 10*time.Second)
	cfg.IdleTimeout = cmp.Or(cfg.IdleTimeout, 30*time.Second)
	cfg.IdleConns = cmp.Or(cfg.IdleConns, cfg.To.Parallel())
	cfg.KeepAlive = cmp.Or(cfg.KeepAlive, 30*time.Second)
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{}).DialContext
	}
	return &Client{
		cfg:     cfg,
		turns:   make(chan struct{}, cfg.To.Parallel()),
		me:      self{lock: make(chan struct{}, 1)},
		readers: sync.Pool{New: func() any { return bufio.NewReaderSize(nil, readAhead) }},
	}
}

// Send delivers one file. When it returns nil, the server has acknowledged
// that it holds the file, verified and, a Ferry server, durable.
//
// Errors are those of this package or the network's; see [Permanent]. Ending
// ctx breaks the transfer off and returns context.Cause(ctx), wrapped. Send
// waits for a Read of the source that is under way: one that may take long
// should end with ctx, too.
func (c *Client) Send(ctx context.Context, o Offer, src Source, w Watcher) (Receipt, error) {
	r, err := c.send(ctx, o, src, w)
	if err == nil {
		return r, nil
	}
	if ctx.Err() != nil && !decided(err) {
		err = context.Cause(ctx)
	}
	return Receipt{}, fmt.Errorf("send %q to %s: %w", o.Name.String(), c.cfg.To, err)
}

// decided reports whether err is a fact that holds although ctx has ended.
func decided(err error) bool {
	for _, fact := range []error{ErrName, ErrTooLarge, ErrExists, ErrRefused, ErrNameTaken, ErrChecksum, ErrSource, ErrProtocol} {
		if errors.Is(err, fact) {
			return true
		}
	}
	return false
}

func (c *Client) send(ctx context.Context, o Offer, src Source, w Watcher) (Receipt, error) {
	if o.Name == (FileName{}) {
		return Receipt{}, fmt.Errorf("file %w: it is empty", ErrName)
	}
	if limit := c.cfg.To.MaxSize(); o.Size < 0 || o.Size > limit {
		return Receipt{}, fmt.Errorf("%w: %d bytes, %d are its limit", ErrTooLarge, o.Size, limit)
	}
	if o.Sum != nil && o.Sum.Size != o.Size {
		return Receipt{}, fmt.Errorf("%w: %d bytes are offered, %d were recorded", ErrSource, o.Size, o.Sum.Size)
	}
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
func (c *Client) deliver(ctx context.Context, d *deliveryV3) (Receipt, error) {
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

func (c *Client) connect(ctx context.Context) (*lineV3, error) {
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
func (c *Client) deliverOn(ctx context.Context, l *lineV3, d *deliveryV3) (Receipt, error) {
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
func (c *Client) take() *lineV3 {
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
func (c *Client) keep(l *lineV3) bool {
	if !c.cfg.To.copes() || !l.reusable {
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

func (c *Client) expire(l *lineV3) {
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

// Close ends the idle connections and waits for nothing else: cancel the sends
// that run. A Send afterwards fails with net.ErrClosed.
func (c *Client) Close() error {
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
