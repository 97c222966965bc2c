package sqldb_test

import (
	"bytes"
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"ferry/internal/smalldisk"
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

// TestCheckpointTakesFewCalls: pages that are neighbours are copied together.
func TestCheckpointTakesFewCalls(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "db"))
	if err := putPads(t.Context(), db, 0, 500); err != nil { // below the pages of an automatic checkpoint
		t.Fatal(err)
	}
	writes, reads := calls(t, "syscw"), calls(t, "syscr")
	if err := putPads(t.Context(), db, 500, 600); err != nil {
		t.Fatal(err)
	}
	if n := calls(t, "syscw") - writes; n > 100 { // 20 of them for the log
		t.Errorf("a commit of 600 pages, and copying 1100, took %d calls that write, want 100 at most", n)
	}
	if n := calls(t, "syscr") - reads; n > 150 {
		t.Errorf("a commit of 600 pages, and copying 1100, took %d calls that read, want 150 at most", n)
	}
}

// TestCheckpointOnFullDisk: a checkpoint that finds no room for what it writes last has not happened. The
// log keeps its pages, and they are there when there is room again.
func TestCheckpointOnFullDisk(t *testing.T) {
	for name, reads := range map[string]bool{"": false, "while somebody reads": true} {
		t.Run(name, func(t *testing.T) {
			dir := smalldisk.Mount(t, "16m")
			path := filepath.Join(dir, "db")
			db := open(t, path)
			rows := 1100
			if err := putPads(t.Context(), db, 0, rows); err != nil { // which leaves a log that can be written anew
				t.Fatal(err)
			}
			// Few pages are added, so that they are written last, and together.
			change := func(added int) error {
				return db.Update(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
					for i := range 60 {
						n := i
						if i < added {
							n += rows
						}
						if _, err := tx.ExecContext(ctx, "insert or replace into numbers (n, pad) values ($1, $2)", n, bytes.Repeat([]byte{byte(rows)}, 4000)); err != nil {
							return err
						}
					}
					rows += added
					return nil
				})
			}
			before, room := size(t, path), filepath.Join(dir, "full")
			fillDisk(t, room)
			var reading *sql.Tx
			commits := 0
			for ; commits < 40; commits++ {
				was := rows
				if err := change(1); sqldb.IsFull(err) {
					rows = was
					break
				} else if err != nil {
					t.Fatal(err)
				}
				if reads && reading == nil {
					var err error
					if reading, err = db.Read().BeginTx(t.Context(), &sql.TxOptions{ReadOnly: true}); err != nil {
						t.Fatal(err)
					}
					var n int
					if err := reading.QueryRowContext(t.Context(), "select count(*) from numbers").Scan(&n); err != nil || n != rows {
						t.Fatalf("%d rows, want %d; %v", n, rows, err)
					}
				}
			}
			if n := size(t, path); commits < 17 || commits == 40 || n != before {
				t.Errorf("%d commits, and the database has %d bytes instead of %d: want a full disk, after a checkpoint found it full", commits, n, before)
			}
			wantSound(t, db, rows)
			if reads {
				if err := reading.Commit(); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Remove(room); err != nil {
				t.Fatal(err)
			}
			for range 20 {
				if err := change(60); err != nil {
					t.Fatal(err)
				}
			}
			wantSound(t, db, rows)
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			wantSound(t, open(t, path), rows)
		})
	}
}

// TestTwoThatCheckpoint: each of two that write copies what both have committed.
func TestTwoThatCheckpoint(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	both := []*sqldb.DB{open(t, path), open(t, path)}
	var all sync.WaitGroup
	for i, db := range both {
		all.Go(func() {
			for n := range 120 {
				if err := putPads(t.Context(), db, 1_000_000*i+40*n, 40); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	for _, db := range both {
		wantSound(t, db, 2*120*40)
	}
	if n := size(t, path+"-wal"); n > 2*longest {
		t.Errorf("the log has %d bytes", n)
	}
}
