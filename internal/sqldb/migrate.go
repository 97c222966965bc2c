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
)

// migration is one numbered file.
type migration struct {
	number int
	name   string
	text   string
	sum    string // of the text, so that a released migration that was edited is noticed
}

// migrate brings the schema up to the newest migration. Each is applied in a
// transaction of its own, together with the note that it was.
func migrate(ctx context.Context, db *sql.DB, path string, files fs.FS) error {
	all, err := readMigrations(files)
	if err != nil {
		return err
	}
	if _, err := db.ExecContext(ctx, `create table if not exists migrations (
		number integer primary key, name text not null, sum text not null)`); err != nil {
		return fmt.Errorf("migrations table: %w", err)
	}
	applied, err := appliedMigrations(ctx, db)
	if err != nil {
		return err
	}
	if len(applied) > len(all) {
		return fmt.Errorf("the database has %d migrations and this program knows %d: it was written by a newer version of Ferry; use that one",
			len(applied), len(all))
	}
	for i, m := range all {
		if i < len(applied) {
			if applied[i] != m.sum {
				return fmt.Errorf("migration %s is not the one that was applied to this database", m.name)
			}
			continue
		}
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

func appliedMigrations(ctx context.Context, db *sql.DB) (sums []string, err error) {
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
