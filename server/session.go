package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"ferry/internal/blob"
	"ferry/proto"
)

// What a client may be told about a file that was not taken; the version says
// as much of it as it can.
var (
	errNoRoom      = fmt.Errorf("%w: the server has no room for it just now", proto.ErrRefused)
	errFiles       = fmt.Errorf("%w: the client has stored as many files as it may", proto.ErrRefused)
	errInternal    = fmt.Errorf("%w: the server cannot store it just now", proto.ErrRefused)
	errNotRecorded = errors.New("no answer was given: the file is on disk and not on record, and will be recorded when it is asked for again or at the next start")
)

// logged is an error that the log has already.
type logged struct{ error }

func (e logged) Unwrap() error { return e.error }

// connection is a known client's.
type connection struct {
	*host
	session proto.Session
	client  proto.Registration
	address string
}

// run takes one file after another until the client leaves or something ends
// the connection.
func (c *connection) run(resting context.Context) error {
	for {
		t, err := c.session.Next(resting)
		if err != nil {
			return err
		}
		if err := c.take(c.working, t); err != nil {
			return err
		}
	}
}

// take deals with one offered file. The connection goes on if it returns nil.
func (c *connection) take(ctx context.Context, t proto.Transfer) error {
	o := t.Offer()
	if why := c.reject(ctx, o); why != nil {
		return c.refuse(ctx, t, why)
	}
	in, err := c.stage()
	if err != nil {
		return c.refuse(ctx, t, err)
	}
	defer c.drop(o, in)
	sum, err := t.Receive(ctx, in)
	if err != nil {
		return c.received(o, in, err)
	}
	switch err := c.store(ctx, o, in, sum); {
	case errors.Is(err, errNotRecorded):
		c.say(slog.LevelError, "file not recorded", o, err)
		return logged{err}
	case err != nil:
		return c.refuse(ctx, t, err)
	}
	c.say(slog.LevelInfo, "file stored", o, nil)
	return t.Accept(ctx, proto.Stored{Name: o.Name, Sum: sum})
}

// reject says why an offer is not taken, or nothing.
func (c *connection) reject(ctx context.Context, o proto.Offer) error {
	recorded, files, err := c.catalog.lookup(ctx, c.client.ID, o.Name)
	if err != nil {
		return err
	}
	if recorded {
		return proto.ErrExists
	}
	published, err := c.published(c.client, o.Name)
	if err != nil {
		return err
	}
	if published {
		if err := c.adopt(ctx, c.client, o.Name); err != nil {
			return err
		}
		return proto.ErrExists
	}
	switch {
	case c.limits.FileSize > 0 && o.Size > c.limits.FileSize:
		return fmt.Errorf("%w: %d bytes, %d are the limit", proto.ErrTooLarge, o.Size, c.limits.FileSize)
	case files >= c.limits.Files:
		return errFiles
	case o.Size > c.limits.Staged-c.staged.Load():
		return fmt.Errorf("%w: other files on their way hold %d bytes of %d", errNoRoom, c.staged.Load(), c.limits.Staged)
	}
	return c.room(o.Size)
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

// refuse tells the client that a file was not taken, and the log why.
func (c *connection) refuse(ctx context.Context, t proto.Transfer, why error) error {
	c.say(slog.LevelWarn, "file refused", t.Offer(), why)
	return t.Refuse(ctx, public(why))
}

// public is what a client may know of an error: nothing of this machine.
func public(err error) error {
	switch {
	case blob.IsFull(err):
		return errNoRoom
	case errors.Is(err, proto.ErrRefused), errors.Is(err, proto.ErrExists), errors.Is(err, proto.ErrTooLarge):
		return err
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
	c.say(slog.LevelWarn, "file broken off", o, err)
	return logged{err}
}
