package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// sshServer is an sshd of our own on loopback, with keys made for this run.
type sshServer struct {
	cmd  *exec.Cmd
	dir  string
	port string
	user string
}

func startSSHD(ctx context.Context, dir string) (*sshServer, error) {
	sshd, err := exec.LookPath("/usr/sbin/sshd")
	if err != nil {
		return nil, fmt.Errorf("scp is measured against an sshd of its own (apt-get install openssh-server): %w", err)
	}
	me, err := user.Current()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(dir, "files"), 0o700); err != nil {
		return nil, err
	}
	if me.Uid == "0" { // where Debian's sshd separates its privileges
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			return nil, err
		}
	}
	for _, key := range []string{"host", "client"} {
		if out, err := exec.CommandContext(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, key)).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("ssh-keygen: %w: %s", err, out)
		}
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	s := &sshServer{dir: dir, port: port, user: me.Username}
	s.cmd = exec.CommandContext(ctx, sshd, "-D", "-e", "-f", "/dev/null", "-h", filepath.Join(dir, "host"),
		"-o", "ListenAddress=127.0.0.1:"+port, "-o", "AuthorizedKeysFile="+filepath.Join(dir, "client.pub"),
		"-o", "StrictModes=no", "-o", "PidFile=none", "-o", "UsePAM=no", "-o", "PermitRootLogin=prohibit-password",
		"-o", "Subsystem=sftp internal-sftp")
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	return s, s.waitReady(ctx)
}

func (s *sshServer) waitReady(ctx context.Context) error {
	if err := waitPort(ctx, s.port); err != nil {
		return errors.Join(err, s.stop())
	}
	return nil
}

func dialLocal(ctx context.Context, port string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", "127.0.0.1:"+port)
}

// stored is where a file lies that was copied.
func (s *sshServer) stored(name string) string { return filepath.Join(s.dir, "files", name) }

// copies is scp of one file as a contestant. Neither end of scp calls fsync.
func (s *sshServer) copies(name, short, source string) contestant {
	return contestant{name: name, short: short, deliver: func(ctx context.Context, as string) (cost, error) {
		return s.run(ctx, s.scp("", source, as))
	}}
}

func (s *sshServer) options() []string {
	return []string{"-i", filepath.Join(s.dir, "client"), "-F", "/dev/null",
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "IdentitiesOnly=yes"}
}

// scp is the command that copies to the stored files.
func (s *sshServer) scp(flag, source, as string) []string {
	command := append([]string{"scp", "-q", "-P", s.port}, s.options()...)
	if flag != "" {
		command = append(command, flag)
	}
	return append(command, source, s.user+"@127.0.0.1:"+s.stored(as))
}

func (s *sshServer) rsync(folder string) []string {
	return []string{"rsync", "-a", "--fsync", "-e", "ssh -p " + s.port + " " + strings.Join(s.options(), " "),
		folder, s.user + "@127.0.0.1:" + s.stored("") + "/"}
}

// run runs a command whose other end is sshd's.
func (s *sshServer) run(ctx context.Context, command []string) (cost, error) {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	before := cpuOf(s.cmd.Process.Pid)
	took, err := runTimed(cmd)
	if err != nil {
		return cost{}, err
	}
	time.Sleep(100 * time.Millisecond) // sshd waits for its session, whose CPU time counts then
	took.cpu += cpuOf(s.cmd.Process.Pid) - before
	return took, nil
}

func (s *sshServer) stop() error {
	if err := s.cmd.Process.Kill(); err != nil {
		return err
	}
	_ = s.cmd.Wait() // it was killed: the status says so
	return nil
}

func freePort() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(ln.Addr().String())
	return port, errors.Join(err, ln.Close())
}

// cpuOf is the user and system time of a process and of the children that it
// has waited for, in Linux's ticks of 10 ms; 0 if it is gone.
func cpuOf(pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), ") ") // the name may hold blanks
	fields := strings.Fields(rest)
	var ticks int64
	for _, f := range fields[11:15] { // utime, stime, cutime, cstime: proc(5)
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// writeRandom makes a file that nothing can compress.
func writeRandom(path string, size int64) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = io.CopyN(f, rand.Reader, size)
	return err
}
