package e2e_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"ferry/proto"
	"ferry/proto/v3"
)

// TestParallel has 200 clients send 20 files of 64 KB each, all at once, and
// wants every one of them stored intact.
func TestParallel(t *testing.T) {
	const (
		clients = 200
		files   = 20
		size    = 64_000
	)
	data := t.TempDir()
	server := start(t, "server", "--data", data, "--listen", "none", "--v3-listen", "127.0.0.1:0")
	// All have the same key, since making one takes longer than sending the files.
	mallory, err := newAttacker(server.native)
	if err != nil {
		t.Fatal(err)
	}
	der, err := v3.MarshalPrivateKey(mallory.key)
	if err != nil {
		t.Fatal(err)
	}
	var all []*proto.Client
	for i := range clients {
		name := fmt.Sprintf("client %d", i)
		id, err := registerAs(mallory, server.native, name, der)
		if err != nil {
			t.Fatal(err)
		}
		c, err := native(server.native, "window=64", name, &memoryKeyring{id: id})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		all = append(all, c)
	}

	seed := func(client, file int) uint64 { return uint64(client*files + file + 1) }
	begin := time.Now()
	var senders sync.WaitGroup
	for i, c := range all {
		senders.Go(func() {
			for n := range files {
				b := bytesOf(seed(i, n), size)
				src := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
				r, err := sendWith(t.Context(), c, fmt.Sprintf("file %d", n), size, src)
				if err != nil {
					t.Errorf("client %d, file %d: %v", i, n, err)
					return
				}
				if r.Sends != 1 {
					t.Errorf("client %d, file %d: sent %d times", i, n, r.Sends)
				}
			}
		})
	}
	senders.Wait()
	took := time.Since(begin)
	peak, err := residentKiB(server.pid(), "VmHWM")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d files of %d bytes from %d clients at once in %v: %.0f files a second, %d MiB of memory",
		clients*files, size, clients, took.Round(time.Millisecond), clients*files/took.Seconds(), peak>>10)

	got := storedSums(t, data)
	for i := range clients {
		for n := range files {
			path := fmt.Sprintf("client %d/file %d", i, n)
			if want := sumOfBytes(bytesOf(seed(i, n), size)); got[path] != want {
				t.Errorf("%s is stored with SHA-256 %q, want %s", path, got[path], want)
			}
		}
	}
	if len(got) != clients*files {
		t.Errorf("%d files are stored, want %d", len(got), clients*files)
	}
	waitUnstaged(t, data)
}

// registerAs registers a client with the attacker's key and returns who it is.
func registerAs(m *attacker, address, name string, der []byte) (proto.Identity, error) {
	r, err := dialRaw(address)
	if err != nil {
		return proto.Identity{}, err
	}
	defer r.close()
	n, err := proto.ParseClientName(name)
	err = errors.Join(err, m.enter(r, name))
	return proto.Identity{Name: n, ID: proto.ClientID(r.id), PrivateKey: der}, err
}
