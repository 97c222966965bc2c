package direct_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"ferry/internal/direct"
	"ferry/internal/smalldisk"
)

// content is so many bytes, which do not repeat.
func content(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// twice opens a file as a Writer needs it.
func twice(t testing.TB, path string, flags int) (file, past *os.File) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	past, err = os.OpenFile(path, flags|unix.O_DIRECT, 0)
	if errors.Is(err, unix.EINVAL) {
		t.Skip("SKIPPED, NOT TESTED: the folder for temporary files takes no direct writes: set TMPDIR")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(file.Close(), past.Close()) })
	return file, past
}

// appendTo begins a Writer.
func appendTo(t testing.TB, p *direct.Pool, file, past *os.File, size int64) *direct.Writer {
	t.Helper()
	w, err := p.New(file, past, size)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skipf("SKIPPED, NOT TESTED: nothing is written past the cache here (a folder for temporary files on ext4 or XFS is wanted, "+
			"Linux 6.1, an amd64, and no filter of system calls): %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// TestWriter appends in pieces of all sizes to what is there, and now and then wants all of it in the
// file. What is in the file is what was written, from the start to the end.
func TestWriter(t *testing.T) {
	all, pool, n := content(10<<20), direct.NewPool(1), 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		path := filepath.Join(t.TempDir(), fmt.Sprint(n))
		size := rapid.OneOf(rapid.Just(0), rapid.IntRange(0, 20_000), rapid.Just(8<<10)).Draw(rt, "there before")
		if err := os.WriteFile(path, all[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		file, past := twice(t, path, os.O_WRONLY)
		w := appendTo(t, pool, file, past, int64(size))
		is := func(from int, exactly bool) {
			info, err := file.Stat()
			if err != nil {
				t.Fatal(err)
			}
			if has := info.Size(); has < int64(size) || exactly && has > int64(size) {
				rt.Fatalf("the file has %d bytes, want %d", has, size)
			}
			got := make([]byte, size-from)
			if _, err := file.ReadAt(got, int64(from)); err != nil || !bytes.Equal(got, all[from:size]) {
				rt.Fatalf("of %d bytes, not all are what was written: %v", size, err)
			}
		}
		looked := 0
		rt.Repeat(map[string]func(*rapid.T){
			"write": func(rt *rapid.T) {
				k := rapid.OneOf(rapid.IntRange(0, 9000), rapid.Just(64<<10), rapid.Just(512<<10), rapid.IntRange(0, 2<<20)).Draw(rt, "bytes")
				k = min(k, len(all)-size)
				if taken, err := w.Write(all[size : size+k]); err != nil || taken != k {
					rt.Fatalf("Write of %d: %d, %v", k, taken, err)
				}
				size += k
			},
			"flush": func(rt *rapid.T) {
				if err := w.Flush(); err != nil {
					rt.Fatal(err)
				}
				is(looked, false)
				looked = size
			},
			"settle": func(rt *rapid.T) {
				if err := w.Settle(); err != nil {
					rt.Fatal(err)
				}
				is(looked, true)
				looked = size
			},
		})
		if err := w.Settle(); err != nil {
			rt.Fatal(err)
		}
		if err := w.Close(); err != nil {
			rt.Fatal(err)
		}
		is(0, true)
		_ = os.Remove(path)
	})
}

// TestAtOnce has some Writers at once, one more than there may be, and one more when one has ended.
func TestAtOnce(t *testing.T) {
	const most = 3
	pool, all := direct.NewPool(most), content(20<<20+17)
	dir := t.TempDir()
	var group sync.WaitGroup
	writers := make([]*direct.Writer, most)
	for i := range most {
		file, past := twice(t, filepath.Join(dir, fmt.Sprint(i)), os.O_WRONLY)
		writers[i] = appendTo(t, pool, file, past, 0)
	}
	file, past := twice(t, filepath.Join(dir, "more"), os.O_WRONLY)
	if _, err := pool.New(file, past, 0); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("one more: %v", err)
	}
	for i, w := range writers {
		group.Go(func() {
			defer closeIt(t, w)
			for rest := all[i:]; len(rest) > 0; rest = rest[min(len(rest), 300_001):] {
				if _, err := w.Write(rest[:min(len(rest), 300_001)]); err != nil {
					t.Error(err)
				}
			}
			if err := w.Settle(); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	for i := range most {
		if got, err := os.ReadFile(filepath.Join(dir, fmt.Sprint(i))); err != nil || !bytes.Equal(got, all[i:]) {
			t.Errorf("file %d is not what was written: %v", i, err)
		}
	}
	w, err := pool.New(file, past, 0)
	if err != nil {
		t.Fatal(err)
	}
	closeIt(t, w)
}

func closeIt(t *testing.T, w *direct.Writer) {
	t.Helper()
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

// TestCloseWaits leaves no write under way that could come later, to a file that is another's by then.
func TestCloseWaits(t *testing.T) {
	pool, all, dir := direct.NewPool(1), content(6<<20), t.TempDir()
	for i := range 10 {
		file, past := twice(t, filepath.Join(dir, fmt.Sprint(i)), os.O_WRONLY)
		w := appendTo(t, pool, file, past, 0)
		if _, err := w.Write(all); err != nil {
			t.Fatal(err)
		}
		closeIt(t, w)
		if n := direct.Under(pool); n != 0 {
			t.Fatalf("%d writes are under way after Close", n)
		}
	}
}

// TestShort has the kernel write a part of what it is given, and no more: that is said, although nothing is written
// after it, and not taken for all.
func TestShort(t *testing.T) {
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Setrlimit(unix.RLIMIT_FSIZE, &before) })
	file, past := twice(t, filepath.Join(t.TempDir(), "f"), os.O_WRONLY)
	w := appendTo(t, direct.NewPool(1), file, past, 0)
	const most = 3<<20 + 8<<10 // of the last piece, two blocks of ten
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: most, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	all := content(3<<20 + 40<<10)
	if _, err := w.Write(all); err != nil {
		t.Fatal(err) // it is not known yet
	}
	if err := w.Settle(); !errors.Is(err, unix.EFBIG) {
		t.Errorf("Settle: %v, want %v", err, unix.EFBIG)
	}
	if err := w.Close(); !errors.Is(err, unix.EFBIG) {
		t.Errorf("Close: %v, want %v", err, unix.EFBIG)
	}
}

// TestRefused writes where the kernel takes no direct write, whatever it said before.
func TestRefused(t *testing.T) {
	all, path := content(5<<20+1), filepath.Join(t.TempDir(), "f")
	file, past := twice(t, path, os.O_RDONLY)
	w := appendTo(t, direct.NewPool(1), file, past, 0)
	defer closeIt(t, w)
	if _, err := w.Write(all); err != nil {
		t.Fatal(err)
	}
	if err := w.Settle(); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, all) {
		t.Errorf("what is there is not what was written: %v", err)
	}
}

// TestFullDisk writes until the disk is full. That is said, again and again; what was flushed before is there, and
// there is room once the file has gone.
func TestFullDisk(t *testing.T) {
	dir, pool := smalldisk.MountBlocks(t, "40m"), direct.NewPool(1)
	all := content(64 << 20)
	for round := range 3 {
		path := filepath.Join(dir, fmt.Sprint(round))
		file, past := twice(t, path, os.O_WRONLY)
		w := appendTo(t, pool, file, past, 0)
		flushed := 0
		var err error
		for at := 0; at < len(all) && err == nil; at += 100_000 {
			if _, err = w.Write(all[at : at+100_000]); err == nil && at%1_000_000 == 0 {
				if err = w.Flush(); err == nil {
					flushed = at + 100_000
				}
			}
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("round %d: %v, want %v", round, err, unix.ENOSPC)
		}
		if flushed < 20<<20 {
			t.Errorf("round %d: the disk was full after %d bytes", round, flushed)
		}
		if _, again := w.Write(all[:1]); !errors.Is(again, unix.ENOSPC) {
			t.Errorf("round %d: a write after that: %v", round, again)
		}
		if again := w.Settle(); !errors.Is(again, unix.ENOSPC) {
			t.Errorf("round %d: Settle after that: %v", round, again)
		}
		if again := w.Close(); !errors.Is(again, unix.ENOSPC) {
			t.Errorf("round %d: Close after that: %v", round, again)
		}
		got := make([]byte, flushed)
		if _, err := io.ReadFull(file, got); err != nil || !bytes.Equal(got, all[:flushed]) {
			t.Errorf("round %d: what was flushed is not there: %v", round, err)
		}
		if err := errors.Join(os.Remove(path), file.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestUnsupported has no Writer where the filesystem does not say that it can.
func TestUnsupported(t *testing.T) {
	dir := smalldisk.Mount(t, "1m")
	file, err := os.Create(filepath.Join(dir, "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	if w, err := direct.NewPool(1).New(file, file, 0); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("%v, %v", w, err)
	}
}

// TestStream copies from and to all alignments, and touches nothing else.
func TestStream(t *testing.T) {
	src := content(4096)
	for to := range 130 {
		for _, from := range []int{0, 1, 7, 16, 63, 64} {
			for _, n := range []int{0, 1, 15, 16, 63, 64, 65, 127, 128, 129, 191, 300, 1024, 1027} {
				dst := bytes.Repeat([]byte{0xee}, 2048)
				direct.Stream(dst[to:to+n], src[from:])
				if !bytes.Equal(dst[to:to+n], src[from:from+n]) {
					t.Fatalf("%d bytes from %d to %d are not copied", n, from, to)
				}
				for i, b := range dst {
					if (i < to || i >= to+n) && b != 0xee {
						t.Fatalf("%d bytes from %d to %d: byte %d was touched", n, from, to, i)
					}
				}
			}
		}
	}
}

// BenchmarkStream copies what the caches have to memory that they do not.
func BenchmarkStream(b *testing.B) {
	src, dst := content(512<<10), make([]byte, 64<<20)
	b.SetBytes(int64(len(src)))
	for i := 0; b.Loop(); i++ {
		direct.Stream(dst[i%128*len(src):][:len(src)], src)
	}
}
