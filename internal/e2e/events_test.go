package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestEventReaders has 500 readers of curl's follow the events, and 100 that ask
// for all there was and take nothing of it, while uploads come in: each of the 500
// hears of the last, and nobody's slowness is kept in memory.
func TestEventReaders(t *testing.T) {
	const (
		curls, each, slow = 5, 100, 100
		missed, uploads   = 600, 60
		limit             = 96 << 10 // KiB over idle
	)
	gw := start(t, "gateway", "--data", t.TempDir(), "--name", "events", "--to", "v3://"+nobody(t), "--http", "127.0.0.1:0")
	send := func(name string) upload {
		t.Helper()
		u, err := put(t.Context(), gw.http+"/uploads/"+name)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	var ids []string
	for i := range missed {
		ids = append(ids, send(fmt.Sprint("before-", i, "?", labels())).ID)
	}
	holdAll(t, gw.http, ids)
	idle, err := residentKiB(gw.cmd.Process.Pid, "VmRSS")
	if err != nil {
		t.Fatal(err)
	}
	heard := t.TempDir()
	for i := range curls {
		args := []string{"--silent", "--no-buffer", "--no-progress-meter", "--parallel", "--parallel-immediate", "--parallel-max", strconv.Itoa(each)}
		for j := range each {
			args = append(args, "--output", filepath.Join(heard, fmt.Sprint(i, "-", j)), gw.http+"/events")
		}
		cmd := exec.Command("curl", args...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	}
	files := func() []string {
		all, err := filepath.Glob(filepath.Join(heard, "*"))
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	awaitHeard(t, files, curls*each, "event: ready")
	before, since := cpuTime(t, gw.cmd.Process.Pid), time.Now()
	time.Sleep(2 * time.Second)
	t.Logf("%d readers with nothing to hear cost %.1f %% of a core", curls*each,
		100*(cpuTime(t, gw.cmd.Process.Pid)-before).Seconds()/time.Since(since).Seconds())

	for range slow {
		silentReader(t, strings.TrimPrefix(gw.http, "http://"))
	}
	before, since = cpuTime(t, gw.cmd.Process.Pid), time.Now()
	for i := range uploads {
		send(fmt.Sprint("meanwhile-", i))
	}
	last := send("last")
	sent := time.Since(since)
	awaitHeard(t, files, curls*each, `"id":"`+last.ID+`"`)
	t.Logf("%d uploads came in in %v, and all had heard of the last after %v more and %v of CPU", uploads, sent, time.Since(since)-sent, cpuTime(t, gw.cmd.Process.Pid)-before)
	peak, err := residentKiB(gw.cmd.Process.Pid, "VmHWM")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("resident memory: %d MiB at rest, %d MiB at its highest", idle>>10, peak>>10)
	if peak-idle > limit {
		t.Errorf("resident memory grew by %d KiB, want at most %d", peak-idle, limit)
	}
}

// put sends a small file to an address.
func put(ctx context.Context, url string) (u upload, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, url, strings.NewReader(url))
	if err != nil {
		return upload{}, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return upload{}, err
	}
	body, err := io.ReadAll(res.Body)
	if err := errors.Join(err, res.Body.Close()); err != nil || res.StatusCode != http.StatusAccepted {
		return upload{}, fmt.Errorf("PUT %s: %s %s, %w", url, res.Status, body, err)
	}
	return u, json.Unmarshal(body, &u)
}

// holdAll keeps uploads from changing by themselves.
func holdAll(t *testing.T, base string, ids []string) {
	t.Helper()
	for deadline := time.Now().Add(readyLimit); ; time.Sleep(50 * time.Millisecond) {
		bulk(t, base, "hold", ids, 200, "before")
		list := curl(t, base+"/uploads?limit=500&state=delivering&state=receiving")
		if strings.Contains(list.body, `"uploads":[]`) {
			bulk(t, base, "hold", ids, 200, "before")
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("they are still tried: %s", list.body)
		}
	}
}

// labels are as many as an upload may have, and long.
func labels() string {
	var all []string
	for i := range 16 {
		all = append(all, fmt.Sprintf("label=k%d=%s", i, strings.Repeat("v", 200)))
	}
	return strings.Join(all, "&")
}

// awaitHeard waits until words are in all of so many files.
func awaitHeard(t *testing.T, files func() []string, want int, words string) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		n := 0
		for _, file := range files() {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(b), words) {
				n++
			}
		}
		if n == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d readers have heard %s", n, want, words)
		}
	}
}

// silentReader asks for all events that there were, and reads none.
func silentReader(t *testing.T, address string) {
	t.Helper()
	small := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		known := c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) })
		return errors.Join(known, err)
	}}
	conn, err := small.DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := fmt.Fprint(conn, "GET /events HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: 0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
}

// cpuTime is what a process has used of the processors.
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	var ticks int64
	for _, i := range []int{11, 12} { // utime and stime, in hundredths of a second
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / 100
}
