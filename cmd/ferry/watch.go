package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"

	"github.com/spf13/cobra"
)

func (p *program) watchCommand() *cobra.Command {
	r := &remote{}
	cmd := &cobra.Command{
		Use:   "watch [flags] [ID...]",
		Short: "Follow uploads until they are delivered",
		Long: `Follow the uploads that are named until each is delivered, failed or cancelled,
with a line for every change. The status is 0 if all are delivered, 5 if not.
Without an ID, follow all uploads of the gateway until an interrupt. Lost
connections are got over once the gateway was reached.`,
		Example: "  ferry watch\n  ferry watch 01K62Q3V7N5CW0M8DJ4RXEBZ9T",
	}
	return p.remoteCommand(cmd, r, func(ctx context.Context, g *gatewayClient, ids []string) error {
		w := &watching{program: p, remote: r, gateway: g, seen: map[string]string{}}
		if len(ids) == 0 {
			return w.all(ctx)
		}
		return each(ids, func(id string) error { return w.one(ctx, id) })
	})
}

// watching is one call of ferry watch.
type watching struct {
	*program
	*remote
	gateway *gatewayClient
	seen    map[string]string // how each upload was last said to stand
	reached bool
}

// one follows an upload to its end.
func (w *watching) one(ctx context.Context, id string) error {
	var u remoteUpload
	var etag string
	for tries := 1; ; {
		now, pause, err := w.gateway.poll(ctx, id, &etag, longPoll)
		if err != nil {
			if err := w.endure(ctx, &tries, id, err); err != nil {
				return err
			}
			continue
		}
		w.reached, tries = true, 1
		if now.ID != "" {
			u = now
			if err := w.say(u); err != nil {
				return err
			}
		}
		switch {
		case u.State == remoteDelivered:
			return nil
		case u.over():
			return exitError(exitUndelivered)
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}

// all follows the newest uploads, as they change, until ctx ends: that is how
// it is meant to.
func (w *watching) all(ctx context.Context) error {
	for tries, first := 1, true; ; {
		list, err := w.gateway.list(ctx, url.Values{"limit": {strconv.Itoa(maxStatus)}})
		if err != nil {
			err = w.endure(ctx, &tries, "", err)
		} else {
			w.reached, tries = true, 1
			if err = w.changes(list, first); err == nil {
				err = sleep(ctx, pollEvery)
			}
			first = false
		}
		switch {
		case errors.Is(err, errStopped):
			return nil
		case err != nil:
			return err
		}
	}
}

// changes says what is new in a list, oldest first. In the first list that is
// what is on its way.
func (w *watching) changes(list []remoteUpload, first bool) error {
	listed := make(map[string]string, len(list))
	for _, u := range slices.Backward(list) {
		if !first || !u.over() {
			if err := w.say(u); err != nil {
				return err
			}
		}
		listed[u.ID] = standing(u)
	}
	w.seen = listed
	return nil
}

// say prints how an upload stands, unless it was said.
func (w *watching) say(u remoteUpload) error {
	now := standing(u)
	if w.seen[u.ID] == now {
		return nil
	}
	w.seen[u.ID] = now
	return w.printUpload(w.remote, u)
}

// standing is what has to change to be worth a line: of the progress, tenths.
func standing(u remoteUpload) string {
	tenths := int64(0)
	if u.Progress.TotalBytes > 0 {
		tenths = 10 * u.Progress.Bytes / u.Progress.TotalBytes
	}
	return fmt.Sprintf("%s %d %d %s", u.State, tenths, u.Attempts.Count, u.Attempts.LastError)
}

// endure waits before the next try, if there is to be one.
func (w *watching) endure(ctx context.Context, tries *int, id string, err error) error {
	why := explainGateway(err)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if !why.retry || !w.reached {
		return w.remoteFailed("watch", id, err)
	}
	*tries++
	return sleep(ctx, pauseBefore(*tries-1, why.after))
}
