// Package blob stores files durably and without ever replacing one: a file is
// staged, and published under its name when it is whole.
//
// Published files lie at <dir>/files/<folder>/<name>, where an operator can
// look at them and back them up; staged ones at <dir>/staging. A name may have
// folders of its own, "a/b/c.txt"; each of its parts is one plain path component,
// and symbolic links are not followed, so that no name leads out of its folder.
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

	"ferry/internal/direct"
)

// What a name may meet.
var (
	// ErrExists: there is a file of that name in the folder, or something else.
	ErrExists = errors.New("a file of that name exists")
	// ErrIsFolder: there is a folder of that name. It is an ErrExists.
	ErrIsFolder = fmt.Errorf("a folder has that name: %w", ErrExists)
	// ErrNotFolder: a folder of the name is a file already, or a symbolic link.
	ErrNotFolder = errors.New("a folder of the name is no folder")
	// ErrName: a folder or file name that is none: a part of it is not one plain
	// path component, or it is too long.
	ErrName = errors.New("not a plain file name")
)

const (
	maxPart   = 255  // NAME_MAX of Linux
	maxName   = 1024 // of a file with its folders: the longest that anybody asks for, and a bound on their depth
	maxSpares = 64   // emptied files kept for staging
	// Folders and files are their owner's, and readable by a group that the
	// operator gives them to.
	folderMode = 0o750
	fileMode   = 0o640
)

// Disk is a folder of files. It is safe for concurrent use; one process at a
// time may have a folder open (see package datadir).
type Disk struct {
	// Archive says that what is staged is not read again soon. The kernel's cache keeps no
	// more than 8 MiB of a file then: what others have there stays. Of up to four larger files
	// at once, what follows those is written past it, where that can be. It is set before
	// anything is staged.
	Archive bool

	files   *os.File
	staging *shelf

	serial atomic.Uint64 // of the staged file named last
	usual  atomic.Uint32 // permission bits that a new file gets; 0 if none was made yet

	// publishing is held for reading while names are given, and for writing while
	// folders are made and not durable: whoever finds a folder can rely on it.
	publishing sync.RWMutex
	owed       bool // a folder was made and could not be made durable; guarded by publishing

	boot     string // which boot of the machine this is; "" if it cannot tell
	dataSync func(*os.File) error

	directs    *direct.Pool
	directFrom int64 // from which size on files pass the cache

	mu     sync.Mutex
	spares []string            // names in staging of empty files nobody uses; guarded by mu
	keys   map[string]struct{} // of files staged with StageAs; guarded by mu
}

// shelf is the open folder of staged files.
type shelf struct {
	root   *os.Root
	handle *os.File // for renameat, linkat and syncfs
}

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
	files, err := os.Open(filepath.Join(dir, "files"))
	if err != nil {
		return nil, fmt.Errorf("open files folder: %w", err)
	}
	staging, err := openShelf(filepath.Join(dir, "staging"))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open staging folder: %w", err), files.Close())
	}
	return &Disk{files: files, staging: staging, boot: bootID(), dataSync: dataSync, keys: map[string]struct{}{},
		directs: direct.NewPool(mostDirect), directFrom: directFrom}, nil
}

func openShelf(path string) (*shelf, error) {
	root, err := os.OpenRoot(path)
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
	return errors.Join(d.files.Close(), d.staging.handle.Close(), d.staging.root.Close())
}

// Open opens a published file for reading. What is removed while it is open
// may be seen to shrink to nothing: whoever reads compares sizes or sums.
func (d *Disk) Open(folder, name string) (*os.File, error) {
	var f *os.File
	err := d.in(folder, name, func(at *os.File, base string) (err error) {
		f, err = openFile(at, base)
		return err
	})
	return f, err
}

// Stat describes a published file; the error is fs.ErrNotExist if there is none,
// and ErrNotFolder if a folder of its name is a file.
func (d *Disk) Stat(folder, name string) (fs.FileInfo, error) {
	var info fs.FileInfo
	err := d.in(folder, name, func(at *os.File, base string) (err error) {
		info, err = lstat(at, base)
		return err
	})
	return info, err
}

// Sync makes a file that somebody else put under its name durable, with its
// folders.
func (d *Disk) Sync(folder, name string) error {
	f, err := d.Open(folder, name)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	d.publishing.Lock()
	defer d.publishing.Unlock()
	p := newPlaces(d, true)
	dir, _ := split(folder + "/" + name)
	if _, err := p.folder(dir); err != nil {
		return errors.Join(err, p.close())
	}
	p.dirty[""] = struct{}{}
	for path := range p.open {
		p.dirty[path] = struct{}{}
	}
	return errors.Join(p.sync(), p.close())
}

// Remove takes a published file away. It is not durable by itself: after a
// power loss the file may be there again. It returns fs.ErrNotExist if there
// is none. Folders stay.
func (d *Disk) Remove(folder, name string) error {
	spare := d.fresh()
	err := d.in(folder, name, func(at *os.File, base string) error {
		info, err := lstat(at, base)
		if err != nil {
			return err
		}
		if info.IsDir() {
			return ErrIsFolder
		}
		// The name goes first: nobody sees the file emptied under it.
		if err := unix.Renameat(int(at.Fd()), base, d.stagingFD(), spare); err != nil {
			return &fs.PathError{Op: "remove", Path: name, Err: err}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return d.recycle(spare)
}

// in runs fn with the folder that holds a name.
func (d *Disk) in(folder, name string, fn func(at *os.File, base string) error) error {
	if err := checkName(folder, name); err != nil {
		return err
	}
	at, err := openFolder(d.files, folder)
	if err != nil {
		return err
	}
	defer func() { _ = at.Close() }() // it was read
	dir, base := split(name)
	if dir == "" {
		return fn(at, base)
	}
	below, err := descend(at, dir)
	if err != nil {
		return err
	}
	defer func() { _ = below.Close() }()
	return fn(below, base)
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

// checkName wants a folder of one part and a file name of one or more.
func checkName(folder, name string) error {
	if err := checkPart(folder); err != nil {
		return err
	}
	if len(name) > maxName {
		return fmt.Errorf("%w: it has %d bytes", ErrName, len(name))
	}
	for part := range strings.SplitSeq(name, "/") {
		if err := checkPart(part); err != nil {
			return err
		}
	}
	return nil
}

func checkPart(s string) error {
	if s == "" || s == "." || s == ".." || len(s) > maxPart || strings.ContainsAny(s, "/\x00") {
		return fmt.Errorf("%w: %q", ErrName, s)
	}
	return nil
}

// split divides a name into its folders, if it has any, and the rest.
func split(name string) (dir, base string) {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		return name[:i], name[i+1:]
	}
	return "", name
}
