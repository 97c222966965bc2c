// Package datadir keeps a data folder for one process at a time.
package datadir

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// ErrLocked: another process works on the folder.
var ErrLocked = errors.New("data folder in use")

// Dir is a data folder that this process has for itself until Close, or until
// it ends in whatever way: the kernel frees the lock.
type Dir struct {
	path string
	lock *os.File
}

// Open creates the folder if need be, readable by its owner alone, and locks
// it. If another process has it, the error is [ErrLocked] and names that
// process.
func Open(path string) (*Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("create data folder: %w", err)
	}
	return open(path, "stop it, or choose another folder")
}

// Borrow is Open for a moment, of a folder that exists, by a program other than the
// one that works on it for long. If another process has it, the error is
// [ErrLocked], names that process, and says to restart it with this version of Ferry.
func Borrow(path string) (giveBack func() error, err error) {
	d, err := open(path, "restart it with this version of Ferry, then run this again")
	if err != nil {
		return nil, err
	}
	return d.Close, nil
}

// open says what to do if another process has the folder.
func open(path, advice string) (*Dir, error) {
	lock, err := os.OpenFile(filepath.Join(path, "LOCK"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data folder: %w", err)
	}
	if err := take(lock, advice); err != nil {
		return nil, errors.Join(fmt.Errorf("data folder %s: %w", path, err), lock.Close())
	}
	return &Dir{path, lock}, nil
}

func take(lock *os.File, advice string) error {
	err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return fmt.Errorf("%w by %s: %s", ErrLocked, holder(lock), advice)
	}
	if err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	// Who holds the lock is a courtesy to the next one who wants it.
	if err := lock.Truncate(0); err != nil {
		return fmt.Errorf("write lock: %w", err)
	}
	if _, err := lock.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return fmt.Errorf("write lock: %w", err)
	}
	return nil
}

func holder(lock *os.File) string {
	b, err := io.ReadAll(io.LimitReader(lock, 32))
	pid, convErr := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || convErr != nil {
		return "another process"
	}
	return fmt.Sprintf("process %d", pid)
}

// Path is the folder's path as it was opened.
func (d *Dir) Path() string { return d.path }

// Close gives the folder free.
func (d *Dir) Close() error { return d.lock.Close() }
