package proto

import (
	"cmp"
	"errors"
	"fmt"
	"sync"

	"ferry/proto/v4"
)

// inFlight is how many batches of a file are between the connection and the
// sink: one being read, one being hashed, one being written, and one that waits.
const inFlight = 4

// Until so much of a file has come, its batches are small: it takes bytes, not
// claims, to make a session hold more.
const growAfter = 1 << 20

// errGaveUp: the client has said 902.
var errGaveUp = errors.New("the client gave up")

// An intakeV4 is the way of one send of a file: read and opened by one
// goroutine, hashed by the next, and written by that which called Receive.
type intakeV4 struct {
	t    *transferV4
	ends sync.WaitGroup // of read and hash

	tokens chan struct{} // holds a value for each batch that is on its way
	hashed chan batchOfV4
	came   chan batchOfV4
	failed chan struct{} // closed by fail when nothing more is of use
	fail   func()

	// Of read, and after it of whoever waited for it.
	at     int64 // offset of the next packet
	batch  []byte
	stated v4.Sum
	err    error // why it ended, unless with 831
	over   bool  // with 831 or 902: no more packets come
	again  bool  // with 901 of a file that has been refused: they may come

	// Of write.
	written, kept int64
}

// A batchOfV4 is the plaintext of packets, one behind the other.
type batchOfV4 struct {
	b     []byte
	state []byte // of the sum behind it, if it is to be kept
	keep  bool
}

func newIntakeV4(t *transferV4, from int64) *intakeV4 {
	failed := make(chan struct{})
	return &intakeV4{
		t:       t,
		tokens:  make(chan struct{}, inFlight),
		hashed:  make(chan batchOfV4, inFlight),
		came:    make(chan batchOfV4, inFlight),
		failed:  failed,
		fail:    sync.OnceFunc(func() { close(failed) }),
		at:      from,
		written: from,
		kept:    from,
	}
}

// read reads packets until the client's 831 or 902, or an error.
func (in *intakeV4) read() {
	defer close(in.came)
	from := in.at
	keepAt := in.at + keepEvery
	for {
		more, err := in.message(from)
		if !more || err != nil {
			in.err = err
			break
		}
		switch {
		case in.at == in.t.offer.Size:
			in.hand(false) // there is nothing to wait for
		case in.at >= keepAt:
			in.hand(true)
			keepAt = in.at + keepEvery
		}
	}
	in.hand(false)
}

// message takes one message. It reports whether more are to come.
func (in *intakeV4) message(from int64) (more bool, err error) {
	defer caught(&err)
	s, size := in.t.s, in.t.offer.Size
	h, err := s.frames.header()
	if err != nil {
		return false, cut(err)
	}
	if h.Code != v4.CodePacket {
		return false, in.last(h)
	}
	n := int64(h.Length) - v4.TagSize
	if h.Number != uint64(in.at) || n < 1 || n > size-in.at { //nolint:gosec // an offset is not negative
		return false, fmt.Errorf("%w: packet of %d bytes at %d where %d is to come, of %d", ErrProtocol, n, h.Number, in.at, size)
	}
	if cap(in.batch)-len(in.batch) < int(h.Length) && !in.fresh(int(h.Length), in.at-from) {
		b, err := s.frames.body(getBuffer(int(h.Length))) // what comes behind it is to be understood
		putBuffer(b)
		return false, cmp.Or(err, errUseless)
	}
	if in.batch, err = s.frames.body(in.batch); err != nil {
		return false, err
	}
	in.at += n
	return true, nil
}

// errUseless: the sink has failed.
var errUseless = errors.New("nothing more is taken")

// last takes what is no packet.
func (in *intakeV4) last(h v4.Header) error {
	s := in.t.s
	if h.Number == in.t.number && h.Code == v4.CodeAgain && in.useless() {
		in.again = true
		return cmp.Or(s.frames.skip(s.room), errUseless)
	}
	if h.Number != in.t.number || h.Code != v4.CodeEnd && h.Code != v4.CodeGiveUp {
		return fmt.Errorf("%w: %v of file %d within file %d", ErrProtocol, h.Code, h.Number, in.t.number)
	}
	if h.Code == v4.CodeGiveUp {
		if err := s.frames.skip(s.room); err != nil {
			return err
		}
		in.over = true
		return errGaveUp
	}
	if size := in.t.offer.Size; in.at != size {
		return fmt.Errorf("%w: %v after %d bytes of %d", ErrProtocol, h.Code, in.at, size)
	}
	var err error
	in.stated, err = read(s, h, v4.ParseSum)
	in.over = err == nil
	return err
}

// useless reports whether the sink has failed. The client has not been told
// before.
func (in *intakeV4) useless() bool {
	select {
	case <-in.failed:
		return true
	default:
		return false
	}
}

// fresh hands the batch over and begins one that has room for so much, when
// there may be one. After so much has come, it is a large one.
func (in *intakeV4) fresh(room int, come int64) bool {
	in.hand(false)
	select {
	case in.tokens <- struct{}{}:
	case <-in.failed:
		return false
	}
	size := smallBatch
	if come >= growAfter {
		size = largeBatch
	}
	in.batch = getBuffer(max(size, room))
	return true
}

// hand hands the batch over.
func (in *intakeV4) hand(keep bool) {
	if in.batch == nil {
		return
	}
	in.came <- batchOfV4{b: in.batch, keep: keep} // never waits: there is room for all tokens
	in.batch = nil
}

// hash sums batches.
func (in *intakeV4) hash() {
	defer close(in.hashed)
	sum := in.t.s.sum
	for b := range in.came {
		_, _ = sum.Write(b.b)
		if b.keep {
			b.state, _ = sum.MarshalBinary() // never fails
		}
		in.hashed <- b
	}
}

// write writes batches until there are no more, and returns the sink's error,
// which the client has been told unless it ends the session.
func (in *intakeV4) write(dst Sink) error {
	var failed error
	still := in.t.s.answers.still
	for b := range in.hashed {
		if failed == nil {
			still.works(in.t.number, in.kept)
			if failed = in.writeOne(dst, b); failed != nil {
				in.fail()
				if !endsSession(failed) {
					_ = in.t.stop(failed) // a connection that has ended is noticed by who reads
				}
			}
		}
		putBuffer(b.b)
		<-in.tokens
		if len(in.hashed) == 0 { // it is for the client to go on
			still.rests(in.t.number)
		}
	}
	return failed
}

func (in *intakeV4) writeOne(dst Sink, b batchOfV4) error {
	if _, err := dst.Write(b.b); err != nil {
		return err
	}
	in.written += int64(len(b.b))
	if !b.keep {
		return nil
	}
	if err := dst.Keep(b.state); err != nil {
		return err
	}
	in.kept = in.written
	if err := in.t.tell(v4.CodeThanks, v4.Offset{Bytes: in.kept}.Append(nil)); err != nil {
		in.t.s.frames.socket.die() // who hears nothing need not be heard: see sessionV4.cause
	}
	return nil
}

// keep keeps what came before the connection ended. That it could not is no
// loss but of time.
func (in *intakeV4) keep(dst Sink) {
	if in.written == in.kept {
		return
	}
	if state, err := in.t.s.sum.MarshalBinary(); err == nil {
		_ = dst.Keep(state)
	}
}
