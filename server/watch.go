package server

import (
	"context"
	"time"
)

const (
	// watchEvery is how often a revocation by another process is looked for: a
	// client is cut within two seconds of it, and a session has one to end.
	watchEvery = 500 * time.Millisecond
	// expireEvery is how often unfinished transfers are looked through.
	expireEvery = time.Hour
)

// watch does what has to be done now and then, until ctx ends. A revocation does
// not wait for unfinished transfers to be looked through: there can be many, and
// taking a large file away takes long.
func (s *Server) watch(ctx context.Context) {
	s.running.Go(func() { s.every(ctx, expireEvery, func() error { return s.expire(nil) }) })
	s.running.Go(func() { s.every(ctx, watchEvery, func() error { return s.cutRevoked(ctx) }) })
}

// every does something at intervals until ctx ends.
func (s *Server) every(ctx context.Context, interval time.Duration, do func() error) {
	due := time.NewTicker(interval)
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-due.C:
		}
		err := do()
		if err == nil || ctx.Err() != nil {
			continue
		}
		if unsaid, ok := s.unwatched.say(); ok {
			s.log.Warn("something that is done now and then was not", "err", err, "more", unsaid)
		}
	}
}

// cutRevoked ends the connections of clients that the operator has shut out.
func (s *Server) cutRevoked(ctx context.Context) error {
	present := s.gate.present()
	if len(present) == 0 {
		return nil
	}
	out, err := s.catalog.revoked(ctx, present)
	if err != nil {
		return err
	}
	for _, id := range out {
		s.gate.cut(id, nil, errRevoked)
	}
	return nil
}
