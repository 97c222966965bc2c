package gateway

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// maxLooks bounds the pages of changes that are kept for others.
	maxLooks = 8
	// activeEvery is how old what is told of active uploads may be.
	activeEvery = 250 * time.Millisecond
)

// shared is for those who follow uploads to look at the database together: what one
// finds, with its JSON, is there for all who ask for the same meanwhile. So many
// listeners cost little more than one. It is safe for concurrent use.
type shared struct {
	mu     sync.Mutex
	until  <-chan struct{} // closed by the change that ends the looks; guarded by mu
	looks  map[place]*look // guarded by mu
	active *activity       // guarded by mu
}

// A place is what a look begins after, and how far it goes.
type place struct {
	after int64
	limit int
}

// A look is a page of changes that all may see who see everything.
type look struct {
	once sync.Once
	page []change
	upTo int64
	err  error
}

// look returns the look from a place. until is closed at the next change.
func (s *shared) look(until <-chan struct{}, from place) *look {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.until != until {
		s.until, s.looks = until, map[place]*look{}
	}
	l := s.looks[from]
	if l == nil {
		for other := range s.looks { // whichever
			if len(s.looks) < maxLooks {
				break
			}
			delete(s.looks, other)
		}
		l = &look{}
		s.looks[from] = l
	}
	return l
}

// activity is what comes in and is being delivered.
type activity struct {
	asOf    int64 // the number of the last change when it was looked at
	at      time.Time
	uploads []activeUpload
}

type activeUpload struct {
	change
	sender sql.Null[string]
}

// active are the uploads that the caller may see and that come in or are being
// delivered, as they stood a moment ago, and after a change that the caller knows.
func (g *Gateway) active(ctx context.Context, known int64) (all []change, err error) {
	if g.live.idle() {
		return nil, nil
	}
	uploads, err := g.allActive(ctx, known)
	if err != nil {
		return nil, err
	}
	c := callerOf(ctx)
	for _, u := range uploads {
		if c.sees(u.sender) && c.uses(u.upload.DestinationName) {
			all = append(all, u.change)
		}
	}
	return all, nil
}

func (g *Gateway) allActive(ctx context.Context, known int64) ([]activeUpload, error) {
	s := &g.shared
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.active; a != nil && a.asOf >= known && time.Since(a.at) < activeEvery {
		return a.uploads, nil
	}
	a, err := g.lookActive(context.WithoutCancel(ctx))
	if err != nil {
		return nil, fmt.Errorf("look for what is active: %w", err)
	}
	s.active = a
	return a.uploads, nil
}

func (g *Gateway) lookActive(ctx context.Context) (*activity, error) {
	a := &activity{at: time.Now()}
	if err := g.db.Read().QueryRowContext(ctx, "select "+nextChange+" - 1").Scan(&a.asOf); err != nil {
		return nil, err
	}
	incoming, running := g.live.all()
	add := func(u Upload, sender sql.Null[string]) {
		a.uploads = append(a.uploads, activeUpload{newChange(u.Change, u), sender})
	}
	for _, in := range incoming {
		add(in.upload(), in.from.sender)
	}
	for id, d := range running {
		u, err := g.get(ctx, id)
		switch {
		case errors.Is(err, errNotFound):
		case err != nil:
			return nil, err
		case u.State == StateDelivering:
			add(u, d.sender)
		}
	}
	return a, nil
}
