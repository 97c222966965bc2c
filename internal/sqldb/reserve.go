package sqldb

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// reserveEvery is how often a reserve that was given up is looked after.
const reserveEvery = 5 * time.Second

// reserve is room on the disk that a file beside the database holds, so that
// nobody else can take it. After Open it belongs to the goroutine of commitLoop.
type reserve struct {
	path string
	size int64 // bytes; 0 for none
	held bool
}

// openReserve takes the room if there is enough. On a disk that is full it gives
// up what was kept: opening a database writes.
func openReserve(path string, size int64) *reserve {
	r := &reserve{path: path, size: size}
	if size == 0 {
		return r
	}
	info, err := os.Stat(path)
	r.held = err == nil && info.Size() == size
	if r.held && r.free() < size/4 {
		r.giveUp()
	}
	r.take()
	return r
}

// take takes the room, unless it is held or hardly more than that is left. A
// file system that cannot promise room has no reserve.
func (r *reserve) take() {
	if r.held || r.size == 0 || r.free() < 2*r.size {
		return
	}
	f, err := os.OpenFile(r.path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return
	}
	if err := errors.Join(unix.Fallocate(int(f.Fd()), 0, 0, r.size), f.Close()); err != nil {
		_ = os.Remove(r.path)
		return
	}
	r.held = true
}

// giveUp reports whether there was something to give up.
func (r *reserve) giveUp() bool {
	if !r.held {
		return false
	}
	r.held = false
	err := os.Remove(r.path)
	return err == nil || errors.Is(err, fs.ErrNotExist)
}

// free is how many bytes the disk has left, 0 if that cannot be known.
func (r *reserve) free() int64 {
	var st unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(r.path), &st); err != nil {
		return 0
	}
	return int64(st.Bavail) * st.Bsize
}
