package blob

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// Sweep takes away what a process before this one left in staging, but for what
// was staged under a key (see SweepKept), and, if keep is not nil, each published
// file that keep does not want. It returns how many files it took away. Nothing
// may be staged while it runs. Folders that were made and may not be durable are
// durable afterwards.
func (d *Disk) Sweep(keep func(folder, name string) bool) (removed int, err error) {
	if err := d.syncAll(); err != nil {
		return 0, fmt.Errorf("sweep: %w", err)
	}
	err = eachName(d.staging.handle, func(e fs.DirEntry) error {
		if strings.HasPrefix(e.Name(), keptPrefix) {
			return nil
		}
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
	return eachName(d.files, func(e fs.DirEntry) error {
		if !e.IsDir() {
			return nil
		}
		folder, err := openFolder(d.files, e.Name())
		if err != nil {
			return fmt.Errorf("walk: %w", err)
		}
		err = walk(folder, "", func(name string) error { return fn(e.Name(), name) })
		return errors.Join(err, folder.Close())
	})
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
	info, err := d.staging.root.Lstat(name)
	if err != nil {
		return false, fmt.Errorf("recycle: %w", err)
	}
	// A file with another name still, left by a crash in the middle of link, is
	// somebody's: only this name may go.
	if st, ok := info.Sys().(*syscall.Stat_t); !info.Mode().IsRegular() || ok && st.Nlink > 1 {
		return false, nil
	}
	switch usual := fs.FileMode(d.usual.Load()); {
	case usual == 0:
		return false, nil // it could not be made like a new one
	case usual != info.Mode().Perm(): // it was published with other bits
		if err := d.staging.root.Chmod(name, usual); err != nil {
			return false, fmt.Errorf("recycle: %w", err)
		}
	}
	f, err := d.staging.root.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return false, fmt.Errorf("recycle: %w", err)
	}
	if err := errors.Join(f.Truncate(0), f.Close()); err != nil {
		return false, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.spares) >= maxSpares {
		return false, nil
	}
	d.spares = append(d.spares, name)
	return true, nil
}
