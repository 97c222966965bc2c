package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// settle makes turns alike: what the one before left to be written is written,
// and the memory that this one needs is there. A virtual machine gives free
// memory back to its host within seconds, and fetching a page from there again
// costs more than writing it, which would be counted as the contestant's. So a
// process of its own fetches it and lets go of it: at once, or for a long run as it is
// used, until release is called. It is another process because the most memory that a process has
// had counts for the commands that it starts.
func settle(ctx context.Context, memory int64, long bool) (release func() error, err error) {
	unix.Sync()
	if memory == 0 {
		return func() error { return nil }, nil
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, holdCommand, strconv.FormatInt(memory, 10), strconv.FormatBool(long))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		return nil, errors.Join(fmt.Errorf("hold %d bytes of memory: %w", memory, err), in.Close(), cmd.Wait())
	}
	return func() error { return errors.Join(in.Close(), cmd.Wait()) }, nil
}

const (
	// holdCommand is the argument that makes this program hold memory.
	holdCommand = "hold-memory"
	// held is how much of it is let go together.
	held = 32 << 20
)

// hold fetches so many bytes and says so. It lets go of them before, or such that as
// much stays free as was, until in ends.
func hold(memory, long string, in io.Reader, out io.Writer) error {
	n, err := strconv.ParseInt(memory, 10, 64)
	if err != nil {
		return err
	}
	slowly, err := strconv.ParseBool(long)
	if err != nil {
		return err
	}
	var parts [][]byte
	for ; n > 0; n -= held {
		b, err := unix.Mmap(-1, 0, held, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			return fmt.Errorf("fetch memory: %w", err)
		}
		if slowly {
			_ = unix.Madvise(b, unix.MADV_HUGEPAGE) // let go of in no time, where there are any
		}
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		parts = append(parts, b)
	}
	free, err := freeMemory()
	if err != nil {
		return err
	}
	letGo := func(n int64) (err error) {
		for ; n > 0 && len(parts) > 0 && err == nil; n -= held {
			err = unix.Munmap(parts[0])
			parts = parts[1:]
		}
		return err
	}
	if !slowly {
		if err := letGo(int64(len(parts)) * held); err != nil {
			return err
		}
	}
	if _, err := fmt.Fprintln(out, "held"); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, in)
		ended <- err
	}()
	for tick := time.NewTicker(5 * time.Millisecond); len(parts) > 0; {
		select {
		case err := <-ended:
			return err
		case <-tick.C:
		}
		now, err := freeMemory()
		if err != nil {
			return err
		}
		if err := letGo(free - now); err != nil {
			return err
		}
	}
	return <-ended
}

// freeMemory is how many bytes nobody uses. Asking sysinfo(2) costs a fiftieth of reading
// /proc/meminfo.
func freeMemory() (int64, error) {
	var info unix.Sysinfo_t
	err := unix.Sysinfo(&info)
	return int64(info.Freeram) * int64(info.Unit), err
}

// bytesOf is what a file of proc(5) says in kB behind a name.
func bytesOf(path, name string) (int64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), name+":")
	line, _, _ := strings.Cut(rest, "kB")
	kib, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	return kib << 10, err
}
