package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"ferry/proto"
)

func testKnown(t *testing.T) knownServers {
	t.Helper()
	k, err := openKnown([]string{"HOME=" + t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestKnownServers(t *testing.T) {
	k := testKnown(t)
	one, two := knownServer{"one:1257", proto.Pin{1}}, knownServer{"[::1]:1257", proto.Pin{2}}
	if _, ok, err := k.pin(one.address); ok || err != nil {
		t.Errorf("before any: %v, %v", ok, err)
	}
	for _, s := range []knownServer{one, two, one} {
		if err := k.remember(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range []knownServer{one, two} {
		if got, ok, err := k.pin(s.address); got != s.pin || !ok || err != nil {
			t.Errorf("%s: got %v, %v, %v, want %v", s.address, got, ok, err, s.pin)
		}
	}
	if err := k.remember(t.Context(), knownServer{one.address, two.pin}); err == nil || !strings.Contains(err.Error(), one.pin.String()) {
		t.Errorf("another key for a known server: %v, want an error that shows the one it has", err)
	}
	info, err := os.Stat(k.path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v, want 0600", info.Mode(), err)
	}
	if was, err := k.forget(t.Context(), one.address); !was || err != nil {
		t.Errorf("forget: %v, %v", was, err)
	}
	if was, err := k.forget(t.Context(), one.address); was || err != nil {
		t.Errorf("forget again: %v, %v", was, err)
	}
	if _, ok, err := k.pin(one.address); ok || err != nil {
		t.Errorf("once forgotten: %v, %v", ok, err)
	}
	if _, ok, err := k.pin(two.address); !ok || err != nil {
		t.Errorf("the other one: %v, %v", ok, err)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(k.path), ".*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

// TestKnownServersAtOnce: no process's server is lost by another's.
func TestKnownServersAtOnce(t *testing.T) {
	k := testKnown(t)
	var all sync.WaitGroup
	for i := range 10 {
		all.Go(func() {
			if err := k.remember(t.Context(), knownServer{fmt.Sprintf("host-%d:1257", i), proto.Pin{byte(i)}}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got, err := k.read(); len(got) != 10 || err != nil {
		t.Errorf("got %v, %v, want 10 servers", got, err)
	}
}

// TestKnownServersStrictly: a file that could be somebody else's, or that is
// damaged, says nothing about whom to trust.
func TestKnownServersStrictly(t *testing.T) {
	pin := proto.Pin{7}.String()
	for _, c := range []struct {
		name, text string
		mode       os.FileMode
		want       string
	}{
		{"others write", "a:1 " + pin + "\n", 0o622, "lets others say which servers to trust"},
		{"group writes", "a:1 " + pin + "\n", 0o660, "lets others say which servers to trust"},
		{"cut", "a:1 " + pin[:len(pin)-1] + "\n", 0o600, "known_servers:1: pin"},
		{"no pin", "# comment\n\na:1\n", 0o600, "known_servers:3: pin"},
		{"twice", "a:1 " + pin + "\na:1 " + pin + "\n", 0o600, "known_servers:2: a:1 has a line already"},
		{"too long", strings.Repeat("#\n", maxKnown), 0o600, "more than"},
		{"as it should be", "# comment\n a:1  " + pin + " \n", 0o644, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := testKnown(t)
			err := os.MkdirAll(filepath.Dir(k.path), 0o700)
			if err == nil {
				err = os.WriteFile(k.path, []byte(c.text), 0o600)
			}
			if err == nil {
				err = os.Chmod(k.path, c.mode)
			}
			if err != nil {
				t.Fatal(err)
			}
			got, ok, err := k.pin("a:1")
			if c.want == "" {
				if !ok || err != nil || got.String() != pin {
					t.Errorf("got %v, %v, %v, want %s", got, ok, err, pin)
				}
				return
			}
			if ok || err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, %v, want %q", ok, err, c.want)
			}
			before, _ := os.ReadFile(k.path)
			if err := k.remember(t.Context(), knownServer{"b:1", proto.Pin{8}}); err == nil {
				t.Error("another server was remembered there")
			}
			if after, _ := os.ReadFile(k.path); string(after) != string(before) {
				t.Errorf("the file is now %q, was %q", after, before)
			}
		})
	}
}

// TestLockFolder is about two processes, which are two open files here.
func TestLockFolder(t *testing.T) {
	dir := t.TempDir()
	unlock, err := lockFolder(t.Context(), dir, func() { t.Error("waited for nobody") })
	if err != nil {
		t.Fatal(err)
	}
	waiting, second := make(chan struct{}), make(chan error)
	go func() {
		unlock, err := lockFolder(t.Context(), dir, func() { close(waiting) })
		if err == nil {
			err = unlock()
		}
		second <- err
	}()
	<-waiting
	select {
	case err := <-second:
		t.Fatalf("locked twice: %v", err)
	case <-time.After(2 * lockEvery):
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	if err := <-second; err != nil {
		t.Error(err)
	}
}

func TestLockFolderEndsWithContext(t *testing.T) {
	dir := t.TempDir()
	unlock, err := lockFolder(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	cause := errors.New("the time is up")
	ctx, cancel := context.WithCancelCause(t.Context())
	if _, err := lockFolder(ctx, dir, func() { cancel(cause) }); !errors.Is(err, cause) {
		t.Errorf("got %v, want %v", err, cause)
	}
	if err := unlock(); err != nil {
		t.Error(err)
	}
}
