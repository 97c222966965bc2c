package server

import (
	"errors"
	"time"

	"ferry/internal/blob"
	"ferry/proto"
)

const (
	// lookEvery is after how many bytes the room on disk is looked at again.
	lookEvery = 4 << 20
	// lastEvery is how often what came of a file is made durable, and so how much
	// of it may be lost with the power.
	lastEvery = 30 * time.Second
)

// sink is a staged file, counted against the limits. It is used by one
// goroutine.
type sink struct {
	server *Server
	client proto.ClientID
	key    string // in staging; "" if the transfer cannot go on
	claim  *claim // of the key
	file   *blob.Staged
	held   int64     // bytes in staging that are counted for it
	look   int64     // when held reaches it, the room on disk is looked at
	last   time.Time // when what came was durable, or the transfer began
	leave  bool      // what was kept is for another connection
	failed error     // why it took no more
}

var _ proto.Sink = (*sink)(nil)

// stage begins the file of an offer, or goes on with it. When it returns no
// error, the claim is the sink's.
func (s *Server) stage(client proto.ClientID, o proto.Offer, key string, claim *claim) (*sink, error) {
	in := &sink{server: s, client: client, key: key, claim: claim, last: time.Now()}
	var err error
	if key == "" {
		in.file, err = s.disk.Stage()
	} else {
		in.file, err = s.disk.StageAs(key)
	}
	if errors.Is(err, blob.ErrInUse) { // it is being swept
		err = &proto.RefusedError{Why: proto.ErrBusy, After: time.Second, Words: "the transfer expires just now: it begins again"}
	}
	if err != nil {
		return nil, err
	}
	in.file.Describe(o.Mode, o.ModTime)
	if key != "" {
		in.held, _ = in.file.Kept()
		err = s.holdings.begin(client, key, in.held)
	}
	in.look = in.held + lookEvery
	if err != nil {
		in.claim = nil // it stays the caller's
		return nil, errors.Join(err, in.drop())
	}
	return in, nil
}

// Write adds p to the file, or says why there is no room for it.
func (in *sink) Write(p []byte) (int, error) {
	in.claim.alive()
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
		return tooLarge(limits.FileSize)
	}
	in.held += n
	if err := in.server.holdings.grow(in.client, n); err != nil {
		return err
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

// Reset drops what was written so far, and what was kept.
func (in *sink) Reset() error {
	in.server.holdings.shrink(in.client, in.held)
	in.held, in.look = 0, lookEvery
	if in.failed = in.file.Reset(); in.failed != nil {
		return public(in.failed)
	}
	return nil
}

// Kept is what a connection before left of the transfer.
func (in *sink) Kept() (int64, []byte) { return in.file.Kept() }

// Keep keeps what was written so far for another connection, and now and then
// also over a power loss.
func (in *sink) Keep(state []byte) error {
	if in.failed == nil {
		durable := time.Since(in.last) >= lastEvery
		if in.failed = in.file.Keep(state, durable); durable {
			in.last = time.Now()
		}
	}
	if in.failed != nil {
		return public(in.failed)
	}
	return nil
}

// drop gives back what a file holds that was not published, unless it is left for
// another connection.
func (in *sink) drop() (err error) {
	kept := int64(0)
	if in.leave {
		err = in.file.Close()
		kept, _ = in.file.Kept()
	} else {
		err = in.file.Discard()
	}
	if in.key == "" {
		in.server.holdings.shrink(in.client, in.held)
		return err
	}
	in.server.holdings.leave(in.client, in.key, in.held, kept)
	in.server.holdings.unclaim(in.key, in.claim)
	return err
}
