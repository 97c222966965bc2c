package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

func build(ctx context.Context, binary string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", binary, "ferry/cmd/ferry")
	cmd.Stderr = os.Stderr
	return cmd.Run()
}

// ferryPair is a gateway and a server, each a process of its own.
type ferryPair struct {
	server, gateway *exec.Cmd
	api             string
}

func startFerry(ctx context.Context, binary, data string, window int) (*ferryPair, error) {
	server, native, err := startListener(ctx, regexp.MustCompile(`v3://(127\.0\.0\.1:\d+)`),
		binary, "server", "--data", filepath.Join(data, "server"), "--listen", "none", "--v3-listen", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	gateway, api, err := startListener(ctx, regexp.MustCompile(`http://(127\.0\.0\.1:\d+)`),
		binary, "gateway", "--data", filepath.Join(data, "gateway"), "--http", "127.0.0.1:0",
		"--to", fmt.Sprintf("v3://%s?window=%d", native, window), "--name", "bench")
	if err != nil {
		return nil, errors.Join(err, end(server))
	}
	return &ferryPair{server, gateway, "http://" + api}, nil
}

// startListener starts a command and returns the address that it prints.
func startListener(ctx context.Context, address *regexp.Regexp, name string, args ...string) (*exec.Cmd, string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, "", err
	}
	var complaints strings.Builder
	cmd.Stderr = &complaints
	if err := cmd.Start(); err != nil {
		return nil, "", err
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if m := address.FindStringSubmatch(lines.Text()); m != nil {
			go func() { _, _ = io.Copy(io.Discard, out) }() // ends with the process
			return cmd, m[1], nil
		}
	}
	return nil, "", fmt.Errorf("%s %s ended: %w: %s", name, args[0], cmd.Wait(), complaints.String())
}

// deliver uploads the file, and times from the gateway's 202 to the server's
// acknowledgement: from the spool to the server's disk, fsync included.
func (f *ferryPair) deliver(ctx context.Context, source, name string) (cost, error) {
	u, err := f.upload(ctx, source, name)
	begun, cpu := time.Now(), f.cpu()
	for err == nil && u.State != "delivered" {
		if u.State == "failed" {
			return cost{}, errors.New(u.Error)
		}
		time.Sleep(2 * time.Millisecond)
		u, err = f.get(ctx, u.ID)
	}
	return cost{wall: time.Since(begun), cpu: f.cpu() - cpu}, err
}

type upload struct{ ID, State, Error string }

// upload sends the file; the request closes it.
func (f *ferryPair) upload(ctx context.Context, source, name string) (u upload, err error) {
	file, err := os.Open(source)
	if err != nil {
		return u, err
	}
	info, err := file.Stat()
	if err != nil {
		return u, errors.Join(err, file.Close())
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, f.api+"/uploads?name="+url.QueryEscape(name), file)
	if err != nil {
		return u, errors.Join(err, file.Close())
	}
	req.ContentLength = info.Size()
	return u, do(req, http.StatusAccepted, &u)
}

func (f *ferryPair) get(ctx context.Context, id string) (u upload, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.api+"/uploads/"+id, nil)
	if err != nil {
		return u, err
	}
	return u, do(req, http.StatusOK, &u)
}

func do(req *http.Request, want int, into any) error {
	_, err := doHeader(req, want, into)
	return err
}

// doHeader is do, and returns the answer's header.
func doHeader(req *http.Request, want int, into any) (http.Header, error) {
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(res.Body)
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return nil, err
	}
	if res.StatusCode != want {
		return nil, fmt.Errorf("%s %s: %s: %s", req.Method, req.URL.Path, res.Status, body)
	}
	return res.Header, json.Unmarshal(body, into)
}

func (f *ferryPair) cpu() time.Duration {
	return cpuOf(f.server.Process.Pid) + cpuOf(f.gateway.Process.Pid)
}

func (f *ferryPair) stop() error { return errors.Join(end(f.gateway), end(f.server)) }

// end stops a process that this program started.
func end(cmd *exec.Cmd) error {
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return cmd.Wait()
}
