package proto

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"ferry/proto/v4"
)

const (
	// largeV4 is how many files have a connection to themselves at once.
	largeV4 = 8
	// keptSums is how many interrupted transfers' sums are remembered.
	keptSums = 64
	// placeFreed is how long a server is given to notice that a connection was
	// closed.
	placeFreed = 200 * time.Millisecond
)

// A clientV4 is a [Client] that speaks version 4. A file that does not fit into
// one message has a connection to itself; all others share one.
type clientV4 struct {
	cfg   ClientConfig
	to    destinationV4
	turns chan struct{} // holds a value for each send that runs
	large chan struct{} // and for each with a connection to itself
	me    selfV4
	turn  flight // replacing the key
	// newKey makes a key, and prefix is how much of what a server keeps is read
	// while it waits. Tests have others.
	newKey func() (*rsa.PrivateKey, error)
	prefix int64

	joint flight // making the connection that small files share
	idle  *idleLines[*lineV4]

	mu     sync.Mutex // guards what follows
	shared *sharedV4  // nil: there is none
	sums   map[sumKey]*Summer
	order  []sumKey // of sums, the oldest first
}

// sumKey is what makes two sends those of one transfer of one file.
type sumKey struct {
	id      TransferID
	size    int64
	modTime int64
}

func newClientV4(cfg ClientConfig, to destinationV4) *clientV4 {
	cfg.IdleConns = cmp.Or(cfg.IdleConns, largeV4)
	return &clientV4{
		cfg:   cfg,
		to:    to,
		turns: make(chan struct{}, to.parallel()),
		large: make(chan struct{}, largeV4),
		idle:  newIdleLines[*lineV4](cfg.IdleConns, cfg.KeepAlive),
		sums:  map[sumKey]*Summer{},
		newKey: func() (*rsa.PrivateKey, error) {
			return rsa.GenerateKey(rand.Reader, v4.KeyBits)
		},
		prefix: prefixAtOnce,
	}
}

func (c *clientV4) send(ctx context.Context, o Offer, src Source, w Watcher) (Receipt, error) {
	if _, err := clientTLS(c.to, c.cfg.To.address); err != nil {
		return Receipt{}, fmt.Errorf("%w. Look at its fingerprint and remember it with `ferry trust %s`, or put it in the URL with ?pin=",
			err, c.cfg.To.address)
	}
	small := o.Size <= v4.MaxSmall
	for _, slots := range []chan struct{}{c.large, c.turns} {
		if small && slots == c.large {
			continue
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return Receipt{}, context.Cause(ctx)
		}
		defer func() { <-slots }()
	}
	r, err := c.sendAs(ctx, o, src, w, small)
	exists, ok := errors.AsType[*ExistsError](err)
	if !ok || o.Sum != nil || small || exists.Sum.Size != o.Size {
		return r, err
	}
	// What is there may be the same: the sum was not known when it was offered.
	sum, hashing := sumOfSource(ctx, src, o.Size)
	if hashing != nil {
		return Receipt{}, hashing
	}
	if sum != exists.Sum {
		return Receipt{}, err
	}
	o.Sum = &sum
	return c.sendAs(ctx, o, src, w, small)
}

// sendAs sends a file. A server may give a client few places, and those of its
// own that rest are not to keep it out. Nor is a key that another process has
// replaced meanwhile: the server ends what began with the old one.
func (c *clientV4) sendAs(ctx context.Context, o Offer, src Source, w Watcher, small bool) (Receipt, error) {
	before := c.known()
	r, err := c.sendOnce(ctx, o, src, w, small)
	switch {
	case errors.Is(err, ErrBusy) && c.idle.drop():
		select {
		case <-time.After(placeFreed):
		case <-ctx.Done():
			return Receipt{}, context.Cause(ctx)
		}
	case errors.Is(err, ErrUnauthorized) && c.rekeyed(ctx, before):
		c.idle.drop()
	default:
		return r, err
	}
	return c.sendOnce(ctx, o, src, w, small)
}

func (c *clientV4) sendOnce(ctx context.Context, o Offer, src Source, w Watcher, small bool) (Receipt, error) {
	d := deliveryV4{client: c, offer: o, source: src, watch: w}
	d.now = Progress{TotalBytes: o.Size, TotalPackets: packetsOf(o.Size, c.to.packet), Send: 1}
	if small {
		return d.sendSmall(ctx)
	}
	return d.sendLarge(ctx)
}

// keep takes l for the next file.
func (c *clientV4) keep(l *lineV4) bool { return l.reusable && c.idle.keep(l) }

// open makes a connection, unless the client is closed.
func (c *clientV4) open(ctx context.Context) (*lineV4, error) {
	if err := c.idle.open(); err != nil {
		return nil, err
	}
	return c.connect(ctx)
}

func (c *clientV4) close() error {
	c.idle.close()
	c.mu.Lock()
	shared := c.shared
	c.mu.Unlock()
	if shared != nil {
		shared.retire()
	}
	return nil
}

// sumFor returns what an interrupted send of the same transfer has summed, or
// nothing yet.
func (c *clientV4) sumFor(o Offer) *Summer {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := keyOf(o)
	s, ok := c.sums[k]
	if !ok {
		return NewSummer()
	}
	c.dropSum(k)
	return s
}

// keepSum remembers what a send has summed before it was interrupted.
func (c *clientV4) keepSum(o Offer, s *Summer) {
	if o.ID == (TransferID{}) || s.size == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	k := keyOf(o)
	c.dropSum(k)
	if len(c.order) >= keptSums {
		c.dropSum(c.order[0])
	}
	c.sums[k] = s
	c.order = append(c.order, k)
}

// dropSum forgets one. The caller holds mu.
func (c *clientV4) dropSum(k sumKey) {
	delete(c.sums, k)
	kept := c.order[:0]
	for _, other := range c.order {
		if other != k {
			kept = append(kept, other)
		}
	}
	c.order = kept
}

func keyOf(o Offer) sumKey {
	return sumKey{id: o.ID, size: o.Size, modTime: offerV4(o, nil).ModTime}
}

// ServerPin returns the pin of the server at an address, HOST:PORT, as whoever
// answers there shows it: nothing else is known of it.
func ServerPin(ctx context.Context, address string) (Pin, error) {
	pin, err := serverPin(ctx, address)
	if ctx.Err() != nil && err != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return Pin{}, fmt.Errorf("ask %s for its fingerprint: %w", address, err)
	}
	return pin, nil
}

func serverPin(ctx context.Context, address string) (Pin, error) {
	const patience = 10 * time.Second
	cfg, err := clientTLS(destinationV4{ca: true}, address)
	if err != nil {
		return Pin{}, err
	}
	cfg.InsecureSkipVerify = true // who answers is what is asked
	conn, err := (&net.Dialer{Timeout: patience}).DialContext(ctx, "tcp", address)
	if err != nil {
		return Pin{}, err
	}
	defer conn.Close() //nolint:errcheck // nothing was said
	l := &lineV4{frames: newClientFrames(conn, patience, cfg), conn: conn}
	if err := l.greet(ctx); err != nil {
		return Pin{}, err
	}
	return l.frames.pin(), nil
}
