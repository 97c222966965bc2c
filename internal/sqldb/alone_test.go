package sqldb_test

import (
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"ferry/internal/sqldb"
)

var newer = fstest.MapFS{
	"0001_numbers.sql": schema["0001_numbers.sql"],
	"0002_more.sql":    {Data: []byte("create table more (n integer) strict")},
}

// TestSchemaIsNotChangedBesideAnother opens a database beside one that has it open and
// does not know the newest migration.
func TestSchemaIsNotChangedBesideAnother(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	old := open(t, path)
	errHeld := errors.New("held")
	asked := 0
	held := sqldb.Options{Alone: func() (func() error, error) { asked++; return nil, errHeld }}

	same, err := sqldb.OpenWith(t.Context(), path, schema, held)
	if err != nil || asked != 0 {
		t.Fatalf("of the same version: %v, asked %d times; want none", err, asked)
	}
	if err := same.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = sqldb.OpenWith(t.Context(), path, newer, held)
	if !errors.Is(err, errHeld) || !strings.Contains(err.Error(), "left as it is") || asked < 2 {
		t.Errorf("of a newer one: %v, asked %d times; want that it was held, and several", err, asked)
	}
	if err := insert(t.Context(), old, 1); err != nil {
		t.Error(err)
	}
	if n, err := viewCount(t.Context(), path); err != nil || n != 1 {
		t.Errorf("the older schema: %d rows, %v; want 1", n, err)
	}
}

// TestSchemaComesFromAnother opens a database while somebody else, who holds the
// folder, brings it up to date.
func TestSchemaComesFromAnother(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	if err := open(t, path).Close(); err != nil {
		t.Fatal(err)
	}
	var other *sqldb.DB
	var once sync.Once
	db, err := sqldb.OpenWith(t.Context(), path, newer, sqldb.Options{Alone: func() (func() error, error) {
		once.Do(func() {
			var err error
			if other, err = sqldb.Open(t.Context(), path, newer); err != nil {
				t.Error(err)
			}
		})
		return nil, errors.New("held")
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []*sqldb.DB{db, other} {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestSchemaIsMadeOnce opens a database that does not exist yet several times at once.
func TestSchemaIsMadeOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	var folder sync.Mutex
	alone := func() (func() error, error) {
		if !folder.TryLock() {
			return nil, errors.New("held")
		}
		return func() error { folder.Unlock(); return nil }, nil
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			db, err := sqldb.OpenWith(t.Context(), path, newer, sqldb.Options{Alone: alone})
			if err == nil {
				err = db.Close()
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}
