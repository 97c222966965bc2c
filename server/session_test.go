package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ferry/proto"
	"ferry/server"
)

func TestStored(t *testing.T) {
	h := start(t, t.TempDir(), server.Limits{})
	p := h.client("alice")
	var want []string
	for _, size := range []int{0, 1, 7901, 64 << 10, 300_000} {
		name, content := fmt.Sprintf("%06d", size), strings.Repeat("x", size)
		f := sent(name, content, func(_ context.Context, dst proto.Sink) error {
			// Nothing is visible before all is there.
			if _, ok := h.read("alice", name); ok {
				t.Errorf("%s is visible too early", name)
			}
			if _, err := os.Stat(filepath.Join(h.data, "files", "alice")); size == 0 && err == nil {
				t.Error("the client has a folder before its first file")
			}
			_, err := io.WriteString(dst, content)
			return err
		})
		p.send(f)
		if got, ok := h.read("alice", name); !ok || got != content {
			t.Errorf("%s: %d bytes are stored", name, len(got))
		}
		want = append(want, fmt.Sprintf("alice/%s %d", name, size))
	}
	if diff := cmp.Diff(want, h.rows()); diff != "" {
		t.Errorf("on record (-want +got):\n%s", diff)
	}
	verified(t, h.data, len(want))
	if got := h.log.lines("file stored", "client=alice", "address=127.0.0.1:9", "file=000001", "size=1"); len(got) != 1 {
		t.Errorf("the log says %q", h.log)
	}
	if strings.Contains(h.log.String(), "key of") {
		t.Errorf("a key was logged: %s", h.log)
	}
	if info, err := os.Stat(filepath.Join(h.data, "catalog.db")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("catalog: %v, %v", info.Mode(), err)
	}
}

// TestNotStored is what becomes of a file that cannot be: nothing, and the
// session goes on where the client was told.
func TestNotStored(t *testing.T) {
	write := func(content string, err error) func(context.Context, proto.Sink) error {
		return func(_ context.Context, dst proto.Sink) error {
			_, writeErr := io.WriteString(dst, content)
			return errors.Join(writeErr, err)
		}
	}
	errCut := errors.New("connection reset")
	for what, c := range map[string]struct {
		limits server.Limits
		file   *transfer
		want   error
		ends   bool // the session
	}{
		"exists":           {file: file("old", "new content"), want: proto.ErrExists},
		"given up":         {file: sent("f", "x", write("y", proto.ErrChecksum)), want: proto.ErrChecksum},
		"cut":              {file: sent("f", "x", write("y", errCut)), want: errCut, ends: true},
		"too large":        {limits: server.Limits{FileSize: 10}, file: file("f", strings.Repeat("x", 11)), want: proto.ErrTooLarge},
		"larger than said": {limits: server.Limits{FileSize: 10}, file: claiming(1, file("f", strings.Repeat("x", 11))), want: proto.ErrTooLarge},
		"too much staged":  {limits: server.Limits{Staged: 10}, file: file("f", strings.Repeat("x", 11)), want: proto.ErrTooLarge},
		"more than said":   {limits: server.Limits{Staged: 10}, file: claiming(1, file("f", strings.Repeat("x", 11))), want: proto.ErrRefused},
		"too many files":   {limits: server.Limits{Files: 1}, file: file("f", "x"), want: proto.ErrRefused},
		"sum of others":    {file: sent("f", "xy", write("x", nil)), want: proto.ErrRefused},
	} {
		t.Run(what, func(t *testing.T) {
			h := start(t, t.TempDir(), c.limits)
			p := h.client("alice")
			p.send(file("old", "old"))
			got := p.offer(c.file)
			if got.accepted || !errors.Is(got.err, c.want) {
				t.Errorf("got %+v, want %v", got, c.want)
			}
			if c.ends {
				await(t, p.gone, "the end of the connection")
			} else {
				if got := p.offer(file("old", "x")); !errors.Is(got.err, proto.ErrExists) {
					t.Errorf("the session does not go on: %v", got.err)
				}
			}
			if got := h.staged(); got != 0 {
				t.Errorf("%d bytes are left in staging", got)
			}
			if content, _ := h.read("alice", "old"); content != "old" {
				t.Errorf("the old file became %q", content)
			}
			if diff := cmp.Diff([]string{"alice/old 3"}, h.rows()); diff != "" {
				t.Errorf("on record (-want +got):\n%s", diff)
			}
			verified(t, h.data, 1)
			if got := h.log.lines("level=WARN", "client=alice", "file="+c.file.offer.Name.String(), "err="); len(got) == 0 {
				t.Errorf("the log does not say why: %s", h.log)
			}
			h.client("bob").send(file("f", "x")) // nothing is held against others
		})
	}
}

// claiming lets a file say that it has another size.
func claiming(size int64, f *transfer) *transfer {
	f.offer.Size = size
	return f
}

func TestNoAnswerNamesThisMachine(t *testing.T) {
	h := start(t, t.TempDir(), server.Limits{})
	p := h.client("alice")
	if err := os.RemoveAll(filepath.Join(h.data, "staging")); err != nil {
		t.Fatal(err)
	}
	got := p.offer(file("f", "x"))
	if !errors.Is(got.err, proto.ErrRefused) || strings.Contains(got.err.Error(), "staged") {
		t.Errorf("the client hears %v", got.err)
	}
	if lines := h.log.lines("file refused", "staged-"); len(lines) != 1 {
		t.Errorf("the log says %s", h.log)
	}
}

func TestNothingReservedForLargeClaims(t *testing.T) {
	h := start(t, t.TempDir(), server.Limits{Staged: 1000})
	inside, leave := make(chan struct{}), make(chan struct{})
	slow := sent("claims", strings.Repeat("x", 900), func(ctx context.Context, dst proto.Sink) error {
		if _, err := io.WriteString(dst, strings.Repeat("x", 400)); err != nil {
			return err
		}
		close(inside)
		<-leave
		_, err := io.WriteString(dst, strings.Repeat("x", 500))
		return err
	})
	p := h.client("alice")
	go func() { p.offers <- slow }()
	<-inside
	other := h.client("bob")
	other.send(file("fits", strings.Repeat("x", 600)))
	if got := other.offer(file("does not", strings.Repeat("x", 601))); !errors.Is(got.err, proto.ErrRefused) {
		t.Errorf("601 bytes beside 400 of 1000: %+v", got)
	}
	close(leave)
	if got := <-slow.outcome; !got.accepted {
		t.Errorf("the slow one: %v", got.err)
	}
}

func TestReset(t *testing.T) {
	h := start(t, t.TempDir(), server.Limits{Staged: 200_000})
	p := h.client("alice")
	p.send(sent("f", "right", func(_ context.Context, dst proto.Sink) error {
		for range 3 {
			if _, err := io.WriteString(dst, strings.Repeat("wrong", 30_000)); err != nil {
				return err
			}
			if err := dst.Reset(); err != nil {
				return err
			}
		}
		_, err := io.WriteString(dst, "right")
		return err
	}))
	if got, _ := h.read("alice", "f"); got != "right" {
		t.Errorf("%d bytes are stored", len(got))
	}
}

func TestOneOfManyWins(t *testing.T) {
	h := start(t, t.TempDir(), server.Limits{ConnsPerClient: 50})
	p := make([]*peer, 50)
	for i := range p {
		p[i] = h.client("alice")
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	var winners []string
	for i := range p {
		all.Go(func() {
			content := strings.Repeat(fmt.Sprintf("%02d", i), 1000)
			switch got := p[i].offer(file("same", content)); {
			case got.accepted:
				mu.Lock()
				winners = append(winners, content)
				mu.Unlock()
			case !errors.Is(got.err, proto.ErrExists):
				t.Errorf("%d: %v", i, got.err)
			}
		})
	}
	all.Wait()
	if stored, _ := h.read("alice", "same"); len(winners) != 1 || winners[0] != stored {
		t.Errorf("%d winners", len(winners))
	}
	if got := h.staged(); got != 0 {
		t.Errorf("%d bytes are left in staging", got)
	}
	verified(t, h.data, 1)
}

func TestPanicEndsOneConnection(t *testing.T) {
	h := start(t, t.TempDir(), server.Limits{})
	bad := &peer{t: t, name: "mallory", address: "127.0.0.1", panics: true,
		offers: make(chan *transfer), entered: make(chan struct{}), gone: make(chan struct{})}
	h.dial(bad)
	await(t, bad.gone, "the end of the connection")
	h.client("alice").send(file("f", "x"))
	h.stop()
	if got := h.log.lines("level=ERROR", "internal error", "the session is broken", "server_test.go"); len(got) != 1 {
		t.Errorf("the log says %s", h.log)
	}
}

func TestRegister(t *testing.T) {
	h := start(t, t.TempDir(), server.Limits{Clients: 2})
	h.client("alice")
	h.client("Alice") // another one
	h.client("alice") // the same again
	third := h.connect("carol", "127.0.0.1")
	await(t, third.gone, "the end of a third client's connection")
	if got := h.log.lines("client registered"); len(got) != 2 {
		t.Errorf("the log says %q", got)
	}
}
