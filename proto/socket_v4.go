package proto

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// A socketV4 is the connection under TLS. It sets a deadline of its own for each
// read and write, gathers the records of one message, or of a run of them, into
// few writes, and reads far ahead while much comes.
type socketV4 struct {
	net.Conn
	pacing

	start time.Time

	// Of a client: reads wait for as long as nothing is expected.
	patient bool
	due     atomic.Int64 // when something has to have come, from start; 0: nothing is expected
	last    atomic.Int64 // when the wait is over whatever the server says of its work, from start
	word    atomic.Int64 // when it last said that it is at work, from start; 0: never

	// excused reports whether the peer may still be silent while resting, when it
	// has been for idle. It may be nil.
	excused func() bool

	// Of the goroutine that reads.
	resting bool   // between two files
	came    bool   // something has come
	much    bool   // as much came at once as could
	in      []byte // read ahead while much comes; else nil
	r, w    int    // in[r:w] is unread

	// TLS writes by itself at times, while somebody reads.
	writing sync.Mutex
	out     []byte // guarded by writing: gathered while corked, else nil

	mu    sync.Mutex
	until time.Time // guarded by mu: nothing lasts longer; zero: idle alone bounds it
	ended bool      // guarded by mu: the context has, and nothing is waited for any more
	dead  bool      // guarded by mu: nothing is read any more
}

const (
	// gathered is how much is written to the socket at once.
	gathered = 512 << 10
	// readAheadV4 is how much is read from the socket at once while much comes.
	readAheadV4 = 512 << 10
	// mostStill is how often as long as for a word a client waits for a server that
	// says nothing but that it is still at work: ten minutes where it is half a one.
	mostStill = 20
	// recordV4 is the most that TLS puts in a record.
	recordV4 = 16 << 10
)

// errCut: the connection ended without the end of the conversation, which TLS
// alone takes for the same thing between two records.
var errCut = fmt.Errorf("the connection was cut: %w", io.ErrUnexpectedEOF)

// The deadlines that TLS sets, those of its last word, would lengthen ours.

// SetDeadline does nothing.
func (s *socketV4) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (s *socketV4) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (s *socketV4) SetWriteDeadline(time.Time) error { return nil }

// under makes every wait end with ctx, until release is called: reads at once,
// and writes soon, so that the reason can still be told.
func (s *socketV4) under(ctx context.Context) (release func()) {
	s.mu.Lock()
	s.ended = false
	s.mu.Unlock()
	return atEnd(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.ended = true
		_ = s.Conn.SetReadDeadline(longAgo)
		_ = s.Conn.SetWriteDeadline(time.Now().Add(s.lastWords()))
	})
}

func (s *socketV4) lastWords() time.Duration { return min(s.idle, lastWords) }

func (s *socketV4) hasEnded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended
}

// die ends the read that waits, and all after it.
func (s *socketV4) die() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dead = true
	_ = s.Conn.SetReadDeadline(longAgo)
}

// drain drops what comes, for so long and so much at most.
func (s *socketV4) drain(most int, d time.Duration) {
	s.within(time.Now().Add(d))
	room := getBuffer(bufferSizes[0])
	defer putBuffer(room)
	for most > 0 {
		s.begin()
		n, err := s.wait(room[:cap(room)])
		if err != nil {
			return
		}
		most -= n
	}
}

// within lets nothing wait beyond until, and anything wait again until then after
// the end of the context. The zero time takes that back.
func (s *socketV4) within(until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.until, s.ended = until, false
}

// expect begins the wait for a word of the server, or begins it anew; with
// settle nothing is waited for any more. Both are safe beside a Read.
func (s *socketV4) expect() {
	now := time.Since(s.start)
	s.last.Store(int64(now + mostStill*s.idle))
	s.due.Store(max(1, int64(now+s.idle)))
}

func (s *socketV4) settle() { s.due.Store(0) }

// prolong goes on with the wait, if there is one, and with writes, because the
// server is still at work, as it says. It is called by whoever may call expect.
func (s *socketV4) prolong() {
	s.word.Store(int64(time.Since(s.start)))
	if s.due.Load() != 0 {
		s.due.Store(min(int64(time.Since(s.start)+s.idle), s.last.Load()))
	}
}

// prolonged reports whether a wait is over although the server goes on saying
// that it is at work.
func (s *socketV4) prolonged() bool {
	due := s.due.Load()
	return due != 0 && due == s.last.Load()
}

// Read is called by TLS. It asks for little more than a record at a time. While
// that is what comes, it is what is read; whoever sends more than that has a
// large buffer until it does so no more.
func (s *socketV4) Read(p []byte) (int, error) {
	if s.r < s.w {
		return s.take(p), nil
	}
	if !s.much || len(p) >= readAheadV4 {
		n, err := s.wait(p)
		s.much = n == len(p) && n >= recordV4
		return n, err
	}
	s.in = getBuffer(readAheadV4)
	s.in = s.in[:cap(s.in)]
	n, err := s.wait(s.in)
	s.r, s.w = 0, n
	s.much = n > 2*recordV4
	if n == 0 {
		putBuffer(s.in)
		s.in = nil
		return 0, err
	}
	return s.take(p), nil
}

// take takes from what was read ahead.
func (s *socketV4) take(p []byte) int {
	n := copy(p, s.in[s.r:s.w])
	if s.r += n; s.r == s.w {
		putBuffer(s.in)
		s.in = nil
	}
	return n
}

// wait reads from the connection.
func (s *socketV4) wait(p []byte) (int, error) {
	for {
		start := time.Now()
		if !s.setRead(start) {
			return 0, os.ErrDeadlineExceeded
		}
		n, err := s.Conn.Read(p)
		if n > 0 {
			s.count(start, n)
			s.came = true
			return n, nil
		}
		switch {
		case err == nil:
			return 0, io.ErrNoProgress
		case errors.Is(err, io.EOF) && s.came:
			return 0, errCut
		case !errors.Is(err, os.ErrDeadlineExceeded) || !s.waits():
			return 0, err
		}
	}
}

// waits reports whether a read goes on although its time is over.
func (s *socketV4) waits() bool {
	if s.patient {
		due := s.due.Load()
		return due == 0 || time.Since(s.start) < time.Duration(due)
	}
	return !s.bounded() && s.resting && s.rest.IsZero() && s.excused != nil && s.excused()
}

// bounded reports whether nothing waits any longer than it has.
func (s *socketV4) bounded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.until.IsZero() || s.ended || s.dead
}

// setRead sets the deadline of a read that begins now. It reports whether the
// context goes on. Where setting one fails, the connection has ended, and the
// read that follows says how.
func (s *socketV4) setRead(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || s.dead {
		return false
	}
	_ = s.Conn.SetReadDeadline(s.deadline(now))
	return true
}

// deadline is that of a read which begins now. The caller holds mu.
func (s *socketV4) deadline(now time.Time) time.Time {
	if !s.patient {
		return s.pacing.deadline(now, s.until)
	}
	if due := s.due.Load(); due != 0 {
		return s.start.Add(time.Duration(due))
	}
	return now.Add(s.idle)
}

// heldBy is for how long the server's last word that it is at work holds yet.
func (s *socketV4) heldBy() time.Duration {
	word := s.word.Load()
	if word == 0 {
		return 0
	}
	return s.idle - (time.Since(s.start) - time.Duration(word))
}

// onlyStill says that a wait is over although the server goes on saying that it is
// at work.
func (s *socketV4) onlyStill(err error) error {
	return fmt.Errorf("the server has said for %v only that it is still at work (what it keeps is not sent again): %w", mostStill*s.idle, err)
}

// cork gathers what is written next, of about that size, until uncork. One
// record goes as it is.
func (s *socketV4) cork(size int) {
	if size <= recordV4 {
		return
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	s.out = getBuffer(gathered)
}

func (s *socketV4) uncork() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.out == nil {
		return nil
	}
	err := s.send(s.out)
	putBuffer(s.out)
	s.out = nil
	return err
}

// Write is called by TLS.
func (s *socketV4) Write(p []byte) (int, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.out == nil {
		return s.sent(p, s.send(p))
	}
	var err error
	if len(s.out)+len(p) > cap(s.out) {
		err = s.send(s.out)
		s.out = s.out[:0]
	}
	s.out = append(s.out, p...)
	return s.sent(p, err)
}

func (s *socketV4) sent(p []byte, err error) (int, error) {
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// send writes to the connection. What is not taken in time waits for a server that
// says that it is at work, as long as a read would.
func (s *socketV4) send(p []byte) error {
	begun, wait := time.Now(), s.idle
	for len(p) > 0 {
		n, err := s.sendSome(p, wait)
		p = p[n:]
		if err == nil {
			return nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) || s.bounded() {
			return err
		}
		left := mostStill*s.idle - time.Since(begun)
		if left <= 0 {
			return s.onlyStill(err)
		}
		if wait = min(s.heldBy(), left); wait <= 0 {
			return err
		}
	}
	return nil
}

// sendSome is one write.
func (s *socketV4) sendSome(p []byte, wait time.Duration) (int, error) {
	s.mu.Lock()
	if s.ended {
		wait = s.lastWords()
	}
	t := time.Now().Add(wait)
	if !s.until.IsZero() && s.until.Before(t) {
		t = s.until
	}
	_ = s.Conn.SetWriteDeadline(t)
	s.mu.Unlock()
	return s.Conn.Write(p)
}
