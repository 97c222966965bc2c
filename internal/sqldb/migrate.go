package sqldb

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"
)

// migration is one numbered file.
type migration struct {
	number int
	name   string
	text   string
	sum    string // of the text, so that a released migration that was edited is noticed
}

// Alone keeps other processes from a database's folder until leave.
type Alone func() (leave func() error, err error)

const (
	// aloneWithin is how long a process that has just started gets to bring the
	// database up to date, before somebody beside it gives up.
	aloneWithin = 5 * time.Second
	aloneEvery  = 50 * time.Millisecond
)

// migrate brings the schema up to the newest migration. If alone is not nil, it
// applies none without.
func migrate(ctx context.Context, db *sql.DB, path string, files fs.FS, alone Alone) error {
	all, err := readMigrations(files)
	if err != nil {
		return err
	}
	if alone == nil {
		return applyMissing(ctx, db, path, all)
	}
	for end := time.Now().Add(aloneWithin); ; {
		late := time.Now().After(end)
		done, err := migrateAlone(ctx, db, path, all, alone)
		switch {
		case done, late && isBusy(err):
			return err
		case late:
			return fmt.Errorf("the database %s is older than this version of Ferry, and was left as it is: %w", path, err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(aloneEvery):
		}
	}
}

// migrateAlone reports whether there is nothing left to try.
func migrateAlone(ctx context.Context, db *sql.DB, path string, all []migration, alone Alone) (done bool, err error) {
	missing, err := missingMigrations(ctx, db, all)
	if err != nil || len(missing) == 0 {
		return !isBusy(err), err // whoever creates the database lets nobody wait
	}
	leave, err := alone()
	if err != nil {
		return false, err
	}
	return true, errors.Join(applyMissing(ctx, db, path, all), leave())
}

// applyMissing applies each migration in a transaction of its own, together with
// the note that it was.
func applyMissing(ctx context.Context, db *sql.DB, path string, all []migration) error {
	missing, err := missingMigrations(ctx, db, all)
	if err != nil {
		return err
	}
	if _, err := db.ExecContext(ctx, `create table if not exists migrations (
		number integer primary key, name text not null, sum text not null)`); err != nil {
		return fmt.Errorf("migrations table: %w", err)
	}
	for _, m := range missing {
		err := apply(ctx, db, m)
		if IsFull(err) {
			return fmt.Errorf("migration %s: %w: nothing of it is kept, and nothing is lost; free twice as much as the database %s has, and start again", m.name, err, path)
		}
		if err != nil {
			return fmt.Errorf("migration %s: %w", m.name, err)
		}
	}
	return nil
}

// missingMigrations are those of all that were not applied yet. It writes nothing.
func missingMigrations(ctx context.Context, db *sql.DB, all []migration) ([]migration, error) {
	applied, err := appliedMigrations(ctx, db)
	if err != nil {
		return nil, err
	}
	if len(applied) > len(all) {
		return nil, fmt.Errorf("the database has %d migrations and this program knows %d: it was written by a newer version of Ferry; use that one",
			len(applied), len(all))
	}
	for i, sum := range applied {
		if sum != all[i].sum {
			return nil, fmt.Errorf("migration %s is not the one that was applied to this database", all[i].name)
		}
	}
	return all[len(applied):], nil
}

func readMigrations(files fs.FS) ([]migration, error) {
	names, err := fs.Glob(files, "*.sql")
	if err != nil {
		return nil, err
	}
	var all []migration
	for i, name := range names { // Glob sorts
		digits, _, _ := strings.Cut(name, "_")
		number, err := strconv.Atoi(digits)
		if err != nil || number != i+1 || len(digits) != 4 {
			return nil, fmt.Errorf("migration %s: want number %04d", name, i+1)
		}
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(text)
		all = append(all, migration{number, name, string(text), hex.EncodeToString(sum[:])})
	}
	if len(all) == 0 {
		return nil, errors.New("no migrations")
	}
	return all, nil
}

// appliedMigrations are the sums of those that were applied: none of a database
// that is new.
func appliedMigrations(ctx context.Context, db *sql.DB) (sums []string, err error) {
	var known bool
	if err := db.QueryRowContext(ctx, "select exists (select 1 from sqlite_schema where type = 'table' and name = 'migrations')").Scan(&known); err != nil {
		return nil, fmt.Errorf("read migrations: %w", err)
	}
	if !known {
		return nil, nil
	}
	rows, err := db.QueryContext(ctx, "select sum from migrations order by number")
	if err != nil {
		return nil, fmt.Errorf("read migrations: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var sum string
		if err := rows.Scan(&sum); err != nil {
			return nil, fmt.Errorf("read migrations: %w", err)
		}
		sums = append(sums, sum)
	}
	return sums, rows.Err()
}

func apply(ctx context.Context, db *sql.DB, m migration) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after Commit
	if _, err := tx.ExecContext(ctx, m.text); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "insert into migrations (number, name, sum) values ($1, $2, $3)", m.number, m.name, m.sum); err != nil {
		return err
	}
	return tx.Commit()
}
