package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
)

// benchV3 sends one file over version 3, from the gateway's spool.
func benchV3(ctx context.Context, dir, binary string, o options) (err error) {
	size := cmp.Or(o.size, 256_000_000)
	source := filepath.Join(dir, "source.bin")
	if err := writeRandom(source, size); err != nil {
		return err
	}
	var contestants []contestant
	for _, window := range []int{64, 1} {
		pair, err := startFerry(ctx, binary, filepath.Join(dir, fmt.Sprintf("ferry-%d", window)), window)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, pair.stop()) }()
		contestants = append(contestants, contestant{
			name:    fmt.Sprintf("Ferry, version 3, window %d: gateway's spool to server's disk", window),
			short:   fmt.Sprintf("window %d", window),
			deliver: func(ctx context.Context, name string) (cost, error) { return pair.deliver(ctx, source, name) },
		})
	}
	ssh, err := startSSHD(ctx, filepath.Join(dir, "ssh"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ssh.stop()) }()
	contestants = append(contestants, ssh.copies("scp, default cipher", "scp", source))
	costs, err := turns(ctx, o.rounds, contestants)
	if err != nil {
		return err
	}
	report(fmt.Sprintf("One file of %d MB over version 3", size/1_000_000), contestants, costs, float64(size)/1e6, "MB")
	return nil
}
