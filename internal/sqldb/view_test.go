package sqldb_test

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"ferry/internal/sqldb"
)

// listing is every file of a folder with what tells that it was written to.
func listing(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()+" "+info.ModTime().Format(time.RFC3339Nano)] = true
	}
	return slices.Sorted(maps.Keys(all))
}

func viewCount(ctx context.Context, path string) (n int, err error) {
	err = sqldb.View(ctx, path, schema, func(db *sql.DB) error {
		return db.QueryRowContext(ctx, "select count(*) from numbers").Scan(&n)
	})
	return n, err
}

// viewElsewhere is viewCount in another process: in this one the index of the log is shared
// with the writer, who may write to it.
func viewElsewhere(ctx context.Context, path string) (n int, err error) {
	c := exec.CommandContext(ctx, os.Args[0])
	c.Env = append(os.Environ(), "SQLDB_TEST_VIEW="+path)
	out, err := c.Output()
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(out))
}

func TestView(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a b?c#d.db")
	if _, err := viewCount(t.Context(), path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no database: %v, want ErrNotExist", err)
	}
	db := open(t, path)
	view := func(when string, want int) {
		t.Helper()
		before := listing(t, dir)
		if got, err := viewElsewhere(t.Context(), path); err != nil || got != want {
			t.Errorf("%s: %d, %v; want %d", when, got, err, want)
		}
		if diff := cmp.Diff(before, listing(t, dir)); diff != "" {
			t.Errorf("%s: files changed (-before +after):\n%s", when, diff)
		}
	}
	for n := range 3 {
		if err := insert(t.Context(), db, n); err != nil {
			t.Fatal(err)
		}
		view("beside the writer", n+1)
	}

	// What a killed process leaves.
	killed := t.TempDir()
	if err := os.CopyFS(killed, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if got := listing(t, dir); len(got) != 1 {
		t.Fatalf("after Close: %q", got)
	}
	view("nobody has it open", 3)
	dir, path = killed, filepath.Join(killed, filepath.Base(path))
	if got := listing(t, dir); len(got) != 3 {
		t.Fatalf("after a kill: %q", got)
	}
	view("after a kill", 3)

	err := sqldb.View(t.Context(), path, schema, func(db *sql.DB) error {
		_, err := db.ExecContext(t.Context(), "insert into numbers (n) values (9)")
		return err
	})
	if err == nil {
		t.Error("a view could write")
	}
	newer := fstest.MapFS{"0001_numbers.sql": schema["0001_numbers.sql"], "0002_x.sql": {}}
	err = sqldb.View(t.Context(), path, newer, func(*sql.DB) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "another version") {
		t.Errorf("a database without a migration: %v", err)
	}
}

// TestViewNoticesAWriter begins and ends a writer while a view reads what it
// took for untouched.
func TestViewNoticesAWriter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	if err := open(t, path).Close(); err != nil {
		t.Fatal(err)
	}
	err := sqldb.View(t.Context(), path, schema, func(*sql.DB) error {
		db := open(t, path)
		if err := insert(t.Context(), db, 1); err != nil {
			return err
		}
		return db.Close()
	})
	if !errors.Is(err, sqldb.ErrChanged) {
		t.Errorf("got %v, want ErrChanged", err)
	}
	if got, err := viewCount(t.Context(), path); err != nil || got != 1 {
		t.Errorf("again: %d, %v; want 1", got, err)
	}
}
