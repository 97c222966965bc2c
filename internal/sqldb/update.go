package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
)

// maxGroup bounds how many updates share a commit, and with it how long the
// first of them waits for the last.
const maxGroup = 256

// update is one call of Update on its way through the writer.
type update struct {
	ctx  context.Context
	fn   func(ctx context.Context, tx *sql.Tx) error
	done chan error // of one element
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
// Updates that wait at the same time share one commit, each in a savepoint of
// its own: one that fails or panics does not touch the others. fn may run only
// statements on tx, must be quick, as all writers wait for it, and must not
// call Update. It is not run if ctx ends while it waits.
func (db *DB) Update(ctx context.Context, fn func(ctx context.Context, tx *sql.Tx) error) error {
	u := &update{ctx: ctx, fn: fn, done: make(chan error, 1)}
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
		return <-u.done // it runs: only the outcome is the truth
	}
}

// commitLoop is the only user of the writing connection.
func (db *DB) commitLoop() {
	for {
		select {
		case u := <-db.queue:
			db.commit(db.group(u))
		case <-db.closed:
			db.refuse()
			return
		}
	}
}

// group collects what waits already, and waits for nobody: a commit that takes
// longer makes the next group larger.
func (db *DB) group(first *update) []*update {
	group := []*update{first}
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

// refuse answers those that were queued while the database was being closed.
func (db *DB) refuse() {
	for {
		select {
		case u := <-db.queue:
			u.done <- ErrClosed
		default:
			return
		}
	}
}

// commit runs a group in one transaction and answers each of its members.
func (db *DB) commit(group []*update) {
	// The transaction belongs to all members: none of their contexts may end it.
	tx, err := db.write.BeginTx(context.Background(), nil)
	if err != nil {
		answer(group, fmt.Errorf("begin: %w", err))
		return
	}
	var kept []*update
	for _, u := range group {
		if !u.state.CompareAndSwap(waiting, begun) {
			continue
		}
		if err := u.run(tx); err != nil {
			u.done <- err
			if errors.Is(err, errBroken) {
				answer(kept, err)
				_ = tx.Rollback() // it is over already, or of no use
				db.again(group[indexAfter(group, u):])
				return
			}
			continue
		}
		kept = append(kept, u)
	}
	if err := tx.Commit(); err != nil {
		_ = tx.Rollback()
		answer(kept, fmt.Errorf("commit: %w", err))
		return
	}
	answer(kept, nil)
}

// again commits the rest of a group whose transaction broke.
func (db *DB) again(rest []*update) {
	if len(rest) > 0 {
		db.commit(rest)
	}
}

func indexAfter(group []*update, u *update) int {
	for i := range group {
		if group[i] == u {
			return i + 1
		}
	}
	return len(group)
}

func answer(group []*update, err error) {
	for _, u := range group {
		u.done <- err
	}
}

// errBroken: the transaction of the group cannot go on; some errors of SQLite,
// a full disk among them, may end it.
var errBroken = errors.New("the transaction broke off and nothing of it is kept")

// run runs one member inside a savepoint.
func (u *update) run(tx *sql.Tx) error {
	ctx := context.WithoutCancel(u.ctx)
	if _, err := tx.ExecContext(ctx, "savepoint member"); err != nil {
		return fmt.Errorf("%w: %w", errBroken, err)
	}
	err := u.call(ctx, tx)
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

func (u *update) call(ctx context.Context, tx *sql.Tx) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("internal error: %v", p)
		}
	}()
	return u.fn(ctx, tx)
}
