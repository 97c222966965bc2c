package gateway

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

	"ferry/proto"
)

const (
	identityFile = "identity"
	// maxIdentity is several times what the largest RSA key needs.
	maxIdentity = 64 << 10
)

// keyring keeps the gateway's identity at its destination in a file that its
// owner alone may read. It is safe for concurrent use.
type keyring struct {
	dir *os.Root

	mu sync.Mutex
	id *proto.Identity // nil before the first registration; guarded by mu
}

var _ proto.Keyring = (*keyring)(nil)

// savedIdentity is the file's form.
type savedIdentity struct {
	Name       string `json:"name"`
	ID         string `json:"id"`
	PrivateKey []byte `json:"private_key"`
}

// openKeyring reads the identity once: what cannot be used stops the gateway
// before it accepts anything.
func openKeyring(data string) (*keyring, error) {
	dir, err := os.OpenRoot(data)
	if err != nil {
		return nil, fmt.Errorf("open identity: %w", err)
	}
	k := &keyring{dir: dir}
	k.id, err = readIdentity(dir)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the gateway's identity, %s in its data folder: %w", identityFile, err), dir.Close())
	}
	return k, nil
}

func readIdentity(dir *os.Root) (_ *proto.Identity, err error) {
	f, err := dir.Open(identityFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // there is none yet, which is no error
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if mode := info.Mode(); !mode.IsRegular() || mode.Perm()&0o077 != 0 {
		return nil, fmt.Errorf("mode %v lets others read or change the private key in it: if nobody has, make it 0600", mode)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxIdentity+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxIdentity {
		return nil, fmt.Errorf("more than %d bytes", maxIdentity)
	}
	return parseIdentity(b)
}

func parseIdentity(b []byte) (*proto.Identity, error) {
	var saved savedIdentity
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&saved); err != nil {
		return nil, fmt.Errorf("not readable, put back a copy: %w", err)
	}
	name, err := proto.ParseClientName(saved.Name)
	if err != nil {
		return nil, err
	}
	id, err := proto.ParseClientID(saved.ID)
	if err != nil {
		return nil, err
	}
	return &proto.Identity{Name: name, ID: id, PrivateKey: saved.PrivateKey}, nil
}

// Load returns the identity that was saved last.
func (k *keyring) Load(context.Context) (proto.Identity, bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.id == nil {
		return proto.Identity{}, false, nil
	}
	return *k.id, true, nil
}

// Save replaces the file as a whole: after a crash it is the old one or the new
// one. An identity that another one replaces is kept beside it, for whoever
// finds that the wrong server was asked.
func (k *keyring) Save(_ context.Context, id proto.Identity) error {
	b, err := json.Marshal(savedIdentity{Name: id.Name.String(), ID: id.ID.String(), PrivateKey: id.PrivateKey}) //nolint:gosec // for its file, which nobody else can read
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.write(append(b, '\n')); err != nil {
		return err
	}
	k.id = &id
	return nil
}

func (k *keyring) write(b []byte) error {
	const fresh, old = identityFile + ".new", identityFile + ".old"
	if err := k.dir.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := k.dir.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if k.id != nil {
		if err := k.dir.Remove(old); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := k.dir.Link(identityFile, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := k.dir.Rename(fresh, identityFile); err != nil {
		return err
	}
	folder, err := k.dir.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// client is what the destination calls the gateway just now; zeros before the
// first registration.
func (k *keyring) client() proto.ClientID {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.id == nil {
		return proto.ClientID{}
	}
	return k.id.ID
}

func (k *keyring) close() error { return k.dir.Close() }
