package proto

import (
	"context"
	"crypto/rsa"
	"net"
)

// MakeKeys has a client of version 4 take its keys from there, to spare a test the
// making of them.
func MakeKeys(c *Client, newKey func() (*rsa.PrivateKey, error)) {
	c.version.(*clientV4).newKey = newKey
}

// ReadAtOnce sets how much of what a server keeps a client of version 4 reads
// while the server waits.
func ReadAtOnce(c *Client, n int64) { c.version.(*clientV4).prefix = n }

// DialOf is how a client makes connections.
func DialOf(c *Client) func(ctx context.Context, network, address string) (net.Conn, error) {
	return c.cfg.Dial
}

// Unpace is what it does with each.
var Unpace = unpace
