// Package proto is Ferry's native conversation: both halves, every version.
//
// A client offers a file under a name and sends its bytes; the server takes
// them, proves with a checksum that it holds the same, and acknowledges once
// the file is durable. What the versions share is here: the vocabulary
// ([Offer], [Sum], [Receipt], the errors), a [Session] and a [Transfer] for
// the server, and a [Client] for the other side. Which version speaks is
// chosen once, by the listener (an [Accept]) or by the destination's URL
// (a [Destination]).
package proto

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"time"
)

// ClientID is what a server calls a client: 16 random bytes it chose.
type ClientID [16]byte

// String returns the id as 32 lower-case hexadecimal digits.
func (id ClientID) String() string { return hex.EncodeToString(id[:]) }

// ParseClientID reads what [ClientID.String] writes.
func ParseClientID(s string) (ClientID, error) {
	var id ClientID
	if len(s) != hex.EncodedLen(len(id)) {
		return ClientID{}, fmt.Errorf("client id: %d characters, want %d", len(s), hex.EncodedLen(len(id)))
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return ClientID{}, fmt.Errorf("client id: %w", err)
	}
	return id, nil
}

// Registration is what a server keeps of a client.
type Registration struct {
	ID        ClientID
	Name      ClientName
	PublicKey []byte // SubjectPublicKeyInfo in DER
}

// Directory is what a server's sessions ask about clients. It is safe for
// concurrent use.
type Directory interface {
	// ByID returns the registration with that id, or [ErrUnknownClient].
	ByID(ctx context.Context, id ClientID) (Registration, error)
	// NameFree reports whether no client is registered under name.
	NameFree(ctx context.Context, name ClientName) (bool, error)
	// Register records a client, durably when it returns nil. It returns
	// [ErrNameTaken] if another client has the name and changes nothing then.
	Register(ctx context.Context, r Registration) error
	// Seen notes that the client was here just now.
	Seen(ctx context.Context, id ClientID) error
}

// Offer is a file that a client wants to deliver.
type Offer struct {
	Name FileName
	Size int64 // of the plaintext, in bytes
	// Sum is what the sender recorded when it took the file in, or nil. Bytes
	// from the Source that do not add up to it are never confirmed: see
	// [ErrSource].
	Sum *Sum
}

// Receipt says that the server holds the file, verified and durable.
type Receipt struct {
	ClientID ClientID
	Name     FileName
	Sum      Sum
	At       time.Time // when the acknowledgement arrived, by the sender's clock
	Sends    int       // how often the whole file was sent: 1, and one more for each failed checksum
}

// Source opens the offered bytes from the start. It is called once for each
// send of the file, as http.Request.GetBody is; the reader is closed after
// each. Fewer or more bytes than offered are an [ErrSource].
type Source func() (io.ReadCloser, error)

// Phase is where a delivery stands.
type Phase string

// The phases in the order in which a delivery passes through them; a failed
// checksum goes back from verifying to sending.
const (
	PhaseConnecting Phase = "connecting" // no connection yet
	PhaseKeying     Phase = "keying"     // connected; registering or reconnecting
	PhaseSending    Phase = "sending"    // packets are on their way
	PhaseVerifying  Phase = "verifying"  // all sent; waiting for the checksum and the acknowledgement
)

// Progress is how far a delivery has come. Bytes and packets count what the
// server has acknowledged where the dialect acknowledges packets, and what was
// written to the connection where it does not.
type Progress struct {
	Phase        Phase
	Bytes        int64 // of the plaintext
	TotalBytes   int64
	Packets      int64
	TotalPackets int64
	Send         int // 1 for the first send of the file; 2 to 4 for the resends
}

// Watcher lets a caller of [Client.Send] follow it. Nil functions are skipped.
type Watcher struct {
	// Progress is called from Send's goroutine at every change of phase and
	// after packets, possibly thousands of times a second: it must be quick.
	Progress func(Progress)
	// Matched is called when the server's checksum equals ours, before that is
	// confirmed to the server: from then on the file may be stored even if no
	// answer arrives. If it returns an error, nothing is confirmed and Send
	// returns that error.
	Matched func(ctx context.Context) error
}

// Session is the server's half of one connection, after the handshake. It is
// used by one goroutine.
type Session interface {
	// Client is who was registered or recognised in the handshake.
	Client() Registration
	// Next returns the next file that the client offers; the Transfer before
	// must have ended in Accept or Refuse, or Receive in an error. It returns
	// io.EOF when the client has left, between files.
	Next(ctx context.Context) (Transfer, error)
}

// Transfer is one offered file. Exactly one of these sequences is called:
// Refuse; Receive with an error, whereupon the session has told the client
// what there was to tell; Receive, then Accept or Refuse.
type Transfer interface {
	// Offer is what is known before the first byte. Sum is nil in version 3.
	Offer() Offer
	// Receive writes the plaintext to dst, from the start again for each
	// resend after dst.Reset, and returns what it adds up to once the client
	// has confirmed that sum. The bytes in dst are then the client's, but
	// nothing has been acknowledged. It returns [ErrChecksum] if the client
	// gave up, and dst's error if dst could not take the bytes, after the
	// client was told.
	Receive(ctx context.Context, dst Sink) (Sum, error)
	// Accept acknowledges the file: it must be durable by now.
	Accept(ctx context.Context) error
	// Refuse tells the client that the file was not taken, as far as the
	// version can say why. The session can go on with Next afterwards.
	Refuse(ctx context.Context, why error) error
}

// Sink is where Receive puts a file's bytes.
type Sink interface {
	io.Writer
	// Reset drops what was written so far.
	Reset() error
}
