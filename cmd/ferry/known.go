package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"ferry/internal/atomicfile"
	"ferry/proto"
)

// maxKnown bounds the file of the known servers, in bytes.
const maxKnown = 1 << 20

// knownServers is the file of what ferry trust has remembered: a line "HOST:PORT
// PIN" each.
type knownServers struct{ path string }

// knownServer is a line of it.
type knownServer struct {
	address string
	pin     proto.Pin
}

func openKnown(environ []string) (knownServers, error) {
	state, err := stateFolder(environ)
	if err != nil {
		return knownServers{}, fmt.Errorf("%w the known servers are kept", err)
	}
	return knownServers{filepath.Join(state, "known_servers")}, nil
}

// pin is what the server at an address, HOST:PORT, is known by; ok is false if
// it is not.
func (k knownServers) pin(address string) (pin proto.Pin, ok bool, err error) {
	all, err := k.read()
	if err != nil {
		return proto.Pin{}, false, err
	}
	for _, s := range all {
		if s.address == address {
			return s.pin, true, nil
		}
	}
	return proto.Pin{}, false, nil
}

// remember adds a server. One that is known by another pin is an error,
// and stays.
func (k knownServers) remember(ctx context.Context, s knownServer) error {
	return k.change(ctx, func(all []knownServer) ([]knownServer, error) {
		for _, other := range all {
			if other.address == s.address {
				if other.pin != s.pin {
					return nil, fmt.Errorf("another process has just remembered %s by %s", s.address, other.pin)
				}
				return all, nil
			}
		}
		return append(all, s), nil
	})
}

// forget removes a server, and reports whether it was known.
func (k knownServers) forget(ctx context.Context, address string) (was bool, err error) {
	err = k.change(ctx, func(all []knownServer) ([]knownServer, error) {
		rest := slices.DeleteFunc(slices.Clone(all), func(s knownServer) bool { return s.address == address })
		was = len(rest) < len(all)
		return rest, nil
	})
	return was, err
}

// change replaces the file's content, one process at a time.
func (k knownServers) change(ctx context.Context, by func([]knownServer) ([]knownServer, error)) (err error) {
	folder := filepath.Dir(k.path)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	unlock, err := lockFolder(ctx, folder, func() {})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	before, err := k.read()
	if err != nil {
		return err
	}
	after, err := by(before)
	if err != nil || slices.Equal(before, after) {
		return err
	}
	var text strings.Builder
	for _, s := range after {
		fmt.Fprintf(&text, "%s %s\n", s.address, s.pin)
	}
	return atomicfile.Write(k.path, []byte(text.String()), 0o600)
}

// read returns the servers in the file's order; none if there is no file. Whoever
// else could write it could say whom to trust.
func (k knownServers) read() (all []knownServer, err error) {
	f, err := os.Open(k.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	switch mode := info.Mode(); {
	case !mode.IsRegular() || mode.Perm()&0o022 != 0:
		return nil, fmt.Errorf("%s: mode %v lets others say which servers to trust: look at it, then make it 0600", k.path, mode)
	case info.Size() > maxKnown:
		return nil, fmt.Errorf("%s: more than %d bytes", k.path, maxKnown)
	}
	return parseKnown(io.LimitReader(f, maxKnown), k.path)
}

func parseKnown(r io.Reader, path string) ([]knownServer, error) {
	var all []knownServer
	lines := bufio.NewScanner(r)
	for number := 1; lines.Scan(); number++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		address, text, _ := strings.Cut(line, " ")
		pin, err := proto.ParsePin(strings.TrimSpace(text))
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w behind the server's address", path, number, err)
		}
		if slices.ContainsFunc(all, func(s knownServer) bool { return s.address == address }) {
			return nil, fmt.Errorf("%s:%d: %s has a line already", path, number, address)
		}
		all = append(all, knownServer{address, pin})
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return all, nil
}

// identified returns the destination with what its server is known by: as the
// URL says, or else as ferry trust has remembered.
func (p *program) identified(to proto.Destination) (proto.Destination, error) {
	if to.Identified() {
		return to, nil
	}
	advice := fmt.Errorf("nothing says which key the server %s has, and any other could answer there: see its fingerprint and remember it with "+
		"\"ferry trust %[1]s\", or give its pin in the URL, as ?pin=", to.Address())
	known, err := openKnown(p.environ)
	if errors.Is(err, errNoState) {
		return to, advice
	}
	if err != nil {
		return to, err
	}
	pin, ok, err := known.pin(to.Address())
	switch {
	case err != nil:
		return to, err
	case !ok:
		return to, advice
	}
	return to.WithPin(pin), nil
}
