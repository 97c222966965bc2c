package server

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"slices"
	"syscall"
	"time"

	"ferry/internal/blob"
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
	RevokedAt    time.Time // zero if the client is not revoked
	Files        int64
	Bytes        int64
}

// FileInfo is a file on record.
type FileInfo struct {
	Client   string
	Name     string // with its folders
	Sum      proto.Sum
	StoredAt time.Time
	Transfer proto.TransferID // that it came by; zero if none is known
	Mode     fs.FileMode      // that the sender stated; 0 if it did not
	ModTime  time.Time        // likewise; zero
}

// Clients yields the clients on record, by name. After an error it ends.
func (i *Inspector) Clients(ctx context.Context) iter.Seq2[ClientInfo, error] {
	return paged(func(after ClientInfo) ([]ClientInfo, error) {
		return query(ctx, i, scanClient, `select c.id, c.name, c.registered_at, c.last_seen, c.files,
			coalesce((select sum(size) from files where client = c.id), 0), coalesce(c.revoked_at, 0)
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
			"select id, name, registered_at, last_seen, files, 0, coalesce(revoked_at, 0) from clients where name = $1", client)
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
		return query(ctx, i, scanFile(c.Name), fileColumns+
			" from files where client = $1 and name > $2 order by name limit $3", c.ID[:], after.Name, page)
	})
}

const fileColumns = "select name, size, cksum, sha256, stored_at, transfer, coalesce(mode, 0), mtime"

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
	var registered, seen, revoked int64
	err = rows.Scan(&id, &c.Name, &registered, &seen, &c.Files, &c.Bytes, &revoked)
	copy(c.ID[:], id)
	if revoked != 0 {
		c.RevokedAt = time.UnixMilli(revoked).UTC()
	}
	c.RegisteredAt, c.LastSeen = time.UnixMilli(registered).UTC(), time.UnixMilli(seen).UTC()
	return c, err
}

func scanFile(client string) func(*sql.Rows) (FileInfo, error) {
	return func(rows *sql.Rows) (FileInfo, error) {
		f := FileInfo{Client: client}
		var sha256, transfer []byte
		var stored, mode int64
		var mtime sql.NullInt64
		err := rows.Scan(&f.Name, &f.Sum.Size, &f.Sum.Cksum, &sha256, &stored, &transfer, &mode, &mtime)
		copy(f.Sum.SHA256[:], sha256)
		copy(f.Transfer[:], transfer)
		f.Mode = fs.FileMode(mode).Perm()
		if mtime.Valid {
			f.ModTime = time.Unix(0, mtime.Int64).UTC()
		}
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
		folder, err := blob.OpenFolder(i.data, c.Name)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, blob.ErrNotFolder):
			folder = nil
		case err != nil:
			yield(Check{}, err)
			return
		default:
			defer func() { _ = folder.Close() }()
		}
		for f, err := range i.files(ctx, c) {
			if err != nil {
				yield(Check{}, err)
				return
			}
			if !yield(check(ctx, folder, f), context.Cause(ctx)) || ctx.Err() != nil {
				return
			}
		}
		if folder == nil {
			return
		}
		u := &unrecorded{i: i, folder: folder, client: c, yield: yield}
		err = folder.Walk(func(name string) error { return u.file(ctx, name) })
		if err == nil {
			err = u.look(ctx)
		}
		if err != nil && !errors.Is(err, errEnough) {
			yield(Check{}, err)
		}
	}
}

// check compares one file with what is on record; folder is nil if the client
// has none.
func check(ctx context.Context, folder *blob.Folder, f FileInfo) Check {
	c := Check{Client: f.Client, Name: f.Name, Want: f.Sum, Problem: ErrMissing}
	if folder == nil {
		return c
	}
	switch info, err := folder.Stat(f.Name); {
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
	c.Got, c.Problem = proto.SumOf(ctx, file)
	if c.Problem = errors.Join(c.Problem, file.Close()); c.Problem == nil && c.Got != c.Want {
		c.Problem = ErrDiffers
	}
	return c
}

const (
	// unsettled is how young a file has to be for a server to be about to record
	// it.
	unsettled = time.Minute
	// settling is how long a server may take for that.
	settling = 2 * time.Second
)

// errEnough: nobody wants to hear more.
var errEnough = errors.New("enough")

// unrecorded finds files that are on disk and not on record, nor may be just now.
// It holds the names of a few at a time.
type unrecorded struct {
	i      *Inspector
	folder *blob.Folder
	client ClientInfo
	yield  func(Check, error) bool
	names  []string // met, and not looked up yet
}

func (u *unrecorded) file(ctx context.Context, name string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if u.names = append(u.names, name); len(u.names) < inOne {
		return nil
	}
	return u.look(ctx)
}

// look looks the names up that were met.
func (u *unrecorded) look(ctx context.Context) error {
	left, err := u.unknown(ctx, u.names)
	if err != nil {
		return err
	}
	u.names = u.names[:0]
	if slices.ContainsFunc(left, u.named) {
		pause(ctx, settling)
		if left, err = u.unknown(ctx, left); err != nil {
			return err
		}
	}
	for _, name := range left {
		if !u.yield(Check{Client: u.client.Name, Name: name, Problem: ErrUnrecorded}, nil) {
			return errEnough
		}
	}
	return nil
}

// unknown returns those of some names that are on disk, not on record, and not
// just written.
func (u *unrecorded) unknown(ctx context.Context, names []string) (left []string, err error) {
	if len(names) == 0 {
		return nil, nil
	}
	args := []any{u.client.ID[:]}
	for _, name := range names {
		args = append(args, name)
	}
	there, err := query(ctx, u.i, scanFile(u.client.Name), fileColumns+
		" from files where client = $1 and name in "+listOf(2, len(names)), args...)
	if err != nil {
		return nil, err
	}
	known := map[string]struct{}{}
	for _, f := range there {
		known[f.Name] = struct{}{}
	}
	for _, name := range names {
		if _, ok := known[name]; ok {
			continue
		}
		info, err := u.folder.Stat(name)
		if err == nil && time.Since(info.ModTime()) >= unsettled {
			left = append(left, name) // what is gone was never on record
		}
	}
	return left, nil
}

// named reports whether a file may have got its name just now. The time of its
// last change does not tell: that can be the sender's.
func (u *unrecorded) named(name string) bool {
	info, err := u.folder.Stat(name)
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && time.Since(time.Unix(st.Ctim.Unix())) < unsettled
}
