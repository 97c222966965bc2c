package proto

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"ferry/proto/v3"
)

// lastWords is how long a client still listens when it could not write: the
// server may have said why.
const lastWords = time.Second

// A lineV3 is a client's connection. One goroutine reads answers and another
// writes packets, so that the server is heard while packets are on their way,
// and a connection that it closed between two files is noticed. Both end in
// close. All other methods belong to the goroutine that sends a file.
type lineV3 struct {
	conn    net.Conn
	timeout time.Duration

	answers chan answerV3 // closed by the reader when it ends
	failure error         // why it ended; set before
	jobs    chan batchV3
	written chan batchV3
	quit    chan struct{} // closed by close
	ends    sync.WaitGroup
	start   time.Time
	due     atomic.Int64 // when an answer has to be there, from start; 0: none is owed

	entered  bool // the handshake is done
	id       v3.ID
	key      v3.Key
	answered bool // the server said something since the line was taken
	reusable bool // the conversation stands between two files
}

// An answerV3 is a response of the server, or several 1604 that came together.
type answerV3 struct {
	code  v3.Code
	count int
	size  int
	body  [maxAnswer]byte // longer ones are cut: only their length is free
}

// maxAnswer is the payload of 1603, the longest that is looked into.
const maxAnswer = v3.IDSize + 4 + v3.NameSize + 4

func (a *answerV3) payload() []byte { return a.body[:a.size] }

// A batchV3 is packets that are written at once.
type batchV3 struct {
	bytes   []byte
	packets int
	err     error // of writing them
}

// batches is how many may be sealed and not yet written: one on its way, one
// being filled.
const batches = 2

func newLineV3(conn net.Conn, timeout time.Duration) *lineV3 {
	l := &lineV3{
		conn:    conn,
		timeout: timeout,
		answers: make(chan answerV3),
		jobs:    make(chan batchV3, batches),
		written: make(chan batchV3, batches),
		quit:    make(chan struct{}),
		start:   time.Now(),
	}
	l.ends.Go(l.read)
	l.ends.Go(l.write)
	return l
}

// hangUp breaks everything off that waits for the server.
func (l *lineV3) hangUp() { _ = l.conn.Close() }

func (l *lineV3) close() {
	close(l.quit)
	l.hangUp()
	l.ends.Wait()
}

// rest makes the line wait for the next file without owing anything.
func (l *lineV3) rest() { l.due.Store(0) }

// expect begins the wait for an answer, or begins it anew.
func (l *lineV3) expect() { l.due.Store(int64(time.Since(l.start) + l.timeout)) }

// quiet reports whether nothing came while the line rested: no end, no word.
func (l *lineV3) quiet() bool {
	select {
	case <-l.answers:
		return false
	default:
		return true
	}
}

// say writes one message, at once.
func (l *lineV3) say(b []byte) error {
	_ = l.conn.SetWriteDeadline(time.Now().Add(l.timeout)) // else Write says how the line ended
	_, err := l.conn.Write(b)
	return err
}

// ask writes one message and returns the answer. Where it could not be written,
// an answer may be there nevertheless: a server that has refused and closed.
func (l *lineV3) ask(b []byte) (answerV3, error) {
	if err := l.say(b); err != nil {
		return l.lastWords(err)
	}
	return l.await()
}

func (l *lineV3) await() (answerV3, error) {
	l.expect()
	a, ok := <-l.answers
	if !ok {
		return answerV3{}, l.failure
	}
	l.answered = true
	return a, nil
}

// lastWords returns what the server said before the line broke with err.
func (l *lineV3) lastWords(err error) (answerV3, error) {
	l.due.Store(int64(time.Since(l.start) + lastWords))
	_ = l.conn.SetReadDeadline(time.Now().Add(lastWords))
	for a := range l.answers {
		if a.code == v3.CodeGeneralError {
			l.answered = true
			return a, nil
		}
	}
	return answerV3{}, err
}

func (l *lineV3) write() {
	for {
		select {
		case b := <-l.jobs:
			b.err = l.say(b.bytes)
			l.written <- b // never waits: there are no more batches than room
		case <-l.quit:
			return
		}
	}
}

func (l *lineV3) read() {
	defer close(l.answers)
	r := answersV3{line: l}
	for {
		a, err := r.next()
		if err != nil {
			l.failure = err
			return
		}
		select {
		case l.answers <- a:
		case <-l.quit:
			l.failure = net.ErrClosed
			return
		}
	}
}

// answersV3 is the reader's view: bytes in, answers out.
type answersV3 struct {
	line *lineV3
	buf  [4 << 10]byte
	r, w int
}

func (s *answersV3) next() (_ answerV3, err error) {
	defer caught(&err)
	h, a, err := s.one()
	if err != nil {
		return answerV3{}, err
	}
	for h.Code == v3.CodeThanks && s.another(h) {
		a.count++
	}
	return a, nil
}

func (s *answersV3) one() (v3.ResponseHeader, answerV3, error) {
	var none answerV3
	h, err := s.header()
	if err != nil {
		return h, none, err
	}
	limit, ok := v3.PayloadLimit(h.Code)
	if !ok || h.Code < v3.CodeRegistered || int64(h.PayloadSize) > int64(limit) {
		return h, none, fmt.Errorf("%w: answer %v with a payload of %d bytes", ErrProtocol, h.Code, h.PayloadSize)
	}
	size := int(h.PayloadSize)
	if err := s.need(size); err != nil {
		return h, none, err
	}
	a := answerV3{code: h.Code, count: 1}
	a.size = copy(a.body[:], s.buf[s.r:s.r+size])
	s.r += size
	return h, a, nil
}

func (s *answersV3) header() (v3.ResponseHeader, error) {
	if err := s.need(v3.ResponseHeaderSize); err != nil {
		return v3.ResponseHeader{}, err
	}
	h, err := v3.ParseResponseHeader(s.buf[s.r : s.r+v3.ResponseHeaderSize])
	if err != nil {
		return v3.ResponseHeader{}, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	s.r += v3.ResponseHeaderSize
	return h, nil
}

// another takes one more answer just like h, if it is there already.
func (s *answersV3) another(h v3.ResponseHeader) bool {
	size := v3.ResponseHeaderSize + int(h.PayloadSize)
	if s.w-s.r < size {
		return false
	}
	next, err := v3.ParseResponseHeader(s.buf[s.r : s.r+v3.ResponseHeaderSize])
	if err != nil || next != h {
		return false
	}
	s.r += size
	return true
}

// need reads until n bytes are there.
func (s *answersV3) need(n int) error {
	if s.w-s.r >= n {
		return nil
	}
	s.w = copy(s.buf[:], s.buf[s.r:s.w])
	s.r = 0
	for s.w < n {
		got, err := s.line.readSome(s.buf[s.w:])
		s.w += got
		if got == 0 && err != nil {
			if errors.Is(err, io.EOF) {
				return fmt.Errorf("the server closed the connection: %w", io.ErrUnexpectedEOF)
			}
			return err
		}
	}
	return nil
}

// readSome reads with a deadline that fails only when an answer is overdue.
func (l *lineV3) readSome(b []byte) (int, error) {
	wait := l.timeout
	for {
		_ = l.conn.SetReadDeadline(time.Now().Add(wait)) // else Read says how the line ended
		n, err := l.conn.Read(b)
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		wait = l.timeout
		if due := time.Duration(l.due.Load()); due != 0 {
			if wait = due - time.Since(l.start); wait <= 0 {
				return 0, fmt.Errorf("no answer: %w", err)
			}
		}
	}
}
