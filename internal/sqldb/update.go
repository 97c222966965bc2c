package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/mattn/go-sqlite3"
)

// maxGroup bounds how many updates share a commit, and with it how long the
// first of them waits for the last.
const maxGroup = 256

// update is one call of Update on its way through the writer.
type update struct {
	ctx   context.Context
	fn    func(ctx context.Context, tx *sql.Tx) error
	batch *batch // instead of fn, with an item
	item  any
	undo  func()     // of what fn does beside the database; may be nil
	done  chan error // of one element
	// ifRoom says that the reserve is not for it.
	ifRoom bool
	// state settles who speaks first: the caller who gives up or the writer who
	// begins.
	state atomic.Int32
}

const (
	waiting int32 = iota
	begun
	abandoned
)

// Update runs fn in a transaction. When it returns nil, what fn did is durable:
// it survives a power loss. When it returns an error, nothing of fn is kept,
// unless the error says that the commit's outcome is unknown.
//
// Updates that wait at the same time share one commit; one that fails or panics
// does not touch the others. fn may run only statements on tx, must be quick, as
// all writers wait for it, and must not call Update. It is not run if ctx ends
// while it waits. Nor may fn leave behind what a deferred foreign key refuses: the commit
// finds that, and fails for all.
//
// fn may be run more than once, each time as if it had not been run before: another
// one of its group may fail, or the disk be full, and what [Options].Reserved keeps be
// given up to it.
func (db *DB) Update(ctx context.Context, fn func(ctx context.Context, tx *sql.Tx) error) error {
	return db.update(&update{ctx: ctx, fn: fn, done: make(chan error, 1)})
}

// UpdateUndo is Update for an fn that changes something beside the database, for those to see
// that come after it in its group. undo takes back what the last run of fn has changed, as far as it
// got: it is called, by the goroutine that runs fn, whenever nothing is kept of a run, before anything else
// is run and before UpdateUndo returns. Those that were run later are taken back earlier. It may be called
// where nothing was done since it was called before, and must not panic.
func (db *DB) UpdateUndo(ctx context.Context, fn func(ctx context.Context, tx *sql.Tx) error, undo func()) error {
	return db.update(&update{ctx: ctx, fn: fn, undo: undo, done: make(chan error, 1)})
}

// UpdateIfRoom is Update for what may be refused when the disk is full: it leaves
// to others what [Options].Reserved keeps. See [IsFull].
func (db *DB) UpdateIfRoom(ctx context.Context, fn func(ctx context.Context, tx *sql.Tx) error) error {
	return db.update(&update{ctx: ctx, fn: fn, done: make(chan error, 1), ifRoom: true})
}

// batch is a [Batch] of whatever type.
type batch struct {
	fn func(ctx context.Context, tx *sql.Tx, members []*update) error
}

// A Batch is for what many callers write alike: the items of those that wait at the same
// time are written by one call of its function, which can do that by fewer statements
// than one for each.
type Batch[T any] struct {
	db *DB
	batch
}

// NewBatch returns a batch of which fn writes the items. It is to heed what [DB.Update]
// says of its fn. When it returns an error, nothing is kept that it did; unless there was one item
// alone, it is called for each of them by itself then, so that each has an error of its own. What can
// be refused without writing anything is better noted in the item, for its caller to see.
func NewBatch[T any](db *DB, fn func(ctx context.Context, tx *sql.Tx, items []T) error) *Batch[T] {
	return &Batch[T]{db, batch{func(ctx context.Context, tx *sql.Tx, members []*update) error {
		items := make([]T, len(members))
		for i, u := range members {
			items[i], _ = u.item.(T) // as Update has put it in
		}
		return fn(ctx, tx, items)
	}}}
}

// UpdateIfRoom is [DB.UpdateIfRoom] of what the batch's function does for an item.
func (b *Batch[T]) UpdateIfRoom(ctx context.Context, item T) error {
	return b.db.update(&update{ctx: ctx, batch: &b.batch, item: item, done: make(chan error, 1), ifRoom: true})
}

func (db *DB) update(u *update) error {
	ctx := u.ctx
	select {
	case <-db.closed:
		return ErrClosed
	default:
	}
	select {
	case db.queue <- u:
	case <-db.closed:
		return ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case err := <-u.done:
		return err
	case <-ctx.Done():
		if u.state.CompareAndSwap(waiting, abandoned) {
			return context.Cause(ctx)
		}
	case <-db.ended:
		if u.state.CompareAndSwap(waiting, abandoned) {
			return ErrClosed // it was queued while the database was being closed
		}
	}
	return <-u.done // it runs, or has: only the outcome is the truth
}

// commitLoop is the only user of the writing connection and of the reserve.
func (db *DB) commitLoop() {
	defer close(db.ended)
	look := time.NewTicker(reserveEvery)
	defer look.Stop()
	for {
		select {
		case u := <-db.queue:
			db.commit(db.group(u))
		case <-look.C:
			db.reserve.take()
		case <-db.closed:
			return // those that are queued still see that it has ended
		}
	}
}

// rounds is how often a group gives way, as long as that brings something along: with one, small uploads
// cost 2 to 3 % more, and with ten as much as with four.
const rounds = 4

// group collects what waits already, and what others that can run at once bring along, and
// waits for nobody: a commit that takes longer makes the next group larger.
func (db *DB) group(first *update) []*update {
	group := []*update{first}
	for had, round := 0, 0; round < rounds && had < len(group) && len(group) < maxGroup; round++ {
		had = len(group)
		runtime.Gosched()
		group = db.queued(group)
	}
	return group
}

// queued adds those to a group that wait.
func (db *DB) queued(group []*update) []*update {
	for len(group) < maxGroup {
		select {
		case u := <-db.queue:
			group = append(group, u)
		default:
			return group
		}
	}
	return group
}

// commit runs a group in one transaction and answers each of its members. Where one
// fails, nothing of that transaction is kept, and further ones run the others again:
// there each has a savepoint, for which SQLite copies every page before it is written
// to. What broke off, or found no room, is tried
// again as well.
func (db *DB) commit(group []*update) {
	apart := false
	for len(group) > 0 {
		group, apart = db.transact(group, apart), true
	}
}

// transact is one transaction of commit. It returns those that need another one. If
// apart is set, each is in a savepoint.
func (db *DB) transact(group []*update, apart bool) (again []*update) {
	// The transaction belongs to all members: none of their contexts may end it.
	tx, err := db.writer.BeginTx(context.Background(), nil)
	if err != nil {
		return db.failed(group, fmt.Errorf("begin: %w", err))
	}
	var kept []*update
	for rest := group; len(rest) > 0; {
		var members []*update
		members, rest = next(rest, apart)
		if len(members) == 0 {
			continue
		}
		err := db.run(tx, members, apart)
		if err == nil {
			kept = append(kept, members...)
			continue
		}
		takeBack(members)
		if apart && !errors.Is(err, errBroken) {
			again = append(again, db.failed(members, err)...)
			continue
		}
		_ = tx.Rollback() // what they did cannot be told from what the others did
		takeBack(kept)
		switch {
		case IsFull(err): // for the others as well
			again = append(again, db.failed(append(kept, members...), err)...)
		case len(members) > 1: // each may have an error of its own
			again = append(append(kept, again...), members...)
		default:
			again = append(append(kept, again...), db.failed(members, err)...)
		}
		return append(again, rest...)
	}
	if err := tx.Commit(); err != nil {
		_ = tx.Rollback()
		takeBack(kept)
		return append(again, db.failed(kept, fmt.Errorf("commit: %w", err))...)
	}
	answer(kept, nil)
	return again
}

// next takes those from a group that are run at once, and returns what is left: one update, or
// all items of a batch, unless each is to be apart. Members that wait at the same time are in no
// order. There are none if their callers gave up.
func next(group []*update, apart bool) (members, rest []*update) {
	together := group[0].batch
	if together == nil || apart {
		members, rest = []*update{group[0]}, group[1:]
	} else {
		for _, u := range group {
			if u.batch == together {
				members = append(members, u)
			} else {
				rest = append(rest, u)
			}
		}
	}
	return slices.DeleteFunc(members, func(u *update) bool { return !u.begin() }), rest
}

// failed answers those of whom nothing was kept, and returns those for whom there
// may be room once the others, or the reserve, have made some.
func (db *DB) failed(group []*update, err error) (again []*update) {
	if !IsFull(err) {
		answer(group, err)
		return nil
	}
	var refused []*update
	for _, u := range group {
		if u.ifRoom {
			refused = append(refused, u)
		} else {
			again = append(again, u)
		}
	}
	if len(again) > 0 && !db.reserve.giveUp() && len(refused) == 0 {
		refused, again = again, nil
	}
	answer(refused, err)
	return again
}

// takeBack has those undo what they did beside the database that were run, in that order,
// and of whom nothing is kept.
func takeBack(ran []*update) {
	for _, u := range slices.Backward(ran) {
		if u.undo != nil {
			u.undo()
		}
	}
}

func answer(group []*update, err error) {
	for _, u := range group {
		u.done <- err
	}
}

// errBroken: the transaction of the group cannot go on; some errors of SQLite,
// a full disk among them, may end it.
var errBroken = errors.New("the transaction broke off and nothing of it is kept")

// begin reports whether a member is to be run: its caller may have given up.
func (u *update) begin() bool {
	return u.state.CompareAndSwap(waiting, begun) || u.state.Load() == begun
}

// run runs one member, in a savepoint if apart is set, or several of one batch.
func (db *DB) run(tx *sql.Tx, members []*update, apart bool) error {
	ctx := context.Background() // a batch belongs to all of its callers
	if members[0].batch == nil {
		ctx = context.WithoutCancel(members[0].ctx)
	}
	if !apart {
		if err := call(ctx, tx, members); err != nil {
			return err
		}
		return db.stillOpen() // should fn not have told of an error that ended it
	}
	if _, err := tx.ExecContext(ctx, "savepoint member"); err != nil {
		return fmt.Errorf("%w: %w", errBroken, err)
	}
	err := call(ctx, tx, members)
	if err == nil {
		if _, err := tx.ExecContext(ctx, "release member"); err != nil {
			return fmt.Errorf("%w: %w", errBroken, err)
		}
		return nil
	}
	if _, back := tx.ExecContext(ctx, "rollback to member; release member"); back != nil {
		return fmt.Errorf("%w: %w: %w", errBroken, err, back)
	}
	return err
}

// stillOpen returns errBroken if the transaction has ended: what followed would be
// kept statement by statement.
func (db *DB) stillOpen() error {
	var over bool
	err := db.writer.Raw(func(conn any) error {
		c, ok := conn.(*sqlite3.SQLiteConn)
		over = !ok || c.AutoCommit()
		return nil
	})
	if err != nil || over {
		return errors.Join(errBroken, err)
	}
	return nil
}

func call(ctx context.Context, tx *sql.Tx, members []*update) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("internal error: %v", p)
		}
	}()
	u := members[0]
	if u.batch == nil {
		return u.fn(ctx, tx)
	}
	return u.batch.fn(ctx, tx, members)
}
