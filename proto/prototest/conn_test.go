package prototest_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"ferry/proto/prototest"
)

var hello = []byte("hello, server")

// pipe returns a faulty end and the other one.
func pipe(t *testing.T, faults ...prototest.Fault) (faulty, peer net.Conn) {
	t.Helper()
	a, b := net.Pipe()
	t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
	return prototest.Faulty(a, faults...), b
}

// received collects all that arrives at a connection.
func received(conn net.Conn) <-chan []byte {
	c := make(chan []byte, 1)
	go func() {
		b, _ := io.ReadAll(conn)
		c <- b
	}()
	return c
}

func TestCutWrite(t *testing.T) {
	for n := range len(hello) + 1 {
		conn, peer := pipe(t, prototest.CutWrite(int64(n)))
		arrived := received(peer)
		got, err := conn.Write(hello)
		if wantErr := n < len(hello); got != n || errors.Is(err, prototest.ErrFault) != wantErr {
			t.Errorf("write cut at %d: got %d, %v", n, got, err)
		}
		if got := <-arrived; !bytes.Equal(got, hello[:n]) {
			t.Errorf("write cut at %d: the peer got %q, want %q", n, got, hello[:n])
		}
		if got, err := conn.Write(hello); got != 0 || !errors.Is(err, prototest.ErrFault) {
			t.Errorf("write after the cut at %d: got %d, %v, want 0, ErrFault", n, got, err)
		}
		if got, err := conn.Read(make([]byte, 1)); got != 0 || !errors.Is(err, prototest.ErrFault) {
			t.Errorf("read after the cut at %d: got %d, %v, want 0, ErrFault", n, got, err)
		}
	}
}

func TestCutRead(t *testing.T) {
	for n := range hello {
		conn, peer := pipe(t, prototest.CutRead(int64(n)))
		written := make(chan error, 1)
		go func() {
			_, err := peer.Write(hello)
			written <- err
		}()
		got, err := io.ReadAll(conn)
		if !bytes.Equal(got, hello[:n]) || !errors.Is(err, prototest.ErrFault) {
			t.Errorf("read cut at %d: got %q, %v, want %q, ErrFault", n, got, err, hello[:n])
		}
		if err := <-written; err == nil {
			t.Errorf("read cut at %d: the peer wrote all, want an error", n)
		}
	}
}

// A Read that waits while a Write is cut off ends with it.
func TestCutWakesReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, peer := pipe(t, prototest.CutWrite(1))
		arrived := received(peer)
		failed := make(chan error, 1)
		go func() {
			_, err := conn.Read(make([]byte, 1))
			failed <- err
		}()
		synctest.Wait()
		_, _ = conn.Write(hello)
		if err := <-failed; !errors.Is(err, prototest.ErrFault) {
			t.Errorf("read: got %v, want ErrFault", err)
		}
		<-arrived
	})
}

func TestDropWrite(t *testing.T) {
	for n := range len(hello) + 1 {
		conn, peer := pipe(t, prototest.DropWrite(int64(n)))
		arrived := received(peer)
		if got, err := conn.Write(hello); got != len(hello) || err != nil {
			t.Errorf("write dropped from %d: got %d, %v, want %d, nil", n, got, err, len(hello))
		}
		_ = conn.Close()
		if got := <-arrived; !bytes.Equal(got, hello[:n]) {
			t.Errorf("write dropped from %d: the peer got %q, want %q", n, got, hello[:n])
		}
	}
}

func TestDropRead(t *testing.T) {
	for n := range len(hello) + 1 {
		synctest.Test(t, func(t *testing.T) {
			conn, peer := pipe(t, prototest.DropRead(int64(n)))
			go func() { _, _ = peer.Write(hello) }()
			_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
			got, err := io.ReadAll(conn)
			if !bytes.Equal(got, hello[:n]) || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("read dropped from %d: got %q, %v, want %q and the deadline", n, got, err, hello[:n])
			}
		})
	}
}

func TestPiecesAndHooks(t *testing.T) {
	var reads, writes []int64
	conn, peer := pipe(t, prototest.Pieces(5),
		prototest.OnRead(func(n int64) { reads = append(reads, n) }),
		prototest.OnWrite(func(n int64) { writes = append(writes, n) }))
	go func() { _, _ = peer.Write(hello) }()
	b := make([]byte, len(hello))
	if n, err := conn.Read(b); n != 5 || err != nil {
		t.Errorf("first read: got %d, %v, want 5, nil", n, err)
	}
	if _, err := io.ReadFull(conn, b[5:]); err != nil || !bytes.Equal(b, hello) {
		t.Errorf("read: got %q, %v, want %q", b, err, hello)
	}
	arrived := received(peer)
	if n, err := conn.Write(hello); n != len(hello) || err != nil {
		t.Errorf("write: got %d, %v, want %d, nil", n, err, len(hello))
	}
	_ = conn.Close()
	if got := <-arrived; !bytes.Equal(got, hello) {
		t.Errorf("the peer got %q, want %q", got, hello)
	}
	want := []int64{0, 5, 10}
	if !slices.Equal(reads, want) || !slices.Equal(writes, want) {
		t.Errorf("hooks: got reads at %v and writes at %v, want %v each", reads, writes, want)
	}
}
