// Command bench measures Ferry beside the programs it wants to replace, and
// beside itself with much and little to do, on this machine, in one run: the
// contestants take turns, so that what drifts drifts for all of them, and what
// counts is the ratio of the medians. It prints tables in Markdown for
// docs/performance.md.
//
//	go run ./internal/bench [-rounds N] [-size BYTES] [-files N] [-rows N] [SUITE...]
//
// It needs openssh, rsync, nginx, curl and openssl: go run ./tools/deps bench
// installs what is missing.
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

// options are those of the command line.
type options struct {
	rounds int
	size   int64 // bytes of one large file
	files  int   // small ones
	rows   int   // of a full table
}

// A suite is a table.
type suite struct {
	name string
	run  func(ctx context.Context, dir, binary string, o options) error
}

// suites are what can be measured, in their usual order.
var suites = []suite{
	{"v3", benchV3},
	{"large", benchLarge},
	{"small", benchSmall},
	{"scale", benchScale},
	{"intake", benchIntake},
	{"through", benchThrough},
	{"queued", benchQueued},
	{"finished", benchFinished},
}

func main() {
	if len(os.Args) == 4 && os.Args[1] == holdCommand {
		if err := hold(os.Args[2], os.Args[3], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	var o options
	flag.IntVar(&o.rounds, "rounds", 9, "how often each contestant runs; the first round of each is not counted")
	flag.Int64Var(&o.size, "size", 0, "size of the file in bytes; 0 is that of the suite")
	flag.IntVar(&o.files, "files", 10_000, "how many small files")
	flag.IntVar(&o.rows, "rows", 1_000_000, "how many uploads a full table has")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, chosen []string) (err error) {
	dir, err := os.MkdirTemp("", "ferry-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	binary := filepath.Join(dir, "ferry")
	if err := build(ctx, binary); err != nil {
		return err
	}
	for _, name := range chosen {
		if !slices.ContainsFunc(suites, func(s suite) bool { return s.name == name }) {
			return fmt.Errorf("no suite %q", name)
		}
	}
	for _, s := range suites {
		if len(chosen) > 0 && !slices.Contains(chosen, s.name) {
			continue
		}
		own := filepath.Join(dir, s.name)
		if err := os.Mkdir(own, 0o700); err != nil {
			return err
		}
		if err := s.run(ctx, own, binary, o); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		if err := os.RemoveAll(own); err != nil {
			return err
		}
	}
	return nil
}

// cost is what one run of a contestant took.
type cost struct {
	wall time.Duration
	cpu  time.Duration // user and system time of both ends
	peak int64         // of the command's resident memory, in bytes
}

// contestant delivers the file once under a name not used before.
type contestant struct {
	name    string
	short   string // in the heads of columns
	memory  int64  // bytes that a run fills, the page cache's included; 0 if they are few
	long    bool   // a run may take more than a second or two
	deliver func(ctx context.Context, name string) (cost, error)
}

// turns runs the contestants in turn, one warm-up round first, and each round in another order, as long as
// there is one: what one leaves to the disk and to the kernel, the next one may pay for.
func turns(ctx context.Context, rounds int, contestants []contestant) ([][]cost, error) {
	costs := make([][]cost, len(contestants))
	for round := range rounds + 1 {
		for _, i := range order(round, len(contestants)) {
			c := contestants[i]
			release, err := settle(ctx, c.memory, c.long)
			if err != nil {
				return nil, err
			}
			took, err := c.deliver(ctx, fmt.Sprintf("round-%d", round))
			if err = errors.Join(err, release()); err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			if round > 0 {
				costs[i] = append(costs[i], took)
			}
		}
	}
	return costs, nil
}

// order is one of all orders of so many, each round another one.
func order(round, contestants int) (indexes []int) {
	rest := make([]int, contestants)
	for i := range rest {
		rest[i] = i
	}
	for n := contestants; n > 0; n-- {
		i := round % n
		round /= n
		indexes = append(indexes, rest[i])
		rest = slices.Delete(rest, i, i+1)
	}
	return indexes
}

// report prints a table; what one run delivers is unit, and there are per of
// them a run.
func report(heading string, contestants []contestant, costs [][]cost, per float64, unit string) {
	fmt.Printf("%s; medians of %d rounds in turn.\n\n", heading, len(costs[0]))
	fmt.Printf("| contestant | wall s | %s/s | CPU s, both ends |", unit)
	for _, c := range contestants[1:] {
		fmt.Printf(" wall to %s | CPU |", c.short)
	}
	fmt.Print("\n|---|---|---|---|")
	for range contestants[1:] {
		fmt.Print("---|---|")
	}
	fmt.Println()
	for i, c := range contestants {
		wall, cpu := medians(costs[i])
		fmt.Printf("| %s | %.2f | %.0f | %.2f |", c.name, wall.Seconds(), per/wall.Seconds(), cpu.Seconds())
		for j := range contestants[1:] {
			w, p := medians(costs[j+1])
			fmt.Printf(" %.2f | %.2f |", wall.Seconds()/w.Seconds(), cpu.Seconds()/p.Seconds())
		}
		fmt.Println()
	}
	fmt.Println()
}

func medians(costs []cost) (wall, cpu time.Duration) {
	return median(costs, func(c cost) time.Duration { return c.wall }), median(costs, func(c cost) time.Duration { return c.cpu })
}

func median(costs []cost, of func(cost) time.Duration) time.Duration {
	var all []time.Duration
	for _, c := range costs {
		all = append(all, of(c))
	}
	return medianOf(all)
}

func medianOf(all []time.Duration) time.Duration {
	all = slices.Sorted(slices.Values(all))
	return all[len(all)/2]
}
