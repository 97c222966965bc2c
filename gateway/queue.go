package gateway

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/oklog/ulid/v2"

	"ferry/proto"
)

// lease is how long a claim holds without a heartbeat.
const lease = 30 * time.Second

// errLeaseLost: the job is another worker's, or nobody's, by now.
var errLeaseLost = errors.New("the lease of the delivery was lost")

// insertJobs makes jobs of new uploads, due at once, or parked behind others of their names and
// destinations.
var insertJobs = newPerRow("insert or fail into jobs (upload, lane, name, parked, due_at, fence) values ", "(?, ?, ?, ?, ?, 0)", "")

// enqueueAgain makes a job of an upload that had one before.
func enqueueAgain(ctx context.Context, tx *sql.Tx, id ulid.ULID, now time.Time) error {
	_, err := tx.ExecContext(ctx, `insert into jobs (upload, lane, name, parked, due_at, fence)
		select u.id, u.lane, u.name, exists (select 1 from jobs j where j.lane = u.lane and j.name = u.name and j.parked = 0), $1, u.attempts from uploads u where u.id = $2`,
		now.UnixMicro(), id)
	if err != nil {
		return fmt.Errorf("record job: %w", err)
	}
	return nil
}

// claimJob takes the job of a lane that has been due for longest.
const claimJob = `update jobs set leased = 1, due_at = $1, fence = fence + 1
	where upload = (select upload from jobs where lane = $2 and parked = 0 and due_at <= $3 order by due_at, upload limit 1)
	returning upload, fence, failures, cancel`

// claimAgain takes one that the network has failed before: each that is tried while the
// destination cannot be reached is one whose row has to be written.
const claimAgain = `update jobs set leased = 1, due_at = $1, fence = fence + 1
	where upload = (select upload from jobs where lane = $2 and parked = 0 and due_at >= $3 and due_at < $4 and leased = 0 and network = 1 order by upload limit 1)
	returning upload, fence, failures, cancel`

// claimOne takes a certain one, if it is due.
const claimOne = `update jobs set leased = 1, due_at = $1, fence = fence + 1
	where upload = $2 and lane = $3 and parked = 0 and leased = 0 and due_at <= $4
	returning upload, fence, failures, cancel`

// nextDue passes over what is held, which comes last.
const nextDue = "select due_at from jobs where lane = $1 and parked = 0 and due_at < $2 order by due_at, upload limit 1"

// A claim is a job that a worker has; zero if there was none to do.
type claim struct {
	id        ulid.ULID
	fence     int64 // also the number of this attempt
	began     time.Time
	failures  int  // in a row, before this one
	cancelled bool // somebody asked for that before it was claimed
	body      string
	lane      *lane
	sender    sql.Null[string] // the name of the token that it was sent with
	offer     proto.Offer
}

// take has a lane's job leased that a pass is for.
func (c *claim) take(ctx context.Context, tx *sql.Tx, l *lane, p pass, now time.Time) error {
	query := func(q string, args ...any) error {
		return tx.QueryRowContext(ctx, q, append([]any{now.Add(lease).UnixMicro()}, args...)...).Scan(&c.id, &c.fence, &c.failures, &c.cancelled)
	}
	if p.only != nil {
		return query(claimOne, *p.only, l.Name, now.UnixMicro())
	}
	if p.probe && !p.since.IsZero() {
		err := query(claimAgain, l.Name, p.since.UnixMicro(), int64(heldUntil))
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
	}
	return query(claimJob, l.Name, now.UnixMicro())
}

// claimDue claims the job of a lane that a pass is for. If there is none that is due,
// next is when one will be, as far as is known; zero if there is none.
func claimDue(ctx context.Context, tx *sql.Tx, l *lane, p pass, now time.Time) (c claim, next time.Time, err error) {
	err = c.take(ctx, tx, l, p, now)
	if errors.Is(err, sql.ErrNoRows) {
		var due int64
		err = tx.QueryRowContext(ctx, nextDue, l.Name, int64(heldUntil)).Scan(&due)
		if errors.Is(err, sql.ErrNoRows) {
			return claim{}, time.Time{}, nil
		}
		return claim{}, fromMicro(due), err
	}
	if err != nil {
		return claim{}, time.Time{}, fmt.Errorf("claim: %w", err)
	}
	var (
		name string
		sha  []byte
		sum  proto.Sum

		mode, modified sql.Null[int64]
	)
	if err := tx.QueryRowContext(ctx, `update uploads set state = 'delivering', attempts = $1, attempted_at = $2, updated_at = $3, changed = `+nextChange+` where id = $4
		returning name, size, sha256, cksum, body, mode, modified, token`, c.fence, now.UnixMicro(), now.UnixMicro(), c.id).
		Scan(&name, &sum.Size, &sha, &sum.Cksum, &c.body, &mode, &modified, &c.sender); err != nil {
		return claim{}, time.Time{}, fmt.Errorf("claim: %w", err)
	}
	copy(sum.SHA256[:], sha)
	c.lane, c.began = l, now
	at := attributesOf(mode, modified)
	c.offer = proto.Offer{ID: proto.TransferID(c.id), Size: sum.Size, Mode: at.mode, ModTime: at.modTime, Sum: &sum}
	if c.offer.Name, err = proto.ParseFileName(name); err != nil {
		return claim{}, time.Time{}, fmt.Errorf("claim: internal error: %w", err) // it was one when it came in
	}
	return c, time.Time{}, nil
}

// heartbeat extends the lease and tells whether somebody wants the upload
// cancelled.
func (c *claim) heartbeat(ctx context.Context, tx *sql.Tx, now time.Time) (cancel bool, err error) {
	err = tx.QueryRowContext(ctx, `update jobs set due_at = $1 where upload = $2 and fence = $3 and leased = 1
		returning cancel`, now.Add(lease).UnixMicro(), c.id, c.fence).Scan(&cancel)
	if errors.Is(err, sql.ErrNoRows) {
		return false, errLeaseLost
	}
	return cancel, err
}

// giveUp ends the lease and makes the job due at a time, with the failures it
// has had.
func (c *claim) giveUp(ctx context.Context, tx *sql.Tx, due time.Time, failures int, network bool) error {
	return held(tx.ExecContext(ctx, `update jobs set leased = 0, due_at = $1, failures = $2, network = $3
		where upload = $4 and fence = $5 and leased = 1`, due.UnixMicro(), failures, network, c.id, c.fence))
}

// finish ends the job and lets the next one of its name go.
func (c *claim) finish(ctx context.Context, tx *sql.Tx) error {
	if err := held(tx.ExecContext(ctx, "delete from jobs where upload = $1 and fence = $2 and leased = 1", c.id, c.fence)); err != nil {
		return err
	}
	return unpark(ctx, tx, c.lane.Name, c.offer.Name.String())
}

// held turns a write that found no row into errLeaseLost.
func held(res sql.Result, err error) error {
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return errors.Join(errLeaseLost, err)
	}
	return nil
}

const unparkJob = `update jobs set parked = 0
	where upload = (select upload from jobs where lane = $1 and name = $2 and parked = 1 order by upload limit 1)
		and not exists (select 1 from jobs where lane = $3 and name = $4 and parked = 0)`

// unpark lets the oldest job of a lane and a name be claimed, after the one before it is
// gone; if another one may be claimed still, which can be younger than one that was
// retried, it does nothing. It is due since it was recorded, and so has not lost its place.
func unpark(ctx context.Context, tx *sql.Tx, lane, name string) error {
	_, err := tx.ExecContext(ctx, unparkJob, lane, name, lane, name)
	if err != nil {
		return fmt.Errorf("let the next of its name go: %w", err)
	}
	return nil
}

// maxPulled bounds how many jobs are pulled forward in one transaction.
const maxPulled = 256

// pullJobs makes due what waits on a lane for a network that works again, in its place
// among what was not tried: by when it came.
const pullJobs = `update jobs set due_at = min($1, (select created_at from uploads where id = jobs.upload))
	where upload in (select upload from jobs where lane = $2 and parked = 0 and due_at > $3 and leased = 0 and network = 1 order by due_at, upload limit $4)`

// restoreJobs makes runnable what a process before this one had claimed or
// postponed, before all that it had not begun: nobody else can have a lease on
// this folder.
func restoreJobs(ctx context.Context, tx *sql.Tx, now time.Time) error {
	if _, err := tx.ExecContext(ctx, `update uploads set state = 'queued' where state <> 'queued'
		and id in (select upload from jobs)`); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `update jobs set leased = 0, due_at = 0
		where parked = 0 and held = 0 and (leased = 1 or failures > 0 or due_at > $1)`, now.UnixMicro())
	return err
}
