package sqldb_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"ferry/internal/sqldb"
)

// written commits so many times 0.4 MB, and returns how long the log was at most.
func written(t *testing.T, db *sqldb.DB, path string, from, commits int) (longest int64) {
	t.Helper()
	for i := range commits {
		if err := putPads(t.Context(), db, (from+i)*100, 100); err != nil {
			t.Fatal(err)
		}
		longest = max(longest, size(t, path+"-wal"))
	}
	return longest
}

func size(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

func wantSound(t *testing.T, db *sqldb.DB, rows int) {
	t.Helper()
	var n int
	var sound string
	if err := db.Read().QueryRowContext(t.Context(), "select count(*) from numbers").Scan(&n); err != nil || n != rows {
		t.Errorf("%d rows, want %d; %v", n, rows, err)
	}
	if err := db.Read().QueryRowContext(t.Context(), "pragma integrity_check").Scan(&sound); err != nil || sound != "ok" {
		t.Errorf("integrity: %s, %v", sound, err)
	}
}

// TestLogIsBegunAnew: what is written all the time is copied to the database, before the writer
// has to, and the log does not grow with it.
func TestLogIsBegunAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db := open(t, path)
	if n := written(t, db, path, 0, 200); n > 24<<20 {
		t.Errorf("the log had %d bytes", n)
	}
	if n := size(t, path); n < 40<<20 {
		t.Errorf("80 MB were written, and the database has %d bytes", n)
	}
	wantSound(t, db, 200*100)
}

// TestLogWhileOneReads: the log keeps what a reader has yet to see, and is short again after that.
func TestLogWhileOneReads(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db := open(t, path)
	written(t, db, path, 0, 1)
	reading, err := db.Read().BeginTx(t.Context(), &sql.TxOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	count := func() (n int) {
		t.Helper()
		if err := reading.QueryRowContext(t.Context(), "select count(*) from numbers where length(pad) = 4000").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := count(); n != 100 {
		t.Fatalf("%d rows, want 100", n)
	}
	if n := written(t, db, path, 1, 100); n < 40<<20 {
		t.Errorf("the log has %d bytes, with 40 MB that somebody is not to see yet", n)
	}
	if n := count(); n != 100 {
		t.Errorf("%d rows, want 100 as before", n)
	}
	if err := reading.Commit(); err != nil {
		t.Fatal(err)
	}
	written(t, db, path, 101, 100)
	if n := size(t, path+"-wal"); n > 24<<20 {
		t.Errorf("the log still has %d bytes", n)
	}
	wantSound(t, db, 201*100)
}

// TestLastResort: if nobody else copies the log, the writer does.
func TestLastResort(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db, err := sqldb.Open(context.Background(), path, schema)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); !errors.Is(err, sql.ErrConnDone) { // see BreakCheckpoints
			t.Error(err)
		}
	}()
	if err := db.BreakCheckpoints(); err != nil {
		t.Fatal(err)
	}
	if n := written(t, db, path, 0, 200); n < 30<<20 || n > 36<<20 {
		t.Errorf("the log had %d bytes, want 8000 pages and the commit that came to them", n)
	}
	wantSound(t, db, 200*100)
}
