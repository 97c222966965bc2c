// Package v4 is the pure codec and cryptography of Ferry's wire version 4:
// bytes in, structs out. docs/protocol-v4.md fixes every byte of it.
//
// All of it passes inside TLS 1.3. A message is a [Header] and a payload.
// Before the session's keys are agreed on, payloads are as they are; after it,
// every payload is sealed by a [Sealer] and opened by the other side's [Opener].
// Numbers are little-endian.
package v4

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Protocol is the ALPN name (RFC 7301) under which the version is spoken.
const Protocol = "ferry/4"

// Sizes and limits, in bytes.
const (
	HeaderSize = 16
	TagSize    = 16 // that sealing adds to a payload
	IDSize     = 16

	MinPacket     = 8 << 10 // of plaintext; what is used unless more is agreed on
	MaxPacket     = 1 << 20
	MaxSmall      = 64 << 10 // content of a file that comes in one message
	MaxName       = 1024     // of a file
	MaxClientName = 255
	MaxToken      = 64
	MaxKey        = 2048 // a SubjectPublicKeyInfo in DER
	MaxWords      = 512  // of a refusal
	MaxEnvelope   = 64 << 10
	MaxStored     = 128 // files that one answer is for
	MaxSends      = 4   // of a file: the first one and three more

	// MaxClear is the longest payload of a message before the session's keys.
	MaxClear = 4 << 10
)

// Code says what a message is.
type Code uint16

// The messages. Those that version 3 has keep its codes.
const (
	CodeRegister  Code = 825 // client: name and join token
	CodePublicKey Code = 826 // client: its key
	CodeReconnect Code = 827 // client: id and name
	CodePacket    Code = 828 // client: bytes of a file
	CodeProve     Code = 829 // client: the first sealed message
	CodeOffer     Code = 830 // client: a file is to come
	CodeEnd       Code = 831 // client: all of it has been sent
	CodeFile      Code = 832 // client: offer, content and end of a small file
	CodeRotate    Code = 833 // client: another key in place of its own
	CodeAgain     Code = 901 // client: the file comes again from its start
	CodeGiveUp    Code = 902 // client: the file is not to be stored

	CodeRegistered Code = 1600 // server: the id
	CodeNameTaken  Code = 1601 // server
	CodeKey        Code = 1602 // server: a wrapped secret for a new client
	CodeStored     Code = 1603 // server: files are durable; the receipt
	CodeThanks     Code = 1604 // server: how far a file is kept, that it is at work on it yet, or that a key was replaced
	CodeReconnKey  Code = 1605 // server: a wrapped secret for a known client
	CodeUnknown    Code = 1606 // server: no such client
	CodeRefused    Code = 1607 // server: no, and why
	CodeDiffers    Code = 1608 // server: the sums differ
	CodeWelcome    Code = 1610 // server: the client is who it says; limits
	CodeGo         Code = 1611 // server: from where on a file is wanted
)

var codeNames = map[Code]string{
	CodeRegister: "register", CodePublicKey: "public key", CodeReconnect: "reconnect", CodePacket: "packet",
	CodeProve: "prove", CodeOffer: "offer", CodeEnd: "end", CodeFile: "file", CodeRotate: "rotate",
	CodeAgain: "again", CodeGiveUp: "give up",
	CodeRegistered: "registered", CodeNameTaken: "name taken", CodeKey: "key", CodeStored: "stored", CodeThanks: "thanks",
	CodeReconnKey: "reconnected", CodeUnknown: "unknown client", CodeRefused: "refused", CodeDiffers: "differs",
	CodeWelcome: "welcome", CodeGo: "go",
}

// String returns the code's number and name.
func (c Code) String() string {
	if name, ok := codeNames[c]; ok {
		return fmt.Sprintf("%d (%s)", uint16(c), name)
	}
	return fmt.Sprintf("%d (unknown)", uint16(c))
}

// ErrFormat: bytes that are no message of the version.
var ErrFormat = errors.New("malformed")

// Header begins every message, and is what sealing authenticates beside the
// payload.
type Header struct {
	Code   Code
	Length uint32 // of the payload, its tag included
	// Number is a packet's offset in its file, in bytes; of all other messages
	// about files the number that the client gave the file in this session; else 0.
	Number uint64
}

// Append appends the header's bytes.
func (h Header) Append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint16(b, uint16(h.Code))
	b = le.AppendUint16(b, 0)
	b = le.AppendUint32(b, h.Length)
	return le.AppendUint64(b, h.Number)
}

// ParseHeader reads the first [HeaderSize] bytes of b. Bits that have no meaning
// must be 0.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderSize {
		return Header{}, fmt.Errorf("%w header: %d bytes", ErrFormat, len(b))
	}
	le := binary.LittleEndian
	if le.Uint16(b[2:]) != 0 {
		return Header{}, fmt.Errorf("%w header: bytes that must be 0 are %#x", ErrFormat, le.Uint16(b[2:]))
	}
	return Header{Code: Code(le.Uint16(b)), Length: le.Uint32(b[4:]), Number: le.Uint64(b[8:])}, nil
}

// PayloadLimit is the longest plaintext payload that a message may have when
// packets of up to packet bytes were agreed on. It is 0 for codes that do not
// exist and for messages without a payload.
func PayloadLimit(c Code, packet int) int {
	switch c {
	case CodePacket:
		return packet
	case CodeFile:
		return maxOffer + MaxSmall
	case CodeOffer:
		return maxOffer
	case CodeStored:
		return 4 + 8*MaxStored + 4 + MaxEnvelope
	case CodeRegister, CodePublicKey, CodeReconnect, CodeProve, CodeEnd, CodeRotate,
		CodeRegistered, CodeKey, CodeReconnKey, CodeThanks, CodeUnknown, CodeRefused, CodeDiffers, CodeWelcome, CodeGo:
		return MaxClear
	case CodeAgain, CodeGiveUp, CodeNameTaken:
	}
	return 0
}

// maxOffer is the longest offer.
const maxOffer = offerFixed + 2 + MaxName
