package e2e_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// traced runs ferry under strace and returns the process and a function that
// reads the calls it made, one a line, the unfinished ones left out.
func traced(t *testing.T, args ...string) (*process, func() []string) {
	t.Helper()
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Fatal("this test needs strace (apt-get install strace): ", err)
	}
	log := filepath.Join(t.TempDir(), "strace")
	cmd := exec.Command(strace, append([]string{
		"--follow-forks", "--output=" + log, "--decode-fds=path,socket", "--string-limit=64", "--strings-in-hex=non-ascii",
		"--trace=write,pwrite64,writev,fsync,fdatasync,sync_file_range,rename,renameat,renameat2,link,linkat",
		ferryBinary}, args...)...)
	p := startCommand(t, cmd)
	return p, func() []string {
		b, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		return completed(string(b))
	}
}

var (
	unfinished = regexp.MustCompile(`^(\d+) +(.*) <unfinished \.\.\.>$`)
	resumed    = regexp.MustCompile(`^(\d+) +<\.\.\. \w+ resumed>(.*)$`)
)

// completed joins each call that strace shows in two parts, at the place where
// it returned for what writes to a disk, and where it began for the rest: the
// stricter choice for a claim that the disk comes before the answer.
func completed(log string) []string {
	var calls []string
	open := map[string]string{}
	for line := range strings.Lines(log) {
		line = strings.TrimSuffix(line, "\n")
		if m := unfinished.FindStringSubmatch(line); m != nil {
			if strings.Contains(m[2], "<TCP:") {
				calls = append(calls, m[2])
			} else {
				open[m[1]] = m[2]
			}
			continue
		}
		if m := resumed.FindStringSubmatch(line); m != nil {
			if begun, ok := open[m[1]]; ok {
				calls = append(calls, begun+m[2])
				delete(open, m[1])
			}
			continue
		}
		if _, call, ok := strings.Cut(line, " "); ok {
			calls = append(calls, strings.TrimSpace(call))
		}
	}
	return calls
}

// wantOrder looks for calls that match the patterns, each after the one before.
func wantOrder(t *testing.T, calls []string, patterns ...string) {
	t.Helper()
	at := 0
	for _, p := range patterns {
		re := regexp.MustCompile(p)
		for at < len(calls) && !re.MatchString(calls[at]) {
			at++
		}
		if at == len(calls) {
			t.Fatalf("no call matches %s after those before it, in:\n%s", p, strings.Join(calls, "\n"))
		}
		t.Log(calls[at])
		at++
	}
}

// since returns the calls from the first one that matches.
func since(t *testing.T, calls []string, pattern string) []string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	for i, c := range calls {
		if re.MatchString(c) {
			return calls[i:]
		}
	}
	t.Fatalf("no call matches %s in:\n%s", pattern, strings.Join(calls, "\n"))
	return nil
}

// TestOrderOfDurability reads off the system calls that a file is on the disk,
// under its name and recorded before anybody is told so, at the gateway and at
// the server.
func TestOrderOfDurability(t *testing.T) {
	data := t.TempDir()
	server, serverCalls := traced(t, "server", "--data", filepath.Join(data, "server"), "--listen", "none", "--v3-listen", "127.0.0.1:0")
	gateway, gatewayCalls := traced(t, "gateway", "--data", filepath.Join(data, "gateway"),
		"--http", "127.0.0.1:0", "--to", "v3://"+server.native, "--name", "ci")

	const size = 300_000 // more than the gateway keeps in its database
	u, err := post(t.Context(), gateway.http, "spooled.bin", content(1, size), size)
	if err != nil {
		t.Fatal(err)
	}
	waitDelivered(t, gateway.http, u.ID, time.Minute)
	small, err := post(t.Context(), gateway.http, "small.bin", content(2, 1000), 1000)
	if err != nil {
		t.Fatal(err)
	}
	waitDelivered(t, gateway.http, small.ID, time.Minute)
	gateway.stop()
	server.stop()

	answer := `^write\(\d+<TCP:.*"HTTP/1\.1 202`
	t.Run("gateway, a file", func(t *testing.T) {
		calls := before(t, gatewayCalls(), answer, 1)
		wantOrder(t, since(t, calls, `^p?write(64)?\(\d+<.*/gateway/staging/`),
			`^p?write(64)?\(\d+<.*/gateway/staging/`,
			`^fsync\(\d+<.*/gateway/staging/[^>]+>\) += 0`,
			`^(rename|link).*"`+u.ID+`".* = 0`,
			`^fsync\(\d+<.*/gateway/files/[^>]+>\) += 0`,
			`^pwrite64\(\d+<.*-wal>`,
			`^f(data)?sync\(\d+<.*-wal>\) += 0`)
	})
	t.Run("gateway, a small body", func(t *testing.T) {
		calls := before(t, gatewayCalls(), answer, 2)
		wantOrder(t, calls[len(before(t, gatewayCalls(), answer, 1)):],
			`^pwrite64\(\d+<.*-wal>`,
			`^f(data)?sync\(\d+<.*-wal>\) += 0`)
	})
	t.Run("server", func(t *testing.T) {
		// 1604 is 03 44 06; the last one of the first connection's file answers 900.
		calls := serverCalls()
		wantOrder(t, since(t, calls, `^p?write(64)?\(\d+<.*/server/staging/`),
			`^p?write(64)?\(\d+<.*/server/staging/`,
			`^write\(\d+<TCP:.*\\x03\\x43\\x06`, // 1603, the checksum
			`^fsync\(\d+<.*/server/staging/[^>]+>\) += 0`,
			`^(rename|link).*"spooled\.bin".* = 0`,
			`^fsync\(\d+<.*/server/files/ci>\) += 0`,
			`^pwrite64\(\d+<.*-wal>`,
			`^f(data)?sync\(\d+<.*-wal>\) += 0`,
			`^write\(\d+<TCP:.*\\x03\\x44\\x06`) // 1604 to 900
		noneBetween(t, calls, `^write\(\d+<TCP:.*\\x03\\x43\\x06`, `^f(data)?sync\(\d+<.*-wal>\) += 0`, `^write\(\d+<TCP:`)
	})
}

// before returns the calls before the nth that matches.
func before(t *testing.T, calls []string, pattern string, nth int) []string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	for i, c := range calls {
		if re.MatchString(c) {
			if nth--; nth == 0 {
				return calls[:i]
			}
		}
	}
	t.Fatalf("too few calls match %s in:\n%s", pattern, strings.Join(calls, "\n"))
	return nil
}

// noneBetween wants no call like never after the first that matches from and
// before the next that matches until.
func noneBetween(t *testing.T, calls []string, from, until, never string) {
	t.Helper()
	tail := since(t, calls, from)[1:]
	for _, c := range before(t, tail, until, 1) {
		if regexp.MustCompile(never).MatchString(c) {
			t.Errorf("told before it was durable: %s", c)
		}
	}
}
