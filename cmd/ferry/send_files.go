package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"ferry/proto"
)

// Pauses between the tries of a file double from the first to the longest.
const (
	firstPause   = time.Second
	longestPause = 30 * time.Second
)

// sender is a [proto.Client].
type sender interface {
	Send(ctx context.Context, o proto.Offer, src proto.Source, w proto.Watcher) (proto.Receipt, error)
}

var _ sender = (*proto.Client)(nil)

// sending is one call of ferry send.
type sending struct {
	client   sender
	retries  int
	show     *sendDisplay
	receipts receipts
	sums     sums
	folders  string                  // what to say of a folder that is no file, behind that it is one
	doom     atomic.Pointer[failure] // what no other file would escape either
}

// all sends the files, a few at once, and returns the highest exit status.
func (d *sending) all(ctx context.Context, files []sendFile, atOnce int) int {
	var running sync.WaitGroup
	var mu sync.Mutex
	worst := exitOK // guarded by mu
	turns := make(chan struct{}, atOnce)
	for _, f := range files {
		turns <- struct{}{}
		running.Go(func() {
			defer func() { <-turns }()
			o := d.one(ctx, f)
			mu.Lock()
			defer mu.Unlock()
			worst = max(worst, o.Exit)
		})
	}
	running.Wait()
	return worst
}

// failAll reports one error for all files: nothing was sent.
func failAll(files []sendFile, err error, show *sendDisplay) int {
	f := explain(err, false)
	show.warn(f.words)
	for _, file := range files {
		o := outcome{File: file.path, Name: file.name.String()}
		o.fail(f)
		show.record(o)
	}
	return f.exit
}

// outcome is what became of a file: a line of --json. Sends is 0 for a file that
// the server had already.
type outcome struct {
	File     string  `json:"file"` // as the user named it
	Name     string  `json:"name"`
	Size     int64   `json:"size"`
	SHA256   string  `json:"sha256,omitempty"`
	Cksum    *uint32 `json:"cksum,omitempty"`
	State    string  `json:"state"`
	Attempts int     `json:"attempts"`
	Sends    int     `json:"sends"` // of the whole file, in the last attempt
	Exit     int     `json:"exit"`
	Receipt  string  `json:"receipt,omitempty"` // where it was written to
	Error    string  `json:"error,omitempty"`
	Seconds  float64 `json:"seconds"`

	common bool // it is not the file that is at fault
}

// The states of an outcome.
const (
	stateStored = "stored"
	stateExists = "exists"
	stateFailed = "failed"
)

func (o *outcome) label() string { return printable(o.File) }

func (o *outcome) fail(f failure) {
	o.State, o.Exit, o.Error, o.common = stateFailed, f.exit, f.words, f.common
	if f.exit == exitRefused {
		o.State = stateExists
	}
}

func (o *outcome) stored(sum *proto.Sum) {
	o.State, o.Exit = stateStored, exitOK
	if sum != nil {
		o.SHA256, o.Cksum = fmt.Sprintf("%x", sum.SHA256), &sum.Cksum
	}
}

// one sends a file and reports on it.
func (d *sending) one(ctx context.Context, file sendFile) outcome {
	started := time.Now()
	o := outcome{File: file.path, Name: file.name.String()}
	if errors.Is(file.err, proto.ErrName) {
		o.fail(explain(file.err, false))
		d.show.begin(o.label(), 0).end(o)
		return o
	}
	src, err := openSource(file.path)
	if file.err != nil {
		err = errors.Join(file.err, err)
	}
	if err != nil {
		words := pathless(err).Error()
		if errors.Is(err, errFolder) {
			words += d.folders
		}
		o.fail(failure{exit: exitNoFile, words: words})
		d.show.begin(o.label(), 0).end(o)
		return o
	}
	defer src.Close() //nolint:errcheck // only read
	o.Size = src.info.Size()
	bar := d.show.begin(o.label(), o.Size)
	if doom := d.doom.Load(); doom != nil {
		o.fail(*doom)
		bar.end(o)
		return o
	}
	t := &transfer{sending: d, src: src, o: &o, bar: bar, offer: src.offer(file.name)}
	t.run(ctx)
	o.Seconds = time.Since(started).Seconds()
	bar.end(o)
	return o
}

// pathless leaves a path away that is said anyhow.
func pathless(err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return path.Err
	}
	return err
}

// transfer is a file on its way.
type transfer struct {
	*sending
	src   *source
	o     *outcome
	bar   *sendBar
	offer proto.Offer

	connected bool // to the server, in any of the attempts
	matched   bool // all was well as far as we could tell, and no answer said that it was not stored
	last      proto.Progress
	before    string // why the attempt before failed
}

// run tries until the file is stored, cannot be, or has been tried often
// enough.
func (t *transfer) run(ctx context.Context) {
	id := t.offer.ID
	watch := proto.Watcher{
		Progress: t.progress, Matched: t.match,
		Summed: func(state []byte) { t.sums.keep(id, state) },
		Begun:  t.sums.begun(id),
	}
	for t.o.Attempts = 1; ; t.o.Attempts++ {
		receipt, err := t.client.Send(ctx, t.offer, t.src.open, watch)
		t.o.Sends = t.sends()
		switch {
		case err == nil:
			t.sums.keep(id, nil)
			t.acknowledged(ctx, receipt)
			return
		case errors.Is(err, proto.ErrExists):
			t.sums.keep(id, nil)
			t.exists(ctx, err)
			return
		case !t.again(ctx, err):
			return
		}
	}
}

func (t *transfer) progress(p proto.Progress) {
	t.last = p
	t.bar.progress(p)
}

// match is asked before the file can be stored: what is stored must be what
// somebody wrote, and not half of it.
func (t *transfer) match(context.Context) error {
	err := t.src.unchanged()
	t.matched = err == nil
	return err
}

// sends is how often the file was sent, as a whole or in part.
func (t *transfer) sends() int {
	if t.last.Phase == proto.PhaseSending || t.last.Phase == proto.PhaseVerifying {
		return t.last.Send
	}
	return 0
}

// acknowledged is for a file that the server has. If it had it before we sent a
// byte, it took our word for what the file is: then we look.
func (t *transfer) acknowledged(ctx context.Context, r proto.Receipt) {
	t.o.Sends = r.Sends
	if r.Sends == 0 {
		switch sum, err := t.src.sum(ctx); {
		case err != nil:
			t.o.fail(explain(err, true))
			return
		case sum != r.Sum:
			t.o.fail(otherContent(r.Sum, sum))
			return
		}
	}
	t.o.stored(&r.Sum)
	path, err := t.receipts.keep(t.offer.Name, r.Envelope, t.show)
	if err != nil {
		t.o.Exit, t.o.Error = exitFailure, "it is stored, and "+err.Error()
	}
	t.o.Receipt = path
}

// exists deals with a name that is taken. In version 4 the content is another,
// or the client would have returned a receipt. Version 3 does not tell: if all
// was well in the attempt before, it was that one, whose answer was lost.
func (t *transfer) exists(ctx context.Context, err error) {
	there, told := errors.AsType[*proto.ExistsError](err)
	if !told && !t.matched {
		t.o.fail(explain(err, true))
		return
	}
	sum, err := t.src.sum(ctx)
	switch {
	case !told && err != nil:
		t.o.stored(nil) // what it was cannot be told any more
	case !told:
		t.o.stored(&sum)
	case err != nil:
		t.o.fail(explain(err, true))
	default:
		t.o.fail(otherContent(there.Sum, sum))
	}
}

// again reports whether another attempt follows, after a pause. Otherwise it
// has said why not.
func (t *transfer) again(ctx context.Context, err error) bool {
	t.matched = t.matched && !proto.NotStored(err)
	t.connected = t.connected || !unreached(err)
	f := explain(t.src.judge(inner(err)), t.connected)
	if f.retry && t.o.Attempts <= t.retries {
		t.before = "; before, " + f.words
		if err = t.pause(ctx, t.o.Attempts, f.after, t.bar); err == nil {
			return true
		}
		f = explain(err, t.connected)
	}
	if !f.retry {
		f.words += t.before
	}
	if t.matched {
		f.words += "; its last answer was lost, so the file may be there"
		f.common = false
	}
	if f.common {
		t.doom.CompareAndSwap(nil, &f)
	}
	t.o.fail(f)
	return false
}

// inner leaves away where the file was sent to, which the user has said.
func inner(err error) error {
	if in := errors.Unwrap(err); in != nil {
		return in
	}
	return err
}

// pause waits before the next try, at least as long as the server said.
func (d *sending) pause(ctx context.Context, tries int, least time.Duration, bar *sendBar) error {
	pause := pauseBefore(tries, least)
	bar.wait(pause)
	return sleep(ctx, pause)
}

// pauseBefore is how long to wait after so many tries.
func pauseBefore(tries int, least time.Duration) time.Duration {
	pause := max(least, min(firstPause<<min(tries-1, 10), longestPause))
	return pause + time.Duration(rand.Int64N(int64(pause)/4+1)) //nolint:gosec // nothing is secret about it
}

// sleep returns early with the cause if ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
