package proto

import (
	"sync"
	"time"

	"ferry/proto/v4"
)

// stillEvery is how long a server is silent at most while it is at work on a file,
// whatever its own patience: a third of a client's usual one.
const stillEvery = 10 * time.Second

// A stillV4 says of a session that it is still at work, when it is and has not
// said anything for a while. Making files durable can take longer on a busy disk
// than a client has patience.
type stillV4 struct {
	frames *framesV4
	every  time.Duration

	mu    sync.Mutex       // guards what follows, and is held while it is said
	owed  map[uint64]int64 // by number: files that are worked on, and how much of each is known to be kept
	since time.Time        // when there came to be one
	timer *time.Timer      // nil before the first
	runs  bool             // the timer does
	ended bool             // nothing is said any more
}

func newStillV4(f *framesV4) *stillV4 {
	return &stillV4{frames: f, every: min(f.socket.idle/3, stillEvery), owed: map[uint64]int64{}}
}

// works notes that the server is at work on a file, of which the client knows that
// so much is kept.
func (w *stillV4) works(number uint64, kept int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.owed) == 0 {
		w.since = time.Now()
	}
	w.owed[number] = kept
	switch {
	case w.runs || w.ended:
		return
	case w.timer == nil:
		w.timer = time.AfterFunc(w.every, w.say)
	default:
		w.timer.Reset(w.every)
	}
	w.runs = true
}

// rests notes that it is not, or is about to say what came of it: it is called
// before that is written, so that no word of this comes behind.
func (w *stillV4) rests(number uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.owed, number)
}

// end makes nothing be said any more. When it returns, nothing is being said.
func (w *stillV4) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	if w.timer != nil {
		w.timer.Stop()
	}
}

// say is called by the timer.
func (w *stillV4) say() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.owed) == 0 || w.ended {
		w.runs = false
		return
	}
	silent := min(time.Since(w.since), w.frames.silent())
	if silent < w.every {
		w.timer.Reset(w.every - silent)
		return
	}
	number, kept := w.first()
	if w.frames.mention(v4.CodeThanks, number, v4.Offset{Bytes: kept}.Append(nil)) != nil {
		w.ended = true
		w.frames.socket.die() // who hears nothing need not be heard: see sessionV4.cause
		return
	}
	w.timer.Reset(w.every)
}

// first is the file with the lowest number. The caller holds mu.
func (w *stillV4) first() (number uint64, kept int64) {
	begun := false
	for n, k := range w.owed {
		if !begun || n < number {
			number, kept, begun = n, k, true
		}
	}
	return number, kept
}
