// Package blob stores files durably and without ever replacing one: a file is
// staged, and published under its name when it is whole.
//
// Published files lie at <dir>/files/<folder>/<name>, where an operator can
// look at them and back them up; staged ones at <dir>/staging. A folder's files
// are touched only through that folder's own handle, and every name is one path
// component, so that no name leads out of its folder.
//
// Removed and discarded files are emptied and used again for staging, a bounded
// number of them: creating a file soon after deleting others costs ext4 twenty
// times the CPU of using one that is there.
package blob

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrExists: there is a file of that name in the folder.
var ErrExists = errors.New("a file of that name exists")

// ErrName: a folder or file name that is not one plain path component.
var ErrName = errors.New("not a plain file name")

const (
	maxName   = 255 // NAME_MAX of Linux
	maxSpares = 64  // emptied files kept for staging
	// Folders and files are their owner's, and readable by a group that the
	// operator gives them to.
	folderMode = 0o750
	fileMode   = 0o640
)

// Disk is a folder of files. It is safe for concurrent use; one process at a
// time may have a folder open (see package datadir).
type Disk struct {
	files   *os.Root
	staging *shelf

	serial atomic.Uint64 // of the staged file named last

	mu      sync.Mutex
	folders map[string]*shelf // open folders; guarded by mu

	spareMu sync.Mutex
	spares  []string // names in staging of empty files nobody uses; guarded by spareMu
}

// shelf is an open folder of published files.
type shelf struct {
	root   *os.Root
	handle *os.File // for renameat, linkat and fsync
}

// maxShelves bounds how many folders are kept open.
const maxShelves = 256

// Open opens a folder and creates what it lacks. Call Sweep before anything
// else if a process before this one may have been killed.
func Open(dir string) (*Disk, error) {
	for _, part := range []string{"files", "staging"} {
		if err := os.MkdirAll(filepath.Join(dir, part), folderMode); err != nil {
			return nil, fmt.Errorf("open %s folder: %w", part, err)
		}
	}
	if err := syncPath(dir); err != nil {
		return nil, err
	}
	files, err := os.OpenRoot(filepath.Join(dir, "files"))
	if err != nil {
		return nil, fmt.Errorf("open files folder: %w", err)
	}
	top, err := os.OpenRoot(dir)
	if err != nil {
		return nil, errors.Join(err, files.Close())
	}
	staging, err := openShelf(top, "staging")
	if err := errors.Join(err, top.Close()); err != nil {
		return nil, errors.Join(fmt.Errorf("open staging folder: %w", err), files.Close())
	}
	return &Disk{files: files, staging: staging, folders: map[string]*shelf{}}, nil
}

func openShelf(parent *os.Root, name string) (*shelf, error) {
	root, err := parent.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	handle, err := root.Open(".")
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return &shelf{root, handle}, nil
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Close closes the handles of the folders. Staged and opened files stay usable.
func (d *Disk) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for name, s := range d.folders {
		errs = append(errs, s.close())
		delete(d.folders, name)
	}
	return errors.Join(append(errs, d.files.Close(), d.staging.close())...)
}

func (s *shelf) close() error { return errors.Join(s.handle.Close(), s.root.Close()) }

// Open opens a published file for reading. What is removed while it is open
// may be seen to shrink to nothing: whoever reads compares sizes or sums.
func (d *Disk) Open(folder, name string) (*os.File, error) {
	var f *os.File
	err := d.in(folder, name, func(s *shelf) (err error) {
		f, err = s.root.Open(name)
		return err
	})
	return f, err
}

// Stat describes a published file; the error is fs.ErrNotExist if there is none.
func (d *Disk) Stat(folder, name string) (fs.FileInfo, error) {
	var info fs.FileInfo
	err := d.in(folder, name, func(s *shelf) (err error) {
		info, err = s.root.Lstat(name)
		return err
	})
	return info, err
}

// Remove takes a published file away. It is not durable by itself: after a
// power loss the file may be there again. It returns fs.ErrNotExist if there
// is none.
func (d *Disk) Remove(folder, name string) error {
	spare := d.fresh()
	err := d.in(folder, name, func(s *shelf) error {
		// The name goes first: nobody sees the file emptied under it.
		if err := unix.Renameat(int(s.handle.Fd()), name, d.stagingFD(), spare); err != nil {
			return &fs.PathError{Op: "remove", Path: name, Err: err}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return d.recycle(spare)
}

// in runs fn with an existing folder open.
func (d *Disk) in(folder, name string, fn func(*shelf) error) error {
	if err := errors.Join(checkName(folder), checkName(name)); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s, err := d.shelf(folder)
	if err != nil {
		return err
	}
	return fn(s)
}

// shelf opens an existing folder, or finds it open. The caller holds mu.
func (d *Disk) shelf(folder string) (*shelf, error) {
	if s, ok := d.folders[folder]; ok {
		return s, nil
	}
	s, err := openShelf(d.files, folder)
	if err != nil {
		return nil, err
	}
	if len(d.folders) >= maxShelves {
		for name, old := range d.folders { // any one will do
			delete(d.folders, name)
			if err := old.close(); err != nil {
				return nil, errors.Join(err, s.close())
			}
			break
		}
	}
	d.folders[folder] = s
	return s, nil
}

// makeShelf is shelf for a folder that may have to be created, durably.
func (d *Disk) makeShelf(folder string) (*shelf, error) {
	s, err := d.shelf(folder)
	if !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	if err := d.files.Mkdir(folder, folderMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if err := syncRoot(d.files); err != nil {
		return nil, err
	}
	return d.shelf(folder)
}

func syncRoot(r *os.Root) error {
	f, err := r.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Free is how many bytes the filesystem has left for this user.
func (d *Disk) Free() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(d.stagingFD(), &st); err != nil {
		return 0, fmt.Errorf("free room: %w", err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// IsFull reports whether err says that the disk, or the user's share of it, has
// no room left.
func IsFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

func checkName(s string) error {
	if s == "" || s == "." || s == ".." || len(s) > maxName || strings.ContainsAny(s, "/\x00") {
		return fmt.Errorf("%w: %q", ErrName, s)
	}
	return nil
}
