package e2e_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ferry/internal/smalldisk"
	"ferry/proto"
)

// TestServerFullDisk fills the server's disk: at the defaults' way, where some of
// it is kept free, and to the last byte. What does not fit is refused with 1607,
// nothing of it is seen, its space is given back, and the server goes on when
// there is room.
func TestServerFullDisk(t *testing.T) {
	const large = 6_000_000
	for _, test := range []struct {
		name, free string
	}{
		{"some is kept free", "1MiB"},
		{"to the last byte", "0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			disk := smalldisk.Mount(t, "12m")
			data := filepath.Join(disk, "data")
			server := start(t, "server", "--data", data, "--listen", "none", "--v3-listen", "127.0.0.1:0", "--min-free", test.free)
			k := new(memoryKeyring)
			deliver := func(name string, size int64) error {
				_, err := send(t.Context(), server.native, "window=64", "client", k, name, bytesOf(uint64(size), size))
				return err
			}
			before := []error{deliver("small", 1000), deliver("large", large)}
			if err := errors.Join(before...); err != nil {
				t.Fatal(err)
			}

			// What is known not to fit is refused before it is sent.
			if err := deliver("too large", 2*large); !errors.Is(err, proto.ErrRefused) {
				t.Errorf("a file larger than the disk: %v, want %v", err, proto.ErrRefused)
			}
			// Somebody else takes the room while a file comes in.
			ballast := filepath.Join(disk, "ballast")
			err := deliverBeside(t, server.native, k, "caught", 4_000_000, func() { fill(t, ballast) })
			if !errors.Is(err, proto.ErrRefused) {
				t.Errorf("a file that no longer fits: %v, want %v", err, proto.ErrRefused)
			}
			waitUnstaged(t, data)
			if got := len(storedSums(t, data)); got != 2 {
				t.Errorf("%d files are stored while the disk is full, want 2", got)
			}
			// It is there for what needs no room.
			if err := deliver("small", 1000); !errors.Is(err, proto.ErrExists) {
				t.Errorf("a file that is there, while the disk is full: %v, want %v", err, proto.ErrExists)
			}

			if err := os.Remove(ballast); err != nil {
				t.Fatal(err)
			}
			if err := deliver("caught", 4_000_000); err != nil {
				t.Errorf("when there is room again: %v", err)
			}
			want := map[string]int64{"small": 1000, "large": large, "caught": 4_000_000}
			got := storedSums(t, data)
			for name, size := range want {
				if sum := sumOfBytes(bytesOf(uint64(size), size)); got["client/"+name] != sum {
					t.Errorf("%s is stored with SHA-256 %q, want %s", name, got["client/"+name], sum)
				}
			}
			if len(got) != len(want) {
				t.Errorf("stored are %v, want %d files", got, len(want))
			}
			log, err := os.ReadFile(server.stderr.Name())
			if err != nil {
				t.Fatal(err)
			}
			for _, words := range [][]string{
				{"file refused", "client=client", `file="too large"`, "address=127.0.0.1:", "no room"},
				{"file refused", "client=client", "file=caught", "address=127.0.0.1:"},
			} {
				found := false
				for line := range strings.Lines(string(log)) {
					found = found || hasAll(line, words)
				}
				if !found {
					t.Errorf("no line of the log has all of %q", words)
				}
			}
			server.stop()
		})
	}
}

// deliverBeside delivers a file and calls act when half of it has been read.
func deliverBeside(t *testing.T, address string, k *memoryKeyring, name string, size int64, act func()) (err error) {
	t.Helper()
	c, err := native(address, "window=1", "client", k)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	b := bytesOf(uint64(size), size)
	acted := false
	_, err = sendWith(t.Context(), c, name, size, func() (io.ReadCloser, error) {
		first, second := bytes.NewReader(b[:size/2]), bytes.NewReader(b[size/2:])
		then := readerFunc(func([]byte) (int, error) {
			if !acted {
				acted = true
				act()
			}
			return 0, io.EOF
		})
		return io.NopCloser(io.MultiReader(first, then, second)), nil
	})
	if !acted {
		t.Error("the file was refused before half of it was sent")
	}
	return err
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// fill makes a file that takes all the room there is on its file system.
func fill(t *testing.T, path string) {
	f, err := os.Create(path)
	if err != nil {
		t.Error(err)
		return
	}
	b := make([]byte, 4096)
	for start := time.Now(); time.Since(start) < 10*time.Second; {
		if _, err := f.Write(b); err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				t.Error(err)
			}
			break
		}
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}
