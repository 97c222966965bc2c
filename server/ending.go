package server

import "ferry/proto"

// An ending is why the server ends connections: what the log says of it, and what
// it is for the client.
type ending struct {
	words string
	is    error
}

func (e *ending) Error() string { return e.words }
func (e *ending) Unwrap() error { return &proto.RefusedError{Why: e.is, Words: e.words} }

var (
	// errStopping ends what runs when the server is stopped.
	errStopping = &ending{"the server is stopping", proto.ErrStopping}
	errRevoked  = &ending{"the operator has revoked the client", proto.ErrRevoked}
	errReplaced = &ending{"the client has another key now", proto.ErrUnauthorized}
)
