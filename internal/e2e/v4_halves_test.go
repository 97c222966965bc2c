package e2e_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestHalvesV4 watches how the threads of ferry server and ferry send are scheduled: alike, while a large file goes
// from one to the other on a machine with two processors, and as usual afterwards.
func TestHalvesV4(t *testing.T) {
	online, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil || strings.TrimSpace(string(online)) != "0-1" || runtime.NumCPU() != 2 || os.Getenv("GOMAXPROCS") != "" {
		t.Skipf("SKIPPED: processors %q, %d of them ours, GOMAXPROCS=%q: two ends take half of two alone", online, runtime.NumCPU(), os.Getenv("GOMAXPROCS"))
	}
	if status, err := os.ReadFile("/proc/self/status"); err != nil || bytes.Contains(status, []byte("\nSeccomp:\t2\n")) {
		t.Skipf("SKIPPED: system calls are filtered here (%v), so that threads are scheduled as usual", err)
	}
	if a, err := unix.SchedGetAttr(0, 0); err != nil || a.Policy != unix.SCHED_NORMAL {
		t.Skipf("SKIPPED: the test itself is not scheduled as usual: %+v, %v", a, err)
	}
	server := startV4(t, t.TempDir())
	if n := batchThreads(t, server.pid()); n != 0 {
		t.Fatalf("%d threads of the server are scheduled as a batch before anything came", n)
	}
	dir := t.TempDir()
	args := []string{"send", "--to", server.url(server.v4), "--name", "alice"}
	small := filepath.Join(dir, "small")
	if err := os.WriteFile(small, []byte("small"), 0o600); err != nil {
		t.Fatal(err)
	}
	environ := append(withoutFerryVariables(os.Environ()), "XDG_STATE_HOME="+filepath.Join(dir, "state"))
	send := func(more ...string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), ferryBinary, append(args, more...)...)
		cmd.Env, cmd.Stderr = environ, os.Stderr
		return cmd
	}
	if err := send("--join", server.token(), small).Run(); err != nil {
		t.Fatalf("ferry send: %v", err)
	}
	cmd := send("--as", "large", sparse(t, 1<<30))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	both := false
	for going := true; going; {
		both = both || batchThreads(t, server.pid()) > 0 && batchThreads(t, cmd.Process.Pid) > 0
		select {
		case err := <-ended:
			if err != nil {
				t.Fatalf("ferry send: %v", err)
			}
			going = false
		case <-time.After(5 * time.Millisecond):
		}
	}
	if !both {
		t.Error("no two threads of both ends were scheduled as a batch while the file went")
	}
	if n := batchThreads(t, server.pid()); n != 0 {
		t.Errorf("%d threads of the server are scheduled as a batch afterwards", n)
	}
}

// batchThreads counts the threads of a process that do not interrupt others when they wake.
func batchThreads(t *testing.T, pid int) (n int) {
	t.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return 0 // it has ended
	}
	for _, task := range tasks {
		id, err := strconv.Atoi(task.Name())
		if err != nil {
			t.Fatal(err)
		}
		if a, err := unix.SchedGetAttr(id, 0); err == nil && a.Policy == unix.SCHED_BATCH {
			n++
		}
	}
	return n
}
