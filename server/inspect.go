package server

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"time"

	"ferry/internal/sqldb"
	"ferry/proto"
)

// page is how many rows are read at a time: an Inspector holds no more, and
// nobody has to wait for what it does with them.
const page = 1000

// Inspector reads a data folder, also while a server works on it. It needs no
// more than to read the files, changes nothing and creates nothing.
type Inspector struct{ data string }

// Inspect opens a data folder. It is an error if no server has worked there.
func Inspect(data string) (*Inspector, error) {
	switch _, err := os.Stat(catalogPath(data)); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("no server has kept its data in %s: there is no catalog.db", data)
	case err != nil:
		return nil, fmt.Errorf("inspect: %w", err)
	}
	return &Inspector{data}, nil
}

// ClientInfo is a client on record.
type ClientInfo struct {
	ID           proto.ClientID
	Name         string
	RegisteredAt time.Time
	LastSeen     time.Time // to the minute
	Files        int64
	Bytes        int64
}

// FileInfo is a file on record.
type FileInfo struct {
	Client   string
	Name     string
	Sum      proto.Sum
	StoredAt time.Time
}

// Clients yields the clients on record, by name. After an error it ends.
func (i *Inspector) Clients(ctx context.Context) iter.Seq2[ClientInfo, error] {
	return paged(func(after ClientInfo) ([]ClientInfo, error) {
		return query(ctx, i, scanClient, `select c.id, c.name, c.registered_at, c.last_seen, c.files,
			coalesce((select sum(size) from files where client = c.id), 0)
			from clients c where c.name > $1 order by c.name limit $2`, after.Name, page)
	})
}

// Files yields the files on record, by client and name; those of one client if
// it is not "". A client that is not on record is [proto.ErrUnknownClient].
// After an error it ends.
func (i *Inspector) Files(ctx context.Context, client string) iter.Seq2[FileInfo, error] {
	return func(yield func(FileInfo, error) bool) {
		for c, err := range i.some(ctx, client) {
			if err != nil {
				yield(FileInfo{}, err)
				return
			}
			for f, err := range i.files(ctx, c) {
				if !yield(f, err) || err != nil {
					return
				}
			}
		}
	}
}

// some yields one client, or all if it is "".
func (i *Inspector) some(ctx context.Context, client string) iter.Seq2[ClientInfo, error] {
	if client == "" {
		return i.Clients(ctx)
	}
	return func(yield func(ClientInfo, error) bool) {
		found, err := query(ctx, i, scanClient,
			"select id, name, registered_at, last_seen, files, 0 from clients where name = $1", client)
		if err == nil && len(found) == 0 {
			err = fmt.Errorf("%w: %q", proto.ErrUnknownClient, client)
		}
		if err != nil {
			yield(ClientInfo{}, err)
			return
		}
		yield(found[0], nil)
	}
}

func (i *Inspector) files(ctx context.Context, c ClientInfo) iter.Seq2[FileInfo, error] {
	return paged(func(after FileInfo) ([]FileInfo, error) {
		return query(ctx, i, scanFile(c.Name), `select name, size, cksum, sha256, stored_at
			from files where client = $1 and name > $2 order by name limit $3`, c.ID[:], after.Name, page)
	})
}

// paged yields what fetch returns for the last one yielded, and so on.
func paged[T any](fetch func(after T) ([]T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var last T
		for {
			some, err := fetch(last)
			if err != nil {
				yield(last, err)
				return
			}
			for _, last = range some {
				if !yield(last, nil) {
					return
				}
			}
			if len(some) < page {
				return
			}
		}
	}
}

func scanClient(rows *sql.Rows) (c ClientInfo, err error) {
	var id []byte
	var registered, seen int64
	err = rows.Scan(&id, &c.Name, &registered, &seen, &c.Files, &c.Bytes)
	copy(c.ID[:], id)
	c.RegisteredAt, c.LastSeen = time.UnixMilli(registered).UTC(), time.UnixMilli(seen).UTC()
	return c, err
}

func scanFile(client string) func(*sql.Rows) (FileInfo, error) {
	return func(rows *sql.Rows) (FileInfo, error) {
		f := FileInfo{Client: client}
		var sha256 []byte
		var stored int64
		err := rows.Scan(&f.Name, &f.Sum.Size, &f.Sum.Cksum, &sha256, &stored)
		copy(f.Sum.SHA256[:], sha256)
		f.StoredAt = time.UnixMilli(stored).UTC()
		return f, err
	}
}

// tries is how often a page is read when servers start and stop meanwhile.
const tries = 5

func query[T any](ctx context.Context, i *Inspector, scan func(*sql.Rows) (T, error), text string, args ...any) (all []T, err error) {
	steps, err := migrations()
	if err != nil {
		return nil, err
	}
	for range tries {
		all = nil
		err = sqldb.View(ctx, catalogPath(i.data), steps, func(db *sql.DB) (err error) {
			rows, err := db.QueryContext(ctx, text, args...)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, rows.Close()) }()
			for rows.Next() {
				row, err := scan(rows)
				if err != nil {
					return err
				}
				all = append(all, row)
			}
			return rows.Err()
		})
		if !errors.Is(err, sqldb.ErrChanged) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read catalog: %w", err)
	}
	return all, nil
}

// What Verify finds.
var (
	ErrMissing    = errors.New("on record and not on disk")
	ErrDiffers    = errors.New("not what is on record")
	ErrUnrecorded = errors.New("on disk and not on record")
)

// Check is what Verify found of one file.
type Check struct {
	Client, Name string
	Want         proto.Sum // on record; nothing if it is ErrUnrecorded
	Got          proto.Sum // on disk; nothing if it was not read
	// Problem is nil, ErrMissing, ErrDiffers, ErrUnrecorded, or why the file
	// could not be read.
	Problem error
}

// Verify reads every file, or those of one client if it is not "", and compares
// it with the catalog. Files that are on disk only are named too: a server
// that starts records them. After an error Verify ends; a Problem is none.
func (i *Inspector) Verify(ctx context.Context, client string) iter.Seq2[Check, error] {
	return func(yield func(Check, error) bool) {
		for c, err := range i.some(ctx, client) {
			if err != nil {
				yield(Check{}, err)
				return
			}
			for check, err := range i.verify(ctx, c) {
				if !yield(check, err) || err != nil {
					return
				}
			}
		}
	}
}

func (i *Inspector) verify(ctx context.Context, c ClientInfo) iter.Seq2[Check, error] {
	return func(yield func(Check, error) bool) {
		folder, err := openFolder(i.data, c.Name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			yield(Check{}, err)
			return
		}
		if folder != nil {
			defer func() { _ = folder.Close() }()
		}
		known := map[string]struct{}{}
		for f, err := range i.files(ctx, c) {
			if err != nil {
				yield(Check{}, err)
				return
			}
			known[f.Name] = struct{}{}
			if !yield(check(ctx, folder, f), context.Cause(ctx)) || ctx.Err() != nil {
				return
			}
		}
		if folder == nil {
			return
		}
		for name, err := range i.unrecorded(ctx, folder, c, known) {
			if !yield(Check{Client: c.Name, Name: name, Problem: ErrUnrecorded}, err) || err != nil {
				return
			}
		}
	}
}

func openFolder(data, client string) (*os.Root, error) {
	all, err := os.OpenRoot(filepath.Join(data, "files"))
	if err != nil {
		return nil, err
	}
	folder, err := all.OpenRoot(client)
	return folder, errors.Join(err, all.Close())
}

// check compares one file with what is on record; folder is nil if the client
// has none.
func check(ctx context.Context, folder *os.Root, f FileInfo) Check {
	c := Check{Client: f.Client, Name: f.Name, Want: f.Sum, Problem: ErrMissing}
	if folder == nil {
		return c
	}
	switch info, err := folder.Lstat(f.Name); {
	case errors.Is(err, fs.ErrNotExist):
		return c
	case err == nil && !info.Mode().IsRegular(): // to open it might take for ever
		c.Problem = ErrDiffers
		return c
	}
	file, err := folder.Open(f.Name)
	if err != nil {
		c.Problem = err
		return c
	}
	c.Got, c.Problem = sumOf(ctx, file)
	if c.Problem = errors.Join(c.Problem, file.Close()); c.Problem == nil && c.Got != c.Want {
		c.Problem = ErrDiffers
	}
	return c
}

// unsettled is how young a file has to be for a server to be about to record
// it.
const unsettled = time.Minute

// unrecorded yields the names of files that are not among those known, nor have
// been recorded since, nor may be just now.
func (i *Inspector) unrecorded(ctx context.Context, folder *os.Root, c ClientInfo, known map[string]struct{}) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		entries, err := fs.ReadDir(folder.FS(), ".")
		if err != nil {
			yield("", err)
			return
		}
		for _, e := range entries {
			if _, ok := known[e.Name()]; ok || !e.Type().IsRegular() {
				continue
			}
			info, err := folder.Lstat(e.Name())
			if err != nil || time.Since(info.ModTime()) < unsettled {
				continue // what is gone was never on record
			}
			since, err := query(ctx, i, scanFile(c.Name), `select name, size, cksum, sha256, stored_at
				from files where client = $1 and name = $2`, c.ID[:], e.Name())
			if len(since) > 0 {
				continue
			}
			if !yield(e.Name(), err) || err != nil {
				return
			}
		}
	}
}
