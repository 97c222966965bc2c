package proto

import "errors"

// What a caller may test for with errors.Is. An error of this package that is
// none of them is the network's: a connection that could not be made, broke,
// or was silent past its deadline.
var (
	// ErrName: a file or client name that no server would take.
	ErrName = errors.New("name not allowed")
	// ErrTooLarge: the file is larger than the destination's version can carry.
	ErrTooLarge = errors.New("too large for the destination")
	// ErrExists: the server has a file of that name already, and said so
	// before it took any byte.
	ErrExists = errors.New("a file of that name exists at the destination")
	// ErrRefused: the server answered with a general error. After a call of
	// Watcher.Matched it means that the file was not stored by this attempt.
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
)

// Permanent reports whether sending the same offer again cannot succeed
// without someone changing something: [ErrName], [ErrTooLarge], [ErrExists]
// or [ErrSource].
func Permanent(err error) bool {
	return errors.Is(err, ErrName) || errors.Is(err, ErrTooLarge) ||
		errors.Is(err, ErrExists) || errors.Is(err, ErrSource)
}
