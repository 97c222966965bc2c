// Package smalldisk gives tests a file system that is soon full.
package smalldisk

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// Mount mounts a file system of that size, such as 8m, until the test ends, and
// returns its folder. Where that is not possible, the test is skipped, and says
// so.
func Mount(t testing.TB, size string) (dir string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("SKIPPED, NOT TESTED: a full disk needs root to mount a small tmpfs")
	}
	dir = t.TempDir()
	if err := syscall.Mount("ferry-test", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skip("SKIPPED, NOT TESTED: a full disk needs a small tmpfs: ", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// MountBlocks is Mount for one that keeps its files in blocks, ext4, as tmpfs does not:
// what is written past the kernel's cache goes there.
func MountBlocks(t testing.TB, size string) (dir string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("SKIPPED, NOT TESTED: a full disk needs root to mount a small ext4")
	}
	dir = t.TempDir()
	image := filepath.Join(t.TempDir(), "image")
	for _, args := range [][]string{
		{"truncate", "--size", size, image},
		{"mkfs.ext4", "-q", "-F", "-m", "0", image},
		{"mount", "-o", "loop", image, dir},
	} {
		//nolint:gosec // the sizes and folders of tests
		if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Skipf("SKIPPED, NOT TESTED: a full disk needs a small ext4: %v: %v\n%s", args, err, out)
		}
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
			_ = syscall.Unmount(dir, syscall.MNT_DETACH)
		}
	})
	return dir
}

// Resize gives what Mount has mounted another size.
func Resize(t testing.TB, dir, size string) {
	t.Helper()
	if err := syscall.Mount("ferry-test", dir, "tmpfs", syscall.MS_REMOUNT, "size="+size); err != nil {
		t.Fatal(err)
	}
}
