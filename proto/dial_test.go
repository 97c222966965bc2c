package proto_test

import (
	"errors"
	"net"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"ferry/proto"
)

// congestion is which congestion control a socket has.
func congestion(t *testing.T, c syscall.Conn) (name string) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if e := raw.Control(func(fd uintptr) {
		name, err = unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION)
	}); e != nil || err != nil {
		t.Fatal(e, err)
	}
	return name
}

// What goes to the own machine leaves at no pace, whatever is usual on it; elsewhere
// what is usual is kept.
func TestNoPaceOnOneMachine(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	usual := congestion(t, l.(*net.TCPListener))
	if usual == "reno" {
		t.Skip("SKIPPED, NOT TESTED: what is usual on this machine has no pace")
	}
	c := proto.NewClient(proto.ClientConfig{To: destination(t, "v3://h"), Name: clientName(t, "alice"), Keyring: &keyring{}})
	conn, err := proto.DialOf(c)(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if got := congestion(t, conn.(*net.TCPConn)); got != "reno" {
		t.Errorf("a connection to %v has %s, and may send at a pace", l.Addr(), got)
	}
	_ = conn.Close()

	wants := map[string]string{
		"127.0.0.2": "reno", "::1": "reno", "::ffff:127.0.0.1": "reno",
		"198.51.100.1": usual, "2001:db8::1": usual, // nobody's: RFC 5737, RFC 3849
	}
	for host, want := range wants {
		var got string
		enough := errors.New("it is not to be connected")
		d := net.Dialer{Control: func(network, address string, raw syscall.RawConn) error {
			if err := proto.Unpace(network, address, raw); err != nil {
				t.Error(err)
			}
			_ = raw.Control(func(fd uintptr) {
				got, _ = unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION)
			})
			return enough
		}}
		_, err := d.DialContext(t.Context(), "tcp", net.JoinHostPort(host, "1"))
		if errors.Is(err, unix.EAFNOSUPPORT) {
			t.Logf("SKIPPED, NOT TESTED: %s: this machine has no IPv6", host)
			continue
		}
		if !errors.Is(err, enough) {
			t.Errorf("%s: %v", host, err)
		}
		if got != want {
			t.Errorf("to %s: %q, want %q", host, got, want)
		}
	}
}
