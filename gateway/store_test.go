package gateway

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"

	"ferry/internal/sqldb"
)

// openOlder opens a folder's database with the first migrations alone.
func openOlder(t *testing.T, dir string, migrations int) *sqldb.DB {
	t.Helper()
	entries, err := migrationFiles.ReadDir("migrations")
	if err != nil {
		t.Fatal(err)
	}
	older := fstest.MapFS{}
	for _, e := range entries[:migrations] {
		b, err := migrationFiles.ReadFile("migrations/" + e.Name())
		if err != nil {
			t.Fatal(err)
		}
		older[e.Name()] = &fstest.MapFile{Data: b}
	}
	db, err := sqldb.Open(t.Context(), filepath.Join(dir, databaseFile), older)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// texts are the first column of what a query finds.
func texts(t *testing.T, db *sqldb.DB, query string) (all []string) {
	t.Helper()
	err := eachRow(t.Context(), db.Read(), query, nil, func(rows *sql.Rows) error {
		var s sql.Null[string]
		err := rows.Scan(&s)
		all = append(all, s.V)
		return err
	})
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return all
}

const anUpload = `insert into uploads (id, name, size, sha256, cksum, state, body, receipt, created_at, updated_at)
	values ($1, $2, 1, zeroblob(32), 1, $3, $4, $5, 1, 1)`

// wantConstraints wants the rules for uploads to be those of the newest definition.
func wantConstraints(t *testing.T, db *sqldb.DB) {
	t.Helper()
	put := func(state State, body string, receipt []byte, undo error) error {
		return db.Update(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
			id := ulid.Make()
			_, err := tx.ExecContext(ctx, anUpload, id, "f", state, body, receipt)
			if err != nil {
				return errors.Join(errors.New("at once"), err)
			}
			return undo
		})
	}
	undo := errors.New("taken back")
	for _, s := range allStates[1:] {
		for _, body := range []string{bodyRow, bodyFile, bodyGone} {
			if err := put(s, body, nil, undo); !errors.Is(err, undo) {
				t.Errorf("state %s with the body %s: %v", s, body, err)
			}
		}
	}
	for what, c := range map[string]struct {
		state   State
		body    string
		receipt []byte
		want    string
	}{
		"a state that is none":       {"done", bodyRow, nil, "at once\nCHECK"},
		"receiving":                  {StateReceiving, bodyRow, nil, "at once\nCHECK"},
		"no state":                   {"", bodyRow, nil, "at once\nCHECK"},
		"a body that is nowhere":     {StateQueued, "nowhere", nil, "at once\nCHECK"},
		"a receipt that there isn't": {StateDelivered, bodyGone, []byte("none"), "commit: FOREIGN KEY"},
	} {
		if err := put(c.state, c.body, c.receipt, nil); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error that begins with %q", what, err, c.want)
		}
	}
	if made := tables(t, db, insertUploads.texts[0]) + tables(t, db, insertUploads.texts[1]); made != 0 {
		t.Errorf("to insert makes %d tables in memory", made)
	}
}

// tables is how many tables in memory a statement makes on the connection that writes. It has to be
// another statement for another answer: one that is prepared and not run stays what it was.
func tables(t *testing.T, db *sqldb.DB, statement string) (n int) {
	t.Helper()
	err := db.Update(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
		n = 0
		args := make([]any, strings.Count(statement, "$"))
		return eachRow(ctx, tx, "explain "+statement, args, func(rows *sql.Rows) error {
			var opcode string
			if err := rows.Scan(new(any), &opcode, new(any), new(any), new(any), new(any), new(any), new(any)); err != nil {
				return err
			}
			if opcode == "OpenEphemeral" {
				n++
			}
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestDefinitionOfUploads has the definition changed of a table that has rows, also for connections
// that were opened before.
func TestDefinitionOfUploads(t *testing.T) {
	dir := t.TempDir()
	older := openOlder(t, dir, 12)
	defer func() {
		if err := older.Close(); err != nil {
			t.Error(err)
		}
	}()
	ids := map[State]ulid.ULID{}
	err := older.Update(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "insert into receipts (id, envelope) values (x'01', x'02')")
		for _, s := range allStates[1:] {
			ids[s] = ulid.Make()
			_, err2 := tx.ExecContext(ctx, anUpload, ids[s], s, s, bodyGone, []byte{1})
			err = errors.Join(err, err2)
		}
		_, err2 := tx.ExecContext(ctx, `insert into attempts (upload, number, began_at, ended_at, outcome, destination)
			select id, 1, 1, 1, 'delivered', 'v3://h:1256' from uploads`)
		_, err3 := tx.ExecContext(ctx, "insert into destinations (name, url) values ('default', '')")
		return errors.Join(err, err2, err3)
	})
	if err != nil {
		t.Fatal(err)
	}
	if tables(t, older, insertUploads.texts[2]) == 0 {
		t.Error("the old definition had no tables made")
	}
	const place = "select rootpage from sqlite_schema where name = 'uploads'"
	before := texts(t, older, place)

	g := openCore(t, dir, newRemote())
	for s, id := range ids {
		if u := g.see(id); u.State != s || u.Name != string(s) || u.Receipt == nil {
			t.Errorf("%+v", u)
		}
	}
	for _, db := range []*sqldb.DB{g.db, older} {
		wantConstraints(t, db)
		if got := texts(t, db, place); !cmp.Equal(got, before) {
			t.Errorf("the table was at page %s and is at %s: it was copied", before, got)
		}
		if got := texts(t, db, "pragma integrity_check"); !cmp.Equal(got, []string{"ok"}) {
			t.Errorf("integrity: %q", got)
		}
		if got := texts(t, db, "pragma foreign_key_check"); len(got) > 0 {
			t.Errorf("references to nothing in %q", got)
		}
	}
	fresh := openCore(t, t.TempDir(), newRemote())
	wantConstraints(t, fresh.db)
	const schema = "select sql from sqlite_schema where tbl_name <> 'sqlite_sequence' order by name"
	if d := cmp.Diff(texts(t, fresh.db, schema), texts(t, g.db, schema)); d != "" {
		t.Errorf("definitions (-fresh +migrated):\n%s", d)
	}
	for _, db := range []*sqldb.DB{g.db, fresh.db} {
		err := db.Update(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "update sqlite_schema set sql = sql")
			return err
		})
		if err == nil || !strings.Contains(err.Error(), "may not be modified") {
			t.Errorf("definitions can be written still: %v", err)
		}
	}
}

// TestInsertKeepsNoPages: SQLite keeps no pages as they were before a statement that records uploads
// or jobs. It shows by a row whose type is wrong, behind one that is right: if it could, it would take
// back the one before as well.
func TestInsertKeepsNoPages(t *testing.T) {
	undo := errors.New("taken back")
	kept := func(db *sqldb.DB, statement, table string, args ...any) (n int) {
		t.Helper()
		err := db.Update(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, statement, args...); err == nil || !strings.Contains(err.Error(), "cannot store") {
				return fmt.Errorf("%w, want a row of a wrong type refused", err)
			}
			return errors.Join(tx.QueryRowContext(ctx, "select count(*) from "+table).Scan(&n), undo)
		})
		if !errors.Is(err, undo) {
			t.Fatalf("%s: %v", table, err)
		}
		return n
	}
	upload := func(size any) []any {
		return []any{ulid.Make(), DefaultDestination, "f", size, make([]byte, 32), 1, bodyRow, 1, nil, nil, nil, nil, 1, 1, 1}
	}
	uploads := append(upload(1), upload("large")...)
	g := openCore(t, t.TempDir(), newRemote())
	for table, c := range map[string]struct {
		of   *perRow
		args []any
	}{
		"uploads": {insertUploads, uploads},
		"jobs":    {insertJobs, []any{[]byte{1}, DefaultDestination, "f", 0, 1, []byte{2}, DefaultDestination, "g", "text", 1}},
	} {
		if n := kept(g.db, c.of.texts[1], table, c.args...); n != 1 {
			t.Errorf("%d rows of %s are left, want the first: pages were kept", n, table)
		}
		for _, text := range c.of.texts {
			if n := tables(t, g.db, text); n != 0 {
				t.Errorf("%d tables in memory are made for %s", n, text)
			}
		}
	}
	older := openOlder(t, t.TempDir(), 12)
	n := kept(older, insertUploads.texts[1], "uploads", uploads...)
	if err := older.Close(); err != nil || n != 0 {
		t.Errorf("%d rows, %v; want none with the definition of before, or this test tells nothing", n, err)
	}
}
