package gateway

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/oklog/ulid/v2"
)

// Changes are followed by their numbers (docs/decisions/0008): whoever knows the
// number of the last one that it has seen asks for the uploads whose last change has
// a greater one. Nothing is kept for those who listen, so that nobody's slowness
// costs anything, and a restart changes nothing.

// nextChange is the number of a change in SQL. There is one writer, so that numbers
// become visible in their order.
const nextChange = `(select max((select coalesce(max(changed), 0) from uploads), (select coalesce(max(changed), 0) from forgotten)) + 1)`

// maxForgotten bounds how many uploads are known to be forgotten.
const maxForgotten = 10_000

// noteForgotten records that an upload was forgotten.
func noteForgotten(ctx context.Context, tx *sql.Tx, id ulid.ULID, token sql.Null[string], lane string) error {
	_, err := tx.ExecContext(ctx, `insert into forgotten (changed, upload, token, lane) values (`+nextChange+`, $1, $2, $3)`, id, token, lane)
	if err == nil {
		_, err = tx.ExecContext(ctx, "delete from forgotten where changed <= (select changed from forgotten order by changed desc limit 1 offset $1)", maxForgotten)
	}
	if err != nil {
		return fmt.Errorf("note what is forgotten: %w", err)
	}
	return nil
}

// A change is what an upload has become.
type change struct {
	number int64
	id     ulid.ULID
	upload *Upload // nil if it was forgotten
	json   []byte  // the upload's
}

func newChange(number int64, u Upload) change { return change{number, u.ID, &u, encodeJSON(u)} }

const (
	selectChanged   = selectUploads + "where u.changed > $1 and ($2 or u.token = $3) and ($4 = '' or u.lane = $5) order by u.changed limit $6"
	selectForgotten = "select changed, upload from forgotten where changed > $1 and ($2 or token = $3) and ($4 = '' or lane = $5) order by changed limit $6"
)

// changedAfter returns up to limit changes that follow a number, in their order:
// of each upload that the caller may see the last one alone. They are shared with
// others. upTo is the number up to which there are no more.
func (g *Gateway) changedAfter(ctx context.Context, after int64, limit int) (all []change, upTo int64, err error) {
	l := &look{}
	if callerOf(ctx).seesAll() {
		// Before it is looked: what changes then is not missed, but looked for again.
		l = g.shared.look(g.live.changes.any(), place{after, limit})
	}
	l.once.Do(func() { l.page, l.upTo, l.err = g.lookAfter(context.WithoutCancel(ctx), after, limit) })
	return l.page, l.upTo, l.err
}

func (g *Gateway) lookAfter(ctx context.Context, after int64, limit int) (all []change, upTo int64, err error) {
	// Two queries see two states of the database: what is later than this is for the
	// next look, lest what is between be missed.
	if err := g.db.Read().QueryRowContext(ctx, "select "+nextChange+" - 1").Scan(&upTo); err != nil {
		return nil, 0, fmt.Errorf("look for the last change: %w", err)
	}
	add := func(c change) {
		if c.number <= upTo {
			all = append(all, c)
		}
	}
	c := callerOf(ctx)
	args := []any{after, c.may(ScopeRead), c.sender(), c.only(), c.only(), limit}
	err = eachRow(ctx, g.db.Read(), selectChanged, args, func(rows *sql.Rows) error {
		u, err := g.scan(rows)
		if err != nil {
			return err
		}
		if d := g.live.delivery(u.ID); d != nil {
			d.show(&u)
		}
		add(newChange(u.Change, u))
		return nil
	})
	if err == nil {
		err = eachRow(ctx, g.db.Read(), selectForgotten, args, func(rows *sql.Rows) error {
			var f change
			err := rows.Scan(&f.number, &f.id)
			add(f)
			return err
		})
	}
	if err != nil {
		return nil, 0, fmt.Errorf("look for changes: %w", err)
	}
	slices.SortFunc(all, func(a, b change) int { return int(a.number - b.number) })
	if len(all) >= limit {
		all = all[:limit]
		upTo = all[limit-1].number
	}
	return all, max(upTo, after), nil
}

func eachRow(ctx context.Context, q querier, statement string, args []any, each func(rows *sql.Rows) error) (err error) {
	rows, err := q.QueryContext(ctx, statement, args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		if err := each(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// maxPassed bounds how many changes are passed over to find those that a caller may
// see who may not see all.
const maxPassed = 100_000

// lastChange returns the number of the last change of all. missed reports whether
// what followed a number can no longer be told: it is from another database, or
// too long ago.
func (g *Gateway) lastChange(ctx context.Context, after int64) (last int64, missed bool, err error) {
	var oldest sql.Null[int64]
	err = g.db.Read().QueryRowContext(ctx, "select "+nextChange+" - 1, (select changed from forgotten order by changed desc limit 1 offset $1)", maxForgotten-1).
		Scan(&last, &oldest)
	if err != nil {
		return 0, false, fmt.Errorf("look for the last change: %w", err)
	}
	c := callerOf(ctx)
	far := last-after > maxPassed && !c.seesAll()
	return last, far || after > last || oldest.Valid && after < oldest.V-1, nil
}

// nextChanges returns a channel that is closed once anything changes, and one that
// is when nobody shall listen any more.
func (g *Gateway) nextChanges() (changed, stopped <-chan struct{}) {
	return g.live.changes.any(), g.live.changes.stopped
}
