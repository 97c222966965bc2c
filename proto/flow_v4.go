package proto

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"ferry/proto/v4"
)

const (
	// batchV4 is how much is read, sealed and written at once, and the largest
	// packet if that is more.
	batchV4 = 512 << 10
	// batchesV4 is how many batches there are of a file at most.
	batchesV4 = 4
	// sealersV4 is how many goroutines seal those of one file at most.
	sealersV4 = 4
	// marksV4 is how many marks there are of a file at most: the window is what
	// the server says, and may be larger than memory.
	marksV4 = 256
)

// A flowV4 is the way of a file's bytes from the source to the connection: one
// goroutine reads them and takes their places in the order of what is sealed,
// some seal, one hashes where the sum is not known, and one writes. None of them
// leaves before each place that was taken has been written, or the connection
// has failed: what is sealed for a place that is left out opens for nobody.
type flowV4 struct {
	d      *deliveryV4
	frames *framesV4
	packet int64
	batch  int64 // bytes of plaintext; a multiple of packet
	window int64
	from   int64

	free, toSeal, toHash, toWrite chan *packetsV4

	halt chan struct{} // closed: nothing more is to be read
	once sync.Once
	room chan struct{} // the server keeps more than before
	left chan struct{} // more was written
	all  sync.WaitGroup
	done chan struct{} // closed when all have left

	acked   atomic.Int64 // that the server keeps; stored by the goroutine that sends
	handed  atomic.Int64 // to be written: its place is taken
	written atomic.Int64

	mu    sync.Mutex
	marks []markV4 // guarded by mu: of what has been hashed and is not known to be kept
	apart int64    // guarded by mu: how far the marks that follow are apart, at least

	readErr  error // of the source; set by the reader before done
	placeErr error // of reserving; set by the reader before done
	writeErr error // of the connection; set by the writer before done
}

// packetsV4 are packets on their way together.
type packetsV4 struct {
	at     int64
	plain  []byte
	sealed []byte
	slots  []v4.Slot
	ready  chan struct{} // holds a value when it is sealed
	users  atomic.Int32  // of plain and sealed; the last one frees them
}

// markV4 is the state of the sum of so many bytes.
type markV4 struct {
	size  int64
	state []byte
}

// stream sends what the server does not keep of the file, to its end.
func (d *deliveryV4) stream(ctx context.Context) error {
	if d.kept == d.offer.Size && d.hash == nil {
		return nil
	}
	if err := d.place(ctx, d.kept, d.client.prefix); err != nil {
		return d.unsent(ctx, err)
	}
	if d.kept < d.offer.Size {
		f := d.newFlow()
		defer f.release()
		if err := f.run(ctx); err != nil {
			return err
		}
		d.at = d.offer.Size
	}
	if err := d.ended(); err != nil {
		return d.unsent(ctx, sourceError(ctx, err))
	}
	return nil
}

// unsent tells the server that the file does not come, unless it is only later.
func (d *deliveryV4) unsent(ctx context.Context, err error) error {
	if ctx.Err() != nil || !Permanent(err) {
		return err
	}
	return d.giveUp(err)
}

func (d *deliveryV4) newFlow() *flowV4 {
	w := d.line.welcome
	f := &flowV4{
		d: d, frames: d.line.frames, from: d.kept, packet: int64(w.Packet), window: int64(w.Window), //nolint:gosec // ParseWelcome checks it
		halt: make(chan struct{}), room: make(chan struct{}, 1), left: make(chan struct{}, 1), done: make(chan struct{}),
	}
	f.batch = max(min(batchV4, f.window/4)/f.packet, 1) * f.packet
	count := int(min(batchesV4, packetsOf(d.offer.Size-d.kept, int(f.batch))))
	for _, c := range []*chan *packetsV4{&f.free, &f.toSeal, &f.toHash, &f.toWrite} {
		*c = make(chan *packetsV4, count) // so that no batch ever waits to be handed on
	}
	packets := int(f.batch / f.packet)
	for range count {
		f.free <- &packetsV4{
			plain:  getBuffer(int(f.batch)),
			sealed: getBuffer(int(f.batch) + packets*(v4.HeaderSize+v4.TagSize)),
			slots:  make([]v4.Slot, packets),
			ready:  make(chan struct{}, 1),
		}
	}
	f.acked.Store(d.kept)
	f.handed.Store(d.kept)
	f.written.Store(d.kept)
	return f
}

// release gives the buffers back, once all have left.
func (f *flowV4) release() {
	close(f.free)
	for b := range f.free {
		putBuffer(b.plain)
		putBuffer(b.sealed)
	}
}

// stop makes nothing more be read.
func (f *flowV4) stop() { f.once.Do(func() { close(f.halt) }) }

// run returns when all bytes have been written, or when none are to be any more.
func (f *flowV4) run(ctx context.Context) error {
	f.start()
	err := f.attend()
	switch failed := cmp.Or(f.writeErr, f.placeErr); {
	case err != nil:
		return err
	case failed != nil:
		return f.lost(ctx, failed)
	case f.readErr != nil:
		return f.d.unsent(ctx, sourceError(ctx, f.readErr))
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	f.frames.socket.settle()
	return nil
}

// lost is the error of a connection that does not take any more: what the server
// said before, or the connection's.
func (f *flowV4) lost(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	a, err := f.d.line.lastWords(fmt.Errorf("send packets: %w", err))
	if err != nil {
		return err
	}
	return f.d.refused(a)
}

func (f *flowV4) start() {
	f.all.Go(f.read)
	for range min(runtime.GOMAXPROCS(0), sealersV4) {
		f.all.Go(f.seal)
	}
	if f.d.hash != nil {
		f.all.Go(f.hash)
	}
	f.all.Go(f.write)
	go func() {
		f.all.Wait()
		close(f.done)
	}()
}

// attend listens to the server until all have left, and returns what it said
// against the file.
func (f *flowV4) attend() error {
	d := f.d
	defer func() { <-f.done }()
	defer f.stop()
	for {
		select {
		case <-f.done:
			return nil
		case <-f.left:
			f.owed()
		case a, ok := <-d.line.answers:
			if !ok {
				d.line.hangUp() // the writer need not wait either
				return fmt.Errorf("wait for an answer: %w", d.line.failure)
			}
			d.line.answered = true
			if err := f.heard(a); err != nil {
				return err
			}
		}
	}
}

// owed makes the server's next word due, or not: it thanks once a quarter of the
// window.
func (f *flowV4) owed() {
	if f.written.Load()-f.acked.Load() >= f.window/4 {
		f.frames.socket.expect()
	} else {
		f.frames.socket.settle()
	}
}

// heard takes note of an answer.
func (f *flowV4) heard(a answerV4) error {
	d := f.d
	ours, err := d.ours(a)
	switch {
	case err != nil:
		d.line.hangUp()
		return err
	case !ours:
		return nil
	case a.code == v4.CodeThanks:
		return f.thanked(a.offset)
	case a.code == v4.CodeRefused:
		return f.refused(a)
	}
	d.line.hangUp()
	return fmt.Errorf("%w: answer %v within the file", ErrProtocol, a.code)
}

// thanked takes note that so much is kept, or that the server is still at work on
// what is on its way.
func (f *flowV4) thanked(offset int64) error {
	d, handed := f.d, f.handed.Load()
	err := d.thanked(offset, handed)
	acked := f.acked.Load()
	if err == nil && offset == acked && handed == acked {
		err = fmt.Errorf("%w: it is at work on a file of which it keeps all that was sent, %d bytes", ErrProtocol, acked)
	}
	switch {
	case err != nil:
		d.line.hangUp()
		return err
	case offset == acked:
		f.frames.socket.prolong()
		return nil
	}
	f.acked.Store(offset)
	f.owed()
	signal(f.room)
	f.remember(offset)
	return nil
}

// refused ends the file, and leaves the connection fit for the next one.
func (f *flowV4) refused(a answerV4) error {
	f.stop()
	why := f.d.refused(a)
	if a.number == 0 || endsSession(why) {
		f.d.line.hangUp()
		return why
	}
	<-f.done // all that was sealed has to be written
	if f.writeErr != nil {
		return why
	}
	return f.d.giveUp(why)
}

// signal lets whoever waits for c look again.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// read reads the source and hands batches on.
func (f *flowV4) read() {
	defer close(f.toSeal)
	defer close(f.toHash)
	defer close(f.toWrite)
	size := f.d.offer.Size
	for at := f.from; at < size; {
		var b *packetsV4
		select {
		case b = <-f.free:
		case <-f.halt:
			return
		}
		n := min(f.batch, size-at)
		b.at, b.plain = at, b.plain[:n]
		if got, err := io.ReadFull(f.d.in, b.plain); err != nil {
			f.readErr = shorter(err, at+int64(got), size)
			f.free <- b
			return
		}
		at += n
		if !f.admitted(at) {
			f.free <- b
			return
		}
		if err := f.reserve(b); err != nil {
			f.placeErr = err
			f.free <- b
			return
		}
		f.handed.Store(at)
		f.hand(b)
	}
}

// admitted waits until the window reaches so far; it is false if there is no
// need to any more.
func (f *flowV4) admitted(to int64) bool {
	for to-f.acked.Load() > f.window {
		select {
		case <-f.room:
		case <-f.halt:
			return false
		}
	}
	select {
	case <-f.halt:
		return false
	default:
		return true
	}
}

// reserve takes the batch's places.
func (f *flowV4) reserve(b *packetsV4) error {
	b.slots = b.slots[:packetsOf(int64(len(b.plain)), int(f.packet))]
	return f.frames.reserve(b.slots)
}

func (f *flowV4) hand(b *packetsV4) {
	b.users.Store(1)
	if f.d.hash != nil {
		b.users.Store(2)
		f.toHash <- b
	}
	f.toSeal <- b
	f.toWrite <- b
}

func (f *flowV4) drop(b *packetsV4) {
	if b.users.Add(-1) == 0 {
		f.free <- b
	}
}

// seal seals batches, in any order.
func (f *flowV4) seal() {
	for b := range f.toSeal {
		b.sealed = b.sealed[:0]
		for i, slot := range b.slots {
			start := int64(i) * f.packet
			packet := b.plain[start:min(start+f.packet, int64(len(b.plain)))]
			b.sealed = slot.Append(b.sealed, v4.CodePacket, uint64(b.at+start), packet) //nolint:gosec // not negative
		}
		b.ready <- struct{}{}
	}
}

// hash hashes batches in their order.
func (f *flowV4) hash() {
	for b := range f.toHash {
		f.d.hashed(b.plain, b.at)
		f.drop(b)
		if f.d.watch.Summed != nil {
			f.mark()
		}
	}
}

// mark notes the sum of what has been hashed. Where there would be too many marks,
// every other one goes, and those that follow are as far apart.
func (f *flowV4) mark() {
	f.mu.Lock()
	defer f.mu.Unlock()
	size, n := f.d.hash.size, len(f.marks)
	switch {
	case n == 0:
		f.apart = 0
	case size < f.marks[n-1].size+f.apart && size < f.d.offer.Size:
		return
	case n == marksV4:
		f.apart = 2 * (f.marks[1].size - f.marks[0].size)
		for i := range marksV4 / 2 {
			f.marks[i] = f.marks[2*i+1]
		}
		clear(f.marks[marksV4/2:])
		f.marks = f.marks[:marksV4/2]
	}
	state, _ := f.d.hash.MarshalBinary() // never fails
	f.marks = append(f.marks, markV4{size, state})
}

// remember hands out the sum of what the server keeps.
func (f *flowV4) remember(kept int64) {
	f.mu.Lock()
	n := 0
	for n < len(f.marks) && f.marks[n].size <= kept {
		n++
	}
	var state []byte
	if n > 0 {
		state = f.marks[n-1].state
		f.marks = slices.Delete(f.marks, 0, n)
	}
	f.mu.Unlock()
	if state != nil {
		f.d.summed(state)
	}
}

// write writes batches in their order.
func (f *flowV4) write() {
	for b := range f.toWrite {
		<-b.ready
		if f.writeErr == nil {
			if f.writeErr = f.frames.write(b.sealed); f.writeErr != nil {
				f.stop()
			}
			f.written.Store(b.at + int64(len(b.plain)))
			signal(f.left)
		}
		f.drop(b)
	}
}
