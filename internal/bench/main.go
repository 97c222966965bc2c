// Command bench measures Ferry beside the programs it wants to replace, on
// this machine, in one run: the contestants take turns, so that what drifts
// drifts for all of them, and what counts is the ratio of the medians. It
// prints a table in Markdown for docs/performance.md.
//
// It needs ssh, scp and sshd (Debian: openssh-client, openssh-server).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

func main() {
	rounds := flag.Int("rounds", 9, "how often each contestant runs; the first round of each is not counted")
	size := flag.Int64("size", 256_000_000, "size of the file in bytes")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *rounds, *size); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// cost is what one run of a contestant took.
type cost struct {
	wall time.Duration
	cpu  time.Duration // user and system time of both ends
}

// contestant delivers the file once under a name not used before.
type contestant struct {
	name    string
	deliver func(ctx context.Context, name string) (cost, error)
}

func run(ctx context.Context, rounds int, size int64) (err error) {
	dir, err := os.MkdirTemp("", "ferry-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	source := filepath.Join(dir, "source.bin")
	if err := writeRandom(source, size); err != nil {
		return err
	}
	binary := filepath.Join(dir, "ferry")
	if err := build(ctx, binary); err != nil {
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
			deliver: func(ctx context.Context, name string) (cost, error) { return pair.deliver(ctx, source, name) },
		})
	}
	ssh, err := startSSHD(ctx, filepath.Join(dir, "ssh"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ssh.stop()) }()
	contestants = append(contestants, contestant{
		name:    "scp, default cipher",
		deliver: func(ctx context.Context, name string) (cost, error) { return ssh.copy(ctx, source, name) },
	})

	costs := make([][]cost, len(contestants))
	for round := range rounds + 1 {
		for i, c := range contestants {
			took, err := c.deliver(ctx, fmt.Sprintf("round-%d.bin", round))
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			if round > 0 { // the first one warms up
				costs[i] = append(costs[i], took)
			}
		}
	}
	report(contestants, costs, size, rounds)
	return nil
}

func report(contestants []contestant, costs [][]cost, size int64, rounds int) {
	last := len(contestants) - 1
	baseWall, baseCPU := medians(costs[last])
	fmt.Printf("One file of %d MB, %d rounds in turn; medians, and ratios to the last row.\n\n", size/1_000_000, rounds)
	fmt.Println("| contestant | wall s | MB/s | ratio | CPU s, both ends | ratio |")
	fmt.Println("|---|---|---|---|---|---|")
	for i, c := range contestants {
		wall, cpu := medians(costs[i])
		fmt.Printf("| %s | %.2f | %.0f | %.2f | %.2f | %.2f |\n", c.name, wall.Seconds(),
			float64(size)/1e6/wall.Seconds(), wall.Seconds()/baseWall.Seconds(), cpu.Seconds(), cpu.Seconds()/baseCPU.Seconds())
	}
}

func medians(costs []cost) (wall, cpu time.Duration) {
	return median(costs, func(c cost) time.Duration { return c.wall }), median(costs, func(c cost) time.Duration { return c.cpu })
}

func median(costs []cost, of func(cost) time.Duration) time.Duration {
	var all []time.Duration
	for _, c := range costs {
		all = append(all, of(c))
	}
	slices.Sort(all)
	return all[len(all)/2]
}
