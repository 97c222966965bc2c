package server_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ferry/proto"
	"ferry/proto/prototest"
	"ferry/server"
)

// listen serves version 3 at a real socket.
func listen(t testing.TB, data string, limits server.Limits) *harness {
	t.Helper()
	h := openOn(t, data, limits)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.address = ln.Addr().String()
	ctx, end := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Serve(ctx, ln, proto.AcceptV3, server.Admission{Open: true}) }()
	h.stop = sync.OnceFunc(func() {
		end()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// keyring keeps an identity in memory.
type keyring struct {
	mu sync.Mutex
	id proto.Identity // guarded by mu
}

func (k *keyring) Load(context.Context) (proto.Identity, bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.id, k.id.Name != proto.ClientName{}, nil
}

func (k *keyring) Save(_ context.Context, id proto.Identity) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.id = id
	return nil
}

func clientName(t testing.TB, s string) proto.ClientName {
	t.Helper()
	n, err := proto.ParseClientName(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// native returns a client of the server, speaking with a window.
func (h *harness) native(name string, k *keyring, dial func(ctx context.Context, network, address string) (net.Conn, error)) *proto.Client {
	h.t.Helper()
	to, err := proto.ParseDestination("v3://" + h.address + "?window=64")
	if err != nil {
		h.t.Fatal(err)
	}
	c := proto.NewClient(proto.ClientConfig{To: to, Name: clientName(h.t, name), Keyring: k, Dial: dial})
	h.t.Cleanup(func() { _ = c.Close() })
	return c
}

func fileName(t testing.TB, s string) proto.FileName {
	t.Helper()
	n, err := proto.ParseFileName(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// deliver sends content under a name.
func deliver(t testing.TB, c *proto.Client, name string, content []byte, w proto.Watcher) (proto.Receipt, error) {
	t.Helper()
	return c.Send(t.Context(), proto.Offer{Name: fileName(t, name), Size: int64(len(content))},
		func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }, w)
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)}).Read(b)
	return b
}

func TestSocketFiles(t *testing.T) {
	h := listen(t, t.TempDir(), server.Limits{})
	c := h.native("alice ü", new(keyring), nil)
	var want []string
	names := map[int]string{0: "empty", 1: " blank ", 7902: "ünï", 63_200: strings.Repeat("n", 255), 1 << 20: "a.tar.gz"}
	for size, name := range names {
		content := random(size)
		receipt, err := deliver(t, c, name, content, proto.Watcher{})
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if got, ok := h.read("alice ü", name); !ok || got != string(content) {
			t.Errorf("%d bytes are not what was sent", size)
		}
		if want := sumOf(string(content)); receipt.Sum != want {
			t.Errorf("receipt: %+v, want %+v", receipt.Sum, want)
		}
		want = append(want, name)
	}
	verified(t, h.data, len(want))

	// Again, and again in a new connection: refused, and nothing changes.
	for _, c := range []*proto.Client{c, h.native("alice ü", new(keyring), nil)} {
		_, err := deliver(t, c, "ünï", []byte("another"), proto.Watcher{})
		if !errors.Is(err, proto.ErrExists) && !errors.Is(err, proto.ErrNameTaken) {
			t.Errorf("the same name: %v", err)
		}
	}
	if got, _ := h.read("alice ü", "ünï"); got != string(random(7902)) {
		t.Error("the file was changed")
	}
}

func TestSocketKnownAfterRestart(t *testing.T) {
	data, k := t.TempDir(), new(keyring)
	for i := range 3 {
		h := listen(t, data, server.Limits{})
		if _, err := deliver(t, h.native("alice", k, nil), fmt.Sprint(i), random(100), proto.Watcher{}); err != nil {
			t.Fatal(err)
		}
		h.stop()
		if got := len(h.log.lines("client registered")); got != 0 && i > 0 {
			t.Error("the client had to register again")
		}
	}
	verified(t, data, 3)
}

func TestSocketRefusals(t *testing.T) {
	for what, c := range map[string]struct {
		limits server.Limits
		size   int
	}{
		"no room":        {server.Limits{Free: 1 << 60}, 20_000},
		"no room, small": {server.Limits{Free: 1 << 60}, 10},
		"too large":      {server.Limits{FileSize: 100}, 20_000},
		"staged":         {server.Limits{Staged: 100}, 20_000},
	} {
		t.Run(what, func(t *testing.T) {
			h := listen(t, t.TempDir(), c.limits)
			// That would be taken for an acknowledgement by who had lost one.
			_, err := deliver(t, h.native("alice", new(keyring), nil), "f", random(c.size), proto.Watcher{})
			if !errors.Is(err, proto.ErrRefused) || errors.Is(err, proto.ErrExists) {
				t.Errorf("got %v, want it refused, and not because it exists", err)
			}
			if got := h.staged(); got != 0 {
				t.Errorf("%d bytes are left in staging", got)
			}
		})
	}
}

// TestSocketLostAnswer is the rule that the gateway relies on: where no answer
// came after the checksums had matched, that the name exists means delivered.
func TestSocketLostAnswer(t *testing.T) {
	h := listen(t, t.TempDir(), server.Limits{})
	c := h.native("alice", new(keyring), nil)
	if _, err := deliver(t, c, "before", random(10), proto.Watcher{}); err != nil {
		t.Fatal(err)
	}
	matched, lift := false, func() {}
	content := random(100_000)
	_, err := deliver(t, c, "f", content, proto.Watcher{Matched: func(context.Context) error {
		matched, lift = true, holdCatalog(t, h.data)
		return nil
	}})
	if err == nil || !matched || errors.Is(err, proto.ErrRefused) || errors.Is(err, proto.ErrExists) {
		t.Errorf("matched %v, %v; want no answer", matched, err)
	}
	if _, err := deliver(t, c, "f", content, proto.Watcher{}); !errors.Is(err, proto.ErrRefused) {
		t.Errorf("while it cannot be recorded: %v, want it refused", err)
	}
	lift()
	if _, err := deliver(t, c, "f", content, proto.Watcher{}); !errors.Is(err, proto.ErrExists) {
		t.Errorf("again: %v, want ErrExists", err)
	}
	if got, _ := h.read("alice", "f"); got != string(content) {
		t.Error("it is not what was sent")
	}
	verified(t, h.data, 2)
}

// TestSocketCut breaks connections in the middle of a file.
func TestSocketCut(t *testing.T) {
	h := listen(t, t.TempDir(), server.Limits{})
	k, content := new(keyring), random(500_000)
	if _, err := deliver(t, h.native("alice", k, nil), "first", random(1), proto.Watcher{}); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int64{0, 10, 23, 300, 8_000, 100_000, 500_000} {
		c := h.native("alice", k, func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return prototest.Faulty(conn, prototest.CutWrite(n)), nil
		})
		if _, err := deliver(t, c, "f", content, proto.Watcher{}); err == nil {
			t.Errorf("cut at %d: it was delivered", n)
		}
	}
	if _, err := deliver(t, h.native("alice", k, nil), "f", content, proto.Watcher{}); err != nil {
		t.Error(err)
	}
	h.stop()
	if got := h.staged(); got != 0 {
		t.Errorf("%d bytes are left in staging", got)
	}
	verified(t, h.data, 2)
}

// TestSocketManyClients has every client send its files at once. They share one
// key, since to make two hundred takes longer than all the rest.
func TestSocketManyClients(t *testing.T) {
	const clients, files = 200, 5
	h := listen(t, t.TempDir(), server.Limits{Handshake: 5 * time.Minute})
	shared := new(keyring)
	if _, err := deliver(t, h.native("first", shared, nil), "f", nil, proto.Watcher{}); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range clients {
		name := fmt.Sprintf("client %03d", i)
		id := proto.Identity{Name: clientName(t, name), ID: h.register(t, name, shared.id.PrivateKey), PrivateKey: shared.id.PrivateKey}
		c := h.native(name, &keyring{id: id}, nil)
		all.Go(func() {
			for j := range files {
				content := fmt.Appendf(nil, "%d of %d %s", j, i, strings.Repeat("x", 4000))
				if _, err := deliver(t, c, fmt.Sprint(j), content, proto.Watcher{}); err != nil {
					t.Errorf("client %d, file %d: %v", i, j, err)
					return
				}
			}
		})
	}
	all.Wait()
	verified(t, h.data, clients*files+1)
}

// TestSocketInspect reads a folder beside the server that works on it.
func TestSocketInspect(t *testing.T) {
	h := listen(t, t.TempDir(), server.Limits{})
	c := h.native("alice", new(keyring), nil)
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for i := 0; ; i++ {
			select {
			case <-quit:
				return
			default:
				if _, err := deliver(t, c, fmt.Sprintf("%06d", i), random(100), proto.Watcher{}); err != nil {
					t.Error(err)
					return
				}
			}
		}
	}()
	in, err := server.Inspect(h.data)
	if err != nil {
		t.Fatal(err)
	}
	for range 30 {
		for c, err := range in.Verify(t.Context(), "") {
			if err != nil || c.Problem != nil {
				t.Fatal(c, err)
			}
		}
	}
	close(quit)
	<-ended
	h.stop()
	entries, err := os.ReadDir(filepath.Join(h.data, "files", "alice"))
	if err != nil {
		t.Fatal(err)
	}
	verified(t, h.data, len(entries))
	if diff := cmp.Diff(len(entries), len(h.rows())); diff != "" {
		t.Error(diff)
	}
}
