package server_test

import (
	"context"
	"errors"
	"fmt"
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

func inspect(t *testing.T, data string) *server.Inspector {
	t.Helper()
	in, err := server.Inspect(data)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func TestInspect(t *testing.T) {
	data := t.TempDir()
	if _, err := server.Inspect(data); err == nil || !strings.Contains(err.Error(), "no server") {
		t.Errorf("an empty folder: %v", err)
	}
	if left, err := os.ReadDir(data); err != nil || len(left) != 0 {
		t.Errorf("it left %v, %v", left, err)
	}
	before := time.Now().Add(-time.Second)
	h := start(t, data, server.Limits{})
	h.client("bob").send(file("b", "bb"))
	h.client("carol")
	// More than a page, through many connections, so that they share commits.
	var want []string
	for i := range 1001 {
		want = append(want, fmt.Sprintf("alice/%04d 1", i))
	}
	var all sync.WaitGroup
	for first := range 31 {
		p := h.client("alice")
		all.Go(func() {
			for i := first; i < 1001; i += 31 {
				if got := p.offer(file(fmt.Sprintf("%04d", i), "a")); !got.accepted {
					t.Errorf("file %d: %v", i, got.err)
				}
			}
		})
	}
	all.Wait()
	want = append(want, "bob/b 2")
	for _, when := range []string{"beside the server", "alone"} {
		if diff := cmp.Diff(want, rows(t, data)); diff != "" {
			t.Errorf("%s: files (-want +got):\n%s", when, diff)
		}
		var got []string
		for c, err := range inspect(t, data).Clients(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			if c.RegisteredAt.Before(before) || c.LastSeen.Before(c.RegisteredAt) || time.Since(c.LastSeen) < 0 {
				t.Errorf("%s: %+v", when, c)
			}
			got = append(got, fmt.Sprintf("%s %s %d %d", c.Name, c.ID.String()[:4], c.Files, c.Bytes))
		}
		if diff := cmp.Diff([]string{"alice 616c 1001 1001", "bob 626f 1 2", "carol 6361 0 0"}, got); diff != "" {
			t.Errorf("%s: clients (-want +got):\n%s", when, diff)
		}
		verified(t, data, len(want))
		h.stop()
	}
	for f, err := range inspect(t, data).Files(t.Context(), "bob") {
		if f.StoredAt.Before(before) || f.Sum != sumOf("bb") || f.Name != "b" || err != nil {
			t.Errorf("%+v, %v", f, err)
		}
	}
	for _, err := range inspect(t, data).Files(t.Context(), "nobody") {
		if !errors.Is(err, proto.ErrUnknownClient) {
			t.Errorf("files of nobody: %v", err)
		}
	}
	if _, err := os.Stat(filepath.Join(data, "catalog.db-wal")); err == nil {
		t.Error("looking left a log behind")
	}
}

func TestVerify(t *testing.T) {
	data := t.TempDir()
	h := start(t, data, server.Limits{})
	h.client("alice").send(file("good", "good"), file("longer", "x"), file("flipped", "flip"), file("gone", "gone"), file("folder", ""))
	h.client("bob").send(file("lost", "lost"))
	h.client("carol")
	h.stop()
	put(t, data, "alice", "longer", "xx")
	put(t, data, "alice", "flipped", "flap")
	put(t, data, "alice", "fresh", "a server may be about to record it")
	put(t, data, "carol", "old", "")
	longAgo := time.Now().Add(-time.Hour)
	for _, err := range []error{
		os.Remove(filepath.Join(data, "files", "alice", "gone")),
		os.Remove(filepath.Join(data, "files", "alice", "folder")),
		os.Mkdir(filepath.Join(data, "files", "alice", "folder"), 0o700),
		os.RemoveAll(filepath.Join(data, "files", "bob")),
		os.Chtimes(filepath.Join(data, "files", "carol", "old"), longAgo, longAgo),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]error{
		"alice/good": nil, "alice/longer": server.ErrDiffers, "alice/flipped": server.ErrDiffers,
		"alice/gone": server.ErrMissing, "alice/folder": server.ErrDiffers,
		"bob/lost": server.ErrMissing, "carol/old": server.ErrUnrecorded,
	}
	seen := 0
	for c, err := range inspect(t, data).Verify(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		seen++
		problem, ok := want[c.Client+"/"+c.Name]
		if !ok || !errors.Is(c.Problem, problem) || (problem == nil) != (c.Problem == nil) {
			t.Errorf("%s/%s: %v, want %v", c.Client, c.Name, c.Problem, problem)
		}
		if problem != nil && c.Want == c.Got && c.Name != "old" {
			t.Errorf("%s: wants and got the same", c.Name)
		}
	}
	if seen != len(want) {
		t.Errorf("%d files, want %d", seen, len(want))
	}
	for c, err := range inspect(t, data).Verify(t.Context(), "bob") {
		if err != nil || c.Client != "bob" {
			t.Errorf("%+v, %v", c, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range inspect(t, data).Verify(ctx, "") {
		if err == nil {
			t.Error("it goes on although the context has ended")
		}
	}
}
