package proto

import (
	"context"
	"crypto"
	"net"
)

// A ServerIdentity is the key and certificate that a server of version 4 is
// known by.
type ServerIdentity struct {
	pin    Pin
	signer crypto.Signer
}

// NewServerIdentity makes a key of 3072 bits and a self-signed certificate, as
// one PEM file with both: what [ParseServerIdentity] reads.
func NewServerIdentity() ([]byte, error) { panic("not built") }

// ParseServerIdentity reads a certificate (the chain may follow it) and its
// private key, in PEM: RSA of at least 2048 bits, ECDSA on P-256 or P-384, or
// Ed25519. Both may be the same bytes.
func ParseServerIdentity(certificate, key []byte) (ServerIdentity, error) { panic("not built") }

// Pin is what clients know the server by.
func (id ServerIdentity) Pin() Pin { return id.pin }

// AcceptV4 returns the [Accept] of wire version 4.
func AcceptV4(id ServerIdentity) Accept {
	return func(ctx context.Context, conn net.Conn, cfg SessionConfig) (Session, error) { panic("not built") }
}
