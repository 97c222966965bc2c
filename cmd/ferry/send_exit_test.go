package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"ferry/proto"
	"ferry/proto/prototest"
	"ferry/server"
)

// startServer runs a native server of version 3 in this process and returns its
// address and its data folder.
func startServer(t *testing.T) (address, data string) {
	t.Helper()
	data = t.TempDir()
	return serve(t, data, proto.AcceptV3, true), data
}

// startServerV4 runs one of version 4, and returns its URL and data folder.
func startServerV4(t *testing.T) (to, data string) {
	t.Helper()
	data = t.TempDir()
	id, err := server.LoadIdentity(data)
	if err != nil {
		t.Fatal(err)
	}
	return "v4://" + serve(t, data, proto.AcceptV4(id), false) + "?pin=" + id.Pin().String(), data
}

func serve(t *testing.T, data string, accept proto.Accept, open bool) (address string) {
	t.Helper()
	srv, err := server.Open(t.Context(), server.Config{Data: data, Grace: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ln := listenLoopback(t)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error)
	go func() { served <- srv.Serve(ctx, ln, accept, server.Admission{Open: open}) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-served, srv.Close()); err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

func listenLoopback(t *testing.T) net.Listener {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// relay stands between a client and a server. It hands each answer of the
// server's to alter, which may change it in place; false hangs up instead.
func relay(t *testing.T, to string, alter func(code uint16, payload []byte) bool) string {
	t.Helper()
	return prototest.ListenAndCut(t, func(client net.Conn) {
		srv, err := new(net.Dialer).DialContext(t.Context(), "tcp", to)
		if err != nil {
			t.Error(err)
			return
		}
		var up sync.WaitGroup
		up.Go(func() {
			_, _ = io.Copy(srv, client)
			_ = srv.(*net.TCPConn).CloseWrite()
		})
		defer up.Wait()
		defer client.Close()
		defer srv.Close()
		for {
			header := make([]byte, 7)
			if _, err := io.ReadFull(srv, header); err != nil {
				return
			}
			payload := make([]byte, binary.LittleEndian.Uint32(header[3:]))
			if _, err := io.ReadFull(srv, payload); err != nil {
				return
			}
			if !alter(binary.LittleEndian.Uint16(header[1:]), payload) {
				return
			}
			if _, err := client.Write(append(header, payload...)); err != nil {
				return
			}
		}
	})
}

// wrongChecksums lies about the first n checksums.
func wrongChecksums(n int) func(code uint16, payload []byte) bool {
	return func(code uint16, payload []byte) bool {
		if code == 1603 && n > 0 {
			n--
			payload[len(payload)-1] ^= 0xff
		}
		return true
	}
}

// sent is what a ferry send came to.
type sent struct {
	status         int
	stdout, stderr string
}

// send runs ferry send as main does, with a home of its own.
func send(t *testing.T, home string, args ...string) sent {
	t.Helper()
	return sendContext(t.Context(), home, args...)
}

func sendContext(ctx context.Context, home string, args ...string) sent {
	var stdout, stderr bytes.Buffer
	status := run(ctx, append([]string{"send"}, args...), []string{"HOME=" + home}, nil, &stdout, &stderr)
	return sent{status, stdout.String(), stderr.String()}
}

// makeFile makes a file with content in a folder of its own.
func makeFile(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestSendExitCodes has each status that ferry help exit-codes lists come
// about, with its words on stderr and in --json.
func TestSendExitCodes(t *testing.T) {
	address, data := startServer(t)
	home := t.TempDir()
	file := makeFile(t, "a.bin", strings.Repeat("a", 20_000))
	big := makeFile(t, "big.bin", "")
	if err := os.Truncate(big, 600<<20); err != nil {
		t.Fatal(err)
	}
	to := func(address string) []string {
		return []string{"--to", "v3://" + address, "--name", "alice", "--json", "--retries", "0"}
	}
	identity := filepath.Join(home, ".local", "state", "ferry", "identities", "v3", address, "alice")
	seen := map[int]bool{}
	for _, c := range []struct {
		name  string
		args  []string
		want  int
		state string // "" is no line
		words string
	}{
		{"stored", append(to(address), file), 0, "stored", ""},
		{"damaged identity", append(to(address), "--identity", filepath.Dir(makeFile(t, "me.info", "alice\n")), file), 1, "failed", "the client's identity: "},
		{"no such flag", []string{"--too", "v3://" + address, file}, 2, "", "did you mean --to?"},
		{"exists", append(to(address), file), 3, "exists", "a file of that name is there already; nothing was changed"},
		{"silent server", append(to(silentServer(t)), "--timeout", "50ms", file), 4, "failed", "--timeout has passed"},
		{"connection lost", append(to(relay(t, address, func(code uint16, _ []byte) bool { return code != 1603 })), "--identity", identity, "--as", "lost", file), 5, "failed", "not delivered: "},
		{"wrong checksums", append(to(relay(t, address, wrongChecksums(4))), "--identity", identity, "--as", "wrong", file), 6, "failed", "the server's checksum differed each time"},
		{"name taken", append(to(address), "--identity", t.TempDir(), "--as", "other", file), 7, "failed", "another name"},
		{"no file", append(to(address), filepath.Join(home, "none")), 8, "failed", "no such file"},
		{"a folder", append(to(address), home), 8, "failed", "it is a folder"},
		{"not a file", append(to(address), "/dev/null"), 8, "failed", "not a regular file"},
		{"too large", append(to(address), big), 9, "failed", "too large for the destination"},
		{"nobody listens", append(to(closedPort(t)), file), 10, "failed", "the server cannot be reached: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			seen[c.want] = true
			got := send(t, home, c.args...)
			if got.status != c.want || !strings.Contains(got.stderr, c.words) || (c.words == "") != (got.stderr == "") {
				t.Errorf("status %d, want %d; stderr %q, want %q in it", got.status, c.want, got.stderr, c.words)
			}
			if strings.Count(got.stderr, "\n") > 1 && c.want != exitUsage {
				t.Errorf("stderr %q, want one line", got.stderr)
			}
			if c.state == "" {
				return
			}
			var o outcome
			if err := json.Unmarshal([]byte(got.stdout), &o); err != nil {
				t.Fatalf("%q: %v", got.stdout, err)
			}
			if o.State != c.state || o.Exit != c.want || !strings.Contains(o.Error, c.words) {
				t.Errorf("%+v, want %s with exit %d", o, c.state, c.want)
			}
		})
	}
	for status := range 11 {
		if !seen[status] || !strings.Contains(exitCodes, "\n"+strings.Repeat(" ", 4-len(strconv.Itoa(status)))+strconv.Itoa(status)+"  ") {
			t.Errorf("status %d: has a row %v, and ought to be in the help", status, seen[status])
		}
	}
	stored, err := os.ReadDir(filepath.Join(data, "files", "alice"))
	if err != nil || len(stored) != 1 || stored[0].Name() != "a.bin" {
		t.Errorf("stored: %v, %v; want a.bin alone", stored, err)
	}
}

func silentServer(t *testing.T) string {
	t.Helper()
	return prototest.ListenAndCut(t, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
}

func closedPort(t *testing.T) string {
	t.Helper()
	ln := listenLoopback(t)
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	return ln.Addr().String()
}

// TestSendSeveral wants each file to have an outcome of its own, and the
// highest status of all.
func TestSendSeveral(t *testing.T) {
	for _, query := range []string{"", "?window=64"} {
		t.Run("to"+query, func(t *testing.T) {
			address, data := startServer(t)
			var files []string
			for i := range 20 {
				files = append(files, makeFile(t, "file "+strconv.Itoa(i), strings.Repeat("x", i*1000)))
			}
			none := filepath.Join(t.TempDir(), "none")
			to := []string{"--to", "v3://" + address + query, "--name", "alice", "--json"}
			home := t.TempDir()
			got := send(t, home, append(append(to, none), files...)...)
			if got.status != exitNoFile || got.stderr != "ferry send: "+none+": no such file or directory\n" {
				t.Errorf("status %d, stderr %q", got.status, got.stderr)
			}
			if n := strings.Count(got.stdout, `"state":"stored"`); n != len(files) {
				t.Errorf("%d of %d files are stored:\n%s", n, len(files), got.stdout)
			}
			for i, f := range files {
				b, err := os.ReadFile(filepath.Join(data, "files", "alice", filepath.Base(f)))
				if err != nil || len(b) != i*1000 {
					t.Errorf("%s: %d bytes, %v", f, len(b), err)
				}
			}
			if got := send(t, home, append(to, append(files, none)...)...); got.status != exitNoFile || strings.Count(got.stdout, `"state":"exists"`) != len(files) {
				t.Errorf("again: status %d\n%s", got.status, got.stdout)
			}
		})
	}
}

// TestSendRecovers from wrong checksums, within one attempt.
func TestSendRecovers(t *testing.T) {
	address, _ := startServer(t)
	for wrong := 1; wrong <= 3; wrong++ {
		name := "wrong " + strconv.Itoa(wrong)
		got := send(t, t.TempDir(), "--to", "v3://"+relay(t, address, wrongChecksums(wrong)), "--name", name, "--json", makeFile(t, name, "content"))
		if want := `"attempts":1,"sends":` + strconv.Itoa(wrong+1); got.status != exitOK || !strings.Contains(got.stdout, want) {
			t.Errorf("%d wrong checksums: status %d, %s %s; want %s", wrong, got.status, got.stdout, got.stderr, want)
		}
	}
}

// TestSendNoticesChange writes to a file between the last packet and the
// checksum: the file must not be confirmed, although the checksums agree.
func TestSendNoticesChange(t *testing.T) {
	address, data := startServer(t)
	file := makeFile(t, "log", strings.Repeat("a line\n", 5000))
	changing := relay(t, address, func(code uint16, _ []byte) bool {
		if code == 1603 {
			if err := os.WriteFile(file, []byte(strings.Repeat("B line\n", 5000)), 0o600); err != nil {
				t.Error(err)
			}
		}
		return true
	})
	got := send(t, t.TempDir(), "--to", "v3://"+changing, "--name", "alice", file)
	if got.status != exitIntegrity || !strings.Contains(got.stderr, "nothing was stored: the file changed while it was sent") {
		t.Errorf("status %d, stderr %q", got.status, got.stderr)
	}
	if _, err := os.Stat(filepath.Join(data, "files", "alice", "log")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("at the server: %v, want no file", err)
	}
}

// TestSendStoredThoughAnswerWasLost cuts the connection at the server's last
// acknowledgement: the next attempt finds the file, and that is success.
func TestSendStoredThoughAnswerWasLost(t *testing.T) {
	address, _ := startServer(t)
	thanks := 0
	cutting := relay(t, address, func(code uint16, _ []byte) bool {
		if code == 1604 {
			thanks++
		}
		return code != 1604 || thanks != 2 // one for the packet, one for the file
	})
	got := send(t, t.TempDir(), "--to", "v3://"+cutting, "--name", "alice", "--json", makeFile(t, "small", "x"))
	var o outcome
	if err := json.Unmarshal([]byte(got.stdout), &o); err != nil {
		t.Fatalf("%q: %v", got.stdout, err)
	}
	if got.status != exitOK || o.State != stateStored || o.Attempts != 2 || len(o.SHA256) != 64 || o.Cksum == nil {
		t.Errorf("status %d, %+v, %s; want stored in the second attempt", got.status, o, got.stderr)
	}
}

// TestSendStopped ends the program's context as a signal does.
func TestSendStopped(t *testing.T) {
	ctx, stop := context.WithCancelCause(t.Context())
	address := prototest.ListenAndCut(t, func(conn net.Conn) {
		stop(errStopped)
		_, _ = io.Copy(io.Discard, conn)
	})
	got := sendContext(ctx, t.TempDir(), "--to", "v3://"+address, "--name", "alice", makeFile(t, "a", "a"))
	if got.status != exitFailure || !strings.Contains(got.stderr, "stopped by a signal") {
		t.Errorf("status %d, stderr %q; want %d", got.status, got.stderr, exitFailure)
	}
}

// TestSendRegistersOnce although two processes begin at once.
func TestSendRegistersOnce(t *testing.T) {
	for _, query := range []string{"", "?window=64"} {
		address, _ := startServer(t)
		home := t.TempDir()
		var both sync.WaitGroup
		for _, name := range []string{"one", "two", "three"} {
			file := makeFile(t, name, name)
			both.Go(func() {
				if got := send(t, home, "--to", "v3://"+address+query, "--name", "alice", file); got.status != exitOK {
					t.Errorf("%s: status %d, %s", query, got.status, got.stderr)
				}
			})
		}
		both.Wait()
	}
}

// TestSendJoinsOnce with a token that is good once, although several processes
// begin at once.
func TestSendJoinsOnce(t *testing.T) {
	to, data := startServerV4(t)
	token, err := server.CreateToken(t.Context(), data, server.TokenOptions{Uses: 1})
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	var all sync.WaitGroup
	for _, name := range []string{"one", "two", "three", "four"} {
		file := makeFile(t, name, name)
		all.Go(func() {
			if got := send(t, home, "--to", to, "--name", "alice", "--join", token, file); got.status != exitOK {
				t.Errorf("status %d, %s", got.status, got.stderr)
			}
		})
	}
	all.Wait()
	if stored, err := os.ReadDir(filepath.Join(data, "files", "alice")); err != nil || len(stored) != 4 {
		t.Errorf("stored: %v, %v; want 4 files", stored, err)
	}
}

// TestSendReceiptOfEach: many files, each with a receipt that is its own, and
// no more of them open at once than on their way.
func TestSendReceiptOfEach(t *testing.T) {
	to, data := startServerV4(t)
	token, err := server.CreateToken(t.Context(), data, server.TokenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pin, err := proto.ParseDestination(to)
	if err != nil {
		t.Fatal(err)
	}
	home, tree, receipts := t.TempDir(), filepath.Join(t.TempDir(), "tree"), filepath.Join(t.TempDir(), "receipts")
	const files = 600
	for i := range files {
		path := filepath.Join(tree, strconv.Itoa(i%7), strconv.Itoa(i))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(strconv.Itoa(i)), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for _, again := range []bool{false, true} {
		if got := send(t, home, "--to", to, "--join", token, "--name", "alice", "--receipt", receipts, "-r", tree); got.status != exitOK || got.stderr != "" {
			t.Fatalf("again %v: status %d, %s", again, got.status, got.stderr)
		}
		for i := range files {
			name := "tree/" + strconv.Itoa(i%7) + "/" + strconv.Itoa(i)
			b, err := os.ReadFile(filepath.Join(receipts, name+".receipt"))
			if err != nil {
				t.Fatal(err)
			}
			s, err := proto.VerifyReceipt(bytes.TrimSuffix(b, []byte("\n")), pin.Pin())
			if err != nil || !slices.ContainsFunc(s.Files, func(f proto.Stored) bool { return f.Name.String() == name }) {
				t.Fatalf("again %v, %s: %v, and the receipt is for %v", again, name, err, s.Files)
			}
			if err := os.Remove(filepath.Join(receipts, name+".receipt")); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestSendReceiptNowhere: whoever could keep no receipt sends nothing.
func TestSendReceiptNowhere(t *testing.T) {
	to, data := startServerV4(t)
	token, err := server.CreateToken(t.Context(), data, server.TokenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, where := range []string{"/proc/none/receipt", filepath.Join(t.TempDir(), "none", "receipt")} {
		got := send(t, t.TempDir(), "--to", to, "--join", token, "--name", "alice", "--receipt", where, makeFile(t, "a", "a"))
		if got.status != exitFailure || !strings.Contains(got.stderr, "the receipt could not be kept: no folder ") {
			t.Errorf("%s: status %d, %s", where, got.status, got.stderr)
		}
	}
	if _, err := os.Stat(filepath.Join(data, "files", "alice")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("at the server: %v, want nothing", err)
	}
}

// TestSendCannotKeepIdentity: who could not keep the id must not register and
// so lose the name.
func TestSendCannotKeepIdentity(t *testing.T) {
	address, _ := startServer(t)
	args := []string{"--to", "v3://" + address, "--name", "alice", makeFile(t, "a", "a")}
	for _, dir := range []string{"/proc/self", "/proc/self/none"} { // not even root can write there
		got := send(t, t.TempDir(), append([]string{"--identity", dir}, args...)...)
		if got.status != exitFailure || !strings.Contains(got.stderr, "the client's identity: ") {
			t.Errorf("%s: status %d, stderr %q", dir, got.status, got.stderr)
		}
	}
	if got := send(t, t.TempDir(), args...); got.status != exitOK {
		t.Errorf("status %d, stderr %q: want the name still free", got.status, got.stderr)
	}
}
