package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
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
	if receipt.Sum == (proto.Sum{}) {
		receipt.Sum = sum.Sum()
	}
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
	// had is a server that asks for no byte: it has the file.
	had answer = func(context.Context, proto.Watcher) (proto.Receipt, error) { return proto.Receipt{}, nil }
	// hadAnother says so of a file that is not the one offered.
	hadAnother answer = func(context.Context, proto.Watcher) (proto.Receipt, error) {
		return proto.Receipt{Sum: proto.Sum{Size: 1}}, nil
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
		{"exists, and it is not ours", []answer{cut, answers(proto.ErrExists)}, 0, exitRefused, 2, "nothing was changed"},
		{"refused when it had matched", []answer{refusedLate}, 0, exitUndelivered, 1, "the server refused the file"},
		{"exists", []answer{answers(proto.ErrExists)}, 0, exitRefused, 1, "nothing was changed"},
		{"name taken", []answer{answers(proto.ErrNameTaken)}, 0, exitUnauthorized, 1, "another name"},
		{"checksums", []answer{answers(proto.ErrChecksum)}, 0, exitIntegrity, 1, "checksum differed"},
		{"too large", []answer{answers(proto.ErrTooLarge)}, 0, exitNoRoom, 1, "too large"},
		{"unreadable", []answer{answers(proto.ErrSource)}, 0, exitNoFile, 1, "nothing was stored: source"},
		{"another protocol", []answer{answers(proto.ErrProtocol)}, 0, exitUndelivered, 1, "is that the right port"},
		{"busy, and then not", []answer{answers(&proto.RefusedError{Why: proto.ErrBusy, After: 3 * time.Second}), taken}, 0, exitOK, 2, ""},
		{"busy for ever", []answer{answers(&proto.RefusedError{Why: proto.ErrBusy, After: time.Second})}, 0, exitUndelivered, 4, "busy"},
		{"shutting down, and back", []answer{answers(&proto.RefusedError{Why: proto.ErrStopping}), unreachable, taken}, 0, exitOK, 3, ""},
		{"no room, and then some", []answer{answers(&proto.RefusedError{Why: proto.ErrNoRoom, After: time.Second}), taken}, 0, exitOK, 2, ""},
		{"no room", []answer{answers(&proto.RefusedError{Why: proto.ErrNoRoom, After: time.Second})}, 0, exitNoRoom, 4, "no room"},
		{"quota", []answer{answers(&proto.RefusedError{Why: proto.ErrQuota, Words: "1000 files"})}, 0, exitNoRoom, 1, "quota: 1000 files"},
		{"later than anybody waits", []answer{answers(&proto.RefusedError{Why: proto.ErrBusy, After: time.Hour})}, 0, exitUndelivered, 1, "it says to try again in 1h0m0s"},
		{"revoked", []answer{answers(&proto.RefusedError{Why: proto.ErrRevoked})}, 0, exitUnauthorized, 1, "revoked by the server's operator"},
		{"no token", []answer{answers(&proto.RefusedError{Why: proto.ErrUnauthorized})}, 0, exitUnauthorized, 1, "not authorised"},
		{"another server", []answer{answers(proto.ErrPin)}, 0, exitUnauthorized, 1, "the server is not known"},
		{"no reason", []answer{answers(&proto.RefusedError{Words: "ask me not"})}, 0, exitUndelivered, 1, "ask me not"},
		{"no words", []answer{answers(proto.ErrRefused)}, 0, exitUndelivered, 1, "no words for why"},
		{"other content", []answer{answers(&proto.ExistsError{Sum: proto.Sum{Size: 5}})}, 0, exitRefused, 1, "with other content is there already, and nothing was changed: 5 bytes, SHA-256 000"},
		{"there before", []answer{had}, 0, exitOK, 1, ""},
		{"another file there before", []answer{hadAnother}, 0, exitRefused, 1, "with other content is there already"},
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

// TestSendTellsOnce: what no file would escape is found out by one of them, and
// said once.
func TestSendTellsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stdout, stderr bytes.Buffer
		f := &fakeSender{answers: []answer{answers(&proto.RefusedError{Why: proto.ErrRevoked})}}
		show := newSendDisplay(&stdout, &stderr, true, nil)
		d := &sending{client: f, retries: 3, show: show}
		var files []sendFile
		for _, name := range []string{"a", "b", "c", "d"} {
			parsed, err := proto.ParseFileName(name)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, sendFile{path: makeFile(t, name, name), name: parsed})
		}
		status := d.all(t.Context(), files, 1)
		if err := show.close(); err != nil {
			t.Error(err)
		}
		want := "ferry send: " + files[0].path + ": revoked by the server's operator\nferry send: the same goes for 3 more files\n"
		if status != exitUnauthorized || len(f.at) != 1 || stderr.String() != want {
			t.Errorf("status %d after %d tries, stderr %q; want %d after 1, %q", status, len(f.at), stderr.String(), exitUnauthorized, want)
		}
		if n := strings.Count(stdout.String(), `"exit":7,"error":"revoked`); n != len(files) {
			t.Errorf("%d of %d files have a line that says why:\n%s", n, len(files), stdout.String())
		}
	})
}

// TestTransferID: the same file is the same transfer, in another process as
// well; whatever was done to the file, or another name, makes it another one.
func TestTransferID(t *testing.T) {
	path := makeFile(t, "a", "some content")
	one, two := fileName(t, "one"), fileName(t, "two")
	first := transferID(t, path, one)
	if again := transferID(t, path, one); again != first || first == (proto.TransferID{}) {
		t.Errorf("got %v, and then %v", first, again)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	seen := map[proto.TransferID]string{first: "before"}
	for _, c := range []struct {
		what string
		id   func() proto.TransferID
	}{
		{"another name", func() proto.TransferID { return transferID(t, path, two) }},
		{"another path", func() proto.TransferID { return transferID(t, link, one) }},
		{"other content of the same size, with the time set back", func() proto.TransferID {
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			// The clock has to tick.
			for end := time.Now().Add(10 * time.Second); transferID(t, path, one) == first && time.Now().Before(end); {
				err := errors.Join(os.WriteFile(path, []byte("SOME CONTENT"), 0o600), os.Chtimes(path, info.ModTime(), info.ModTime()))
				if err != nil {
					t.Fatal(err)
				}
			}
			return transferID(t, path, one)
		}},
		{"longer", func() proto.TransferID {
			if err := appendTo(path, "more"); err != nil {
				t.Fatal(err)
			}
			return transferID(t, path, one)
		}},
	} {
		id := c.id()
		if other, ok := seen[id]; ok {
			t.Errorf("%s: the transfer is that of %s", c.what, other)
		}
		seen[id] = c.what
	}
}

func fileName(t *testing.T, s string) proto.FileName {
	t.Helper()
	name, err := proto.ParseFileName(s)
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func transferID(t *testing.T, path string, name proto.FileName) proto.TransferID {
	t.Helper()
	s, err := openSource(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	return s.offer(name).ID
}

// TestOffer says what the server is told of a file.
func TestOffer(t *testing.T) {
	path := makeFile(t, "a", "some content")
	at := time.Unix(1_600_000_000, 123456789)
	if err := errors.Join(os.Chmod(path, 0o640), os.Chtimes(path, at, at)); err != nil {
		t.Fatal(err)
	}
	s, err := openSource(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	o := s.offer(fileName(t, "x/y"))
	if o.Size != 12 || o.Mode != 0o640 || !o.ModTime.Equal(at) || o.Name.String() != "x/y" || o.Sum != nil {
		t.Errorf("got %+v", o)
	}
	r, err := s.open()
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := r.(io.Seeker); !ok {
		t.Error("the source cannot be sought: a transfer that goes on would read what was sent")
	}
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
