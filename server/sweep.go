package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"ferry/proto"
)

// errChanging: somebody else writes to the file.
var errChanging = errors.New("the file changes while it is read")

// sweep brings disk and catalog together after a crash: what is staged goes,
// what is published is recorded. It asks the catalog once for each folder.
func (s *Server) sweep(ctx context.Context) error {
	removed, err := s.disk.Sweep(nil)
	if err != nil {
		return err
	}
	if removed > 0 {
		s.log.Info("unfinished files removed", "files", removed)
	}
	w := sweeper{Server: s, visited: map[string]struct{}{}}
	err = s.disk.Walk(func(folder, name string) error { return w.file(ctx, folder, name) })
	if err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	w.leave()
	return s.catalog.owners(ctx, func(name string, files int64) {
		if _, ok := w.visited[name]; !ok {
			s.log.Warn("files on record are missing on disk", "client", name, "files", files)
		}
	})
}

// sweeper goes through the folders, one after another.
type sweeper struct {
	*Server
	visited map[string]struct{}
	folder  string
	owner   *proto.Registration // nil if the folder is nobody's
	missing map[string]struct{} // on record and not met yet
}

// file is called with each published file, folder by folder.
func (w *sweeper) file(ctx context.Context, folder, name string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if folder != w.folder {
		w.leave()
		if err := w.enter(ctx, folder); err != nil {
			return err
		}
	}
	if w.owner == nil {
		return nil
	}
	if _, ok := w.missing[name]; ok {
		delete(w.missing, name)
		return nil
	}
	if err := w.unrecorded(ctx, name); err != nil {
		if ctx.Err() != nil {
			return err
		}
		w.log.Warn("file not recorded", "client", folder, "file", name, "err", err)
	}
	return nil
}

func (w *sweeper) unrecorded(ctx context.Context, name string) error {
	parsed, err := proto.ParseFileName(name)
	if err != nil {
		return err
	}
	return w.adopt(ctx, *w.owner, parsed)
}

func (w *sweeper) enter(ctx context.Context, folder string) error {
	w.folder, w.owner, w.missing = folder, nil, nil
	w.visited[folder] = struct{}{}
	owner, err := w.catalog.byName(ctx, folder)
	if errors.Is(err, proto.ErrUnknownClient) {
		w.log.Warn("files of a client that is not registered are left alone", "client", folder)
		return nil
	}
	if err != nil {
		return err
	}
	w.owner = &owner
	w.missing, err = w.catalog.names(ctx, owner.ID)
	return err
}

// leave says what a folder lacks. The rows stay: the operator may have the
// files elsewhere.
func (w *sweeper) leave() {
	for name := range w.missing {
		w.log.Warn("files on record are missing on disk", "client", w.folder, "files", len(w.missing), "file", name)
		break // one is enough to look at; the rest is found by verifying
	}
}

// published reports whether something has that name in the client's folder.
func (s *Server) published(client proto.Registration, name proto.FileName) (bool, error) {
	_, err := s.disk.Stat(client.Name.String(), name.String())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// adopt records a published file that is not on record. Its client confirmed
// what is in it before it got its name, or an operator put it there. Other
// things than files are left alone.
func (s *Server) adopt(ctx context.Context, client proto.Registration, name proto.FileName) error {
	// One at a time: a client that asks again and again for a file that cannot
	// be recorded makes the server read it no faster.
	select {
	case s.adopting <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-s.adopting }()
	if there, _, err := s.catalog.lookup(ctx, client.ID, name); err != nil || there {
		return err
	}
	info, err := s.disk.Stat(client.Name.String(), name.String())
	if err != nil || !info.Mode().IsRegular() {
		return err
	}
	sum, err := s.sumPublished(ctx, client, name, info)
	if err != nil {
		return err
	}
	if err := s.catalog.record(ctx, client.ID, name, sum, info.ModTime()); err != nil {
		return err
	}
	s.log.Info("file adopted", "client", client.Name.String(), "file", name.String(), "size", sum.Size)
	return nil
}

// sumPublished reads a published file and makes it durable.
func (s *Server) sumPublished(ctx context.Context, client proto.Registration, name proto.FileName, before fs.FileInfo) (sum proto.Sum, err error) {
	f, err := s.disk.Open(client.Name.String(), name.String())
	if err != nil {
		return sum, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if sum, err = sumOf(ctx, f); err != nil {
		return sum, err
	}
	after, err := f.Stat()
	if err != nil {
		return sum, err
	}
	if sum.Size != after.Size() || before.Size() != after.Size() || !before.ModTime().Equal(after.ModTime()) {
		return sum, errChanging
	}
	return sum, errors.Join(f.Sync(), s.syncFolder(client.Name))
}

// sumOf adds up what is left of r.
func sumOf(ctx context.Context, r io.Reader) (proto.Sum, error) {
	sum := proto.NewSummer()
	buf := make([]byte, 256<<10)
	for {
		if ctx.Err() != nil {
			return proto.Sum{}, context.Cause(ctx)
		}
		n, err := r.Read(buf)
		_, _ = sum.Write(buf[:n]) // never fails
		if errors.Is(err, io.EOF) {
			return sum.Sum(), nil
		}
		if err != nil {
			return proto.Sum{}, err
		}
	}
}

func (s *Server) syncFolder(client proto.ClientName) error {
	root, err := os.OpenRoot(filepath.Join(s.dir.Path(), "files"))
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	f, err := root.Open(client.String())
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
