// Package identity keeps who a client is at its server, the private key
// included, in one file that nobody but its owner may read.
package identity

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"syscall"

	"ferry/proto"
)

// Name is what the file is called in its folder.
const Name = "identity"

const (
	// fresh is what is going to be the file.
	fresh = Name + ".new"
	// old is the identity that another one has replaced.
	old = Name + ".old"
	// maxSize is several times what two of the largest RSA keys need.
	maxSize = 64 << 10
)

// ErrUnusable: there is an identity, and it cannot be used as it is. The error
// says what to do, and has nothing of the key in it.
var ErrUnusable = errors.New("the client's identity cannot be used")

// A File keeps a client's identity in a folder. It is safe for concurrent use;
// several processes may use one folder.
type File struct {
	dir *os.Root

	mu sync.Mutex
	id *proto.Identity // as last read or saved, nil if there is none; guarded by mu
}

var _ proto.Keyring = (*File)(nil)

// saved is the file's form.
type saved struct {
	Name       string `json:"name"`
	ID         string `json:"id"`
	PrivateKey []byte `json:"private_key"`
	NextKey    []byte `json:"next_key,omitempty"`
}

// Open reads the identity in the folder dir, if there is one: one that cannot
// be used is found before anything depends on it. Errors name no folder.
func Open(dir string) (*File, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open the folder of the client's identity: %w", err)
	}
	f := &File{dir: root}
	if f.id, err = read(root); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return f, nil
}

// Close releases the folder. Load and Save fail afterwards.
func (f *File) Close() error { return f.dir.Close() }

// Load reads the file: what another process saved is seen.
func (f *File) Load(context.Context) (id proto.Identity, ok bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.id, err = read(f.dir); err != nil || f.id == nil {
		return proto.Identity{}, false, err
	}
	return *f.id, true, nil
}

// Client is what the server calls the client, as far as was loaded or saved
// here; zeros before the first registration.
func (f *File) Client() proto.ClientID {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.id == nil {
		return proto.ClientID{}
	}
	return f.id.ID
}

// Save replaces the file as a whole: after a crash it is the old one or the new
// one. An identity that another client's replaces is kept beside it, as
// identity.old, for whoever finds that the wrong server was asked; what a new
// key of the same client replaces is not.
func (f *File) Save(_ context.Context, id proto.Identity) error {
	b, err := json.Marshal(saved{Name: id.Name.String(), ID: id.ID.String(), PrivateKey: id.PrivateKey, NextKey: id.NextKey}) //nolint:gosec // for its file, which nobody else can read
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.replace(id, append(b, '\n')); err != nil {
		return fmt.Errorf("save the client's identity: %w", err)
	}
	f.id = &id
	return nil
}

// CheckWritable fails if Save would: a name that is registered and whose key
// cannot be kept is lost.
func (f *File) CheckWritable() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	w, err := f.begin()
	if err == nil {
		err = errors.Join(f.dir.Remove(fresh), w.Close())
	}
	if err != nil {
		return fmt.Errorf("the client's identity could not be saved: %w", err)
	}
	return nil
}

func (f *File) replace(id proto.Identity, b []byte) (err error) {
	w, err := f.begin()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }() // and so unlocked
	if _, err := w.Write(b); err != nil {
		return err
	}
	if err := w.Sync(); err != nil {
		return err
	}
	if err := f.keepOld(id); err != nil {
		return err
	}
	if err := f.dir.Rename(fresh, Name); err != nil {
		return err
	}
	return f.sync()
}

// begin returns the file that is to take the other's place, empty and held
// against other processes until it is closed. What a crash left of one is
// used again: no copies of a key stay behind.
func (f *File) begin() (*os.File, error) {
	for {
		w, err := f.dir.OpenFile(fresh, os.O_WRONLY|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		same, err := f.hold(w)
		if err == nil && same {
			return w, nil
		}
		// Or else it is in place by now: the next one has to be another.
		if err = errors.Join(err, w.Close()); err != nil {
			return nil, err
		}
	}
}

// hold locks and empties w, and reports whether it still has its name.
func (f *File) hold(w *os.File) (same bool, err error) {
	for err = syscall.EINTR; errors.Is(err, syscall.EINTR); {
		err = syscall.Flock(int(w.Fd()), syscall.LOCK_EX)
	}
	if err != nil {
		return false, fmt.Errorf("lock %s: %w", fresh, err)
	}
	held, err := w.Stat()
	if err != nil {
		return false, err
	}
	named, err := f.dir.Lstat(fresh)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(held, named) {
		return false, nil
	}
	return true, errors.Join(err, w.Chmod(0o600), w.Truncate(0))
}

// keepOld keeps an identity that is not the client's whose one is saved.
func (f *File) keepOld(id proto.Identity) error {
	before, err := read(f.dir)
	if err == nil && (before == nil || succeeds(*before, id)) {
		return nil
	}
	// One that cannot be read may be worth the more to somebody.
	if err := f.dir.Remove(old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := f.dir.Link(Name, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// succeeds reports whether id is the same client's as before, with the same
// key, or with one that was to follow it.
func succeeds(before, id proto.Identity) bool {
	return id.ID == before.ID &&
		(bytes.Equal(id.PrivateKey, before.PrivateKey) || len(before.NextKey) > 0 && bytes.Equal(id.PrivateKey, before.NextKey))
}

func (f *File) sync() error {
	folder, err := f.dir.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// read returns nil if there is no identity yet.
func read(dir *os.Root) (*proto.Identity, error) {
	b, err := readFile(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // there is none yet, which is no error
	}
	var id *proto.Identity
	if err == nil {
		id, err = parse(b)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: the file %q: %w", ErrUnusable, Name, err)
	}
	return id, nil
}

func readFile(dir *os.Root) (_ []byte, err error) {
	// It must not wait for the other end of a pipe.
	f, err := dir.OpenFile(Name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	switch mode := info.Mode(); {
	case !mode.IsRegular():
		return nil, fmt.Errorf("it is no file, its mode is %v: move it away", mode)
	case mode.Perm()&0o077 != 0:
		return nil, fmt.Errorf("its mode %v lets others read or change the private key in it: if nobody has, make it 0600", mode)
	case info.Size() > maxSize:
		return nil, fmt.Errorf("it has %d bytes, %d are the limit: put back a copy, or move it away to register anew", info.Size(), maxSize)
	}
	return io.ReadAll(io.LimitReader(f, maxSize))
}

func parse(b []byte) (*proto.Identity, error) {
	id, err := decode(b)
	if err != nil {
		return nil, fmt.Errorf("it is damaged: %w; put back a copy, or move it away to register anew", err)
	}
	return id, nil
}

func decode(b []byte) (*proto.Identity, error) {
	var s saved
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return nil, err
	}
	if rest := b[d.InputOffset():]; len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("something follows it")
	}
	name, err := proto.ParseClientName(s.Name)
	if err != nil {
		return nil, err
	}
	id, err := proto.ParseClientID(s.ID)
	if err != nil {
		return nil, err
	}
	if len(s.PrivateKey) == 0 {
		return nil, errors.New("it has no private key")
	}
	return &proto.Identity{Name: name, ID: id, PrivateKey: s.PrivateKey, NextKey: s.NextKey}, nil
}
