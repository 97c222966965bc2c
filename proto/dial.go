package proto

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// connect makes a connection to the server's address.
func (cfg ClientConfig) connect(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, cfg.DialTimeout)
	defer cancel()
	conn, err := cfg.Dial(ctx, "tcp", cfg.To.address)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return conn, nil
}

// unpace is for [net.Dialer]. It has what goes to this machine itself leave at once. BBR, which is some
// machines' choice for all connections, sends at a pace that timers keep: between two processes of one machine
// nothing but delay comes of it. Reno has none, and may be chosen by everybody unless the machine's owner has
// changed that. It has to be chosen before there is a connection: the pace stays otherwise.
func unpace(_, address string, c syscall.RawConn) error {
	if to, err := netip.ParseAddrPort(address); err != nil || !to.Addr().IsLoopback() {
		return nil //nolint:nilerr // it goes its usual way
	}
	return c.Control(func(fd uintptr) {
		// Where it cannot be had, nothing is lost but time.
		_ = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, "reno")
	})
}
