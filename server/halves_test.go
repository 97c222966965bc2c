package server_test

import (
	"io"
	"net"
	"sync/atomic"
	"testing"

	"ferry/proto"
	"ferry/server"
)

// zeros is a file of zeros. What at says is done before the byte there is read.
type zeros struct {
	left int64
	at   map[int64]func() // by how much is left then
}

func (z *zeros) Read(p []byte) (int, error) {
	if z.left == 0 {
		return 0, io.EOF
	}
	if do := z.at[z.left]; do != nil {
		do()
	}
	n := min(int64(len(p)), z.left)
	for left := range z.at {
		if left < z.left {
			n = min(n, z.left-left)
		}
	}
	clear(p[:n])
	z.left -= n
	return int(n), nil
}

// TestHalves uses half of the processors while one large file comes that its client sums up,
// and all of them once anything else comes beside it, or the sums are known.
func TestHalves(t *testing.T) {
	var halved, restored atomic.Int32
	h, to := configured4(t, server.Config{Data: t.TempDir(), Halve: func() func() {
		halved.Add(1)
		return func() { restored.Add(1) }
	}})
	c := proto.NewClient(proto.ClientConfig{To: to, Name: clientName(t, "alice"), Keyring: new(keyring), Join: h.token(server.TokenOptions{})})
	t.Cleanup(func() { _ = c.Close() })
	want := func(when string, halves, restores int32) {
		t.Helper()
		if halved.Load() != halves || restored.Load() != restores {
			t.Errorf("%s: halved %d times and restored %d times, not %d and %d", when, halved.Load(), restored.Load(), halves, restores)
		}
	}
	const size = server.HalveFrom + 32*mib // the window is far less than the half of it
	send := func(id byte, name string, sum *proto.Sum, at map[int64]func()) {
		t.Helper()
		_, err := c.Send(t.Context(), proto.Offer{ID: proto.TransferID{id}, Name: fileName(t, name), Size: size, Sum: sum},
			func() (io.ReadCloser, error) { return io.NopCloser(&zeros{size, at}), nil }, proto.Watcher{})
		if err != nil {
			t.Error(err)
		}
	}
	send(1, "alone", nil, map[int64]func(){size / 4: func() { want("in its middle", 1, 0) }})
	want("when it had come", 1, 1)

	send(2, "accompanied", nil, map[int64]func(){size / 4: func() {
		want("in its middle", 2, 1)
		if _, err := deliver4(t, c, "beside", []byte("small"), 200); err != nil {
			t.Error(err)
		}
		want("when another one had come", 2, 2)
	}})
	want("when both had come", 2, 2)

	sum, err := proto.SumOf(t.Context(), &zeros{left: size})
	if err != nil {
		t.Fatal(err)
	}
	send(3, "known", &sum, map[int64]func(){size / 4: func() { want("while one comes whose sums are known", 2, 2) }})
	want("at the end", 2, 2)

	send(4, "one of two", nil, map[int64]func(){size / 4: func() {
		want("in its middle", 3, 2)
		send(5, "the other one", nil, map[int64]func(){size / 4: func() { want("while two come", 3, 3) }})
		want("when the other one had come", 3, 3)
	}})
	want("after two of them", 3, 3)
}

// addressed is a connection between two addresses.
type addressed struct {
	net.Conn
	here, there string
}

func tcpAddr(s string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(s), Port: 1257} }

func (a addressed) LocalAddr() net.Addr  { return tcpAddr(a.here) }
func (a addressed) RemoteAddr() net.Addr { return tcpAddr(a.there) }

// TestEven knows the clients that have as much to do as the server, and on its machine.
func TestEven(t *testing.T) {
	whole := proto.Offer{ID: proto.TransferID{1}, Size: server.HalveFrom}
	small, known, anonymous := whole, whole, whole
	small.Size--
	known.Sum = new(proto.Sum)
	anonymous.ID = proto.TransferID{}
	for _, test := range []struct {
		offer       proto.Offer
		here, there string
		want        bool
	}{
		{whole, "127.0.0.1", "127.0.0.1", true},
		{whole, "::1", "::1", true},
		{whole, "192.0.2.1", "192.0.2.1", true}, // by an address of its own
		{whole, "192.0.2.1", "192.0.2.2", false},
		{small, "127.0.0.1", "127.0.0.1", false},
		{known, "127.0.0.1", "127.0.0.1", false},
		{anonymous, "127.0.0.1", "127.0.0.1", false},
	} {
		if got := server.Even(test.offer, addressed{here: test.here, there: test.there}); got != test.want {
			t.Errorf("%+v: %v", test, got)
		}
	}
	pipe, other := net.Pipe()
	defer func() { _, _ = pipe.Close(), other.Close() }()
	if server.Even(whole, pipe) {
		t.Error("a connection without addresses is of this machine")
	}
}
