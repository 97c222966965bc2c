package proto

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"ferry/proto/v4"
)

// mostShared is how many small files are on their way over one connection,
// whatever the server allows.
const mostShared = 1024

// A sharedV4 is a connection for files that fit into one message. One goroutine
// writes what waits, as much as there is at once, and one reads the answers and
// hands them to whoever sent the file.
type sharedV4 struct {
	client *clientV4
	line   *lineV4
	room   chan struct{} // holds a value for each file that is not answered
	wake   chan struct{} // there is something to write
	gone   chan struct{} // closed when nothing is answered any more
	ends   sync.WaitGroup

	mu      sync.Mutex // guards what follows
	queue   []*fileV4  // to be written
	waiting map[uint64]*fileV4
	number  uint64        // of the last file
	rested  bool          // nothing was answered since nothing was on its way: it may have ended then
	ending  bool          // no more files
	parting *RefusedError // what the server said about the session, if anything
	broken  error         // of writing
	err     error         // why it has gone
	expiry  *time.Timer   // runs while nothing is on its way
}

// A fileV4 is a file in one message, on its way.
type fileV4 struct {
	number  uint64
	payload []byte
	taken   bool          // by the writer, which gives the payload back; guarded by sharedV4.mu
	answer  chan answerV4 // has room for it
}

// errRested: the connection has ended while nothing was on its way.
var errRested = errors.New("the connection had ended before")

// sharedLine returns the connection that small files share, and makes it if there is
// none.
func (c *clientV4) sharedLine(ctx context.Context, d *deliveryV4) (*sharedV4, error) {
	for {
		if err := c.idle.open(); err != nil {
			return nil, err
		}
		c.mu.Lock()
		s := c.shared
		c.mu.Unlock()
		if s != nil && s.open() {
			return s, nil
		}
		d.phase(PhaseKeying)
		if _, err := c.joint.do(ctx, func() error { return c.share(ctx) }); err != nil {
			return nil, err
		}
	}
}

// share makes the connection, unless it has been made.
func (c *clientV4) share(ctx context.Context) error {
	c.mu.Lock()
	s := c.shared
	c.mu.Unlock()
	if s != nil && s.open() {
		return nil
	}
	l, err := c.open(ctx)
	if err != nil {
		return err
	}
	s = newShared(c, l)
	c.mu.Lock()
	err = c.idle.open() // close asks for what is shared after it has closed that
	if err == nil {
		c.shared = s
	}
	c.mu.Unlock()
	if err != nil {
		s.retire()
	}
	return err
}

func newShared(c *clientV4, l *lineV4) *sharedV4 {
	s := &sharedV4{
		client:  c,
		line:    l,
		room:    make(chan struct{}, min(int(l.welcome.Unanswered), mostShared)),
		wake:    make(chan struct{}, 1),
		gone:    make(chan struct{}),
		waiting: map[uint64]*fileV4{},
	}
	l.reusable = false // retire says goodbye
	s.expiry = time.AfterFunc(c.cfg.KeepAlive, s.retire)
	s.ends.Go(s.write)
	s.ends.Go(s.read)
	return s
}

// open reports whether the connection takes files.
func (s *sharedV4) open() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.ending
}

// enter waits until one more file may be on its way. leave ends that.
func (s *sharedV4) enter(ctx context.Context) error {
	select {
	case s.room <- struct{}{}:
		return nil
	case <-s.gone:
		return s.failure(nil)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *sharedV4) leave() { <-s.room }

// post hands a file to the writer, which owns its payload from then on.
func (s *sharedV4) post(f *fileV4) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending {
		putBuffer(f.payload)
		<-s.room
		return errRested // nothing was said of this file
	}
	if len(s.waiting) == 0 {
		s.rested = s.number > 0
		s.expiry.Stop()
		s.line.frames.socket.expect()
	}
	s.number++
	f.number = s.number
	s.waiting[f.number] = f
	s.queue = append(s.queue, f)
	signal(s.wake)
	return nil
}

// await returns the answer. If ctx ends before it comes, it is dropped when it
// does; a file that has not been written is not.
func (s *sharedV4) await(ctx context.Context, f *fileV4) (answerV4, error) {
	select {
	case a := <-f.answer:
		return a, nil
	case <-s.gone:
		select {
		case a := <-f.answer:
			return a, nil
		default:
			return answerV4{}, s.failure(f)
		}
	case <-ctx.Done():
		s.withdraw(f)
		return answerV4{}, context.Cause(ctx)
	}
}

// failure is why the connection has gone, to whoever waits for f, or has not
// said anything.
func (s *sharedV4) failure(f *fileV4) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case f == nil || s.rested:
		return fmt.Errorf("%w: %w", errRested, s.err)
	case s.parting != nil:
		return lostAnswer(s.parting)
	}
	return fmt.Errorf("wait for an answer: %w", s.err)
}

// withdraw takes a file back that has not been written.
func (s *sharedV4) withdraw(f *fileV4) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.taken {
		return
	}
	var queue []*fileV4
	for _, other := range s.queue {
		if other != f {
			queue = append(queue, other)
		}
	}
	if len(queue) == len(s.queue) {
		return
	}
	s.queue = queue
	putBuffer(f.payload)
	s.settle(f.number)
}

// settle ends the wait for a file's answer. The caller holds mu.
func (s *sharedV4) settle(number uint64) {
	delete(s.waiting, number)
	<-s.room
	if len(s.waiting) > 0 {
		s.line.frames.socket.expect()
		return
	}
	s.line.frames.socket.settle()
	if s.ending {
		s.line.hangUp()
	} else {
		s.expiry.Reset(s.client.patience())
	}
}

// patience is how long a connection is kept that nothing is on its way over.
func (c *clientV4) patience() time.Duration {
	if c.idle.open() != nil || c.cfg.IdleConns < 0 {
		return 0
	}
	return c.cfg.KeepAlive
}

// retire ends the connection if nothing is on its way over it, now or as soon as
// that is so.
func (s *sharedV4) retire() {
	s.mu.Lock()
	s.expiry.Stop()
	idle := len(s.waiting) == 0
	s.ending = s.ending || idle
	s.mu.Unlock()
	if idle {
		_ = s.line.frames.bye() // or else it has ended
		s.line.hangUp()
		s.ends.Wait()
	}
}

// write writes what waits.
func (s *sharedV4) write() {
	for {
		select {
		case <-s.wake:
		case <-s.gone:
			return
		}
		if err := s.writeAll(); err != nil {
			s.mu.Lock()
			s.broken, s.ending = err, true
			s.mu.Unlock()
			s.line.hurry(lastWords) // the server may have said why
			<-s.gone
			return
		}
	}
}

func (s *sharedV4) writeAll() error {
	for {
		files := s.takeQueue()
		if len(files) == 0 {
			return s.line.frames.flush()
		}
		var err error
		for _, f := range files {
			if err == nil {
				err = s.line.frames.put(v4.CodeFile, f.number, f.payload)
			}
			putBuffer(f.payload)
		}
		if err != nil {
			return err
		}
	}
}

func (s *sharedV4) takeQueue() []*fileV4 {
	s.mu.Lock()
	defer s.mu.Unlock()
	files := s.queue
	s.queue = nil
	for _, f := range files {
		f.taken = true
	}
	return files
}

// read hands answers on until the connection ends.
func (s *sharedV4) read() {
	var err error
	for a := range s.line.answers {
		if err == nil {
			if err = s.heard(a); err != nil {
				s.line.hangUp()
			}
		}
	}
	s.fail(cmp.Or(err, s.line.failure))
	s.line.close()
}

// heard hands an answer to whoever waits for it.
func (s *sharedV4) heard(a answerV4) (err error) {
	defer caught(&err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rested = false
	switch a.code {
	case v4.CodeStored:
		for _, n := range a.vouched.numbers {
			if err := s.answer(n, a); err != nil {
				return err
			}
		}
		return nil
	case v4.CodeThanks:
		return s.still(a)
	case v4.CodeDiffers:
		return s.answer(a.number, a)
	case v4.CodeRefused:
		return s.refused(a)
	}
	return fmt.Errorf("%w: answer %v to a file in one message", ErrProtocol, a.code)
}

// awaited is the file that an answer is about. It is called with mu held.
func (s *sharedV4) awaited(number uint64, a answerV4) (*fileV4, error) {
	f, ok := s.waiting[number]
	if !ok || !f.taken {
		return nil, fmt.Errorf("%w: answer %v about file %d, which there is not", ErrProtocol, a.code, number)
	}
	return f, nil
}

// still takes note that the server is at work. It is called with mu held.
func (s *sharedV4) still(a answerV4) error {
	if _, err := s.awaited(a.number, a); err != nil {
		return err
	}
	if a.offset != 0 {
		return fmt.Errorf("%w: it keeps %d bytes of a file in one message", ErrProtocol, a.offset)
	}
	if s.broken == nil { // else it is not waited for long: see write
		s.line.frames.socket.prolong()
	}
	return nil
}

// answer is called with mu held.
func (s *sharedV4) answer(number uint64, a answerV4) error {
	f, err := s.awaited(number, a)
	if err != nil {
		return err
	}
	f.answer <- a // has room
	s.settle(number)
	return nil
}

// refused takes a refusal of one file, or of all that are to come; of those that
// are on their way answers may still follow. It is called with mu held.
func (s *sharedV4) refused(a answerV4) error {
	why := refusalV4(a.refused)
	if a.number == 0 || endsSession(why) {
		s.ending, s.parting = true, why
		s.expiry.Stop()
	}
	if a.number != 0 {
		return s.answer(a.number, a)
	}
	if len(s.waiting) == 0 {
		s.line.hangUp()
	}
	return nil
}

// fail ends the wait for all answers.
func (s *sharedV4) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expiry.Stop()
	s.ending, s.err = true, cmp.Or(s.broken, err)
	for _, f := range s.queue {
		putBuffer(f.payload)
	}
	s.queue = nil
	close(s.gone)
}
