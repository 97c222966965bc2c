package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"time"

	"ferry/proto"
)

const (
	// maxSumState is the longest state of a sum that is kept.
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
	record := make([]byte, maxSumRecord)
	n, _ := io.ReadFull(f, record)
	return stateOf(record[:n])
}

// keep keeps a state in place of the one before; nil drops it. It is written over that, which takes
// a small part of the time of a new file: some hundred times for a GiB.
func (s sums) keep(id proto.TransferID, state []byte) {
	switch {
	case s == "":
		return
	case state == nil, len(state) > maxSumState:
		_ = os.Remove(s.of(id))
		return
	}
	record := recordOf(state)
	if err := s.put(id, record); os.IsNotExist(err) && os.MkdirAll(string(s), 0o700) == nil {
		_ = s.put(id, record)
	}
}

func (s sums) put(id proto.TransferID, record []byte) error {
	f, err := os.OpenFile(s.of(id), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(record)
	return errors.Join(err, f.Close())
}

// maxSumRecord is the longest record of a state: its length in two bytes, itself, and the CRC-32 (IEEE 802.3) of
// both in four, in network byte order. What is behind it is of a longer one before. What was not written whole, or is not a
// record, is nothing.
const maxSumRecord = 2 + maxSumState + 4

func recordOf(state []byte) []byte {
	r := binary.BigEndian.AppendUint16(nil, uint16(len(state))) // no longer than maxSumState: see keep
	r = append(r, state...)
	return binary.BigEndian.AppendUint32(r, crc32.ChecksumIEEE(r))
}

func stateOf(record []byte) []byte {
	if len(record) < 2 {
		return nil
	}
	end := 2 + int(binary.BigEndian.Uint16(record))
	if len(record) < end+4 || binary.BigEndian.Uint32(record[end:]) != crc32.ChecksumIEEE(record[:end]) {
		return nil
	}
	return record[2:end]
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
