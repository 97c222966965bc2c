package sqldb_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"ferry/internal/sqldb"
)

// calls is how many calls of this process have written (syscw) or read (syscr) so far.
func calls(t testing.TB, which string) (n int) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := bytes.Cut(b, []byte(which+": "))
	if _, err := fmt.Sscan(string(after), &n); err != nil || !found {
		t.Fatalf("/proc/self/io: %q, %v", b, err)
	}
	return n
}

// putPads inserts rows from a number on, of about a page each.
func putPads(ctx context.Context, db *sqldb.DB, from, rows int) error {
	return db.Update(ctx, func(ctx context.Context, tx *sql.Tx) error {
		for n := from; n < from+rows; n++ {
			if _, err := tx.ExecContext(ctx, "insert into numbers (n, pad) values ($1, $2)", n, bytes.Repeat([]byte{byte(n)}, 4000)); err != nil {
				return err
			}
		}
		return nil
	})
}

func TestCommitTakesFewWrites(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "db"))
	if err := putPads(t.Context(), db, 0, 1); err != nil {
		t.Fatal(err)
	}
	before := calls(t, "syscw")
	if err := putPads(t.Context(), db, 1, 200); err != nil { // 0.8 MB, and below the pages of an automatic checkpoint
		t.Fatal(err)
	}
	if n := calls(t, "syscw") - before; n > 20 {
		t.Errorf("a commit of 200 pages took %d calls that write, want 20 at most", n)
	}
}

// TestLargeUpdates has updates that do not fit the cache, so that pages are written to the
// log and read again before the commit; some are taken back. Readers, and whoever opens the
// files anew, see what was committed, and nothing else.
func TestLargeUpdates(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db := open(t, path)
	random := rand.New(rand.NewPCG(1, 2))
	refused := errors.New("no")
	want := map[int]byte{}
	for round := range 40 {
		changed, failing := map[int]byte{}, round%3 == 1
		err := db.Update(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
			clear(changed)
			for range 1 + random.IntN(1500) {
				n, value := random.IntN(3000), byte(random.Uint32())
				if _, err := tx.ExecContext(ctx, "insert or replace into numbers (n, pad) values ($1, $2)", n, bytes.Repeat([]byte{value}, 4000)); err != nil {
					return err
				}
				changed[n] = value
			}
			if failing {
				return refused
			}
			return nil
		})
		if failing != errors.Is(err, refused) || !failing && err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if !failing {
			maps.Copy(want, changed)
		}
		comparePads(t, db, want)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = open(t, path)
	comparePads(t, db, want)
	wantSound(t, db, len(want))
}

func comparePads(t *testing.T, db *sqldb.DB, want map[int]byte) {
	t.Helper()
	rows, err := db.Read().QueryContext(t.Context(), "select n, pad from numbers")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	found := 0
	for rows.Next() {
		var n int
		var pad []byte
		if err := rows.Scan(&n, &pad); err != nil {
			t.Fatal(err)
		}
		value, ok := want[n]
		if !ok || !bytes.Equal(pad, bytes.Repeat([]byte{value}, 4000)) {
			t.Fatalf("row %d is not what was committed", n)
		}
		found++
	}
	if err := rows.Err(); err != nil || found != len(want) {
		t.Fatalf("%d rows, want %d; %v", found, len(want), err)
	}
}

// TestNothingTakenBackIsWritten has updates taken back of which pages were written to the
// log already, more or fewer of them, and another process write after each: what was to be written
// for the one must not come over what the other has committed.
func TestNothingTakenBackIsWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db, other := open(t, path), open(t, path)
	refused := errors.New("no")
	want := map[int]byte{}
	for round := range 40 {
		first := 100 * round
		err := db.Update(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
			for n := range 380 + 10*round {
				if _, err := tx.ExecContext(ctx, "insert into numbers (n, pad) values ($1, $2)", -1-n, bytes.Repeat([]byte{1}, 4000)); err != nil {
					return err
				}
			}
			return refused
		})
		if !errors.Is(err, refused) {
			t.Fatal(err)
		}
		for i, by := range []*sqldb.DB{other, db} {
			if err := putPads(t.Context(), by, first+50*i, 50); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			for n := first + 50*i; n < first+50*i+50; n++ {
				want[n] = byte(n)
			}
		}
		comparePads(t, db, want)
		comparePads(t, other, want)
	}
	wantSound(t, db, len(want))
}
