package proto

import (
	"crypto/tls"
	"net"
	"time"

	"ferry/proto/v4"
)

// FramesV4 is one end of a connection of version 4, for tests of what it does to
// the connection.
type FramesV4 struct{ *framesV4 }

// ServerFramesV4 and ClientFramesV4 are the two ends, before the TLS handshake.
func ServerFramesV4(conn net.Conn, idle time.Duration, id ServerIdentity) FramesV4 {
	return FramesV4{newServerFrames(conn, idle, serverTLS(id))}
}

// ClientFramesV4 is the client's.
func ClientFramesV4(conn net.Conn, idle time.Duration, cfg *tls.Config) FramesV4 {
	return FramesV4{newClientFrames(conn, idle, cfg)}
}

// Greet performs the TLS handshake.
func (f FramesV4) Greet() error { return f.greet() }

// Key sets the keys, and what packets may have.
func (f FramesV4) Key(write, read v4.Key, packet int) error {
	f.packet = packet
	return f.key(write, read)
}

// Read reads a message.
func (f FramesV4) Read(room []byte) (v4.Header, []byte, error) {
	h, err := f.header()
	if err != nil {
		return h, nil, err
	}
	b, err := f.body(room)
	return h, b, err
}

// Say writes a message, Put leaves one to be written with the next.
func (f FramesV4) Say(code v4.Code, number uint64, payload []byte) error {
	return f.say(code, number, payload)
}

// Put leaves a message to be written with the next.
func (f FramesV4) Put(code v4.Code, number uint64, payload []byte) error {
	return f.put(code, number, payload)
}

// Reserve takes places of messages, Write writes what was sealed for them.
func (f FramesV4) Reserve(slots []v4.Slot) error { return f.reserve(slots) }

// Write writes sealed messages.
func (f FramesV4) Write(sealed []byte) error { return f.write(sealed) }

// Bye ends the conversation.
func (f FramesV4) Bye() error { return f.bye() }
