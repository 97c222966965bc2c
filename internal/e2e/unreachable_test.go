package e2e_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"mime/multipart"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// deadPort returns an address at which nobody listens, and nobody else can, until
// listen is called.
func deadPort(t *testing.T) (address string, listen func() net.Listener) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "socket")
	t.Cleanup(func() { _ = f.Close() })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	bound, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	at, ok := bound.(*syscall.SockaddrInet4)
	if !ok {
		t.Fatalf("bound to %v", bound)
	}
	return fmt.Sprintf("127.0.0.1:%d", at.Port), func() net.Listener {
		t.Helper()
		if err := syscall.Listen(fd, 128); err != nil {
			t.Fatal(err)
		}
		ln, err := net.FileListener(f)
		if err != nil {
			t.Fatal(err)
		}
		return ln
	}
}

// sendMany posts a form of so many small files, numbered from a number on.
func sendMany(t *testing.T, address string, from, count int) {
	t.Helper()
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	for i := range count {
		name := fmt.Sprintf("%05d.txt", from+i)
		part, err := w.CreateFormFile("file", name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := part.Write([]byte(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address, &form)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", w.FormDataContentType())
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := res.Body.Close(); err != nil || res.StatusCode != http.StatusAccepted {
		t.Fatalf("answer %d, %v", res.StatusCode, err)
	}
}

// everyUpload is a list without an end.
func everyUpload(t *testing.T, address string) (all []upload) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/x-ndjson")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		var u upload
		if err := json.Unmarshal(lines.Bytes(), &u); err != nil {
			t.Fatal(err)
		}
		all = append(all, u)
	}
	if err := lines.Err(); err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("answer %d, %v", res.StatusCode, err)
	}
	return all
}

// TestUnreachableDestination has 2,000 uploads wait for a server that is down: a few
// attempts are made, over a kill of the gateway, and all are delivered once it is up.
// What goes to another server does not notice.
func TestUnreachableDestination(t *testing.T) {
	t.Parallel()
	one, two := startV4(t, t.TempDir()), startV4(t, t.TempDir())
	address, listen := deadPort(t)
	args := []string{"gateway", "--data", t.TempDir(), "--http", "127.0.0.1:0", "--name", "ci", "--to", "one=" + one.url(address), "--to", "two=" + two.url(two.v4),
		"--join", "one=" + one.token(), "--join", "two=" + two.token()}
	gateway := start(t, args...)
	const count = 2000
	sendMany(t, gateway.http+"/uploads?destination=one", 0, count/2)
	sendMany(t, gateway.http+"/uploads?destination=one", count/2, count/2)
	small := filepath.Join(t.TempDir(), "small.txt")
	if err := os.WriteFile(small, []byte("small"), 0o600); err != nil {
		t.Fatal(err)
	}
	toTwo := func(name string) {
		t.Helper()
		curl(t, "-T", small, "-H", "Prefer: wait=60", gateway.http+"/uploads/"+name+"?destination=two").upload(t, http.StatusCreated)
	}
	// attempts are those of all uploads to one, of which all but some are as they were.
	attempts := func() (n int) {
		t.Helper()
		all, tried := everyUpload(t, gateway.http+"/uploads?destination=one"), 0
		if len(all) != count {
			t.Fatalf("%d uploads, want %d", len(all), count)
		}
		for _, u := range all {
			n += u.Attempts.Count
			tried += min(u.Attempts.Count, 1)
		}
		if tried > 1 {
			t.Errorf("%d uploads were tried, want one to try for all", tried)
		}
		return n
	}
	unreachable := func(s destinationStatus) bool {
		return s.State == "failing" && s.NextAt != nil && s.LastError != nil && s.Queued == count
	}
	awaitDestination(t, gateway.http, "one", unreachable)
	began := time.Now()
	toTwo("first.txt")
	time.Sleep(3 * time.Second)
	// They are a second, two and four apart, or less by a fifth: however slow the
	// machine is, there are no more than that.
	most := func() int {
		n, wait := 1, 800*time.Millisecond
		for at := wait; at < time.Since(began)+time.Second; at += wait {
			n, wait = n+1, 2*wait
		}
		return n + 1
	}
	if n := attempts(); n < 2 || n > most() {
		t.Errorf("%d attempts after %v, want 2 to %d", n, time.Since(began), most())
	}
	if got := curl(t, gateway.http+"/uploads?destination=one&limit=1"); !strings.Contains(got.body, "the destination one cannot be reached") || !strings.Contains(got.body, `"state":"queued"`) {
		t.Errorf("the newest: %s", got.body)
	}
	if log := gateway.log(); strings.Count(log, "the destination cannot be reached") != 1 {
		t.Errorf("the log does not say once that it is out of reach:\n%s", log)
	}

	before := attempts()
	gateway.kill()
	gateway, began = start(t, args...), time.Now()
	awaitDestination(t, gateway.http, "one", unreachable)
	toTwo("second.txt")
	if n := attempts(); n <= before || n > before+most() {
		t.Errorf("%d attempts after a kill, %d before", n, before)
	}

	relayOn(t, listen(), one.v4)
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		var s destinationStatus
		if err := getJSON(t.Context(), gateway.http+"/destinations/one", &s); err != nil {
			t.Fatal(err)
		}
		if s.State == "ready" && s.Queued+s.Delivering == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("it stands with it as %+v\n%.4000s", s, gateway.log())
		}
	}
	for _, u := range everyUpload(t, gateway.http+"/uploads?destination=one") {
		b, err := os.ReadFile(one.stored("ci", u.Name))
		if u.State != "delivered" || err != nil || string(b) != u.Name {
			t.Fatalf("%s is %s; stored %q, %v", u.Name, u.State, b, err)
		}
	}
	log, err := os.ReadFile(gateway.stderr.Name())
	if n := strings.Count(string(log), "the destination can be reached"); err != nil || n != 1 {
		t.Errorf("the log says %d times that it can be reached, want once; %v", n, err)
	}
}
