package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"ferry/proto"
)

// fakeSender answers the tries of one file in order.
type fakeSender struct {
	answers []func(ctx context.Context, w proto.Watcher) (proto.Receipt, error)
	at      []time.Duration // when each try began
	started time.Time
}

func (f *fakeSender) Send(ctx context.Context, o proto.Offer, src proto.Source, w proto.Watcher) (proto.Receipt, error) {
	if f.started.IsZero() {
		f.started = time.Now()
	}
	f.at = append(f.at, time.Since(f.started))
	answer := f.answers[min(len(f.at), len(f.answers))-1]
	r, err := src()
	if err != nil {
		return proto.Receipt{}, err
	}
	sum := proto.NewSummer()
	if n, err := io.Copy(sum, r); err != nil || n != o.Size {
		return proto.Receipt{}, errors.Join(proto.ErrSource, err, r.Close())
	}
	receipt, err := answer(ctx, w)
	receipt.Sum = sum.Sum()
	return receipt, errors.Join(err, r.Close())
}

type answer = func(ctx context.Context, w proto.Watcher) (proto.Receipt, error)

// The answers that there are.
var (
	taken answer = func(ctx context.Context, w proto.Watcher) (proto.Receipt, error) {
		w.Progress(proto.Progress{Phase: proto.PhaseVerifying, Send: 1})
		return proto.Receipt{Sends: 1}, w.Matched(ctx)
	}
	unreachable answer = func(_ context.Context, w proto.Watcher) (proto.Receipt, error) {
		w.Progress(proto.Progress{Phase: proto.PhaseConnecting, Send: 1})
		return proto.Receipt{}, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	}
	cut answer = func(_ context.Context, w proto.Watcher) (proto.Receipt, error) {
		w.Progress(proto.Progress{Phase: proto.PhaseSending, Send: 1})
		return proto.Receipt{}, io.ErrUnexpectedEOF
	}
	// cutLate loses the acknowledgement.
	cutLate answer = func(ctx context.Context, w proto.Watcher) (proto.Receipt, error) {
		w.Progress(proto.Progress{Phase: proto.PhaseVerifying, Send: 1})
		return proto.Receipt{}, errors.Join(w.Matched(ctx), io.ErrUnexpectedEOF)
	}
	// refusedLate is a server that could not store what it had verified.
	refusedLate answer = func(ctx context.Context, w proto.Watcher) (proto.Receipt, error) {
		w.Progress(proto.Progress{Phase: proto.PhaseVerifying, Send: 1})
		return proto.Receipt{}, errors.Join(w.Matched(ctx), proto.ErrRefused)
	}
	hangs answer = func(ctx context.Context, _ proto.Watcher) (proto.Receipt, error) {
		<-ctx.Done()
		return proto.Receipt{}, context.Cause(ctx)
	}
)

func answers(err error) answer {
	return func(context.Context, proto.Watcher) (proto.Receipt, error) { return proto.Receipt{}, err }
}

func TestSendAttempts(t *testing.T) {
	for _, c := range []struct {
		name     string
		answers  []answer
		timeout  time.Duration
		exit     int
		attempts int
		words    string
	}{
		{"at once", []answer{taken}, 0, exitOK, 1, ""},
		{"after the network failed", []answer{unreachable, cut, cut, taken}, 0, exitOK, 4, ""},
		{"never reached", []answer{unreachable}, 0, exitUnreachable, 4, "the server cannot be reached: "},
		{"reached once", []answer{cut, unreachable}, 0, exitUndelivered, 4, "not delivered: "},
		{"acknowledgement lost", []answer{cutLate, answers(proto.ErrExists)}, 0, exitOK, 2, ""},
		{"acknowledgement lost, and then the network", []answer{cutLate, unreachable}, 0, exitUndelivered, 4, "the file may be there"},
		{"exists, and it is not ours", []answer{cut, answers(proto.ErrExists)}, 0, exitExists, 2, "nothing was changed"},
		{"refused when it had matched", []answer{refusedLate}, 0, exitUndelivered, 1, "the server refused the file"},
		{"exists", []answer{answers(proto.ErrExists)}, 0, exitExists, 1, "nothing was changed"},
		{"name taken", []answer{answers(proto.ErrNameTaken)}, 0, exitUnauthorized, 1, "another name"},
		{"checksums", []answer{answers(proto.ErrChecksum)}, 0, exitIntegrity, 1, "checksum differed"},
		{"too large", []answer{answers(proto.ErrTooLarge)}, 0, exitNoRoom, 1, "too large"},
		{"unreadable", []answer{answers(proto.ErrSource)}, 0, exitNoFile, 1, "nothing was stored: source"},
		{"another protocol", []answer{answers(proto.ErrProtocol)}, 0, exitUndelivered, 1, "is that the right port"},
		{"identity", []answer{answers(identityError(syscall.ENOSPC))}, 0, exitFailure, 1, "no space left"},
		{"time is up in a try", []answer{cut, hangs}, 10 * time.Second, exitTimeout, 2, "--timeout has passed; before, not delivered: unexpected EOF"},
		{"time is up between tries", []answer{unreachable}, 2 * time.Second, exitTimeout, 2, "--timeout has passed; before, the server cannot be reached"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				if c.timeout > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeoutCause(ctx, c.timeout, errSendTimeout)
					defer cancel()
				}
				got, f, stderr := attempts(t, ctx, c.answers)
				if got.Exit != c.exit || got.Attempts != c.attempts || len(f.at) != c.attempts || !strings.Contains(got.Error, c.words) || (c.words == "") != (got.Error == "") {
					t.Errorf("%+v after %d tries, want exit %d after %d and %q", got, len(f.at), c.exit, c.attempts, c.words)
				}
				if lost := "the file may be there"; strings.Contains(got.Error, lost) != strings.Contains(c.words, lost) {
					t.Errorf("%q, want %q", got.Error, c.words)
				}
				if (got.Exit == exitOK) != (got.State == stateStored) || (got.Cksum != nil) != (got.State == stateStored) {
					t.Errorf("%+v contradicts itself", got)
				}
				if want := got.Error; !strings.Contains(stderr, want) {
					t.Errorf("stderr %q, want %q in it", stderr, want)
				}
			})
		})
	}
}

// attempts sends a small file with a fake.
func attempts(t *testing.T, ctx context.Context, answers []answer) (outcome, *fakeSender, string) { //nolint:revive // t first, as everywhere
	t.Helper()
	path := makeFile(t, "a.bin", "some content")
	name, err := proto.ParseFileName("a.bin")
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	f := &fakeSender{answers: answers}
	show := newSendDisplay(&stdout, &stderr, false, nil)
	d := &sending{client: f, retries: 3, show: show}
	o := d.one(ctx, sendFile{path: path, name: name})
	if err := show.close(); err != nil {
		t.Error(err)
	}
	return o, f, stderr.String()
}

// TestSendPauses wants pauses that grow, by a second, two and four, and up to
// a quarter more.
func TestSendPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, f, _ := attempts(t, t.Context(), []answer{unreachable})
		want := time.Duration(0)
		for i, at := range f.at {
			if at < want || at > want+want/4 {
				t.Errorf("try %d after %v, want %v to %v", i+1, at, want, want+want/4)
			}
			want = 2*want + time.Second
		}
		if len(f.at) != 4 {
			t.Errorf("%d tries, want 4", len(f.at))
		}
	})
}

// TestSourceChanges: whatever is done to an open file shows, except that it is
// replaced by another one, which leaves what is sent whole.
func TestSourceChanges(t *testing.T) {
	for name, c := range map[string]struct {
		change func(path string) error
		want   error
	}{
		"nothing":   {func(string) error { return nil }, nil},
		"longer":    {func(path string) error { return appendTo(path, "more") }, errFileChanged},
		"shorter":   {func(path string) error { return os.Truncate(path, 3) }, errFileChanged},
		"rewritten": {func(path string) error { return os.WriteFile(path, []byte("SOME CONTENT"), 0o600) }, errFileChanged},
		"replaced":  {func(path string) error { return os.Rename(makeFile(t, "b", "other"), path) }, nil},
		"removed":   {os.Remove, nil},
	} {
		t.Run(name, func(t *testing.T) {
			path := makeFile(t, "a", "some content")
			past := time.Now().Add(-time.Hour)
			if err := os.Chtimes(path, past, past); err != nil {
				t.Fatal(err)
			}
			s, err := openSource(path)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if err := c.change(path); err != nil {
				t.Fatal(err)
			}
			if err := s.unchanged(); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
