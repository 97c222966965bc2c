// Package e2e_test runs the whole of Ferry as its users do: the real binary as
// a real process, real sockets, real files, and clients that are not ours.
package e2e_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ferry/api/apitest"
)

// ferryBinary is built once for all tests, as a user builds it.
var ferryBinary string

func TestMain(m *testing.M) {
	if os.Getenv(attackerVariable) != "" {
		if err := beAttacker(); err != nil {
			fmt.Fprintln(os.Stderr, "attacker:", err)
			os.Exit(1)
		}
		return
	}
	if order := os.Getenv(hundredVariable); order != "" {
		if err := beHundred(order); err != nil {
			fmt.Fprintln(os.Stderr, "clients:", err)
			os.Exit(1)
		}
		return
	}
	dir, err := os.MkdirTemp("", "ferry-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	ferryBinary = filepath.Join(dir, "ferry")
	build := exec.Command("go", "build", "-o", ferryBinary, "ferry/cmd/ferry")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build ferry:", err)
		os.Exit(1)
	}
	flag.Parse()
	// Tests with a browser wait more than they work.
	if parallel := flag.Lookup("test.parallel"); parallel.Value.String() == parallel.DefValue {
		if err := parallel.Value.Set(strconv.Itoa(2 * runtime.GOMAXPROCS(0))); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// A process is a running ferry.
type process struct {
	t      testing.TB
	cmd    *exec.Cmd
	stderr *os.File      // a log file; shown if the test fails
	exited chan struct{} // closed when the process is gone; err is set then
	err    error

	http   string // http://127.0.0.1:PORT, if it speaks HTTP
	native string // 127.0.0.1:PORT where it speaks version 3, if it does
	v4     string // 127.0.0.1:PORT where it speaks version 4, if it does
	pin    string // sha256:HEX, what it is known by there
}

var (
	httpAddress = regexp.MustCompile(`http://(127\.0\.0\.1:\d+)`)
	v3Address   = regexp.MustCompile(`v3://(127\.0\.0\.1:\d+)`)
	v4Address   = regexp.MustCompile(`v4://(127\.0\.0\.1:\d+)`)
	fingerprint = regexp.MustCompile(`sha256:[0-9a-f]{64}`)
)

// readyLimit bounds the wait for the line that says that a process is ready.
const readyLimit = 30 * time.Second

// start runs ferry with args and returns once it has printed what it prints
// when it is ready. The process is killed at the end of the test.
func start(t testing.TB, args ...string) *process {
	t.Helper()
	return startCommand(t, exec.Command(ferryBinary, args...))
}

// startCommand is start for a command that wraps ferry.
func startCommand(t testing.TB, cmd *exec.Cmd) *process {
	t.Helper()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.CreateTemp(t.TempDir(), "stderr-*.log")
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = log
	if cmd.Env == nil {
		cmd.Env = withoutFerryVariables(os.Environ())
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // kill ends what it has started as well
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: cmd, stderr: log, exited: make(chan struct{})}
	ready := make(chan struct{})
	go p.watch(stdout, args(cmd), ready)
	t.Cleanup(p.cleanup)
	select {
	case <-ready:
	case <-p.exited:
		t.Fatalf("ferry %s ended before it was ready: %v\n%s", args(cmd), p.err, p.log())
	case <-time.After(readyLimit):
		t.Fatalf("ferry %s: not ready after %v\n%s", args(cmd), readyLimit, p.log())
	}
	return p
}

func args(cmd *exec.Cmd) string { return strings.Join(cmd.Args[1:], " ") }

// watch reads the addresses from stdout, closes ready once those that the
// subcommand has were seen, and waits for the end of the process.
func (p *process) watch(stdout io.Reader, args string, ready chan<- struct{}) {
	wantHTTP := !strings.Contains(args, "server --data")
	wantNative := strings.Contains(args, "--v3-listen")
	wantV4 := strings.Contains(args, " --listen ") && !strings.Contains(args, " --listen none") || args == "run" // make's
	lines := bufio.NewScanner(stdout)
	said := false
	for lines.Scan() {
		if m := httpAddress.FindStringSubmatch(lines.Text()); m != nil && p.http == "" {
			p.http = "http://" + m[1]
		}
		if m := v3Address.FindStringSubmatch(lines.Text()); m != nil && p.native == "" {
			p.native = m[1]
		}
		if m := v4Address.FindStringSubmatch(lines.Text()); m != nil && p.v4 == "" {
			p.v4 = m[1]
		}
		if pin := fingerprint.FindString(lines.Text()); pin != "" && p.pin == "" {
			p.pin = pin
		}
		if !said && (!wantHTTP || p.http != "") && (!wantNative || p.native != "") && (!wantV4 || p.v4 != "" && p.pin != "") {
			said = true
			close(ready)
		}
	}
	p.err = p.cmd.Wait()
	close(p.exited)
}

func (p *process) cleanup() {
	p.kill()
	if p.t.Failed() {
		p.t.Logf("stderr of ferry %s:\n%s", args(p.cmd), p.log())
	}
	_ = p.stderr.Close()
}

// log returns the last of what the process wrote to stderr.
func (p *process) log() string {
	const most = 8 << 10
	b, err := os.ReadFile(p.stderr.Name())
	if err != nil {
		return err.Error()
	}
	if len(b) > most {
		b = b[len(b)-most:]
	}
	return string(b)
}

// kill ends the process, and those that it has started, as kill -9 does, and
// waits for it.
func (p *process) kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.exited
}

// stop ends the process as a service manager does and wants exit status 0.
func (p *process) stop() {
	p.t.Helper()
	if err := syscall.Kill(p.pid(), syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	select {
	case <-p.exited:
	case <-time.After(readyLimit):
		p.t.Fatalf("still running %v after SIGTERM\n%s", readyLimit, p.log())
	}
	if p.err != nil {
		p.t.Fatalf("after SIGTERM: %v, want exit status 0\n%s", p.err, p.log())
	}
}

// up starts ferry up on a data folder, with ports of its own, and as a server
// whose key the tests have made.
func up(t testing.TB, data string, more ...string) *process {
	t.Helper()
	giveIdentity(t, filepath.Join(data, "server"))
	return start(t, append([]string{"up", "--data", data, "--http", "127.0.0.1:0", "--listen", "127.0.0.1:0"}, more...)...)
}

// tap has all that goes to the gateway's address from here on checked against the
// description of the API, whoever sends it.
func (p *process) tap() *process {
	p.t.Helper()
	tap, err := apitest.NewTap(strings.TrimPrefix(p.http, "http://"))
	if err != nil {
		p.t.Fatal(err)
	}
	p.http = "http://" + tap.Address()
	p.t.Cleanup(func() {
		checked, err := tap.Close()
		if err != nil || checked == 0 {
			p.t.Errorf("%d answers were checked: %v", checked, err)
		}
	})
	return p
}

// pid is that of ferry itself, also where strace has started it.
func (p *process) pid() int {
	p.t.Helper()
	own := p.cmd.Process.Pid
	if filepath.Base(p.cmd.Path) != "strace" {
		return own
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", own, own))
	if err != nil {
		p.t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		p.t.Fatalf("children of strace: %v", err)
	}
	return child
}

func withoutFerryVariables(env []string) []string {
	var kept []string
	for _, kv := range env {
		if !strings.HasPrefix(kv, "FERRY_") {
			kept = append(kept, kv)
		}
	}
	return kept
}

// upload is what these tests read of the API's upload.
type upload struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Size     *int64 `json:"size"`
	State    string `json:"state"`
	SHA256   string `json:"sha256"`
	Cksum    uint32 `json:"cksum"`
	Error    string `json:"error"`
	Progress struct {
		Bytes        int64 `json:"bytes"`
		TotalBytes   int64 `json:"total_bytes"`
		Packets      int64 `json:"packets"`
		TotalPackets int64 `json:"total_packets"`
	} `json:"progress"`
	Attempts struct {
		Count     int    `json:"count"`
		LastError string `json:"last_error"`
	} `json:"attempts"`
	CreatedAt   time.Time `json:"created_at"`
	UpdatedAt   time.Time `json:"updated_at"`
	DeliveredAt time.Time `json:"delivered_at"`
}

// get fetches one upload.
func get(ctx context.Context, base, id string) (upload, error) {
	var u upload
	return u, getJSON(ctx, base+"/uploads/"+id, &u)
}

func getJSON(ctx context.Context, url string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(res.Body)
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s: %s", url, res.Status, body)
	}
	return json.Unmarshal(body, into)
}

// post sends body as a raw upload and returns what a 202 answered.
func post(ctx context.Context, base, name string, body io.Reader, size int64) (upload, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/uploads?name="+url.QueryEscape(name), body)
	if err != nil {
		return upload{}, err
	}
	req.ContentLength = size
	if size == 0 {
		req.Body = http.NoBody
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return upload{}, err
	}
	answer, err := io.ReadAll(res.Body)
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return upload{}, err
	}
	if res.StatusCode != http.StatusAccepted && res.StatusCode != http.StatusOK { // OK: it was there
		return upload{}, fmt.Errorf("POST %s: %s: %s", name, res.Status, answer)
	}
	var u upload
	return u, json.Unmarshal(answer, &u)
}

// waitDelivered polls until the upload is delivered, and fails the test if it
// failed or took longer than limit.
func waitDelivered(t testing.TB, base, id string, limit time.Duration) upload {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var last upload
	for {
		u, err := get(ctx, base, id)
		if err != nil {
			t.Fatalf("upload %s, last seen %+v: %v", id, last, err)
		}
		switch last = u; u.State {
		case "delivered":
			return u
		case "failed", "cancelled":
			t.Fatalf("upload %s is %s: %s", id, u.State, u.Error)
		}
		<-tick.C
	}
}

// storedFolder is the only folder under the server's files.
func storedFolder(t testing.TB, serverData string) string {
	t.Helper()
	folders, err := filepath.Glob(filepath.Join(serverData, "files", "*"))
	if err != nil || len(folders) != 1 {
		t.Fatalf("folders under files/: %q, %v; want one", folders, err)
	}
	return folders[0]
}

// residentKiB reads a field such as VmRSS or VmHWM of a process.
func residentKiB(pid int, field string) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			return strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no %s", pid, field)
}
