package gateway

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/oklog/ulid/v2"
)

const (
	// cancelWait bounds how long remove waits for a worker to let go.
	cancelWait = 5 * time.Second
	// cancelWaitMore is the same of those that follow once that is over, see sharingWait: most
	// workers let go at once.
	cancelWaitMore = 250 * time.Millisecond
)

// sharedWait is what calls of remove and cancel that follow one another have left to wait.
type sharedWait struct{ left time.Duration }

type sharedWaitKey struct{}

// sharingWait returns a context with which remove and cancel wait for cancelWait together, and
// then for cancelWaitMore each. They must follow one another.
func sharingWait(ctx context.Context) context.Context {
	return context.WithValue(ctx, sharedWaitKey{}, &sharedWait{cancelWait})
}

// awaitEnd waits for a delivery to end that was cancelled, unless that takes long.
func (g *Gateway) awaitEnd(ctx context.Context, d *delivery) {
	most := cancelWait
	if shared, ok := ctx.Value(sharedWaitKey{}).(*sharedWait); ok {
		most = max(shared.left, cancelWaitMore)
		begun := g.now()
		defer func() { shared.left -= max(0, g.now().Sub(begun)) }()
	}
	timer, stop := g.clock.after(most)
	defer stop()
	select {
	case <-d.done:
	case <-timer:
	case <-ctx.Done():
	}
}

// mayBeStored is kept as the last error of an upload that was cancelled when it
// could not be known any more whether it had been delivered.
const mayBeStored = "cancelled when all had been sent and no acknowledgement had come: the destination may hold the file"

// remove cancels an upload that is not final, or forgets one that is. It
// returns what the upload is now; gone is true if it was forgotten. Cancelling
// one that is receiving ends its whole request, of which nothing is kept: it is
// cancelled and gone. Cancelling one that is being delivered waits, up to a few
// seconds, for the worker to let go, so that what is returned is what really
// happened: it may have been delivered.
func (g *Gateway) remove(ctx context.Context, id ulid.ULID) (u Upload, gone bool, err error) {
	return g.end(ctx, id, true)
}

// end is remove, or cancel: then what is final stays.
func (g *Gateway) end(ctx context.Context, id ulid.ULID, forgets bool) (u Upload, gone bool, err error) {
	if in := g.live.incoming(id); in != nil {
		u := in.upload()
		if in.from.interrupt() {
			u.State, u.UpdatedAt = StateCancelled, g.now()
			return u, true, nil
		}
		select {
		case <-in.from.committed:
		case <-ctx.Done():
			return Upload{}, false, context.Cause(ctx)
		}
	}
	var r removal
	err = g.db.Update(ctx, func(ctx context.Context, tx *sql.Tx) error {
		r = removal{forgets: forgets}
		return g.removeIn(ctx, tx, id, &r)
	})
	if err != nil {
		return Upload{}, false, err
	}
	g.live.changes.tell(id)
	if r.dropFile {
		g.dropFile(id)
	}
	if r.running == nil {
		g.wake(&r.upload) // the next of its name
		return r.upload, r.gone, nil
	}
	r.running.cancel()
	g.awaitEnd(ctx, r.running)
	u, err = g.get(context.WithoutCancel(ctx), id)
	return u, false, err
}

// removal is what a transaction of remove found and did.
type removal struct {
	forgets  bool // what is final
	upload   Upload
	gone     bool
	dropFile bool
	running  *delivery // it decides
}

func (g *Gateway) removeIn(ctx context.Context, tx *sql.Tx, id ulid.ULID, r *removal) error {
	u, err := g.load(ctx, tx, id)
	if err == nil {
		err = asExpected(ctx, &u)
	}
	if err != nil {
		return err
	}
	switch u.State {
	case StateDelivered, StateFailed, StateCancelled:
		if r.upload = u; !r.forgets {
			return nil
		}
		if !callerOf(ctx).may(ScopeAdmin) {
			return forbidden(ScopeAdmin)
		}
		r.gone = true
		r.dropFile, err = forget(ctx, tx, id)
		return err
	case StateDelivering:
		// In this transaction either the delivery is found, or its end is
		// recorded, or nobody has it: its lease has lapsed.
		if r.running = g.live.delivery(id); r.running != nil {
			_, err := tx.ExecContext(ctx, "update jobs set cancel = 1 where upload = $1", id)
			return err
		}
	case StateReceiving, StateQueued, StateWaiting:
	}
	if err := g.cancelIdle(ctx, tx, u); err != nil {
		return err
	}
	r.upload, err = g.load(ctx, tx, id)
	return err
}

// cancelIdle cancels an upload that no worker has.
func (g *Gateway) cancelIdle(ctx context.Context, tx *sql.Tx, u Upload) error {
	now := g.now()
	if _, err := tx.ExecContext(ctx, "delete from jobs where upload = $1", u.ID); err != nil {
		return err
	}
	if err := unpark(ctx, tx, u.DestinationName, u.Name); err != nil {
		return err
	}
	l, err := g.lanes.named(u.DestinationName)
	if err != nil {
		return err
	}
	f, known, err := lookUp(ctx, tx, l.client(), u.Name)
	if err != nil {
		return err
	}
	note := ""
	if u.Attempts.Count > 0 && known && !f.confirmed && fmt.Sprintf("%x", f.sha256) == *u.SHA256 {
		note = mayBeStored
	}
	_, err = tx.ExecContext(ctx, `update uploads set state = 'cancelled', updated_at = $1, changed = `+nextChange+`, last_error = coalesce($2, last_error) where id = $3`,
		now.UnixMicro(), orNull(note), u.ID)
	return err
}

// forget deletes a final upload; file tells whether its file has to go, too.
func forget(ctx context.Context, tx *sql.Tx, id ulid.ULID) (file bool, err error) {
	if err := dropBody(ctx, tx, id); err != nil {
		return false, err
	}
	if err := dropAttempts(ctx, tx, id); err != nil {
		return false, err
	}
	var body string
	var receipt []byte
	var labels, token sql.Null[string]
	var lane string
	if err := tx.QueryRowContext(ctx, "delete from uploads where id = $1 returning body, receipt, labels, token, lane", id).Scan(&body, &receipt, &labels, &token, &lane); err != nil {
		return false, fmt.Errorf("forget upload: %w", err)
	}
	if err := dropLabels(ctx, tx, id, labels); err != nil {
		return false, err
	}
	if err := noteForgotten(ctx, tx, id, token, lane); err != nil {
		return false, err
	}
	return body == bodyFile, dropReceipt(ctx, tx, receipt)
}

// retry queues a failed, cancelled, waiting or held upload again, at once, or one that
// is queued for a destination that cannot be reached. It returns errState for any other,
// and for one whose bytes are gone.
func (g *Gateway) retry(ctx context.Context, id ulid.ULID) (u Upload, err error) {
	if g.live.incoming(id) != nil {
		return Upload{}, errState
	}
	err = g.db.Update(ctx, func(ctx context.Context, tx *sql.Tx) error {
		err := g.expected(ctx, tx, id)
		if err != nil {
			return err
		}
		u, err = g.retryIn(ctx, tx, id)
		return err
	})
	if err != nil {
		return Upload{}, err
	}
	g.live.changes.tell(id)
	g.urge(&u)
	return u, nil
}

func (g *Gateway) retryIn(ctx context.Context, tx *sql.Tx, id ulid.ULID) (Upload, error) {
	now := g.now()
	var state State
	var body, lane string
	err := tx.QueryRowContext(ctx, "select state, body, lane from uploads where id = $1", id).Scan(&state, &body, &lane)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return Upload{}, errNotFound
	case err != nil:
		return Upload{}, fmt.Errorf("read upload: %w", err)
	case body == bodyGone:
		return Upload{}, errState
	}
	switch state {
	case StateFailed, StateCancelled:
		err = enqueueAgain(ctx, tx, id, now)
	case StateWaiting:
		_, err = tx.ExecContext(ctx, "update jobs set due_at = $1, failures = 0, held = 0 where upload = $2", now.UnixMicro(), id)
	case StateQueued:
		err = held(tx.ExecContext(ctx, "update jobs set due_at = $1, held = 0 where upload = $2 and held = 1", now.UnixMicro(), id))
		if errors.Is(err, errLeaseLost) { // it is not held
			if _, unreachable := g.lanes.byName[lane].breaker.unreachable(); !unreachable {
				return Upload{}, errState
			}
			err = nil
		}
	case StateReceiving, StateDelivering, StateDelivered:
		return Upload{}, errState
	}
	if err != nil {
		return Upload{}, err
	}
	if _, err := tx.ExecContext(ctx, "update uploads set state = 'queued', error = null, updated_at = $1, changed = "+nextChange+" where id = $2", now.UnixMicro(), id); err != nil {
		return Upload{}, err
	}
	return g.load(ctx, tx, id)
}
