package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var onceFiles = flag.Int("once-files", 200, "how many files TestExactlyOnceV4 delivers; 2000 in a long run")

const (
	// lossPoints is how many points of a connection an answer is lost at: each TLS
	// record of the server's from the first of the handshake to far behind the
	// first answers about files.
	lossPoints = 30
	// onceSenders upload at once, each one file after another, so that answers are
	// for few files and there are many of them.
	onceSenders = 8
)

// TestExactlyOnceV4 loses, in one connection after another, the first answer,
// the second, and so on, each when the server has done what it says and the
// gateway has not heard so. Each file is stored once, each upload delivered.
func TestExactlyOnceV4(t *testing.T) {
	server := startV4(t, filepath.Join(t.TempDir(), "server"))
	l := layLine(t, server.v4)
	l.loseAnswers(func(conn int64) int64 { return conn % lossPoints })
	g := server.startGatewayV4(filepath.Join(t.TempDir(), "gateway"), l.address, "ci")

	// More files than that if there were points at which nothing was lost yet.
	var next atomic.Int64
	var mu sync.Mutex
	var sent []int64 // guarded by mu
	wanted := func(n int64) bool {
		_, points := l.losses()
		return n < int64(*onceFiles) || points < lossPoints && n < 10*int64(*onceFiles)
	}
	var senders sync.WaitGroup
	for range onceSenders {
		senders.Go(func() {
			for n := next.Add(1) - 1; wanted(n); n = next.Add(1) - 1 {
				mu.Lock()
				sent = append(sent, n)
				mu.Unlock()
				if err := uploadOnce(t.Context(), g.http, onceName(n), onceContent(n), onceSize(n)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	senders.Wait()
	answers, points := l.losses()
	t.Logf("%d files; %d answers were lost in %d connections, at %d points", len(sent), answers, l.count.Load(), points)
	if points < lossPoints {
		t.Errorf("answers were lost at %d points, want %d: too few to show anything", points, lossPoints)
	}
	checkOnce(t, server, g, sent)

	t.Run("the same again", func(t *testing.T) {
		for n := range int64(5) {
			if err := uploadOnce(t.Context(), g.http, onceName(n), onceContent(n), onceSize(n)); err != nil {
				t.Error(err)
			}
		}
		checkOnce(t, server, g, sent)
	})
	t.Run("other content", func(t *testing.T) { wantOtherRefused(t, g.http, atOnce) })
	l.loseAnswers(nil)
	t.Run("by a gateway that does not remember", func(t *testing.T) {
		g.stop()
		data := filepath.Join(t.TempDir(), "gateway")
		copyIdentity(t, g.data, data)
		fresh := server.startGatewayV4(data, l.address, "ci")
		wantOtherRefused(t, fresh.http, byTheServer)
		for n := range int64(5) {
			if err := uploadOnce(t.Context(), fresh.http, onceName(n), onceContent(n), onceSize(n)); err != nil {
				t.Error(err)
			}
		}
		checkOnce(t, server, fresh, sent)
	})
	t.Run("ferry send", func(t *testing.T) { sendOnce(t, server, l.address) })
}

func onceName(n int64) string { return fmt.Sprintf("folder/%d.bin", n) }

// onceSize is that of a small file, and each twentieth time of one that is too
// large for one message.
func onceSize(n int64) int64 {
	if n%20 == 19 {
		return 65537 + n*1000%300_000
	}
	return n * 2953 % 65537
}

func onceContent(n int64) io.Reader { return content(uint64(n), onceSize(n)) }

// uploadOnce wants an upload to be accepted and delivered.
func uploadOnce(ctx context.Context, base, name string, body io.Reader, size int64) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	u, err := post(ctx, base, name, body, size)
	if err != nil {
		return err
	}
	if u, err = final(ctx, base, u.ID); err == nil && u.State != "delivered" {
		err = fmt.Errorf("%s is %s: %s", name, u.State, u.Error)
	}
	return err
}

// checkOnce wants the server to have each file once, on disk and on record, and
// the gateway nothing that is not delivered.
func checkOnce(t *testing.T, server *serverV4, g *gatewayV4, sent []int64) {
	t.Helper()
	want := map[string]string{}
	for _, n := range sent {
		sum, err := sha256Of(onceContent(n))
		if err != nil {
			t.Fatal(err)
		}
		want["ci/"+onceName(n)] = sum
	}
	wantAllStored(t, server.data, want)
	for _, u := range uploads(t, g.http) {
		if want := "delivered"; u.State != want && !strings.Contains(u.Error, "SHA-256") {
			t.Errorf("%s is %s, want %s", u.Name, u.State, want)
		}
	}
}

// wantAllStored compares all that a server has stored, on disk and on record, with
// the SHA-256 sums by client/name.
func wantAllStored(t *testing.T, data string, want map[string]string) {
	t.Helper()
	onDisk := storedSums(t, data)
	onRecord := map[string]string{}
	listed := ferry(t, "", "server", "files", "--data", data, "--json")
	if listed.status != 0 {
		t.Fatalf("ferry server files: %+v", listed)
	}
	for line := range strings.Lines(listed.stdout) {
		var f struct{ Client, Name, SHA256 string }
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatal(err)
		}
		path := f.Client + "/" + f.Name
		if _, twice := onRecord[path]; twice {
			t.Errorf("%s is on record twice", path)
		}
		onRecord[path] = f.SHA256
	}
	for where, got := range map[string]map[string]string{"disk": onDisk, "record": onRecord} {
		for path, sum := range want {
			if got[path] != sum {
				t.Errorf("%s is on %s with SHA-256 %q, want %s", path, where, got[path], sum)
			}
		}
		for path := range got {
			if _, ok := want[path]; !ok {
				t.Errorf("%s is on %s, and nobody sent it", path, where)
			}
		}
	}
}

// uploads are all that a gateway has.
func uploads(t *testing.T, base string) (all []upload) {
	t.Helper()
	before := ""
	for {
		var page struct{ Uploads []upload }
		if err := getJSON(t.Context(), base+"/uploads?limit=500"+before, &page); err != nil {
			t.Fatal(err)
		}
		if len(page.Uploads) == 0 {
			return all
		}
		all = append(all, page.Uploads...)
		before = "&before=" + all[len(all)-1].ID
	}
}

// wantOtherRefused wants other content under names that are stored not to be
// delivered, and both sums to be shown by whoever says so.
func wantOtherRefused(t *testing.T, base string, said func(context.Context, string, upload, error) (string, error)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for n := range int64(5) {
		for _, size := range []int64{1000, 70_000} {
			other := uint64(1_000_000 + n)
			u, err := post(ctx, base, onceName(n), content(other, size), size)
			got, err := said(ctx, base, u, err)
			ours, _ := sha256Of(content(other, size))
			there, _ := sha256Of(onceContent(n))
			if err != nil || !hasAll(got, []string{ours, there}) {
				t.Errorf("other content of %d bytes: %q, %v; want %s and %s", size, got, err, ours, there)
			}
		}
	}
}

// atOnce is what a gateway says that knows of the file under the name.
func atOnce(_ context.Context, _ string, u upload, err error) (string, error) {
	if err == nil || !strings.Contains(err.Error(), "409 Conflict") {
		return "", fmt.Errorf("upload %s, error %w; want 409", u.ID, err)
	}
	return err.Error(), nil
}

// byTheServer is what one says that has heard of it from the server.
func byTheServer(ctx context.Context, base string, u upload, err error) (string, error) {
	if err == nil {
		u, err = final(ctx, base, u.ID)
	}
	if err == nil && u.State != "failed" {
		err = fmt.Errorf("it is %s, want failed", u.State)
	}
	return u.Error, err
}

// copyIdentity gives a gateway that is to start on another folder the identity
// of one that has stopped.
func copyIdentity(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(from, "identity"))
	if err = errors.Join(err, os.MkdirAll(to, 0o700)); err == nil {
		err = os.WriteFile(filepath.Join(to, "identity"), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// sendOnce has ferry send do the same: what is there is success, other content
// has a status of its own.
func sendOnce(t *testing.T, server *serverV4, address string) {
	home, dir := t.TempDir(), t.TempDir()
	for _, size := range []int64{1000, 300_000} {
		path := filepath.Join(dir, fmt.Sprint(size))
		send := func(seed uint64) result {
			writeFile(t, path, seed, size)
			return ferry(t, home, "send", "--to", server.url(address), "--join", server.token(), "--name", "sender", path)
		}
		for range 2 {
			if r := send(1); r.status != 0 {
				t.Errorf("ferry send: %+v", r)
			}
		}
		there, _ := sha256Of(content(1, size))
		ours, _ := sha256Of(content(2, size))
		if r := send(2); r.status != 3 || !r.says(there, ours) {
			t.Errorf("ferry send of other content: %+v; want status 3, %s and %s", r, there, ours)
		}
		if got, err := sha256OfFile(server.stored("sender", filepath.Base(path))); err != nil || got != there {
			t.Errorf("stored with SHA-256 %s, %v; want %s", got, err, there)
		}
	}
}
