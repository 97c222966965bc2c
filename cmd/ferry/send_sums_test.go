package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ferry/proto"
)

// What one process has summed, the next one goes on from, until the file is
// stored or has changed.
func TestSendGoesOnSumming(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "identity", "sums")
	path := filepath.Join(t.TempDir(), "file")
	write := func(content string) {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("content")
	var begun []string
	send := func(summed []byte, end answer) {
		t.Helper()
		f := &fakeSender{answers: []answer{func(ctx context.Context, w proto.Watcher) (proto.Receipt, error) {
			begun = append(begun, string(w.Begun))
			w.Summed(summed)
			return end(ctx, w)
		}}}
		show := newSendDisplay(t.Output(), t.Output(), false, nil)
		d := &sending{client: f, show: show, sums: sums(folder)}
		d.one(t.Context(), sendFile{path: path, name: fileName(t, "file")})
	}
	send([]byte("as far as here"), cut)
	send([]byte("further"), cut)
	send(nil, cut) // it was wrong
	send([]byte("anew"), cut)
	send([]byte("more"), taken)
	send([]byte("again"), cut)
	write("other content")
	send([]byte("other"), cut)
	for i, want := range []string{"", "as far as here", "further", "", "anew", "", ""} {
		if begun[i] != want {
			t.Errorf("try %d began with %q, want %q", i, begun[i], want)
		}
	}

	// Of two that rest, the one that nobody went on with is dropped in the end.
	entries, err := os.ReadDir(folder)
	if err != nil || len(entries) != 2 {
		t.Fatalf("%d are kept, %v; want 2", len(entries), err)
	}
	old := filepath.Join(folder, entries[0].Name())
	if err := os.Chtimes(old, time.Time{}, time.Now().Add(-31*24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	sums(folder).sweep(time.Now())
	if entries, err = os.ReadDir(folder); err != nil || len(entries) != 1 || filepath.Join(folder, entries[0].Name()) == old {
		t.Errorf("%v are left, %v", entries, err)
	}
}

// TestSumsNotWhole: what was not written whole, or by another program, is no state; a shorter one after a longer
// is.
func TestSumsNotWhole(t *testing.T) {
	kept, id := sums(t.TempDir()), proto.TransferID{1}
	for _, state := range []string{strings.Repeat("long", 50), "short", "", strings.Repeat("x", maxSumState)} {
		kept.keep(id, []byte(state))
		if got := string(kept.begun(id)); got != state {
			t.Errorf("%.20q came back as %.20q", state, got)
		}
	}
	kept.keep(id, make([]byte, maxSumState+1))
	if got := kept.begun(id); got != nil {
		t.Errorf("a state that is too long came back as %.20q", got)
	}
	kept.keep(id, []byte("a state"))
	whole, err := os.ReadFile(kept.of(id))
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(whole)
	flipped[4] ^= 1
	for _, bad := range [][]byte{nil, whole[:1], whole[:len(whole)-1], flipped, []byte("what an older version kept"), bytes.Repeat([]byte{0xff}, 9000)} {
		if err := os.WriteFile(kept.of(id), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := kept.begun(id); got != nil {
			t.Errorf("%.30q is taken for the state %q", bad, got)
		}
	}
}
