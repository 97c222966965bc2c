package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"

	"ferry/proto"
)

// checkAddress wants HOST:PORT.
func checkAddress(flag, address string) error {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("--%s %q: want HOST:PORT", flag, address)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("--%s %q: want a port from 0 to 65535; 0 takes any that is free", flag, address)
	}
	return nil
}

// isLoopback reports whether address can be reached from this machine alone.
func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

// listen opens the address that a flag names.
func listen(ctx context.Context, flag, address string) (net.Listener, error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("--%s %s: the port is in use; stop what uses it, or choose another one, 0 for any that is free", flag, address)
	case err != nil:
		return nil, fmt.Errorf("--%s %s: %w", flag, address, err)
	}
	// The name localhost is what the machine makes of it.
	if tcp, ok := ln.Addr().(*net.TCPAddr); ok && isLoopback(address) && !tcp.IP.IsLoopback() {
		return nil, errors.Join(fmt.Errorf("--%s %s: on this machine that is %s, which others can reach: say 127.0.0.1", flag, address, tcp.IP), ln.Close())
	}
	return ln, nil
}

// local returns an address at which a listener can be reached from this
// machine: its own, or loopback if it listens on every interface.
func local(a net.Addr) string {
	tcp, ok := a.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return a.String()
	}
	loopback := net.IPv6loopback
	if tcp.IP.To4() != nil {
		loopback = net.IPv4(127, 0, 0, 1)
	}
	return (&net.TCPAddr{IP: loopback, Port: tcp.Port}).String()
}

// public returns an address at which other machines may reach a listener: its
// own, under this host's name if it listens on every interface.
func public(a net.Addr) string {
	tcp, ok := a.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return a.String()
	}
	host, err := os.Hostname()
	if err != nil {
		return local(a)
	}
	address := net.JoinHostPort(host, strconv.Itoa(tcp.Port))
	if _, err := proto.ParseDestination("v4://" + address); err != nil {
		return local(a)
	}
	return address
}
