package server

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"ferry/internal/datadir"
	"ferry/internal/sqldb"
	"ferry/proto"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

func migrations() (fs.FS, error) { return fs.Sub(migrationFiles, "migrations") }

// errClients: the server registers nobody any more.
var errClients = &proto.RefusedError{Why: proto.ErrQuota, Words: "as many clients as the server takes are registered"}

// seenEvery is how often a client's visits are noted: each is a commit.
const seenEvery = time.Minute

// maxRecent bounds how many visits are remembered for that.
const maxRecent = 10_000

// catalog says who the clients are and what they have stored. It is safe for
// concurrent use.
type catalog struct {
	db         *sqldb.DB
	maxClients int64
	clients    atomic.Int64 // registered
	lookups    *sql.Stmt    // lookupText

	mu     sync.Mutex
	recent map[proto.ClientID]time.Time // visits noted lately; guarded by mu
}

func catalogPath(data string) string { return filepath.Join(data, "catalog.db") }

// openCatalog opens the catalog of a folder that this process has for itself.
func openCatalog(ctx context.Context, data string, maxClients int64) (*catalog, error) {
	return openCatalogWith(ctx, data, maxClients, sqldb.Options{})
}

// openBeside opens the catalog of a folder that a server may be working on.
func openBeside(ctx context.Context, data string) (*catalog, error) {
	alone := func() (leave func() error, err error) { return datadir.Borrow(data) }
	return openCatalogWith(ctx, data, 0, sqldb.Options{Alone: alone})
}

func openCatalogWith(ctx context.Context, data string, maxClients int64, o sqldb.Options) (*catalog, error) {
	// SQLite gives its other files the mode of this one.
	f, err := os.OpenFile(catalogPath(data), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create catalog: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("create catalog: %w", err)
	}
	steps, err := migrations()
	if err != nil {
		return nil, err
	}
	db, err := sqldb.OpenWith(ctx, catalogPath(data), steps, o)
	if err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	c := &catalog{db: db, maxClients: maxClients, recent: map[proto.ClientID]time.Time{}}
	var n int64
	if err := db.Read().QueryRowContext(ctx, "select count(*) from clients").Scan(&n); err != nil {
		return nil, errors.Join(fmt.Errorf("catalog: %w", err), db.Close())
	}
	c.clients.Store(n)
	if c.lookups, err = db.Read().PrepareContext(ctx, lookupText); err != nil {
		return nil, errors.Join(fmt.Errorf("catalog: %w", err), db.Close())
	}
	return c, nil
}

func (c *catalog) close() error { return errors.Join(c.lookups.Close(), c.db.Close()) }

// byID finds a client, or returns ErrUnknownClient or ErrRevoked.
func (c *catalog) byID(ctx context.Context, id proto.ClientID) (proto.Registration, error) {
	r, revoked, err := c.client(ctx, "select id, name, public_key, revoked_at from clients where id = $1", id[:])
	if err == nil && revoked {
		return proto.Registration{}, proto.ErrRevoked
	}
	return r, err
}

// byName finds a client by its folder, be it revoked or not; a folder of nobody is
// ErrUnknownClient.
func (c *catalog) byName(ctx context.Context, name string) (proto.Registration, error) {
	r, _, err := c.client(ctx, "select id, name, public_key, revoked_at from clients where name = $1", name)
	return r, err
}

func (c *catalog) client(ctx context.Context, query string, key any) (r proto.Registration, revoked bool, err error) {
	var id, publicKey []byte
	var name string
	var at sql.NullInt64
	err = c.db.Read().QueryRowContext(ctx, query, key).Scan(&id, &name, &publicKey, &at)
	if errors.Is(err, sql.ErrNoRows) {
		return r, false, proto.ErrUnknownClient
	}
	if err != nil {
		return r, false, fmt.Errorf("look up client: %w", err)
	}
	r.PublicKey = publicKey
	copy(r.ID[:], id)
	if r.Name, err = proto.ParseClientName(name); err != nil {
		return r, false, fmt.Errorf("look up client: %w", err)
	}
	return r, at.Valid, nil
}

// revoked returns which of some clients the operator has shut out.
func (c *catalog) revoked(ctx context.Context, ids []proto.ClientID) (out []proto.ClientID, err error) {
	for some := range slices.Chunk(ids, inOne) {
		args := make([]any, len(some))
		for i := range some {
			args[i] = some[i][:]
		}
		err := c.each(ctx, "select id from clients where revoked_at is not null and id in "+listOf(1, len(some)), args, func(rows *sql.Rows) error {
			var b []byte
			var id proto.ClientID
			err := rows.Scan(&b)
			copy(id[:], b)
			out = append(out, id)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("look for revoked clients: %w", err)
		}
	}
	return out, nil
}

// inOne is how many keys one query asks for.
const inOne = 500

// listOf is a list of n parameters, of which the first is numbered.
func listOf(first, n int) string {
	b := []byte("(")
	for i := range n {
		b = strconv.AppendInt(append(b, '$'), int64(first+i), 10)
		b = append(b, ", "...)
	}
	return string(b[:len(b)-2]) + ")"
}

// each calls fn with the rows of a query.
func (c *catalog) each(ctx context.Context, text string, args []any, fn func(*sql.Rows) error) (err error) {
	rows, err := c.db.Read().QueryContext(ctx, text, args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		if err := fn(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// seen notes a visit, at most once in seenEvery.
func (c *catalog) seen(ctx context.Context, id proto.ClientID) error {
	now := time.Now()
	if !c.noted(id, now) {
		return nil
	}
	err := c.db.Update(ctx, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "update clients set last_seen = max(last_seen, $1) where id = $2", now.UnixMilli(), id[:])
		return err
	})
	if err != nil {
		c.forget(id)
		return fmt.Errorf("note visit: %w", err)
	}
	return nil
}

// noted remembers a visit, and reports whether it is to be written down.
func (c *catalog) noted(id proto.ClientID, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if last, ok := c.recent[id]; ok && now.Sub(last) < seenEvery {
		return false
	}
	if len(c.recent) >= maxRecent {
		clear(c.recent) // costs each client one commit
	}
	c.recent[id] = now
	return true
}

func (c *catalog) forget(id proto.ClientID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.recent, id)
}

// lookup returns what the client has on record under a name, if it has, and how
// many files it has in all.
func (c *catalog) lookup(ctx context.Context, id proto.ClientID, name proto.FileName) (as proto.Stored, there bool, files int64, err error) {
	var size, cksum, at sql.NullInt64
	var sum, transfer []byte
	err = c.lookups.QueryRowContext(ctx, id[:], name.String()).Scan(&files, &size, &cksum, &sum, &at, &transfer)
	if err != nil {
		return as, false, 0, fmt.Errorf("look up file: %w", err)
	}
	if !size.Valid {
		return as, false, files, nil
	}
	as = proto.Stored{Name: name, Sum: proto.Sum{Size: size.Int64, Cksum: uint32(cksum.Int64)}, At: time.UnixMilli(at.Int64).UTC()}
	copy(as.Sum.SHA256[:], sum)
	copy(as.Transfer[:], transfer)
	return as, true, files, nil
}

const lookupText = `select c.files, f.size, f.cksum, f.sha256, f.stored_at, f.transfer
	from clients c left join files f on f.client = $1 and f.name = $2 where c.id = $1`

// A row is a published file that is to be recorded.
type row struct {
	client proto.ClientID
	as     proto.Stored
	offer  proto.Offer // mode and time of it
}

// record notes published files, durably when it returns nil. If there is a note
// already it stays: it was made from the same published file.
func (c *catalog) record(ctx context.Context, rows ...row) error {
	err := c.db.Update(ctx, func(ctx context.Context, tx *sql.Tx) error { return recordAll(ctx, tx, rows) })
	if err != nil {
		return fmt.Errorf("record file: %w", err)
	}
	return nil
}

func recordAll(ctx context.Context, tx *sql.Tx, rows []row) (err error) {
	insert, err := tx.PrepareContext(ctx, `insert into files (client, name, size, cksum, sha256, stored_at, transfer, mode, mtime)
		values ($1, $2, $3, $4, $5, $6,
			case when exists (select 1 from files where client = $1 and transfer = $7) then null else $7 end, $8, $9)
		on conflict (client, name) do nothing`)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, insert.Close()) }()
	more := map[proto.ClientID]int64{}
	for _, r := range rows {
		var transfer, mode, mtime any
		if r.as.Transfer != (proto.TransferID{}) {
			transfer = r.as.Transfer[:]
		}
		if r.offer.Mode != 0 {
			mode = int64(r.offer.Mode.Perm())
		}
		if !r.offer.ModTime.IsZero() {
			mtime = r.offer.ModTime.UnixNano()
		}
		sum := r.as.Sum
		done, err := insert.ExecContext(ctx, r.client[:], r.as.Name.String(), sum.Size, sum.Cksum, sum.SHA256[:],
			r.as.At.UnixMilli(), transfer, mode, mtime)
		if err != nil {
			return err
		}
		n, err := done.RowsAffected()
		if err != nil {
			return err
		}
		more[r.client] += n
	}
	for client, n := range more {
		if n == 0 {
			continue
		}
		if _, err := tx.ExecContext(ctx, "update clients set files = files + $1 where id = $2", n, client[:]); err != nil {
			return err
		}
	}
	return nil
}

// recorded returns which of at most inOne names a client has on record.
func (c *catalog) recorded(ctx context.Context, id proto.ClientID, names []string) (map[string]struct{}, error) {
	args := []any{id[:]}
	for _, name := range names {
		args = append(args, name)
	}
	there := make(map[string]struct{}, len(names))
	err := c.each(ctx, "select name from files where client = $1 and name in "+listOf(2, len(names)), args, func(rows *sql.Rows) error {
		var name string
		err := rows.Scan(&name)
		there[name] = struct{}{}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list files: %w", err)
	}
	return there, nil
}

// names returns the names of a client's files on record behind one of them, in
// their order, at most inOne.
func (c *catalog) names(ctx context.Context, id proto.ClientID, after string) (names []string, err error) {
	err = c.each(ctx, "select name from files where client = $1 and name > $2 order by name limit $3", []any{id[:], after, inOne},
		func(rows *sql.Rows) error {
			var name string
			err := rows.Scan(&name)
			names = append(names, name)
			return err
		})
	if err != nil {
		return nil, fmt.Errorf("list files: %w", err)
	}
	return names, nil
}

// files is how many files a client has on record.
func (c *catalog) files(ctx context.Context, id proto.ClientID) (n int64, err error) {
	err = c.db.Read().QueryRowContext(ctx, "select count(*) from files where client = $1", id[:]).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("count files: %w", err)
	}
	return n, nil
}

// owners calls fn with every client that has files on record.
func (c *catalog) owners(ctx context.Context, fn func(name string, files int64)) error {
	err := c.each(ctx, "select name, files from clients where files > 0", nil, func(rows *sql.Rows) error {
		var name string
		var files int64
		if err := rows.Scan(&name, &files); err != nil {
			return err
		}
		fn(name, files)
		return nil
	})
	if err != nil {
		return fmt.Errorf("list clients: %w", err)
	}
	return nil
}
