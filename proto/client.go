package proto

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// Identity is what a client keeps of itself between connections.
type Identity struct {
	Name       ClientName
	ID         ClientID
	PrivateKey []byte // PKCS#8 in DER
	// NextKey is one that is to take PrivateKey's place, or nil: the server may
	// have either. Version 3 has none.
	NextKey []byte
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
	// Join is the token to register with, if the server wants one.
	Join string

	DialTimeout time.Duration // 10 s
	// IdleTimeout is the longest wait for a single read or write; 30 s. A server of
	// version 4 that says that it is still at work is waited for up to 20 times as
	// long.
	IdleTimeout time.Duration
	IdleConns   int           // connections kept open for the next file; Destination.Parallel. A negative number is none
	KeepAlive   time.Duration // how long they are kept; 30 s
	// Dial replaces net.Dialer.DialContext, for tests.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Client delivers files to one native server, in the version that its
// destination names. It registers once, under its configured name, and is known
// again by its id afterwards. It is safe for concurrent use; at most
// Destination.Parallel sends run at a time and others wait for their turn.
type Client struct {
	cfg     ClientConfig
	version clientVersion
}

// A clientVersion is what a version's client does for a [Client].
type clientVersion interface {
	send(ctx context.Context, o Offer, src Source, w Watcher) (Receipt, error)
	rotate(ctx context.Context) error
	close() error
}

// NewClient returns a Client that has not connected yet.
func NewClient(cfg ClientConfig) *Client {
	cfg.DialTimeout = cmp.Or(cfg.DialTimeout, 10*time.Second)
	cfg.IdleTimeout = cmp.Or(cfg.IdleTimeout, 30*time.Second)
	cfg.KeepAlive = cmp.Or(cfg.KeepAlive, 30*time.Second)
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{Control: unpace}).DialContext
	}
	return &Client{cfg: cfg, version: cfg.To.version.newClient(cfg)}
}

// Send delivers one file. When it returns nil, the server has acknowledged
// that it holds the file, verified and, a Ferry server, durable.
//
// Errors are those of this package or the network's; see [Permanent]. Ending
// ctx breaks the transfer off and returns context.Cause(ctx), wrapped. Send
// waits for a Read of the source that is under way: one that may take long
// should end with ctx, too.
func (c *Client) Send(ctx context.Context, o Offer, src Source, w Watcher) (Receipt, error) {
	err := c.check(o)
	if err == nil {
		var r Receipt
		if r, err = c.version.send(ctx, o, src, w); err == nil {
			return r, nil
		}
	}
	if ctx.Err() != nil && !decided(err) {
		err = context.Cause(ctx)
	}
	return Receipt{}, fmt.Errorf("send %q to %s: %w", o.Name.String(), c.cfg.To, err)
}

// check finds what no server has to be asked about.
func (c *Client) check(o Offer) error {
	if err := c.cfg.To.CheckName(o.Name); err != nil {
		return err
	}
	if limit := c.cfg.To.MaxSize(); o.Size < 0 || o.Size > limit {
		return fmt.Errorf("%w: %d bytes, %d are its limit", ErrTooLarge, o.Size, limit)
	}
	if o.Sum != nil && o.Sum.Size != o.Size {
		return fmt.Errorf("%w: %d bytes are offered, %d were recorded", ErrSource, o.Size, o.Sum.Size)
	}
	return nil
}

// decided reports whether err is a fact that holds although ctx has ended.
func decided(err error) bool {
	for _, fact := range []error{ErrName, ErrTooLarge, ErrExists, ErrRefused, ErrNameTaken, ErrUnauthorized, ErrPin, ErrChecksum, ErrSource, ErrProtocol} {
		if errors.Is(err, fact) {
			return true
		}
	}
	return false
}

// Rotate makes a new key, has the server put it in the place of the one it
// knows, and keeps it. After an error the client goes on with whichever of the
// two the server has. Version 3 returns [ErrUnsupported].
func (c *Client) Rotate(ctx context.Context) error {
	if err := c.version.rotate(ctx); err != nil {
		if ctx.Err() != nil && !decided(err) {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("replace the key at %s: %w", c.cfg.To, err)
	}
	return nil
}

// Close ends the idle connections and waits for nothing else: cancel the sends
// that run. A Send afterwards fails with net.ErrClosed.
func (c *Client) Close() error { return c.version.close() }
