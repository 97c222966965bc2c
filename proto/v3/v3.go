// Package v3 is the pure codec and cryptography of wire version 3: bytes in,
// struct out. It opens no connection, reads no clock and keeps no file; the
// conversation itself is held by package proto, the only importer.
//
// There is one struct for each message, with Append and Parse side by side.
// Parsing is strict: what parses encodes back to the same bytes, and a failed
// parse returns the zero value. The dialects of the old programs are values of
// [Dialect]: a [Packer] turns plaintext into the packets of one dialect, and
// [Recognize] finds out from the first packet which one a client speaks and
// returns the [Unpacker] for it.
//
// # Cryptography
//
// RSA of 1024 bits with exponent 17, OAEP with SHA-1, and AES-256-CBC with an
// IV of zeros and no authentication are what the programs of version 3 speak,
// and the reason why version 3 belongs on loopback or a trusted network only:
// who can change the bytes on the way can change the file, and equal files
// under one key have equal ciphertexts. They exist here for those programs'
// sake. Only package proto may call them, and nothing else may be built on
// them.
package v3

import "fmt"

// Version is the version byte in every header.
const Version = 3

// The conversation. All integers are little-endian; one connection carries one
// client's conversation.
//
//	client                                server
//	825 name                        ->
//	                                <-    1600 id            | 1601
//	826 name, public key            ->
//	                                <-    1602 wrapped key
//	   or, when it has an id:
//	827 name                        ->
//	                                <-    1605 wrapped key   | 1606, and the client registers
//
//	828 packet 1..total             ->
//	                                <-    1604 after each    (seed dialect only)
//	                                <-    1603 checksum
//	900 equal                       ->
//	                                <-    1604
//	   or, up to 3 times: 901, and every packet again from number 1
//	   or, after the 4th: 902       ->
//	                                <-    1604
//
// A 1607 answers whatever the server refuses. What the programs add to this:
//
//   - seed's client repeats a request that was answered 1607 up to three times
//     (seed/scenario-same-file-again), mainstream-8192's one that was answered
//     1606 (mainstream-8192/scenario-reconnect-unknown), and three programs one
//     that was answered 1601 (scenario-name-taken).
//   - mainstream-734's client sends neither 900, 901 nor 902: it closes after a
//     1603 that it likes, and else sends packet 1 again at once, five sends in
//     all (mainstream-734/scenario-badcrc-all).
//   - mainstream-8192's server answers 901 with 1604, and its client waits for
//     that (mainstream-8192/scenario-badcrc-all).
//   - The id in an 825 means nothing: zeros (seed, mainstream-4096,
//     per-slice-1040), 0xFF (mainstream-734), 'a' (mainstream-8192) and a stale
//     id (scenario-reconnect-unknown of the last two kinds) were seen.

// Code is what a message means.
type Code uint16

// Requests.
const (
	CodeRegister  Code = 825 // [Register]
	CodePublicKey Code = 826 // [PublicKey]
	CodeReconnect Code = 827 // [Reconnect]
	CodePacket    Code = 828 // [PacketHeader], then ciphertext
	CodeEqual     Code = 900 // [Confirm]: the checksums are equal
	CodeDiffers   Code = 901 // [Confirm]: they differ, every packet comes again
	CodeGiveUp    Code = 902 // [Confirm]: they differ for the fourth time
)

// Responses.
const (
	CodeRegistered   Code = 1600 // [Registered]
	CodeNameTaken    Code = 1601 // empty
	CodeKey          Code = 1602 // [WrappedKey], answers 826
	CodeReceived     Code = 1603 // [Received]
	CodeThanks       Code = 1604 // see [Dialect.AppendThanks]
	CodeReconnected  Code = 1605 // [WrappedKey], answers 827
	CodeUnknown      Code = 1606 // [Registered] with the id that was asked for; mainstream-8192 sends it empty
	CodeGeneralError Code = 1607 // empty
)

// String returns the number and what it means.
func (c Code) String() string {
	if s := c.meaning(); s != "" {
		return fmt.Sprintf("%d (%s)", uint16(c), s)
	}
	return fmt.Sprintf("%d (unknown)", uint16(c))
}

func (c Code) meaning() string {
	switch c {
	case CodeRegister:
		return "register"
	case CodePublicKey:
		return "public key"
	case CodeReconnect:
		return "reconnect"
	case CodePacket:
		return "file packet"
	case CodeEqual:
		return "checksum equal"
	case CodeDiffers:
		return "checksum differs"
	case CodeGiveUp:
		return "given up"
	case CodeRegistered:
		return "registered"
	case CodeNameTaken:
		return "registration refused"
	case CodeKey:
		return "key"
	case CodeReceived:
		return "file received"
	case CodeThanks:
		return "thanks"
	case CodeReconnected:
		return "reconnected"
	case CodeUnknown:
		return "reconnect refused"
	case CodeGeneralError:
		return "general error"
	}
	return ""
}

// Sizes in bytes. They are the protocol's, the same in all recordings.
const (
	IDSize             = 16
	NameSize           = 255 // the NUL-padded field, and so the longest name
	PublicKeySize      = 160 // SubjectPublicKeyInfo of 1024 bits with a one-byte exponent
	WrappedKeySize     = 128 // one RSA block of 1024 bits
	RequestHeaderSize  = IDSize + 1 + 2 + 4
	ResponseHeaderSize = 1 + 2 + 4
	PacketHeaderSize   = 4 + 4 + 2 + 2 + NameSize // 267, what precedes the ciphertext
	receivedSize       = IDSize + 4 + NameSize + 4
)

// MaxSends is how often a client sends a file before it gives up: once, and
// again after each of three 901. mainstream-734 sends five times.
const MaxSends = 4

// Limits of ours.
const (
	// MaxSlice is the most ciphertext that one packet may hold. The largest seen
	// is 8192 (mainstream-8192); with 64 KiB the 65,535 packets that the 16-bit
	// numbers allow carry what the 32-bit sizes allow, but for the last 64 KiB.
	MaxSlice = 64 << 10
	// maxIgnored bounds a payload that is read and dropped: old servers put
	// nothing or an id into 1601, 1604, 1606 and 1607.
	maxIgnored = 1 << 10
)

// PayloadLimit returns the largest payload that a message may state, for a
// reader to check before it reads or allocates; ok is false for an unknown
// code. The limit of an 828 is that of a packet header and [MaxSlice] of
// ciphertext, which need not be held at once, and a seed's client states more
// than it sends: see [Unpacker.Left].
func PayloadLimit(c Code) (limit int, ok bool) {
	switch c {
	case CodeRegister, CodeReconnect, CodeEqual, CodeDiffers, CodeGiveUp:
		return NameSize, true
	case CodePublicKey:
		return NameSize + PublicKeySize, true
	case CodePacket:
		return PacketHeaderSize + MaxSlice, true
	case CodeRegistered:
		return IDSize, true
	case CodeKey, CodeReconnected:
		return IDSize + WrappedKeySize, true
	case CodeReceived:
		return receivedSize, true
	case CodeNameTaken, CodeThanks, CodeUnknown, CodeGeneralError:
		return maxIgnored, true
	}
	return 0, false
}
