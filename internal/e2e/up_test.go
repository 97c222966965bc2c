package e2e_test

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestUpAtAnotherPort kills a Ferry that has an upload to deliver, and starts it
// again, when its server listens elsewhere: it is delivered there.
func TestUpAtAnotherPort(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	file := filepath.Join(t.TempDir(), "f")
	write(t, file, []byte("kept\n"))
	p := up(t, data)
	order := func(what string) {
		t.Helper()
		if got := curl(t, "-X", "POST", p.http+what); got.status != http.StatusOK {
			t.Fatalf("%s: %d %s", what, got.status, got.body)
		}
	}
	destination := func() (url string) {
		t.Helper()
		var s destinationStatus
		if err := getJSON(t.Context(), p.http+"/destinations/default", &s); err != nil {
			t.Fatal(err)
		}
		return s.URL
	}
	first := curl(t, "-T", file, "-H", "Prefer: wait=60", p.http+"/uploads/first.txt").upload(t, http.StatusCreated)
	order("/destinations/default/pause")
	second := curl(t, "-T", file, p.http+"/uploads/second.txt").upload(t, http.StatusAccepted)
	before := destination()

	p.kill()
	p = start(t, "up", "--data", data, "--http", "127.0.0.1:0", "--listen", "127.0.0.1:0")
	if now := destination(); now == before {
		t.Fatalf("the destination is %s still, where its server was before", now)
	}
	third := curl(t, "-T", file, p.http+"/uploads/third.txt").upload(t, http.StatusAccepted)
	order("/destinations/default/resume")
	for _, u := range []upload{first, second, third} {
		waitDelivered(t, p.http, u.ID, time.Minute)
		if b, err := os.ReadFile(filepath.Join(data, "server", "files", "local", u.Name)); err != nil || string(b) != "kept\n" {
			t.Errorf("%s: stored %q, %v", u.Name, b, err)
		}
	}
}
