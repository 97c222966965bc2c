package sqldb_test

import (
	"database/sql"
	"os"
	"path/filepath"
	"testing"

	"ferry/internal/sqldb"
)

// longest is how many bytes the log has at most: 1000 pages, and a commit of 0.4 MB.
const longest = 5 << 20

// written commits so many times 0.4 MB, and returns how long the log was at most.
func written(t *testing.T, db *sqldb.DB, path string, from, commits int) (most int64) {
	t.Helper()
	for i := range commits {
		if err := putPads(t.Context(), db, (from+i)*100, 100); err != nil {
			t.Fatal(err)
		}
		most = max(most, size(t, path+"-wal"))
	}
	return most
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

// TestLogIsBegunAnew: what is written all the time is copied to the database, and the log does not grow
// with it.
func TestLogIsBegunAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db := open(t, path)
	if n := written(t, db, path, 0, 200); n > longest {
		t.Errorf("the log had %d bytes", n)
	}
	if n := size(t, path); n < 60<<20 {
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
	if n := size(t, path+"-wal"); n > 17<<20 {
		t.Errorf("the log still has %d bytes", n)
	}
	wantSound(t, db, 201*100)
}
