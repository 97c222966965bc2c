package e2e_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// peerDialect is a way in which old programs spoke wire version 3.
type peerDialect struct {
	name  string
	slice int64 // of plaintext, where a packet is full
	args  []string
	query string
	sends int // of a file, before the client gives up
}

var peerDialects = []peerDialect{
	{"seed", 7902, []string{"--dialect", "seed"}, "dialect=seed", 4},
	{"mainstream-734", 734, []string{"--dialect", "mainstream", "--slice", "734"}, "dialect=mainstream&slice=734", 5},
	{"mainstream-4096", 4096, []string{"--dialect", "mainstream", "--slice", "4096"}, "dialect=mainstream&slice=4096", 4},
	{"mainstream-8192", 8192, []string{"--dialect", "mainstream"}, "dialect=mainstream&slice=8192", 4},
	{"per-slice", 1024, []string{"--dialect", "per-slice"}, "dialect=per-slice", 4},
}

// confirms reports whether the client says 900, 901 and 902.
func (d peerDialect) confirms() bool { return d.name != "mainstream-734" }

func (d peerDialect) sizes() []int64 {
	sizes := []int64{0, 1, d.slice - 16, d.slice - 1, d.slice, d.slice + 1, 63_200, 102_400}
	if largest := int64(20_000_000); largest/d.slice < 60_000 { // packet numbers have 16 bits
		sizes = append(sizes, largest)
	}
	return sizes
}

// peerResult is what peer.mjs prints at its end.
type peerResult struct {
	Result  string
	Answers []int
	Sends   int
	Cksum   uint32
	Last    int
}

// runPeerClient runs the peer as an old client and returns what it says.
func runPeerClient(t *testing.T, args ...string) (peerResult, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "node", append([]string{filepath.Join("testdata", "peer.mjs"), "client"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	var r peerResult
	if jsonErr := json.Unmarshal(out, &r); jsonErr != nil {
		t.Fatalf("peer printed %q: %v, %v", out, jsonErr, err)
	}
	return r, err
}

// startPeerServer runs the peer as an old server on a folder and returns its address.
func startPeerServer(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("node", append([]string{filepath.Join("testdata", "peer.mjs"), "server", "--dir", dir}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal("this test needs node: ", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadBytes('\n')
	var at struct{ Listening int }
	if err := errors.Join(err, json.Unmarshal(line, &at)); err != nil {
		t.Fatalf("peer printed %q: %v", line, err)
	}
	return net127(at.Listening)
}

func net127(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }

// TestOldClientsToServer has an independent client speak every dialect to the
// real server: sizes around each edge, each by a client that registers with it
// and again when that client comes back.
func TestOldClientsToServer(t *testing.T) {
	data, src := t.TempDir(), t.TempDir()
	server := start(t, "server", "--data", data, "--listen", "none", "--v3-listen", "127.0.0.1:0")
	for _, d := range peerDialects {
		for _, size := range d.sizes() {
			t.Run(fmt.Sprintf("%s/%d", d.name, size), func(t *testing.T) {
				home, client := t.TempDir(), fmt.Sprintf("old %s %d", d.name, size)
				for i, first := range []int{1600, 1605} { // registers, reconnects
					path := filepath.Join(src, fmt.Sprintf("%s-%d-%d.bin", d.name, size, first))
					writeFile(t, path, uint64(i), size)
					got, err := runPeerClient(t, append([]string{"--to", server.native, "--dir", home, "--name", client, "--file", path}, d.args...)...)
					if err != nil || got.Result != "stored" || got.Sends != 1 || got.Answers[0] != first {
						t.Fatalf("%+v, %v; want stored at the first send after %d", got, err, first)
					}
					stored := filepath.Join(data, "files", client, filepath.Base(path))
					waitStored(t, stored, d)
					wantSame(t, path, stored)
				}
			})
		}
	}
}

// TestOldClientsWithWrongChecksums has the independent client take checksums
// for wrong: as long as it sends again the file arrives, and once it gives up
// nothing is left.
func TestOldClientsWithWrongChecksums(t *testing.T) {
	data, src := t.TempDir(), t.TempDir()
	server := start(t, "server", "--data", data, "--listen", "none", "--v3-listen", "127.0.0.1:0")
	for _, d := range peerDialects {
		for wrong := 1; wrong <= d.sends; wrong++ {
			t.Run(fmt.Sprintf("%s/%d", d.name, wrong), func(t *testing.T) {
				name := fmt.Sprintf("%s wrong %d", d.name, wrong)
				path := filepath.Join(src, name)
				writeFile(t, path, 7, 50_000)
				got, _ := runPeerClient(t, append([]string{"--to", server.native, "--dir", t.TempDir(), "--name", name,
					"--file", path, "--wrong", strconv.Itoa(wrong)}, d.args...)...)
				stored := filepath.Join(data, "files", name, name)
				if wrong < 4 {
					waitStored(t, stored, d)
					if got.Result != "stored" || got.Sends != wrong+1 {
						t.Fatalf("%+v, want stored after %d sends", got, wrong+1)
					}
					wantSame(t, path, stored)
					return
				}
				if wrong < d.sends {
					return // mainstream-734 at its last send: it leaves without a word whether the checksum was right or not
				}
				if got.Result != "gave up" || d.confirms() && got.Last != 1604 {
					t.Fatalf("%+v, want given up with 1604 to 902", got)
				}
				if _, err := os.Stat(stored); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("after 902: %v, want no file", err)
				}
			})
		}
	}
}

// TestOldClientSameNameAgain wants the second file of a name refused and the
// first one untouched, in the words of each dialect.
func TestOldClientSameNameAgain(t *testing.T) {
	data, src := t.TempDir(), t.TempDir()
	server := start(t, "server", "--data", data, "--listen", "none", "--v3-listen", "127.0.0.1:0")
	for _, d := range peerDialects {
		t.Run(d.name, func(t *testing.T) {
			home, first, second := t.TempDir(), filepath.Join(src, d.name+"-1"), filepath.Join(src, d.name+"-2")
			writeFile(t, first, 1, 20_000)
			writeFile(t, second, 2, 20_000)
			args := append([]string{"--to", server.native, "--dir", home, "--name", "again " + d.name, "--as", "same"}, d.args...)
			if got, err := runPeerClient(t, append(args, "--file", first)...); err != nil {
				t.Fatalf("%+v, %v", got, err)
			}
			got, err := runPeerClient(t, append(args, "--file", second)...)
			if err == nil || got.Answers[len(got.Answers)-1] != 1607 {
				t.Errorf("%+v, %v; want 1607", got, err)
			}
			wantSame(t, first, filepath.Join(data, "files", "again "+d.name, "same"))
		})
	}
}

// waitStored waits for a file whose client has left without waiting for the
// server's word that it is stored.
func waitStored(t *testing.T, path string, d peerDialect) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !d.confirms(); time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

func wantSame(t *testing.T, sent, stored string) {
	t.Helper()
	want, err := sha256OfFile(sent)
	if err != nil {
		t.Fatal(err)
	}
	got, err := sha256OfFile(stored)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("the stored file differs from the sent one (-want +got):\n%s", d)
	}
}

// TestGatewayToOldServer has the gateway deliver to an independent server that
// speaks each dialect and takes one file a connection.
func TestGatewayToOldServer(t *testing.T) {
	for _, d := range peerDialects {
		for _, wrong := range []int{0, 1, 2, 3} {
			t.Run(fmt.Sprintf("%s/%d wrong", d.name, wrong), func(t *testing.T) {
				dir := t.TempDir()
				address := startPeerServer(t, dir, append([]string{"--wrong", strconv.Itoa(wrong)}, d.args...)...)
				gateway := start(t, "gateway", "--data", t.TempDir(), "--http", "127.0.0.1:0", "--to", "v3://"+address+"?"+d.query, "--name", "ci")
				for i, size := range []int64{0, 1, d.slice, 63_200, 102_400} {
					name := fmt.Sprintf("%d.bin", size)
					u, err := post(t.Context(), gateway.http, name, content(uint64(i), size), size)
					if err != nil {
						t.Fatal(err)
					}
					waitDelivered(t, gateway.http, u.ID, 30*time.Second)
					want := filepath.Join(t.TempDir(), name)
					writeFile(t, want, uint64(i), size)
					wantSame(t, want, filepath.Join(dir, "files", "ci", name))
				}
			})
		}
	}
}
