package blob_test

import (
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"ferry/internal/blob"
	"ferry/internal/smalldisk"
)

// past skips the test where nothing passes the cache.
func past(t *testing.T) {
	t.Helper()
	d := open(t, t.TempDir())
	d.SetPast(0)
	s, err := d.Stage()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Discard() }()
	if _, err := s.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if !s.Past() {
		t.Skip("SKIPPED, NOT TESTED: nothing is written past the cache here: a folder for temporary files on ext4 or XFS is wanted, " +
			"Linux 6.1, an amd64, and no filter of system calls")
	}
}

// TestPastTheCache writes a file, from some size on past the cache, keeps what it has, leaves it and goes on, and
// begins it anew, in any order. What is published is what was written.
func TestPastTheCache(t *testing.T) {
	past(t)
	dir := t.TempDir()
	all, n := patterned(0, 12<<20), 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		d := open(t, dir)
		from := rapid.SampledFrom([]int64{0, 1, 70_000, 1 << 20}).Draw(rt, "past from")
		d.SetPast(from)
		s, size, _ := goOn(t, d, "k")
		if size != 0 {
			rt.Fatalf("%d bytes are there", size)
		}
		kept := int64(0)
		rt.Repeat(map[string]func(*rapid.T){
			"write": func(rt *rapid.T) {
				k := rapid.OneOf(rapid.IntRange(0, 9000), rapid.Just(512<<10), rapid.IntRange(0, 2<<20)).Draw(rt, "bytes")
				k = min(k, len(all)-int(size))
				if _, err := s.Write(all[size:][:k]); err != nil {
					rt.Fatal(err)
				}
				if size >= from && k > 0 && !s.Past() {
					rt.Fatalf("after %d bytes what is written does not pass the cache", size)
				}
				size += int64(k)
			},
			"keep": func(rt *rapid.T) {
				if err := s.Keep(fmt.Append(nil, size), rapid.Bool().Draw(rt, "durable")); err != nil {
					rt.Fatal(err)
				}
				kept = size
			},
			"go on": func(rt *rapid.T) {
				if err := s.Close(); err != nil {
					rt.Fatal(err)
				}
				var state string
				if s, size, state = goOn(t, d, "k"); size != kept || size > 0 && state != fmt.Sprint(size) {
					rt.Fatalf("%d bytes and %q are kept, want %d", size, state, kept)
				}
			},
			"reset": func(rt *rapid.T) {
				if err := s.Reset(); err != nil {
					rt.Fatal(err)
				}
				size, kept = 0, 0
			},
		})
		name := fmt.Sprint(n)
		if err := s.Publish("f", name); err != nil {
			rt.Fatal(err)
		}
		if got := read(t, d, "f", name); got != string(all[:size]) {
			rt.Errorf("%d bytes are published that are not the %d written", len(got), size)
		}
		if err := errors.Join(d.Remove("f", name), d.Close()); err != nil {
			rt.Fatal(err)
		}
	})
}

// TestFullDiskPastTheCache fills a disk. Nobody takes the file for whole, and what is dropped makes room.
func TestFullDiskPastTheCache(t *testing.T) {
	past(t)
	dir := smalldisk.MountBlocks(t, "40m")
	d := open(t, dir)
	d.SetPast(1 << 20)
	for range 3 {
		s, size, _ := goOn(t, d, "k")
		var err error
		for err == nil {
			if _, err = s.Write(patterned(size, size+300_000)); err == nil {
				if size += 300_000; size%3_000_000 == 0 {
					err = s.Keep([]byte("state"), false)
				}
			}
		}
		if !blob.IsFull(err) || size < 20<<20 {
			t.Fatalf("after %d bytes: %v, want a full disk", size, err)
		}
		if !s.Past() {
			t.Error("what was written did not pass the cache")
		}
		if err := s.Keep([]byte("state"), false); !blob.IsFull(err) {
			t.Errorf("keep what could not be written: %v, want a full disk", err)
		}
		if err := s.Publish("f", "n"); !blob.IsFull(err) {
			t.Errorf("publish what could not be written: %v, want a full disk", err)
		}
		if err := s.Close(); !blob.IsFull(err) {
			t.Errorf("close: %v, want a full disk", err)
		}
	}
	publish(t, d, "f", "fits", string(patterned(0, 20<<20)))
	if left := staged(t, dir); left != nil {
		t.Errorf("left in staging: %q", left)
	}
}

// TestManyPastTheCache stages more files at once than may pass the cache, and one more when there are fewer.
func TestManyPastTheCache(t *testing.T) {
	past(t)
	d := open(t, t.TempDir())
	d.SetPast(0)
	var all []*blob.Staged
	passing := 0
	for i := range 10 {
		s := stage(t, d, fmt.Sprint("content ", i))
		all = append(all, s)
		if s.Past() {
			passing++
		}
	}
	if passing != 4 {
		t.Errorf("%d files of 10 pass the cache, want 4", passing)
	}
	for i, s := range all {
		if err := s.Publish("f", fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
		if got := read(t, d, "f", fmt.Sprint(i)); got != fmt.Sprint("content ", i) {
			t.Errorf("file %d is %q", i, got)
		}
	}
	s := stage(t, d, "one more")
	if !s.Past() {
		t.Error("one more does not pass the cache when the others have ended")
	}
	if err := s.Discard(); err != nil {
		t.Fatal(err)
	}
}
