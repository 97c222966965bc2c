package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"time"
)

// ErrChanged: the database was written to in a moment when nobody could be
// waited for. What was read is of no use; it can be read again.
var ErrChanged = errors.New("the database changed while it was read")

// View calls fn with a database that another process may be using. It changes
// nothing and creates no file, needs no more than to read the files, and never
// makes that process wait. Each query sees one state of the database. fn is
// called once and should not take long: if the other process begins or ends
// meanwhile, View may return [ErrChanged], whatever fn saw.
//
// The database must have all of migrations and no others.
func View(ctx context.Context, path string, migrations fs.FS, fn func(db *sql.DB) error) error {
	before, err := look(path)
	if err != nil {
		return fmt.Errorf("read database: %w", err)
	}
	options := url.Values{"mode": {"ro"}, "_query_only": {"on"}, "_busy_timeout": {"10000"}}
	if before.shared {
		// The index of the log is shared with whoever writes, and not created.
		options.Set("readonly_shm", "1")
	} else {
		// Nobody has it open. SQLite would create a log and its index to find that
		// out, and leave them.
		options.Set("immutable", "1")
	}
	file := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: options.Encode()}
	db, err := sql.Open("sqlite3", file.String())
	if err != nil {
		return fmt.Errorf("read database: %w", err)
	}
	err = func() error {
		if err := current(ctx, db, migrations); err != nil {
			return err
		}
		return fn(db)
	}()
	err = errors.Join(err, db.Close())
	after, lookErr := look(path)
	switch {
	case before.shared && (err == nil || lookErr == nil && after.shared):
		return err // the log kept what was read together
	case lookErr != nil || after != before:
		return errors.Join(ErrChanged, err, lookErr)
	}
	return err
}

// state is what tells whether a database that nobody had open has been written
// to.
type state struct {
	shared  bool // there is a write-ahead log: somebody has it open, or was killed
	size    int64
	written time.Time
}

func look(path string) (state, error) {
	info, err := os.Stat(path)
	if err != nil {
		return state{}, err
	}
	_, err = os.Stat(path + "-wal")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return state{}, err
	}
	return state{err == nil, info.Size(), info.ModTime()}, nil
}

// current is nil if exactly these migrations were applied.
func current(ctx context.Context, db *sql.DB, files fs.FS) error {
	all, err := readMigrations(files)
	if err != nil {
		return err
	}
	applied, err := appliedMigrations(ctx, db)
	if err != nil {
		return err
	}
	if len(applied) != len(all) {
		return fmt.Errorf("the database has %d migrations and this program knows %d: it was written by another version of Ferry; use that one",
			len(applied), len(all))
	}
	return nil
}
