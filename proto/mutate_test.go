package proto_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"ferry/proto"
	"ferry/proto/prototest"
	"ferry/proto/v3"
)

var (
	mutations     = flag.Int("mutations", 20_000, "how many conversations TestMutations holds")
	mutationSeed  = flag.Uint64("mutation-seed", 0, "what they are made of; 0 takes the clock")
	mutationFirst = flag.Uint64("mutation-first", 0, "number of the first of them: a failure says which one it was")
)

// TestMutations holds whole conversations with AcceptV3 in which something is
// wrong: recorded ones, and ones made of them with checksums that differ, with
// more files and with sessions that are said twice; flipped, cut, repeated and
// reordered. Whatever is said,
//
//   - the session comes to an end, without a panic, and no read is without a
//     deadline;
//   - what it answers is well-formed;
//   - a file is received only if its checksum was stated as it is and the client
//     confirmed that right afterwards, and not twice under a name;
//   - a client that compares checksums, as every honest one does, never confirms
//     anything but the file it wanted to send.
func TestMutations(t *testing.T) {
	seed := *mutationSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("to repeat: -mutation-seed=%d", seed)
	f := newMutants(t, seed)
	defer func() {
		if f.watch != nil {
			f.watch.Stop()
		}
	}()
	start := time.Now()
	const every = 100_000
	for n := range uint64(*mutations) {
		f.hold(*mutationFirst + n)
		if t.Failed() {
			return
		}
		if done := n + 1; done%every == 0 {
			t.Logf("%d conversations, %.0f a second: %v", done, float64(done)/time.Since(start).Seconds(), f.seen)
		}
	}
	t.Logf("%d conversations, %.0f a second: %v", *mutations, float64(*mutations)/time.Since(start).Seconds(), f.seen)
	// Else nothing was shown.
	if s := f.seen; *mutations >= 5000 && (s.received*20 < *mutations || s.violations*20 < *mutations || s.strangers*50 < *mutations || s.resent == 0 || s.left == 0) {
		t.Errorf("seen in %d conversations: %v, want some of each kind", *mutations, s)
	}
}

// outcomes counts what became of the conversations.
type outcomes struct {
	received, resent, left, garbage, exists, full, violations, strangers int
}

func (o outcomes) String() string {
	return fmt.Sprintf("%d files received (%d of them sent again, %d confirmed by leaving), %d not confirmed, %d refused as existing, %d for want of room, "+
		"%d sessions ended in a violation, %d in the handshake", o.received, o.resent, o.left, o.garbage, o.exists, o.full, o.violations, o.strangers)
}

// base is a conversation to start from.
type base struct {
	known
	messages [][]byte
	accept   proto.Accept
}

// mutants makes conversations and holds them, one after another.
type mutants struct {
	t     *testing.T
	seed  uint64
	bases []base
	m     *prototest.Mutator
	seen  outcomes
	dst   sink
	watch *time.Timer // ends everything if a conversation hangs
}

func newMutants(t *testing.T, seed uint64) *mutants {
	f := &mutants{t: t, seed: seed, m: prototest.NewMutator()}
	for _, k := range knownOnes(t) {
		for _, messages := range conversationsOf(t, k) {
			f.bases = append(f.bases, base{k, messages, proto.AcceptV3With(v3.Key(k.vector.Key), k.vector.ClientID)})
		}
	}
	return f
}

// conversationsOf makes several of a recorded one: as it is, with a file that
// comes twice, or four times in vain, with the session's messages behind it once
// more, and with a second file.
func conversationsOf(t *testing.T, k known) [][][]byte {
	requests := requestsIn(t, k.vector.C2S)
	first := slices.IndexFunc(requests, func(m []byte) bool { return codeOf(m) == v3.CodePacket })
	packets := requests[first:]
	name := k.vector.File
	c := &raw{t: t, id: v3.ID(k.vector.ClientID), key: v3.Key(k.vector.Key)}
	if codeOf(packets[len(packets)-1]) == v3.CodeEqual {
		packets = packets[:len(packets)-1]
	}
	equal, differs, giveUp := c.confirm(v3.CodeEqual, name), c.confirm(v3.CodeDiffers, name), c.confirm(v3.CodeGiveUp, name)
	packets = slices.Clip(packets)
	twice := slices.Concat(requests[:first], packets, [][]byte{differs}, packets, [][]byte{equal})
	vain := slices.Clone(requests[:first])
	for range 3 {
		vain = append(append(vain, packets...), differs)
	}
	vain = append(append(vain, packets...), giveUp)
	d := must(v3.DialectNamed(k.vector.Dialect, k.vector.Slice))
	more := slices.Concat(requests, c.packets(d, "more", k.vector.Content()), [][]byte{c.confirm(v3.CodeEqual, "more")})
	return [][][]byte{requests, twice, vain, slices.Concat(requests, requests), more}
}

// hold holds the n-th conversation.
func (f *mutants) hold(n uint64) {
	f.m.Seed(f.seed, n)
	b := f.bases[f.m.IntN(len(f.bases))]
	other := f.bases[f.m.IntN(len(f.bases))]
	conn := &talk{
		messages: f.m.Mutate(b.messages, other.messages),
		honest:   f.m.IntN(2) == 0,
		right:    b.vector.Cksum,
		id:       v3.ID(b.vector.ClientID),
		end:      []error{io.EOF, os.ErrDeadlineExceeded, syscall.ECONNRESET}[f.m.IntN(3)],
	}
	if f.m.IntN(8) == 0 {
		conn.piece = 1 + f.m.IntN(300)
	}
	if f.watch == nil {
		f.watch = time.AfterFunc(time.Minute, func() {
			panic(fmt.Sprintf("one of the conversations up to number %d of seed %d hangs", n+1000, f.seed))
		})
	} else if n%1000 == 0 {
		f.watch.Reset(time.Minute)
	}
	defer func() {
		p := recover()
		if p != nil {
			f.t.Errorf("panic: %v\n%s", p, debug.Stack())
		}
		for _, wrong := range conn.wrong {
			f.t.Error(wrong)
		}
		if f.t.Failed() {
			f.t.Errorf("conversation -mutations=1 -mutation-seed=%d -mutation-first=%d, made of %v", f.seed, n, b.vector)
		}
	}()
	f.session(b, conn)
}

// session serves a conversation as a server does.
func (f *mutants) session(b base, conn *talk) {
	ctx := context.Background()
	dir := newDirectory()
	if !b.vector.Registers() {
		dir = newDirectory(b.client)
	}
	s, err := b.accept(ctx, conn, proto.SessionConfig{Directory: dir})
	if err != nil {
		f.seen.strangers++
		return
	}
	if known, ok := dir.clients[b.client.ID]; !b.vector.Registers() && (!ok || !bytes.Equal(known.PublicKey, b.client.PublicKey)) {
		conn.fail("the client on record became %+v", known)
	}
	stored := map[proto.FileName]bool{}
	for {
		tr, err := s.Next(ctx)
		if err != nil {
			if errors.Is(err, proto.ErrProtocol) {
				f.seen.violations++
			}
			return
		}
		if stored[tr.Offer().Name] || f.m.IntN(64) == 0 {
			f.seen.exists++
			if tr.Refuse(ctx, proto.ErrExists) != nil {
				return
			}
			continue
		}
		if f.take(tr, conn, b) {
			stored[tr.Offer().Name] = true
		}
	}
}

// take receives a file, and reports whether it was received.
func (f *mutants) take(tr proto.Transfer, conn *talk, b base) bool {
	f.dst = sink{Buffer: f.dst.Buffer}
	f.dst.Buffer.Reset()
	if f.m.IntN(32) == 0 {
		f.dst.limit, f.dst.err = 300, io.ErrShortWrite
	}
	before := conn.states
	sum, err := tr.Receive(context.Background(), &f.dst)
	switch {
	case errors.Is(err, io.ErrShortWrite):
		f.seen.full++
		return false
	case err != nil:
		f.seen.garbage++
		return false
	}
	f.seen.received++
	got := f.dst.Bytes()
	if posix := posixCksum(got); sum.Cksum != posix || conn.stated != posix || conn.states == before {
		conn.fail("received with checksum %d, stated %d, it is %d", sum.Cksum, conn.stated, posix)
	}
	if sum.Size != int64(len(got)) || sum.Size != tr.Offer().Size {
		conn.fail("received %d of %d bytes, %d are there", sum.Size, tr.Offer().Size, len(got))
	}
	if conn.states > before+1 {
		f.seen.resent++
	}
	confirmed := confirmation(proto.ClientID(conn.id), tr.Offer().Name)
	switch last := conn.lastBytes(); {
	case conn.ended:
		f.seen.left++
		if !errors.Is(conn.end, io.EOF) {
			conn.fail("received from a client that did not leave, %v", conn.end)
		}
	case !bytes.HasSuffix(last, confirmed) && !conn.heard(confirmed):
		conn.fail("received without a confirmation of %q", tr.Offer().Name)
	case conn.honest && bytes.Equal(last, confirmed) && !bytes.Equal(got, b.vector.Content()):
		conn.fail("received %d bytes that an honest client did not mean", len(got))
	}
	if f.m.IntN(64) == 0 {
		f.seen.full++
		_ = tr.Refuse(context.Background(), proto.ErrRefused) // an error is Next's too
		return false
	}
	return tr.Accept(context.Background(), proto.Stored{}) == nil
}

// posixCksum is what the cksum command computes, from its definition.
func posixCksum(b []byte) uint32 {
	var crc uint32
	add := func(c byte) { crc = crc<<8 ^ posixTable[byte(crc>>24)^c] }
	for _, c := range b {
		add(c)
	}
	for n := len(b); n > 0; n >>= 8 {
		add(byte(n))
	}
	return ^crc
}

var posixTable = func() (table [256]uint32) {
	for i := range table {
		crc := uint32(i) << 24
		for range 8 {
			crc = crc<<1 ^ crc>>31*0x04C11DB7
		}
		table[i] = crc
	}
	return table
}()

// talk is a connection to a client whose messages come one after another, each
// after the server has said what it had to say before. It has no goroutine.
type talk struct {
	net.Conn // nil: nothing else is called
	messages [][]byte
	honest   bool   // it compares checksums: 900 becomes 901 where they differ
	right    uint32 // the checksum of what it means to send
	id       v3.ID
	piece    int   // the longest Read; 0: a message
	end      error // behind the last message

	rest     []byte // of the message that is being read
	message  []byte // that one
	deadline time.Time
	ended    bool
	atEnd    int
	before   [][]byte // the messages before it

	stated uint32 // the checksum in the 1603 before
	states int    // how many of those there were
	wrong  []string
}

func (c *talk) fail(format string, args ...any) {
	c.wrong = append(c.wrong, fmt.Sprintf(format, args...))
}

func (c *talk) Read(p []byte) (int, error) {
	if in := time.Until(c.deadline); in <= 0 || in > 30*time.Second {
		c.fail("a read with %v until its deadline", in)
	}
	for len(c.rest) == 0 {
		if len(c.messages) == 0 {
			c.ended = true
			if c.atEnd++; c.atEnd > 20 {
				panic("it reads on behind the end")
			}
			return 0, c.end
		}
		c.before = append(c.before, c.message)
		c.message, c.messages = c.look(c.messages[0]), c.messages[1:]
		c.rest = c.message
	}
	if c.piece > 0 {
		p = p[:min(len(p), c.piece)]
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// look makes an honest client of it.
func (c *talk) look(b []byte) []byte {
	if c.honest && len(b) >= v3.RequestHeaderSize && codeOf(b) == v3.CodeEqual && (c.states == 0 || c.stated != c.right) {
		b = bytes.Clone(b)
		binary.LittleEndian.PutUint16(b[17:], uint16(v3.CodeDiffers))
	}
	return b
}

// lastBytes are those read last, back to the beginning of their message.
func (c *talk) lastBytes() []byte { return c.message[:len(c.message)-len(c.rest)] }

// heard reports whether m was read last, or lies across what is left of
// messages that were cut.
func (c *talk) heard(m []byte) bool {
	all := append(bytes.Join(c.before, nil), c.message...)
	return bytes.LastIndex(all, m)+len(m) > len(all)-len(c.message)
}

// Write reads the server's answers.
func (c *talk) Write(p []byte) (int, error) {
	for b := p; len(b) > 0; {
		h, err := v3.ParseResponseHeader(b[:min(len(b), v3.ResponseHeaderSize)])
		if err != nil {
			c.fail("answers %x: %v", p, err)
			break
		}
		limit, ok := v3.PayloadLimit(h.Code)
		b = b[v3.ResponseHeaderSize:]
		if !ok || h.Code < v3.CodeRegistered || int(h.PayloadSize) > limit || int(h.PayloadSize) > len(b) {
			c.fail("answers %x", p)
			break
		}
		if h.Code == v3.CodeReceived {
			m, err := v3.ParseReceived(b[:h.PayloadSize])
			if err != nil {
				c.fail("answers %x: %v", p, err)
			}
			c.stated = m.Cksum
			c.states++
		}
		b = b[h.PayloadSize:]
	}
	return len(p), nil
}

func (c *talk) SetDeadline(t time.Time) error     { c.deadline = t; return nil }
func (c *talk) SetReadDeadline(t time.Time) error { c.deadline = t; return nil }
func (c *talk) SetWriteDeadline(t time.Time) error {
	if in := time.Until(t); in <= 0 || in > 30*time.Second {
		c.fail("a write with %v until its deadline", in)
	}
	return nil
}

// A cksum of ours would be of no use that is wrong itself.
func TestPosixCksum(t *testing.T) {
	for text, want := range map[string]uint32{"": 4294967295, "123456789": 930766865, strings.Repeat("x", 300): 3786917833} {
		if got := posixCksum([]byte(text)); got != want {
			t.Errorf("cksum of %q is %d, want %d", text, got, want)
		}
	}
}
