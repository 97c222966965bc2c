package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// nginx is one of our own on loopback, that stores what is PUT.
type nginx struct {
	cmd       *exec.Cmd
	dir, port string
}

const nginxConfig = `daemon off;
pid %[1]s/pid;
error_log %[1]s/error.log;
worker_processes 1;
user root;
events {}
http {
  access_log off;
  client_body_temp_path %[1]s/incoming;
  server {
    listen 127.0.0.1:%[2]s ssl;
    ssl_certificate %[1]s/cert.pem;
    ssl_certificate_key %[1]s/key.pem;
    ssl_protocols TLSv1.3;
    client_max_body_size 0;
    root %[1]s/files;
    location / { dav_methods PUT; }
  }
}
`

func startNginx(ctx context.Context, dir string) (*nginx, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	for _, part := range []string{"files", "incoming"} {
		if err := os.MkdirAll(filepath.Join(dir, part), 0o700); err != nil {
			return nil, err
		}
	}
	cert := exec.CommandContext(ctx, "openssl", "req", "-x509", "-newkey", "rsa:3072", "-nodes", "-subj", "/CN=localhost",
		"-addext", "subjectAltName=IP:127.0.0.1", "-keyout", filepath.Join(dir, "key.pem"), "-out", filepath.Join(dir, "cert.pem"))
	if out, err := cert.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("openssl: %w: %s", err, out)
	}
	config := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, nginxConfig, dir, port), 0o600); err != nil {
		return nil, err
	}
	n := &nginx{dir: dir, port: port}
	n.cmd = exec.CommandContext(ctx, "/usr/sbin/nginx", "-c", config, "-p", dir, "-e", filepath.Join(dir, "start.log"))
	if err := n.cmd.Start(); err != nil {
		return nil, err
	}
	if err := waitPort(ctx, port); err != nil {
		return nil, errors.Join(err, n.stop())
	}
	return n, nil
}

func (n *nginx) stored(name string) string { return filepath.Join(n.dir, "files", name) }

// put uploads a file with curl.
func (n *nginx) put(ctx context.Context, source, name string) (cost, error) {
	cmd := exec.CommandContext(ctx, "curl", "-sS", "--fail", "--tlsv1.3", "--cacert", filepath.Join(n.dir, "cert.pem"),
		"-T", source, "https://127.0.0.1:"+n.port+"/"+name)
	return runTimed(cmd, n.processes()...)
}

// processes are nginx's own: the one that was started and its worker.
func (n *nginx) processes() []int {
	pids := []int{n.cmd.Process.Pid}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", n.cmd.Process.Pid))
	if err != nil {
		return pids
	}
	for s := range strings.FieldsSeq(string(b)) {
		if pid, err := strconv.Atoi(s); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

func (n *nginx) stop() error { return end(n.cmd) }

// waitPort waits until somebody listens.
func waitPort(ctx context.Context, port string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		conn, err := dialLocal(ctx, port)
		if err == nil {
			return conn.Close()
		}
		if ctx.Err() != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}
