package e2e_test

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

var busyFor = flag.Duration("busy", 0, "how long TestBusy goes on; 0 is a few requests of each client")

// TestBusy has 50 clients write and 50 read, while what is written is delivered:
// nobody is told that it is the gateway's fault, and the database is never locked.
// With -args -busy 2m it goes on for that long.
func TestBusy(t *testing.T) {
	p := up(t, t.TempDir())
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}}
	defer client.CloseIdleConnections()
	const each = 20
	end := time.Now().Add(*busyFor)
	var mu sync.Mutex
	answers := map[int]int{}     // guarded by mu
	var slowest [2]time.Duration // guarded by mu: of writing, of reading
	ask := func(kind int, method, path string, body io.Reader) bool {
		req, err := http.NewRequestWithContext(t.Context(), method, p.http+path, body)
		if err != nil {
			t.Error(err)
			return false
		}
		begun := time.Now()
		res, err := client.Do(req)
		if err != nil {
			t.Error(err)
			return false
		}
		said, err := io.ReadAll(res.Body)
		took := time.Since(begun)
		_ = res.Body.Close()
		if err != nil || res.StatusCode >= 300 {
			t.Errorf("%s %s: %s, %s, %v", method, path, res.Status, said, err)
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		answers[res.StatusCode]++
		slowest[kind] = max(slowest[kind], took)
		return true
	}
	var clients sync.WaitGroup
	for c := range 50 {
		clients.Go(func() {
			for i := 0; i < each || time.Now().Before(end); i++ {
				body := bytes.Repeat([]byte{byte(c)}, 1+(i*7919)%100_000) // some are files of their own
				if !ask(0, http.MethodPost, fmt.Sprintf("/uploads?name=%d-%d&label=client=%d", c, i, c), bytes.NewReader(body)) {
					return
				}
			}
		})
		clients.Go(func() {
			for i := 0; i < each || time.Now().Before(end); i++ {
				path := []string{"/uploads?limit=20", fmt.Sprintf("/uploads?label=client=%d", c), "/uploads?state=delivered&name=1", "/destinations"}[i%4]
				if !ask(1, http.MethodGet, path, http.NoBody) {
					return
				}
			}
		})
	}
	clients.Wait()
	t.Logf("answers by status %v; the slowest commit took %v, the slowest answer to a reader %v", answers, slowest[0], slowest[1])
	log, err := os.ReadFile(p.stderr.Name())
	if err != nil || strings.Contains(string(log), "locked") || strings.Contains(string(log), "level=ERROR") {
		t.Errorf("the log has an error: %v\n%s", err, p.log())
	}
}
