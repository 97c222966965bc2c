package proto

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"ferry/proto/v4"
)

// A framesV4 is one end of a connection of version 4: messages over TLS, as
// they are until the session's keys are there, and sealed from then on.
//
// One goroutine reads: header, then body for each message. Any may write; each
// message, and each run of those sealed elsewhere, is written as a whole.
type framesV4 struct {
	socket *socketV4
	tls    *tls.Conn
	theirs func(v4.Code) bool // whether the other end may say that
	packet int                // the largest packet, in bytes; 0 until agreed on

	// Of the goroutine that reads.
	opener *v4.Opener // nil before the keys
	opened bool       // something has been
	raw    [v4.HeaderSize]byte
	head   v4.Header // of the message whose body is to be read

	mu     sync.Mutex // guards what follows, and writing to tls
	sealer *v4.Sealer // nil before the keys
	out    []byte     // whole messages that wait to be written
	broken error      // of the first write that failed

	spoke atomic.Int64 // when messages were written last, from the socket's start
}

// mostOut is how much of messages may wait to be written together.
const mostOut = 256 << 10

// newServerFrames are those of a server's connection. Nothing has been read or
// written yet: see greet.
func newServerFrames(conn net.Conn, idle time.Duration, cfg *tls.Config) *framesV4 {
	s := &socketV4{Conn: conn, pacing: pacing{idle: idle}, start: time.Now()}
	return &framesV4{socket: s, tls: tls.Server(s, cfg), theirs: fromClientV4}
}

// newClientFrames are those of a client's connection. Its reads wait for as
// long as nothing is expected: see [socketV4.expect].
func newClientFrames(conn net.Conn, idle time.Duration, cfg *tls.Config) *framesV4 {
	s := &socketV4{Conn: conn, pacing: pacing{idle: idle}, patient: true, start: time.Now()}
	return &framesV4{socket: s, tls: tls.Client(s, cfg), theirs: fromServerV4}
}

func fromClientV4(c v4.Code) bool {
	return c >= v4.CodeRegister && c <= v4.CodeRotate || c == v4.CodeAgain || c == v4.CodeGiveUp
}

func fromServerV4(c v4.Code) bool {
	return c >= v4.CodeRegistered && c <= v4.CodeDiffers || c == v4.CodeWelcome || c == v4.CodeGo
}

// greet performs the TLS handshake, and wants the version's name agreed on.
func (f *framesV4) greet() error {
	// A context that can end would make crypto/tls close the connection; the
	// socket's deadlines are what ends this.
	if err := f.tls.HandshakeContext(context.Background()); err != nil {
		return notVouchedFor(err)
	}
	if p := f.tls.ConnectionState().NegotiatedProtocol; p != v4.Protocol {
		return fmt.Errorf("%w: the peer speaks %q in TLS, not %q", ErrProtocol, p, v4.Protocol)
	}
	return nil
}

// exporter is a value that the two ends of this TLS connection have, and nobody
// else (RFC 8446, section 7.5).
func (f *framesV4) exporter() ([]byte, error) {
	state := f.tls.ConnectionState()
	return state.ExportKeyingMaterial(v4.ExporterLabel, nil, v4.ExporterSize)
}

// pin is that of the server at the other end.
func (f *framesV4) pin() Pin { return pinOf(f.tls.ConnectionState()) }

// key makes everything sealed from here on, in both directions. Nobody reads or
// writes meanwhile.
func (f *framesV4) key(write, read v4.Key) error {
	sealer, err := v4.NewSealer(write)
	if err != nil {
		return err
	}
	if f.opener, err = v4.NewOpener(read); err != nil {
		return err
	}
	f.sealer = sealer
	return nil
}

// unkey makes what is written go as it is: for the one answer that the other
// end could not open.
func (f *framesV4) unkey() { f.sealer = nil }

// header reads a message's header, and checks it. Its body has to be read next.
// io.EOF means that the peer has ended the conversation, as one ends it, between
// two messages.
func (f *framesV4) header() (v4.Header, error) {
	f.socket.begin()
	if n, err := io.ReadFull(f.tls, f.raw[:]); err != nil {
		if n == 0 && errors.Is(err, io.EOF) {
			return v4.Header{}, io.EOF
		}
		return v4.Header{}, within(err)
	}
	h, err := v4.ParseHeader(f.raw[:])
	if err != nil {
		return h, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	if !f.theirs(h.Code) {
		return h, fmt.Errorf("%w: message %v", ErrProtocol, h.Code)
	}
	if least, most := f.limits(h.Code); int64(h.Length) < int64(least) || int64(h.Length) > int64(most) {
		return h, fmt.Errorf("%w: %v with a payload of %d bytes, %d to %d are allowed", ErrProtocol, h.Code, h.Length, least, most)
	}
	f.head = h
	return h, nil
}

// within is what an end of the conversation means inside a message. A cut has
// said so.
func within(err error) error {
	if errors.Is(err, io.EOF) || err == io.ErrUnexpectedEOF { //nolint:errorlint // it is io.ReadFull's own
		return fmt.Errorf("the peer left within a message: %w", io.ErrUnexpectedEOF)
	}
	return err
}

// limits are those of a payload as it is on the wire.
func (f *framesV4) limits(c v4.Code) (least, most int) {
	most = v4.PayloadLimit(c, f.packet)
	switch {
	case f.opener == nil:
		return 0, min(most, v4.MaxClear)
	case !f.opened && c == v4.CodeRefused: // may be as it is: see body
		return 0, most + v4.TagSize
	default:
		return v4.TagSize, most + v4.TagSize
	}
}

// body appends the payload of the message whose header was read to dst. Where
// dst has room for it as it came, with its tag, nothing is allocated; what lies
// behind the payload in dst is overwritten.
func (f *framesV4) body(dst []byte) ([]byte, error) {
	start, size := len(dst), int(f.head.Length)
	dst = slices.Grow(dst, size)
	came := dst[start : start+size]
	if _, err := io.ReadFull(f.tls, came); err != nil {
		return dst, within(err)
	}
	if f.opener == nil {
		return dst[:start+size], nil
	}
	into := dst
	maybeClear := !f.opened && f.head.Code == v4.CodeRefused
	if maybeClear { // what does not open in place is lost
		into = slices.Clone(dst)
	}
	if maybeClear && size < v4.TagSize {
		return dst[:start+size], nil
	}
	plain, err := f.opener.Open(into, f.raw[:], came)
	if err != nil {
		if maybeClear { // said to a proof that did not open, by one that has no keys
			return dst[:start+size], nil
		}
		return dst, fmt.Errorf("%w: %v: %w", ErrProtocol, f.head.Code, err)
	}
	f.opened = true
	return plain, nil
}

// skip reads the payload of the message whose header was read, and drops it.
// room is scratch.
func (f *framesV4) skip(room []byte) error {
	_, err := f.body(room[:0])
	return err
}

// failed is the error of the first write that failed, or nil.
func (f *framesV4) failed() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.broken
}

// say writes a message, and all that waited before it.
func (f *framesV4) say(code v4.Code, number uint64, payload []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.append(code, number, payload); err != nil {
		return err
	}
	return f.flushLocked()
}

// mention is say, but where others are writing: what they say will do.
func (f *framesV4) mention(code v4.Code, number uint64, payload []byte) error {
	if !f.mu.TryLock() {
		return nil
	}
	defer f.mu.Unlock()
	if err := f.append(code, number, payload); err != nil {
		return err
	}
	return f.flushLocked()
}

// put leaves a message to be written with the next, or by flush.
func (f *framesV4) put(code v4.Code, number uint64, payload []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.append(code, number, payload); err != nil {
		return err
	}
	if len(f.out) >= mostOut {
		return f.flushLocked()
	}
	return nil
}

// flush writes what waits.
func (f *framesV4) flush() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.flushLocked()
}

func (f *framesV4) append(code v4.Code, number uint64, payload []byte) error {
	if f.broken != nil {
		return f.broken
	}
	size := v4.HeaderSize + len(payload) + v4.TagSize
	if cap(f.out)-len(f.out) < size {
		f.grow(size)
	}
	if f.sealer == nil {
		h := v4.Header{Code: code, Length: uint32(len(payload)), Number: number} //nolint:gosec // of bounded length
		f.out = append(h.Append(f.out), payload...)
		return nil
	}
	var err error
	if f.out, err = f.sealer.Append(f.out, code, number, payload); err != nil {
		f.broken = err
	}
	return err
}

// grow makes room for so much more in out.
func (f *framesV4) grow(size int) {
	larger := getBuffer(max(len(f.out)+size, 2*cap(f.out)))
	larger = append(larger, f.out...)
	putBuffer(f.out)
	f.out = larger
}

func (f *framesV4) flushLocked() error {
	if f.broken != nil {
		return f.broken
	}
	if len(f.out) == 0 {
		return nil
	}
	f.broken = f.transmit(f.out)
	f.spoke.Store(int64(time.Since(f.socket.start)))
	putBuffer(f.out)
	f.out = nil
	return f.broken
}

// silent is for how long no message was written, but for those that were sealed
// elsewhere.
func (f *framesV4) silent() time.Duration {
	return time.Since(f.socket.start) - time.Duration(f.spoke.Load())
}

// transmit writes whole messages: as full records, in few writes.
func (f *framesV4) transmit(b []byte) error {
	f.socket.cork(len(b))
	_, err := f.tls.Write(b)
	if e := f.socket.uncork(); err == nil {
		err = e
	}
	return err
}

// reserve takes the places of the next messages in slots, for them to be sealed
// by other goroutines. Until they have been written with write, in the order of
// their places, nothing else may be written.
func (f *framesV4) reserve(slots []v4.Slot) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken != nil {
		return f.broken
	}
	for i := range slots {
		var err error
		if slots[i], err = f.sealer.Reserve(); err != nil {
			f.broken = err
			return err
		}
	}
	return nil
}

// write writes whole messages that were sealed elsewhere: see reserve. What waited
// before them goes first.
func (f *framesV4) write(sealed []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.flushLocked(); err != nil {
		return err
	}
	f.broken = f.transmit(sealed)
	return f.broken
}

// bye ends the conversation as one ends it: nothing more is written.
func (f *framesV4) bye() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.flushLocked(); err != nil {
		return err
	}
	f.broken = net.ErrClosed
	return f.tls.CloseWrite()
}
