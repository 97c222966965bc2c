package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"ferry/internal/blob"
	"ferry/proto"
)

const (
	// maxGroup is how many files are made durable together at most.
	maxGroup = 256
	// maxUnanswered is how many files of one connection may have come and not been
	// answered.
	maxUnanswered = 256
	// aloneFrom is from which size a file is synced by its own connection, so that
	// no others wait for that.
	aloneFrom = 1 << 20
)

// arrival is a file that has come and is verified.
type arrival struct {
	connection *connection
	transfer   proto.Transfer
	offer      proto.Offer
	in         *sink
	sum        proto.Sum
	// What became of it: as is what is stored if err is nil. After errNotRecorded
	// it may lie under its name, so that nothing can be said about it now; after
	// any other error it does not.
	as  proto.Stored
	err error
}

// commitAll stores what comes through the queue until it is closed: whatever waits
// already shares two or three fsyncs and a commit, and nothing waits for more.
func (s *Server) commitAll() {
	for a := range s.arrivals {
		group := []*arrival{a}
	gather:
		for len(group) < maxGroup {
			select {
			case a, ok := <-s.arrivals:
				if !ok {
					break gather
				}
				group = append(group, a)
			default:
				break gather
			}
		}
		s.commit(group)
		for _, a := range group {
			a.connection.outcomes <- a // there is room for all that are unanswered
		}
	}
}

// commit publishes and records a group. Nothing that ends a connection may come
// between the two.
func (s *Server) commit(group []*arrival) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("internal error", "err", p, "stack", string(debug.Stack()))
			for _, a := range group {
				a.err = fmt.Errorf("%w: internal error", errNotRecorded)
			}
		}
	}()
	publications := make([]blob.Publication, len(group))
	for i, a := range group {
		publications[i] = blob.Publication{File: a.in.file, Folder: a.connection.client.Name.String(), Name: a.offer.Name.String()}
	}
	var named []*arrival
	for i, err := range s.disk.PublishAll(publications) {
		a := group[i]
		switch {
		case err == nil:
			named = append(named, a)
		case errors.Is(err, blob.ErrNotDurable):
			a.err = fmt.Errorf("%w: %w", errNotRecorded, err)
		default:
			a.err = err
		}
	}
	s.record(named)
}

// record notes published files in one transaction. If that fails it is tried for
// each, so that none stands in for another.
func (s *Server) record(named []*arrival) {
	if len(named) == 0 {
		return
	}
	at := time.UnixMilli(time.Now().UnixMilli()).UTC()
	rows := make([]row, len(named))
	for i, a := range named {
		a.as = proto.Stored{Name: a.offer.Name, Sum: a.sum, Transfer: a.offer.ID, At: at}
		rows[i] = row{a.connection.client.ID, a.as, a.offer}
	}
	err := s.catalog.record(context.Background(), rows...)
	if err == nil {
		return
	}
	for i, a := range named {
		if len(named) > 1 {
			err = s.catalog.record(context.Background(), rows[i])
		}
		if err != nil {
			a.err = fmt.Errorf("%w: %w", errNotRecorded, err)
		}
	}
}

// hand gives a file that has come to those who store it. The answer is given by
// another goroutine; settle waits for it.
func (c *connection) hand(a *arrival) {
	c.slots <- struct{}{}
	if !c.answers {
		c.answers = true
		c.answering.Go(c.answerAll)
	}
	c.arrivals <- a
}

// settle waits until all files that have come are answered.
func (c *connection) settle() {
	for range cap(c.slots) {
		c.slots <- struct{}{}
	}
	close(c.outcomes)
	c.answering.Wait()
}

// answerAll answers files as they are stored, or not.
func (c *connection) answerAll() {
	for a := range c.outcomes {
		if err := c.answer(a); err != nil {
			c.fail(err)
		}
		<-c.slots
	}
}

// answer tells the client what became of a file. An error ends the connection.
func (c *connection) answer(a *arrival) (err error) {
	defer func() {
		if p := recover(); p != nil {
			c.log.Error("internal error", "address", c.address, "err", p, "stack", string(debug.Stack()))
			err = logged{errors.New("internal error")}
		}
	}()
	c.drop(a.offer, a.in)
	switch {
	case a.err == nil:
		c.say(slog.LevelInfo, "file stored", a.offer, nil)
		return a.transfer.Accept(c.working, a.as)
	case errors.Is(a.err, errNotRecorded):
		c.say(slog.LevelError, "file not recorded", a.offer, a.err)
		return logged{a.err}
	case !errors.Is(a.err, blob.ErrExists) && !errors.Is(a.err, blob.ErrNotFolder):
		return c.refuse(c.working, a.transfer, a.err)
	}
	// Another connection was first, or a name is in the way that was not there
	// before.
	as, there, err := c.known(c.working, a.offer)
	switch {
	case err != nil:
		return c.refuse(c.working, a.transfer, err)
	case !there:
		return c.refuse(c.working, a.transfer, a.err)
	}
	return c.exists(c.working, a.transfer, as)
}
