package e2e_test

import (
	"path/filepath"
	"syscall"
	"testing"
)

// TestMemoryV4 sends 1 GiB with ferry send, and wants neither end ever to have
// more than 100 MiB of memory.
func TestMemoryV4(t *testing.T) {
	const limit = 100 << 10 // KiB
	server := startV4(t, filepath.Join(t.TempDir(), "server"))
	path := sparse(t, 1<<30)
	cmd := command(t, t.TempDir(), "send", "--to", server.url(server.v4), "--join", server.token(), "--name", "ci", path)
	if r := finish(t, cmd); r.status != 0 {
		t.Fatalf("ferry send: %+v", r)
	}
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		t.Fatal("nothing is known of what ferry send took")
	}
	there, err := residentKiB(server.pid(), "VmHWM")
	if err != nil {
		t.Fatal(err)
	}
	for which, peak := range map[string]int64{"ferry send": usage.Maxrss, "the server": there} {
		t.Logf("%s had at most %d MiB", which, peak>>10)
		if peak > limit {
			t.Errorf("%s had %d KiB, want at most %d", which, peak, limit)
		}
	}
}
