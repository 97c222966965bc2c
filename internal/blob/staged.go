package blob

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ferry/internal/direct"
)

const (
	// chunk is how much a Staged gathers before it writes: few system calls for
	// little memory.
	chunk = 64 << 10
	// pushEvery is after how many bytes the kernel is asked to begin writing them
	// to the disk, so that the fsync at the end is short, and one of the whole
	// filesystem has little to do beside what it was called for.
	pushEvery = 1 << 20
	// cacheTail is how much of the end of a file stays in the kernel's cache, of a
	// disk that is [Disk.Archive], where nothing is written past it.
	cacheTail = 8 << 20
	// directFrom is from which size on a file of such a disk is written past the
	// cache, where that can be: see [direct.Writer].
	directFrom = 8 << 20
	// mostDirect is how many files are written so at once, with [direct.Memory] each:
	// those that were there first, until they end.
	mostDirect = 4
	// flushEvery is after how many bytes more what is there is made durable beside
	// what goes on. A disk may have taken all of a file and still need a second to
	// flush its own cache.
	flushEvery = 64 << 20
)

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, chunk); return &b }}

// Staged is a file that has no name yet. It is used by one goroutine.
type Staged struct {
	disk    *Disk
	name    string   // in staging
	file    *os.File // nil once published, discarded or closed
	held    *[]byte  // written by the caller, not yet to the file; nil if none
	size    int64    // written by the caller
	pushed  int64    // of it, what is on its way to the disk
	durable bool     // nothing has changed since the last fsync
	failed  error    // of the first write or fsync that failed

	direct *direct.Writer // nil unless what comes is written past the cache
	asked  bool           // whether what comes can be, which is asked once

	let      int64      // of pushed, what the cache was asked to let go of
	flushed  int64      // where the last flush beside writing began
	flushing chan error // gets the error of the one that goes on; nil if there is none

	mode    fs.FileMode // permission bits to publish with; 0 for the usual
	modTime time.Time   // to publish with; zero for that of the last write

	keep *keeper // nil unless it may go on in another process
}

// Stage begins a file. Either Publish or Discard must follow.
func (d *Disk) Stage() (*Staged, error) {
	name, flags := d.spare(), os.O_RDWR
	if name == "" {
		name, flags = d.fresh(), os.O_RDWR|os.O_CREATE|os.O_EXCL
	}
	f, err := d.staging.root.OpenFile(name, flags, fileMode)
	if err != nil {
		return nil, fmt.Errorf("stage: %w", err)
	}
	if d.usual.Load() == 0 {
		info, err := f.Stat()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("stage: %w", err), f.Close())
		}
		d.usual.Store(uint32(info.Mode().Perm()))
	}
	return &Staged{disk: d, name: name, file: f}, nil
}

// Describe sets the permission bits and the time of the last change that the file
// is to be published with. The owner may always read it. Zero values stand for
// the usual bits, and for the time of the last write.
func (s *Staged) Describe(mode fs.FileMode, modTime time.Time) {
	s.mode, s.modTime, s.durable = mode.Perm(), modTime, false
}

// Write appends p to the file. An error of the disk may show only in a later
// call; Publish reports every one of them.
func (s *Staged) Write(p []byte) (int, error) {
	if s.failed != nil {
		return 0, s.failed
	}
	if s.passesCache() {
		return s.writePast(p)
	}
	if s.failed != nil { // what was written before could not be flushed
		return 0, s.failed
	}
	if s.held == nil && len(p) < chunk {
		s.held, _ = buffers.Get().(*[]byte)
	}
	if s.held != nil && len(*s.held)+len(p) > chunk {
		if err := s.flush(); err != nil {
			return 0, err
		}
	}
	s.durable = false
	if s.held == nil || len(p) >= chunk {
		if _, err := s.file.Write(p); err != nil {
			s.failed = err
			return 0, err
		}
	} else {
		*s.held = append(*s.held, p...)
	}
	s.size += int64(len(p))
	s.push()
	return len(p), nil
}

// passesCache reports whether what comes is written past the cache.
func (s *Staged) passesCache() bool {
	if s.direct != nil || s.asked || !s.disk.Archive || s.size < s.disk.directFrom {
		return s.direct != nil
	}
	s.asked = true
	if s.flush() != nil {
		return false
	}
	f, err := s.disk.staging.root.OpenFile(s.name, os.O_WRONLY|unix.O_DIRECT, 0)
	if err != nil {
		return false
	}
	w, err := s.disk.directs.New(s.file, f, s.size)
	if err != nil {
		_ = f.Close() // nothing was written to it
		return false
	}
	s.direct = w
	return true
}

// writePast appends p past the cache.
func (s *Staged) writePast(p []byte) (int, error) {
	s.durable = false
	if _, err := s.direct.Write(p); err != nil {
		s.failed = err
		return 0, err
	}
	s.size += int64(len(p))
	s.push()
	return len(p), nil
}

// leaveDirect waits for what is being written past the cache, lets go of what that takes, and
// returns the error of the first write that failed.
func (s *Staged) leaveDirect() error {
	if s.direct == nil {
		return nil
	}
	err := s.direct.Close()
	s.direct = nil
	return err
}

func (s *Staged) flush() error {
	if s.failed == nil && s.direct != nil {
		s.failed = s.direct.Flush()
	}
	if s.failed != nil || s.held == nil || len(*s.held) == 0 {
		return s.failed
	}
	_, s.failed = s.file.Write(*s.held)
	*s.held = (*s.held)[:0]
	return s.failed
}

// push begins to write back what the file has got since the last time, and now
// and then to make it durable.
func (s *Staged) push() {
	written := s.size
	if s.held != nil {
		written -= int64(len(*s.held))
	}
	if s.direct != nil {
		s.pushed = written
	} else if n := written - s.pushed; n >= pushEvery {
		// Only advice: what goes wrong shows when the file is synced.
		_ = unix.SyncFileRange(int(s.file.Fd()), s.pushed, n, unix.SYNC_FILE_RANGE_WRITE)
		s.pushed = written
		s.let = s.letGo(s.let, written)
	}
	if written-s.flushed < flushEvery {
		return
	}
	select {
	case err := <-s.flushing:
		s.flushing = nil
		s.failed = err
	default:
	}
	if s.flushing == nil && s.failed == nil {
		s.flushed, s.flushing = written, make(chan error, 1)
		go func(f *os.File, done chan<- error) {
			err := s.disk.dataSync(f)
			s.letGo(0, written) // what was not on the disk before is now
			done <- err
		}(s.file, s.flushing)
	}
}

// letGo asks the cache of an archive to keep no more of the first so many bytes than their
// tail, from an offset on. What is not on the disk yet stays. It returns up to where it asked.
func (s *Staged) letGo(from, written int64) int64 {
	to := (written - cacheTail) &^ (pushEvery - 1) // large folios end there
	if !s.disk.Archive || to <= from {
		return from
	}
	_ = unix.Fadvise(int(s.file.Fd()), from, to-from, unix.FADV_DONTNEED) // advice
	return to
}

// join waits for the flush that goes on. What it could not write, no later fsync
// would report: that is an error of the file from then on.
func (s *Staged) join() error {
	if s.flushing != nil {
		if err := <-s.flushing; s.failed == nil {
			s.failed = err
		}
		s.flushing = nil
	}
	return s.failed
}

// dataSync is fdatasync.
func dataSync(f *os.File) error {
	_, err := again(func() (int, error) { return 0, unix.Fdatasync(int(f.Fd())) })
	if err != nil {
		return &fs.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
	}
	return nil
}

func (s *Staged) release() {
	if s.held != nil {
		*s.held = (*s.held)[:0]
		buffers.Put(s.held)
		s.held = nil
	}
}

// Size is how many bytes were written since the start or Reset, and kept from
// before.
func (s *Staged) Size() int64 { return s.size }

// Reset drops what was written so far, and what was kept.
func (s *Staged) Reset() error {
	s.release()
	_ = errors.Join(s.join(), s.leaveDirect()) // it speaks of what is dropped
	s.size, s.pushed, s.let, s.flushed, s.durable, s.asked = 0, 0, 0, 0, false, false
	if s.failed = s.keep.forget(); s.failed != nil {
		return s.failed
	}
	if _, s.failed = s.file.Seek(0, 0); s.failed == nil {
		s.failed = s.file.Truncate(0)
	}
	return s.failed
}

// Sync makes durable what was written, so that Publish has little left to do.
func (s *Staged) Sync() error {
	if err := s.settle(); err != nil || s.durable {
		return err
	}
	if err := s.join(); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if err := s.file.Sync(); err != nil {
		s.failed = err // what the kernel dropped, no second fsync would report
		return fmt.Errorf("write: %w", err)
	}
	s.letGo(0, s.size)
	s.durable = true
	return nil
}

// settle gives the file what it lacks but durability.
func (s *Staged) settle() error {
	if err := s.flush(); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if s.durable {
		return nil
	}
	if s.direct != nil {
		if s.failed = s.direct.Settle(); s.failed != nil {
			return fmt.Errorf("write: %w", s.failed)
		}
	}
	if s.mode != 0 {
		if err := s.file.Chmod(s.mode | 0o400); err != nil {
			return fmt.Errorf("set mode: %w", err)
		}
	}
	if s.modTime.IsZero() {
		return nil
	}
	ts, err := unix.TimeToTimespec(s.modTime)
	if err != nil {
		return fmt.Errorf("set time: %w", err)
	}
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, ts}
	if err := unix.UtimesNanoAt(s.disk.stagingFD(), s.name, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set time: %w", err)
	}
	return nil
}

// Publish gives the file its name, whose folders it makes if need be. When it
// returns nil, the file is whole and durable under that name: it survives a
// power loss. [ErrExists] means that there is a file of that name, which stays as
// it is, [ErrNotFolder] that one of its folders is none; this file is still
// staged then, as after any other error but [ErrNotDurable].
func (s *Staged) Publish(folder, name string) error {
	return s.disk.PublishAll([]Publication{{s, folder, name}})[0]
}

// Discard drops the file. After Publish succeeded it does nothing, so that it
// can be deferred; nor after Close.
func (s *Staged) Discard() error {
	if s.file == nil {
		return nil
	}
	s.release()
	_ = errors.Join(s.join(), s.leaveDirect()) // it speaks of what is dropped
	err := errors.Join(s.keep.forget(), s.file.Close())
	s.file = nil
	name := s.name
	if s.keep != nil {
		// Its name is given again; the spare needs one of its own.
		name = s.disk.fresh()
		err = errors.Join(err, s.disk.staging.root.Rename(s.name, name), s.keep.end())
	}
	if err != nil {
		return err
	}
	return s.disk.recycle(name)
}

func (d *Disk) stagingFD() int { return int(d.staging.handle.Fd()) }

// fresh is a name in staging that no file has.
func (d *Disk) fresh() string { return "staged-" + strconv.FormatUint(d.serial.Add(1), 10) }

// spare takes an empty file from those that are kept, or returns "".
func (d *Disk) spare() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	last := len(d.spares) - 1
	if last < 0 {
		return ""
	}
	name := d.spares[last]
	d.spares = d.spares[:last]
	return name
}
