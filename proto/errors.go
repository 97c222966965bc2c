package proto

import (
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// What a caller may test for with errors.Is. An error of this package that is
// none of them is the network's: a connection that could not be made, broke,
// or was silent past its deadline.
var (
	// ErrName: a file or client name that the destination does not take.
	ErrName = errors.New("name not allowed")
	// ErrTooLarge: the file is larger than the destination's version can carry, or
	// than the server takes.
	ErrTooLarge = errors.New("too large for the destination")
	// ErrExists: the server has a file of that name already, and nothing of it
	// has changed. Version 4 says what it is: see [ExistsError]. In version 3 it
	// was said before the server took any byte.
	ErrExists = errors.New("a file of that name exists at the destination")
	// ErrRefused: the server refused. After a call of Watcher.Matched it means
	// that the file was not stored by this attempt. The errors from ErrQuota to
	// ErrStopping are reasons for it: whoever is one of them is this, too.
	ErrRefused = errors.New("refused by the server")
	// ErrNameTaken: another client is registered under the client's name.
	ErrNameTaken = errors.New("client name taken")
	// ErrUnknownClient: the server knows no client with that id.
	ErrUnknownClient = errors.New("unknown client")
	// ErrChecksum: the file was sent as often as the protocol allows, and the
	// checksums never agreed.
	ErrChecksum = errors.New("checksums differ")
	// ErrSource: the sender's bytes could not be read, or are not the ones
	// that were offered.
	ErrSource = errors.New("source")
	// ErrProtocol: the peer said something that the version does not allow.
	ErrProtocol = errors.New("protocol violation")
	// ErrUnsupported: the version cannot do that.
	ErrUnsupported = errors.New("not possible in this version")
	// ErrPin: the server is not the one that was expected: it has another key,
	// or none is known of it. Nothing was sent to it.
	ErrPin = errors.New("the server is not known")

	// ErrQuota: the client has stored, or is sending, as much as it may.
	ErrQuota = errors.New("quota")
	// ErrNoRoom: the server's disk is full.
	ErrNoRoom = errors.New("no room at the server")
	// ErrUnauthorized: the join token or the client's key are not good.
	ErrUnauthorized = errors.New("not authorised")
	// ErrRevoked: the server's operator has revoked the client.
	ErrRevoked = errors.New("revoked by the server's operator")
	// ErrBusy: the server has too much to do just now.
	ErrBusy = errors.New("the server is busy")
	// ErrStopping: the server is shutting down.
	ErrStopping = errors.New("the server is shutting down")
)

// A RefusedError is what a server said no with. It is an [ErrRefused] unless Why
// is [ErrName] or [ErrTooLarge].
type RefusedError struct {
	Why   error         // one of this package's, or nil
	Words string        // of the server's; may be empty
	After time.Duration // when trying again may help; 0 if it cannot, or nothing was said
}

// Error returns the reason and the server's words.
func (e *RefusedError) Error() string {
	s := ErrRefused.Error()
	if e.Why != nil {
		s = e.Why.Error()
	}
	if e.Words != "" {
		s += ": " + e.Words
	}
	return s
}

// Is reports whether the error is a refusal like any other.
func (e *RefusedError) Is(target error) bool {
	return target == ErrRefused && !errors.Is(e.Why, ErrName) && !errors.Is(e.Why, ErrTooLarge)
}

// Unwrap returns Why.
func (e *RefusedError) Unwrap() error { return e.Why }

// RetryAfter is what the server said about when to try again; ok is false if it
// said nothing about it.
func RetryAfter(err error) (after time.Duration, ok bool) {
	if e, is := errors.AsType[*RefusedError](err); is && e.After > 0 {
		return e.After, true
	}
	return 0, false
}

// An ExistsError is an [ErrExists] that says what the name is taken by.
type ExistsError struct{ Sum Sum }

// Error returns what is there.
func (e *ExistsError) Error() string {
	return fmt.Sprintf("%v: %d bytes, SHA-256 %s", ErrExists, e.Sum.Size, hex.EncodeToString(e.Sum.SHA256[:]))
}

// Unwrap returns ErrExists.
func (e *ExistsError) Unwrap() error { return ErrExists }

// Permanent reports whether sending the same offer again cannot succeed
// without someone changing something: [ErrName], [ErrTooLarge], [ErrExists]
// or [ErrSource].
func Permanent(err error) bool {
	return errors.Is(err, ErrName) || errors.Is(err, ErrTooLarge) ||
		errors.Is(err, ErrExists) || errors.Is(err, ErrSource)
}

// NotStored reports whether the error of a Send says that the server did not
// keep the file, although Watcher.Matched was called. One that only ends the
// session says nothing of what was sent in it.
func NotStored(err error) bool {
	for _, ends := range []error{ErrStopping, ErrRevoked, ErrUnauthorized} {
		if errors.Is(err, ends) {
			return false
		}
	}
	_, refused := errors.AsType[*RefusedError](err)
	return refused || errors.Is(err, ErrRefused) || errors.Is(err, ErrChecksum)
}
