package proto

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"ferry/proto/v4"
)

// A transferV4 is one file that a client offers in version 4.
type transferV4 struct {
	s       *sessionV4
	number  uint64
	small   bool
	content []byte // of a small one: lies in the session's buffer
	offer   Offer

	step    atomic.Int32  // one of those below
	settled chan struct{} // closed when the session may go on
	sum     Sum           // once it has been received
}

// The steps of a transfer.
const (
	stepOffered int32 = iota
	stepReceiving
	stepReceived
	stepEnded
)

// Offer is what is known before the first byte.
func (t *transferV4) Offer() Offer { return t.offer }

// Receive takes the file in.
func (t *transferV4) Receive(ctx context.Context, dst Sink) (Sum, error) {
	if !t.step.CompareAndSwap(stepOffered, stepReceiving) {
		panic("internal error: transfer used again")
	}
	s := t.s
	if s.sum == nil {
		s.sum = NewSummer()
	}
	s.sum.Reset()
	release := s.frames.socket.under(ctx)
	var err error
	if t.small {
		err = t.receiveSmall(dst)
	} else {
		err = t.receiveLarge(dst)
	}
	release()
	if err == nil {
		t.sum = s.sum.Sum()
		t.step.Store(stepReceived)
		close(t.settled)
		return t.sum, nil
	}
	defer s.answers.settle(t.number)
	defer close(t.settled)
	t.step.Store(stepEnded)
	err = fmt.Errorf("receive %q: %w", t.offer.Name.String(), s.cause(ctx, err))
	if _, inStep := errors.AsType[*inStepError](err); inStep {
		return Sum{}, err
	}
	return Sum{}, s.fail(t.number, err)
}

// receiveSmall takes a file that is there.
func (t *transferV4) receiveSmall(dst Sink) error {
	s := t.s
	_, _ = s.sum.Write(t.content)
	if sum := s.sum.Sum(); sum != *t.offer.Sum {
		if err := t.tell(v4.CodeDiffers, differsV4(sum).Append(nil)); err != nil {
			return err
		}
		return &inStepError{fmt.Errorf("%w: the client sent other bytes than it stated", ErrChecksum)}
	}
	if kept, _ := dst.Kept(); kept > 0 { // it began as a large one
		if err := dst.Reset(); err != nil {
			return t.stop(err)
		}
	}
	if _, err := dst.Write(t.content); err != nil {
		return t.stop(err)
	}
	return nil
}

// stop refuses the file because of the sink's error.
func (t *transferV4) stop(why error) error {
	if endsSession(why) {
		return why // Receive says so
	}
	if err := t.tell(v4.CodeRefused, refusedV4(why).Append(nil)); err != nil {
		return err
	}
	return &inStepError{why}
}

// tell says something about the file. What the server does next with it, if
// anything, is other work than before.
func (t *transferV4) tell(code v4.Code, payload []byte) error {
	t.s.answers.still.rests(t.number)
	return t.s.frames.say(code, t.number, payload)
}

// receiveLarge takes a file in packets.
func (t *transferV4) receiveLarge(dst Sink) error {
	from, err := t.resume(dst)
	if err != nil {
		return t.stop(err)
	}
	s := t.s
	s.frames.socket.pace(s.cfg.MinRate)
	defer func() {
		if s.passing == nil {
			s.frames.socket.pace(0)
		}
	}()
	if err := t.tell(v4.CodeGo, v4.Offset{Bytes: from}.Append(nil)); err != nil {
		return err
	}
	for sends := 1; ; sends++ {
		stated, err := t.take(dst, from)
		if err != nil {
			return err
		}
		sum := differsV4(s.sum.Sum())
		if sum.Sum == stated {
			return nil
		}
		if err := t.differ(dst, sum, sends); err != nil {
			return err
		}
		from = 0
	}
}

// resume returns how much of the file dst has kept, and has the sum go on from
// there.
func (t *transferV4) resume(dst Sink) (int64, error) {
	kept, state := dst.Kept()
	if kept == 0 {
		return 0, nil
	}
	sum := t.s.sum
	err := sum.UnmarshalBinary(state)
	if err == nil && kept <= t.offer.Size && sum.Sum().Size == kept {
		return kept, nil
	}
	sum.Reset()
	return 0, dst.Reset()
}

// differ drops what came and says so. It returns nil if the file comes again.
func (t *transferV4) differ(dst Sink, sum v4.Differs, sends int) error {
	s := t.s
	if err := dst.Reset(); err != nil {
		return t.stop(err)
	}
	s.sum.Reset()
	if err := t.tell(v4.CodeDiffers, sum.Append(nil)); err != nil {
		return err
	}
	h, err := s.frames.header()
	switch {
	case err != nil:
		return cut(err)
	case h.Number != t.number:
		return fmt.Errorf("%w: %v of file %d where %d differs", ErrProtocol, h.Code, h.Number, t.number)
	case h.Code == v4.CodeAgain && sends < v4.MaxSends:
		return s.frames.skip(s.room)
	case h.Code == v4.CodeGiveUp:
		if err := s.frames.skip(s.room); err != nil {
			return err
		}
		return &inStepError{fmt.Errorf("%w: the client gave up after %d sends", ErrChecksum, sends)}
	}
	return fmt.Errorf("%w: %v after %d sends that differ", ErrProtocol, h.Code, sends)
}

// take takes the packets of one send from an offset on, up to the client's 831,
// and returns the sums that it states. The session's Summer has then been given
// all of them, and dst, too.
func (t *transferV4) take(dst Sink, from int64) (v4.Sum, error) {
	in := newIntakeV4(t, from)
	in.ends.Go(in.read)
	in.ends.Go(in.hash)
	written := false
	defer func() {
		if !written { // dst has panicked; whoever called recovers, and ends the connection
			in.fail()
			t.s.frames.socket.die()
			in.ends.Wait()
		}
	}()
	failed := in.write(dst)
	written = true
	in.ends.Wait()
	s := t.s
	switch {
	case failed != nil && endsSession(failed):
		return v4.Sum{}, failed
	case failed != nil:
		if !in.over {
			s.passing = &passingV4{number: t.number, left: windowV4 + v4.MaxPacket, again: in.again}
		}
		return v4.Sum{}, &inStepError{failed}
	case in.err == nil:
		s.answers.still.works(t.number, in.kept) // until it is answered
		return in.stated, nil
	}
	if errors.Is(in.err, errGaveUp) {
		err := fmt.Errorf("%w: %w", ErrChecksum, in.err)
		return v4.Sum{}, &inStepError{errors.Join(err, dst.Reset())}
	}
	if !decided(in.err) {
		in.keep(dst)
	}
	return v4.Sum{}, in.err
}

// Accept acknowledges the file.
func (t *transferV4) Accept(_ context.Context, as Stored) error {
	if err := t.statable(as); err != nil {
		return err
	}
	if !t.step.CompareAndSwap(stepReceived, stepEnded) {
		panic("internal error: transfer is not at this point")
	}
	t.s.answers.accept(t.number, as)
	return t.s.answers.failed()
}

// statable finds what no receipt could say.
func (t *transferV4) statable(as Stored) error {
	err := checkFiles(t.s.Client(), []Stored{as})
	if err == nil && as.Name != t.offer.Name {
		err = fmt.Errorf("it is %q", as.Name.String())
	}
	if err != nil {
		return fmt.Errorf("internal error: answer for %q: %w", t.offer.Name.String(), err)
	}
	return nil
}

// Exists says what the server has under the name: an acknowledgement if it is the
// content that is offered, or was received, or came by the same transfer.
func (t *transferV4) Exists(ctx context.Context, as Stored) error {
	if !t.same(as) {
		return t.Refuse(ctx, &ExistsError{Sum: as.Sum})
	}
	if err := t.statable(as); err != nil {
		return err
	}
	t.close()
	t.s.answers.accept(t.number, as)
	return t.s.answers.failed()
}

// same reports whether what the server has is what the client wants to deliver.
func (t *transferV4) same(as Stored) bool {
	switch {
	case as.Transfer == t.offer.ID && t.offer.ID != TransferID{}:
		return true
	case t.step.Load() == stepReceived:
		return as.Sum == t.sum
	case t.offer.Sum != nil:
		return as.Sum == *t.offer.Sum
	}
	return false
}

// Refuse tells the client that the file was not taken, and why.
func (t *transferV4) Refuse(_ context.Context, why error) error {
	t.close()
	if endsSession(why) {
		t.s.part(why)
	}
	t.s.answers.refuse(t.number, refusedV4(why))
	return t.s.answers.failed()
}

// close marks the transfer as used up.
func (t *transferV4) close() {
	if t.step.CompareAndSwap(stepReceived, stepEnded) {
		return
	}
	if !t.step.CompareAndSwap(stepOffered, stepEnded) {
		panic("internal error: transfer is not at this point")
	}
	close(t.settled)
}
