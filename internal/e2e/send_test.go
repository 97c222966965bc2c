package e2e_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// sentResult is what a ferry send came to.
type sentResult struct {
	Status int
	Stderr string
	File   sentFile // the last line of --json
}

// sentFile is what these tests read of a line of ferry send --json.
type sentFile struct {
	State string
	Sends int
}

// ferrySend runs ferry send --json in a folder.
func ferrySend(t *testing.T, dir string, args ...string) sentResult {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), ferryBinary, append([]string{"send", "--json"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(withoutFerryVariables(os.Environ()), "XDG_STATE_HOME="+filepath.Join(dir, "state"))
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	r := sentResult{Status: cmd.ProcessState.ExitCode(), Stderr: stderr.String()}
	if lines := strings.Split(strings.TrimSpace(stdout.String()), "\n"); lines[0] != "" {
		if err := json.Unmarshal([]byte(lines[len(lines)-1]), &r.File); err != nil {
			t.Fatalf("ferry send printed %q: %v", stdout.String(), err)
		}
	}
	return r
}

func wantSent(t *testing.T, got sentResult, sends int) {
	t.Helper()
	if d := cmp.Diff(sentResult{File: sentFile{"stored", sends}}, got); d != "" {
		t.Fatalf("(-want +got):\n%s", d)
	}
}

// transferInfo writes what an old client's user wrote.
func transferInfo(t *testing.T, dir, address, name, path string) {
	t.Helper()
	text := fmt.Sprintf("%s\n%s\n%s\n", address, name, path)
	if err := os.WriteFile(filepath.Join(dir, "transfer.info"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// oldClients is how many clients the peer has registered.
func oldClients(t *testing.T, dir string) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "clients.json"))
	if err != nil {
		t.Fatal(err)
	}
	var clients map[string]any
	if err := json.Unmarshal(b, &clients); err != nil {
		t.Fatal(err)
	}
	return len(clients)
}

// TestSendFolderToOldServer has a folder with transfer.info send to an
// independent server of each dialect: it registers with its first file and
// comes back with each later one.
func TestSendFolderToOldServer(t *testing.T) {
	for _, d := range peerDialects {
		for _, wrong := range []int{0, 3} {
			t.Run(fmt.Sprintf("%s/%d wrong", d.name, wrong), func(t *testing.T) {
				dir, folder := t.TempDir(), t.TempDir()
				address := startPeerServer(t, dir, append([]string{"--wrong", strconv.Itoa(wrong)}, d.args...)...)
				for i, size := range d.sizes()[:8] {
					name := fmt.Sprintf("%d.bin", size)
					writeFile(t, filepath.Join(folder, name), uint64(i), size)
					transferInfo(t, folder, address, "old client", "./"+name)
					wantSent(t, ferrySend(t, folder, d.args...), wrong+1)
					wantSame(t, filepath.Join(folder, name), filepath.Join(dir, "files", "old client", name))
				}
				if n := oldClients(t, dir); n != 1 {
					t.Errorf("%d clients have registered, want 1", n)
				}
			})
		}
	}
}

// TestSendToOldServer is the other direction of TestOldClientsToServer: sizes
// around each edge to an independent server, each by a client that registers
// with it and again when that client comes back.
func TestSendToOldServer(t *testing.T) {
	for _, d := range peerDialects {
		t.Run(d.name, func(t *testing.T) {
			dir := t.TempDir()
			address := startPeerServer(t, dir, d.args...)
			for n, size := range d.sizes() {
				folder, client := t.TempDir(), fmt.Sprintf("client %d", size)
				for i, name := range []string{"registers", "reconnects"} {
					writeFile(t, filepath.Join(folder, name), uint64(i), size)
					wantSent(t, ferrySend(t, folder, "--to", "v3://"+address+"?"+d.query, "--name", client, name), 1)
					wantSame(t, filepath.Join(folder, name), filepath.Join(dir, "files", client, name))
				}
				if got := oldClients(t, dir); got != n+1 {
					t.Fatalf("%d bytes: %d clients have registered, want %d", size, got, n+1)
				}
			}
		})
	}
}

// TestSendGivesUpAtOldServer wants its own exit status when no checksum was
// right, and nothing stored.
func TestSendGivesUpAtOldServer(t *testing.T) {
	for _, d := range peerDialects {
		t.Run(d.name, func(t *testing.T) {
			dir, folder := t.TempDir(), t.TempDir()
			address := startPeerServer(t, dir, append([]string{"--wrong", "9"}, d.args...)...)
			writeFile(t, filepath.Join(folder, "a.bin"), 1, 20_000)
			transferInfo(t, folder, address, "alice", "a.bin")
			got := ferrySend(t, folder, d.args...)
			if got.Status != 6 || got.File.State != "failed" || !strings.Contains(got.Stderr, "checksum differed") {
				t.Errorf("%+v, want status 6", got)
			}
			if _, err := os.Stat(filepath.Join(dir, "files", "alice", "a.bin")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("after giving up: %v, want no file", err)
			}
		})
	}
}

// TestSendSameNameToOldServer: the seed's server refuses a name that it has;
// the others replace the file, and that is theirs to answer for.
func TestSendSameNameToOldServer(t *testing.T) {
	dir, folder := t.TempDir(), t.TempDir()
	address := startPeerServer(t, dir)
	first, second := filepath.Join(folder, "first"), filepath.Join(folder, "second")
	writeFile(t, first, 1, 20_000)
	writeFile(t, second, 2, 20_000)
	to := []string{"--to", "v3://" + address, "--name", "alice", "--as", "same"}
	wantSent(t, ferrySend(t, folder, append(to, first)...), 1)
	got := ferrySend(t, folder, append(to, second)...)
	if got.Status != 3 || got.File.State != "exists" {
		t.Errorf("%+v, want status 3", got)
	}
	wantSame(t, first, filepath.Join(dir, "files", "alice", "same"))
}

// TestSendSeveralToOldServer: which takes one file in a connection.
func TestSendSeveralToOldServer(t *testing.T) {
	dir, folder := t.TempDir(), t.TempDir()
	address := startPeerServer(t, dir)
	args := []string{"--to", "v3://" + address, "--name", "alice"}
	for i := range 5 {
		name := fmt.Sprintf("%d.bin", i)
		writeFile(t, filepath.Join(folder, name), uint64(i), 10_000)
		args = append(args, name)
	}
	wantSent(t, ferrySend(t, folder, args...), 1)
	for i := range 5 {
		name := fmt.Sprintf("%d.bin", i)
		wantSame(t, filepath.Join(folder, name), filepath.Join(dir, "files", "alice", name))
	}
}

// TestFolderInTurns moves a folder between the independent old client and
// ferry send, against the independent server and against Ferry's: whoever
// registered, the other goes on with its id and key.
func TestFolderInTurns(t *testing.T) {
	for _, d := range peerDialects {
		for _, ferryServer := range []bool{false, true} {
			for _, ferryFirst := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/ferry server %v/ferry first %v", d.name, ferryServer, ferryFirst), func(t *testing.T) {
					dir, folder := t.TempDir(), t.TempDir()
					var address string
					if ferryServer {
						address = start(t, "server", "--data", dir, "--listen", "none", "--v3-listen", "127.0.0.1:0").native
					} else {
						address = startPeerServer(t, dir, d.args...)
					}
					inTurns(t, d, address, dir, folder, ferryFirst)
				})
			}
		}
	}
}

func inTurns(t *testing.T, d peerDialect, address, dir, folder string, ferryFirst bool) {
	var me []byte
	for turn := range 4 {
		name := fmt.Sprintf("turn %d", turn)
		path := filepath.Join(folder, name)
		writeFile(t, path, uint64(turn), 30_000)
		if ferryFirst == (turn%2 == 0) {
			transferInfo(t, folder, address, "old client", name)
			wantSent(t, ferrySend(t, folder, d.args...), 1)
		} else {
			got, err := runPeerClient(t, append([]string{"--to", address, "--dir", folder, "--name", "old client", "--file", path}, d.args...)...)
			want := 1605
			if turn == 0 {
				want = 1600
				shutOthersOut(t, folder)
			}
			if err != nil || got.Result != "stored" || got.Answers[0] != want {
				t.Fatalf("turn %d: %+v, %v; want stored after %d", turn, got, err, want)
			}
		}
		stored := filepath.Join(dir, "files", "old client", name)
		waitStored(t, stored, d)
		wantSame(t, path, stored)
		now, err := os.ReadFile(filepath.Join(folder, "me.info"))
		if err != nil || turn > 0 && !bytes.Equal(now, me) {
			t.Fatalf("turn %d: %v; me.info is\n%s, was\n%s", turn, err, now, me)
		}
		me = now
	}
}

// shutOthersOut keeps the peer's files from others, as ferry send asks for.
func shutOthersOut(t *testing.T, folder string) {
	t.Helper()
	for _, name := range []string{"me.info", "priv.key"} {
		if err := os.Chmod(filepath.Join(folder, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSendKeepsNameFree: an old server gives a name away with the first word.
// Whoever could not keep the id must not say it.
func TestSendKeepsNameFree(t *testing.T) {
	dir, folder := t.TempDir(), t.TempDir()
	address := startPeerServer(t, dir)
	writeFile(t, filepath.Join(folder, "a.bin"), 1, 10)
	to := []string{"--to", "v3://" + address, "--name", "alice", "a.bin"}
	if got := ferrySend(t, folder, append([]string{"--identity", "/proc/self"}, to...)...); got.Status != 1 {
		t.Errorf("%+v, want status 1", got)
	}
	wantSent(t, ferrySend(t, folder, to...), 1)
}
