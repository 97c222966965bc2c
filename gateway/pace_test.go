package gateway

import (
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// stillPace is a pace whose time stands still until the test says otherwise.
func stillPace(rate int) (p *pace, advance func(time.Duration)) {
	var mu sync.Mutex
	now := time.Unix(1_700_000_000, 0)
	p = newPace(rate)
	p.now = func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	}
	return p, func(d time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(d)
	}
}

func TestPace(t *testing.T) {
	p, advance := stillPace(2)
	count := func(who string) (n int) {
		for p.take(who) == 0 {
			n++
		}
		return n
	}
	if got := count("a"); got != 2*paceBurst {
		t.Errorf("%d at once, want %d", got, 2*paceBurst)
	}
	if early := p.take("a"); early != time.Second/2 {
		t.Errorf("%v too early, want half a second", early)
	}
	if got := count("b"); got != 2*paceBurst {
		t.Errorf("%d of another one, want %d", got, 2*paceBurst)
	}
	advance(3 * time.Second)
	if got := count("a"); got != 6 {
		t.Errorf("%d after three seconds, want 6", got)
	}
	// So many that they are not counted apart share what one has; later, what is worth
	// nothing any more makes room.
	for i := range maxPaced {
		p.take(fmt.Sprint(i))
	}
	if got := count("x") + count("y"); got > 2*paceBurst {
		t.Errorf("%d of those beyond, want at most %d for all of them", got, 2*paceBurst)
	}
	if len(p.until) > maxPaced+1 {
		t.Errorf("%d are counted apart, want at most %d", len(p.until), maxPaced)
	}
	advance(time.Minute)
	if got := count("z"); got != 2*paceBurst || len(p.until) > 10 {
		t.Errorf("%d a minute later, and %d are counted; want %d and few", got, len(p.until), 2*paceBurst)
	}
}

func TestNetwork(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.1:80": "192.0.2.1", "[::ffff:192.0.2.1]:80": "192.0.2.1", "@": "",
		"[2001:db8:1:2:3:4:5:6]:80": "2001:db8:1:2::/64", "[fe80::1%eth0]:1": "fe80::/64",
	} {
		if got := network(address); got != want {
			t.Errorf("%s: %q, want %q", address, got, want)
		}
	}
}

// TestTooManyRequests has curl send more than is answered, with tokens and
// without; with --retry it comes through.
func TestTooManyRequests(t *testing.T) {
	s := newGuarded(t)
	one, other := s.token(t, "one", ScopeUpload, ScopeRead), s.token(t, "other", ScopeRead)
	p, advance := stillPace(1)
	s.api.pace = p
	get := func(token string) int { return s.as(t, token, "GET", "/uploads", "").StatusCode }
	for range paceBurst {
		if got := get(one); got != http.StatusOK {
			t.Fatalf("answered %d, want 200", got)
		}
	}
	a := s.as(t, one, "GET", "/uploads", "")
	if p := a.problem(t, kindPace); p.Limit != 1 || !p.Retryable || a.Header.Get("Retry-After") != "1" {
		t.Errorf("%+v, Retry-After %q", p, a.Header.Get("Retry-After"))
	}
	s.as(t, one, "PUT", "/uploads/a", "refused").problem(t, kindPace)
	if got := get(other); got != http.StatusOK {
		t.Errorf("another token is answered %d", got)
	}
	// Who has no good token is counted by address, and the page as well.
	for i := range paceBurst {
		if i%2 == 0 {
			s.as(t, "Bearer bad", "GET", "/uploads", "").problem(t, kindUnauthorized)
		} else if a := s.ask(t, "GET", "/", nil); a.StatusCode != http.StatusOK {
			t.Errorf("the page: %d", a.StatusCode)
		}
	}
	s.ask(t, "GET", "/uploads", nil).problem(t, kindPace)
	s.as(t, "Bearer bad", "GET", "/uploads", "").problem(t, kindPace)
	for range 3 * paceBurst {
		if a := s.ask(t, "GET", "/healthz", nil); a.StatusCode != http.StatusOK {
			t.Fatalf("/healthz: %d", a.StatusCode)
		}
	}

	// The file is sent once its time has come.
	cmd := exec.CommandContext(t.Context(), "curl", "-sS", "--fail-with-body", "--retry", "20", "-o", filepath.Join(t.TempDir(), "out"), "-w", "%{http_code}",
		"-H", "Authorization: "+one, "-T", "pace_test.go", s.url+"/uploads/")
	done := make(chan struct{})
	var ticking sync.WaitGroup
	ticking.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(50 * time.Millisecond):
				advance(100 * time.Millisecond)
			}
		}
	})
	out, err := cmd.CombinedOutput()
	close(done)
	ticking.Wait()
	if err != nil || !strings.Contains(string(out), "429") || !strings.HasSuffix(string(out), "202") {
		t.Errorf("curl --retry: %v: %s, want 202 after a retry", err, out)
	}
}
