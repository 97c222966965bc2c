package proto

import (
	"context"
	"sync"
	"time"

	"ferry/proto/v4"
)

// gatherFor is how long answers wait for others to share a signature with, as
// long as there are files that have not been answered.
const gatherFor = 10 * time.Millisecond

// An answersV4 says what has been decided about files, from a goroutine that is
// there while there is something to say.
type answersV4 struct {
	s     *sessionV4
	still *stillV4
	slots chan struct{} // holds a value for each file that has not been answered

	ends sync.WaitGroup
	more chan struct{} // holds a value when there is no use in waiting any longer

	mu      sync.Mutex
	stored  []storedV4 // guarded by mu
	refused []saidV4   // guarded by mu
	running bool       // guarded by mu
	before  int        // guarded by mu: how many files the last receipt was for
	last    time.Time  // guarded by mu: when the last answer was written
	err     error      // guarded by mu: of writing
}

// storedV4 is a file that is to be acknowledged.
type storedV4 struct {
	number uint64
	as     Stored
}

// saidV4 is a 1607.
type saidV4 struct {
	number uint64
	m      v4.Refused
}

func newAnswersV4(s *sessionV4) *answersV4 {
	a := &answersV4{s: s, still: newStillV4(s.frames), slots: make(chan struct{}, unansweredV4), more: make(chan struct{}, 1), last: time.Now()}
	s.frames.socket.excused = a.excuse
	return a
}

// owe notes a file that has to be answered, when there are not too many.
func (a *answersV4) owe(ctx context.Context, number uint64) error {
	select {
	case a.slots <- struct{}{}:
		a.still.works(number, 0)
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// settle notes that a file is being answered, or will not be.
func (a *answersV4) settle(number uint64) {
	a.still.rests(number)
	<-a.slots
}

func (a *answersV4) settleAll(stored []storedV4) {
	for _, f := range stored {
		a.settle(f.number)
	}
}

// excuse reports whether a client that is silent waits for us, or has not had
// its time since.
func (a *answersV4) excuse() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.slots) > 0 || time.Since(a.last) < a.s.frames.socket.idle
}

func (a *answersV4) failed() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}

// accept acknowledges a file.
func (a *answersV4) accept(number uint64, as Stored) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stored = append(a.stored, storedV4{number, as})
	a.wake()
}

// refuse refuses one.
func (a *answersV4) refuse(number uint64, m v4.Refused) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refused = append(a.refused, saidV4{number, m})
	a.wake()
}

// wake is called with mu held.
func (a *answersV4) wake() {
	if !a.running {
		a.running = true
		a.ends.Go(a.run)
		return
	}
	if !a.expecting() {
		select {
		case a.more <- struct{}{}:
		default:
		}
	}
}

// expecting reports whether other answers may come soon that can share a
// signature with those that wait: of files that are here, or of those that a
// client sends which has just heard of as many. The caller holds mu.
func (a *answersV4) expecting() bool {
	n := len(a.stored)
	return len(a.refused) == 0 && n > 0 && n < v4.MaxStored && (len(a.slots) > n || a.before > n)
}

func (a *answersV4) run() {
	for {
		refused, stored := a.next()
		if len(refused)+len(stored) == 0 {
			return
		}
		err := a.say(refused, stored)
		a.mu.Lock()
		a.last = time.Now()
		if a.err == nil {
			a.err = err
		}
		a.mu.Unlock()
		if err != nil {
			a.s.frames.socket.die()
		}
	}
}

// next returns what is to be said now; nothing ends run.
func (a *answersV4) next() ([]saidV4, []storedV4) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.expecting() {
		a.gather()
	}
	refused := a.refused
	a.refused = nil
	n := min(len(a.stored), v4.MaxStored)
	stored := a.stored[:n:n]
	a.stored = a.stored[n:]
	if len(a.stored) == 0 {
		a.stored = nil
	}
	if n > 0 {
		a.before = n
	}
	a.running = len(refused)+n > 0
	return refused, stored
}

// gather waits for more; mu is free meanwhile.
func (a *answersV4) gather() {
	select {
	case <-a.more: // an old one
	default:
	}
	a.mu.Unlock()
	defer a.mu.Lock()
	timer := time.NewTimer(gatherFor)
	defer timer.Stop()
	select {
	case <-a.more:
	case <-timer.C:
	}
}

// say writes answers. What they are about is settled just before: a client may
// send the next file as soon as it has heard.
func (a *answersV4) say(refused []saidV4, stored []storedV4) (err error) {
	defer caught(&err)
	err = a.deny(refused)
	for len(stored) > 0 {
		n := len(stored)
		if err == nil {
			n, err = a.acknowledge(stored)
		} else {
			a.settleAll(stored)
		}
		stored = stored[n:]
	}
	return err
}

func (a *answersV4) deny(refused []saidV4) error {
	for _, r := range refused {
		a.settle(r.number)
	}
	f := a.s.frames
	for _, r := range refused {
		if err := f.put(v4.CodeRefused, r.number, r.m.Append(nil)); err != nil {
			return err
		}
	}
	return f.flush()
}

// acknowledge says 1603 about as many of the first files as one receipt can
// speak of.
func (a *answersV4) acknowledge(stored []storedV4) (int, error) {
	files := make([]Stored, len(stored))
	numbers := make([]uint64, len(stored))
	for i, f := range stored {
		files[i], numbers[i] = f.as, f.number
	}
	client := a.s.Client()
	n := a.s.identity.fits(client, files)
	envelope, err := a.s.identity.SignReceipt(client, files[:n])
	a.settleAll(stored[:n])
	if err != nil {
		return n, a.unsigned(client, stored[:n], err)
	}
	m := v4.Stored{Numbers: numbers[:n], Envelope: envelope}
	size := 4 + 8*n + 4 + len(envelope)
	b := getBuffer(size)
	b = m.Append(b)
	err = a.s.frames.say(v4.CodeStored, 0, b)
	putBuffer(b)
	return n, err
}

// unsigned says that something is wrong with the server: the files are stored,
// and the client will hear of it when it asks again.
func (a *answersV4) unsigned(client Registration, stored []storedV4, why error) error {
	for _, f := range stored {
		a.s.refusing(client.Name.String(), f.as.Name.String(), why)
		if err := a.s.frames.put(v4.CodeRefused, f.number, refusedV4(why).Append(nil)); err != nil {
			return err
		}
	}
	return a.s.frames.flush()
}
