package blob

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
)

// A file staged under a key may go on in another process. It is two files in
// staging: the bytes, and a sidecar of slots, each of which says how many of
// the bytes count and what their writer wants to know again. The first slot
// is written over and over and is good as long as the machine does not go down,
// as is what was written before it; the two others take turns, and are durable.
const (
	keptPrefix = "kept-"
	stateTail  = ".state"
	slotSize   = 4 << 10 // a page: half of one is never written
	slots      = 3
	maxKey     = 200
	// maxState is what a writer may want to know.
	maxState = 2 << 10
)

var slotMagic = []byte("ferrykp1")

// ErrInUse: a file is staged under that key by somebody else.
var ErrInUse = errors.New("staged already")

// keeper is what a Staged has that was staged under a key. A nil one does
// nothing.
type keeper struct {
	disk   *Disk
	key    string
	state  *os.File
	latest record
	last   int64 // slot of the newest durable record; 0 if there is none
	rooted bool  // the names of both files are durable
}

// record is one slot.
type record struct {
	serial  uint64 // counts the records of a file; 0 is none
	size    int64
	durable bool
	boot    string
	state   []byte
}

// bootID is what Linux calls this boot of the machine.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil || len(b) > 64 {
		return ""
	}
	return string(bytes.TrimSpace(b))
}

// append writes the record as it is in a slot. The key is in its checksum, so
// that nobody's sidecar is taken for another's.
func (r record) append(b []byte, key string) []byte {
	le := binary.LittleEndian
	b = append(b, slotMagic...)
	b = le.AppendUint64(b, r.serial)
	b = le.AppendUint64(b, uint64(r.size))
	durable := byte(0)
	if r.durable {
		durable = 1
	}
	b = append(b, durable, byte(len(r.boot)))
	b = append(b, r.boot...)
	b = le.AppendUint16(b, uint16(len(r.state)))
	b = append(b, r.state...)
	sum := slotSum(b, key)
	return append(b, sum[:]...)
}

func slotSum(b []byte, key string) [sha256.Size]byte {
	return sha256.Sum256(append(bytes.Clone(b), key...))
}

// parseRecord reads a slot; ok is false if it is torn, or was never written.
func parseRecord(b []byte, key string) (r record, ok bool) {
	le, at := binary.LittleEndian, len(slotMagic)
	if len(b) < at+18 || !bytes.Equal(b[:at], slotMagic) {
		return r, false
	}
	r.serial, r.size = le.Uint64(b[at:]), int64(le.Uint64(b[at+8:]))
	r.durable = b[at+16] == 1
	boot := int(b[at+17])
	at += 18
	if len(b) < at+boot+2 {
		return r, false
	}
	r.boot = string(b[at : at+boot])
	at += boot
	state := int(le.Uint16(b[at:]))
	at += 2
	if len(b) < at+state+sha256.Size {
		return r, false
	}
	r.state = bytes.Clone(b[at : at+state])
	at += state
	sum := slotSum(b[:at], key)
	return r, bytes.Equal(sum[:], b[at:at+len(sum)]) && r.serial > 0 && r.size >= 0
}

// best returns the newest record of a sidecar that counts, and the slot of the
// newest that is durable. A machine that went down since has kept what was synced
// and nothing else for sure.
func best(state io.ReaderAt, key, boot string, there int64) (latest record, last int64) {
	buf := make([]byte, slotSize)
	durable := uint64(0)
	for slot := range int64(slots) {
		n, err := state.ReadAt(buf, slot*slotSize)
		if err != nil && !errors.Is(err, io.EOF) {
			continue
		}
		r, ok := parseRecord(buf[:n], key)
		if !ok || r.size > there {
			continue
		}
		if r.durable && r.serial > durable {
			durable, last = r.serial, slot
		}
		sameBoot := boot != "" && r.boot == boot
		if (sameBoot || r.durable) && r.serial > latest.serial {
			latest = r
		}
	}
	return latest, last
}

// StageAs is Stage for a file that can be left with Close and goes on, under
// the same key, with another StageAs, also in another process: [Staged.Kept]
// says from where. The key is part of a file name. [ErrInUse] means that it was
// staged and neither published, discarded nor closed.
func (d *Disk) StageAs(key string) (_ *Staged, err error) {
	if err := checkPart(key); err != nil || len(key) > maxKey || strings.Contains(key, ".") {
		return nil, fmt.Errorf("%w: %q", ErrName, key)
	}
	if !d.claim(key) {
		return nil, ErrInUse
	}
	k := &keeper{disk: d, key: key}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("stage: %w", err), k.end())
		}
	}()
	if k.state, err = d.staging.root.OpenFile(keptPrefix+key+stateTail, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, err
	}
	f, err := d.staging.root.OpenFile(keptPrefix+key, os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, err
	}
	s := &Staged{disk: d, name: keptPrefix + key, file: f, keep: k}
	if err := s.goOn(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return s, nil
}

// goOn takes up what was kept of the file, and drops what lies behind it.
func (s *Staged) goOn() error {
	info, err := s.file.Stat()
	if err != nil {
		return err
	}
	k := s.keep
	k.latest, k.last = best(k.state, k.key, s.disk.boot, info.Size())
	if k.latest.serial == 0 {
		return s.Reset()
	}
	s.size = k.latest.size
	s.pushed, s.flushed = s.size, s.size
	if err := s.file.Truncate(s.size); err != nil {
		return err
	}
	_, err = s.file.Seek(s.size, io.SeekStart)
	return err
}

// Kept is how many bytes are there from before, and the state that was kept with
// them.
func (s *Staged) Kept() (size int64, state []byte) {
	if s.keep == nil {
		return 0, nil
	}
	return s.keep.latest.size, s.keep.latest.state
}

// Keep keeps what was written so far, with the state, which survives the end of
// the process when it returns nil. If durable, it survives a power loss as well:
// it takes two fsyncs, and one more for the first time. Of a file that was not
// staged under a key nothing is kept.
func (s *Staged) Keep(state []byte, durable bool) error {
	k := s.keep
	if k == nil {
		return nil
	}
	if len(state) > maxState {
		return fmt.Errorf("keep: a state of %d bytes", len(state))
	}
	if err := s.flush(); err != nil {
		return err
	}
	r := record{k.latest.serial + 1, s.size, durable, s.disk.boot, bytes.Clone(state)}
	slot := int64(0)
	if durable {
		if err := s.Sync(); err != nil {
			return err
		}
		slot = 1
		if k.last == 1 {
			slot = 2 // the durable one before it stays until this one is
		}
	}
	if _, err := k.state.WriteAt(r.append(nil, k.key), slot*slotSize); err != nil {
		return fmt.Errorf("keep: %w", err)
	}
	k.latest = r
	if !durable {
		return nil
	}
	k.last = slot
	return k.sync()
}

// sync makes the sidecar durable, and the names in staging.
func (k *keeper) sync() error {
	if err := k.state.Sync(); err != nil || k.rooted {
		return err
	}
	if err := k.disk.staging.handle.Sync(); err != nil {
		return err
	}
	k.rooted = true
	return nil
}

// Close leaves what was kept for another StageAs, and drops what was not. After
// Publish or Discard it does nothing.
func (s *Staged) Close() error {
	if s.file == nil {
		return nil
	}
	if size, _ := s.Kept(); size == 0 {
		return s.Discard()
	}
	if err := errors.Join(s.join(), s.leaveDirect()); err != nil { // nor is what was kept known to be there
		return errors.Join(err, s.Discard())
	}
	s.release()
	err := errors.Join(s.file.Truncate(s.keep.latest.size), s.file.Close())
	s.file = nil
	return errors.Join(err, s.keep.end())
}

// forget makes the sidecar say nothing. What it said must not come back with
// the power: other bytes will lie where those were that it speaks of.
func (k *keeper) forget() error {
	if k == nil {
		return nil
	}
	info, err := k.state.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	k.latest, k.last = record{}, 0
	if err := k.state.Truncate(0); err != nil {
		return err
	}
	if info.Size() > slotSize { // something durable
		return k.state.Sync()
	}
	return nil
}

// end closes the sidecar, and removes it if it says nothing. The key is free
// then.
func (k *keeper) end() error {
	if k == nil {
		return nil
	}
	defer k.disk.unclaim(k.key)
	if k.state == nil {
		return nil
	}
	err := k.state.Close()
	if k.latest.serial == 0 {
		err = errors.Join(err, k.disk.staging.root.Remove(keptPrefix+k.key+stateTail))
	}
	return err
}

func (d *Disk) claim(key string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.keys[key]; ok {
		return false
	}
	d.keys[key] = struct{}{}
	return true
}

func (d *Disk) unclaim(key string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.keys, key)
}

// A Leftover is a file that was staged under a key and closed, or whose process
// has ended.
type Leftover struct {
	Key  string
	Size int64 // of what was kept
	At   time.Time
}

// SweepKept takes away the files staged under a key that nobody has open and of
// which nothing can go on, or whose last Keep is longer ago than age. It calls fn
// with each, and says whether it was dropped. Others may be staging meanwhile.
func (d *Disk) SweepKept(age time.Duration, fn func(l Leftover, dropped bool)) error {
	return eachName(d.staging.handle, func(e fs.DirEntry) error {
		key, ok := strings.CutPrefix(e.Name(), keptPrefix)
		if !ok {
			return nil
		}
		key, sidecar := strings.CutSuffix(key, stateTail)
		if !d.claim(key) {
			return nil // in use
		}
		defer d.unclaim(key)
		if _, err := d.staging.root.Lstat(e.Name()); errors.Is(err, fs.ErrNotExist) {
			return nil // it went with the other one
		}
		l, err := d.leftover(key)
		switch {
		case err != nil:
			return fmt.Errorf("sweep: %w", err)
		case sidecar && l.Size > 0:
			return nil // the other of the two says it
		case l.Size > 0 && time.Since(l.At) <= age:
			fn(l, false)
			return nil
		}
		fn(l, true)
		return d.dropKept(key)
	})
}

// leftover says what can go on under a key: nothing if its size is 0.
func (d *Disk) leftover(key string) (l Leftover, err error) {
	l.Key = key
	info, err := d.staging.root.Lstat(keptPrefix + key)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return l, err
	}
	state, err := d.staging.root.Open(keptPrefix + key + stateTail)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return l, err
	}
	defer func() { err = errors.Join(err, state.Close()) }()
	said, err := state.Stat()
	if err != nil {
		return l, err
	}
	r, _ := best(state, key, d.boot, info.Size())
	l.Size, l.At = r.size, said.ModTime()
	return l, nil
}

// dropKept removes both files of a key, first the one that speaks of the other.
func (d *Disk) dropKept(key string) error {
	for _, name := range []string{keptPrefix + key + stateTail, keptPrefix + key} {
		if err := d.staging.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("sweep: %w", err)
		}
	}
	return nil
}
