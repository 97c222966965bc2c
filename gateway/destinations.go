package gateway

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// DestinationState is how it stands with a destination.
type DestinationState string

// The states. A destination that was removed is known as long as uploads wait for it.
const (
	DestinationReady   DestinationState = "ready"   // nothing is known to keep uploads from being delivered
	DestinationFailing DestinationState = "failing" // the last attempt went wrong; others follow
	DestinationPaused  DestinationState = "paused"  // nothing is delivered until somebody resumes it
	DestinationRemoved DestinationState = "removed" // the gateway is not configured with it any more
)

// DestinationStatus is a destination as the API shows it.
type DestinationStatus struct {
	Name        string           `json:"name" example:"default"`
	URL         string           `json:"url" example:"v4://files.example.org:1257"`
	State       DestinationState `json:"state"`
	Paused      bool             `json:"paused"`
	Queued      int64            `json:"queued"`        // uploads that wait for it
	Delivering  int64            `json:"delivering"`    // uploads that are being delivered there
	Deliveries  int              `json:"deliveries"`    // how many are at once, at most
	LastError   *string          `json:"last_error"`    // why an attempt went wrong last, in words; null if none has
	LastErrorAt *time.Time       `json:"last_error_at"` // when that was
	// When it is tried next, if it cannot be reached: until then, nothing is sent
	// there. A time that has passed says that it is being tried. Null otherwise.
	NextAt *time.Time `json:"next_at"`
}

// errNoDestination: there is none of that name, or none that the caller may know of.
var errNoDestination = errors.New("no such destination")

// destinations returns those that the caller may know of, the configured ones first,
// in the order of the configuration.
func (g *Gateway) destinations(ctx context.Context) ([]DestinationStatus, error) {
	c, all := callerOf(ctx), []DestinationStatus{}
	for _, l := range g.lanes.all {
		if !c.uses(l.Name) {
			continue
		}
		s, err := g.status(ctx, l)
		if err != nil {
			return nil, err
		}
		if !l.removed || s.Queued > 0 {
			all = append(all, s)
		}
	}
	return all, nil
}

// destination returns one, or errNoDestination.
func (g *Gateway) destination(ctx context.Context, name string) (DestinationStatus, error) {
	l, err := g.visible(ctx, name)
	if err != nil {
		return DestinationStatus{}, err
	}
	return g.status(ctx, l)
}

// visible returns a lane that the caller may know of.
func (g *Gateway) visible(ctx context.Context, name string) (*lane, error) {
	l := g.lanes.byName[name]
	if l == nil || !callerOf(ctx).uses(name) {
		return nil, errNoDestination
	}
	return l, nil
}

// selectStatus counts by indexes what there is little of, or what is not counted at once.
const selectStatus = `select paused, failing, last_error, failed_at,
		(select count(*) from jobs where lane = $1 and parked = 0) + (select count(*) from jobs where lane = $1 and parked = 1),
		(select count(*) from uploads where lane = $1 and state = 'delivering')
	from destinations where name = $1`

func (g *Gateway) status(ctx context.Context, l *lane) (DestinationStatus, error) {
	s := DestinationStatus{Name: l.Name, URL: l.To.String(), State: DestinationReady, Deliveries: l.Deliveries}
	var failing bool
	var words sql.Null[string]
	var at sql.Null[int64]
	err := g.db.Read().QueryRowContext(ctx, selectStatus, l.Name).
		Scan(&s.Paused, &failing, &words, &at, &s.Queued, &s.Delivering)
	if err != nil {
		return DestinationStatus{}, fmt.Errorf("read destination: %w", err)
	}
	s.Queued -= s.Delivering
	if words.Valid {
		s.LastError, s.LastErrorAt = &words.V, new(fromMicro(at.V))
	}
	switch {
	case l.removed:
		s.State = DestinationRemoved
	case s.Paused:
		s.State = DestinationPaused
	case failing:
		s.State = DestinationFailing
		if next, ok := l.breaker.unreachable(); ok {
			s.NextAt = &next
		}
	}
	return s, nil
}

// pause keeps everything from being delivered to a destination until it is resumed,
// over restarts as well; what is being delivered is delivered to its end. It returns
// errNoDestination as destination does. To pause one that is paused changes nothing.
func (g *Gateway) pause(ctx context.Context, name string) (DestinationStatus, error) {
	l, err := g.visible(ctx, name)
	if err != nil {
		return DestinationStatus{}, err
	}
	l.pausing.Lock()
	defer l.pausing.Unlock()
	before := l.paused.Load()
	err = g.db.Update(ctx, func(ctx context.Context, tx *sql.Tx) error {
		l.paused.Store(true) // in the transaction: what is claimed after this one sees it
		_, err := tx.ExecContext(ctx, "update destinations set paused = 1 where name = $1", name)
		return err
	})
	if err != nil {
		l.paused.Store(before)
		l.wake(cap(l.bell)) // whoever has seen it paused
		return DestinationStatus{}, fmt.Errorf("pause destination: %w", err)
	}
	g.log.Info("paused", "destination", name)
	g.live.changes.tell()
	return g.status(ctx, l)
}

// resume lets uploads be delivered to a destination again, at once. It returns
// errNoDestination as destination does.
func (g *Gateway) resume(ctx context.Context, name string) (DestinationStatus, error) {
	l, err := g.visible(ctx, name)
	if err != nil {
		return DestinationStatus{}, err
	}
	l.pausing.Lock()
	defer l.pausing.Unlock()
	err = g.db.Update(ctx, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "update destinations set paused = 0 where name = $1", name)
		return err
	})
	if err != nil {
		return DestinationStatus{}, fmt.Errorf("resume destination: %w", err)
	}
	l.paused.Store(false)
	l.wake(cap(l.bell))
	g.log.Info("resumed", "destination", name)
	g.live.changes.tell()
	return g.status(ctx, l)
}

// noteHealth records what an attempt tells of the destination. If that is not kept, failing
// has to be set.
func (l *lane) noteHealth(ctx context.Context, tx *sql.Tx, o outcome, now time.Time) error {
	var err error
	switch {
	case o.kind == postponed && o.theirs:
		_, err = tx.ExecContext(ctx, "update destinations set failing = 1, last_error = $1, failed_at = $2 where name = $3",
			o.lastError, now.UnixMicro(), l.Name)
		l.failing.Store(true)
	case o.kind == delivered && l.failing.Swap(false):
		_, err = tx.ExecContext(ctx, "update destinations set failing = 0 where name = $1", l.Name)
	}
	if err != nil {
		return fmt.Errorf("record how it stands with the destination: %w", err)
	}
	return nil
}
