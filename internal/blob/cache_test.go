package blob_test

import (
	"crypto/rand"
	"math"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"ferry/internal/blob"
)

// cached is how many bytes of a file the kernel has in memory: mincore(2).
func cached(t *testing.T, path string) int64 {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	b, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(b) }()
	page := os.Getpagesize()
	in := make([]byte, (len(b)+page-1)/page)
	if _, _, e := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), uintptr(unsafe.Pointer(&in[0]))); e != 0 {
		t.Fatal(e)
	}
	n := int64(0)
	for _, v := range in {
		n += int64(v&1) * int64(page)
	}
	return n
}

// TestArchive has the kernel's cache let go of a large file, whatever the sizes of what is
// written, and of none that is read again, or small. What is stored is what was written.
func TestArchive(t *testing.T) {
	var fs unix.Statfs_t
	dir := t.TempDir()
	if err := unix.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	if fs.Type == unix.TMPFS_MAGIC || fs.Type == unix.RAMFS_MAGIC {
		t.Skip("SKIPPED: the folder for temporary files is in memory, where no cache lets go of anything: set TMPDIR")
	}
	const mib = 1 << 20
	for _, test := range []struct {
		name        string
		archive     bool
		way         string // which is wanted, where there are two
		size, piece int
		least, most int64
	}{
		{"archive", true, "by the cache", 100 * mib, 512 << 10, 1 * mib, 12 * mib},
		{"archive, odd pieces", true, "by the cache", 100*mib + 13, 70_001, 1 * mib, 12 * mib},
		{"archive, a smaller file", true, "", 8 * mib, 512 << 10, 6 * mib, 8 * mib},
		{"past the cache", true, "past it", 100 * mib, 512 << 10, 0, 1 * mib},
		{"past the cache, odd pieces", true, "past it", 100*mib + 13, 70_001, 0, 1 * mib},
		{"none", false, "", 100 * mib, 512 << 10, 60 * mib, 100 * mib},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.way == "past it" {
				past(t)
			}
			dir := t.TempDir()
			d, err := blob.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = d.Close() })
			d.Archive = test.archive
			if test.way == "by the cache" {
				d.SetPast(math.MaxInt64)
			}
			want := make([]byte, test.size)
			_, _ = rand.Read(want)
			s, err := d.Stage()
			if err != nil {
				t.Fatal(err)
			}
			for rest := want; len(rest) > 0; {
				n := min(test.piece, len(rest))
				if _, err := s.Write(rest[:n]); err != nil {
					t.Fatal(err)
				}
				rest = rest[n:]
			}
			if err := s.Publish("a", "f"); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "files", "a", "f")
			if n := cached(t, path); n < test.least || n > test.most {
				t.Errorf("%d MiB of %d are in memory, want %d to %d", n/mib, test.size/mib, test.least/mib, test.most/mib)
			}
			got, err := os.ReadFile(path)
			if err != nil || string(got) != string(want) {
				t.Errorf("what is stored is not what was written: %v", err)
			}
		})
	}
}
