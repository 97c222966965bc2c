package oldclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"ferry/internal/atomicfile"
	"ferry/proto"
)

// Folder is an old client's folder as a [proto.Keyring]: its identity is in
// me.info and priv.key. It is safe for concurrent use.
type Folder struct {
	dir  string
	warn func(message string)

	mu     sync.Mutex
	warned bool // guarded by mu
}

var _ proto.Keyring = (*Folder)(nil)

// NewFolder returns the folder dir, which must be there. What a user ought to
// know but nothing fails for is handed to warn, once; nil drops it.
func NewFolder(dir string, warn func(message string)) *Folder {
	if warn == nil {
		warn = func(string) {}
	}
	return &Folder{dir: dir, warn: warn}
}

// Transfer reads transfer.info. The error is [fs.ErrNotExist] if there is none.
func (f *Folder) Transfer() (Transfer, error) {
	b, _, err := f.read(TransferFile)
	if err != nil {
		return Transfer{}, err
	}
	t, err := ParseTransfer(b)
	if err != nil {
		return Transfer{}, fmt.Errorf("%s: %w", f.path(TransferFile), err)
	}
	return t, nil
}

// Load returns the identity of me.info; ok is false if the client has not
// registered. me.info's key counts where priv.key says otherwise.
func (f *Folder) Load(context.Context) (id proto.Identity, ok bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, mode, err := f.read(MeFile)
	if errors.Is(err, fs.ErrNotExist) {
		return proto.Identity{}, false, nil
	}
	if err != nil {
		return proto.Identity{}, false, err
	}
	me, err := ParseMe(b)
	if err != nil {
		return proto.Identity{}, false, damaged(f.path(MeFile), err)
	}
	exposed := f.exposed(MeFile, mode)
	key, mode, err := f.read(KeyFile)
	if err == nil {
		exposed = append(exposed, f.exposed(KeyFile, mode)...)
	}
	if me.Key == nil {
		if me.Key, err = f.parseKey(key, err); err != nil {
			return proto.Identity{}, false, err
		}
	}
	if err := checkKey(me.Key); err != nil {
		return proto.Identity{}, false, damaged(f.path(MeFile), err)
	}
	f.warnExposed(exposed)
	return proto.Identity{Name: me.Name, ID: me.ID, PrivateKey: me.Key}, true, nil
}

// parseKey is for a me.info that leaves the key to priv.key.
func (f *Folder) parseKey(b []byte, readErr error) ([]byte, error) {
	switch {
	case errors.Is(readErr, fs.ErrNotExist):
		return nil, damaged(f.path(MeFile), fmt.Errorf("it has no private key, and there is no %s", KeyFile))
	case readErr != nil:
		return nil, readErr
	}
	key, err := ParseKey(b)
	if err != nil {
		return nil, damaged(f.path(KeyFile), err)
	}
	return key, nil
}

func damaged(path string, err error) error {
	return fmt.Errorf("%s: %w; restore it, or move it away to register anew, under another name", path, err)
}

// exposed names the file if others than its owner can read it.
func (f *Folder) exposed(name string, mode fs.FileMode) []string {
	if mode.Perm()&0o077 == 0 {
		return nil
	}
	return []string{f.path(name)}
}

// warnExposed says it once; f.mu is held.
func (f *Folder) warnExposed(paths []string) {
	if len(paths) == 0 || f.warned {
		return
	}
	f.warned = true
	f.warn(fmt.Sprintf("others can read the private key; shut them out: chmod 600 %s", strings.Join(paths, " ")))
}

// Save keeps id as the seed's client does, in files that only their owner can
// read: priv.key first, then me.info, which alone says that the client is
// registered. Each is replaced whole. A priv.key that holds DER as it is, which
// the per-slice program wants, is replaced by its like.
func (f *Folder) Save(_ context.Context, id proto.Identity) error {
	if err := checkKey(id.PrivateKey); err != nil {
		return fmt.Errorf("save identity: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	key := AppendKey(nil, id.PrivateKey)
	if before, _, err := f.read(KeyFile); err == nil && isRaw(before) {
		key = id.PrivateKey
	}
	if err := f.replace(KeyFile, key); err != nil {
		return fmt.Errorf("save identity: %w", err)
	}
	me := Me{Name: id.Name, ID: id.ID, Key: id.PrivateKey}
	if err := f.replace(MeFile, me.Append(nil)); err != nil {
		return fmt.Errorf("save identity: %w", err)
	}
	return nil
}

// CheckWritable fails if Save would: a name that is registered and whose key
// cannot be kept is lost.
func (f *Folder) CheckWritable() error {
	t, err := os.CreateTemp(f.dir, "."+MeFile+".*.tmp")
	if err != nil {
		return err
	}
	return errors.Join(t.Close(), os.Remove(t.Name()))
}

// replace gives the file new content, durable when it returns nil. A reader
// sees the old or the new.
func (f *Folder) replace(name string, content []byte) error {
	return atomicfile.WriteDurably(f.path(name), content, 0o600)
}

// read returns a file, within maxFile and a byte, and its mode. Anything else
// of that name is an error: to open or to read a pipe might take for ever.
func (f *Folder) read(name string) (_ []byte, _ fs.FileMode, err error) {
	file, err := os.OpenFile(f.path(name), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, &fs.PathError{Op: "read", Path: f.path(name), Err: errors.New("not a regular file")}
	}
	b, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	return b, info.Mode(), err
}

func (f *Folder) path(name string) string { return filepath.Join(f.dir, name) }
