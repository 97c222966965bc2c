package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"time"
)

const (
	gib = 1 << 30
	// spare is the memory that a run fills beside the file's pages.
	spare = 512 << 20
)

// nativeServer is a ferry server, and a client that has registered there.
type nativeServer struct {
	cmd    *exec.Cmd
	binary string
	args   []string // of ferry send
	home   string
	data   string
	to     string // its URL
}

func startNative(ctx context.Context, binary, dir string) (s *nativeServer, err error) {
	s = &nativeServer{binary: binary, home: filepath.Join(dir, "home"), data: filepath.Join(dir, "server")}
	var address string
	s.cmd, address, err = startListener(ctx, regexp.MustCompile(`v4://(127\.0\.0\.1:\d+)`), binary, "server", "--data", s.data, "--listen", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	pin, err := exec.CommandContext(ctx, binary, "server", "fingerprint", "--data", s.data).Output()
	if err != nil {
		return nil, errors.Join(err, s.stop())
	}
	token, err := s.token(ctx)
	if err != nil {
		return nil, errors.Join(err, s.stop())
	}
	s.to = fmt.Sprintf("v4://%s?pin=%s", address, bytes.TrimSpace(pin))
	s.args = []string{"send", "--to", s.to, "--name", "bench"}
	first := filepath.Join(dir, "first")
	if err := os.WriteFile(first, []byte("first"), 0o600); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	if _, err := s.send(ctx, "", "--join", token, first); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

func (s *nativeServer) stop() error { return end(s.cmd) }

// token is one that lets a client join.
func (s *nativeServer) token(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, s.binary, "server", "token", "create", "--data", s.data).Output()
	return string(bytes.TrimSpace(out)), err
}

// startBoth starts what is measured and what it is measured beside.
func startBoth(ctx context.Context, binary, dir string) (native *nativeServer, ssh *sshServer, stop func() error, err error) {
	if native, err = startNative(ctx, binary, dir); err != nil {
		return nil, nil, nil, err
	}
	if ssh, err = startSSHD(ctx, filepath.Join(dir, "ssh")); err != nil {
		return nil, nil, nil, errors.Join(err, native.stop())
	}
	return native, ssh, func() error { return errors.Join(ssh.stop(), native.stop()) }, nil
}

// stored is where a file of the client lies.
func (s *nativeServer) stored(name string) string {
	return filepath.Join(s.data, "files", "bench", name)
}

// send runs ferry send once, in a folder.
func (s *nativeServer) send(ctx context.Context, folder string, args ...string) (cost, error) {
	cmd := exec.CommandContext(ctx, s.binary, append(append([]string{}, s.args...), args...)...)
	cmd.Env, cmd.Dir = append(os.Environ(), "HOME="+s.home, "XDG_STATE_HOME="), folder
	return runTimed(cmd, s.cmd.Process.Pid)
}

// runTimed runs a command, and adds what a process that serves it takes.
func runTimed(cmd *exec.Cmd, serving ...int) (cost, error) {
	begun, before := time.Now(), cpusOf(serving)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return cost{}, fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, tail(out))
	}
	wall := time.Since(begun)
	return cost{wall: wall, cpu: cpusOf(serving) - before + cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), peak: peakOf(cmd)}, nil
}

func peakOf(cmd *exec.Cmd) int64 {
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		return usage.Maxrss << 10
	}
	return 0
}

func tail(out []byte) []byte { return out[max(0, len(out)-2000):] }

func cpusOf(pids []int) (sum time.Duration) {
	for _, pid := range pids {
		sum += cpuOf(pid)
	}
	return sum
}

// benchLarge sends one file of 1 GiB.
func benchLarge(ctx context.Context, dir, binary string, o options) (err error) {
	size := cmp.Or(o.size, gib)
	source := filepath.Join(dir, "source.bin")
	if err := writeRandom(source, size); err != nil {
		return err
	}
	native, ssh, stop, err := startBoth(ctx, binary, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	web, err := startNginx(ctx, filepath.Join(dir, "nginx"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, web.stop()) }()
	fresh := func(c contestant, stored func(name string) string) contestant {
		return c.fresh(source, size, size, stored)
	}
	contestants := []contestant{
		fresh(contestant{
			name: "ferry send, version 4, fsync", short: "ferry",
			deliver: func(ctx context.Context, name string) (cost, error) {
				return native.send(ctx, "", "--as", name, source)
			},
		}, native.stored),
		fresh(ssh.copies("scp, default cipher, no fsync", "scp", source), ssh.stored),
		fresh(contestant{
			name: "curl PUT to nginx, TLS 1.3, no fsync", short: "nginx",
			deliver: func(ctx context.Context, name string) (cost, error) { return web.put(ctx, source, name) },
		}, web.stored),
	}
	costs, err := turns(ctx, o.rounds, contestants)
	if err != nil {
		return err
	}
	report(fmt.Sprintf("One file of %d MiB", size>>20), contestants, costs, float64(size)/1e6, "MB")
	return nil
}

// fresh delivers a file whose pages are in memory, and checks that it is stored.
// What was stored goes when the run is over: it is not needed, and the disk is not
// without end. kept is how many bytes of files a run has on the disk at once.
func (c contestant) fresh(source string, size, kept int64, stored func(name string) string) contestant {
	deliver := c.deliver
	c.deliver = func(ctx context.Context, name string) (cost, error) {
		if err := warm(source); err != nil {
			return cost{}, err
		}
		took, err := deliver(ctx, name)
		return took, errors.Join(err, checkStored(stored(name), size), os.Truncate(stored(name), 0))
	}
	c.memory = kept + spare
	return c
}

func checkStored(path string, size int64) error {
	info, err := os.Stat(path)
	if err == nil && info.Size() != size {
		err = fmt.Errorf("%s has %d bytes, want %d", path, info.Size(), size)
	}
	return err
}

// warm has a file's pages in memory.
func warm(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	buf := make([]byte, 1<<20)
	for err == nil {
		_, err = f.Read(buf)
	}
	return f.Close()
}

// benchSmall sends a folder with many small files, into a fresh folder each time.
func benchSmall(ctx context.Context, dir, binary string, o options) (err error) {
	native, ssh, stop, err := startBoth(ctx, binary, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	const each = 4 << 10
	from := filepath.Join(dir, "from")
	now := filepath.Join(from, "files")
	if err := os.MkdirAll(now, 0o700); err != nil {
		return err
	}
	for i := range o.files {
		if err := writeRandom(filepath.Join(now, fmt.Sprintf("%05d.bin", i)), each); err != nil {
			return err
		}
	}
	// named gives the source folder the name that it is to have at the other end.
	named := func(c contestant, stored func(name string) string) contestant {
		deliver := c.deliver
		c.deliver = func(ctx context.Context, name string) (cost, error) {
			to := filepath.Join(from, c.short+"-"+name)
			if err := os.Rename(now, to); err != nil {
				return cost{}, err
			}
			now = to
			took, err := deliver(ctx, filepath.Base(to))
			if err != nil {
				return took, err
			}
			entries, err := os.ReadDir(stored(filepath.Base(to)))
			if err == nil && len(entries) != o.files {
				err = fmt.Errorf("%d files were stored, want %d", len(entries), o.files)
			}
			return took, err
		}
		return c
	}
	contestants := []contestant{
		named(contestant{name: "ferry send --recursive, version 4, each durable", short: "ferry", deliver: func(ctx context.Context, name string) (cost, error) {
			return native.send(ctx, from, "--recursive", name)
		}}, native.stored),
		named(contestant{name: "scp -r, no fsync", short: "scp", deliver: func(ctx context.Context, name string) (cost, error) {
			return ssh.run(ctx, ssh.scp("-r", filepath.Join(from, name), ""))
		}}, ssh.stored),
		named(contestant{name: "rsync --fsync over ssh", short: "rsync", deliver: func(ctx context.Context, name string) (cost, error) {
			return ssh.run(ctx, ssh.rsync(filepath.Join(from, name)))
		}}, ssh.stored),
	}
	costs, err := turns(ctx, o.rounds, contestants)
	if err != nil {
		return err
	}
	report(fmt.Sprintf("%d files of %d bytes", o.files, each), contestants, costs, float64(o.files), "files")
	return nil
}

// benchScale sends 1 GiB and 4 GiB, for time and memory to be compared.
func benchScale(ctx context.Context, dir, binary string, o options) (err error) {
	native, err := startNative(ctx, binary, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, native.stop()) }()
	var contestants []contestant
	size := cmp.Or(o.size, gib)
	peaks := map[string]int64{}
	for _, times := range []int64{4, 1} {
		source := filepath.Join(dir, fmt.Sprintf("source-%d.bin", times))
		if err := writeRandom(source, times*size); err != nil {
			return err
		}
		short := fmt.Sprintf("%d MiB", times*size>>20)
		contestants = append(contestants, contestant{
			name: "ferry send, " + short, short: short, memory: times*size + spare, long: true,
			deliver: func(ctx context.Context, name string) (cost, error) {
				if err := errors.Join(warm(source), resetPeak(native.cmd.Process.Pid)); err != nil {
					return cost{}, err
				}
				as := fmt.Sprintf("%d-%s", times, name)
				took, err := native.send(ctx, "", "--as", as, source)
				server, err2 := peakNow(native.cmd.Process.Pid)
				peaks[short+", ferry send"] = max(peaks[short+", ferry send"], took.peak)
				peaks[short+", ferry server"] = max(peaks[short+", ferry server"], server)
				stored := native.stored(as)
				return took, errors.Join(err, err2, checkStored(stored, times*size), os.Truncate(stored, 0))
			},
		})
	}
	costs, err := turns(ctx, o.rounds, contestants)
	if err != nil {
		return err
	}
	report("Four times the size", contestants, costs, 1, "files")
	fmt.Println("| highest resident memory of | MiB |\n|---|---|")
	for _, c := range contestants {
		for _, end := range []string{"ferry send", "ferry server"} {
			fmt.Printf("| %s, %s | %d |\n", c.short, end, peaks[c.short+", "+end]>>20)
		}
	}
	fmt.Println()
	return nil
}

// resetPeak has a process's VmHWM begin anew: proc(5), clear_refs.
func resetPeak(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
}

// peakNow is a process's VmHWM in bytes.
func peakNow(pid int) (int64, error) {
	return bytesOf(fmt.Sprintf("/proc/%d/status", pid), "VmHWM")
}
