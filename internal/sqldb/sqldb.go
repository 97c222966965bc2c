// Package sqldb opens a SQLite database that keeps what it is told to keep: one
// writer whose commits are durable and shared by whoever waits, a pool of
// readers, and numbered migrations.
//
// Statements are plain SQL with parameters $1, $2, ... numbered in the order of
// their first appearance: that is how go-sqlite3 binds them, and PostgreSQL
// understands the same.
package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"sync"

	"github.com/mattn/go-sqlite3"
)

// ErrClosed: the database was closed.
var ErrClosed = errors.New("database is closed")

// readers is how many queries run at once. WAL lets them run beside the writer.
const readers = 4

// How many statements a connection keeps prepared. Without that a third of a small transaction's time goes into
// reading its SQL. What readers are asked may be long, and of many kinds.
const (
	writerStatements = "128"
	readerStatements = "32"
)

// walKeep is how many bytes the write-ahead log keeps after a checkpoint.
const walKeep = 16 << 20

// DB is an open database. It is safe for concurrent use.
type DB struct {
	write  *sql.DB
	writer *sql.Conn // the only one of write, used by the goroutine of commitLoop alone
	read   *sql.DB

	queue   chan *update
	reserve *reserve
	closed  chan struct{} // closed by Close; hardly anybody queues any more
	ended   chan struct{} // closed by commitLoop; nobody is answered any more
	once    sync.Once
}

// Open opens the database file, creates it if need be, and applies what is
// missing of the migrations: files NNNN_name.sql in the root of migrations, in
// the order of their numbers.
func Open(ctx context.Context, path string, migrations fs.FS) (*DB, error) {
	return OpenWith(ctx, path, migrations, Options{})
}

// Options of [OpenWith]; zero values mean none.
type Options struct {
	// Reserved is how many bytes of the disk are kept for updates, in a file beside
	// the database that has -reserve at the end of its name. When the disk is full
	// they are given up to [DB.Update], but not to [DB.UpdateIfRoom], and taken back
	// when there is room again, twice as much at least. Where they cannot be had, they
	// are missing.
	Reserved int64
	// Alone is for a database that another process may be using: its schema must not
	// be changed under that one. If migrations are missing, they are applied between
	// Alone and the leave that it returns. When it fails for some seconds, and they are
	// still missing, nothing is changed, and its error is returned.
	Alone Alone
}

// OpenWith is Open with options.
func OpenWith(ctx context.Context, path string, migrations fs.FS, o Options) (*DB, error) {
	reserve := openReserve(path+"-reserve", o.Reserved)
	write, err := connect(path, "immediate", false, 1)
	if err != nil {
		return nil, err
	}
	if err := migrate(ctx, write, path, migrations, o.Alone); err != nil {
		return nil, errors.Join(err, write.Close())
	}
	writer, err := write.Conn(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open database: %w", err), write.Close())
	}
	for _, pragma := range []string{
		fmt.Sprintf("pragma journal_size_limit = %d", walKeep), // the write-ahead log grows with the largest burst; give the room back
		"pragma temp_store = memory",                           // of pages for a savepoint, or for a statement of many rows, no file is made
	} {
		if _, err := writer.ExecContext(ctx, pragma); err != nil {
			return nil, errors.Join(fmt.Errorf("open database: %w", err), writer.Close(), write.Close())
		}
	}
	read, err := connect(path, "deferred", true, readers)
	if err != nil {
		return nil, errors.Join(err, writer.Close(), write.Close())
	}
	db := &DB{write: write, writer: writer, read: read, reserve: reserve, queue: make(chan *update, maxGroup), closed: make(chan struct{}), ended: make(chan struct{})}
	go db.commitLoop()
	return db, nil
}

func connect(path, txlock string, readOnly bool, conns int) (*sql.DB, error) {
	options := url.Values{
		"_txlock":       {txlock},
		"_journal_mode": {"WAL"},
		"_foreign_keys": {"on"},
		"_busy_timeout": {"10000"},
		// go-sqlite3 leaves WAL at NORMAL, where a commit may be lost with the power.
		"_synchronous": {"FULL"},
	}
	if readOnly {
		options.Set("_query_only", "on")
		options.Set("_stmt_cache_size", readerStatements)
	} else {
		if err := registerVFS(); err != nil {
			return nil, err
		}
		options.Set("_stmt_cache_size", writerStatements)
		options.Set("vfs", walVFS) // needs FULL
	}
	file := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: options.Encode()}
	db, err := sql.Open("sqlite3", file.String())
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

// Read returns the pool of readers. Each query sees one state of the database,
// the last one committed when it began.
func (db *DB) Read() *sql.DB { return db.read }

// Lookups are queries of the pool of readers that find a few rows by a key, and so at
// once: they are not ended when ctx is. To watch a context that can end,
// database/sql and go-sqlite3 start a goroutine each for every query, which takes as
// long as such a query itself.
type Lookups struct{ pool *sql.DB }

// Lookups returns the pool of readers for lookups.
func (db *DB) Lookups() Lookups { return Lookups{db.read} }

// QueryContext is that of [sql.DB].
func (l Lookups) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return l.pool.QueryContext(context.WithoutCancel(ctx), query, args...)
}

// QueryRowContext is that of [sql.DB].
func (l Lookups) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	return l.pool.QueryRowContext(context.WithoutCancel(ctx), query, args...)
}

// Close lets queued updates end and closes the files.
func (db *DB) Close() error {
	var err error
	db.once.Do(func() {
		close(db.closed)
		<-db.ended
		err = errors.Join(db.read.Close(), db.writer.Close(), db.write.Close())
	})
	return err
}

// IsUnique reports whether err is the violation of a UNIQUE index or primary key.
func IsUnique(err error) bool {
	e, ok := errors.AsType[sqlite3.Error](err)
	return ok && (e.ExtendedCode == sqlite3.ErrConstraintUnique || e.ExtendedCode == sqlite3.ErrConstraintPrimaryKey)
}

// IsFull reports whether err says that the disk has no room left.
func IsFull(err error) bool {
	e, ok := errors.AsType[sqlite3.Error](err)
	return ok && e.Code == sqlite3.ErrFull
}

// isBusy reports whether err says that another connection is in the way.
func isBusy(err error) bool {
	e, ok := errors.AsType[sqlite3.Error](err)
	return ok && e.Code == sqlite3.ErrBusy
}
