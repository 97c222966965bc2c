package gateway

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"
	"time"

	"ferry/proto"
)

const (
	// heartbeats are sent several times in a lease: one may be late.
	heartbeatEvery = lease / 3
	// afterTrouble is how long a worker waits that cannot use the database.
	afterTrouble = time.Second
)

var (
	// errCancelled breaks off a delivery that somebody does not want any more.
	errCancelled = errors.New("cancelled")
	// errInternal: an attempt panicked; the log has it.
	errInternal = errors.New("internal error: the gateway's log says more")
	// errGivenBack breaks off a delivery because the gateway stops.
	errGivenBack = errors.New("the gateway was stopped")
)

// sender delivers one file; *proto.Client is one.
type sender interface {
	Send(ctx context.Context, o proto.Offer, src proto.Source, w proto.Watcher) (proto.Receipt, error)
	Close() error
}

var _ sender = (*proto.Client)(nil)

// A delivery is one attempt to deliver an upload.
type delivery struct {
	claim
	pass pass

	ctx  context.Context // of this attempt
	stop context.CancelCauseFunc
	done chan struct{} // closed when its outcome is recorded, or cannot be

	// replaced was there before it, has lost its lease or is over, and may not have ended: a file
	// is never sent twice at once.
	replaced *delivery

	mu        sync.Mutex
	progress  proto.Progress // guarded by mu
	matched   bool           // in this attempt: the file may be stored; guarded by mu
	sent      bool           // the file was begun; guarded by mu
	noted     bool           // by this attempt, that it may be; used by Send's goroutine, and after it
	cancelled bool           // somebody asked for it; guarded by mu

	ended bool // nobody is to find it any more; guarded by live.mu
}

// cancel breaks the delivery off unless it may be stored already: then only its
// end tells the truth.
func (d *delivery) cancel() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cancelled = true
	if !d.matched {
		d.stop(errCancelled)
	}
}

// match is the point from which on the file may be stored.
func (d *delivery) match() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cancelled {
		return errCancelled
	}
	d.matched = true
	return nil
}

// attempt is what the end of a delivery depends on beside its error.
func (d *delivery) attempt() attempt {
	d.mu.Lock()
	defer d.mu.Unlock()
	return attempt{name: d.offer.Name.String(), failures: d.failures, matched: d.matched, cancelled: d.cancelled}
}

// work delivers what is due on a lane, until claims ends; then it finishes what it
// has, for as long as sends lasts.
func (g *Gateway) work(claims, sends context.Context, l *lane) {
	for rung := false; claims.Err() == nil; {
		if l.breaker.pulls() {
			g.reachable(l)
		}
		d, next, err := g.claim(claims, sends, l, rung)
		switch {
		case claims.Err() != nil && d == nil:
			return
		case err != nil:
			g.log.Error("no job could be claimed: is the disk full?", "err", err)
			rung = g.rest(claims, l, g.now().Add(afterTrouble)) || rung // what has come in was not looked for
		case d != nil:
			rung = false
			g.deliver(d)
		case next.IsZero():
			rung = g.rest(claims, l, g.now().Add(time.Hour))
		default:
			rung = g.rest(claims, l, next)
		}
	}
}

// rest waits until there may be something to do. rung tells that there is.
func (g *Gateway) rest(ctx context.Context, l *lane, until time.Time) (rung bool) {
	timer, stop := g.clock.until(until)
	defer stop()
	select {
	case <-ctx.Done():
	case <-timer:
	case <-l.bell:
		return true
	}
	return false
}

// wake tells the lane's workers that up to n jobs have become due. A worker that is
// busy looks for the next job anyway, and while the lane is paused there is none.
func (l *lane) wake(n int) {
	if l.paused.Load() {
		return
	}
	for range min(n, cap(l.bell)) {
		select {
		case l.bell <- struct{}{}:
		default:
			return // every worker is told already
		}
	}
}

// wake tells those who deliver an upload, or the next one of its name, that it has
// become due.
func (g *Gateway) wake(u *Upload) {
	if l := g.lanes.byName[u.DestinationName]; l != nil {
		l.wake(1)
	}
}

// claim takes a job that is due, if the lane's breaker gives a pass.
func (g *Gateway) claim(ctx, sends context.Context, l *lane, rung bool) (d *delivery, next time.Time, err error) {
	if l.paused.Load() { // else each upload that comes in would have the writer find that out
		return nil, time.Time{}, nil
	}
	p, again := l.breaker.admit(g.now(), rung)
	if !p.given {
		return nil, again, nil
	}
	d, next, err = g.claimWith(ctx, sends, l, p)
	if d == nil && (l.breaker.unused(p) || p.only != nil) {
		next = g.now() // there may be something by now, or something else
	}
	return d, next, err
}

// claimWith takes a job that is due. The delivery is to be found from the moment
// in which it is claimed: whoever changes the upload afterwards can stop it.
func (g *Gateway) claimWith(ctx, sends context.Context, l *lane, p pass) (d *delivery, next time.Time, err error) {
	var paused bool
	err = g.db.UpdateUndo(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if paused = l.paused.Load(); paused {
			next = time.Time{}
			return nil
		}
		c, at, err := claimDue(ctx, tx, l, p, g.now())
		if err != nil || c.fence == 0 {
			next = at
			return err
		}
		d = &delivery{claim: c, pass: p, done: make(chan struct{})}
		d.progress.Phase = proto.PhaseConnecting
		d.ctx, d.stop = context.WithCancelCause(sends)
		if c.cancelled {
			d.cancel()
		}
		g.live.run(d)
		return nil
	}, func() {
		if d != nil {
			g.live.takeBack(d)
			d.stop(nil)
		}
		d = nil
	})
	if p.only != nil && (err != nil || paused) {
		l.breaker.urge(*p.only) // it was not looked for
	}
	if err != nil {
		return nil, time.Time{}, err
	}
	if d != nil {
		g.live.changes.tell(d.id)
	}
	return d, next, nil
}

// deliver makes one attempt and records how it ended.
func (g *Gateway) deliver(d *delivery) {
	again := afterTrouble
	defer func() {
		d.stop(nil)
		g.live.end(d)
		d.lane.breaker.giveBack(d.pass, g.now(), again)
		close(d.done)
	}()
	// Until it has ended nobody else is to have the upload, be it stopped or not.
	ctx, end := context.WithCancel(context.WithoutCancel(d.ctx))
	var beat sync.WaitGroup
	beat.Go(func() { g.heartbeats(ctx, d) })
	if d.replaced != nil {
		d.replaced.stop(errLeaseLost)
		<-d.replaced.done
	}
	r, err := g.send(d)
	end()
	beat.Wait()
	if g.settle(d, r.Envelope, err) {
		again = 0 // it is not the same upload's turn
	}
}

func (g *Gateway) send(d *delivery) (_ proto.Receipt, err error) {
	defer func() { // one upload's trouble must not be all others'
		if p := recover(); p != nil {
			g.log.Error("internal error", "upload", d.id.String(), "err", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = errInternal
		}
	}()
	if err := d.ctx.Err(); err != nil {
		return proto.Receipt{}, context.Cause(d.ctx)
	}
	return d.lane.sender.Send(d.ctx, d.offer, g.source(d), proto.Watcher{
		Progress: func(p proto.Progress) {
			if d.progressed(p) {
				g.reached(d)
			}
		},
		Matched: func(ctx context.Context) error { return g.matched(ctx, d) },
	})
}

// source opens the upload's bytes, wherever they are, for reading from any
// offset on.
func (g *Gateway) source(d *delivery) proto.Source {
	if d.body == bodyFile {
		return func() (io.ReadCloser, error) {
			f, err := g.spool.Open(spoolFolder, d.id.String())
			if err != nil {
				return nil, err // and no *os.File that is nil
			}
			return f, nil
		}
	}
	return func() (io.ReadCloser, error) {
		b, err := g.body(d.ctx, d.id)
		if err != nil {
			return nil, err
		}
		return inMemory{bytes.NewReader(b)}, nil
	}
}

// inMemory is a small body.
type inMemory struct{ *bytes.Reader }

func (inMemory) Close() error { return nil }

// matched notes durably that the destination may hold the file from now on,
// before it is told so.
func (g *Gateway) matched(ctx context.Context, d *delivery) error {
	if err := d.match(); err != nil {
		return err
	}
	err := g.db.Update(context.WithoutCancel(ctx), func(ctx context.Context, tx *sql.Tx) error {
		now := g.now()
		if cancel, err := d.heartbeat(ctx, tx, now); err != nil {
			return err
		} else if cancel {
			return errCancelled
		}
		return g.noteMatch(ctx, tx, d, now)
	})
	if err != nil {
		d.mu.Lock()
		d.matched = false // nothing is confirmed
		d.mu.Unlock()
	}
	return err
}

// noteMatch notes that the destination may hold the file. What an earlier
// attempt noted may yet turn out to be so: its note stays if it is of the same
// content, and this attempt may not take it back. If it is of other content,
// nobody can say any more what a file of that name will be.
func (g *Gateway) noteMatch(ctx context.Context, tx *sql.Tx, d *delivery, now time.Time) error {
	name, f := d.offer.Name.String(), storedFile{sha256: d.offer.Sum.SHA256}
	before, ok, err := lookUp(ctx, tx, d.lane.client(), name)
	if err != nil {
		return err
	}
	d.noted = !ok || before.confirmed
	if !d.noted {
		if before.sha256 == f.sha256 {
			return nil
		}
		f = storedFile{} // of unknown content
	}
	return note(ctx, tx, d.lane.client(), name, f, now)
}

// heartbeats keeps the lease until ctx ends.
func (g *Gateway) heartbeats(ctx context.Context, d *delivery) {
	until := g.now().Add(lease)
	for {
		timer, stop := g.clock.after(heartbeatEvery)
		select {
		case <-ctx.Done():
			stop()
			return
		case <-timer:
		}
		var cancel bool
		err := g.db.Update(ctx, func(ctx context.Context, tx *sql.Tx) (err error) {
			cancel, err = d.heartbeat(ctx, tx, g.now())
			return err
		})
		switch now := g.now(); {
		case ctx.Err() != nil:
			return
		case err == nil:
			until = now.Add(lease)
			if cancel {
				d.cancel()
			}
		case errors.Is(err, errLeaseLost) || now.After(until):
			d.stop(errLeaseLost)
			return
		}
	}
}

// settle records how an attempt has ended. If it cannot, the lease lapses and
// the next attempt finds out what the destination holds.
func (g *Gateway) settle(d *delivery, receipt []byte, err error) (recorded bool) {
	a := d.attempt()
	o := judge(a, err, g.jitter())
	if o.kind == lost {
		g.log.Warn("a delivery lost its lease", "upload", d.id.String(), "attempt", d.fence)
		g.noteLost(d)
		return false
	}
	g.noteNetwork(d, o, err)
	judged, sent := o, err
	err2 := g.db.UpdateUndo(context.WithoutCancel(d.ctx), func(ctx context.Context, tx *sql.Tx) error {
		now := g.now()
		o = judged // a transaction may have broken off before
		if o.kind == exists {
			f, known, err := takenBy(ctx, tx, d, err, now)
			if err != nil {
				return err
			}
			o = existing(a, f, known, d.offer.Sum.SHA256)
		}
		if !o.final() {
			// Who cancelled it after its end was judged was told that it will be.
			cancel, err := d.heartbeat(ctx, tx, now)
			if err != nil {
				return err
			}
			if cancel {
				a.cancelled = true
				o = judge(a, sent, 0)
			}
		}
		return g.record(ctx, tx, d, o, receipt, now)
	}, func() { d.lane.failing.Store(true) })
	if err2 != nil {
		g.log.Error("how a delivery ended could not be recorded; it will be tried again", "upload", d.id.String(), "attempt", d.fence, "err", err2)
		return false
	}
	g.afterwards(d, o, err)
	return true
}

// takenBy is what the destination has under a name that is taken: what it says of
// it, which is noted, else what is known here.
func takenBy(ctx context.Context, tx *sql.Tx, d *delivery, sent error, now time.Time) (f storedFile, known bool, err error) {
	name := d.offer.Name.String()
	if e, ok := errors.AsType[*proto.ExistsError](sent); ok {
		f = storedFile{sha256: e.Sum.SHA256, confirmed: true}
		return f, true, note(ctx, tx, d.lane.client(), name, f, now)
	}
	f, ok, err := lookUp(ctx, tx, d.lane.client(), name)
	return f, ok && f != storedFile{}, err
}

// record writes an outcome, and the receipt of what was delivered.
func (g *Gateway) record(ctx context.Context, tx *sql.Tx, d *delivery, o outcome, receipt []byte, now time.Time) error {
	name := d.offer.Name.String()
	if o.kind == delivered {
		if err := note(ctx, tx, d.lane.client(), name, storedFile{sha256: d.offer.Sum.SHA256, confirmed: true}, now); err != nil {
			return err
		}
		if err := dropBody(ctx, tx, d.id); err != nil {
			return err
		}
	}
	if o.notStored && d.noted {
		if err := unnote(ctx, tx, d.lane.client(), name); err != nil {
			return err
		}
	}
	if err := d.lane.noteHealth(ctx, tx, o, now); err != nil {
		return err
	}
	if err := g.noteAttempt(ctx, tx, d, o, now); err != nil {
		return err
	}
	if o.final() {
		if err := d.finish(ctx, tx); err != nil {
			return err
		}
	} else if err := d.giveUp(ctx, tx, now.Add(o.delay), o.failures, o.network); err != nil {
		return err
	}
	const columns = `update uploads set state = $1, error = $2, packets = max(packets, $3), updated_at = $4, changed = ` + nextChange + `, `
	if o.kind == delivered {
		key, err := keepReceipt(ctx, tx, receipt)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, columns+`last_error = null, body = 'gone', destination = $5, delivered_at = $6, receipt = $7 where id = $8`,
			o.state(), nil, d.packets(), now.UnixMicro(), d.lane.To.String(), now.UnixMicro(), key, d.id)
		return err
	}
	_, err := tx.ExecContext(ctx, columns+`last_error = coalesce($5, last_error) where id = $6`,
		o.state(), orNull(o.failure), d.packets(), now.UnixMicro(), orNull(o.lastError), d.id)
	return err
}

func orNull(s string) sql.Null[string] { return sql.Null[string]{V: s, Valid: s != ""} }

// afterwards does what follows from an outcome once it is durable.
func (g *Gateway) afterwards(d *delivery, o outcome, err error) {
	g.live.changes.tell(d.id)
	log := g.log.With("upload", d.id.String(), "attempt", d.fence, "bytes", d.offer.Size)
	switch o.kind {
	case delivered:
		log.Info("delivered")
		if d.body == bodyFile {
			g.dropFile(d.id)
		}
		g.reachable(d.lane)
	case failed:
		log.Warn("cannot be delivered", "err", err, "why", o.failure)
	case cancelled:
		log.Info("cancelled while it was delivered")
	case postponed:
		log.Warn("not delivered yet", "err", err, "next_in", o.delay)
	case givenBack:
		log.Info("given back")
	}
	if o.network {
		d.lane.unreachable.Store(true)
	}
}

// reachable pulls forward what waits only because its destination could not be
// reached: it can.
func (g *Gateway) reachable(l *lane) {
	if !l.unreachable.Swap(false) {
		return
	}
	pulled := int64(0)
	err := g.db.Update(context.Background(), func(ctx context.Context, tx *sql.Tx) error {
		now := g.now().UnixMicro()
		res, err := tx.ExecContext(ctx, pullJobs, now, l.Name, now, maxPulled)
		if err == nil {
			pulled, err = res.RowsAffected()
		}
		return err
	})
	if err != nil {
		g.log.Warn("jobs that wait for the network keep their delay", "err", err)
		l.breaker.pullAgain()
	}
	if err != nil || pulled == maxPulled {
		l.unreachable.Store(true) // the next delivery pulls them, or more
	}
	l.wake(int(pulled))
}
