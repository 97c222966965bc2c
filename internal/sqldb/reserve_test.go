package sqldb_test

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"ferry/internal/smalldisk"
	"ferry/internal/sqldb"
)

// fillDisk takes all the room there is.
func fillDisk(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4096)
	for err == nil {
		_, err = f.Write(b)
	}
	if !errors.Is(err, syscall.ENOSPC) || f.Close() != nil {
		t.Fatal(err)
	}
}

// TestReserve fills the disk under a database: what may take the reserve goes on,
// what may not is refused, also if both come together, and so does a start.
func TestReserve(t *testing.T) {
	dir := smalldisk.Mount(t, "16m")
	path := filepath.Join(dir, "db")
	reserved := func() *sqldb.DB {
		t.Helper()
		db, err := sqldb.OpenWith(t.Context(), path, schema, sqldb.Options{Reserved: 4 << 20})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		return db
	}
	held := func() bool {
		t.Helper()
		info, err := os.Stat(path + "-reserve")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		return err == nil && info.Size() == 4<<20
	}
	db := reserved()
	put := func(n int, size int) func(context.Context, *sql.Tx) error {
		return func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "insert into numbers (n, pad) values ($1, $2)", n, make([]byte, size))
			return err
		}
	}
	if err := db.Update(t.Context(), put(0, 10)); err != nil || !held() {
		t.Fatalf("%v; the reserve is held: %v", err, held())
	}
	fillDisk(t, filepath.Join(dir, "fill"))
	if err := db.UpdateIfRoom(t.Context(), put(1, 64<<10)); !sqldb.IsFull(err) || !held() {
		t.Errorf("what must not take the reserve: %v; it is held: %v", err, held())
	}
	var both sync.WaitGroup
	var stored, refused [8]error
	for i := range 8 {
		both.Go(func() { stored[i] = db.Update(t.Context(), put(100+i, 10<<10)) })
		both.Go(func() { refused[i] = db.UpdateIfRoom(t.Context(), put(200+i, 6<<20)) })
	}
	both.Wait()
	if err := errors.Join(stored[:]...); err != nil {
		t.Errorf("what may take the reserve: %v", err)
	}
	for _, err := range refused {
		if !sqldb.IsFull(err) {
			t.Errorf("what has no room even there: %v, want a full disk", err)
		}
	}
	if held() {
		t.Error("the reserve is still held")
	}
	if got := count(t, db); got != 9 {
		t.Errorf("%d rows, want those that were stored", got)
	}
	if err := db.Update(t.Context(), put(300, 6<<20)); !sqldb.IsFull(err) {
		t.Errorf("more than the reserve: %v, want a full disk", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}

	if err := os.Remove(filepath.Join(dir, "fill")); err != nil {
		t.Fatal(err)
	}
	if db = reserved(); !held() {
		t.Fatal("with room again, there is no reserve")
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	fillDisk(t, filepath.Join(dir, "fill"))
	if db = reserved(); held() {
		t.Error("a start on a full disk has not taken the reserve")
	}
	if err := db.Update(t.Context(), put(301, 10)); err != nil {
		t.Error(err)
	}
}
