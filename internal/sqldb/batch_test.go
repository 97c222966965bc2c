package sqldb_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"ferry/internal/sqldb"
)

// TestBatch has items wait at the same time, with some that cannot be written: they are
// written together, and then each for itself, and none twice.
func TestBatch(t *testing.T) {
	for _, bad := range []int{0, 1} {
		t.Run(fmt.Sprintf("with %d bad of 20", bad), func(t *testing.T) { testBatch(t, bad) })
	}
}

func testBatch(t *testing.T, bad int) {
	db := open(t, filepath.Join(t.TempDir(), "db"))
	const n = 200
	isBad := func(i int) bool { return i%20 < bad }
	var sizes []int // written to by the writer alone
	write := func(from int) func(ctx context.Context, tx *sql.Tx, items []int) error {
		return func(ctx context.Context, tx *sql.Tx, items []int) error {
			sizes = append(sizes, len(items))
			for _, i := range items {
				if _, err := tx.ExecContext(ctx, "insert into numbers (n) values ($1)", from+i); err != nil {
					return err
				}
			}
			for _, i := range items {
				switch {
				case isBad(i) && i%40 == 0:
					panic(fmt.Sprint(i))
				case isBad(i):
					return fmt.Errorf("internal error: %d", i)
				}
			}
			return nil
		}
	}
	one, other := sqldb.NewBatch(db, write(0)), sqldb.NewBatch(db, write(n))
	begin := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		if err := db.Update(t.Context(), func(context.Context, *sql.Tx) error { <-begin; return nil }); err != nil {
			t.Error(err)
		}
	})
	check := func(i int, err error) {
		if (err != nil) != isBad(i) || err != nil && err.Error() != fmt.Sprintf("internal error: %d", i) {
			t.Errorf("item %d: %v", i, err)
		}
	}
	for i := range n {
		all.Go(func() { check(i, one.UpdateIfRoom(t.Context(), i)) })
		all.Go(func() { check(i, other.UpdateIfRoom(t.Context(), i)) })
		all.Go(func() {
			if err := insert(t.Context(), db, 2*n+i); err != nil {
				t.Error(err)
			}
		})
	}
	time.Sleep(50 * time.Millisecond) // for them to wait; those that come later are right as well
	close(begin)
	all.Wait()
	if got, want := count(t, db), 3*n-2*n/20*bad; got != want {
		t.Errorf("%d rows, want %d", got, want)
	}
	if slices.Max(sizes) < 10 {
		t.Errorf("items came by %d at most, want many at once", slices.Max(sizes))
	}
}

// TestBatchGivenUp has callers give up at any time, some items that cannot be written, and
// the database closed in the end: what was kept is what callers were told of.
func TestBatchGivenUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db := open(t, path)
	batch := sqldb.NewBatch(db, func(ctx context.Context, tx *sql.Tx, items []int) error {
		for _, i := range items {
			if _, err := tx.ExecContext(ctx, "insert into numbers (n) values ($1)", i); err != nil {
				return err
			}
			if i%97 == 0 {
				panic("no")
			}
		}
		return nil
	})
	kept := make(chan int, 1<<20)
	var all sync.WaitGroup
	for w := range 32 {
		all.Go(func() {
			random := rand.New(rand.NewPCG(uint64(w), 1))
			for i := w; ; i += 32 {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(random.IntN(3000))*time.Microsecond)
				err := batch.UpdateIfRoom(ctx, i)
				cancel()
				switch {
				case errors.Is(err, sqldb.ErrClosed):
					return
				case err == nil:
					kept <- i
				case !errors.Is(err, context.DeadlineExceeded) && i%97 != 0:
					t.Errorf("item %d: %v", i, err)
				}
			}
		})
	}
	for len(kept) < 500 {
		time.Sleep(time.Millisecond)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	all.Wait()
	close(kept)
	var want []int
	for i := range kept {
		want = append(want, i)
	}
	slices.Sort(want)
	rows, err := open(t, path).Read().QueryContext(t.Context(), "select n from numbers order by n")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var got []int
	for rows.Next() {
		var i int
		if err := rows.Scan(&i); err != nil {
			t.Fatal(err)
		}
		got = append(got, i)
	}
	if err := rows.Err(); err != nil || !slices.Equal(got, want) {
		t.Errorf("%d rows, %d were told of; %v", len(got), len(want), err)
	}
}
