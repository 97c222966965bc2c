package gateway

import (
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

const (
	// paceBurst is how many seconds' worth of requests may come at once.
	paceBurst = 10
	// maxPaced bounds whose requests are counted apart from those of all others.
	maxPaced = 10_000
)

// kindPace says that whoever sends it has sent too many requests.
var kindPace = problemKind{"pace", http.StatusTooManyRequests, "Too many requests"}

// A pace bounds how many requests a second are answered: those of each token, and,
// of those without a good one, those of each address. It is safe for concurrent
// use. A nil pace bounds nothing.
type pace struct {
	rate int // requests a second
	now  func() time.Time

	mu    sync.Mutex
	until map[string]time.Time // when what each has sent is worth nothing any more; guarded by mu
	swept time.Time            // guarded by mu
}

func newPace(rate int) *pace {
	if rate == 0 {
		return nil
	}
	return &pace{rate: rate, now: time.Now, until: map[string]time.Time{}}
}

// take counts a request of somebody's, and returns how long it comes too early; then
// it is not counted.
func (p *pace) take(who string) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	until, known := p.until[who]
	if !known && !p.roomFor(now) {
		who = "" // all others
		until = p.until[who]
	}
	if until.Before(now) {
		until = now
	}
	until = until.Add(time.Second / time.Duration(p.rate))
	if early := until.Sub(now) - paceBurst*time.Second; early > 0 {
		return early
	}
	p.until[who] = until
	return 0
}

// roomFor reports whether one more can be counted apart.
func (p *pace) roomFor(now time.Time) bool {
	if len(p.until) >= maxPaced && now.Sub(p.swept) >= time.Second {
		p.swept = now
		for who, until := range p.until {
			if until.Before(now) {
				delete(p.until, who)
			}
		}
	}
	return len(p.until) < maxPaced
}

// keep returns the refusal of a request that comes too early, or nil. token is the
// name of the good one that it shows.
func (p *pace) keep(r *http.Request, token string) error {
	if p == nil || r.URL.Path == "/healthz" || r.URL.Path == "/readyz" {
		return nil
	}
	who, words := "token "+token, "with this token"
	if token == "" {
		who, words = "address "+network(r.RemoteAddr), "from this address"
	}
	early := p.take(who)
	if early == 0 {
		return nil
	}
	return &refusalError{
		problemKind: kindPace, limit: int64(p.rate), retryAfter: int((early + time.Second - 1) / time.Second),
		detail: fmt.Sprintf("More requests came %s than %s a second. Nothing of this one was kept. Send it again after the time that Retry-After states.", words, grouped(int64(p.rate))),
	}
}

// network is whom an address belongs to: one of IPv6 has many neighbours.
func network(address string) string {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return "" // a unix socket's
	}
	ip := a.Addr().Unmap().WithZone("")
	if ip.Is6() {
		if p, err := ip.Prefix(64); err == nil {
			return p.String()
		}
	}
	return ip.String()
}
