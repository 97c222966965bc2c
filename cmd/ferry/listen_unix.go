package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// unixListener removes its socket when it is closed.
type unixListener struct {
	net.Listener
	path string
	own  os.FileInfo
	once sync.Once
}

// listenUnix opens a unix socket. One that a process left behind is replaced, one
// that somebody listens on is not.
func listenUnix(ctx context.Context, path string, mode fs.FileMode) (net.Listener, error) {
	if err := clearSocket(ctx, path); err != nil {
		return nil, fmt.Errorf("--http unix:%s: %w", path, err)
	}
	// It gets its name when it has its mode: nobody comes in before. What has the
	// name by then is not replaced.
	temporary := filepath.Join(filepath.Dir(path), fmt.Sprintf(".%s.%d", filepath.Base(path), os.Getpid()))
	ln, err := new(net.ListenConfig).Listen(ctx, "unix", temporary)
	if err != nil {
		return nil, fmt.Errorf("--http unix:%s: %w", path, err)
	}
	own, err := named(temporary, path, mode)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("--http unix:%s: %w", path, err), ln.Close())
	}
	if u, ok := ln.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	return &unixListener{Listener: ln, path: path, own: own}, nil
}

func named(temporary, path string, mode fs.FileMode) (os.FileInfo, error) {
	if err := os.Chmod(temporary, mode); err != nil {
		return nil, err
	}
	if err := os.Link(temporary, path); err != nil {
		return nil, err
	}
	if err := os.Remove(temporary); err != nil {
		return nil, err
	}
	return os.Lstat(path)
}

// socketTimeout is for somebody who listens to take a connection.
const socketTimeout = 5 * time.Second

var errSocketUsed = errors.New("somebody listens on that socket: stop it, or choose another path")

// clearSocket removes a socket that nobody listens on.
func clearSocket(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("there is something of that name, which is no socket: remove it, or choose another path")
	}
	ctx, cancel := context.WithTimeout(ctx, socketTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err == nil {
		return errors.Join(errSocketUsed, conn.Close())
	}
	if !errors.Is(err, syscall.ECONNREFUSED) { // such as a queue that is full
		return fmt.Errorf("%w: %w", errSocketUsed, err)
	}
	return os.Remove(path)
}

// Addr is the socket's name, which it did not have from the start.
func (l *unixListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// Close removes the socket, unless somebody has put another one there.
func (l *unixListener) Close() error {
	err := l.Listener.Close()
	l.once.Do(func() {
		if now, e := os.Lstat(l.path); e == nil && os.SameFile(now, l.own) {
			err = errors.Join(err, os.Remove(l.path))
		}
	})
	return err
}
