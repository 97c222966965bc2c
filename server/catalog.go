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
	"sync"
	"sync/atomic"
	"time"

	"ferry/internal/sqldb"
	"ferry/proto"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

func migrations() (fs.FS, error) { return fs.Sub(migrationFiles, "migrations") }

// errClients: the server registers nobody any more.
var errClients = fmt.Errorf("%w: as many clients as it takes are registered", proto.ErrRefused)

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

	mu     sync.Mutex
	recent map[proto.ClientID]time.Time // visits noted lately; guarded by mu
}

func catalogPath(data string) string { return filepath.Join(data, "catalog.db") }

func openCatalog(ctx context.Context, data string, maxClients int64) (*catalog, error) {
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
	db, err := sqldb.Open(ctx, catalogPath(data), steps)
	if err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	c := &catalog{db: db, maxClients: maxClients, recent: map[proto.ClientID]time.Time{}}
	var n int64
	if err := db.Read().QueryRowContext(ctx, "select count(*) from clients").Scan(&n); err != nil {
		return nil, errors.Join(fmt.Errorf("catalog: %w", err), db.Close())
	}
	c.clients.Store(n)
	return c, nil
}

func (c *catalog) close() error { return c.db.Close() }

// byID finds a client, or returns ErrUnknownClient.
func (c *catalog) byID(ctx context.Context, id proto.ClientID) (proto.Registration, error) {
	return c.client(ctx, "select id, name, public_key from clients where id = $1", id[:])
}

// byName finds a client by its folder; a folder of nobody is ErrUnknownClient.
func (c *catalog) byName(ctx context.Context, name string) (proto.Registration, error) {
	return c.client(ctx, "select id, name, public_key from clients where name = $1", name)
}

func (c *catalog) client(ctx context.Context, query string, key any) (proto.Registration, error) {
	var id, publicKey []byte
	var name string
	err := c.db.Read().QueryRowContext(ctx, query, key).Scan(&id, &name, &publicKey)
	if errors.Is(err, sql.ErrNoRows) {
		return proto.Registration{}, proto.ErrUnknownClient
	}
	if err != nil {
		return proto.Registration{}, fmt.Errorf("look up client: %w", err)
	}
	r := proto.Registration{PublicKey: publicKey}
	copy(r.ID[:], id)
	if r.Name, err = proto.ParseClientName(name); err != nil {
		return proto.Registration{}, fmt.Errorf("look up client: %w", err)
	}
	return r, nil
}

// register records a client, durably when it returns nil.
func (c *catalog) register(ctx context.Context, r proto.Registration) error {
	if c.clients.Add(1) > c.maxClients {
		c.clients.Add(-1)
		return errClients
	}
	now := time.Now()
	err := c.db.Update(ctx, func(ctx context.Context, tx *sql.Tx) error {
		done, err := tx.ExecContext(ctx, `insert into clients (id, name, public_key, registered_at, last_seen)
			values ($1, $2, $3, $4, $4) on conflict (name) do nothing`,
			r.ID[:], r.Name.String(), r.PublicKey, now.UnixMilli())
		if err != nil {
			return err
		}
		if n, err := done.RowsAffected(); err != nil || n == 1 {
			return err
		}
		return proto.ErrNameTaken
	})
	if err != nil {
		c.clients.Add(-1)
		return fmt.Errorf("register: %w", err)
	}
	c.noted(r.ID, now)
	return nil
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

// lookup says whether the client has a file of that name on record, and how
// many files it has in all.
func (c *catalog) lookup(ctx context.Context, id proto.ClientID, name proto.FileName) (there bool, files int64, err error) {
	err = c.db.Read().QueryRowContext(ctx, `select
		exists (select 1 from files where client = $1 and name = $2),
		(select files from clients where id = $1)`, id[:], name.String()).Scan(&there, &files)
	if err != nil {
		return false, 0, fmt.Errorf("look up file: %w", err)
	}
	return there, files, nil
}

// record notes a published file, durably when it returns nil. If there is a
// note already it stays: it was made from the same published file.
func (c *catalog) record(ctx context.Context, id proto.ClientID, name proto.FileName, sum proto.Sum, at time.Time) error {
	err := c.db.Update(ctx, func(ctx context.Context, tx *sql.Tx) error {
		done, err := tx.ExecContext(ctx, `insert into files (client, name, size, cksum, sha256, stored_at)
			values ($1, $2, $3, $4, $5, $6) on conflict (client, name) do nothing`,
			id[:], name.String(), sum.Size, sum.Cksum, sum.SHA256[:], at.UnixMilli())
		if err != nil {
			return err
		}
		if n, err := done.RowsAffected(); err != nil || n == 0 {
			return err
		}
		_, err = tx.ExecContext(ctx, "update clients set files = files + 1 where id = $1", id[:])
		return err
	})
	if err != nil {
		return fmt.Errorf("record file: %w", err)
	}
	return nil
}

// names returns the names of a client's files on record.
func (c *catalog) names(ctx context.Context, id proto.ClientID) (names map[string]struct{}, err error) {
	rows, err := c.db.Read().QueryContext(ctx, "select name from files where client = $1", id[:])
	if err != nil {
		return nil, fmt.Errorf("list files: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	names = map[string]struct{}{}
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, fmt.Errorf("list files: %w", err)
		}
		names[name] = struct{}{}
	}
	return names, rows.Err()
}

// owners calls fn with every client that has files on record.
func (c *catalog) owners(ctx context.Context, fn func(name string, files int64)) (err error) {
	rows, err := c.db.Read().QueryContext(ctx, "select name, files from clients where files > 0")
	if err != nil {
		return fmt.Errorf("list clients: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var name string
		var files int64
		if err := rows.Scan(&name, &files); err != nil {
			return fmt.Errorf("list clients: %w", err)
		}
		fn(name, files)
	}
	return rows.Err()
}
