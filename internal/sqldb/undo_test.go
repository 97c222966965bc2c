package sqldb_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"ferry/internal/sqldb"
)

// TestUpdateUndo has updates keep in memory what they write, and some of them fail, each in
// its way: whenever one is run, and in the end, memory has what the database has.
func TestUpdateUndo(t *testing.T) {
	for _, commits := range []bool{true, false} {
		t.Run(fmt.Sprintf("commits %v", commits), func(t *testing.T) { testUpdateUndo(t, commits) })
	}
}

// testUpdateUndo has all of one group fail by its commit, or some by themselves.
func testUpdateUndo(t *testing.T, commits bool) {
	db, err := sqldb.Open(t.Context(), filepath.Join(t.TempDir(), "db"), fstest.MapFS{"0001_numbers.sql": {Data: []byte(
		"create table numbers (n integer primary key, other integer references numbers (n) deferrable initially deferred) strict")}})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	const n = 400
	errBad := errors.New("bad")
	var memory []int // in the order in which they were run; written to by the writer alone
	numbers := func(ctx context.Context, q interface {
		QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	}) (all []int) {
		rows, err := q.QueryContext(ctx, "select n from numbers order by n")
		if err != nil {
			t.Error(err)
			return nil
		}
		defer rows.Close()
		for rows.Next() {
			var i int
			if err := rows.Scan(&i); err != nil {
				t.Error(err)
			}
			all = append(all, i)
		}
		if err := rows.Err(); err != nil {
			t.Error(err)
		}
		return all
	}
	begin := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		err := db.Update(t.Context(), func(context.Context, *sql.Tx) error { <-begin; return nil })
		if err != nil && commits {
			t.Error(err)
		}
	})
	var undone, kept atomic.Int64
	for i := range n {
		all.Go(func() {
			ran := false
			err := db.UpdateUndo(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
				if has, want := slices.Sorted(slices.Values(memory)), numbers(ctx, tx); !slices.Equal(has, want) {
					t.Errorf("update %d: memory has %v, the database %v", i, has, want)
				}
				if ran {
					t.Errorf("update %d is run once more, and nothing was undone", i)
				}
				ran, memory = true, append(memory, i)
				var other sql.Null[int]
				if !commits && i == n/2 {
					other = sql.Null[int]{V: n, Valid: true} // which the commit finds
				}
				if _, err := tx.ExecContext(ctx, "insert into numbers (n, other) values ($1, $2)", i, other); err != nil {
					return err
				}
				switch {
				case !commits:
				case i%20 == 1:
					return errBad
				case i%20 == 2:
					panic("worse")
				case i%20 == 3:
					_, err := tx.ExecContext(ctx, "rollback")
					return err // none
				}
				return nil
			}, func() {
				if !ran {
					return // its transaction could not go on
				}
				undone.Add(1)
				ran = false
				last := len(memory) - 1
				if memory[last] != i {
					t.Errorf("update %d is undone before one that was run later", i)
				}
				memory = slices.Delete(memory, last, last+1)
			})
			if err == nil {
				kept.Add(1)
			}
			if (err == nil) != ran {
				t.Errorf("update %d: %v, and what it did is there: %v", i, err, ran)
			}
		})
	}
	time.Sleep(50 * time.Millisecond) // for them to wait; those that come later are right as well
	close(begin)
	all.Wait()
	has := numbers(t.Context(), db.Read())
	if want := slices.Sorted(slices.Values(memory)); !slices.Equal(has, want) || int64(len(has)) != kept.Load() {
		t.Errorf("%d are kept: the database has %v, memory %v", kept.Load(), has, want)
	}
	if undone.Load() == 0 || commits && kept.Load() != n-n/20*3 {
		t.Errorf("%d kept and %d runs undone of %d", kept.Load(), undone.Load(), n)
	}
	t.Logf("%d kept, %d runs undone", kept.Load(), undone.Load())
}
