package e2e_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ferry/proto/v4"
)

// A foe is somebody who attacks, and what Ferry promises about it.
type foe struct {
	what   string
	attack func(s *siegeV4) error // its error says what did not hold
	args   []string               // of the server
	// logged are lines that must be in the server's log afterwards: for each, one
	// line has all its words.
	logged [][]string
	// stored are the files beside the victim's and the honest client's that may be
	// there afterwards, as client/name; a name that ends in * stands for all that
	// begin so.
	stored []string
}

// hostileMemory in KiB is what no attack may have made the server hold.
const hostileMemory = 200 << 10

// TestAgainstV4 is each row of the section about version 4 in docs/security.md,
// over real sockets, against a server that is a process of its own. After each
// the victim's files are as they were and nothing lies where it should not, an
// honest client delivers, the log names who it was and why it ended and has no
// key and no token in it, and no answer had a path of the server's in it.
func TestAgainstV4(t *testing.T) {
	for _, f := range foes {
		t.Run(f.what, func(t *testing.T) {
			s := besiegeV4(t, f.args...)
			if err := f.attack(s); err != nil {
				t.Fatal(err)
			}
			s.unharmed(f.stored)
			s.logged(f.logged)
		})
	}
}

// TestSecurityPageV4 wants docs/security.md to have a row for each attack, and
// no row for one that there is not.
func TestSecurityPageV4(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "security.md"))
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, f := range foes {
		want = append(want, "TestAgainstV4/"+strings.ReplaceAll(f.what, " ", "_"))
	}
	var got []string
	for _, m := range regexp.MustCompile("(?m)^\\| .*`(TestAgainstV4/[^`]+)`").FindAllStringSubmatch(string(b), -1) {
		got = append(got, m[1])
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("rows of the page, (-want +got):\n%s", d)
	}
}

// A siegeV4 is a server with a victim that has stored a file, an attacker that
// is registered as mallory, and an honest client.
type siegeV4 struct {
	t                       *testing.T
	server                  *serverV4
	victim, honest, mallory *memberV4
	finished                []byte // what the victim has stored under that name
	deliveries              int    // of the honest client
	home                    string // of ferry send

	mu      sync.Mutex
	secrets [][]byte     // that no log may show; guarded by mu
	heard   bytes.Buffer // all that attackers were answered; guarded by mu
	words   bytes.Buffer // of that, what the refusals said; guarded by mu
}

func besiegeV4(t *testing.T, args ...string) *siegeV4 {
	t.Helper()
	s := &siegeV4{t: t, finished: bytesOf(7, 20_000), home: t.TempDir()}
	s.server = startV4(t, t.TempDir(), args...)
	token := s.token("--uses", "3")
	for name, m := range map[string]**memberV4{"victim": &s.victim, "honest": &s.honest, "mallory": &s.mallory} {
		var err error
		if *m, err = join(s.server.v4, name, token); err != nil {
			t.Fatal(err)
		}
		s.hide((*m).key.D.Bytes(), (*m).key.Primes[0].Bytes(), (*m).key.Primes[1].Bytes())
	}
	s.hideIdentity()
	if _, err := s.victim.deliver(t.Context(), s.url(), "finished", s.finished); err != nil {
		t.Fatal(err)
	}
	s.serves()
	return s
}

// hideIdentity wants the server's own key in no log.
func (s *siegeV4) hideIdentity() {
	s.t.Helper()
	b, err := serverIdentity()
	if err != nil {
		s.t.Fatal(err)
	}
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
			s.hide(block.Bytes[len(block.Bytes)/2:], fmt.Append(nil, key)[:100])
		}
	}
}

// hide notes what no log may show, in any form.
func (s *siegeV4) hide(secrets ...[]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secrets = append(s.secrets, secrets...)
}

func (s *siegeV4) token(args ...string) string {
	s.t.Helper()
	token := s.server.token(args...)
	s.hide([]byte(token))
	return token
}

func (s *siegeV4) url() string { return s.server.url(s.server.v4) }

// raw connects somebody who has not said who it is.
func (s *siegeV4) raw() (*rawV4, error) {
	r, err := dialRawV4(s.server.v4)
	if err == nil {
		r.siege = s
	}
	return r, err
}

// dial connects a member.
func (s *siegeV4) dial(m *memberV4) (*rawV4, error) {
	r, err := s.raw()
	if err != nil {
		return nil, err
	}
	if err := r.reconnect(m.id, m.name, m.key); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

// asMallory does something in a new connection of the attacker's.
func (s *siegeV4) asMallory(do func(r *rawV4) error) error {
	r, err := s.dial(s.mallory)
	if err != nil {
		return fmt.Errorf("the attacker itself: %w", err)
	}
	defer r.close()
	return do(r)
}

// send runs ferry send as a client that begins with it.
func (s *siegeV4) send(to string, more ...string) result {
	s.t.Helper()
	path := s.home + "/sent.bin"
	writeFile(s.t, path, 5, 100_000)
	return ferry(s.t, s.home, append(append([]string{"send", "--retries", "0", "--to", to, "--name", "sender"}, more...), path)...)
}

// serves has the honest client deliver a small file and a large one.
func (s *siegeV4) serves() {
	s.t.Helper()
	for _, size := range []int64{1000, 200_000} {
		s.deliveries++
		start := time.Now()
		if _, err := s.honest.deliver(s.t.Context(), s.url(), fmt.Sprintf("file %d", s.deliveries), bytesOf(uint64(s.deliveries), size)); err != nil {
			s.t.Fatalf("an honest client cannot deliver: %v", err)
		}
		if took := time.Since(start); took > 5*time.Second {
			s.t.Errorf("an honest delivery took %v", took)
		}
	}
}

// unharmed wants everything to be as if nothing had happened.
func (s *siegeV4) unharmed(stored []string) {
	s.t.Helper()
	s.serves()
	peak, err := residentKiB(s.server.pid(), "VmHWM")
	if err != nil || peak > hostileMemory {
		s.t.Errorf("resident memory reached %d KiB, %v; want at most %d", peak, err, hostileMemory)
	}
	sums := storedSums(s.t, s.server.data)
	want := map[string]string{"victim/finished": sumOfBytes(s.finished)}
	for n := 1; n <= s.deliveries; n += 2 {
		want[fmt.Sprintf("honest/file %d", n)] = sumOfBytes(bytesOf(uint64(n), 1000))
		want[fmt.Sprintf("honest/file %d", n+1)] = sumOfBytes(bytesOf(uint64(n+1), 200_000))
	}
	for path, sum := range want {
		if sums[path] != sum {
			s.t.Errorf("%q is stored with SHA-256 %q, want %s", path, sums[path], sum)
		}
		delete(sums, path)
	}
	for path := range sums {
		if !slices.ContainsFunc(stored, func(allowed string) bool {
			prefix, all := strings.CutSuffix(allowed, "*")
			return path == allowed || all && strings.HasPrefix(path, prefix)
		}) {
			s.t.Errorf("%q is stored", path)
		}
	}
	(&siege{t: s.t, data: s.server.data}).nothingBeside()
	if out, err := exec.Command(ferryBinary, "server", "verify", "--data", s.server.data).CombinedOutput(); err != nil {
		s.t.Errorf("ferry server verify: %v\n%s", err, out)
	}
}

// logged wants the server's log to have a line for each of some events and no
// secret, and the answers no path.
func (s *siegeV4) logged(want [][]string) {
	s.t.Helper()
	log := s.log()
	for _, words := range want {
		eventually(s.t, 3*time.Second, func() error {
			if log = s.log(); slices.ContainsFunc(strings.Split(log, "\n"), func(line string) bool { return hasAll(line, words) }) {
				return nil
			}
			return fmt.Errorf("no line of the log has all of %q", words)
		})
	}
	for line := range strings.Lines(log) {
		if !strings.HasPrefix(line, "time=") || strings.Contains(line, "internal error") || strings.Contains(line, "panic") {
			s.t.Errorf("the log has the line %q", line)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, secret := range s.secrets {
		for _, form := range formsOf(secret) {
			if strings.Contains(log, form) {
				s.t.Errorf("the log has secret %d, as %q", i, form)
			}
			if bytes.Contains(s.heard.Bytes(), []byte(form)) {
				s.t.Errorf("an answer has secret %d, as %q", i, form)
			}
		}
	}
	for _, part := range []string{s.server.data, os.TempDir() + "/", "/files/", "staging", ".db", ".go:", "goroutine"} {
		if bytes.Contains(s.words.Bytes(), []byte(part)) {
			s.t.Errorf("a refusal has %q in it: %q", part, s.words.Bytes())
		}
	}
	if bytes.Contains(s.heard.Bytes(), []byte(s.server.data)) {
		s.t.Error("an answer has the path of the server's folder in it")
	}
}

// log is all that the server has written.
func (s *siegeV4) log() string {
	s.t.Helper()
	b, err := os.ReadFile(s.server.stderr.Name())
	if err != nil {
		s.t.Fatal(err)
	}
	return string(b)
}

// notes keeps what an attacker was answered, and what it knows.
func (s *siegeV4) notes(a answerV4) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard.Write(a.payload)
	if a.code == v4.CodeRefused {
		s.words.Write(a.payload)
	}
}
