package server

import (
	"cmp"
	"time"
)

// Limits bound what clients can make the server hold. Zero values mean the
// defaults stated.
type Limits struct {
	// Conns is how many connections are served at once; 1,024.
	Conns int
	// ConnsPerAddress is how many of them may come from one address, the 64-bit
	// network of it in IPv6; 256. Loopback is no exception: what reaches a
	// server through a proxy or a tunnel comes from there.
	ConnsPerAddress int
	// ConnsPerClient is how many of them may be one client's; 32.
	ConnsPerClient int
	// Handshake bounds the time from a connection's first byte until the client
	// is known; 10 s.
	Handshake time.Duration
	// Idle bounds the wait for a single read or write, also between files; 30 s.
	Idle time.Duration
	// Rate is how many bytes a second a file has to come with at least, averaged
	// over Idle; 1 KiB.
	Rate int64
	// FileSize is the largest file in bytes; what the version can carry.
	FileSize int64
	// Staged is how many bytes of files that are not complete may be held on
	// disk in all; 1 TiB. No file can be larger.
	Staged int64
	// StagedPerClient is how many of them may be one client's; 512 GiB.
	StagedPerClient int64
	// Unfinished is how many transfers that can go on one client may leave
	// unfinished; 1,000.
	Unfinished int
	// KeepUnfinished is how long what came of such a transfer is kept for it; 24 h.
	KeepUnfinished time.Duration
	// Free is how many bytes of the disk are left alone: files that would use
	// them are refused, and the catalog goes on; 64 MiB. -1 leaves nothing.
	Free int64
	// Files is how many files one client may store; 1,000,000. Those that are
	// stored at the same moment may pass it by their number.
	Files int64
	// Clients is how many clients may register in all; 100,000.
	Clients int64
}

func (l Limits) withDefaults() Limits {
	l.Conns = cmp.Or(l.Conns, 1024)
	l.ConnsPerAddress = cmp.Or(l.ConnsPerAddress, 256)
	l.ConnsPerClient = cmp.Or(l.ConnsPerClient, 32)
	l.Handshake = cmp.Or(l.Handshake, 10*time.Second)
	l.Idle = cmp.Or(l.Idle, 30*time.Second)
	l.Rate = cmp.Or(l.Rate, 1<<10)
	l.Staged = cmp.Or(l.Staged, 1<<40)
	l.StagedPerClient = cmp.Or(l.StagedPerClient, 512<<30)
	l.Unfinished = cmp.Or(l.Unfinished, 1000)
	l.KeepUnfinished = cmp.Or(l.KeepUnfinished, 24*time.Hour)
	l.Free = max(cmp.Or(l.Free, 64<<20), 0)
	l.Files = cmp.Or(l.Files, 1_000_000)
	l.Clients = cmp.Or(l.Clients, 100_000)
	return l
}
