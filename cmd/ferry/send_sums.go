package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"ferry/internal/atomicfile"
	"ferry/proto"
)

const (
	// maxSumState is the longest state of a sum that is read.
	maxSumState = 4 << 10
	// sumsKeptFor is how long a transfer may rest and go on without being read
	// anew. Servers forget what they keep of it earlier.
	sumsKeptFor = 30 * 24 * time.Hour
)

// sums is a folder that keeps how far large files have been summed, for a
// process that goes on with them after this one was killed. It saves time and
// nothing else: what cannot be kept is read again, and a sum that is wrong makes
// the server ask for the file anew. "" keeps nothing.
type sums string

func (s sums) of(id proto.TransferID) string {
	return filepath.Join(string(s), fmt.Sprintf("%x", id[:]))
}

// begun is what was kept of a transfer, or nil.
func (s sums) begun(id proto.TransferID) []byte {
	if s == "" {
		return nil
	}
	f, err := os.Open(s.of(id))
	if err != nil {
		return nil
	}
	defer f.Close() //nolint:errcheck // only read
	state := make([]byte, maxSumState)
	n, _ := f.Read(state) // in one piece, or not at all
	return state[:n]
}

// keep keeps a state in place of the one before; nil drops it.
func (s sums) keep(id proto.TransferID, state []byte) {
	if s == "" {
		return
	}
	if state == nil {
		_ = os.Remove(s.of(id))
		return
	}
	if err := atomicfile.Write(s.of(id), state, 0o600); os.IsNotExist(err) && os.MkdirAll(string(s), 0o700) == nil {
		_ = atomicfile.Write(s.of(id), state, 0o600)
	}
}

// sweep drops what nobody went on with.
func (s sums) sweep(now time.Time) {
	if s == "" {
		return
	}
	entries, err := os.ReadDir(string(s))
	if err != nil {
		return
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && now.Sub(info.ModTime()) > sumsKeptFor {
			_ = os.Remove(filepath.Join(string(s), e.Name()))
		}
	}
}
