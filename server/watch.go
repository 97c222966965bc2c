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

// watch does what has to be done now and then, until ctx ends.
func (s *Server) watch(ctx context.Context) {
	often, seldom := time.NewTicker(watchEvery), time.NewTicker(expireEvery)
	defer often.Stop()
	defer seldom.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-often.C:
			err = s.cutRevoked(ctx)
		case <-seldom.C:
			err = s.expire(nil)
		}
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
