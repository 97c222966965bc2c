package blob_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"ferry/internal/blob"
)

// TestMain lets the test binary be a process that stages a file until it is
// killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("BLOB_TEST_STAGE"); dir != "" {
		fmt.Println(stageForEver(dir, os.Getenv("BLOB_TEST_PAST") != ""))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// pattern is what lies at an offset of the file that goes on.
func pattern(at int64) byte { return byte(at * 7919 >> 3) }

func patterned(from, to int64) []byte {
	b := make([]byte, to-from)
	for i := range b {
		b[i] = pattern(from + int64(i))
	}
	return b
}

// stageForEver keeps after odd numbers of bytes, and says each time how many.
func stageForEver(dir string, past bool) error {
	d, err := blob.Open(dir)
	if err != nil {
		return err
	}
	if past {
		d.SetPast(0)
	}
	if _, err := d.Sweep(nil); err != nil {
		return err
	}
	s, err := d.StageAs("k")
	if err != nil {
		return err
	}
	at, _ := s.Kept()
	for i := 0; ; i++ {
		size := int64(1 + (i*7919)%200_000)
		if _, err := s.Write(patterned(at, at+size)); err != nil {
			return err
		}
		at += size
		if err := s.Keep(fmt.Append(nil, "state ", at), i%5 == 4); err != nil {
			return err
		}
		fmt.Println(at)
	}
}

// goOn stages under a key and returns what is there.
func goOn(t testing.TB, d *blob.Disk, key string) (s *blob.Staged, size int64, state string) {
	t.Helper()
	s, err := d.StageAs(key)
	if err != nil {
		t.Fatal(err)
	}
	size, b := s.Kept()
	return s, size, string(b)
}

// TestKillAndGoOn kills a process that stages, again and again, and looks each
// time whether all that it said was kept is there, and is what it says.
func TestKillAndGoOn(t *testing.T) {
	t.Run("by way of the cache", func(t *testing.T) { killAndGoOn(t) })
	t.Run("past the cache", func(t *testing.T) { past(t); killAndGoOn(t, "BLOB_TEST_PAST=1") })
}

func killAndGoOn(t *testing.T, env ...string) {
	dir := t.TempDir()
	for round := range 8 {
		child := exec.Command(os.Args[0])
		child.Env = append(append(os.Environ(), "BLOB_TEST_STAGE="+dir), env...)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines, said := bufio.NewScanner(out), int64(0)
		for i := 0; i < 3+5*round && lines.Scan(); i++ {
			if _, err := fmt.Sscan(lines.Text(), &said); err != nil {
				t.Fatalf("the process says %q", lines.Text())
			}
		}
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() { // it was said before the kill
			if _, err := fmt.Sscan(lines.Text(), &said); err != nil {
				t.Fatalf("the process says %q", lines.Text())
			}
		}
		_ = child.Wait()

		d := open(t, dir)
		s, size, state := goOn(t, d, "k")
		if size < said || state != fmt.Sprint("state ", size) {
			t.Errorf("round %d: %d bytes with %q are kept, %d were", round, size, state, said)
		}
		b, err := os.ReadFile(filepath.Join(dir, "staging", "kept-k"))
		if err != nil || string(b) != string(patterned(0, size)) {
			t.Fatalf("round %d: %d bytes are there and not what was written, or more than %d; %v", round, len(b), size, err)
		}
		if err := errors.Join(s.Close(), d.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestGoOn(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	s, size, _ := goOn(t, d, "k")
	if size != 0 {
		t.Errorf("%d bytes of a file that begins", size)
	}
	if _, err := d.StageAs("k"); !errors.Is(err, blob.ErrInUse) {
		t.Errorf("the same key at once: %v", err)
	}
	for _, part := range []string{"first ", "second "} {
		if _, err := io.WriteString(s, part); err != nil {
			t.Fatal(err)
		}
		if err := s.Keep([]byte(part), false); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.WriteString(s, "lost"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, size, state := goOn(t, d, "k")
	if size != 13 || state != "second " || s.Size() != 13 {
		t.Errorf("%d bytes and %q", size, state)
	}
	if _, err := io.WriteString(s, "third"); err != nil {
		t.Fatal(err)
	}
	if err := s.Publish("f", "n"); err != nil {
		t.Fatal(err)
	}
	if got := read(t, d, "f", "n"); got != "first second third" {
		t.Errorf("got %q", got)
	}
	if err := errors.Join(s.Discard(), s.Close()); err != nil {
		t.Error(err)
	}
	if left := staged(t, dir); left != nil {
		t.Errorf("left in staging: %q", left)
	}
	// What was published goes on no more.
	s, size, _ = goOn(t, d, "k")
	if size != 0 {
		t.Errorf("%d bytes are kept of what was published", size)
	}
	if err := s.Close(); err != nil { // nothing was kept: nothing is left
		t.Fatal(err)
	}
	if names, err := filepath.Glob(filepath.Join(dir, "staging", "kept-*")); err != nil || names != nil {
		t.Errorf("left: %q, %v", names, err)
	}
}

// TestForget: what was dropped does not come back, be it with Reset or Discard.
func TestForget(t *testing.T) {
	dir := t.TempDir()
	for what, drop := range map[string]func(*blob.Staged) error{
		"reset":   func(s *blob.Staged) error { return errors.Join(s.Reset(), s.Close()) },
		"discard": (*blob.Staged).Discard,
		"reset, other bytes, and a kill": func(s *blob.Staged) error {
			_, err := s.Write(make([]byte, 100_000))
			return errors.Join(s.Reset(), err, second(s.Write(make([]byte, 100_000))))
		},
	} {
		d := open(t, dir)
		s, _, _ := goOn(t, d, "k")
		if _, err := io.WriteString(s, "content"); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.Keep([]byte("one"), true), s.Keep([]byte("two"), false), drop(s)); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		d = open(t, dir)
		s, size, state := goOn(t, d, "k")
		if size != 0 || state != "" {
			t.Errorf("%s: %d bytes and %q are kept still", what, size, state)
		}
		if err := s.Discard(); err != nil {
			t.Fatal(err)
		}
		// The file that was emptied is nobody else's.
		publish(t, d, "f", what, "other")
		again, size, _ := goOn(t, d, "k")
		if size != 0 || read(t, d, "f", what) != "other" {
			t.Errorf("%s: %d bytes; the other file is %q", what, size, read(t, d, "f", what))
		}
		if err := errors.Join(again.Discard(), d.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAnotherBoot: after the machine went down only what was durable counts, and
// what lies behind it is dropped.
func TestAnotherBoot(t *testing.T) {
	for _, test := range []struct {
		durable []bool // of each Keep
		boot    string
		want    int64
	}{
		{[]bool{false, false}, "same", 2},
		{[]bool{true, false}, "same", 2},
		{[]bool{false, false}, "other", 0},
		{[]bool{false, true}, "other", 2},
		{[]bool{false, true, false, false}, "other", 2},
		{[]bool{true, true, true, false}, "other", 3},
		{[]bool{true, false, true, false}, "other", 3},
		{[]bool{true, false, true, true}, "other", 4},
		{[]bool{false, true}, "", 2},
		{[]bool{false}, "", 0}, // it cannot tell
	} {
		d := open(t, t.TempDir())
		d.SetBoot("same")
		if test.boot == "" {
			d.SetBoot("")
		}
		s, _, _ := goOn(t, d, "k")
		for i, durable := range test.durable {
			if _, err := s.Write([]byte{byte('0' + i)}); err != nil {
				t.Fatal(err)
			}
			if err := s.Keep(fmt.Append(nil, i), durable); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		d.SetBoot(test.boot)
		s, size, state := goOn(t, d, "k")
		if size != test.want || size > 0 && state != fmt.Sprint(size-1) {
			t.Errorf("%v, then boot %q: %d bytes and %q, want %d", test.durable, test.boot, size, state, test.want)
		}
		if s.Size() != size {
			t.Errorf("size %d, %d are kept", s.Size(), size)
		}
		if err := s.Discard(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTornDurable tears the slot that is being written when the power goes: what
// was durable before it counts.
func TestTornDurable(t *testing.T) {
	for _, durable := range [][]bool{{true, true}, {true, false, true}, {true, true, true}, {true, false, false, true, true}} {
		for _, restarted := range []bool{false, true} {
			dir := t.TempDir()
			d := open(t, dir)
			s, _, _ := goOn(t, d, "k")
			var before int64 // what was durable before the last
			sidecar := filepath.Join(dir, "staging", "kept-k.state")
			var old []byte
			for i, now := range durable {
				if i == len(durable)-1 {
					if restarted {
						if err := s.Close(); err != nil {
							t.Fatal(err)
						}
						s, _, _ = goOn(t, d, "k")
					}
					var err error
					if old, err = os.ReadFile(sidecar); err != nil {
						t.Fatal(err)
					}
				} else if now {
					before = int64(i + 1)
				}
				if err := errors.Join(second(s.Write([]byte("x"))), s.Keep(nil, now)); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			torn, err := os.ReadFile(sidecar)
			if err != nil {
				t.Fatal(err)
			}
			for i := range torn { // the last half of what was written is not there
				if i >= len(old) && torn[i] != 0 || i < len(old) && torn[i] != old[i] {
					clear(torn[i+40 : min(i+200, len(torn))])
					break
				}
			}
			if err := os.WriteFile(sidecar, torn, 0o600); err != nil {
				t.Fatal(err)
			}
			d.SetBoot("another")
			s, size, _ := goOn(t, d, "k")
			if size != before {
				t.Errorf("%v (restarted: %v): %d bytes are kept, want %d", durable, restarted, size, before)
			}
			_ = s.Discard()
		}
	}
}

// TestTornSidecar changes any byte of a sidecar, or cuts it anywhere: it says what
// it said before, or something older that is true, or nothing.
func TestTornSidecar(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	s, _, _ := goOn(t, d, "k")
	for i := range 3 {
		if _, err := io.WriteString(s, "abcdefgh"); err != nil {
			t.Fatal(err)
		}
		if err := s.Keep(fmt.Append(nil, "state ", i), i < 2); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	sidecar := filepath.Join(dir, "staging", "kept-k.state")
	data := filepath.Join(dir, "staging", "kept-k")
	whole, err := os.ReadFile(sidecar)
	if err != nil || len(whole) <= 2*blob.SlotSize {
		t.Fatalf("%d bytes of sidecar, %v", len(whole), err)
	}
	bytes, err := os.ReadFile(data)
	if err != nil {
		t.Fatal(err)
	}
	states := map[int64]string{0: "", 8: "state 0", 16: "state 1", 24: "state 2"}
	goesOn := func(torn, there []byte) int64 {
		t.Helper()
		if err := errors.Join(os.WriteFile(sidecar, torn, 0o600), os.WriteFile(data, there, 0o640)); err != nil {
			t.Fatal(err)
		}
		s, size, state := goOn(t, d, "k")
		if want, ok := states[size]; !ok || state != want || size > int64(len(there)) {
			t.Errorf("%d bytes of %d and %q", size, len(there), state)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		return size
	}
	flip := func(slot, at, bit int) []byte {
		torn := append([]byte(nil), whole...)
		torn[slot*blob.SlotSize+at] ^= 1 << bit
		return torn
	}
	if got := goesOn(whole, bytes); got != 24 {
		t.Errorf("untouched, %d bytes are kept", got)
	}
	if got := goesOn(nil, bytes); got != 0 {
		t.Errorf("without a sidecar, %d bytes are kept", got)
	}
	fell := map[int64]bool{}
	for slot := range 3 {
		fell[goesOn(flip(slot, 20, 0), bytes)] = true
	}
	if !fell[16] || !fell[24] {
		t.Errorf("with each slot broken: %v bytes are kept, want 16 where it was the newest, else 24", fell)
	}
	rapid.Check(t, func(r *rapid.T) {
		torn := whole
		if rapid.Bool().Draw(r, "cut") {
			torn = torn[:rapid.IntRange(0, len(torn)-1).Draw(r, "length")]
		} else {
			// The slots are mostly empty: where they are not.
			torn = flip(rapid.IntRange(0, 2).Draw(r, "slot"), rapid.IntRange(0, 70).Draw(r, "byte"), rapid.IntRange(0, 7).Draw(r, "bit"))
		}
		goesOn(torn, bytes[:rapid.IntRange(0, len(bytes)).Draw(r, "bytes there")])
		if t.Failed() {
			r.FailNow()
		}
	})
	// A sidecar of another key is none.
	if err := errors.Join(os.WriteFile(sidecar, whole, 0o600), os.WriteFile(data, bytes, 0o640),
		os.Rename(sidecar, strings.Replace(sidecar, "-k.", "-other.", 1)), os.Rename(data, strings.Replace(data, "-k", "-other", 1))); err != nil {
		t.Fatal(err)
	}
	if _, size, _ := goOn(t, d, "other"); size != 0 {
		t.Errorf("%d bytes by another's sidecar", size)
	}
}

func TestSweepKept(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	for _, key := range []string{"old", "fresh", "open"} {
		s, _, _ := goOn(t, d, key)
		if _, err := io.WriteString(s, key); err != nil {
			t.Fatal(err)
		}
		if err := s.Keep(nil, false); err != nil {
			t.Fatal(err)
		}
		if key == "open" {
			defer s.Discard()
			continue
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	staging := func(name string) string { return filepath.Join(dir, "staging", name) }
	ago := time.Now().Add(-2 * time.Hour)
	for _, err := range []error{
		os.Chtimes(staging("kept-old.state"), ago, ago),
		os.Chtimes(staging("kept-open.state"), ago, ago),
		os.WriteFile(staging("kept-orphan.state"), []byte("whatever"), 0o600),
		os.WriteFile(staging("kept-bare"), []byte("whatever"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if removed, err := d.Sweep(nil); err != nil || removed != 0 {
		t.Errorf("Sweep removed %d, %v", removed, err)
	}
	got := map[string]string{}
	if err := d.SweepKept(time.Hour, func(l blob.Leftover, dropped bool) {
		got[l.Key] = fmt.Sprint(l.Size, dropped)
	}); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"old": "3 true", "fresh": "5 false", "orphan": "0 true", "bare": "0 true"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	names, err := filepath.Glob(staging("*"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range names {
		names[i] = filepath.Base(names[i])
	}
	if diff := cmp.Diff([]string{"kept-fresh", "kept-fresh.state", "kept-open", "kept-open.state"}, names); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
	for _, bad := range []string{"", ".", "a/b", "a.b", strings.Repeat("k", 201)} {
		if _, err := d.StageAs(bad); !errors.Is(err, blob.ErrName) {
			t.Errorf("key %q: %v", bad, err)
		}
	}
}
