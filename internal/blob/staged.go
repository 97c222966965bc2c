package blob

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// chunk is how much a Staged gathers before it writes: few system calls for
// little memory.
const chunk = 64 << 10

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, chunk); return &b }}

// Staged is a file that has no name yet. It is used by one goroutine.
type Staged struct {
	disk   *Disk
	name   string   // in staging
	file   *os.File // nil once published or discarded
	held   *[]byte  // written by the caller, not yet to the file; nil if none
	size   int64    // written by the caller
	failed error    // of the first write that failed
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
	return &Staged{disk: d, name: name, file: f}, nil
}

// Write appends p to the file. An error of the disk may show only in a later
// call; Publish reports every one of them.
func (s *Staged) Write(p []byte) (int, error) {
	if s.failed != nil {
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
	if s.held == nil || len(p) >= chunk {
		if _, err := s.file.Write(p); err != nil {
			s.failed = err
			return 0, err
		}
	} else {
		*s.held = append(*s.held, p...)
	}
	s.size += int64(len(p))
	return len(p), nil
}

func (s *Staged) flush() error {
	if s.failed != nil || s.held == nil || len(*s.held) == 0 {
		return s.failed
	}
	_, s.failed = s.file.Write(*s.held)
	*s.held = (*s.held)[:0]
	return s.failed
}

func (s *Staged) release() {
	if s.held != nil {
		*s.held = (*s.held)[:0]
		buffers.Put(s.held)
		s.held = nil
	}
}

// Size is how many bytes were written since the start or Reset.
func (s *Staged) Size() int64 { return s.size }

// Reset drops what was written so far.
func (s *Staged) Reset() error {
	s.release()
	s.size = 0
	if _, s.failed = s.file.Seek(0, 0); s.failed == nil {
		s.failed = s.file.Truncate(0)
	}
	return s.failed
}

// Publish gives the file its name. When it returns nil, the file is whole and
// durable under that name: it survives a power loss. [ErrExists] means that
// there is a file of that name, which stays as it is; this one is still staged
// then, as after any other error.
func (s *Staged) Publish(folder, name string) error {
	if err := errors.Join(checkName(folder), checkName(name)); err != nil {
		return err
	}
	if err := s.flush(); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if err := s.file.Sync(); err != nil {
		s.failed = err // what the kernel dropped, no second fsync would report
		return fmt.Errorf("write: %w", err)
	}
	handle, err := s.disk.move(s.name, folder, name)
	if err != nil {
		return err
	}
	// From here on the file has its name. If the folder cannot be synced, nobody
	// may be told so, but nor may the file be emptied: it stays where it is.
	file := s.file
	s.file = nil
	s.release()
	return errors.Join(handle.Sync(), handle.Close(), file.Close())
}

// move renames a staged file without replacing another, and returns a handle of
// the folder.
func (d *Disk) move(staged, folder, name string) (*os.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, err := d.makeShelf(folder)
	if err != nil {
		return nil, fmt.Errorf("folder: %w", err)
	}
	handle, err := s.root.Open(".")
	if err != nil {
		return nil, fmt.Errorf("folder: %w", err)
	}
	err = unix.Renameat2(d.stagingFD(), staged, int(handle.Fd()), name, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		err = d.link(staged, handle, name)
	}
	switch {
	case errors.Is(err, unix.EEXIST):
		err = ErrExists
	case err != nil:
		err = fmt.Errorf("publish: %w", err)
	}
	if err != nil {
		return nil, errors.Join(err, handle.Close())
	}
	return handle, nil
}

// link is for filesystems that cannot rename without replacing. A crash between
// the two steps leaves the file with two names; Sweep takes the staged one away
// without emptying the file.
func (d *Disk) link(staged string, folder *os.File, name string) error {
	if err := unix.Linkat(d.stagingFD(), staged, int(folder.Fd()), name, 0); err != nil {
		return err
	}
	return unix.Unlinkat(d.stagingFD(), staged, 0)
}

// Discard drops the file. After Publish succeeded it does nothing, so that it
// can be deferred.
func (s *Staged) Discard() error {
	if s.file == nil {
		return nil
	}
	s.release()
	err := s.file.Close()
	s.file = nil
	return errors.Join(err, s.disk.recycle(s.name))
}

func (d *Disk) stagingFD() int { return int(d.staging.handle.Fd()) }

// fresh is a name in staging that no file has.
func (d *Disk) fresh() string { return "staged-" + strconv.FormatUint(d.serial.Add(1), 10) }

// spare takes an empty file from those that are kept, or returns "".
func (d *Disk) spare() string {
	d.spareMu.Lock()
	defer d.spareMu.Unlock()
	last := len(d.spares) - 1
	if last < 0 {
		return ""
	}
	name := d.spares[last]
	d.spares = d.spares[:last]
	return name
}
