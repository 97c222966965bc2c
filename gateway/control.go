package gateway

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"

	"github.com/oklog/ulid/v2"
)

// heldUntil is when a job that is held is due.
const heldUntil = math.MaxInt64

// errDelivering: an upload that a worker has cannot be held.
var errDelivering = fmt.Errorf("%w: it is being delivered", errState)

// cancel cancels an upload that is not final, as remove does, and leaves one that
// is as it is. It returns what the upload is then. One that was receiving is gone.
func (g *Gateway) cancel(ctx context.Context, id ulid.ULID) (Upload, error) {
	u, _, err := g.end(ctx, id, false)
	return u, err
}

// hold keeps an upload that nobody delivers from being delivered until release or
// retry, and over restarts. It returns errState for one that is receiving, final,
// or being delivered.
func (g *Gateway) hold(ctx context.Context, id ulid.ULID) (Upload, error) {
	return g.postpone(ctx, id, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "update jobs set due_at = $1, held = 1, network = 0 where upload = $2", int64(heldUntil), id)
		if err == nil {
			_, err = tx.ExecContext(ctx, "update uploads set changed = "+nextChange+" where id = $1", id)
		}
		return err
	})
}

// release lets an upload that is held be delivered, at once; of another one, it
// changes nothing. It returns errState as hold does.
func (g *Gateway) release(ctx context.Context, id ulid.ULID) (Upload, error) {
	now := g.now().UnixMicro()
	u, err := g.postpone(ctx, id, func(ctx context.Context, tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, "update jobs set due_at = $1, held = 0, failures = 0 where upload = $2 and held = 1", now, id)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return err
		}
		_, err = tx.ExecContext(ctx, "update uploads set state = 'queued', updated_at = $1, changed = "+nextChange+" where id = $2", now, id)
		return err
	})
	if err == nil {
		g.urge(&u)
	}
	return u, err
}

// postpone changes when an upload's job is due, if no worker has it.
func (g *Gateway) postpone(ctx context.Context, id ulid.ULID, change func(ctx context.Context, tx *sql.Tx) error) (u Upload, err error) {
	if g.live.incoming(id) != nil {
		return Upload{}, errState
	}
	err = g.db.Update(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if err := g.expected(ctx, tx, id); err != nil {
			return err
		}
		var leased bool
		err := tx.QueryRowContext(ctx, "select leased from jobs where upload = $1", id).Scan(&leased)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			if _, err := g.load(ctx, tx, id); err != nil {
				return err
			}
			return errState
		case err != nil:
			return fmt.Errorf("read job: %w", err)
		case leased:
			return errDelivering
		}
		if err := change(ctx, tx); err != nil {
			return fmt.Errorf("postpone job: %w", err)
		}
		u, err = g.load(ctx, tx, id)
		return err
	})
	if err != nil {
		return Upload{}, err
	}
	g.live.changes.tell(id)
	return u, nil
}
