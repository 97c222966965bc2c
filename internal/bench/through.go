package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"time"
)

// startGatewayTo runs a gateway as a process of its own, and returns its address.
func (s *nativeServer) startGatewayTo(ctx context.Context, data string) (*exec.Cmd, string, error) {
	token, err := s.token(ctx)
	if err != nil {
		return nil, "", err
	}
	cmd, address, err := startListener(ctx, regexp.MustCompile(`http://(127\.0\.0\.1:\d+)`),
		s.binary, "gateway", "--data", data, "--http", "127.0.0.1:0", "--to", s.to, "--name", filepath.Base(data), "--join", token)
	return cmd, "http://" + address, err
}

// benchThrough sends one file of 1 GiB by curl to a gateway, until the server has
// it on its disk.
func benchThrough(ctx context.Context, dir, binary string, o options) (err error) {
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
	gw, api, err := native.startGatewayTo(ctx, filepath.Join(dir, "through"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end(gw)) }()
	fresh := func(c contestant, stored func(name string) string) contestant {
		return c.fresh(source, size, 2*size, stored) // the gateway has it meanwhile
	}
	contestants := []contestant{
		fresh(contestant{
			name: "curl to ferry gateway, until the server has it, each with fsync", short: "ferry",
			deliver: func(ctx context.Context, name string) (cost, error) {
				begun, before := time.Now(), cpusOf([]int{gw.Process.Pid, native.cmd.Process.Pid})
				took, err := curlThrough(ctx, source, api, name)
				return cost{wall: time.Since(begun), cpu: took + cpusOf([]int{gw.Process.Pid, native.cmd.Process.Pid}) - before}, err
			},
		}, func(name string) string { return filepath.Join(native.data, "files", "through", name) }),
		fresh(ssh.copies("scp, default cipher, no fsync", "scp", source), ssh.stored),
	}
	costs, err := turns(ctx, o.rounds, contestants)
	if err != nil {
		return err
	}
	report(fmt.Sprintf("One file of %d MiB through a gateway", size>>20), contestants, costs, float64(size)/1e6, "MB")
	return nil
}

// curlThrough sends a file, waits until it is delivered, and returns curl's CPU time.
func curlThrough(ctx context.Context, source, api, name string) (cpu time.Duration, err error) {
	path := "/uploads/" + name
	args := []string{"-T", source, "-H", "Prefer: wait=60"}
	for {
		cmd := exec.CommandContext(ctx, "curl", append([]string{"-sS", "--fail-with-body", api + path}, args...)...)
		out, err := cmd.Output()
		if err != nil {
			return cpu, fmt.Errorf("curl: %w: %s", err, tail(out))
		}
		cpu += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		var u upload
		if err := json.Unmarshal(out, &u); err != nil {
			return cpu, err
		}
		switch u.State {
		case "delivered":
			return cpu, nil
		case "failed":
			return cpu, errors.New(u.Error)
		}
		path, args = "/uploads/"+u.ID+"?wait=60", nil // it takes longer than that
	}
}
