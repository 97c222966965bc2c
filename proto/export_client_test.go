package proto

import "crypto/rsa"

// MakeKeys has a client of version 4 take its keys from there, to spare a test the
// making of them.
func MakeKeys(c *Client, newKey func() (*rsa.PrivateKey, error)) {
	c.version.(*clientV4).newKey = newKey
}
