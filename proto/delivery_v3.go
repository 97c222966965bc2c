package proto

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"ferry/proto/v3"
)

const (
	// batchBytes is what is written at once to a server that copes with it.
	batchBytes = 128 << 10
	// readAhead is how much of the source is read at a time.
	readAhead = 64 << 10
)

// A deliveryV3 is one file on its way to the server.
//
// Version 3 has one answer for all that a server refuses, 1607, and the client
// has to know one reason from all others: that the name exists. What tells
// them apart is said beside [transferV3.Refuse], which does its part. To an old
// seed server's first packet 1607 means the same: the name exists.
type deliveryV3 struct {
	client *clientV3
	offer  Offer
	source Source
	watch  Watcher
	plan   v3.Plan
	window int // packets

	line *lineV3
	now  Progress
	// The rest is of the send that runs.
	handed  int // packets given to the line's writer
	acked   int // packets that the server acknowledged
	written int // packets that left
	writing int // batches given to the writer and not yet written
	spares  int // 1604 that may come although nothing waits for them
	free    [][]byte
	sum     *Summer
	verdict *v3.Received // the server's 1603
}

func newDeliveryV3(c *clientV3, o Offer, src Source, w Watcher) (*deliveryV3, error) {
	plan, err := c.to.dialect.Plan(o.Size)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTooLarge, err)
	}
	d := &deliveryV3{client: c, offer: o, source: src, watch: w, plan: plan, window: c.to.window, sum: NewSummer()}
	d.now = Progress{TotalBytes: o.Size, TotalPackets: int64(plan.Packets), Send: 1}
	return d, nil
}

func (d *deliveryV3) phase(p Phase) {
	d.now.Phase = p
	if p != PhaseVerifying {
		d.now.Bytes, d.now.Packets = 0, 0
	}
	d.report()
}

func (d *deliveryV3) report() {
	if d.watch.Progress != nil {
		d.watch.Progress(d.now)
	}
}

// passed notes that n packets have been acknowledged, or written where nothing
// acknowledges them.
func (d *deliveryV3) passed(n int) {
	if n == 0 || int64(n) == d.now.Packets {
		return
	}
	d.now.Bytes, d.now.Packets = d.plan.PlainSize(n), int64(n)
	d.report()
}

// run sends the file as often as it takes and the protocol allows.
func (d *deliveryV3) run(ctx context.Context, l *lineV3) (Receipt, error) {
	d.line, l.reusable = l, false
	for d.now.Send = 1; ; d.now.Send++ {
		sum, err := d.sendOnce(ctx)
		if err != nil {
			return Receipt{}, err
		}
		if d.offer.Sum != nil && sum != *d.offer.Sum {
			d.abandon()
			return Receipt{}, fmt.Errorf("%w: its bytes are not those that were recorded", ErrSource)
		}
		equal, err := d.agrees(sum)
		if err != nil {
			return Receipt{}, err
		}
		if equal {
			return d.confirm(ctx, sum)
		}
		if err := d.differ(); err != nil {
			return Receipt{}, err
		}
	}
}

// agrees compares the server's 1603 with what was sent. Which size a server
// states in it depends on the program, so both are right.
func (d *deliveryV3) agrees(sum Sum) (bool, error) {
	m := d.verdict
	if m.Client != d.line.id || m.Name != d.offer.Name.String() {
		return false, fmt.Errorf("%w: a checksum of file %q of client %s", ErrProtocol, m.Name, ClientID(m.Client))
	}
	size := int64(m.ContentSize)
	return m.Cksum == sum.Cksum && (size == d.plan.Size || size == d.plan.Content), nil
}

// confirm says 900 and waits until the server has acknowledged the file.
func (d *deliveryV3) confirm(ctx context.Context, sum Sum) (Receipt, error) {
	if d.watch.Matched != nil {
		if err := d.watch.Matched(ctx); err != nil {
			d.abandon()
			return Receipt{}, err
		}
	}
	if ctx.Err() != nil { // nothing is confirmed that nobody wants any more
		d.abandon()
		return Receipt{}, context.Cause(ctx)
	}
	var a answerV3
	var err error
	if d.plan.Unconfirmed {
		a, err = d.leave()
	} else {
		a, err = d.line.ask(d.message(v3.CodeEqual))
	}
	if err != nil {
		return Receipt{}, fmt.Errorf("wait for the acknowledgement: %w", err)
	}
	if a.code != v3.CodeThanks || a.count != 1 {
		return Receipt{}, fmt.Errorf("after equal checksums: %w", a.unwanted())
	}
	d.line.reusable = !d.plan.Unconfirmed
	return Receipt{ClientID: ClientID(d.line.id), Name: d.offer.Name, Sum: sum, At: time.Now(), Sends: d.now.Send}, nil
}

// leave is the confirmation of a dialect that has none: the client closes. Its
// server closes in turn once it has the file; a Ferry server says 1604 before.
func (d *deliveryV3) leave() (answerV3, error) {
	half, ok := d.line.conn.(interface{ CloseWrite() error })
	if !ok {
		return answerV3{code: v3.CodeThanks, count: 1}, nil // that of 1603 is all there is
	}
	if err := half.CloseWrite(); err != nil {
		return answerV3{}, err
	}
	a, err := d.line.await()
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return answerV3{code: v3.CodeThanks, count: 1}, nil
	}
	return a, err
}

// differ says 901, or 902 if the file has been sent often enough.
func (d *deliveryV3) differ() error {
	if d.now.Send == v3.MaxSends {
		if !d.plan.Unconfirmed {
			_, _ = d.line.ask(d.message(v3.CodeGiveUp)) // the file has failed whatever the answer
		} else {
			d.abandon()
		}
		return fmt.Errorf("%w: sent %d times", ErrChecksum, d.now.Send)
	}
	if d.plan.Unconfirmed {
		return nil
	}
	if !d.plan.AckDiffers {
		if err := d.line.say(d.message(v3.CodeDiffers)); err != nil {
			return fmt.Errorf("ask for a resend: %w", err)
		}
		return nil
	}
	a, err := d.line.ask(d.message(v3.CodeDiffers))
	if err != nil {
		return fmt.Errorf("ask for a resend: %w", err)
	}
	if a.code != v3.CodeThanks || a.count != 1 {
		return fmt.Errorf("ask for a resend: %w", a.unwanted())
	}
	return nil
}

// abandon tells the server to drop what it has: some take a connection that
// ends here for a confirmation. Nobody waits for the answer.
func (d *deliveryV3) abandon() { _ = d.line.say(d.message(v3.CodeGiveUp)) }

func (d *deliveryV3) message(code v3.Code) []byte {
	return v3.Confirm{Name: d.offer.Name.String()}.Append(request(d.line.id, code, v3.NameSize))
}

// sendOnce sends every packet and returns what they add up to, with the
// server's 1603 in verdict.
func (d *deliveryV3) sendOnce(ctx context.Context) (Sum, error) {
	d.handed, d.acked, d.written, d.writing, d.verdict = 0, 0, 0, 0, nil
	d.spares = 0
	if d.now.Send > 1 && !d.plan.AckPackets && !d.plan.AckDiffers {
		d.spares = 1 // some servers answer 901
	}
	d.phase(PhaseSending)
	d.sum.Reset()
	d.line.rest()
	p := v3.NewPacker(d.plan, d.line.key, d.line.id, d.offer.Name.String())
	most := d.batchSize(p)
	defer d.borrow(most * p.BufferSize())()
	if err := d.packets(ctx, p, most); err != nil {
		return Sum{}, err
	}
	for d.writing > 0 || d.plan.AckPackets && d.acked < d.plan.Packets {
		if err := d.event(); err != nil {
			return Sum{}, err
		}
	}
	d.line.expect()
	d.phase(PhaseVerifying)
	for d.verdict == nil {
		if err := d.event(); err != nil {
			return Sum{}, err
		}
	}
	d.line.rest()
	return d.sum.Sum(), nil
}

// packets reads the source, seals it and hands it to the line's writer, in
// batches of up to most packets: while one is written, the next is made.
func (d *deliveryV3) packets(ctx context.Context, p *v3.Packer, most int) error {
	src, err := d.source()
	if err != nil {
		return sourceError(ctx, err)
	}
	defer src.Close() //nolint:errcheck // only read
	ahead := d.client.readers.Get().(*bufio.Reader)
	ahead.Reset(src)
	defer func() {
		ahead.Reset(nil)
		d.client.readers.Put(ahead)
	}()
	in := summed{r: ahead, sum: d.sum}
	for !p.Done() {
		for len(d.free) == 0 {
			if err := d.event(); err != nil {
				return err
			}
		}
		last := len(d.free) - 1
		buffer := d.free[last]
		d.free = d.free[:last]
		batch, err := seal(p, buffer, &in, most)
		if err != nil {
			return sourceError(ctx, err)
		}
		if err := d.hand(batch); err != nil {
			return err
		}
	}
	return nil
}

// batchSize is how many packets are written at once: one for a server that has
// to be spoken to packet by packet. Half of the window leaves the other half
// for what is on its way already.
func (d *deliveryV3) batchSize(p *v3.Packer) int {
	if !d.client.to.copes() {
		return 1
	}
	n := min(batchBytes/p.BufferSize(), d.plan.Packets)
	if d.plan.AckPackets {
		n = min(n, d.window/2)
	}
	return max(n, 1)
}

// borrow takes the buffers of the batches and returns what gives them back.
func (d *deliveryV3) borrow(size int) (release func()) {
	var lent [batches]*[]byte
	for i := range lent {
		b, ok := d.client.buffers.Get().(*[]byte)
		if !ok || cap(*b) < size {
			fresh := make([]byte, 0, size)
			b = &fresh
		}
		lent[i] = b
		d.free = append(d.free, *b)
	}
	return func() {
		if d.writing > 0 { // and so the send has failed
			d.line.hangUp()
		}
		for d.writing > 0 {
			<-d.line.written
			d.writing--
		}
		d.free = d.free[:0]
		for _, b := range lent {
			d.client.buffers.Put(b)
		}
	}
}

// seal makes up to most packets. Behind the last one the source has to end.
func seal(p *v3.Packer, b []byte, in *summed, most int) (batchV3, error) {
	batch := batchV3{bytes: b[:0]}
	for batch.packets < most && !p.Done() {
		var err error
		if batch.bytes, err = p.Append(batch.bytes, in); err != nil {
			return batchV3{}, err
		}
		batch.packets++
	}
	if !p.Done() {
		return batch, nil
	}
	switch _, err := in.r.ReadByte(); {
	case err == nil:
		return batchV3{}, fmt.Errorf("it has more than the %d bytes offered", p.Plan().Size)
	case !errors.Is(err, io.EOF):
		return batchV3{}, err
	}
	return batch, nil
}

// hand gives a batch to the writer as soon as the window has room for it.
func (d *deliveryV3) hand(b batchV3) error {
	if d.plan.AckPackets {
		for d.handed+b.packets-d.acked > d.window {
			if err := d.event(); err != nil {
				return err
			}
		}
		if d.handed == d.acked {
			d.line.expect()
		}
	}
	d.handed += b.packets
	d.writing++
	d.line.jobs <- b // never waits: there are no more batches than room
	for {
		select {
		case a, ok := <-d.listen():
			if err := d.heard(a, ok); err != nil {
				return err
			}
		case b := <-d.line.written:
			if err := d.left(b); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

// listen returns where answers come from. Behind the checksum there is none
// until something has been said to it.
func (d *deliveryV3) listen() <-chan answerV3 {
	if d.verdict != nil {
		return nil
	}
	return d.line.answers
}

// event waits for whatever comes next.
func (d *deliveryV3) event() error {
	select {
	case a, ok := <-d.listen():
		return d.heard(a, ok)
	case b := <-d.line.written:
		return d.left(b)
	}
}

// left takes note of a batch that has been written, and takes back its buffer.
func (d *deliveryV3) left(b batchV3) error {
	d.writing--
	d.free = append(d.free, b.bytes)
	if b.err != nil {
		a, err := d.line.lastWords(b.err)
		if err != nil {
			return fmt.Errorf("send packets: %w", err)
		}
		return d.heard(a, true)
	}
	d.written += b.packets
	if !d.plan.AckPackets {
		d.passed(d.written)
	}
	return nil
}

// heard takes note of an answer.
func (d *deliveryV3) heard(a answerV3, ok bool) error {
	if !ok {
		return fmt.Errorf("wait for an answer: %w", d.line.failure)
	}
	d.line.answered = true
	switch a.code {
	case v3.CodeThanks:
		return d.thanked(a.count)
	case v3.CodeReceived:
		return d.received(a)
	case v3.CodeGeneralError:
		return d.refused(a)
	}
	return fmt.Errorf("%w: answer %v to packet %d", ErrProtocol, a.code, d.acked+1)
}

func (d *deliveryV3) thanked(n int) error {
	if !d.plan.AckPackets {
		if d.spares -= n; d.spares >= 0 {
			return nil
		}
		return fmt.Errorf("%w: a packet was acknowledged: does the server speak another dialect than %s?", ErrProtocol, d.plan.Name)
	}
	if d.acked += n; d.acked > d.handed {
		return fmt.Errorf("%w: %d packets acknowledged, %d sent", ErrProtocol, d.acked, d.handed)
	}
	if d.acked < d.handed {
		d.line.expect()
	} else {
		d.line.rest()
	}
	d.passed(d.acked)
	return nil
}

func (d *deliveryV3) received(a answerV3) error {
	if d.handed < d.plan.Packets {
		return fmt.Errorf("%w: a checksum after %d of %d packets", ErrProtocol, d.handed, d.plan.Packets)
	}
	if d.plan.AckPackets && d.acked < d.plan.Packets {
		return fmt.Errorf("%w: a checksum before packets were acknowledged: does the server speak another dialect than %s?", ErrProtocol, d.plan.Name)
	}
	m, err := v3.ParseReceived(a.payload())
	if err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	d.verdict = &m
	return nil
}

// refused tells whether it was because the name exists.
func (d *deliveryV3) refused(a answerV3) error {
	if d.now.Send > 1 {
		return fmt.Errorf("%w: send %d", ErrRefused, d.now.Send)
	}
	if d.plan.AckPackets {
		if d.acked == 0 {
			return ErrExists
		}
		return fmt.Errorf("%w: packet %d of %d", ErrRefused, d.acked+1, d.plan.Packets)
	}
	if m, err := v3.ParseConfirm(a.payload()); err == nil && m.Name == d.offer.Name.String() {
		return ErrExists
	}
	return ErrRefused
}

// summed adds up what is read.
type summed struct {
	r   *bufio.Reader
	sum *Summer
}

func (s *summed) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	_, _ = s.sum.Write(p[:n])
	return n, err
}

// sourceError marks an error of the source, unless it only says that ctx has
// ended.
func sourceError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w: %w", ErrSource, err)
}
