package sqldb_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"go.uber.org/goleak"

	"ferry/internal/smalldisk"
	"ferry/internal/sqldb"
)

var schema = fstest.MapFS{"0001_numbers.sql": {Data: []byte("create table numbers (n integer primary key, pad blob) strict")}}

// TestMain lets the test binary be the process that is killed: it inserts
// numbers into the database it is given and prints each once Update returned. It can also
// be one that counts them in a View.
func TestMain(m *testing.M) {
	if path := os.Getenv("SQLDB_TEST_VIEW"); path != "" {
		n, err := viewCount(context.Background(), path)
		if err != nil {
			panic(err)
		}
		fmt.Print(n)
		return
	}
	path := os.Getenv("SQLDB_TEST_INSERT")
	if path == "" {
		goleak.VerifyTestMain(m)
		return
	}
	db, err := sqldb.Open(context.Background(), path, schema)
	if err != nil {
		panic(err)
	}
	var writers sync.WaitGroup
	for w := range 8 {
		writers.Go(func() {
			for n := w; ; n += 8 {
				if err := insert(context.Background(), db, n); err != nil {
					panic(err)
				}
				_, _ = os.Stdout.WriteString(strconv.Itoa(n) + "\n") // one write, so lines stay whole
			}
		})
	}
	writers.Wait()
}

func open(t testing.TB, path string) *sqldb.DB {
	t.Helper()
	db, err := sqldb.Open(t.Context(), path, schema)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func insert(ctx context.Context, db *sqldb.DB, n int) error {
	return db.Update(ctx, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "insert into numbers (n, pad) values ($1, $2)", n, []byte("x"))
		return err
	})
}

func count(t testing.TB, db *sqldb.DB) (n int) {
	t.Helper()
	if err := db.Read().QueryRowContext(t.Context(), "select count(*) from numbers").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestUpdatesAreApartFromEachOther(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "a b?c#d.db"))
	const n = 500
	errBad := errors.New("bad")
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			err := db.Update(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
				if _, err := tx.ExecContext(ctx, "insert into numbers (n) values ($1)", i); err != nil {
					return err
				}
				switch i % 3 {
				case 1:
					return errBad
				case 2:
					panic("worse")
				}
				return nil
			})
			switch {
			case i%3 == 0 && err != nil:
				t.Errorf("update %d: %v", i, err)
			case i%3 == 1 && !errors.Is(err, errBad):
				t.Errorf("update %d: %v, want %v", i, err, errBad)
			case i%3 == 2 && (err == nil || err.Error() != "internal error: worse"):
				t.Errorf("update %d: %v, want an internal error", i, err)
			}
		})
	}
	all.Wait()
	if got, want := count(t, db), (n+2)/3; got != want {
		t.Errorf("%d rows, want %d", got, want)
	}
	if err := insert(t.Context(), db, 0); !sqldb.IsUnique(err) {
		t.Errorf("the same key again: %v, want a unique violation", err)
	}
}

// TestBrokenOff lets an update end the transaction of its group, and not tell: nothing
// of it is kept, nor statement by statement what follows, and the others are run again.
func TestBrokenOff(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "db"))
	const n = 100
	begin := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() { // those that come meanwhile are one group
		if err := db.Update(t.Context(), func(context.Context, *sql.Tx) error { <-begin; return nil }); err != nil {
			t.Error(err)
		}
	})
	var again atomic.Int64
	for i := range n {
		all.Go(func() {
			runs := 0
			err := db.Update(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
				if runs++; runs == 2 {
					again.Add(1)
				}
				if i == n/2 {
					_, _ = tx.ExecContext(ctx, "insert into numbers (n) values ($1)", i)
					_, err := tx.ExecContext(ctx, "rollback")
					return err // none
				}
				_, err := tx.ExecContext(ctx, "insert into numbers (n) values ($1)", i)
				return err
			})
			if broke := err != nil; broke != (i == n/2) {
				t.Errorf("update %d: %v", i, err)
			}
		})
	}
	time.Sleep(50 * time.Millisecond) // for them to wait; those that come later are right as well
	close(begin)
	all.Wait()
	if got := count(t, db); got != n-1 {
		t.Errorf("%d rows, want %d", got, n-1)
	}
	t.Logf("%d updates were run again", again.Load())
}

func TestSynchronousFull(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "db"))
	err := db.Update(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
		for pragma, want := range map[string]string{"synchronous": "2", "journal_mode": "wal", "foreign_keys": "1"} {
			var got string
			if err := tx.QueryRowContext(ctx, "pragma "+pragma).Scan(&got); err != nil || got != want {
				t.Errorf("%s = %s, %v; want %s", pragma, got, err, want)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Read().ExecContext(t.Context(), "insert into numbers (n) values (1)"); err == nil {
		t.Error("a reader could write")
	}
}

func TestContextEndsTheWaitOnly(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "db"))
	entered, leave := make(chan struct{}), make(chan struct{})
	var first sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	first.Go(func() {
		err := db.Update(ctx, func(ctx context.Context, tx *sql.Tx) error {
			close(entered)
			<-leave
			_, err := tx.ExecContext(ctx, "insert into numbers (n) values (1)")
			return err
		})
		if err != nil {
			t.Errorf("the update that ran: %v, want nil although its context ended", err)
		}
	})
	<-entered
	cause := errors.New("changed my mind")
	ctx2, cancel2 := context.WithCancelCause(t.Context())
	cancel2(cause)
	if err := insert(ctx2, db, 2); !errors.Is(err, cause) {
		t.Errorf("the update that waited: %v, want %v", err, cause)
	}
	cancel()
	close(leave)
	first.Wait()
	if err := insert(t.Context(), db, 3); err != nil {
		t.Fatal(err)
	}
	if got := count(t, db); got != 2 {
		t.Errorf("%d rows, want 2: the abandoned one must not have run", got)
	}
}

func TestClose(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "db"))
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := insert(t.Context(), db, 1); !errors.Is(err, sqldb.ErrClosed) {
		t.Errorf("after Close: %v, want ErrClosed", err)
	}
}

// TestMigrationOnAFullDisk has no room for a migration, then some.
func TestMigrationOnAFullDisk(t *testing.T) {
	dir := smalldisk.Mount(t, "16m")
	path := filepath.Join(dir, "db")
	db := open(t, path)
	if err := putPads(t.Context(), db, 0, 400); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	smalldisk.Resize(t, dir, "3m")
	two := fstest.MapFS{"0001_numbers.sql": schema["0001_numbers.sql"], "0002_other.sql": {Data: []byte("create table other as select * from numbers; drop table numbers; alter table other rename to numbers")}}
	_, err := sqldb.Open(t.Context(), path, two)
	if !sqldb.IsFull(err) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "start again") {
		t.Fatalf("got %v, want an error that says that the disk is full, and what to do", err)
	}
	db = open(t, path) // as before
	if got := count(t, db); got != 400 {
		t.Fatalf("%d rows, want 400", got)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	smalldisk.Resize(t, dir, "16m")
	if db, err = sqldb.Open(t.Context(), path, two); err != nil {
		t.Fatal(err)
	}
	if got := count(t, db); got != 400 {
		t.Errorf("%d rows, want 400", got)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

func TestMigrations(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	two := fstest.MapFS{"0001_numbers.sql": schema["0001_numbers.sql"], "0002_more.sql": {Data: []byte("create table more (a integer); insert into more values (7)")}}
	use := func(files fstest.MapFS) error {
		db, err := sqldb.Open(t.Context(), path, files)
		if err != nil {
			return err
		}
		return db.Close()
	}
	for range 2 { // the second time there is nothing to do
		if err := use(two); err != nil {
			t.Fatal(err)
		}
	}
	for want, files := range map[string]fstest.MapFS{
		"newer version": schema,
		"not the one":   {"0001_numbers.sql": {Data: []byte("create table edited (a)")}, "0002_more.sql": two["0002_more.sql"]},
		"want number":   {"0001_a.sql": {}, "0003_b.sql": {}},
		"no migrations": {},
	} {
		if err := use(files); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error that says %q", err, want)
		}
	}
	bad := fstest.MapFS{"0001_numbers.sql": two["0001_numbers.sql"], "0002_more.sql": two["0002_more.sql"],
		"0003_bad.sql": {Data: []byte("create table half (a); create table numbers (n)")}}
	if err := use(bad); err == nil {
		t.Error("a migration that fails was taken")
	}
	if err := use(two); err != nil {
		t.Errorf("after a failed migration: %v, want the database as it was", err)
	}
}

func TestKillKeepsWhatWasAcknowledged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SQLDB_TEST_INSERT="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var acknowledged []int
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		n, err := strconv.Atoi(lines.Text())
		if err != nil {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
		if acknowledged = append(acknowledged, n); len(acknowledged) == 2000 {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait()
	if len(acknowledged) < 2000 {
		t.Fatalf("only %d numbers were acknowledged", len(acknowledged))
	}
	db := open(t, path)
	for _, n := range acknowledged {
		var got int
		if err := db.Read().QueryRowContext(t.Context(), "select n from numbers where n = $1", n).Scan(&got); err != nil {
			t.Fatalf("%d was acknowledged: %v", n, err)
		}
	}
}

func TestFullDisk(t *testing.T) {
	dir := smalldisk.Mount(t, "2m")
	db := open(t, filepath.Join(dir, "db"))
	pad := make([]byte, 64<<10)
	put := func(n int) error {
		return db.Update(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "insert into numbers (n, pad) values ($1, $2)", n, pad)
			return err
		})
	}
	stored := 0
	var err error
	for err == nil && stored < 100 {
		if err = put(stored); err == nil {
			stored++
		}
	}
	if !sqldb.IsFull(err) {
		t.Fatalf("after %d rows: %v, want an error of a full disk", stored, err)
	}
	if got := count(t, db); got != stored {
		t.Errorf("%d rows, want the %d that were acknowledged", got, stored)
	}
	smalldisk.Resize(t, dir, "32m")
	if err := put(1000); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

func BenchmarkUpdate(b *testing.B) {
	for _, writers := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("%d writers", writers), func(b *testing.B) {
			db := open(b, filepath.Join(b.TempDir(), "db"))
			var mu sync.Mutex
			next := 0
			b.SetParallelism(writers / 2)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					mu.Lock()
					n := next
					next++
					mu.Unlock()
					if err := insert(b.Context(), db, n); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

// TestCloseAnswersAll closes databases that are written to: whoever asked is answered, and
// what was kept is there.
func TestCloseAnswersAll(t *testing.T) {
	dir := t.TempDir()
	for round := range 40 {
		path := filepath.Join(dir, strconv.Itoa(round))
		db := open(t, path)
		var kept atomic.Int64
		answered := make(chan struct{})
		var writers sync.WaitGroup
		for w := range 50 {
			writers.Go(func() {
				for n := w; ; n += 50 {
					err := insert(context.Background(), db, n)
					if errors.Is(err, sqldb.ErrClosed) {
						return
					}
					if err != nil {
						t.Error(err)
						return
					}
					kept.Add(1)
				}
			})
		}
		go func() { writers.Wait(); close(answered) }()
		time.Sleep(time.Duration(round%5) * time.Millisecond) // for some to be at work
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-answered:
		case <-time.After(30 * time.Second):
			t.Fatalf("round %d: somebody who asked for an update is not answered after Close", round)
		}
		if got := count(t, open(t, path)); int64(got) != kept.Load() {
			t.Fatalf("%d rows, %d were kept", got, kept.Load())
		}
	}
}

// lateContext is looked at last before an update is queued, and goes on once its channel
// is closed.
type lateContext struct {
	context.Context
	looked func()
	goOn   chan struct{}
}

func (c lateContext) Done() <-chan struct{} {
	c.looked()
	<-c.goOn
	return c.Context.Done()
}

// TestCloseAnswersTheLate has updates queued when nobody is there any more.
func TestCloseAnswersTheLate(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "db"))
	const n = 30 // each is queued, or is not, by chance
	var looking sync.WaitGroup
	looking.Add(n)
	goOn, answers := make(chan struct{}), make(chan error, n)
	for i := range n {
		go func() {
			answers <- insert(lateContext{context.Background(), sync.OnceFunc(looking.Done), goOn}, db, i)
		}()
	}
	looking.Wait()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	close(goOn)
	for i := range n {
		select {
		case err := <-answers:
			if !errors.Is(err, sqldb.ErrClosed) {
				t.Errorf("got %v, want ErrClosed", err)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("%d of %d are not answered", n-i, n)
		}
	}
}

// TestLookupsDoNotEndWithTheirContext has them find what there is all the same.
func TestLookupsDoNotEndWithTheirContext(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "db"))
	for n := range 3 {
		if err := insert(t.Context(), db, n); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var n int
	if err := db.Read().QueryRowContext(ctx, "select 1").Scan(&n); !errors.Is(err, context.Canceled) {
		t.Errorf("Read: %v, want that it was cancelled", err)
	}
	if err := db.Lookups().QueryRowContext(ctx, "select n from numbers where n = $1", 2).Scan(&n); err != nil || n != 2 {
		t.Errorf("one row: %d, %v; want 2", n, err)
	}
	rows, err := db.Lookups().QueryContext(ctx, "select n from numbers where n > $1", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	found := 0
	for rows.Next() {
		found++
	}
	if err := rows.Err(); err != nil || found != 2 {
		t.Errorf("%d rows, %v; want 2", found, err)
	}
}

func BenchmarkLookup(b *testing.B) {
	db := open(b, filepath.Join(b.TempDir(), "db"))
	if err := insert(b.Context(), db, 1); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	for name, q := range map[string]interface {
		QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	}{"Read": db.Read(), "Lookups": db.Lookups()} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				var n int
				if err := q.QueryRowContext(ctx, "select n from numbers where n = $1", 1).Scan(&n); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
