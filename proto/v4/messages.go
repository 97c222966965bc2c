package v4

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"
)

// Register asks for an id: the payload of 825.
type Register struct {
	Name  string
	Token string // the join token; empty if there is none
}

// Append appends the payload.
func (m Register) Append(b []byte) []byte { return appendBytes(appendBytes(b, m.Name), m.Token) }

// ParseRegister reads a whole payload.
func ParseRegister(b []byte) (Register, error) {
	c := cursor{b: b}
	m := Register{Name: string(c.bytes(MaxClientName)), Token: string(c.bytes(MaxToken))}
	return whole(&c, m)
}

// Client is a payload that is an id alone: those of 1600 and 1606.
type Client struct{ ID [IDSize]byte }

// Append appends the payload.
func (m Client) Append(b []byte) []byte { return append(b, m.ID[:]...) }

// ParseClient reads a whole payload.
func ParseClient(b []byte) (Client, error) {
	c := cursor{b: b}
	m := Client{ID: c.id()}
	return whole(&c, m)
}

// PublicKey is the payload of 826.
type PublicKey struct{ Key []byte } // SubjectPublicKeyInfo in DER

// Append appends the payload.
func (m PublicKey) Append(b []byte) []byte { return appendBytes(b, m.Key) }

// ParsePublicKey reads a whole payload; the key shares its memory.
func ParsePublicKey(b []byte) (PublicKey, error) {
	c := cursor{b: b}
	m := PublicKey{Key: c.bytes(MaxKey)}
	return whole(&c, m)
}

// Reconnect is the payload of 827.
type Reconnect struct {
	ID   [IDSize]byte
	Name string
}

// Append appends the payload.
func (m Reconnect) Append(b []byte) []byte { return appendBytes(append(b, m.ID[:]...), m.Name) }

// ParseReconnect reads a whole payload.
func ParseReconnect(b []byte) (Reconnect, error) {
	c := cursor{b: b}
	m := Reconnect{ID: c.id(), Name: string(c.bytes(MaxClientName))}
	return whole(&c, m)
}

// Wrapped is the payload of 1602 and 1605.
type Wrapped struct {
	ID     [IDSize]byte
	Secret []byte // see [WrapSecret]
}

// Append appends the payload.
func (m Wrapped) Append(b []byte) []byte { return appendBytes(append(b, m.ID[:]...), m.Secret) }

// ParseWrapped reads a whole payload; the secret shares its memory.
func ParseWrapped(b []byte) (Wrapped, error) {
	c := cursor{b: b}
	m := Wrapped{ID: c.id(), Secret: c.bytes(MaxKey)}
	return whole(&c, m)
}

// Prove is the payload of 829, the client's first sealed message.
type Prove struct{ Packet uint32 } // the largest packet that the client would send, in bytes of plaintext

// Append appends the payload.
func (m Prove) Append(b []byte) []byte { return binary.LittleEndian.AppendUint32(b, m.Packet) }

// ParseProve reads a whole payload.
func ParseProve(b []byte) (Prove, error) {
	c := cursor{b: b}
	m := Prove{Packet: c.u32()}
	return whole(&c, m)
}

// Welcome is the payload of 1610: what holds in this session.
type Welcome struct {
	Packet uint32 // the largest packet, in bytes of plaintext
	// Window is how many bytes of a file may be on their way beyond what the
	// server has said it keeps.
	Window uint64
	// Unanswered is how many small files may be on their way.
	Unanswered uint32
}

// Append appends the payload.
func (m Welcome) Append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, m.Packet)
	b = binary.LittleEndian.AppendUint64(b, m.Window)
	return binary.LittleEndian.AppendUint32(b, m.Unanswered)
}

// ParseWelcome reads a whole payload.
func ParseWelcome(b []byte) (Welcome, error) {
	c := cursor{b: b}
	m := Welcome{Packet: c.u32(), Window: c.u64(), Unanswered: c.u32()}
	if err := c.end(); err != nil {
		return Welcome{}, err
	}
	if m.Packet < MinPacket || m.Packet > MaxPacket || m.Window < uint64(m.Packet) || m.Window > math.MaxInt64 || m.Unanswered < 1 {
		return Welcome{}, fmt.Errorf("%w: packet %d, window %d, unanswered %d", ErrFormat, m.Packet, m.Window, m.Unanswered)
	}
	return m, nil
}

// Sum is what a file adds up to.
type Sum struct {
	Cksum  uint32 // POSIX
	SHA256 [32]byte
}

// Append appends the sum: the payload of 831.
func (m Sum) Append(b []byte) []byte {
	return append(binary.LittleEndian.AppendUint32(b, m.Cksum), m.SHA256[:]...)
}

// ParseSum reads a whole payload.
func ParseSum(b []byte) (Sum, error) {
	c := cursor{b: b}
	m := c.sum()
	return whole(&c, m)
}

func (c *cursor) sum() Sum { return Sum{Cksum: c.u32(), SHA256: c.sha256()} }

// Offer is the payload of 830, and the beginning of that of 832.
type Offer struct {
	Transfer [IDSize]byte // chosen by the sender, kept over retries
	Size     int64        // bytes
	Mode     uint32       // permission bits; 0 if not stated
	ModTime  int64        // nanoseconds since 1970, UTC; [NoTime] if not stated
	Known    bool         // whether Sum is known
	Sum      Sum
	Name     string
}

// NoTime is an Offer's ModTime that is not stated.
const NoTime = math.MinInt64

const (
	offerFixed = IDSize + 8 + 4 + 8 + 1 + 4 + 32
	offerKnown = 1 // the only flag
	permBits   = 0o777
)

// Append appends the offer.
func (m Offer) Append(b []byte) []byte {
	le := binary.LittleEndian
	b = append(b, m.Transfer[:]...)
	b = le.AppendUint64(b, uint64(m.Size)) //nolint:gosec // not negative
	b = le.AppendUint32(b, m.Mode)
	b = le.AppendUint64(b, uint64(m.ModTime)) //nolint:gosec // two's complement is meant
	flags, sum := byte(0), Sum{}
	if m.Known {
		flags, sum = offerKnown, m.Sum
	}
	b = sum.Append(append(b, flags))
	return appendBytes(b, m.Name)
}

// ParseOffer reads a whole payload of 830.
func ParseOffer(b []byte) (Offer, error) {
	c := cursor{b: b}
	m := c.offer()
	return whole(&c, m)
}

// ParseFile reads a whole payload of 832; the content shares its memory. Its
// sum is known, and its size that of the content.
func ParseFile(b []byte) (Offer, []byte, error) {
	c := cursor{b: b}
	m := c.offer()
	content := c.rest()
	if err := c.end(); err != nil {
		return Offer{}, nil, err
	}
	if !m.Known || m.Size != int64(len(content)) || m.Size > MaxSmall {
		return Offer{}, nil, fmt.Errorf("%w: a file of %d bytes in one message that has %d, sum known: %t", ErrFormat, m.Size, len(content), m.Known)
	}
	return m, content, nil
}

func (c *cursor) offer() Offer {
	m := Offer{Transfer: c.id(), Size: c.size(), Mode: c.u32(), ModTime: int64(c.u64())} //nolint:gosec // two's complement is meant
	flags := c.u8()
	m.Known, m.Sum = flags&offerKnown != 0, c.sum()
	m.Name = string(c.bytes(MaxName))
	if c.err == nil && (flags&^offerKnown != 0 || m.Mode&^permBits != 0 || !m.Known && m.Sum != Sum{}) {
		c.err = fmt.Errorf("%w: offer with flags %#x, mode %#o", ErrFormat, flags, m.Mode)
	}
	return m
}

// Offset is the payload of 1604 and 1611: so many bytes from the start of the
// file are kept.
type Offset struct{ Bytes int64 }

// Append appends the payload.
func (m Offset) Append(b []byte) []byte {
	return binary.LittleEndian.AppendUint64(b, uint64(m.Bytes)) //nolint:gosec // not negative
}

// ParseOffset reads a whole payload.
func ParseOffset(b []byte) (Offset, error) {
	c := cursor{b: b}
	m := Offset{Bytes: c.size()}
	return whole(&c, m)
}

// Stored is the payload of 1603: the files with these numbers are verified and
// durable.
type Stored struct {
	Numbers  []uint64
	Envelope []byte // the receipt, which speaks of each of them
}

// Append appends the payload.
func (m Stored) Append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, uint32(len(m.Numbers))) //nolint:gosec // at most MaxStored
	for _, n := range m.Numbers {
		b = le.AppendUint64(b, n)
	}
	b = le.AppendUint32(b, uint32(len(m.Envelope))) //nolint:gosec // at most MaxEnvelope
	return append(b, m.Envelope...)
}

// ParseStored reads a whole payload; the envelope shares its memory.
func ParseStored(b []byte) (Stored, error) {
	c := cursor{b: b}
	count := c.u32()
	if c.err == nil && (count < 1 || count > MaxStored) {
		c.err = fmt.Errorf("%w: an answer for %d files", ErrFormat, count)
	}
	var m Stored
	if c.err == nil {
		m.Numbers = make([]uint64, count)
	}
	for i := range m.Numbers {
		m.Numbers[i] = c.u64()
	}
	length := c.u32()
	if c.err == nil && (length > MaxEnvelope || int(length) != len(c.b)) {
		c.err = fmt.Errorf("%w: a receipt of %d bytes where there are %d", ErrFormat, length, len(c.b))
	}
	m.Envelope = c.rest()
	return whole(&c, m)
}

// Differs is the payload of 1608: what the server has of the file.
type Differs struct {
	Size int64
	Sum  Sum
}

// Append appends the payload.
func (m Differs) Append(b []byte) []byte { return m.Sum.Append(Offset{m.Size}.Append(b)) }

// ParseDiffers reads a whole payload.
func ParseDiffers(b []byte) (Differs, error) {
	c := cursor{b: b}
	m := Differs{Size: c.size(), Sum: c.sum()}
	return whole(&c, m)
}

// Reason is why something was refused.
type Reason uint16

// The reasons. A client takes one that it does not know for ReasonInternal.
const (
	ReasonInternal     Reason = 1  // something is wrong with the server
	ReasonViolation    Reason = 2  // the peer said what the version does not allow; the session ends
	ReasonExists       Reason = 3  // the name is taken by other content, which Differs describes
	ReasonName         Reason = 4  // the name is not allowed
	ReasonTooLarge     Reason = 5  // the file is larger than the server takes
	ReasonQuota        Reason = 6  // the client has stored, or is sending, as much as it may
	ReasonNoRoom       Reason = 7  // the server's disk is full
	ReasonUnauthorized Reason = 8  // join token, key or proof are not good; the session ends
	ReasonRevoked      Reason = 9  // the operator has revoked the client; the session ends
	ReasonBusy         Reason = 10 // too much at once
	ReasonStopping     Reason = 11 // the server is shutting down; the session ends
)

// Refused is the payload of 1607.
type Refused struct {
	Reason Reason
	// After says when it may be tried again, in milliseconds; 0: that cannot help.
	After uint32
	Words string // for people: UTF-8
	// Exists is what has the name, with ReasonExists; else zero.
	Exists Differs
}

// Append appends the payload. Words beyond [MaxWords] are cut off, before a
// character that would not be whole, and what is not UTF-8 is left out.
func (m Refused) Append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint16(b, uint16(m.Reason))
	b = binary.LittleEndian.AppendUint32(b, m.After)
	b = appendBytes(b, strings.ToValidUTF8(m.Words[:min(len(m.Words), MaxWords)], ""))
	if m.Reason == ReasonExists {
		b = m.Exists.Append(b)
	}
	return b
}

// ParseRefused reads a whole payload.
func ParseRefused(b []byte) (Refused, error) {
	c := cursor{b: b}
	m := Refused{Reason: Reason(c.u16()), After: c.u32(), Words: string(c.bytes(MaxWords))}
	if c.err == nil && !utf8.ValidString(m.Words) {
		c.err = fmt.Errorf("%w: words that are not UTF-8", ErrFormat)
	}
	if m.Reason == ReasonExists {
		m.Exists = Differs{Size: c.size(), Sum: c.sum()}
	}
	return whole(&c, m)
}

// Rotate is the payload of 833.
type Rotate struct {
	Key       []byte // SubjectPublicKeyInfo in DER
	Signature []byte // by that key: see [RotateContext]
}

// Append appends the payload.
func (m Rotate) Append(b []byte) []byte { return appendBytes(appendBytes(b, m.Key), m.Signature) }

// ParseRotate reads a whole payload; its parts share its memory.
func ParseRotate(b []byte) (Rotate, error) {
	c := cursor{b: b}
	m := Rotate{Key: c.bytes(MaxKey), Signature: c.bytes(MaxKey)}
	return whole(&c, m)
}
