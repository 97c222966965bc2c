package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"ferry/internal/blob"
	"ferry/proto"
)

// lookEvery is after how many bytes the room on disk is looked at again.
const lookEvery = 4 << 20

// sink is a staged file, counted against the limits. It is used by one
// goroutine.
type sink struct {
	server *Server
	file   *blob.Staged
	held   int64 // bytes in staging that are counted for it
	look   int64 // when held reaches it, the room on disk is looked at
	failed error // why it took no more
}

var _ proto.Sink = (*sink)(nil)

func (s *Server) stage() (*sink, error) {
	f, err := s.disk.Stage()
	if err != nil {
		return nil, err
	}
	return &sink{server: s, file: f, look: lookEvery}, nil
}

// Write adds p to the file, or says why there is no room for it.
func (in *sink) Write(p []byte) (int, error) {
	if in.failed == nil {
		in.failed = in.take(p)
	}
	if in.failed != nil {
		return 0, public(in.failed) // the session may tell the client
	}
	return len(p), nil
}

func (in *sink) take(p []byte) error {
	n, limits := int64(len(p)), &in.server.limits
	if limits.FileSize > 0 && in.held+n > limits.FileSize {
		return fmt.Errorf("%w: more than %d bytes", proto.ErrTooLarge, limits.FileSize)
	}
	in.held += n
	if all := in.server.staged.Add(n); all > limits.Staged {
		return fmt.Errorf("%w: files on their way hold %d bytes", errNoRoom, limits.Staged)
	}
	if in.held >= in.look {
		in.look = in.held + lookEvery
		if err := in.server.room(n); err != nil {
			return err
		}
	}
	_, err := in.file.Write(p)
	return err
}

// Reset drops what was written so far.
func (in *sink) Reset() error {
	in.release()
	in.look = lookEvery
	if in.failed = in.file.Reset(); in.failed != nil {
		return public(in.failed)
	}
	return nil
}

// Kept is nothing: what was staged before is gone.
func (in *sink) Kept() (int64, []byte) { return 0, nil }

// Keep keeps nothing.
func (in *sink) Keep([]byte) error { return nil }

// release no longer counts the bytes.
func (in *sink) release() {
	in.server.staged.Add(-in.held)
	in.held = 0
}

// drop gives back what a file that was not published holds.
func (c *connection) drop(o proto.Offer, in *sink) {
	if err := in.file.Discard(); err != nil {
		c.say(slog.LevelError, "staged file not removed", o, err)
	}
	in.release()
}

// store publishes a verified file and records it. If it returns nil, the file
// is durable. After errNotRecorded it may lie under its name, so that nothing can
// be said about it now; after any other error it does not.
func (c *connection) store(ctx context.Context, o proto.Offer, in *sink, sum proto.Sum) error {
	if size := in.file.Size(); size != sum.Size {
		return fmt.Errorf("internal error: %d bytes staged, %d received", size, sum.Size)
	}
	client := c.client.Name.String()
	err := in.file.Publish(client, o.Name.String())
	switch {
	case errors.Is(err, blob.ErrExists):
		return fmt.Errorf("%w: another connection was first", proto.ErrExists)
	case err != nil:
		// A name that could not be made durable is there nevertheless.
		if _, none := c.disk.Stat(client, o.Name.String()); errors.Is(none, fs.ErrNotExist) {
			return err
		}
		return fmt.Errorf("%w: %w", errNotRecorded, err)
	}
	// Nothing that ends the connection may come between the two.
	if err := c.catalog.record(context.WithoutCancel(ctx), c.client.ID, o.Name, sum, time.Now()); err != nil {
		return fmt.Errorf("%w: %w", errNotRecorded, err)
	}
	return nil
}
