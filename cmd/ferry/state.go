package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// errNoState: the environment does not say where a user's files are.
var errNoState = errors.New("neither XDG_STATE_HOME nor HOME says where")

// stateFolder is where ferry keeps what it has learnt for a user: who the user
// is at each server, and what each server is known by.
func stateFolder(environ []string) (string, error) {
	state := ""
	for _, kv := range environ {
		switch key, value, _ := strings.Cut(kv, "="); {
		case key == "XDG_STATE_HOME" && filepath.IsAbs(value): // one that is not is to be ignored
			state = value
		case key == "HOME" && value != "" && state == "":
			state = filepath.Join(value, ".local", "state")
		}
	}
	if state == "" {
		return "", errNoState
	}
	return filepath.Join(state, "ferry"), nil
}

// lockEvery is how often lockFolder looks whether the folder is free.
const lockEvery = 50 * time.Millisecond

// lockFolder waits until no other process holds the folder, and calls waiting
// first if it has to. It holds the folder until unlock, or until this process
// ends. It is advisory, and leaves no file behind. On a file system without
// locks it holds nothing.
func lockFolder(ctx context.Context, dir string, waiting func()) (unlock func() error, err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for said := false; ; said = true {
		err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return d.Close, nil
		}
		if !said {
			waiting()
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("wait for %s, which another process uses: %w", dir, context.Cause(ctx)), d.Close())
		case <-time.After(lockEvery):
		}
	}
}
