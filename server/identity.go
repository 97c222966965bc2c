package server

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"ferry/proto"
)

// maxIdentity bounds the file of the server's identity: a chain and a key.
const maxIdentity = 1 << 20

// LoadIdentity returns who the server on a data folder is. Its key and certificate
// are made the first time, in identity.pem, which nobody but its owner may read;
// it is an error if others can. Several processes may call it at once.
func LoadIdentity(data string) (proto.ServerIdentity, error) {
	path := filepath.Join(data, "identity.pem")
	pem, err := readIdentity(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeIdentity(data, path); err != nil {
			return proto.ServerIdentity{}, fmt.Errorf("make the server's identity: %w", err)
		}
		pem, err = readIdentity(path)
	}
	if err != nil {
		return proto.ServerIdentity{}, fmt.Errorf("the server's identity: %w", err)
	}
	id, err := proto.ParseServerIdentity(pem, pem)
	if err != nil {
		return proto.ServerIdentity{}, fmt.Errorf("the server's identity in %s: %w", path, err)
	}
	return id, nil
}

func readIdentity(path string) (pem []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if others := info.Mode().Perm() & 0o077; others != 0 {
		return nil, fmt.Errorf("mode %v lets others read or change the private key in %s: "+
			"if nobody has, make it 0600; else move it away, and the server gets a new identity", info.Mode().Perm(), path)
	}
	return io.ReadAll(io.LimitReader(f, maxIdentity))
}

// makeIdentity writes a new identity, durably, unless somebody else does so just
// then.
func makeIdentity(data, path string) (err error) {
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	pem, err := proto.NewServerIdentity()
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(data, ".identity-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	_, err = f.Write(pem)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	dir, err := os.Open(data)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
