package gateway

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"ferry/internal/sqldb"
)

// watchTokens is how often tokens of requests that are under way are looked at:
// one that has ended does so for them within a second.
const watchTokens = 250 * time.Millisecond

// door knows who is let in. It is safe for concurrent use.
type door struct {
	db   *sqldb.DB
	live *live
	log  *slog.Logger

	closed atomic.Bool // there is a token, or was one; for good

	mu     sync.Mutex
	inside map[*visit]struct{} // guarded by mu
}

// A visit is a request that is under way with a token.
type visit struct {
	caller *caller
	end    context.CancelCauseFunc
}

func newDoor(ctx context.Context, db *sqldb.DB, live *live, log *slog.Logger) (*door, error) {
	d := &door{db: db, live: live, log: log, inside: map[*visit]struct{}{}}
	return d, d.look(ctx)
}

// isClosed reports whether only those with a token are let in. A nil door is
// open, as that of a gateway is until it gets its first token.
func (d *door) isClosed() bool { return d != nil && d.closed.Load() }

// look closes the door if there is a token or was one.
func (d *door) look(ctx context.Context) error {
	if d == nil {
		return nil
	}
	var closed bool
	if err := d.db.Read().QueryRowContext(ctx, "select exists (select 1 from tokens)").Scan(&closed); err != nil {
		return err
	}
	if closed {
		d.closed.Store(true)
	}
	return nil
}

// enter notes a request that is under way, until out is called.
func (d *door) enter(c *caller, end context.CancelCauseFunc) (out func()) {
	v := &visit{c, end}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inside[v] = struct{}{}
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.inside, v)
	}
}

// watch closes the door when the first token is made, and ends requests when
// their tokens do, until ctx ends.
func (d *door) watch(ctx context.Context) {
	t := time.NewTicker(watchTokens)
	defer t.Stop()
	troubled := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		err := d.once(ctx)
		if err != nil && !troubled && ctx.Err() == nil {
			d.log.Error("tokens cannot be looked at: those revoked go on until they can", "err", err)
		}
		troubled = err != nil
	}
}

func (d *door) once(ctx context.Context) error {
	if !d.isClosed() {
		return d.look(ctx)
	}
	for hash, visits := range d.visits() {
		_, err := d.find(ctx, []byte(hash))
		if errors.Is(err, errBadBearer) {
			for _, v := range visits {
				v.end(errTokenEnded)
			}
		} else if err != nil {
			return err
		}
	}
	return nil
}

// visits are the requests under way by the hashes of their tokens.
func (d *door) visits() map[string][]*visit {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := map[string][]*visit{}
	for v := range d.inside {
		all[string(v.caller.hash)] = append(all[string(v.caller.hash)], v)
	}
	return all
}

// HasTokens reports whether there is a good token: without one, nobody could use
// a gateway that others reach.
func (g *Gateway) HasTokens(ctx context.Context) (bool, error) {
	var has bool
	err := g.db.Read().QueryRowContext(ctx, "select exists ("+selectGood+")", time.Now().UnixMicro()).Scan(&has)
	return has, err
}
