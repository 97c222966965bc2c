package proto_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"ferry/proto"
	"ferry/proto/v4"
)

// A countedConn counts what is done to a connection.
type countedConn struct {
	net.Conn
	reads, writes atomic.Int64
	noDeadline    atomic.Bool // something was done without one
	read, write   atomic.Bool // a deadline is set
}

func (c *countedConn) Read(p []byte) (int, error) {
	c.reads.Add(1)
	if !c.read.Load() {
		c.noDeadline.Store(true)
	}
	return c.Conn.Read(p)
}

func (c *countedConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	if !c.write.Load() {
		c.noDeadline.Store(true)
	}
	return c.Conn.Write(p)
}

func (c *countedConn) SetReadDeadline(t time.Time) error {
	c.read.Store(!t.IsZero())
	return c.Conn.SetReadDeadline(t)
}

func (c *countedConn) SetWriteDeadline(t time.Time) error {
	c.write.Store(!t.IsZero())
	return c.Conn.SetWriteDeadline(t)
}

// framesOver greets over two ends of a connection.
func framesOver(t *testing.T, near, far net.Conn, idle time.Duration) (client, server proto.FramesV4) {
	t.Helper()
	client = proto.ClientFramesV4(near, idle, clientConfigV4())
	server = proto.ServerFramesV4(far, idle, quickV4())
	var greeting sync.WaitGroup
	greeting.Go(func() {
		if err := server.Greet(); err != nil {
			t.Error(err)
		}
	})
	if err := client.Greet(); err != nil {
		t.Fatal(err)
	}
	greeting.Wait()
	return client, server
}

func keyed(t *testing.T, client, server proto.FramesV4) {
	t.Helper()
	toServer, toClient := v4.Key{1}, v4.Key{2}
	if err := client.Key(toServer, toClient, v4.MaxPacket); err != nil {
		t.Fatal(err)
	}
	if err := server.Key(toClient, toServer, v4.MaxPacket); err != nil {
		t.Fatal(err)
	}
}

func tcpPair(t *testing.T) (near, far net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if near, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if far, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

// TestFramesV4Batches counts the writes of large batches, and the reads that take
// them; each has a deadline.
func TestFramesV4Batches(t *testing.T) {
	near, far := tcpPair(t)
	cn, cf := &countedConn{Conn: near}, &countedConn{Conn: far}
	client, server := framesOver(t, cn, cf, 10*time.Second)
	keyed(t, client, server)
	const packets, size, batches = 16, 64 << 10, 8
	block := content(size)
	var slots [packets]v4.Slot
	cn.writes.Store(0)
	cf.reads.Store(0)
	var reading sync.WaitGroup
	reading.Go(func() {
		room := make([]byte, 0, size+v4.TagSize)
		for i := range packets * batches {
			h, b, err := server.Read(room)
			if err != nil || h.Number != uint64(i) || !bytes.Equal(b, block) || &b[0] != &room[:1][0] {
				t.Errorf("packet %d: %+v, %d bytes, %v", i, h, len(b), err)
				return
			}
		}
	})
	for n := range batches {
		if err := client.Reserve(slots[:]); err != nil {
			t.Fatal(err)
		}
		// Sealed in another order than written.
		parts := make([][]byte, packets)
		for i := packets - 1; i >= 0; i-- {
			parts[i] = slots[i].Append(nil, v4.CodePacket, uint64(n*packets+i), block)
		}
		if err := client.Write(bytes.Join(parts, nil)); err != nil {
			t.Fatal(err)
		}
	}
	reading.Wait()
	if n := cn.writes.Load(); n > 3*batches { // 1 MiB and its tags each, 512 KiB at once
		t.Errorf("%d writes for %d batches", n, batches)
	}
	if n := cf.reads.Load(); n > packets*batches*size/(16<<10) {
		t.Errorf("%d reads for %d bytes", n, packets*batches*size)
	}
	if cn.noDeadline.Load() || cf.noDeadline.Load() {
		t.Error("a read or write had no deadline")
	}
}

// TestFramesV4PutsTogether writes small messages in one record.
func TestFramesV4PutsTogether(t *testing.T) {
	near, far := tcpPair(t)
	cn := &countedConn{Conn: near}
	client, server := framesOver(t, cn, far, 10*time.Second)
	keyed(t, client, server)
	cn.writes.Store(0)
	for n := range uint64(9) {
		if err := client.Put(v4.CodeGiveUp, n, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := client.Say(v4.CodeGiveUp, 9, nil); err != nil {
		t.Fatal(err)
	}
	for n := range uint64(10) {
		if h, _, err := server.Read(nil); err != nil || h.Number != n {
			t.Fatalf("message %d: %+v, %v", n, h, err)
		}
	}
	if n := cn.writes.Load(); n != 1 {
		t.Errorf("%d writes, want 1", n)
	}
	if err := client.Bye(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := server.Read(nil); !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("behind the end: %v", err)
	}
	if err := client.Say(v4.CodeGiveUp, 1, nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("said behind the end: %v", err)
	}
}

// TestFramesV4ManyWriters says messages from many goroutines, in both directions at
// once: each arrives as a whole.
func TestFramesV4ManyWriters(t *testing.T) {
	const writers, each = 8, 50
	near, far := tcpPair(t)
	client, server := framesOver(t, near, far, 10*time.Second)
	keyed(t, client, server)
	var all sync.WaitGroup
	run := func(from, to proto.FramesV4, code v4.Code, size int) {
		for w := range uint64(writers) {
			all.Go(func() {
				for n := range uint64(each) {
					if err := from.Say(code, w<<32|n, bytes.Repeat([]byte{byte(w)}, size)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Go(func() {
			var next [writers]uint64
			for range writers * each {
				h, b, err := to.Read(nil)
				if err != nil {
					t.Error(err)
					return
				}
				w := h.Number >> 32
				if h.Number&(1<<32-1) != next[w] || len(b) != size || bytes.Count(b, []byte{byte(w)}) != size {
					t.Errorf("message %x", h.Number)
				}
				next[w]++
			}
		})
	}
	run(client, server, v4.CodePacket, 40_000)
	run(server, client, v4.CodeStored, 30_000)
	all.Wait()
}

// TestFramesV4ClearRefusal is a 1607 before anything has been opened: sealed or
// not, it is read; behind that only a sealed one is.
func TestFramesV4ClearRefusal(t *testing.T) {
	payload := v4.Refused{Reason: v4.ReasonUnauthorized, Words: "the proof does not open"}.Append(nil)
	for what, sealed := range map[string]bool{"sealed": true, "clear": false} {
		t.Run(what, func(t *testing.T) {
			near, far := tcpPair(t)
			client, server := framesOver(t, near, far, 10*time.Second)
			if err := client.Key(v4.Key{1}, v4.Key{2}, 0); err != nil {
				t.Fatal(err)
			}
			if sealed {
				if err := server.Key(v4.Key{2}, v4.Key{1}, 0); err != nil {
					t.Fatal(err)
				}
			}
			if err := server.Say(v4.CodeRefused, 0, payload); err != nil {
				t.Fatal(err)
			}
			if h, b, err := client.Read([]byte("before")); err != nil || h.Code != v4.CodeRefused || string(b) != "before"+string(payload) {
				t.Errorf("got %+v, %q, %v", h, b, err)
			}
			if err := server.Say(v4.CodeRefused, 0, payload); err != nil {
				t.Fatal(err)
			}
			_, b, err := client.Read(nil)
			if sealed && (err != nil || !bytes.Equal(b, payload)) {
				t.Errorf("again: %q, %v", b, err)
			}
		})
	}
}

// TestFramesV4DeafPeer writes to one that reads nothing: it ends in time, and stays
// ended.
func TestFramesV4DeafPeer(t *testing.T) {
	quickV4()
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer near.Close()
		defer far.Close()
		client, server := framesOver(t, near, far, 10*time.Second)
		keyed(t, client, server)
		start := time.Now()
		err := server.Say(v4.CodeThanks, 1, v4.Offset{}.Append(nil))
		if d := time.Since(start); !errors.Is(err, os.ErrDeadlineExceeded) || d != 10*time.Second {
			t.Errorf("it ended after %v: %v", d, err)
		}
		if again := server.Say(v4.CodeThanks, 1, nil); !errors.Is(again, os.ErrDeadlineExceeded) {
			t.Errorf("the next message: %v", again)
		}
		if d := time.Since(start); d != 10*time.Second {
			t.Errorf("the next message took until %v", d)
		}
	})
}
