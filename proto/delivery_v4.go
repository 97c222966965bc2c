package proto

import (
	"context"
	"errors"
	"fmt"
	"io"

	"ferry/proto/v4"
)

// A deliveryV4 is one file on its way to the server. It belongs to the goroutine
// that sends it, but for what [flowV4] says.
type deliveryV4 struct {
	client *clientV4
	offer  Offer
	source Source
	watch  Watcher
	now    Progress

	matched bool // Watcher.Matched was called, and the server told since
	// The rest is of files with a connection to themselves.
	line   *lineV4
	number uint64
	hash   *Summer // nil: the sum is known
	in     io.ReadCloser
	at     int64 // where in stands
	kept   int64 // so many bytes the server has said that it keeps
	sent   int64 // up to there all has been sent, or kept before
}

// prefixAtOnce is how much of what the server keeps already is read, or hashed,
// while it waits. More of it would take longer than a server has patience.
const prefixAtOnce = 512 << 20

// errAhead: what the server keeps has to be read first, without keeping it
// waiting.
var errAhead = errors.New("the source has to be read up to what the server keeps")

func packetsOf(size int64, packet int) int64 {
	return size/int64(packet) + min(size%int64(packet), 1)
}

func (d *deliveryV4) phase(p Phase) {
	d.now.Phase = p
	d.report()
}

func (d *deliveryV4) report() {
	if d.watch.Progress != nil {
		d.watch.Progress(d.now)
	}
}

// reached reports that the server keeps so much.
func (d *deliveryV4) reached(bytes int64) {
	packet := d.client.to.packet
	if d.line != nil {
		packet = int(d.line.welcome.Packet)
	}
	d.now.Bytes, d.now.Packets, d.now.TotalPackets = bytes, packetsOf(bytes, packet), packetsOf(d.offer.Size, packet)
	d.report()
}

// match asks the caller whether the server may be told to store the file.
func (d *deliveryV4) match(ctx context.Context) error {
	if d.watch.Matched != nil {
		if err := d.watch.Matched(ctx); err != nil {
			return err
		}
	}
	if ctx.Err() != nil { // nothing is stored that nobody wants any more
		return context.Cause(ctx)
	}
	d.matched = true
	return nil
}

// refused is the error of a 1607. One that is not about the file says nothing
// about whether it was stored, once the server may have begun to.
func (d *deliveryV4) refused(a answerV4) error {
	e := refusalV4(a.refused)
	if a.number == 0 && d.matched {
		return lostAnswer(e)
	}
	return e
}

// lostAnswer is the error of a file whose answer the server did not give before
// it ended the session.
func lostAnswer(e *RefusedError) error {
	const what = "the session ended before the answer"
	if e.Why == nil {
		return fmt.Errorf("%s: %s", what, e.Words)
	}
	if e.Words == "" {
		return fmt.Errorf("%s: %w", what, e.Why)
	}
	return fmt.Errorf("%s: %w: %s", what, e.Why, e.Words)
}

// sendLarge delivers a file over a connection to itself. A kept connection may
// turn out to have been closed by the server meanwhile, which says nothing about
// the file; then another one is made.
func (d *deliveryV4) sendLarge(ctx context.Context) (Receipt, error) {
	if d.offer.Sum == nil {
		d.hash = d.client.sumFor(d.offer)
		d.goOn()
	}
	r, err := d.attempts(ctx)
	d.closeSource()
	if err != nil && d.offer.Sum == nil && !Permanent(err) && !errors.Is(err, ErrChecksum) {
		d.client.keepSum(d.offer, d.hash)
	}
	return r, err
}

// goOn takes up what was summed by a process before this one.
func (d *deliveryV4) goOn() {
	if d.hash.size > 0 || d.watch.Begun == nil {
		return
	}
	if err := d.hash.UnmarshalBinary(d.watch.Begun); err != nil || d.hash.size > d.offer.Size {
		d.hash.Reset()
	}
}

// summed hands out how far the file is summed.
func (d *deliveryV4) summed(state []byte) {
	if d.watch.Summed != nil {
		d.watch.Summed(state)
	}
}

func (d *deliveryV4) attempts(ctx context.Context) (Receipt, error) {
	for {
		r, err := d.attempt(ctx)
		if !errors.Is(err, errAhead) {
			return r, err
		}
		if err := d.place(ctx, d.kept, d.offer.Size); err != nil {
			return Receipt{}, err
		}
	}
}

func (d *deliveryV4) attempt(ctx context.Context) (Receipt, error) {
	d.phase(PhaseConnecting)
	if l, ok := d.client.idle.take(); ok {
		l.answered = false
		r, err := d.over(ctx, l)
		if err == nil || l.answered || decided(err) || ctx.Err() != nil {
			return r, err
		}
		d.phase(PhaseConnecting)
	}
	d.phase(PhaseKeying)
	l, err := d.client.open(ctx)
	if err != nil {
		return Receipt{}, err
	}
	return d.over(ctx, l)
}

// over owns l: it keeps it for the next file or closes it.
func (d *deliveryV4) over(ctx context.Context, l *lineV4) (Receipt, error) {
	stop := context.AfterFunc(ctx, l.hangUp)
	d.line, d.number, l.reusable = l, l.next(), false
	r, err := d.run(ctx)
	if stop() && d.client.keep(l) {
		return r, err
	}
	l.close()
	return r, err
}

// run offers the file, and sends it as often as it takes and the protocol
// allows.
func (d *deliveryV4) run(ctx context.Context) (Receipt, error) {
	d.matched, d.kept, d.sent = false, 0, 0
	a, err := d.ask(v4.CodeOffer, offerV4(d.offer, d.offer.Sum).Append(nil))
	if err != nil {
		return Receipt{}, err
	}
	switch {
	case a.code == v4.CodeStored:
		d.now.From = d.offer.Size
		return d.stored(a, d.offer.Sum, 0)
	case a.code != v4.CodeGo:
		return Receipt{}, d.settled(a)
	case a.offset > d.offer.Size:
		return Receipt{}, fmt.Errorf("%w: it keeps %d bytes of a file of %d", ErrProtocol, a.offset, d.offer.Size)
	}
	d.kept = a.offset
	for d.now.Send = 1; ; d.now.Send++ {
		r, again, err := d.sendOnce(ctx)
		if err != nil || !again {
			return r, err
		}
		if err := d.again(); err != nil {
			return Receipt{}, err
		}
	}
}

// sendOnce sends what the server does not keep, and the end. again is true if
// the sums differ.
func (d *deliveryV4) sendOnce(ctx context.Context) (r Receipt, again bool, err error) {
	d.phase(PhaseSending)
	d.now.From = d.kept
	d.reached(d.kept)
	if err := d.stream(ctx); err != nil {
		return Receipt{}, false, err
	}
	d.sent = d.offer.Size
	sum, err := d.sum()
	if err != nil {
		return Receipt{}, false, d.giveUp(err)
	}
	if err := d.match(ctx); err != nil {
		return Receipt{}, false, err // what the server keeps, it keeps: another attempt may go on there
	}
	d.phase(PhaseVerifying)
	a, err := d.ask(v4.CodeEnd, v4.Sum{Cksum: sum.Cksum, SHA256: sum.SHA256}.Append(nil))
	if err != nil {
		return Receipt{}, false, err
	}
	switch a.code {
	case v4.CodeStored:
		r, err := d.stored(a, &sum, d.now.Send)
		return r, false, err
	case v4.CodeDiffers:
		d.matched = false
		return Receipt{}, true, nil
	}
	return Receipt{}, false, d.settled(a)
}

// sum is what the file adds up to: what was recorded, or what was hashed. Both
// are there from the second send on.
func (d *deliveryV4) sum() (Sum, error) {
	if d.hash == nil {
		return *d.offer.Sum, nil
	}
	sum := d.hash.Sum()
	if d.offer.Sum != nil && sum != *d.offer.Sum {
		return Sum{}, fmt.Errorf("%w: its bytes are not those that were recorded", ErrSource)
	}
	return sum, nil
}

// again says 901, or gives up if the file has been sent often enough. From the
// second send on what is sent is hashed: it may be what is wrong.
func (d *deliveryV4) again() error {
	if d.now.Send == v4.MaxSends {
		return d.giveUp(fmt.Errorf("%w: sent %d times", ErrChecksum, d.now.Send))
	}
	d.closeSource()
	d.kept, d.hash = 0, NewSummer()
	d.summed(nil)
	if err := d.line.frames.say(v4.CodeAgain, d.number, nil); err != nil {
		return fmt.Errorf("send it again: %w", err)
	}
	return nil
}

// giveUp says 902, upon which the server drops what it has, and returns why.
func (d *deliveryV4) giveUp(why error) error {
	err := d.line.frames.say(v4.CodeGiveUp, d.number, nil)
	d.line.reusable = err == nil
	return why
}

// stored is the receipt of a file that has been sent so often.
func (d *deliveryV4) stored(a answerV4, ours *Sum, sends int) (Receipt, error) {
	f, err := a.vouched.of(d.offer, ours)
	if err != nil {
		return Receipt{}, err
	}
	d.line.reusable = true
	d.reached(d.offer.Size)
	return a.vouched.receipt(d.line, f, sends), nil
}

// settled is the error of an answer that was not hoped for, to a file of which
// nothing is on its way.
func (d *deliveryV4) settled(a answerV4) error {
	if a.code != v4.CodeRefused {
		return fmt.Errorf("%w: answer %v", ErrProtocol, a.code)
	}
	err := d.refused(a)
	d.line.reusable = a.number != 0 && !endsSession(err)
	return err
}

// ask says a message and returns the answer, but for how far the file is kept.
// That it is no further than before says that the server is still at work.
func (d *deliveryV4) ask(code v4.Code, payload []byte) (answerV4, error) {
	defer d.line.frames.socket.settle()
	a, err := d.line.inquire(code, d.number, payload)
	for err == nil {
		ours, bad := d.ours(a)
		if bad != nil {
			return answerV4{}, bad
		}
		if ours && a.code != v4.CodeThanks {
			return a, nil
		}
		news := ours && a.offset > d.kept
		if ours {
			if err := d.thanked(a.offset, d.sent); err != nil {
				return answerV4{}, err
			}
		}
		if news {
			d.line.frames.socket.expect()
		} else {
			d.line.frames.socket.prolong()
		}
		a, err = d.line.await()
	}
	return answerV4{}, err
}

// thanked takes note that the server keeps so much, of what was sent.
func (d *deliveryV4) thanked(offset, sent int64) error {
	if offset < d.kept || offset > sent {
		return fmt.Errorf("%w: it keeps %d bytes after %d, and %d were sent", ErrProtocol, offset, d.kept, sent)
	}
	if offset > d.kept {
		d.kept = offset
		d.reached(offset)
	}
	return nil
}

// ours reports whether an answer is about this file, or about the session. Those
// about files before it may still come.
func (d *deliveryV4) ours(a answerV4) (bool, error) {
	if a.code == v4.CodeStored {
		return a.vouched.has(d.number), nil
	}
	switch {
	case a.number == d.number, a.number == 0 && a.code == v4.CodeRefused:
		return true, nil
	case a.number > 0 && a.number < d.number:
		return false, nil
	}
	return false, fmt.Errorf("%w: answer %v about file %d, which there is not", ErrProtocol, a.code, a.number)
}
