package e2e_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ferry/proto/v3"
)

// An abuse is one way in which the old programs could be stopped, misled or
// filled.
type abuse struct {
	what string
	// attack is done once, and again and again, by a process of its own, while an
	// honest client delivers; its error says what did not hold. Each time it cleans
	// up what it opened. Of the siege it uses what a muster carries.
	attack func(s *siege) error
	// logged are lines that must be in the log afterwards: for each, some line
	// has all its words.
	logged [][]string
	args   []string // of the server, besides the usual ones
	// memory is the most that the server may ever have held, in KiB; 0 means
	// usualMemory.
	memory int64
}

// usualMemory in KiB is twice what a server needs that has nothing to do.
const usualMemory = 64 << 10

// TestAbuse does to the real server what was shown to bring the old ones down.
// Of each it wants that
//
//   - it is refused, with 1607 or by closing, as the attack itself checks;
//   - nothing is lost: the file that the victim had stored is unchanged, and the
//     victim is known again and can deliver under any free name;
//   - nothing is left in staging, nothing was written where it should not be,
//     no memory was reserved, and all that is stored is what is on record;
//   - meanwhile others are served, in at most 1.5 times the time, see timely;
//   - the log has a line for it, and no key.
//
// Three of them cannot be refused in version 3. There the attack shows what the
// version does not promise; see docs/security.md.
func TestAbuse(t *testing.T) {
	for i, a := range abuses {
		t.Run(fmt.Sprintf("%02d %s", i+1, a.what), func(t *testing.T) {
			s := besiege(t, a.args...)
			if err := a.attack(s); err != nil {
				t.Fatal(err)
			}
			s.timely(i)
			s.unharmed(max(a.memory, usualMemory))
			s.logged(a.logged)
		})
	}
}

// A siege is a server with a victim that has stored a file, an attacker who
// knows the victim's name and id, and an honest client.
type siege struct {
	t       *testing.T      // nil in the attacker's process
	ctx     context.Context // of the test, or of that process
	while   context.Context // of a long attack, which may end with it
	data    string
	server  *process
	mallory *attacker

	victim     *memoryKeyring
	victimID   v3.ID
	finished   []byte // what the victim has stored under that name
	honest     *memoryKeyring
	bulk       *memoryKeyring // of a client that the attacker is as well
	deliveries int            // of the honest client
	count      atomic.Int64   // for names that were not used before

	mu    sync.Mutex
	extra map[string]string // SHA-256 of what else is stored rightly, by path; guarded by mu
}

func besiege(t *testing.T, args ...string) *siege {
	t.Helper()
	s := &siege{
		t: t, ctx: t.Context(), while: t.Context(), data: t.TempDir(),
		victim: new(memoryKeyring), honest: new(memoryKeyring), bulk: new(memoryKeyring),
		finished: bytesOf(7, 20_000), extra: map[string]string{},
	}
	s.server = start(t, append([]string{"server", "--data", s.data, "--listen", "none", "--v3-listen", "127.0.0.1:0"}, args...)...)
	if _, err := send(t.Context(), s.server.native, "window=64", "victim", s.victim, "finished", s.finished); err != nil {
		t.Fatal(err)
	}
	s.victimID = v3.ID(s.victim.id.ID)
	var err error
	if s.mallory, err = newAttacker(s.server.native); err != nil {
		t.Fatal(err)
	}
	key, err := v3.ParsePrivateKey(s.victim.id.PrivateKey)
	if err := errors.Join(err, s.mallory.learnPrivate("victim", key)); err != nil {
		t.Fatal(err)
	}
	if _, err := send(t.Context(), s.server.native, "window=64", "bulk", s.bulk, "first", s.finished); err != nil {
		t.Fatal(err)
	}
	s.stores("bulk", "first", sumOfBytes(s.finished))
	if _, err := s.deliver(); err != nil {
		t.Fatal(err)
	}
	return s
}

// fresh is a name that nobody has used before.
func (s *siege) fresh(prefix string) string { return fmt.Sprintf("%s %d", prefix, s.count.Add(1)) }

// raw connects somebody who has not said who it is.
func (s *siege) raw() (*raw, error) { return dialRaw(s.server.native) }

// asVictim connects somebody who knows the victim's id and name, which is
// enough to be answered, and not to read the answer.
func (s *siege) asVictim() (*raw, error) {
	r, err := s.raw()
	if err != nil {
		return nil, err
	}
	r.id = s.victimID
	return r, errors.Join(r.say(r.reconnect("victim")), r.expect("reconnect", v3.CodeReconnected))
}

// stores notes a file that is stored rightly beside the victim's and the honest
// client's.
func (s *siege) stores(client, name, sum string) { s.storesAt(client+"/"+name, sum) }

func (s *siege) storesAt(path, sum string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.extra[path] = sum
}

func honestFile(n int) []byte { return bytesOf(uint64(n), 5000) }

// deliver has the honest client deliver a small file over a new connection, and
// says how long that took.
func (s *siege) deliver() (time.Duration, error) {
	s.deliveries++
	b := honestFile(s.deliveries)
	start := time.Now()
	_, err := send(s.ctx, s.server.native, "window=64", "honest", s.honest, fmt.Sprintf("file %d", s.deliveries), b)
	if err != nil {
		s.deliveries--
	}
	return time.Since(start), err
}

// sealedSize takes the server some ten to twenty milliseconds.
const sealedSize = 2_000_000

// deliverSealed has the honest client deliver a file over a new connection, and
// says how long the server took: the client comes back, seals its file while no
// time is taken, and says all at once.
func (s *siege) deliverSealed() (time.Duration, error) {
	name := s.fresh("sealed")
	b := bytesOf(uint64(s.count.Load()), sealedSize)
	start := time.Now()
	r, err := s.asHonest()
	took := time.Since(start)
	if err != nil {
		return took, err
	}
	defer r.close()
	packets, err := r.packets(v3.Mainstream(8192), name, b)
	if err != nil {
		return took, err
	}
	all := slices.Concat(packets...)
	start = time.Now()
	err = errors.Join(
		r.say(all), r.expect("the file", v3.CodeReceived),
		r.say(r.confirm(v3.CodeEqual, name)), r.expect("900", v3.CodeThanks))
	took += time.Since(start)
	s.stores("honest", name, sumOfBytes(b))
	return took, err
}

// asHonest connects as the honest client.
func (s *siege) asHonest() (*raw, error) {
	id := s.honest.export()
	key, err := v3.ParsePrivateKey(id.Key)
	if err != nil {
		return nil, err
	}
	r, err := s.raw()
	if err != nil {
		return nil, err
	}
	r.id = id.ID
	if err := r.say(r.reconnect(id.Name)); err != nil {
		return nil, err
	}
	code, b, err := r.hear()
	if err != nil || code != v3.CodeReconnected {
		return nil, unexpected("reconnect", code, err, v3.CodeReconnected)
	}
	w, err := v3.ParseWrappedKey(b)
	if err != nil {
		return nil, err
	}
	r.key, err = v3.UnwrapKey(key, w.Key)
	return r, err
}

// slower is how many times as long as without an attack an honest client's
// delivery may take beside it.
const slower = 1.5

// How often it is measured, in turn without and beside the attack.
const (
	rounds   = 4
	perRound = 3
	longer   = 12 // rounds, where those before were too slow
	again    = 3  // times
)

// timely measures an honest client's deliveries, without the attack and beside
// it, and wants the median of the one to be at most slower times that of the
// other.
//
// They are measured in turns on the same server, so that whatever else the
// machine does slows both; and anew, for longer, if they are too slow, up to three
// times: noise fades, and a server that makes others wait does not. The
// attacker is a process of its own, that yields the processors to the server and
// to the honest client: in the field it has a machine for its work, and only
// what it makes the server do is taken from others.
func (s *siege) timely(attack int) {
	s.t.Helper()
	p := &pace{attackers: s.muster(attack)}
	p.measure(s, rounds)
	for i := 0; i < again && p.ratio() > slower; i++ {
		s.t.Logf("to be measured longer: %v", p)
		p = &pace{attackers: p.attackers}
		p.measure(s, longer)
	}
	p.attackers.dismiss()
	s.t.Log(p)
	if r := p.ratio(); r > slower {
		s.t.Errorf("an honest delivery takes %.2f times as long beside the attack as without, want at most %.2f", r, slower)
	}
}

// A pace is how long deliveries take.
type pace struct {
	attackers    *attackers
	idle, beside []time.Duration
	attacks      int
	heard        int64 // bytes that the server has read of the attacks, as others delivered
}

func (p *pace) measure(s *siege, rounds int) {
	s.t.Helper()
	for range rounds {
		times, alone := s.deliverSome()
		p.idle = append(p.idle, times...)
		p.attackers.attack()
		times, heard := s.deliverSome()
		p.beside = append(p.beside, times...)
		p.attacks += p.attackers.stop()
		p.heard += max(0, heard-alone)
	}
}

func (p *pace) ratio() float64 { return float64(medianOf(p.beside)) / float64(medianOf(p.idle)) }

func (p *pace) String() string {
	var took time.Duration
	for _, d := range p.beside {
		took += d
	}
	return fmt.Sprintf("an honest delivery takes %v, and %v beside the attack, %.2f times as long; medians of %d. There were %d attacks; meanwhile they sent %.1f MB/s",
		medianOf(p.idle), medianOf(p.beside), p.ratio(), len(p.idle), p.attacks, float64(p.heard)/1e6/took.Seconds())
}

// deliverSome returns how long deliveries took, and how much the server has read
// meanwhile, from whomever.
func (s *siege) deliverSome() (times []time.Duration, heard int64) {
	s.t.Helper()
	before := s.heard()
	for range perRound {
		d, err := s.deliverSealed()
		if err != nil {
			s.t.Fatal(err)
		}
		times = append(times, d)
	}
	return times, s.heard() - before
}

func medianOf(all []time.Duration) time.Duration {
	all = slices.Sorted(slices.Values(all))
	return all[len(all)/2]
}

// heard is how many bytes the server has read so far.
func (s *siege) heard() int64 {
	s.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", s.server.pid()))
	var n int64
	if err == nil {
		_, err = fmt.Sscanf(string(b), "rchar: %d", &n)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// unharmed wants everything to be as if nothing had happened.
func (s *siege) unharmed(memory int64) {
	s.t.Helper()
	next := bytesOf(8, 30_000)
	if _, err := send(s.t.Context(), s.server.native, "window=64", "victim", s.victim, "next", next); err != nil {
		s.t.Errorf("the victim cannot go on: %v", err)
	}
	if id := s.victim.id.ID; v3.ID(id) != s.victimID {
		s.t.Errorf("the victim had to register anew, as %s", id)
	}
	waitUnstaged(s.t, s.data)
	peak, err := residentKiB(s.server.pid(), "VmHWM")
	if err != nil {
		s.t.Error(err)
	} else if peak > memory {
		s.t.Errorf("resident memory reached %d KiB, want at most %d", peak, memory)
	}
	s.server.stop()

	want := map[string]string{"victim/finished": sumOfBytes(s.finished), "victim/next": sumOfBytes(next)}
	for n := range s.deliveries {
		want[fmt.Sprintf("honest/file %d", n+1)] = sumOfBytes(honestFile(n + 1))
	}
	maps.Copy(want, s.extra)
	got := storedSums(s.t, s.data)
	for path, sum := range want {
		if got[path] != sum {
			s.t.Errorf("%q is stored with SHA-256 %q, want %s", path, got[path], sum)
		}
		delete(got, path)
	}
	for path := range got {
		s.t.Errorf("%q is stored, and nobody sent it", path)
	}
	s.nothingBeside()
	if out, err := exec.Command(ferryBinary, "server", "verify", "--data", s.data).CombinedOutput(); err != nil {
		s.t.Errorf("ferry server verify: %v\n%s", err, out)
	}
}

// nothingBeside wants no files where names could have led that try to escape.
func (s *siege) nothingBeside() {
	s.t.Helper()
	for _, dir := range []string{s.data, filepath.Join(s.data, "files"), filepath.Dir(s.data), filepath.Dir(filepath.Dir(s.data)), "/", "."} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			s.t.Error(err)
		}
		for _, e := range entries {
			if strings.Contains(e.Name(), "escaped") {
				s.t.Errorf("%s has been written to: %q", dir, e.Name())
			}
		}
	}
}

func sumOfBytes(b []byte) string {
	sum, _ := sha256Of(bytes.NewReader(b)) // reading from memory does not fail
	return sum
}

// storedSums are the SHA-256 sums of all stored files, by client/name.
func storedSums(t testing.TB, data string) map[string]string {
	t.Helper()
	root := filepath.Join(data, "files")
	sums := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err == nil {
			sums[rel], err = sha256OfFile(path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return sums
}

// waitUnstaged wants no bytes left in staging, at once or nearly so: the server
// needs a moment to see that a connection has gone.
func waitUnstaged(t testing.TB, data string) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		left, err := stagedBytes(data)
		if err != nil {
			t.Fatal(err)
		}
		if left == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes are left in staging", left)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func stagedBytes(data string) (int64, error) {
	entries, err := os.ReadDir(filepath.Join(data, "staging"))
	if err != nil {
		return 0, err
	}
	var all int64
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, os.ErrNotExist) {
			continue // it has gone since
		}
		if err != nil {
			return 0, err
		}
		all += info.Size()
	}
	return all, nil
}

// logged wants the server's log to have a line for each of some events, and in
// no line a key or a panic.
func (s *siege) logged(want [][]string) {
	s.t.Helper()
	b, err := os.ReadFile(s.server.stderr.Name())
	if err != nil {
		s.t.Fatal(err)
	}
	log := string(b)
	lines := strings.Split(strings.TrimSuffix(log, "\n"), "\n")
	for _, words := range want {
		if !slices.ContainsFunc(lines, func(line string) bool { return hasAll(line, words) }) {
			s.t.Errorf("no line of the log has all of %q", words)
		}
	}
	for _, line := range lines {
		if !strings.HasPrefix(line, "time=") || strings.Contains(line, "internal error") {
			s.t.Errorf("the log has the line %q", line)
		}
	}
	s.mallory.mu.Lock()
	defer s.mallory.mu.Unlock()
	for what, secret := range s.mallory.secrets {
		for _, form := range formsOf(secret) {
			if strings.Contains(log, form) {
				s.t.Errorf("the log has %s, as %q", what, form)
			}
		}
	}
	if len(s.mallory.secrets) < 4 {
		s.t.Errorf("the attacker knows %d secrets to look for, want some", len(s.mallory.secrets))
	}
}

func hasAll(line string, words []string) bool {
	for _, w := range words {
		if !strings.Contains(line, w) {
			return false
		}
	}
	return true
}

// formsOf are the ways in which a secret may be printed. Of a long one the
// beginning is enough, less what all keys begin with.
func formsOf(secret []byte) []string {
	if len(secret) > 200 { // PKCS#8: what it is, and then the modulus, which is no secret
		secret = secret[len(secret)/6*3:] // base64 takes three at a time
	}
	secret = secret[:min(len(secret), 24)]
	decimals := fmt.Sprintf("%d", secret)
	return []string{
		string(secret),
		hex.EncodeToString(secret), strings.ToUpper(hex.EncodeToString(secret)),
		base64.RawStdEncoding.EncodeToString(secret), base64.RawURLEncoding.EncodeToString(secret),
		decimals[1 : len(decimals)-1],
		strings.ReplaceAll(decimals[1:len(decimals)-1], " ", ","),
		strings.Trim(fmt.Sprintf("%q", secret), `"`),
	}
}

// TestFormsOf wants what no log may have to be found if it had it.
func TestFormsOf(t *testing.T) {
	secret := bytesOf(3, 32)
	for _, line := range []string{
		fmt.Sprintf("key=%x", secret), fmt.Sprintf("key=%X", secret), fmt.Sprintf("key=%v", secret), "key=" + string(secret),
		"key=" + base64.StdEncoding.EncodeToString(secret),
	} {
		if !slices.ContainsFunc(formsOf(secret), func(form string) bool { return strings.Contains(line, form) }) {
			t.Errorf("%q is not found to have the key", line)
		}
	}
}
