package blob

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// Sweep takes away what a process before this one left in staging, and, if keep
// is not nil, each published file that keep does not want. It returns how many
// files it took away. Nothing may be staged while it runs.
func (d *Disk) Sweep(keep func(folder, name string) bool) (removed int, err error) {
	err = eachName(d.staging.root, func(e fs.DirEntry) error {
		left, err := d.sweepStaged(e.Name())
		if left {
			removed++
		}
		return err
	})
	if err != nil {
		return removed, fmt.Errorf("sweep: %w", err)
	}
	if keep == nil {
		return removed, nil
	}
	err = d.Walk(func(folder, name string) error {
		if keep(folder, name) {
			return nil
		}
		removed++
		return d.Remove(folder, name)
	})
	return removed, err
}

// sweepStaged clears one entry of staging; it was left behind if it had content.
func (d *Disk) sweepStaged(name string) (left bool, err error) {
	info, err := d.staging.root.Lstat(name)
	if err != nil {
		return false, err
	}
	return info.Size() > 0, d.staging.root.RemoveAll(name)
}

// Walk calls fn with every published file, folder by folder, in no order. fn
// may remove it.
func (d *Disk) Walk(fn func(folder, name string) error) error {
	return eachName(d.files, func(folder fs.DirEntry) error {
		if !folder.IsDir() {
			return nil
		}
		root, err := d.files.OpenRoot(folder.Name())
		if err != nil {
			return fmt.Errorf("walk: %w", err)
		}
		err = eachName(root, func(file fs.DirEntry) error {
			if !file.Type().IsRegular() {
				return nil
			}
			return fn(folder.Name(), file.Name())
		})
		return errors.Join(err, root.Close())
	})
}

// eachName reads a folder of any size in pieces.
func eachName(root *os.Root, fn func(fs.DirEntry) error) (err error) {
	dir, err := root.Open(".")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
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

// recycle empties a file in staging that nobody uses and keeps it for the next
// Stage, or deletes it if enough are kept.
func (d *Disk) recycle(name string) error {
	kept, err := d.empty(name)
	if err != nil || !kept {
		return errors.Join(err, d.staging.root.Remove(name))
	}
	return nil
}

func (d *Disk) empty(name string) (kept bool, err error) {
	f, err := d.staging.root.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return false, fmt.Errorf("recycle: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	// A file with another name still, left by a crash in the middle of link, is
	// somebody's: only this name may go.
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Nlink > 1 {
		return false, nil
	}
	if err := f.Truncate(0); err != nil {
		return false, err
	}
	d.spareMu.Lock()
	defer d.spareMu.Unlock()
	if len(d.spares) >= maxSpares {
		return false, nil
	}
	d.spares = append(d.spares, name)
	return true, nil
}
