package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"ferry/internal/blob"
	"ferry/proto"
)

// errChanging: somebody else writes to the file.
var errChanging = errors.New("the file changes while it is read")

// sweep brings disk and catalog together after a crash: what is staged goes,
// unless a transfer can go on with it, and what is published is recorded.
func (s *Server) sweep(ctx context.Context) error {
	removed, err := s.disk.Sweep(nil)
	if err != nil {
		return err
	}
	if removed > 0 {
		s.log.Info("unfinished files removed", "files", removed)
	}
	if err := s.expire(s.holdings.find); err != nil {
		return err
	}
	w := sweeper{Server: s, visited: map[string]struct{}{}}
	err = s.disk.Walk(func(folder, name string) error { return w.file(ctx, folder, name) })
	if err == nil {
		err = w.leave(ctx)
	}
	if err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	return s.catalog.owners(ctx, func(name string, files int64) {
		if _, ok := w.visited[name]; !ok {
			s.log.Warn("files on record are missing on disk", "client", name, "files", files)
		}
	})
}

// expire drops what transfers left that nobody went on with for too long, and
// tells found of the others.
func (s *Server) expire(found func(client proto.ClientID, key string, kept int64)) error {
	dropped := 0
	err := s.disk.SweepKept(s.limits.KeepUnfinished, func(l blob.Leftover, gone bool) {
		client, err := keyOwner(l.Key)
		switch {
		case gone:
			dropped++
			s.holdings.forget(client, l.Key)
		case err == nil && found != nil:
			found(client, l.Key, l.Size)
		}
	})
	if dropped > 0 {
		s.log.Info("unfinished transfers dropped: nobody went on with them", "transfers", dropped)
	}
	return err
}

// sweeper goes through the folders, one after another. It asks the catalog for
// many files at once, and holds the names of no more.
type sweeper struct {
	*Server
	visited map[string]struct{}
	folder  string
	owner   *proto.Registration // nil if the folder is nobody's
	names   []string            // met, and not looked up yet
	missing int64               // files on record that were not met yet
}

// file is called with each published file, folder by folder.
func (w *sweeper) file(ctx context.Context, folder, name string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if folder != w.folder {
		if err := w.leave(ctx); err != nil {
			return err
		}
		if err := w.enter(ctx, folder); err != nil {
			return err
		}
	}
	if w.owner == nil {
		return nil
	}
	if w.names = append(w.names, name); len(w.names) < inOne {
		return nil
	}
	return w.look(ctx)
}

// look looks the names up that were met.
func (w *sweeper) look(ctx context.Context) error {
	if len(w.names) == 0 {
		return nil
	}
	there, err := w.catalog.recorded(ctx, w.owner.ID, w.names)
	if err != nil {
		return err
	}
	w.missing -= int64(len(there))
	for _, name := range w.names {
		if _, ok := there[name]; ok {
			continue
		}
		if err := w.unrecorded(ctx, name); err != nil {
			if ctx.Err() != nil {
				return err
			}
			w.log.Warn("file not recorded", "client", w.folder, "file", name, "err", err)
		}
	}
	w.names = w.names[:0]
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
	w.folder, w.owner, w.missing = folder, nil, 0
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
	w.missing, err = w.catalog.files(ctx, owner.ID)
	return err
}

// leave says what a folder lacks. The rows stay: the operator may have the
// files elsewhere.
func (w *sweeper) leave(ctx context.Context) error {
	if err := w.look(ctx); err != nil || w.missing <= 0 {
		return err
	}
	name, err := w.firstMissing(ctx)
	if err != nil {
		return err
	}
	w.log.Warn("files on record are missing on disk", "client", w.folder, "files", w.missing, "file", name)
	return nil // one is enough to look at; the rest is found by verifying
}

func (w *sweeper) firstMissing(ctx context.Context) (string, error) {
	for after := ""; ; {
		names, err := w.catalog.names(ctx, w.owner.ID, after)
		if err != nil || len(names) == 0 {
			return "", err
		}
		for _, name := range names {
			if info, err := w.disk.Stat(w.folder, name); err != nil || !info.Mode().IsRegular() {
				return name, nil //nolint:nilerr // that is what is looked for
			}
		}
		after = names[len(names)-1]
	}
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
	if _, there, _, err := s.catalog.lookup(ctx, client.ID, name); err != nil || there {
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
	if err := s.catalog.record(ctx, row{client: client.ID, as: proto.Stored{Name: name, Sum: sum, At: info.ModTime()}}); err != nil {
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
	if sum, err = proto.SumOf(ctx, f); err != nil {
		return sum, err
	}
	after, err := f.Stat()
	if err != nil {
		return sum, err
	}
	if sum.Size != after.Size() || before.Size() != after.Size() || !before.ModTime().Equal(after.ModTime()) {
		return sum, errChanging
	}
	return sum, s.disk.Sync(client.Name.String(), name.String())
}
