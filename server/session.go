package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"sync"
	"time"

	"ferry/internal/blob"
	"ferry/internal/sqldb"
	"ferry/proto"
)

// What a client may be told about a file that was not taken; the version says
// as much of it as it can.
var (
	errNoRoom      = &proto.RefusedError{Why: proto.ErrNoRoom, After: 30 * time.Second, Words: "the server has no room for it just now"}
	errFiles       = &proto.RefusedError{Why: proto.ErrQuota, Words: "the client has stored as many files as it may"}
	errInternal    = &proto.RefusedError{After: 5 * time.Second, Words: "the server cannot store it just now"}
	errNotFile     = &proto.RefusedError{Why: fmt.Errorf("%w: %w", proto.ErrName, proto.ErrExists), Words: "there is a folder of that name, or something else that is no file"}
	errNotFolder   = &proto.RefusedError{Why: proto.ErrName, Words: "a folder of the name is taken by a file, or by something else that is no folder"}
	errNotRecorded = errors.New("no answer was given: the file is on disk and not on record, and will be recorded when it is asked for again or at the next start")
)

func tooLarge(limit int64) error {
	return &proto.RefusedError{Why: proto.ErrTooLarge, Words: fmt.Sprintf("%d bytes are the limit", limit)}
}

// logged is an error that the log has already.
type logged struct{ error }

func (e logged) Unwrap() error { return e.error }

// connection is a known client's.
type connection struct {
	*host
	session proto.Session
	client  proto.Registration
	address string
	conn    net.Conn
	resting context.Context   // ends when the connection is not to wait for more
	working context.Context   // ends when it is not to go on
	end     func(cause error) // ends both

	slots     chan struct{}  // holds a value for each file that has come and is not answered
	outcomes  chan *arrival  // what became of them
	answers   bool           // answering has begun; of the goroutine that runs run
	answering sync.WaitGroup // the goroutine that answers

	mu    sync.Mutex
	fault error // guarded by mu; the first that ended the connection from within
}

func newConnection(h *host, v visitor, session proto.Session) *connection {
	return &connection{host: h, session: session, client: session.Client(), address: v.conn.RemoteAddr().String(),
		conn: v.conn, resting: v.resting, working: v.working, end: v.end,
		slots: make(chan struct{}, maxUnanswered), outcomes: make(chan *arrival, maxUnanswered)}
}

// run takes one file after another until the client leaves or something ends
// the connection, and then waits until all are answered and that was said.
func (c *connection) run() (err error) {
	defer func() {
		if closing := c.session.Close(); closing != nil {
			c.fail(closing)
		}
	}()
	defer c.settle()
	for {
		t, err := c.session.Next(c.resting)
		if err != nil {
			return err
		}
		if err := c.take(c.working, t); err != nil {
			return err
		}
	}
}

// fail ends the connection because of an error of its own.
func (c *connection) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fault == nil {
		c.fault = err
		c.end(err)
	}
}

// failed is why the connection was ended, if that came from within.
func (c *connection) failed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !errors.Is(context.Cause(c.resting), c.fault) {
		return nil // it had ended
	}
	return c.fault
}

// take deals with one offered file. The connection goes on if it returns nil.
func (c *connection) take(ctx context.Context, t proto.Transfer) error {
	o := t.Offer()
	key := transferKey(c.client.ID, o)
	var mine *claim
	if key != "" {
		var err error
		if mine, err = c.holdings.claim(ctx, key, c.end); err != nil {
			return c.refuse(ctx, t, err)
		}
	}
	in, as, err := c.begin(ctx, o, key, mine)
	if in == nil {
		c.holdings.unclaim(key, mine)
		if err != nil {
			return c.refuse(ctx, t, err)
		}
		return c.exists(ctx, t, as)
	}
	handed := false
	defer func() {
		if !handed {
			c.drop(o, in)
		}
	}()
	sum, err := c.receive(ctx, t, in)
	if err != nil {
		return c.received(o, in, err)
	}
	c.holdings.arrived(mine)
	if err := in.complete(sum); err != nil {
		return c.refuse(ctx, t, err)
	}
	handed = true
	c.hand(&arrival{connection: c, transfer: t, offer: o, in: in, sum: sum})
	return nil
}

func (c *connection) receive(ctx context.Context, t proto.Transfer, in *sink) (proto.Sum, error) {
	defer c.halves.begin(even(t.Offer(), c.conn))()
	return t.Receive(ctx, in)
}

// begin stages the file of an offer, or returns what is stored under its name
// already, or says why it is not taken.
func (c *connection) begin(ctx context.Context, o proto.Offer, key string, mine *claim) (*sink, proto.Stored, error) {
	lookup := c.lookup
	if o.Sum != nil && o.Size < aloneFrom {
		lookup = c.recorded
	}
	as, there, files, err := lookup(ctx, o)
	if there || err != nil {
		return nil, as, err
	}
	if err := c.reject(o, key, files); err != nil {
		return nil, as, err
	}
	in, err := c.stage(c.client.ID, o, key, mine)
	return in, as, err
}

// known returns what is stored under the name of an offer, and records it if need
// be.
func (c *connection) known(ctx context.Context, o proto.Offer) (as proto.Stored, there bool, err error) {
	as, there, _, err = c.lookup(ctx, o)
	return as, there, err
}

// recorded is what the catalog has under the name of an offer. What lies there
// unrecorded is found when the file is to get its name: for a small one that is
// soon enough, and looking for it takes longer than receiving the bytes.
func (c *connection) recorded(ctx context.Context, o proto.Offer) (as proto.Stored, there bool, files int64, err error) {
	return c.catalog.lookup(ctx, c.client.ID, o.Name)
}

// lookup is recorded, and records what it finds on the disk.
func (c *connection) lookup(ctx context.Context, o proto.Offer) (as proto.Stored, there bool, files int64, err error) {
	as, there, files, err = c.recorded(ctx, o)
	if there || err != nil {
		return as, there, files, err
	}
	info, err := c.disk.Stat(c.client.Name.String(), o.Name.String())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return as, false, files, nil
	case err != nil:
		return as, false, files, err
	case !info.Mode().IsRegular():
		return as, false, files, errNotFile
	}
	if err := c.adopt(ctx, c.client, o.Name); err != nil {
		return as, false, files, err
	}
	as, there, files, err = c.catalog.lookup(ctx, c.client.ID, o.Name)
	if err == nil && !there {
		err = errChanging
	}
	return as, there, files, err
}

// reject says why a new file is not taken, or nothing.
func (c *connection) reject(o proto.Offer, key string, files int64) error {
	if c.limits.FileSize > 0 && o.Size > c.limits.FileSize {
		return tooLarge(c.limits.FileSize)
	}
	if limit := min(c.limits.Staged, c.limits.StagedPerClient); o.Size > limit {
		return &proto.RefusedError{Why: proto.ErrTooLarge,
			Words: fmt.Sprintf("%d bytes are the limit of what may be unfinished: see --max-staged and --max-staged-per-client of the server", limit)}
	}
	if files >= c.limits.Files {
		return errFiles
	}
	more, err := c.holdings.fits(c.client.ID, key, o.Size)
	if err != nil {
		return err
	}
	return c.room(more)
}

// room is nil if the disk can hold so many bytes more.
func (s *Server) room(size int64) error {
	free, err := s.disk.Free()
	if err != nil {
		return err
	}
	if size > free-s.limits.Free {
		return fmt.Errorf("%w: %d bytes are free, %d of them are kept", errNoRoom, free, s.limits.Free)
	}
	return nil
}

// complete sees that all of a file is staged. One that is large is made durable
// here.
func (in *sink) complete(sum proto.Sum) error {
	size := in.file.Size()
	if size != sum.Size {
		return fmt.Errorf("internal error: %d bytes staged, %d received", size, sum.Size)
	}
	if size < aloneFrom {
		return nil
	}
	return in.file.Sync()
}

// refuse tells the client that a file was not taken, and the log why.
func (c *connection) refuse(ctx context.Context, t proto.Transfer, why error) error {
	c.say(slog.LevelWarn, "file refused", t.Offer(), why)
	return t.Refuse(ctx, public(why))
}

// exists tells the client what is stored under the name that it offers.
func (c *connection) exists(ctx context.Context, t proto.Transfer, as proto.Stored) error {
	o := t.Offer()
	if o.ID != (proto.TransferID{}) && o.ID == as.Transfer || o.Sum != nil && *o.Sum == as.Sum {
		c.say(slog.LevelInfo, "file is stored already", o, nil)
	} else {
		c.say(slog.LevelWarn, "file refused", o, proto.ErrExists)
	}
	return t.Exists(ctx, as)
}

// public is what a client may know of an error: nothing of this machine.
func public(err error) error {
	switch {
	case blob.IsFull(err), sqldb.IsFull(err):
		return errNoRoom
	case errors.Is(err, blob.ErrIsFolder):
		return errNotFile
	case errors.Is(err, blob.ErrNotFolder):
		return errNotFolder
	}
	if refusal, ok := errors.AsType[*proto.RefusedError](err); ok {
		return refusal
	}
	for _, known := range []error{proto.ErrExists, proto.ErrStopping, proto.ErrRevoked, proto.ErrBusy, proto.ErrUnauthorized} {
		if errors.Is(err, known) {
			return &proto.RefusedError{Why: known}
		}
	}
	return errInternal
}

func (c *connection) say(level slog.Level, message string, o proto.Offer, err error) {
	args := []any{"client", c.client.Name.String(), "address", c.address, "file", o.Name.String(), "size", o.Size}
	if err != nil {
		args = append(args, "err", err)
	}
	c.log.Log(c.working, level, message, args...)
}

// received deals with a file that was not received. The session has told the
// client, and goes on if what went wrong concerns this file alone.
func (c *connection) received(o proto.Offer, in *sink, err error) error {
	switch {
	case in.failed != nil:
		c.say(slog.LevelWarn, "file refused", o, in.failed)
		return nil //nolint:nilerr // it is in the log
	case errors.Is(err, proto.ErrChecksum):
		c.say(slog.LevelWarn, "file given up by the client", o, err)
		return nil
	}
	// What came may be wanted again, unless by somebody who is shut out.
	in.leave = !errors.Is(context.Cause(c.working), proto.ErrRevoked)
	c.say(slog.LevelWarn, "file broken off", o, err)
	return logged{err}
}

// drop gives back what a file holds that was not published.
func (c *connection) drop(o proto.Offer, in *sink) {
	if err := in.drop(); err != nil {
		c.say(slog.LevelError, "staged file not removed", o, err)
	}
}
