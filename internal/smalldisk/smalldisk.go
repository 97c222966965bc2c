// Package smalldisk gives tests a file system that is soon full.
package smalldisk

import (
	"os"
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

// Resize gives what Mount has mounted another size.
func Resize(t testing.TB, dir, size string) {
	t.Helper()
	if err := syscall.Mount("ferry-test", dir, "tmpfs", syscall.MS_REMOUNT, "size="+size); err != nil {
		t.Fatal(err)
	}
}
