package server_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"ferry/proto"
	"ferry/server"
)

// listen4 serves version 4 at a real socket, to clients that have a token.
func listen4(t *testing.T, data string) (h *harness, to proto.Destination) {
	t.Helper()
	return limited4(t, data, server.Limits{})
}

func limited4(t *testing.T, data string, limits server.Limits) (h *harness, to proto.Destination) {
	t.Helper()
	return configured4(t, server.Config{Data: data, Limits: limits})
}

func configured4(t *testing.T, cfg server.Config) (h *harness, to proto.Destination) {
	t.Helper()
	id, err := server.LoadIdentity(cfg.Data)
	if err != nil {
		t.Fatal(err)
	}
	h = openWith(t, cfg)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if to, err = proto.ParseDestination("v4://" + ln.Addr().String() + "?pin=" + id.Pin().String()); err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Serve(ctx, ln, proto.AcceptV4(id), server.Admission{}) }()
	h.stop = sync.OnceFunc(func() {
		end()
		if err := errors.Join(<-done, h.Close()); err != nil {
			t.Error(err)
		}
	})
	return h, to
}

// TestVersion4 delivers with the real client: small files in groups, in folders,
// again, and a large one; then the client is revoked while it sends.
func TestVersion4(t *testing.T) {
	h, to := listen4(t, t.TempDir())
	c := proto.NewClient(proto.ClientConfig{To: to, Name: clientName(t, "alice"), Keyring: new(keyring), Join: h.token(server.TokenOptions{})})
	t.Cleanup(func() { _ = c.Close() })
	const n = 200
	send := func() {
		t.Helper()
		var all sync.WaitGroup
		for i := range n {
			all.Go(func() {
				content := random(i * 100)
				receipt, err := deliver4(t, c, fmt.Sprintf("a/%d/f%d", i%5, i), content, byte(i))
				if err != nil || receipt.Sum != sumOf(string(content)) {
					t.Errorf("%d: %+v, %v", i, receipt.Sum, err)
				}
			})
		}
		all.Wait()
	}
	send()
	send() // as if every answer had been lost
	if _, err := deliver4(t, c, "large", random(9*mib), 201); err != nil {
		t.Error(err)
	}
	_, err := deliver4(t, c, "a/1", []byte("x"), 202)
	if !errors.Is(err, proto.ErrName) {
		t.Errorf("the name of a folder: %v", err)
	}
	_, err = deliver4(t, c, "large", []byte("x"), 203)
	if e, ok := errors.AsType[*proto.ExistsError](err); !ok || e.Sum != sumOf(string(random(9*mib))) {
		t.Errorf("the name of another file: %v", err)
	}
	verified(t, h.data, n+1)

	begun, revoked := make(chan struct{}), make(chan error, 1)
	go func() {
		<-begun
		revoked <- server.RevokeClient(t.Context(), h.data, "alice")
	}()
	slow := &endless{begun: sync.OnceFunc(func() { close(begun) })}
	_, err = c.Send(t.Context(), proto.Offer{ID: proto.TransferID{204}, Name: fileName(t, "slow"), Size: 1 << 34},
		func() (io.ReadCloser, error) { return io.NopCloser(slow), nil }, proto.Watcher{})
	slow.begun()
	if !errors.Is(err, proto.ErrRevoked) {
		t.Errorf("revoked in the middle: %v", err)
	}
	if err := <-revoked; err != nil {
		t.Error(err)
	}
}

// TestRotateBeside4: another process with the same identity replaces the key while
// files are sent. The server ends the connections that began with the old one,
// and the files arrive over others.
func TestRotateBeside4(t *testing.T) {
	h, to := listen4(t, t.TempDir())
	identity := new(keyring)
	begin := func(join string) *proto.Client {
		c := proto.NewClient(proto.ClientConfig{To: to, Name: clientName(t, "alice"), Keyring: identity, Join: join})
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	sender, other := begin(h.token(server.TokenOptions{})), begin("")
	if _, err := deliver4(t, sender, "first", nil, 1); err != nil {
		t.Fatal(err)
	}
	begun, rotated := make(chan struct{}), make(chan struct{})
	content := random(2 * mib)
	src := func() (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(bytes.NewReader(content[:mib]), &held{begun, rotated}, bytes.NewReader(content[mib:]))), nil
	}
	name := fileName(t, "large")
	sent := make(chan error, 1)
	go func() {
		_, err := sender.Send(t.Context(), proto.Offer{ID: proto.TransferID{2}, Name: name, Size: 2 * mib}, src, proto.Watcher{})
		sent <- err
	}()
	<-begun
	if err := other.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	close(rotated)
	if err := <-sent; err != nil {
		t.Errorf("the file that was on its way: %v", err)
	}
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			if _, err := deliver4(t, sender, fmt.Sprint("small ", i), []byte("x"), byte(10+i)); err != nil {
				t.Errorf("a file behind it: %v", err)
			}
		})
	}
	all.Wait()
	verified(t, h.data, 22)
}

// held has no content, and ends once it is let go.
type held struct{ begun, release chan struct{} }

func (h *held) Read([]byte) (int, error) {
	select {
	case <-h.begun:
	default:
		close(h.begun)
	}
	<-h.release
	return 0, io.EOF
}

// A client that may have one connection has to give up the one that it keeps for
// large files to send a small one.
func TestOneConnection4(t *testing.T) {
	h, to := limited4(t, t.TempDir(), server.Limits{ConnsPerClient: 1})
	c := proto.NewClient(proto.ClientConfig{To: to, Name: clientName(t, "alice"), Keyring: new(keyring), KeepAlive: time.Minute, Join: h.token(server.TokenOptions{})})
	t.Cleanup(func() { _ = c.Close() })
	for i, content := range [][]byte{random(mib), random(10)} {
		if _, err := deliver4(t, c, fmt.Sprint(i), content, byte(i)); err != nil {
			t.Errorf("file %d, of %d bytes: %v", i, len(content), err)
		}
	}
	verified(t, h.data, 2)
}

// A file that lies under its name unrecorded, as a crash between the two leaves
// it, counts for small files as for large ones.
func TestUnrecorded4(t *testing.T) {
	h, to := listen4(t, t.TempDir())
	c := proto.NewClient(proto.ClientConfig{To: to, Name: clientName(t, "alice"), Keyring: new(keyring), Join: h.token(server.TokenOptions{})})
	t.Cleanup(func() { _ = c.Close() })
	if _, err := deliver4(t, c, "first", nil, 1); err != nil {
		t.Fatal(err)
	}
	for i, size := range []int{100, 2 * mib} {
		content, name := random(size), fmt.Sprint(i)
		if err := os.WriteFile(filepath.Join(h.data, "files", "alice", name), content, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := deliver4(t, c, name, []byte("other"), 10)
		if e, ok := errors.AsType[*proto.ExistsError](err); !ok || e.Sum != sumOf(string(content)) {
			t.Errorf("other content than the %d bytes that lie there: %v", size, err)
		}
		if receipt, err := deliver4(t, c, name, content, 11); err != nil || receipt.Sum != sumOf(string(content)) {
			t.Errorf("the %d bytes that lie there: %+v, %v", size, receipt.Sum, err)
		}
	}
	verified(t, h.data, 3)
}

// Who has no token is told to get one, and not that it is bad.
func TestNoToken4(t *testing.T) {
	h, to := listen4(t, t.TempDir())
	for token, want := range map[string]string{"": "takes a join token", "nonsense": "is not good"} {
		c := proto.NewClient(proto.ClientConfig{To: to, Name: clientName(t, "alice"), Keyring: new(keyring), Join: token})
		t.Cleanup(func() { _ = c.Close() })
		if _, err := deliver4(t, c, "f", nil, 1); !errors.Is(err, proto.ErrUnauthorized) || !strings.Contains(err.Error(), want) {
			t.Errorf("token %q: %v, want %q in it", token, err, want)
		}
	}
	verified(t, h.data, 0)
}

// endless is slow content of any length.
type endless struct{ begun func() }

func (e *endless) Read(p []byte) (int, error) {
	e.begun()
	time.Sleep(time.Millisecond)
	return min(len(p), 64<<10), nil
}

func deliver4(t *testing.T, c *proto.Client, name string, content []byte, id byte) (proto.Receipt, error) {
	t.Helper()
	sum := sumOf(string(content))
	return c.Send(t.Context(), proto.Offer{ID: proto.TransferID{id, 1}, Name: fileName(t, name), Size: int64(len(content)), Sum: &sum},
		func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }, proto.Watcher{})
}
