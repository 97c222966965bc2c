package e2e_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// memorySize is that of each file that TestMemory sends.
var memorySize = flag.Int64("memory-size", 128_000_000, "bytes of each of the 16 files that TestMemory sends at once; 512000000 in a long run")

// mostGrowth is how much more than at rest a gateway, with a server in the same
// process, may take for whatever comes in, in KiB.
const mostGrowth = 128 << 10

// A rest is a process that has done a little, and has nothing to do.
type rest struct {
	process *process
	kib     int64
}

// atRest starts ferry up and lets it do something of each kind first.
func atRest(t *testing.T) rest {
	t.Helper()
	ferry := up(t, t.TempDir())
	for i := range 3 {
		u, err := post(t.Context(), ferry.http, fmt.Sprint("before ", i), content(uint64(i), 100_000), 100_000)
		if err != nil {
			t.Fatal(err)
		}
		waitDelivered(t, ferry.http, u.ID, time.Minute)
	}
	kib, err := residentKiB(ferry.cmd.Process.Pid, "VmRSS")
	if err != nil {
		t.Fatal(err)
	}
	return rest{ferry, kib}
}

// check wants that the process has never taken more than it may.
func (r rest) check(t *testing.T) {
	t.Helper()
	peak, err := residentKiB(r.process.cmd.Process.Pid, "VmHWM") // the highest it ever was
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("resident memory: %d MiB at rest, %d MiB at its highest", r.kib>>10, peak>>10)
	if peak-r.kib > mostGrowth {
		t.Errorf("resident memory grew by %d KiB, want at most %d", peak-r.kib, mostGrowth)
	}
}

// TestMemory sends 16 large files at once through a gateway and a server in one
// process and watches its resident memory.
func TestMemory(t *testing.T) {
	r := atRest(t)
	base := r.process.http
	var senders sync.WaitGroup
	ids := make([]string, 16)
	for i := range ids {
		senders.Go(func() {
			u, err := post(t.Context(), base, "large "+string(rune('a'+i)), content(uint64(i), *memorySize), *memorySize)
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
		waitDelivered(t, base, id, 5*time.Minute)
	}
	r.check(t)
}

// TestBombs has curl send, 16 times at once, what is small and would become large,
// or is large where a little is expected: all is refused, and memory stays small.
func TestBombs(t *testing.T) {
	r := atRest(t)
	dir := t.TempDir()
	form := func(name, part, after string, parts int) []string {
		path := filepath.Join(dir, name)
		writeRepeated(t, path, part, parts, after+"--X--\r\n")
		return []string{"--data-binary", "@" + path, "--header", "Content-Type: multipart/form-data; boundary=X", "/uploads"}
	}
	const (
		file  = "--X\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n.\r\n"
		field = "--X\r\nContent-Disposition: form-data; name=\"f\"\r\n\r\n.\r\n"
		more  = 10_000_000
	)
	long := strings.Repeat("x", more)
	zeros := filepath.Join(dir, "zeros.gz")
	if out, err := exec.CommandContext(t.Context(), "sh", "-c", "head -c 200000000 /dev/zero | gzip -1 >"+zeros).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	many := filepath.Join(dir, "many")
	writeRepeated(t, many, "X-Many: x\n", 5_000, "")
	order := filepath.Join(dir, "order")
	writeRepeated(t, order, "[", more, "")
	for name, c := range map[string]struct {
		args    []string // the last is a path
		status  string
		problem string
	}{
		"a form of 100,000 files":         {form("files", file, "", 100_000), "413", "too-many"},
		"a form of 100,000 fields":        {form("fields", field, "", 100_000), "413", "too-many"},
		"a form's part of 10 MB's header": {form("part", "--X\r\nContent-Disposition: form-data; name=\""+long+"\"\r\n\r\n.\r\n", "", 1), "400", "form"},
		"a form's field of 10 MB":         {form("field", "--X\r\nContent-Disposition: form-data; name=\"label\"\r\n\r\n"+long+"\r\n", "", 1), "413", "too-many"},
		"a form's beginning of 10 MB":     {form("preamble", long+"\r\n", file, 1), "400", "form"},
		"5,000 fields":                    {[]string{"--header", "@" + many, "/uploads"}, "431", ""},
		"a gzip bomb":                     {[]string{"--upload-file", zeros, "--header", "Content-Encoding: gzip", "/uploads/zeros"}, "415", "encoding"},
		"a bulk of 10 MB":                 {[]string{"--data-binary", "@" + order, "--header", "Content-Type: application/json", "/uploads/bulk"}, "400", "body"},
	} {
		t.Run(name, func(t *testing.T) {
			var all sync.WaitGroup
			for range 16 {
				all.Go(func() {
					last := len(c.args) - 1
					args := append([]string{"--silent", "--max-time", "120", "--write-out", "\n%{http_code}"}, c.args[:last]...)
					out, err := exec.CommandContext(t.Context(), "curl", append(args, r.process.http+c.args[last])...).Output()
					exit, refused := errors.AsType[*exec.ExitError](err)
					// Whoever writes on and on may find the connection closed before it
					// reads why.
					if refused && (exit.ExitCode() == 55 || exit.ExitCode() == 56) && (strings.HasSuffix(string(out), "\n000") || strings.HasSuffix(string(out), "\n100")) {
						return
					}
					if !strings.HasSuffix(string(out), "\n"+c.status) || !strings.Contains(string(out), c.problem) {
						t.Errorf("curl: %v: %.400s, want %s", err, out, c.status)
					}
				})
			}
			all.Wait()
		})
	}
	t.Run("a header of 10 MB", func(t *testing.T) { // which curl does not send
		var all sync.WaitGroup
		for range 16 {
			all.Go(func() {
				if status, err := longHeader(t.Context(), r.process.http, long); err != nil || status != http.StatusRequestHeaderFieldsTooLarge {
					t.Errorf("answered %d, %v; want 431", status, err)
				}
			})
		}
		all.Wait()
	})
	if a := curl(t, r.process.http+"/uploads?limit=500"); strings.Count(a.body, `"id"`) != 3 {
		t.Errorf("kept is %.400s, want the three of before", a.body)
	}
	r.check(t)
}

// longHeader sends a field for as long as the gateway takes it.
func longHeader(ctx context.Context, base, value string) (status int, err error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	var sent sync.WaitGroup
	defer sent.Wait()
	sent.Go(func() {
		_, _ = io.WriteString(conn, "GET /uploads HTTP/1.1\r\nHost: localhost\r\nX-Long: "+value+"\r\n\r\n")
	})
	defer conn.Close() // ends the writing
	if err := conn.SetReadDeadline(time.Now().Add(readyLimit)); err != nil {
		return 0, err
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if errors.Is(err, syscall.ECONNRESET) { // it was closed before the answer was read
		return http.StatusRequestHeaderFieldsTooLarge, nil
	}
	if err != nil {
		return 0, err
	}
	return res.StatusCode, res.Body.Close()
}

// writeRepeated makes a file of a text, so many times, and an end.
func writeRepeated(t *testing.T, path, text string, times int, end string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	many := min(times, 1000)
	for n := 0; n < times && err == nil; n += many {
		_, err = io.WriteString(f, strings.Repeat(text, many))
	}
	_, err2 := io.WriteString(f, end)
	if err := errors.Join(err, err2, f.Close()); err != nil {
		t.Fatal(err)
	}
}
