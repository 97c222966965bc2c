package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"ferry/proto"
)

// mostParallel bounds how many files are sent at once.
const mostParallel = 4

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
	client  sender
	retries int
	show    *sendDisplay
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

// outcome is what became of a file: a line of --json.
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
	Error    string  `json:"error,omitempty"`
	Seconds  float64 `json:"seconds"`
}

// The states of an outcome.
const (
	stateStored = "stored"
	stateExists = "exists"
	stateFailed = "failed"
)

func (o *outcome) label() string { return printable(o.File) }

func (o *outcome) fail(f failure) {
	o.State, o.Exit, o.Error = stateFailed, f.exit, f.words
	if f.exit == exitExists {
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
	src, err := openSource(file.path)
	if err != nil {
		if path, ok := errors.AsType[*fs.PathError](err); ok {
			err = path.Err // the path is said anyhow
		}
		o.fail(failure{exit: exitNoFile, words: err.Error()})
		d.show.begin(o.label(), 0).end(o)
		return o
	}
	defer src.Close() //nolint:errcheck // only read
	o.Size = src.info.Size()
	bar := d.show.begin(o.label(), o.Size)
	d.attempts(ctx, src, &o, file.name, bar)
	o.Seconds = time.Since(started).Seconds()
	bar.end(o)
	return o
}

// attempts tries until the file is stored, cannot be, or has been tried often
// enough.
func (d *sending) attempts(ctx context.Context, src *source, o *outcome, name proto.FileName, bar *sendBar) {
	t := &attempt{}
	watch := proto.Watcher{
		Progress: func(p proto.Progress) {
			t.connected = t.connected || p.Phase != proto.PhaseConnecting
			t.last = p
			bar.progress(p)
		},
		Matched: func(context.Context) error {
			err := src.unchanged()
			t.matched = err == nil
			return err
		},
	}
	before := ""
	for o.Attempts = 1; ; o.Attempts++ {
		receipt, err := d.client.Send(ctx, proto.Offer{Name: name, Size: o.Size}, src.open, watch)
		if err == nil {
			o.Sends = receipt.Sends
			o.stored(&receipt.Sum)
			return
		}
		o.Sends = t.sends()
		if t.matched && errors.Is(err, proto.ErrExists) {
			o.stored(src.sum()) // by the attempt before, whose acknowledgement was lost
			return
		}
		t.matched = t.matched && !errors.Is(err, proto.ErrRefused)
		f := explain(src.judge(inner(err)), t.connected)
		if f.retry && o.Attempts <= d.retries {
			before = "; before, " + f.words
			if err = d.pause(ctx, o.Attempts, bar); err == nil {
				continue
			}
			f = explain(err, t.connected)
		}
		if !f.retry {
			f.words += before
		}
		if t.matched {
			f.words += "; its last answer was lost, so the file may be there"
		}
		o.fail(f)
		return
	}
}

// inner leaves away where the file was sent to, which the user has said.
func inner(err error) error {
	if in := errors.Unwrap(err); in != nil {
		return in
	}
	return err
}

// attempt is what was seen of the attempts so far.
type attempt struct {
	connected bool // to the server, in any of them
	matched   bool // the checksums were equal, and no answer said that it was not stored
	last      proto.Progress
}

// sends is how often the file was sent, as a whole or in part.
func (t *attempt) sends() int {
	if t.last.Phase == proto.PhaseSending || t.last.Phase == proto.PhaseVerifying {
		return t.last.Send
	}
	return 0
}

// pause waits before the next try.
func (d *sending) pause(ctx context.Context, tries int, bar *sendBar) error {
	pause := min(firstPause<<min(tries-1, 10), longestPause)
	pause += time.Duration(rand.Int64N(int64(pause)/4 + 1)) //nolint:gosec // nothing is secret about it
	bar.wait(pause)
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(pause):
		return nil
	}
}

// source is an open file that must not change while it is sent.
type source struct {
	file *os.File
	info os.FileInfo // when it was opened
}

// openSource wants a regular file: of others nobody knows the size.
func openSource(path string) (*source, error) {
	info, err := os.Stat(path) // before it is opened, which a pipe would not return from
	if err != nil {
		return nil, err
	}
	switch {
	case info.IsDir():
		return nil, errors.New("it is a folder")
	case !info.Mode().IsRegular():
		return nil, errors.New("not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if info, err = f.Stat(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &source{f, info}, nil
}

// Close ends all reading.
func (s *source) Close() error { return s.file.Close() }

// open is a [proto.Source]: the file from its start, as often as it is needed.
func (s *source) open() (io.ReadCloser, error) {
	return io.NopCloser(io.NewSectionReader(s.file, 0, 1<<62)), nil
}

// unchanged finds whether somebody wrote to the file since it was opened.
func (s *source) unchanged() error {
	now, err := s.file.Stat()
	if err != nil {
		return fmt.Errorf("%w: %w", proto.ErrSource, err)
	}
	if now.Size() != s.info.Size() || !now.ModTime().Equal(s.info.ModTime()) {
		return fmt.Errorf("%w: %w", proto.ErrSource, errFileChanged)
	}
	return nil
}

// judge tells a file that changed from one that cannot be read.
func (s *source) judge(err error) error {
	if errors.Is(err, proto.ErrSource) {
		if changed := s.unchanged(); changed != nil {
			return changed
		}
	}
	return err
}

// sum adds the file up again; nil if it is not what was sent any more.
func (s *source) sum() *proto.Sum {
	r, _ := s.open()
	all := proto.NewSummer()
	if _, err := io.Copy(all, r); err != nil || s.unchanged() != nil {
		return nil
	}
	sum := all.Sum()
	return &sum
}
