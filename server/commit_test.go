package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ferry/proto"
	"ferry/server"
)

// TestPipeline offers files without waiting for answers, some of which cannot be
// stored, in several connections: each gets its own answer.
func TestPipeline(t *testing.T) {
	h := start(t, t.TempDir(), server.Limits{FileSize: 10_000})
	h.client("alice").send(file("taken", "first"), file("a/file", "x"))
	var all sync.WaitGroup
	stored := 0
	for c := range 3 {
		p := h.client("alice")
		var files []*transfer
		var want []error
		add := func(f *transfer, err error) {
			f.offer.ID = proto.TransferID{byte(c + 1), byte(len(files)), byte(len(files) >> 8)}
			files, want = append(files, f), append(want, err)
			if err == nil {
				stored++
			}
		}
		for i := range 300 {
			switch i % 60 {
			case 7:
				add(file("taken", "second"), proto.ErrExists)
			case 17:
				add(file("taken/f", "below a file"), proto.ErrName)
			case 27:
				add(file(fmt.Sprintf("%d/%d", c, i/10), "a folder is there, or will be"), nil)
			case 37:
				add(file("too large", strings.Repeat("x", 10_001)), proto.ErrTooLarge)
			case 47:
				add(sent("given up", "x", func(context.Context, proto.Sink) error { return proto.ErrChecksum }), proto.ErrChecksum)
			default:
				add(file(fmt.Sprintf("%d/x/%d/%d", c, i%7, i), fmt.Sprint(i)), nil)
			}
		}
		all.Go(func() {
			for _, f := range files {
				p.offers <- f
			}
		})
		all.Go(func() {
			for i, f := range files {
				got := <-f.outcome
				if got.accepted != (want[i] == nil) || !errors.Is(got.err, want[i]) {
					t.Errorf("%s: %+v, want %v", f.offer.Name, got, want[i])
				}
				if got.accepted && (got.as.Sum != sumOf(f.content) || got.as.Name != f.offer.Name || got.as.Transfer != f.offer.ID || time.Since(got.as.At) > time.Minute) {
					t.Errorf("%s: accepted as %+v", f.offer.Name, got.as)
				}
			}
		})
	}
	all.Wait()
	verified(t, h.data, stored+2)
	if got := h.staged(); got != 0 {
		t.Errorf("%d bytes are left in staging", got)
	}
	h.stop()
	h = start(t, h.data, server.Limits{})
	verified(t, h.data, stored+2)
	if got := h.log.lines("level=WARN"); got != nil {
		t.Errorf("after a restart the log says %q", got)
	}
}

// TestStopAnswersWhatHasCome stops the server with files on their way to the
// disk: all that had come are stored, answered, and the session is closed after.
func TestStopAnswersWhatHasCome(t *testing.T) {
	h := start(t, t.TempDir(), server.Limits{})
	p := h.client("alice")
	var files []*transfer
	for i := range 500 {
		files = append(files, file(fmt.Sprint(i), "x"))
	}
	offered := make(chan int)
	go func() {
		for i, f := range files {
			if i == 200 {
				go h.stop()
			}
			select {
			case p.offers <- f:
			case <-p.gone:
				offered <- i
				return
			}
		}
		offered <- len(files)
	}()
	<-p.gone
	n := <-offered
	h.stop()
	stored := 0
	for _, f := range files[:n] {
		select {
		case got := <-f.outcome:
			if got.accepted {
				stored++
			}
		default:
			t.Errorf("%s was not answered", f.offer.Name)
		}
	}
	if stored < 200 || !p.closed {
		t.Errorf("%d files are stored, the session is closed: %v", stored, p.closed)
	}
	verified(t, h.data, stored)
}

// TestGroupNotRecorded lets the catalog fail for one of the files that come at
// once: the others are stored.
func TestGroupNotRecorded(t *testing.T) {
	h := start(t, t.TempDir(), server.Limits{})
	p, other := h.client("alice"), h.client("bob")
	defer breakRecord(t, h.data, "bad")()
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() { other.offers <- file(fmt.Sprint(i), "x") })
	}
	bad := file("bad", "x")
	p.offers <- bad
	all.Wait()
	await(t, p.gone, "the end of the connection")
	select {
	case got := <-bad.outcome:
		t.Errorf("an answer was given: %+v", got)
	default:
	}
	other.send(file("last", "x"))
	if got := len(h.rows()); got != 101 {
		t.Errorf("%d files are on record, want 101", got)
	}
	if !p.closed {
		t.Error("the session was not closed")
	}
}

// TestNamesInTheWay: what is in the way of a name is told, with the name's own
// reason, and stays.
func TestNamesInTheWay(t *testing.T) {
	h := start(t, t.TempDir(), server.Limits{})
	p := h.client("alice")
	p.send(file("a/b/c", "c"), file("f", "f"))
	for name, want := range map[string]error{
		"a": proto.ErrName, "a/b": proto.ErrName, "f/x": proto.ErrName, "a/b/c/d/e": proto.ErrName,
		"f": proto.ErrExists, "a/b/c": proto.ErrExists,
	} {
		got := p.offer(file(name, "x"))
		if !errors.Is(got.err, want) {
			t.Errorf("%s: %+v, want %v", name, got, want)
		}
		refusal, ok := errors.AsType[*proto.RefusedError](got.err)
		if errors.Is(want, proto.ErrName) && (!ok || !strings.Contains(refusal.Words, "folder") || refusal.After != 0) {
			t.Errorf("%s: it says %q", name, got.err)
		}
	}
	if diff := cmp.Diff([]string{"alice/a/b/c 1", "alice/f 1"}, h.rows()); diff != "" {
		t.Errorf("on record (-want +got):\n%s", diff)
	}
	// A name that comes into the way while the file is on its way.
	late := sent("late/x", "x", func(_ context.Context, dst proto.Sink) error {
		h.client("alice").send(file("late", "first"))
		_, err := io.WriteString(dst, "x")
		return err
	})
	if got := p.offer(late); !errors.Is(got.err, proto.ErrName) {
		t.Errorf("late: %+v", got)
	}
	verified(t, h.data, 3)
}

// TestSenderStates: mode and time of the last change are those that were stated,
// and on record.
func TestSenderStates(t *testing.T) {
	h := start(t, t.TempDir(), server.Limits{})
	at := time.Date(2020, 2, 3, 4, 5, 6, 7, time.UTC)
	f := file("run", "#!/bin/sh")
	f.offer.Mode, f.offer.ModTime, f.offer.ID = 0o755, at, proto.TransferID{7}
	p := h.client("alice")
	p.send(f, file("plain", "x"))
	// The id again for another file: it is stored, and the id stays the first's.
	again := file("other", "x")
	again.offer.ID = proto.TransferID{7}
	p.send(again)
	info, err := os.Stat(filepath.Join(h.data, "files", "alice", "run"))
	if err != nil || info.Mode() != 0o755 || !info.ModTime().Equal(at) {
		t.Errorf("%v of %v, %v", info.Mode(), info.ModTime(), err)
	}
	got := map[string]string{}
	for f, err := range inspect(t, h.data).Files(t.Context(), "alice") {
		if err != nil {
			t.Fatal(err)
		}
		got[f.Name] = fmt.Sprint(f.Mode, f.ModTime.Equal(at), f.ModTime.IsZero(), f.Transfer.String()[:2])
	}
	want := map[string]string{
		"run":   fmt.Sprint(fs.FileMode(0o755), true, false, "07"),
		"plain": fmt.Sprint(fs.FileMode(0), false, true, "00"),
		"other": fmt.Sprint(fs.FileMode(0), false, true, "00"),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestSweepFolders starts a server on folders that were published into and not
// recorded, more than are looked up at once.
func TestSweepFolders(t *testing.T) {
	data := t.TempDir()
	h := start(t, data, server.Limits{})
	h.client("alice").send(file("a/recorded", "x"), file("b/gone", "x"))
	h.stop()
	for i := range 1203 {
		put(t, data, "alice/a/"+fmt.Sprint(i%3), fmt.Sprint(i), "x")
	}
	if err := os.Remove(filepath.Join(data, "files", "alice", "b", "gone")); err != nil {
		t.Fatal(err)
	}
	h = start(t, data, server.Limits{})
	if got := len(h.rows()); got != 1205 {
		t.Errorf("%d files are on record, want 1205", got)
	}
	if got := h.log.lines("missing", "client=alice", "files=1", "file=b/gone"); len(got) != 1 {
		t.Errorf("the log says %q", h.log.lines("missing"))
	}
	put(t, data, "alice/b", "adopted", "content")
	got := h.client("alice").offer(file("b/adopted", "content"))
	if !errors.Is(got.err, proto.ErrExists) || got.as.Sum != sumOf("content") {
		t.Errorf("what lay there: %+v", got)
	}
	unrecorded := 0
	put(t, data, "alice/b", "unrecorded", "x")
	ago := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(data, "files", "alice", "b", "unrecorded"), ago, ago); err != nil {
		t.Fatal(err)
	}
	for c, err := range inspect(t, data).Verify(t.Context(), "alice") {
		switch {
		case err != nil:
			t.Fatal(err)
		case errors.Is(c.Problem, server.ErrUnrecorded) && c.Name == "b/unrecorded":
			unrecorded++
		case c.Problem != nil && !errors.Is(c.Problem, server.ErrMissing):
			t.Errorf("%s: %v", c.Name, c.Problem)
		}
	}
	if unrecorded != 1 {
		t.Errorf("named %d times", unrecorded)
	}
}

// TestConnectionOverItsClientsLimit: a session that is ended at once gets to say
// why.
func TestConnectionOverItsClientsLimit(t *testing.T) {
	h := start(t, t.TempDir(), server.Limits{ConnsPerClient: 1})
	h.client("alice").send(file("f", "x")) // it has its place
	second := h.client("alice")
	await(t, second.gone, "its end")
	if !errors.Is(second.ended, proto.ErrBusy) || !second.closed {
		t.Errorf("it ended with %v, closed %v", second.ended, second.closed)
	}
}
