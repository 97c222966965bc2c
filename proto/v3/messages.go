package v3

import (
	"encoding/binary"
	"errors"
)

// ErrVersion: a header states another version than 3. What follows it cannot
// be understood.
var ErrVersion = errors.New("wrong version")

// ID is what a server calls a client.
type ID [IDSize]byte

// RequestHeader precedes every request.
type RequestHeader struct {
	Client      ID
	Code        Code
	PayloadSize uint32
}

// Append appends the [RequestHeaderSize] bytes of h.
func (h RequestHeader) Append(b []byte) []byte {
	b = append(b, h.Client[:]...)
	b = append(b, Version)
	b = binary.LittleEndian.AppendUint16(b, uint16(h.Code))
	return binary.LittleEndian.AppendUint32(b, h.PayloadSize)
}

// ParseRequestHeader reads what Append writes. Neither code nor size is
// checked: see [PayloadLimit].
func ParseRequestHeader(b []byte) (RequestHeader, error) {
	var h RequestHeader
	c := fields(b, "request header", RequestHeaderSize)
	copy(h.Client[:], c.take(IDSize))
	c.version()
	h.Code = Code(c.u16())
	h.PayloadSize = c.u32()
	return parsed(h, &c)
}

// ResponseHeader precedes every response.
type ResponseHeader struct {
	Code        Code
	PayloadSize uint32
}

// Append appends the [ResponseHeaderSize] bytes of h.
func (h ResponseHeader) Append(b []byte) []byte {
	b = append(b, Version)
	b = binary.LittleEndian.AppendUint16(b, uint16(h.Code))
	return binary.LittleEndian.AppendUint32(b, h.PayloadSize)
}

// ParseResponseHeader reads what Append writes. Neither code nor size is
// checked: see [PayloadLimit].
func ParseResponseHeader(b []byte) (ResponseHeader, error) {
	var h ResponseHeader
	c := fields(b, "response header", ResponseHeaderSize)
	c.version()
	h.Code = Code(c.u16())
	h.PayloadSize = c.u32()
	return parsed(h, &c)
}

// Names are Go strings without the padding. They come as the peer wrote them,
// not validated: package proto does that. Append panics on a name that is
// longer than [NameSize] or contains a NUL.

// Register is the payload of 825.
type Register struct{ Name string }

// Append appends the payload.
func (m Register) Append(b []byte) []byte { return appendName(b, m.Name) }

// ParseRegister reads what Append writes.
func ParseRegister(b []byte) (Register, error) {
	c := fields(b, "register", NameSize)
	return parsed(Register{Name: c.name()}, &c)
}

// PublicKey is the payload of 826.
type PublicKey struct {
	Name string
	Key  [PublicKeySize]byte // see [ParsePublicKeyInfo]
}

// Append appends the payload.
func (m PublicKey) Append(b []byte) []byte {
	return append(appendName(b, m.Name), m.Key[:]...)
}

// ParsePublicKey reads what Append writes. The key is not looked into.
func ParsePublicKey(b []byte) (PublicKey, error) {
	var m PublicKey
	c := fields(b, "public key", NameSize+PublicKeySize)
	m.Name = c.name()
	copy(m.Key[:], c.take(PublicKeySize))
	return parsed(m, &c)
}

// Reconnect is the payload of 827.
type Reconnect struct{ Name string }

// Append appends the payload.
func (m Reconnect) Append(b []byte) []byte { return appendName(b, m.Name) }

// ParseReconnect reads what Append writes.
func ParseReconnect(b []byte) (Reconnect, error) {
	c := fields(b, "reconnect", NameSize)
	return parsed(Reconnect{Name: c.name()}, &c)
}

// PacketHeader is the payload of 828 up to its ciphertext.
type PacketHeader struct {
	ContentSize  uint32    // ciphertext of the whole file, or of this packet: [Dialect.PerSlice]
	OriginalSize uint32    // plaintext of the whole file
	Numbers      [2]uint16 // number and total, or the reverse: [Dialect.TotalFirst]
	Name         string    // of the file
}

// Append appends the [PacketHeaderSize] bytes of h.
func (h PacketHeader) Append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, h.ContentSize)
	b = binary.LittleEndian.AppendUint32(b, h.OriginalSize)
	b = binary.LittleEndian.AppendUint16(b, h.Numbers[0])
	b = binary.LittleEndian.AppendUint16(b, h.Numbers[1])
	return appendName(b, h.Name)
}

// ParsePacketHeader reads what Append writes. Nothing but the name is
// allocated.
func ParsePacketHeader(b []byte) (PacketHeader, error) {
	var h PacketHeader
	c := fields(b, "packet header", PacketHeaderSize)
	h.ContentSize = c.u32()
	h.OriginalSize = c.u32()
	h.Numbers = [2]uint16{c.u16(), c.u16()}
	h.Name = c.name()
	return parsed(h, &c)
}

// Confirm is the payload of 900, 901 and 902.
type Confirm struct{ Name string } // of the file

// Append appends the payload.
func (m Confirm) Append(b []byte) []byte { return appendName(b, m.Name) }

// ParseConfirm reads what Append writes.
func ParseConfirm(b []byte) (Confirm, error) {
	c := fields(b, "confirmation", NameSize)
	return parsed(Confirm{Name: c.name()}, &c)
}

// Registered is the payload of 1600, and of 1606 and most 1604.
type Registered struct{ Client ID }

// Append appends the payload.
func (m Registered) Append(b []byte) []byte { return append(b, m.Client[:]...) }

// ParseRegistered reads what Append writes.
func ParseRegistered(b []byte) (Registered, error) {
	var m Registered
	c := fields(b, "registered", IDSize)
	copy(m.Client[:], c.take(IDSize))
	return parsed(m, &c)
}

// WrappedKey is the payload of 1602 and 1605.
type WrappedKey struct {
	Client ID
	Key    [WrappedKeySize]byte // see [UnwrapKey]
}

// Append appends the payload.
func (m WrappedKey) Append(b []byte) []byte {
	return append(append(b, m.Client[:]...), m.Key[:]...)
}

// ParseWrappedKey reads what Append writes.
func ParseWrappedKey(b []byte) (WrappedKey, error) {
	var m WrappedKey
	c := fields(b, "wrapped key", IDSize+WrappedKeySize)
	copy(m.Client[:], c.take(IDSize))
	copy(m.Key[:], c.take(WrappedKeySize))
	return parsed(m, &c)
}

// Received is the payload of 1603. The seed's client compares the whole field
// of the name with what it sent, padding and all.
type Received struct {
	Client      ID
	ContentSize uint32 // see [Plan.ReceivedSize]
	Name        string // of the file
	Cksum       uint32 // POSIX cksum of the plaintext
}

// Append appends the payload.
func (m Received) Append(b []byte) []byte {
	b = append(b, m.Client[:]...)
	b = binary.LittleEndian.AppendUint32(b, m.ContentSize)
	b = appendName(b, m.Name)
	return binary.LittleEndian.AppendUint32(b, m.Cksum)
}

// ParseReceived reads what Append writes.
func ParseReceived(b []byte) (Received, error) {
	var m Received
	c := fields(b, "received", receivedSize)
	copy(m.Client[:], c.take(IDSize))
	m.ContentSize = c.u32()
	m.Name = c.name()
	m.Cksum = c.u32()
	return parsed(m, &c)
}
