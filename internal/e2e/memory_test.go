package e2e_test

import (
	"sync"
	"testing"
	"time"
)

// TestMemory sends 16 files of 256 MB at once through a gateway and a server in
// one process and watches its resident memory.
func TestMemory(t *testing.T) {
	const (
		files = 16
		size  = 256_000_000
		limit = 150 << 10 // KiB
	)
	ferry := up(t, t.TempDir())
	var senders sync.WaitGroup
	ids := make([]string, files)
	for i := range files {
		senders.Go(func() {
			u, err := post(t.Context(), ferry.http, "large "+string(rune('a'+i)), content(uint64(i), size), size)
			if err != nil {
				t.Error(err)
			}
			ids[i] = u.ID
		})
	}
	senders.Wait()
	if t.Failed() {
		return
	}
	for _, id := range ids {
		waitDelivered(t, ferry.http, id, 5*time.Minute)
	}
	peak, err := residentKiB(ferry.cmd.Process.Pid, "VmHWM") // the highest it ever was
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("resident memory at its highest: %d MiB", peak>>10)
	if peak > limit {
		t.Errorf("resident memory reached %d KiB, want at most %d", peak, limit)
	}
}
