package proto

import (
	"context"
	"net"
	"time"
)

// SessionConfig bounds a session; zero values mean the defaults stated.
type SessionConfig struct {
	Directory Directory
	// HandshakeTimeout bounds the time from the first byte expected to the
	// client recognised; 10 s.
	HandshakeTimeout time.Duration
	// IdleTimeout bounds the wait for a single read or write; 30 s.
	IdleTimeout time.Duration
	// MinRate is how many bytes a second a file has to come with at least,
	// averaged over IdleTimeout; 1 KiB. Only time in which the client is waited
	// for counts. A negative one is none.
	MinRate int64
	// MaxFileSize in bytes; what the version can carry.
	MaxFileSize int64
	// Refused, if not nil, is told of each request that was refused and of which
	// its caller hears in no other way: neither did the session end nor was there
	// a Transfer. client and file are what the peer wrote, if it did: any bytes.
	Refused func(client, file string, why error)
}

// Accept performs one version's handshake on a fresh connection and returns the
// session. It keeps a deadline on every read and write, obeys ctx, and does not
// close conn.
type Accept func(ctx context.Context, conn net.Conn, cfg SessionConfig) (Session, error)
