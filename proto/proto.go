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
	"io/fs"
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

// TransferID is what a sender calls the delivery of one file: chosen by it, kept
// over retries, and never used for another file. The zero value is none.
type TransferID [16]byte

// String returns the id as 32 lower-case hexadecimal digits.
func (id TransferID) String() string { return hex.EncodeToString(id[:]) }

// Registration is what a server keeps of a client.
type Registration struct {
	ID        ClientID
	Name      ClientName
	PublicKey []byte // SubjectPublicKeyInfo in DER
}

// Directory is what a server's sessions ask about clients. It is safe for
// concurrent use.
type Directory interface {
	// ByID returns the registration with that id, [ErrUnknownClient], or
	// [ErrRevoked].
	ByID(ctx context.Context, id ClientID) (Registration, error)
	// Admits reports whether a client may register under name with that join
	// token, which may be empty: nil, [ErrNameTaken], or [ErrUnauthorized]. It
	// changes nothing. The id is the one to register with: id, or that of the
	// client of that name whose key the token may replace.
	Admits(ctx context.Context, name ClientName, id ClientID, token string) (ClientID, error)
	// Register records a client and uses the token, durably when it returns nil.
	// Errors are those of Admits, and nothing has changed then.
	Register(ctx context.Context, r Registration, token string) error
	// Replace records another public key of a client in place of old, durably
	// when it returns nil. It returns [ErrUnauthorized] if old is not its key.
	Replace(ctx context.Context, id ClientID, old, fresh []byte) error
	// Seen notes that the client was here just now.
	Seen(ctx context.Context, id ClientID) error
}

// Offer is a file that a client wants to deliver.
type Offer struct {
	// ID is kept over retries, so that a transfer goes on where it ended. A
	// version that cannot carry it leaves it out.
	ID      TransferID
	Name    FileName
	Size    int64       // of the plaintext, in bytes
	Mode    fs.FileMode // permission bits; 0 if not stated
	ModTime time.Time   // zero if not stated
	// Sum is what the sender recorded when it took the file in, or nil. Bytes
	// from the Source that do not add up to it are never confirmed: see
	// [ErrSource].
	Sum *Sum
}

// Stored is a file that a server holds, verified and durable.
type Stored struct {
	Name     FileName
	Sum      Sum
	Transfer TransferID // that it came by; zero if none is known
	At       time.Time  // when it was recorded, by the server's clock
}

// Receipt says that the server holds the file, verified and durable.
type Receipt struct {
	ClientID ClientID
	Name     FileName
	Sum      Sum
	At       time.Time // when the acknowledgement arrived, by the sender's clock
	Sends    int       // how often the whole file was sent: 1, and one more for each failed checksum; 0 if the server had it already
	// Envelope is what the server signed: see [VerifyReceipt], which has been
	// called. It is nil where the version has none.
	Envelope []byte
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
	From         int64 // of Bytes, so many the server had kept from before
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
	// Matched is called when all is well as far as the client can tell, before the
	// message is sent upon which the server stores the file: in version 3 its
	// checksum equals ours, in version 4 everything has been sent, or is about to
	// be in one message. From then on the file may be stored even if no answer
	// arrives. If it returns an error, the message is not sent and Send returns
	// that error. It is called again for each resend.
	Matched func(ctx context.Context) error
	// Summed is called from Send's goroutine when the server keeps more of a file
	// that is offered without its Sum: state is that of a [Summer] of as much, or
	// of a little less. With nil, what was summed is not to be trusted any more.
	Summed func(state []byte)
	// Begun is what Summed was called with last for the same transfer, by this
	// process or by one that has ended: what the server keeps is then not read
	// again. A state that is none counts as nil.
	Begun []byte
}

// Session is the server's half of one connection, after the handshake. Next and
// each Transfer's Receive are called by one goroutine.
type Session interface {
	// Client is who was registered or recognised in the handshake.
	Client() Registration
	// Next returns the next file that the client offers, once the Transfer before
	// has been received or has ended; a version that has one file at a time waits
	// for its end. It returns io.EOF when the client has left, between files.
	Next(ctx context.Context) (Transfer, error)
	// Close waits until what was acknowledged or refused has been said, and
	// ends the session; it does not close the connection. All transfers must have
	// ended, and Next must have returned.
	Close() error
}

// Transfer is one offered file. Exactly one of these sequences is called:
// Refuse; Exists; Receive with an error, whereupon the session has told the
// client what there was to tell; Receive, then Accept, Exists or Refuse. What
// follows Receive may be called from any goroutine.
type Transfer interface {
	// Offer is what is known before the first byte. ID and Sum are left out in
	// version 3.
	Offer() Offer
	// Receive writes the plaintext to dst and returns what it adds up to once the
	// client has confirmed that sum. It goes on behind what dst has kept of the
	// same transfer, if anything, and begins from the start again for each resend
	// after dst.Reset. The bytes in dst are then the client's, but nothing has
	// been acknowledged. It returns [ErrChecksum] if the client gave up, and
	// dst's error if dst could not take the bytes, after the client was told.
	Receive(ctx context.Context, dst Sink) (Sum, error)
	// Accept acknowledges the file: it must be durable by now.
	Accept(ctx context.Context, as Stored) error
	// Exists says that the server holds a file of that name, from another
	// transfer or from this one, whose acknowledgement was lost. What is told
	// depends on the version, and on whether it is the same content: that can be
	// an acknowledgement, or the refusal [ErrExists].
	Exists(ctx context.Context, as Stored) error
	// Refuse tells the client that the file was not taken, as far as the
	// version can say why: see the errors of this package. The session can go on
	// with Next afterwards.
	Refuse(ctx context.Context, why error) error
}

// Sink is where Receive puts a file's bytes. An error of it that is one of this
// package's is told to the client.
type Sink interface {
	io.Writer
	// Reset drops what was written so far, and what was kept.
	Reset() error
	// Kept is how many bytes are there from connections before, and the state
	// that was kept with them. Write goes on behind them.
	Kept() (size int64, state []byte)
	// Keep keeps what was written so far, together with state, for another
	// connection: it survives the end of the process when it returns nil.
	Keep(state []byte) error
}
