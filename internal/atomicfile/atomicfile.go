// Package atomicfile replaces small files as a whole.
package atomicfile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// Write gives a file new content and mode. A reader sees the old content or the
// new; after a power loss it may be either. What ends this program meanwhile may
// leave a hidden file beside it.
func Write(path string, content []byte, mode os.FileMode) error {
	return write(path, content, mode, false)
}

// WriteDurably is [Write] for content that survives a power loss when it returns
// nil.
func WriteDurably(path string, content []byte, mode os.FileMode) error {
	return write(path, content, mode, true)
}

func write(path string, content []byte, mode os.FileMode, durably bool) (err error) {
	dir := filepath.Dir(path)
	t, err := os.CreateTemp(dir, "."+shortBase(path)+".*.tmp") // readable by its owner alone
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = t.Close() // the first error tells
			_ = os.Remove(t.Name())
		}
	}()
	if _, err := t.Write(content); err != nil {
		return err
	}
	if err := t.Chmod(mode); err != nil {
		return err
	}
	if durably {
		if err := t.Sync(); err != nil {
			return err
		}
	}
	if err := t.Close(); err != nil {
		return err
	}
	if err := os.Rename(t.Name(), path); err != nil || !durably {
		return err
	}
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// shortBase is the file's name, as much of it as leaves room for more.
func shortBase(path string) string {
	const most = 200
	base := filepath.Base(path)
	return strings.ReplaceAll(base[:min(len(base), most)], "*", "_") // the last one would be replaced
}
