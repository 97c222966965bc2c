package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"ferry/proto"
)

// Pauses between the tries of a file double from the first to the longest.
const (
	firstPause   = time.Second
	longestPause = 30 * time.Second
)

// sumBuffer is how much is read at a time to add a file up, in bytes.
const sumBuffer = 256 << 10

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
	folders  bool                    // could be sent, with -r
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
	if file.err != nil {
		err = errors.Join(file.err, err)
	}
	if err != nil {
		words := pathless(err).Error()
		if errors.Is(err, errFolder) && d.folders {
			words += "; -r sends what is in it"
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
	watch := proto.Watcher{Progress: t.progress, Matched: t.match}
	for t.o.Attempts = 1; ; t.o.Attempts++ {
		receipt, err := t.client.Send(ctx, t.offer, t.src.open, watch)
		t.o.Sends = t.sends()
		switch {
		case err == nil:
			t.acknowledged(ctx, receipt)
			return
		case errors.Is(err, proto.ErrExists):
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
	t.matched = t.matched && !errors.Is(err, proto.ErrRefused)
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
	pause := max(least, min(firstPause<<min(tries-1, 10), longestPause))
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
	path string
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
		return nil, errFolder
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
	return &source{path, f, info}, nil
}

// Close ends all reading.
func (s *source) Close() error { return s.file.Close() }

// open is a [proto.Source]: the file from its start, as often as it is needed.
func (s *source) open() (io.ReadCloser, error) {
	return section{io.NewSectionReader(s.file, 0, 1<<62)}, nil
}

// section is a file that can be read, and sought, by several at a time.
type section struct{ *io.SectionReader }

// Close leaves the file open.
func (section) Close() error { return nil }

// offer is what the server is told of the file.
func (s *source) offer(name proto.FileName) proto.Offer {
	return proto.Offer{
		ID: s.transferID(name), Name: name, Size: s.info.Size(),
		Mode: s.info.Mode().Perm(), ModTime: s.info.ModTime(),
	}
}

// transferID is the same for the same file each time the program runs, so that a
// transfer that was interrupted goes on, and another one for whatever was
// written to since: the kernel notes that in the change time, which no program
// can set.
func (s *source) transferID(name proto.FileName) (id proto.TransferID) {
	h := sha256.New()
	fmt.Fprintf(h, "ferry send\x00%s\x00%s\x00%d %d", absolute(s.path), name, s.info.Size(), s.info.ModTime().UnixNano())
	if stat, ok := s.info.Sys().(*syscall.Stat_t); ok {
		fmt.Fprintf(h, " %d %d %d %d", stat.Dev, stat.Ino, stat.Ctim.Sec, stat.Ctim.Nsec)
	}
	copy(id[:], h.Sum(nil))
	return id
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

// sum adds the file up. It is an error if the file is not what was opened any
// more.
func (s *source) sum(ctx context.Context) (proto.Sum, error) {
	r, err := s.open()
	if err != nil {
		return proto.Sum{}, err
	}
	all, buffer := proto.NewSummer(), make([]byte, min(sumBuffer, s.info.Size()+1))
	for {
		if ctx.Err() != nil {
			return proto.Sum{}, context.Cause(ctx)
		}
		n, err := r.Read(buffer)
		_, _ = all.Write(buffer[:n]) // never fails
		if errors.Is(err, io.EOF) {
			return all.Sum(), s.unchanged()
		}
		if err != nil {
			return proto.Sum{}, fmt.Errorf("%w: %w", proto.ErrSource, err)
		}
	}
}
