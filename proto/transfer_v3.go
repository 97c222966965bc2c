package proto

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"ferry/proto/v3"
)

const (
	// mostSends is how often a file may come: mainstream-734's client sends it
	// five times, all others four.
	mostSends = v3.MaxSends + 1
	// patience is how long a client is silent after its 901 until that means that
	// it waits for an answer. All others send at once.
	patience = 300 * time.Millisecond
	// unconfirmedSlice is that of the client that confirms nothing.
	unconfirmedSlice = 734
)

// A transferV3 is one file that a client offers in version 3.
//
// # Refusals
//
// Version 3 has one answer for all that is refused: 1607. A client has to know
// one reason from the others, that the name exists, for then it need not come
// again. So Refuse before Receive says it like this:
//
//   - seed, name exists: 1607 to the first packet, as the seed's server does.
//   - seed, any other reason: 1604 to the first packet, and then 1607, which
//     the client takes for the answer to its second packet, or finds in place of
//     1603.
//   - mainstream and per-slice, name exists: 1607 with the name of the file as
//     its payload. No other server says that: the old ones replace the file.
//   - mainstream and per-slice, any other reason: 1607, empty.
//
// All of these leave the conversation in step: packets of a refused file that
// were on their way are passed over. What the client violates is answered 1607
// and the session ends.
type transferV3 struct {
	s     *sessionV3
	u     *v3.Unpacker
	plan  v3.Plan
	offer Offer

	received bool          // Receive was called, and gave a sum
	used     bool          // it has ended
	settled  chan struct{} // closed when the session may go on
	left     bool          // the client confirmed by closing its half
	sends    int           // of the file, the one that runs included
	acked    int           // packets of this send
	sum      *Summer
}

// Offer is what is known before the first byte.
func (t *transferV3) Offer() Offer { return t.offer }

// Receive takes the file in.
func (t *transferV3) Receive(ctx context.Context, dst Sink) (Sum, error) {
	if t.used || t.received {
		panic("internal error: transfer used again")
	}
	s := t.s
	defer s.under(ctx)()
	s.come = 0
	if s.room == nil { // else the file before it was followed at once
		s.occupy(smallRooms)
	}
	s.pace(s.cfg.MinRate)
	sum, err := t.receive(dst)
	s.pace(0)
	if err == nil {
		t.received = true
		return sum, nil
	}
	defer t.end(true)()
	err = fmt.Errorf("receive %q: %w", t.offer.Name.String(), s.cause(ctx, err))
	var in *inStepError
	if !errors.As(err, &in) {
		s.fail(err)
	}
	return Sum{}, err
}

// An inStepError is the end of a file and not of the session.
type inStepError struct{ err error }

func (e *inStepError) Error() string { return e.err.Error() }
func (e *inStepError) Unwrap() error { return e.err }

// fail makes err the end of the session.
func (s *sessionV3) fail(err error) {
	s.err = err
	s.vacate()
}

func (t *transferV3) receive(dst Sink) (Sum, error) {
	t.sum = NewSummer()
	for t.sends = 1; ; t.sends++ {
		if err := t.packets(dst); err != nil {
			return Sum{}, err
		}
		equal, err := t.verify()
		if err != nil {
			return Sum{}, err
		}
		if equal {
			return t.sum.Sum(), nil
		}
		if t.sends == mostSends {
			return Sum{}, t.s.broken(fmt.Errorf("%w: sent %d times", ErrChecksum, t.sends))
		}
		if err := dst.Reset(); err != nil {
			return Sum{}, t.stop(err)
		}
		t.sum.Reset()
		t.acked = 0
		if err := t.again(); err != nil {
			return Sum{}, err
		}
	}
}

// packets takes one send of the file, of which the first packet has been begun.
func (t *transferV3) packets(dst Sink) error {
	for {
		if err := t.body(dst); err != nil {
			return err
		}
		t.thank()
		if t.u.Done() {
			return nil
		}
		h, err := t.s.header()
		if err != nil {
			return cut(err)
		}
		if h.Code != v3.CodePacket {
			return t.s.violation("%v within a file", h.Code)
		}
		if err := t.begin(h); err != nil {
			return err
		}
	}
}

// begin begins a packet.
func (t *transferV3) begin(h v3.RequestHeader) error {
	p, err := t.s.packetHeader(h)
	if err != nil {
		return err
	}
	if err := t.u.Next(h.PayloadSize, p); err != nil {
		return t.s.violation("%w", err)
	}
	return nil
}

// body decrypts a packet as it comes.
func (t *transferV3) body(dst Sink) error {
	s := t.s
	for t.u.Left() > 0 {
		b, err := s.some(t.u.Left())
		if err != nil {
			return err
		}
		plain := t.u.Open(s.room.plain[:0], b)
		s.take(len(b))
		_, _ = t.sum.Write(plain)
		if _, err := dst.Write(plain); err != nil {
			return t.stop(err)
		}
		t.grow(len(b))
	}
	return nil
}

// grow moves a file that has come some way into the large room.
func (t *transferV3) grow(n int) {
	s := t.s
	if s.room.pool != smallRooms {
		return
	}
	if s.come += n; s.come >= moveAfter {
		s.occupy(largeRooms)
	}
}

// thank acknowledges a packet where the dialect does.
func (t *transferV3) thank() {
	if t.plan.AckPackets {
		t.thanks()
		t.acked++
	}
}

func (t *transferV3) thanks() { t.s.out = t.plan.AppendThanks(t.s.out, v3.ID(t.s.client.ID)) }

// verify sends the checksum and returns what the client makes of it. Only what
// decrypted in full can be confirmed. For anything else the checksum is a
// random one: that it differs is all that may be learned.
func (t *transferV3) verify() (equal bool, err error) {
	intact := t.u.Finish() == nil
	cksum := t.sum.Sum().Cksum
	if !intact {
		var b [4]byte
		_, _ = rand.Read(b[:]) // never fails
		cksum = binary.LittleEndian.Uint32(b[:])
	}
	t.s.say(v3.CodeReceived, maxAnswer)
	t.s.out = v3.Received{
		Client:      v3.ID(t.s.client.ID),
		ContentSize: t.plan.ReceivedSize(),
		Name:        t.u.Name(),
		Cksum:       cksum,
	}.Append(t.s.out)
	t.u.Restart()
	h, err := t.s.header()
	if err != nil {
		if !errors.Is(err, io.EOF) || !t.mayLeave() || !intact {
			return false, cut(err)
		}
		if t.sends == mostSends {
			return false, fmt.Errorf("%w: the client left after %d sends", ErrChecksum, t.sends)
		}
		t.left = true
		return true, nil
	}
	if h.Code == v3.CodePacket && t.mayLeave() {
		return false, t.begin(h)
	}
	return t.confirmed(h, intact)
}

// cut makes of a client that has left within a file what it is.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("the client left within the file: %w", io.ErrUnexpectedEOF)
	}
	return err
}

// mayLeave reports whether the client may be the one that says neither 900 nor
// 901 (mainstream-734): it closes if the checksum is right, and else sends the
// first packet at once. Of a file in one packet that would fit its slice, one
// cannot tell; a client that dies within the moment between 1603 and its 900
// is then taken for it, and the file, which has come in full, is kept. After the
// last send it allows itself, that client closes whatever the checksum is, and
// the file is not kept.
func (t *transferV3) mayLeave() bool {
	return t.plan.Unconfirmed || t.ambiguous(unconfirmedSlice)
}

// mayWait reports whether the client may be the one that waits for an answer to
// 901 (mainstream-8192).
func (t *transferV3) mayWait() bool { return t.ambiguous(v3.MainstreamSlice) }

// ambiguous reports whether a file lies in one packet that could as well be one
// of mainstream with that slice.
func (t *transferV3) ambiguous(slice int) bool {
	return t.plan.Packets == 1 && !t.plan.AckPackets && !t.plan.PerSlice && t.plan.Content <= int64(slice)
}

// confirmed takes 900, 901 or 902.
func (t *transferV3) confirmed(h v3.RequestHeader, intact bool) (equal bool, err error) {
	if h.Code != v3.CodeEqual && h.Code != v3.CodeDiffers && h.Code != v3.CodeGiveUp {
		return false, t.s.violation("%v after the checksum", h.Code)
	}
	m, err := message(t.s, h, v3.ParseConfirm)
	if err != nil {
		return false, err
	}
	switch {
	case m.Name != t.u.Name():
		return false, t.s.violation("%v of another file", h.Code)
	case h.Code == v3.CodeGiveUp:
		t.thanks()
		return false, t.ended(fmt.Errorf("%w: the client gave up", ErrChecksum))
	case h.Code == v3.CodeDiffers:
		return false, nil
	case !intact:
		return false, t.s.violation("%v to a checksum that was made up", h.Code)
	}
	return true, nil
}

// ended ends the file, with what there was to answer, and not the session.
func (t *transferV3) ended(err error) error {
	if err := t.s.flush(); err != nil {
		return err
	}
	return &inStepError{err}
}

// again waits for the first packet of a resend, unless it has been begun.
func (t *transferV3) again() error {
	s := t.s
	if t.u.Number() > 0 {
		return nil
	}
	if t.plan.AckDiffers || s.ackDiffers {
		t.thanks()
	} else if t.mayWait() {
		if err := t.wait(); err != nil {
			return err
		}
	}
	h, err := s.header()
	if err != nil {
		return cut(err)
	}
	if h.Code != v3.CodePacket {
		return s.violation("%v where a file has to come again", h.Code)
	}
	return t.begin(h)
}

// wait finds out whether the client waits for an answer to 901.
func (t *transferV3) wait() error {
	come, err := t.s.soon(patience)
	if err != nil || come {
		return err
	}
	t.s.ackDiffers = true
	t.thanks()
	return nil
}

// stop ends a file that the sink did not take, and tells the client.
func (t *transferV3) stop(why error) error {
	if err := t.turnDown(why); err != nil {
		t.s.fail(err)
	}
	return &inStepError{why}
}

// turnDown refuses a file of which packets may be on their way. It reads the
// rest of the packet that has been begun, so that the answer is one to it.
func (t *transferV3) turnDown(why error) error {
	s := t.s
	size := t.u.Left()
	if err := s.drop(size); err != nil {
		return err
	}
	t.u.Skip(size)
	exists := errors.Is(why, ErrExists)
	switch {
	case t.plan.AckPackets && t.acked == 0 && !exists:
		t.thank()
		s.answer(v3.CodeGeneralError)
	case !t.plan.AckPackets && exists:
		s.say(v3.CodeGeneralError, v3.NameSize)
		s.out = v3.Confirm{Name: t.u.Name()}.Append(s.out)
	default:
		s.answer(v3.CodeGeneralError)
	}
	if !t.u.Done() {
		s.refused = &refusedV3{u: t.u, left: mostSkipped}
	}
	return s.flush()
}

// Accept acknowledges the file.
func (t *transferV3) Accept(ctx context.Context, _ Stored) error {
	defer t.end(t.received)()
	t.thanks()
	return t.tell(ctx)
}

// Exists is the refusal [ErrExists]: version 3 cannot say what it is that
// exists, and so not whether it is the same.
func (t *transferV3) Exists(ctx context.Context, _ Stored) error { return t.Refuse(ctx, ErrExists) }

// Refuse tells the client that the file was not taken: see the type.
func (t *transferV3) Refuse(ctx context.Context, why error) error {
	defer t.end(true)()
	if t.received {
		t.s.answer(v3.CodeGeneralError)
		return t.tell(ctx)
	}
	defer t.s.under(ctx)()
	if err := t.turnDown(why); err != nil {
		err = fmt.Errorf("refuse %q: %w", t.offer.Name.String(), t.s.cause(ctx, err))
		t.s.fail(err)
		return err
	}
	return nil
}

// end marks the transfer as used up, and returns what lets the session go on.
func (t *transferV3) end(allowed bool) (settle func()) {
	if t.used || !allowed {
		panic("internal error: transfer is not at this point")
	}
	t.used = true
	return func() { close(t.settled) }
}

// tell writes the last answer. A client that has confirmed by leaving need not
// be there to hear it.
func (t *transferV3) tell(ctx context.Context) error {
	defer t.s.under(ctx)()
	err := t.s.flush()
	if err == nil || t.left {
		return nil
	}
	err = fmt.Errorf("answer for %q: %w", t.offer.Name.String(), t.s.cause(ctx, err))
	t.s.fail(err)
	return err
}
