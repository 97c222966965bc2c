package blob_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"ferry/internal/blob"
	"ferry/internal/smalldisk"
)

func open(t testing.TB, dir string) *blob.Disk {
	t.Helper()
	d, err := blob.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func stage(t testing.TB, d *blob.Disk, content string) *blob.Staged {
	t.Helper()
	s, err := d.Stage()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(s, content); err != nil {
		t.Fatal(err)
	}
	return s
}

func publish(t testing.TB, d *blob.Disk, folder, name, content string) {
	t.Helper()
	if err := stage(t, d, content).Publish(folder, name); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, d *blob.Disk, folder, name string) string {
	t.Helper()
	f, err := d.Open(folder, name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// staged lists the files in staging that have content.
func staged(t testing.TB, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "staging"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Size() > 0 {
			names = append(names, e.Name())
		}
	}
	return names
}

func TestPublish(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	for _, size := range []int{0, 1, 64<<10 - 1, 64 << 10, 64<<10 + 1, 300_000} {
		want := strings.Repeat("x", size)
		name := fmt.Sprint(size)
		publish(t, d, "alice", name, want)
		if got := read(t, d, "alice", name); got != want {
			t.Errorf("%d bytes came back as %d", size, len(got))
		}
		if b, err := os.ReadFile(filepath.Join(dir, "files", "alice", name)); err != nil || string(b) != want {
			t.Errorf("an operator sees %d bytes, %v", len(b), err)
		}
	}
	if left := staged(t, dir); left != nil {
		t.Errorf("left in staging: %q", left)
	}
}

func TestPublishNeverReplaces(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	publish(t, d, "alice", "a", "first")
	s := stage(t, d, "second")
	if err := s.Publish("alice", "a"); !errors.Is(err, blob.ErrExists) {
		t.Fatalf("got %v, want ErrExists", err)
	}
	if got := read(t, d, "alice", "a"); got != "first" {
		t.Errorf("the file became %q", got)
	}
	if err := s.Publish("alice", "b"); err != nil { // still staged
		t.Fatal(err)
	}
	if got := read(t, d, "alice", "b"); got != "second" {
		t.Errorf("got %q", got)
	}
	if err := s.Discard(); err != nil {
		t.Errorf("Discard after Publish: %v", err)
	}
	if got := read(t, d, "alice", "b"); got != "second" {
		t.Errorf("after Discard: %q", got)
	}
}

func TestOneOfManyWins(t *testing.T) {
	d := open(t, t.TempDir())
	var wins sync.Map
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			s := stage(t, d, fmt.Sprint(i))
			defer s.Discard()
			switch err := s.Publish("f", "same"); {
			case err == nil:
				wins.Store(fmt.Sprint(i), true)
			case !errors.Is(err, blob.ErrExists):
				t.Error(err)
			}
		})
	}
	all.Wait()
	var winners []string
	wins.Range(func(k, _ any) bool { winners = append(winners, fmt.Sprint(k)); return true })
	if len(winners) != 1 || read(t, d, "f", "same") != winners[0] {
		t.Errorf("winners %q, stored %q", winners, read(t, d, "f", "same"))
	}
}

func TestNamesStayInTheirFolder(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	publish(t, d, "victim", "a", "secret")
	if err := os.Symlink(filepath.Join(dir, "files", "victim"), filepath.Join(dir, "files", "link")); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{"outside": "/etc/passwd", "up": "..", "in": "."} {
		if err := os.Symlink(to, filepath.Join(dir, "files", "victim", name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, bad := range []string{
		"", ".", "..", "../victim", "/etc/passwd", "a\x00b", strings.Repeat("n", 256), "a/", "/", "a//b", "./a", "a/../b", "a/..",
		strings.Repeat("a/", 512) + "a",
	} {
		s := stage(t, d, "x")
		for _, err := range []error{s.Publish(bad, "a"), s.Publish("f", bad), d.Remove(bad, "a"), d.Remove("victim", bad)} {
			if !errors.Is(err, blob.ErrName) {
				t.Errorf("%q: %v, want ErrName", bad, err)
			}
		}
		if _, err := d.Open("victim", bad); !errors.Is(err, blob.ErrName) {
			t.Errorf("open %q: %v, want ErrName", bad, err)
		}
		if err := s.Discard(); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"outside", "up/victim/a", "in/a"} {
		if f, err := d.Open("victim", name); err == nil {
			_ = f.Close()
			t.Errorf("a symbolic link was followed to %s", name)
		}
	}
	s := stage(t, d, "x")
	defer s.Discard()
	for folder, name := range map[string]string{"link": "b", "victim": "up/b", "a/b": "c"} {
		if err := s.Publish(folder, name); !errors.Is(err, blob.ErrNotFolder) && !errors.Is(err, blob.ErrName) {
			t.Errorf("publish %s/%s: %v", folder, name, err)
		}
	}
}

func TestResetAndDiscard(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	s := stage(t, d, strings.Repeat("long", 100_000))
	if err := s.Reset(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(s, "short"); err != nil {
		t.Fatal(err)
	}
	if s.Size() != 5 {
		t.Errorf("size %d, want 5", s.Size())
	}
	if err := s.Publish("f", "n"); err != nil {
		t.Fatal(err)
	}
	if got := read(t, d, "f", "n"); got != "short" {
		t.Errorf("after Reset: %d bytes", len(got))
	}
	if err := stage(t, d, "gone").Discard(); err != nil {
		t.Fatal(err)
	}
	if left := staged(t, dir); left != nil {
		t.Errorf("left in staging: %q", left)
	}
}

// TestSpareIsNotShared publishes from a recycled file, for what was removed to
// stay apart from what comes after it.
func TestSpareIsNotShared(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	publish(t, d, "f", "old", strings.Repeat("old", 1000))
	inode := inodeOf(t, filepath.Join(dir, "files", "f", "old"))
	if err := d.Remove("f", "old"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Stat("f", "old"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Remove: %v", err)
	}
	publish(t, d, "f", "new", "new")
	if got := read(t, d, "f", "new"); got != "new" {
		t.Errorf("got %q", got)
	}
	if got := inodeOf(t, filepath.Join(dir, "files", "f", "new")); got != inode {
		t.Errorf("the new file has inode %d, want %d used again", got, inode)
	}
}

func inodeOf(t *testing.T, path string) uint64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// TestSweep finds what a killed process left: staged bytes, and a file that has
// its staging name still beside its own.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	publish(t, d, "f", "kept", "kept")
	publish(t, d, "f", "unwanted", "unwanted")
	publish(t, d, "f", "linked", "linked")
	stage(t, d, strings.Repeat("left behind", 10_000))
	if err := os.Link(filepath.Join(dir, "files", "f", "linked"), filepath.Join(dir, "staging", "staged-77")); err != nil {
		t.Fatal(err)
	}
	next := open(t, dir)
	removed, err := next.Sweep(func(_, name string) bool { return name != "unwanted" })
	if err != nil || removed != 3 {
		t.Errorf("removed %d, %v; want 3", removed, err)
	}
	got := map[string]string{}
	err = next.Walk(func(folder, name string) error {
		got[folder+"/"+name] = read(t, next, folder, name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"f/kept": "kept", "f/linked": "linked"}, got); diff != "" {
		t.Errorf("after the sweep (-want +got):\n%s", diff)
	}
	if left := staged(t, dir); left != nil {
		t.Errorf("left in staging: %q", left)
	}
}

func TestFullDisk(t *testing.T) {
	dir := smalldisk.Mount(t, "1m")
	d := open(t, dir)
	s, err := d.Stage()
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Write(bytes.Repeat([]byte("x"), 2<<20))
	if !blob.IsFull(err) {
		t.Errorf("write: %v, want a full disk", err)
	}
	if err := s.Publish("f", "n"); !blob.IsFull(err) {
		t.Errorf("publish of what could not be written: %v, want a full disk", err)
	}
	if err := s.Discard(); err != nil {
		t.Fatal(err)
	}
	publish(t, d, "f", "fits", strings.Repeat("x", 500_000))
	if free, err := d.Free(); err != nil || free > 600_000 {
		t.Errorf("%d bytes free, %v", free, err)
	}
}

// A large file is flushed beside what is written to it. Linux reports once what it
// could not write, and drops it: nobody may take the file for whole after that.
func TestFlushBesideWriting(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	broken := errors.New("input/output error")
	flushes, results := make(chan struct{}, 4), make(chan error, 4)
	d.SetDataSync(func(f *os.File) error {
		flushes <- struct{}{}
		err := <-results
		return errors.Join(err, f.Sync())
	})
	block := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	begin := func(key string) *blob.Staged {
		s, err := d.StageAs(key)
		if err != nil {
			t.Fatal(err)
		}
		for range blob.FlushEvery/len(block) + 1 { // the last one does not wait for the flush
			if _, err := s.Write(block); err != nil {
				t.Fatal(err)
			}
		}
		<-flushes
		return s
	}

	s := begin("published")
	results <- nil
	if err := s.Publish("f", "good"); err != nil {
		t.Error(err)
	}
	if got, want := len(read(t, d, "f", "good")), blob.FlushEvery+len(block); got != want {
		t.Errorf("%d bytes were published, want %d", got, want)
	}

	s = begin("broken")
	results <- broken
	for range 2 {
		if err := s.Publish("f", "bad"); !errors.Is(err, broken) {
			t.Errorf("publish of what could not be flushed: %v, want %v", err, broken)
		}
	}
	if _, err := s.Write(block); !errors.Is(err, broken) {
		t.Errorf("write behind it: %v, want %v", err, broken)
	}
	if err := s.Keep([]byte("state"), true); !errors.Is(err, broken) {
		t.Errorf("keep it: %v, want %v", err, broken)
	}
	if err := s.Reset(); err != nil {
		t.Error(err)
	}
	if _, err := io.WriteString(s, "again"); err != nil {
		t.Error(err)
	}
	if err := s.Publish("f", "again"); err != nil || read(t, d, "f", "again") != "again" {
		t.Errorf("publish what was written again: %v", err)
	}

	s = begin("closed")
	if err := s.Keep([]byte("state"), false); err != nil {
		t.Fatal(err)
	}
	results <- broken
	if err := s.Close(); !errors.Is(err, broken) {
		t.Errorf("close: %v, want %v", err, broken)
	}
	if left := staged(t, dir); left != nil {
		t.Errorf("left in staging, where nobody may go on with it: %q", left)
	}
}

// TestModel compares a Disk with a map, for any sequence of calls.
func TestModel(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "model")
		if err != nil {
			r.Fatal(err)
		}
		d, err := blob.Open(dir)
		if err != nil {
			r.Fatal(err)
		}
		defer d.Close()
		model := map[string]string{}
		name := rapid.SampledFrom([]string{"a", "b", "c"})
		r.Repeat(map[string]func(*rapid.T){
			"publish": func(r *rapid.T) {
				folder, file := name.Draw(r, "folder"), name.Draw(r, "name")
				content := rapid.StringN(0, 100, -1).Draw(r, "content")
				s, err := d.Stage()
				if err != nil {
					r.Fatal(err)
				}
				defer s.Discard()
				if _, err := io.WriteString(s, content); err != nil {
					r.Fatal(err)
				}
				_, there := model[folder+"/"+file]
				err = s.Publish(folder, file)
				if there != errors.Is(err, blob.ErrExists) || (!there && err != nil) {
					r.Fatalf("publish %s/%s (there: %v): %v", folder, file, there, err)
				}
				if !there {
					model[folder+"/"+file] = content
				}
			},
			"remove": func(r *rapid.T) {
				folder, file := name.Draw(r, "folder"), name.Draw(r, "name")
				_, there := model[folder+"/"+file]
				if err := d.Remove(folder, file); there == errors.Is(err, fs.ErrNotExist) {
					r.Fatalf("remove %s/%s (there: %v): %v", folder, file, there, err)
				}
				delete(model, folder+"/"+file)
			},
			"": func(r *rapid.T) {
				got := map[string]string{}
				if err := d.Walk(func(folder, file string) error {
					b, err := os.ReadFile(filepath.Join(dir, "files", folder, file))
					got[folder+"/"+file] = string(b)
					return err
				}); err != nil {
					r.Fatal(err)
				}
				if diff := cmp.Diff(model, got); diff != "" {
					r.Fatalf("-want +got (%q):\n%s", slices.Sorted(maps.Keys(model)), diff)
				}
			},
		})
	})
}

func BenchmarkPublish(b *testing.B) {
	content := bytes.Repeat([]byte("x"), 4096)
	for _, writers := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("%d writers", writers), func(b *testing.B) {
			d := open(b, b.TempDir())
			var mu sync.Mutex
			next := 0
			b.SetParallelism(writers / 2)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					mu.Lock()
					name := fmt.Sprint(next)
					next++
					mu.Unlock()
					s, err := d.Stage()
					if err != nil {
						b.Error(err)
						return
					}
					_, err = s.Write(content)
					if err := errors.Join(err, s.Publish("f", name)); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
