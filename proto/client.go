package proto

import (
	"context"
	"net"
	"time"
)

// Destination is a native server's address and the version spoken there, as
// parsed from a URL such as v3://127.0.0.1:1256?window=64.
//
//	v3://HOST:PORT[?dialect=seed|mainstream|per-slice][&slice=N][&window=N]
//
// A missing port is 1256. window is how many packets may be in flight without
// their acknowledgement; 1, the default, is all that the seed's server copes
// with. A larger window says that the server is known to cope, also with
// several connections of one client at once.
type Destination struct{ url string }

// ParseDestination reads such a URL. An unknown scheme, key or value is an error
// that says what is allowed.
func ParseDestination(s string) (Destination, error) { panic("not built") }

// String returns the URL in its canonical form.
func (d Destination) String() string { return d.url }

// MaxSize is the largest file in bytes that the destination's version and
// dialect can carry; for the seed dialect 517,857,567.
func (d Destination) MaxSize() int64 { panic("not built") }

// Parallel is how many connections of one client the server copes with at
// once: 1 for a server that is not known to cope with more.
func (d Destination) Parallel() int { panic("not built") }

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
	IdleConns   int           // connections kept open for the next file; Destination.Parallel
	KeepAlive   time.Duration // how long they are kept; 30 s
	// Dial replaces net.Dialer.DialContext, for tests.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Client delivers files to one native server. It registers once, under its
// configured name, and is known again by its id afterwards. It is safe for
// concurrent use; at most Destination.Parallel sends run at a time and others
// wait for their turn.
type Client struct{}

// NewClient returns a Client that has not connected yet.
func NewClient(cfg ClientConfig) *Client { panic("not built") }

// Send delivers one file. When it returns nil, the server has acknowledged
// that it holds the file, verified and, a Ferry server, durable.
//
// Errors are those of this package or the network's; see [Permanent]. Ending
// ctx breaks the transfer off and returns context.Cause(ctx), wrapped.
func (c *Client) Send(ctx context.Context, o Offer, src Source, w Watcher) (Receipt, error) {
	panic("not built")
}

// Close ends the idle connections and waits for nothing else: cancel the sends
// that run.
func (c *Client) Close() error { panic("not built") }
