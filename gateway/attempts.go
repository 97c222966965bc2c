package gateway

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/oklog/ulid/v2"

	"ferry/internal/sqldb"
)

// attemptsPath follows an upload's address.
const attemptsPath = "/attempts"

// Of an upload's attempts the first ones are kept, and the latest: an upload that is
// tried for a year takes no more room than one that is tried for an hour. While the
// disk is full none is: what room is left is for what becomes of uploads.
const (
	firstAttempts  = 10
	latestAttempts = 10
)

// AttemptOutcome is how an attempt ended.
type AttemptOutcome string

// The outcomes.
const (
	AttemptDelivered   AttemptOutcome = "delivered"   // the destination has the file, verified
	AttemptFailed      AttemptOutcome = "failed"      // the upload cannot succeed as it is
	AttemptPostponed   AttemptOutcome = "postponed"   // something went wrong that may pass: another attempt follows
	AttemptCancelled   AttemptOutcome = "cancelled"   // somebody stopped it
	AttemptInterrupted AttemptOutcome = "interrupted" // the gateway was stopped in the middle of it, or lost hold of it
)

// AttemptStatus is an attempt to deliver an upload, as the API shows it.
type AttemptStatus struct {
	Number  int             `json:"number" example:"1"` // the first one has 1
	BeganAt time.Time       `json:"began_at"`
	EndedAt *time.Time      `json:"ended_at"` // null while it runs; of one that nobody saw the end of, when it ran last as far as is known
	Outcome *AttemptOutcome `json:"outcome"`  // null while it runs
	Error   *string         `json:"error"`    // what went wrong, in words; null if nothing did
	// How much of the file the destination has acknowledged by now, or had at the end;
	// null if nobody saw that.
	Bytes *int64 `json:"bytes"`
	// How much of bytes it had from before; null as bytes is.
	ResumedFrom *int64 `json:"resumed_from"`
	// How often the file was begun: more than once if checksums differed, 0 if it did
	// not come to that; null as bytes is.
	Sends       *int   `json:"sends"`
	Destination string `json:"destination"` // its URL
}

// attemptList is the attempts of an upload, in their order.
type attemptList struct {
	Count    int             `json:"count"` // of all that there were, listed or not
	Attempts []AttemptStatus `json:"attempts"`
}

// What is said of attempts that were interrupted.
const (
	wasStopped = "the gateway was stopped in the middle of the attempt"
	wasCutOff  = "the attempt was broken off, and how it ended is not known: the next one finds out"
)

// shown is how the API calls an outcome, and what went wrong.
func (o outcome) shown() (AttemptOutcome, string) {
	switch o.kind {
	case delivered:
		return AttemptDelivered, ""
	case failed:
		return AttemptFailed, o.failure
	case cancelled:
		return AttemptCancelled, o.lastError
	case postponed:
		return AttemptPostponed, o.lastError
	case givenBack:
		return AttemptInterrupted, wasStopped
	case exists, lost:
	}
	return AttemptInterrupted, wasCutOff
}

// transfer is how far a delivery came.
type transfer struct {
	bytes, resumed int64
	sends          int
}

func (d *delivery) transfer() transfer {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := transfer{bytes: d.progress.Bytes, resumed: d.progress.From}
	if d.sent {
		t.sends = d.progress.Send
	}
	return t
}

// isPlain reports whether the upload says all there is to know of an attempt: it was
// the only one, and did all at once.
func (d *delivery) isPlain(o outcome, t transfer) bool {
	return o.kind == delivered && d.fence == 1 && t == (transfer{bytes: d.offer.Size, sends: 1})
}

const insertAttempt = `insert into attempts (upload, number, began_at, ended_at, outcome, error, bytes, resumed, sends, destination) `

// noteAttempt records how an attempt ended, unless that is plain.
func (g *Gateway) noteAttempt(ctx context.Context, tx *sql.Tx, d *delivery, o outcome, now time.Time) error {
	t := d.transfer()
	if o.kind == delivered { // what it did not have to be sent, it had
		t.resumed += d.offer.Size - t.bytes
		t.bytes = d.offer.Size
	}
	if d.isPlain(o, t) || errors.Is(g.room.check(), errSpoolFull) {
		return nil
	}
	how, words := o.shown()
	_, err := tx.ExecContext(ctx, insertAttempt+`select id, $1, $2, $3, $4, $5, $6, $7, $8, $9 from uploads where id = $10`,
		d.fence, d.began.UnixMicro(), now.UnixMicro(), how, orNull(words), t.bytes, t.resumed, t.sends, d.lane.To.String(), d.id)
	if err != nil {
		return fmt.Errorf("record attempt: %w", err)
	}
	return thinOut(ctx, tx, d.id, d.fence)
}

// thinOut drops what is neither among the first attempts nor among the latest.
func thinOut(ctx context.Context, tx *sql.Tx, id ulid.ULID, last int64) error {
	if last <= firstAttempts+latestAttempts {
		return nil
	}
	_, err := tx.ExecContext(ctx, "delete from attempts where upload = $1 and number > $2 and number <= $3", id, firstAttempts, last-latestAttempts)
	if err != nil {
		return fmt.Errorf("drop attempts: %w", err)
	}
	return nil
}

// dropAttempts forgets those of an upload.
func dropAttempts(ctx context.Context, tx *sql.Tx, id ulid.ULID) error {
	if _, err := tx.ExecContext(ctx, "delete from attempts where upload = $1", id); err != nil {
		return fmt.Errorf("drop attempts: %w", err)
	}
	return nil
}

// noteLost records an attempt that lost its lease: how it ended is for the next one to
// find out.
func (g *Gateway) noteLost(d *delivery) {
	ctx := context.WithoutCancel(d.ctx)
	err := g.db.Update(ctx, func(ctx context.Context, tx *sql.Tx) error {
		return g.noteAttempt(ctx, tx, d, outcome{kind: lost}, g.now())
	})
	if err != nil {
		g.log.Warn("an attempt is not listed", "upload", d.id.String(), "attempt", d.fence, "err", err)
	}
}

const (
	// insertCutOff says of each attempt where it went before destinations were
	// configured anew, and takes the last heartbeat for its end. A cross join
	// is made from left to right: the index of uploads is by destinations.
	insertCutOff = insertAttempt + `select u.id, u.attempts, coalesce(u.attempted_at, u.updated_at),
			max(coalesce(u.attempted_at, u.updated_at), j.due_at - $1), 'interrupted', $2, null, null, null, d.url
		from destinations d cross join uploads u on u.lane = d.name and u.state = 'delivering' join jobs j on j.upload = u.id
		where j.leased = 1 on conflict do nothing`
	thinOutCutOff = `delete from attempts where upload in (select upload from jobs where leased = 1)
		and number > $1 and number <= (select attempts from uploads where id = upload) - $2`
)

// noteCutOff records the attempts that the end of a process before this one cut off.
// There may be no room for that: then they are not listed.
func (g *Gateway) noteCutOff(ctx context.Context) error {
	err := g.db.Update(ctx, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, insertCutOff, lease.Microseconds(), wasCutOff)
		if err == nil {
			_, err = tx.ExecContext(ctx, thinOutCutOff, firstAttempts, latestAttempts)
		}
		return err
	})
	if sqldb.IsFull(err) {
		g.log.Warn("attempts that were cut off are not listed", "err", err)
		err = nil
	}
	if err != nil {
		return fmt.Errorf("record attempts that were cut off: %w", err)
	}
	return nil
}

const selectAttempts = `select number, began_at, ended_at, outcome, error, bytes, resumed, sends, destination from attempts where upload = $1 order by number`

// attempts returns how often delivery of an upload was tried and, as far as is kept,
// how that went, or errNotFound.
func (g *Gateway) attempts(ctx context.Context, id ulid.ULID) (all attemptList, err error) {
	in, d := g.live.incoming(id), g.live.delivery(id) // first, as in get
	tx, err := g.db.Read().BeginTx(ctx, nil)          // all is of one state of the database
	if err != nil {
		return attemptList{}, fmt.Errorf("read attempts: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // nothing was written
	u, err := g.load(ctx, tx, id)
	switch {
	case errors.Is(err, errNotFound) && in != nil:
		return attemptList{Attempts: []AttemptStatus{}}, nil
	case err != nil:
		return attemptList{}, err
	}
	var began sql.Null[int64]
	if err := tx.QueryRowContext(ctx, "select attempted_at from uploads where id = $1", id).Scan(&began); err != nil {
		return attemptList{}, fmt.Errorf("read attempts: %w", err)
	}
	all = attemptList{Count: u.Attempts.Count, Attempts: []AttemptStatus{}}
	err = eachRow(ctx, tx, selectAttempts, []any{id}, func(rows *sql.Rows) error {
		a, err := scanAttempt(rows)
		all.Attempts = append(all.Attempts, a)
		return err
	})
	if err != nil {
		return attemptList{}, fmt.Errorf("read attempts: %w", err)
	}
	if began.Valid {
		all.addPresent(&u, d, fromMicro(began.V))
	}
	return all, nil
}

func scanAttempt(rows *sql.Rows) (a AttemptStatus, err error) {
	var began, ended int64
	var words sql.Null[string]
	var bytes, resumed sql.Null[int64]
	var sends sql.Null[int]
	if err := rows.Scan(&a.Number, &began, &ended, &a.Outcome, &words, &bytes, &resumed, &sends, &a.Destination); err != nil {
		return AttemptStatus{}, err
	}
	a.BeganAt, a.EndedAt = fromMicro(began), new(fromMicro(ended))
	a.Error, a.Bytes, a.ResumedFrom, a.Sends = pointer(words), pointer(bytes), pointer(resumed), pointer(sends)
	return a, nil
}

func pointer[T any](n sql.Null[T]) *T {
	if !n.Valid {
		return nil
	}
	return &n.V
}

// addPresent adds the attempt that runs, or the only one if that had no row: it is
// made of what the upload says.
func (l *attemptList) addPresent(u *Upload, d *delivery, began time.Time) {
	a := AttemptStatus{Number: l.Count, BeganAt: began, Destination: u.Destination}
	switch {
	case u.State == StateDelivering:
		t := transfer{}
		if d != nil && int(d.fence) == l.Count {
			t = d.transfer()
		}
		a.Bytes, a.ResumedFrom, a.Sends = &t.bytes, &t.resumed, &t.sends
	case u.State == StateDelivered && l.Count == 1 && len(l.Attempts) == 0:
		a.Outcome, a.EndedAt = new(AttemptDelivered), u.DeliveredAt
		a.Bytes, a.ResumedFrom, a.Sends = u.Size, new(int64), new(1)
	default:
		return
	}
	l.Attempts = append(l.Attempts, a)
}

// getAttempts shows how the delivery of an upload was tried.
//
//	@Summary		List an upload's attempts
//	@ID				getAttempts
//	@Tags			uploads
//	@Produce		json
//	@Description	How each attempt to deliver the upload went, in their order: when it began and ended, its outcome, what went wrong in words, and how much of the file the destination had. The last one is without an outcome while it runs. Of more than 20, the first 10 and the latest 10 are kept, and none while the gateway's disk is full; count is that of all.
//	@Param			id	path		string	true	"The upload's id"
//	@Success		200	{object}	attemptList	"The attempts; none while it is received or waits for the first"
//	@Failure		400	{object}	problem	"The address has a parameter: there are none"
//	@Failure		404	{object}	problem	"There is no such upload, or not any more"
//	@Router			/uploads/{id}/attempts [get]
func (a *httpAPI) getAttempts(x *exchange, r *http.Request) error {
	id, err := uploadID(r)
	if err != nil {
		return err
	}
	all, err := a.core.attempts(r.Context(), id)
	if err != nil {
		return err
	}
	x.json(http.StatusOK, jsonType, all)
	return nil
}
