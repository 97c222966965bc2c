package e2e_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// hundredVariable makes this program the clients' process instead of tests.
const hundredVariable = "FERRY_TEST_HUNDRED"

var hundredTime = flag.Duration("hundred-time", 5*time.Second, "for how long TestHundredClients writes and reads; 2m in a long run")

// hundredOrder is what the clients' process is told.
type hundredOrder struct {
	Base string
	For  time.Duration
}

// hundredReport is what it answers.
type hundredReport struct {
	Answers map[string]int // by what was asked, and the status
	Slowest time.Duration  // until a file was durable
	Median  time.Duration
	Errors  []string // the first of them
}

// TestHundredClients has 50 clients write and 50 read for a while, from a process
// of their own, while all is delivered: none is told that the gateway erred, or
// that it could not, and the database is never locked.
func TestHundredClients(t *testing.T) {
	ferry := up(t, t.TempDir())
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	order, err := json.Marshal(hundredOrder{ferry.http, *hundredTime})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(withoutFerryVariables(os.Environ()), hundredVariable+"="+string(order))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	var r hundredReport
	if err := errors.Join(err, json.Unmarshal(out, &r)); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, asked := range slices.Sorted(maps.Keys(r.Answers)) {
		t.Logf("%s: %d", asked, r.Answers[asked])
		if !strings.HasSuffix(asked, " 200") && !strings.HasSuffix(asked, " 202") {
			t.Errorf("%d were answered: %s", r.Answers[asked], asked)
		}
	}
	t.Logf("until a file was durable: %v at the slowest, %v in the median", r.Slowest, r.Median)
	if len(r.Errors) > 0 || r.Answers["PUT 202"] < 50 {
		t.Errorf("%d files were taken; errors: %q", r.Answers["PUT 202"], r.Errors)
	}
	log, err := os.ReadFile(ferry.stderr.Name())
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(log)) {
		if strings.Contains(line, "locked") || strings.Contains(line, "level=ERROR") {
			t.Errorf("logged: %s", line)
		}
	}
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if a := curl(t, ferry.http+"/uploads?limit=1&state=queued&state=delivering&state=waiting&state=failed"); strings.Contains(a.body, `"uploads":[]`) {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("not all is delivered: %s", a.body)
		}
	}
}

// hundred are the clients.
type hundred struct {
	order hundredOrder
	until time.Time

	mu    sync.Mutex
	r     hundredReport   // guarded by mu
	took  []time.Duration // guarded by mu
	known []string        // ids; guarded by mu
}

// beHundred is the clients' process.
func beHundred(order string) error {
	h := &hundred{r: hundredReport{Answers: map[string]int{}}}
	if err := json.Unmarshal([]byte(order), &h.order); err != nil {
		return err
	}
	h.until = time.Now().Add(h.order.For)
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() { h.each(func(c *http.Client, n int) error { return h.write(c, i, n) }) })
		all.Go(func() { h.each(func(c *http.Client, n int) error { return h.read(c, i+n) }) })
	}
	all.Wait()
	slices.Sort(h.took)
	if n := len(h.took); n > 0 {
		h.r.Slowest, h.r.Median = h.took[n-1], h.took[n/2]
	}
	return json.NewEncoder(os.Stdout).Encode(h.r)
}

// each is one client, with a connection of its own.
func (h *hundred) each(act func(c *http.Client, n int) error) {
	c := &http.Client{Transport: &http.Transport{}}
	defer c.CloseIdleConnections()
	for n := 0; time.Now().Before(h.until); n++ {
		if err := act(c, n); err != nil {
			h.mu.Lock()
			if len(h.r.Errors) < 10 {
				h.r.Errors = append(h.r.Errors, err.Error())
			}
			h.mu.Unlock()
			return
		}
	}
}

func (h *hundred) write(c *http.Client, i, n int) error {
	size := int64(rand.IntN(8 << 10))
	if n%20 == 19 {
		size = 100 << 10 // a file of the spool
	}
	began := time.Now()
	body, err := h.ask(c, "PUT", fmt.Sprintf("/uploads/%d/%d?label=client=%d", i, n, i), content(uint64(i*1_000_000+n), size))
	if err != nil {
		return err
	}
	took := time.Since(began)
	var u upload
	if err := json.Unmarshal(body, &u); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.took = append(h.took, took)
	h.known = append(h.known, u.ID)
	return nil
}

func (h *hundred) read(c *http.Client, n int) error {
	h.mu.Lock()
	id := ""
	if len(h.known) > 0 {
		id = h.known[rand.IntN(len(h.known))]
	}
	h.mu.Unlock()
	paths := []string{"/uploads/" + id, "/uploads?state=delivered&limit=20", "/uploads?name=1/", "/uploads?label=client=7&limit=50", "/uploads/" + id, "/healthz"}
	path := paths[n%len(paths)]
	if id == "" {
		path = "/healthz"
	}
	_, err := h.ask(c, "GET", path, nil)
	return err
}

func (h *hundred) ask(c *http.Client, method, path string, body io.Reader) ([]byte, error) {
	req, err := http.NewRequest(method, h.order.Base+path, body)
	if err != nil {
		return nil, err
	}
	res, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	answer, err := io.ReadAll(res.Body)
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.r.Answers[fmt.Sprint(method, " ", res.StatusCode)]++
	if res.StatusCode >= http.StatusBadRequest {
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, res.Status, answer)
	}
	return answer, nil
}
