package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"ferry/server"
)

// limitFlags are the flags of what clients can make the server hold. The
// defaults are those of server.Limits.
type limitFlags struct {
	conns, perAddress, perClient int
	handshake, idle              time.Duration
	files, clients               int64
	rate, fileSize, staged, free size
	stagedPerClient              size
	unfinished                   int
	keepUnfinished               time.Duration
}

func (l *limitFlags) register(flags *pflag.FlagSet) {
	l.rate, l.staged, l.stagedPerClient, l.free = 1<<10, 1<<40, 512<<30, 64<<20
	flags.IntVar(&l.conns, "max-conns", 1024, "connections served at once, `N`")
	flags.IntVar(&l.perAddress, "max-conns-per-address", 256, "connections from one address, `N`, loopback included")
	flags.IntVar(&l.perClient, "max-conns-per-client", 32, "connections of one client, `N`")
	flags.DurationVar(&l.handshake, "handshake-timeout", 10*time.Second, "how long a connection may take to say who it is, a `DURATION`")
	flags.DurationVar(&l.idle, "idle-timeout", 30*time.Second, "how long a known client may be silent, a `DURATION`")
	flags.Var(&l.rate, "min-rate", "least `SIZE` a second that a file has to come with")
	flags.Var(&l.fileSize, "max-file-size", "largest file, a `SIZE`; 0 is what the version can carry")
	flags.Var(&l.staged, "max-staged", "`SIZE` that unfinished files may have on disk in all")
	flags.Var(&l.stagedPerClient, "max-staged-per-client", "`SIZE` that unfinished files of one client may have on disk")
	flags.IntVar(&l.unfinished, "max-unfinished-per-client", 1000, "interrupted files of one client that are kept to go on with, `N`")
	flags.DurationVar(&l.keepUnfinished, "keep-unfinished", 24*time.Hour, "how long they are kept, a `DURATION`")
	flags.Var(&l.free, "min-free", "`SIZE` of the disk to leave free: files that would use it are refused")
	flags.Int64Var(&l.files, "max-files-per-client", 1_000_000, "files that one client may store, `N`")
	flags.Int64Var(&l.clients, "max-clients", 100_000, "clients that may register, `N`")
}

func (l *limitFlags) check() error {
	var errs []error
	for _, f := range []struct {
		name  string
		value int64
	}{
		{"max-conns", int64(l.conns)}, {"max-conns-per-address", int64(l.perAddress)}, {"max-conns-per-client", int64(l.perClient)},
		{"max-files-per-client", l.files}, {"max-clients", l.clients},
		{"min-rate", int64(l.rate)}, {"max-staged", int64(l.staged)},
		{"max-staged-per-client", int64(l.stagedPerClient)}, {"max-unfinished-per-client", int64(l.unfinished)},
	} {
		if f.value < 1 {
			errs = append(errs, fmt.Errorf("--%s %d: want at least 1", f.name, f.value))
		}
	}
	for _, f := range []struct {
		name  string
		value time.Duration
	}{{"handshake-timeout", l.handshake}, {"idle-timeout", l.idle}, {"keep-unfinished", l.keepUnfinished}} {
		if f.value <= 0 {
			errs = append(errs, fmt.Errorf("--%s %v: it must be more than nothing", f.name, f.value))
		}
	}
	return errors.Join(errs...)
}

func (l *limitFlags) limits() server.Limits {
	free := int64(l.free)
	if free == 0 {
		free = -1 // the default is another one
	}
	return server.Limits{
		Conns: l.conns, ConnsPerAddress: l.perAddress, ConnsPerClient: l.perClient,
		Handshake: l.handshake, Idle: l.idle, Rate: int64(l.rate),
		FileSize: int64(l.fileSize), Staged: int64(l.staged), Free: free,
		StagedPerClient: int64(l.stagedPerClient), Unfinished: l.unfinished, KeepUnfinished: l.keepUnfinished,
		Files: l.files, Clients: l.clients,
	}
}

// size is a flag's number of bytes, with a unit or without.
type size int64

var _ pflag.Value = (*size)(nil)

// units from the largest to the smallest.
var units = []struct {
	name  string
	bytes size
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}

// String returns the largest unit that leaves a whole number.
func (s *size) String() string {
	for _, u := range units {
		if *s != 0 && *s%u.bytes == 0 {
			return strconv.FormatInt(int64(*s/u.bytes), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(*s), 10)
}

// Set reads what String writes.
func (s *size) Set(text string) error {
	digits, unit := text, size(1)
	for _, u := range units {
		if rest, ok := strings.CutSuffix(text, u.name); ok {
			digits, unit = strings.TrimSpace(rest), u.bytes
		}
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil {
		return err
	}
	if size(n) > (1<<63-1)/unit {
		return strconv.ErrRange
	}
	*s = size(n) * unit
	return nil
}

// Type names the kind of value, for what wanted says.
func (s *size) Type() string { return "size" }
