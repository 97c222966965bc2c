package blob

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// openFolder opens one folder in another. Links are not followed.
func openFolder(at *os.File, part string) (*os.File, error) {
	f, err := openat(at, part, unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("%w: %q", ErrNotFolder, part)
	}
	return f, err
}

func openFile(at *os.File, base string) (*os.File, error) { return openat(at, base, 0) }

func openat(at *os.File, part string, flags int) (*os.File, error) {
	fd, err := again(func() (int, error) {
		return unix.Openat(int(at.Fd()), part, flags|unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: part, Err: err}
	}
	return os.NewFile(uintptr(fd), part), nil
}

// again calls a system call until no signal interrupts it.
func again(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// descend opens a folder below another, part by part.
func descend(at *os.File, path string) (*os.File, error) {
	var below *os.File
	for part := range strings.SplitSeq(path, "/") {
		next, err := openFolder(at, part)
		if below != nil {
			_ = below.Close() // it was read
		}
		if err != nil {
			return nil, err
		}
		at, below = next, next
	}
	return below, nil
}

// lstat describes what has a name in a folder.
func lstat(at *os.File, base string) (fs.FileInfo, error) {
	fd, err := again(func() (int, error) {
		return unix.Openat(int(at.Fd()), base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, &fs.PathError{Op: "stat", Path: base, Err: err}
	}
	f := os.NewFile(uintptr(fd), base)
	info, err := f.Stat()
	return info, errors.Join(err, f.Close())
}

// Folder is one folder of published files, for reading. It needs no Disk, so that
// a process beside the one that has the Disk can look at it.
type Folder struct{ at *os.File }

// OpenFolder opens a folder of what a Disk keeps in dir; the error is
// fs.ErrNotExist if there is none.
func OpenFolder(dir, folder string) (*Folder, error) {
	if err := checkPart(folder); err != nil {
		return nil, err
	}
	files, err := os.Open(filepath.Join(dir, "files"))
	if err != nil {
		return nil, err
	}
	at, err := openFolder(files, folder)
	if err = errors.Join(err, files.Close()); err != nil {
		return nil, err
	}
	return &Folder{at}, nil
}

// Close closes the folder.
func (f *Folder) Close() error { return f.at.Close() }

// Stat is Disk.Stat in this folder.
func (f *Folder) Stat(name string) (info fs.FileInfo, err error) {
	err = f.in(name, func(at *os.File, base string) (err error) {
		info, err = lstat(at, base)
		return err
	})
	return info, err
}

// Open is Disk.Open in this folder.
func (f *Folder) Open(name string) (file *os.File, err error) {
	err = f.in(name, func(at *os.File, base string) (err error) {
		file, err = openFile(at, base)
		return err
	})
	return file, err
}

func (f *Folder) in(name string, fn func(at *os.File, base string) error) error {
	if err := checkName("folder", name); err != nil {
		return err
	}
	dir, base := split(name)
	if dir == "" {
		return fn(f.at, base)
	}
	below, err := descend(f.at, dir)
	if err != nil {
		return err
	}
	defer func() { _ = below.Close() }()
	return fn(below, base)
}

// Walk calls fn with the name of every file, in no order.
func (f *Folder) Walk(fn func(name string) error) error {
	dir, err := openat(f.at, ".", unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	return errors.Join(walk(dir, "", fn), dir.Close())
}

// walk calls fn with every file in a folder, of which nothing was read before, and
// below it. It holds one handle for each level, of which there are half as many
// as a name has bytes: a client that makes them all must not use up those that a
// process usually may have. What is deeper than any name can be is left out.
func walk(at *os.File, prefix string, fn func(name string) error) error {
	return readNames(at, func(e fs.DirEntry) error {
		name := prefix + e.Name()
		switch {
		case len(name) > maxName:
			return nil
		case e.Type().IsRegular():
			return fn(name)
		case !e.IsDir():
			return nil
		}
		below, err := openFolder(at, e.Name())
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrNotFolder) {
			return nil // gone meanwhile
		}
		if err != nil {
			return fmt.Errorf("walk: %w", err)
		}
		return errors.Join(walk(below, name+"/", fn), below.Close())
	})
}

// eachName calls fn with what is in a folder.
func eachName(at *os.File, fn func(fs.DirEntry) error) error {
	dir, err := openat(at, ".", unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	return errors.Join(readNames(dir, fn), dir.Close())
}

// readNames is eachName with a handle of its own. A folder of any size is read in
// pieces.
func readNames(dir *os.File, fn func(fs.DirEntry) error) error {
	for {
		entries, err := dir.ReadDir(1000)
		for _, e := range entries {
			if err := fn(e); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
