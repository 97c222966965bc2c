package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
)

const (
	// maxWait bounds how long a request may wait for an upload to change.
	maxWait = 60 * time.Second
	// maxWaiting bounds the requests that wait at once.
	maxWaiting = 1024
)

// errWaiting: as many requests wait as may.
var errWaiting = errors.New("too many requests wait for uploads to change")

// changes tells those who wait for uploads that they have changed. It is safe
// for concurrent use.
type changes struct {
	mu      sync.Mutex
	watched map[ulid.ULID]*watch // guarded by mu
	waiting int                  // guarded by mu
	next    chan struct{}        // closed at the next change of any upload, nil if nobody asked for it; guarded by mu

	stopped chan struct{} // closed when nobody shall wait any more
	stop    func()
}

// A watch is what all who wait for one upload share.
type watch struct {
	changed chan struct{} // closed at the upload's next change
	waiting int
}

func newChanges() *changes {
	c := &changes{watched: map[ulid.ULID]*watch{}, stopped: make(chan struct{})}
	c.stop = sync.OnceFunc(func() { close(c.stopped) })
	return c
}

// watch returns a channel that is closed once the upload changes. leave must be
// called, once. The error is errWaiting.
func (c *changes) watch(id ulid.ULID) (changed <-chan struct{}, leave func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting == maxWaiting {
		return nil, nil, errWaiting
	}
	w := c.watched[id]
	if w == nil {
		w = &watch{changed: make(chan struct{})}
		c.watched[id] = w
	}
	w.waiting++
	c.waiting++
	return w.changed, func() { c.leave(id, w) }, nil
}

func (c *changes) leave(id ulid.ULID, w *watch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting--
	if w.waiting--; w.waiting == 0 && c.watched[id] == w {
		delete(c.watched, id)
	}
}

// tell wakes those who wait for uploads. What changed must be visible already.
func (c *changes) tell(ids ...ulid.ULID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range ids {
		if w := c.watched[id]; w != nil {
			close(w.changed)
			delete(c.watched, id)
		}
	}
	if c.next != nil {
		close(c.next)
		c.next = nil
	}
}

// any returns a channel that is closed once any upload changes.
func (c *changes) any() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next == nil {
		c.next = make(chan struct{})
	}
	return c.next
}

// await returns an upload as soon as done is true of it, and at the latest when
// the time is over or the gateway is about to stop. It is woken by changes of
// the upload's state, not by its progress. Errors: errNotFound, also if it goes
// meanwhile, and errWaiting.
func (g *Gateway) await(ctx context.Context, id ulid.ULID, most time.Duration, done func(Upload) bool) (Upload, error) {
	u, over, err := g.awaitChange(ctx, id, most, done)
	if over {
		return g.get(ctx, id)
	}
	return u, err
}

// moved is await for whoever looks again at once: when the time is over, the upload's
// progress is as it is then, and all else as it was before, so that no row is read
// twice.
func (g *Gateway) moved(ctx context.Context, id ulid.ULID, most time.Duration, done func(Upload) bool) (Upload, error) {
	u, over, err := g.awaitChange(ctx, id, most, done)
	if !over {
		return u, err
	}
	if in := g.live.incoming(id); in != nil && u.State == StateReceiving {
		return in.upload(), nil
	}
	if d := g.live.delivery(id); d != nil {
		d.show(&u)
	}
	return u, nil
}

// awaitChange is await but for the look at the end: over tells that done was not true
// of the upload when it was looked at.
func (g *Gateway) awaitChange(ctx context.Context, id ulid.ULID, most time.Duration, done func(Upload) bool) (u Upload, over bool, err error) {
	timer, stop := g.clock.after(most)
	defer stop()
	for {
		changed, leave, err := g.live.changes.watch(id)
		if err != nil {
			return Upload{}, false, err
		}
		u, err := g.get(ctx, id)
		if err != nil || done(u) {
			leave()
			return u, false, err
		}
		select {
		case <-changed:
		case <-timer:
			over = true
		case <-g.live.changes.stopped:
			over = true
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		leave()
		if over || err != nil {
			return u, over, err
		}
	}
}

// isFinal reports whether an upload changes no more unless somebody wants it to.
func (u *Upload) isFinal() bool {
	return u.State == StateDelivered || u.State == StateFailed || u.State == StateCancelled
}

// stateTag names what a wait is for: it changes with the upload's state and
// attempts, and not with its progress.
func (u *Upload) stateTag() string {
	return shortSum(fmt.Appendf(nil, "%s %d %d", u.State, u.Attempts.Count, u.UpdatedAt.UnixMicro()), 6)
}

// uploadTag is a strong ETag: it names the bytes that are answered. It begins
// with the stateTag.
func uploadTag(u *Upload, body []byte) string {
	return `"` + u.stateTag() + "." + shortSum(body, 12) + `"`
}

func shortSum(b []byte, n int) string {
	sum := sha256.Sum256(b)
	return base64.RawURLEncoding.EncodeToString(sum[:n])
}

// knowsState reports whether If-None-Match names an upload as it stands, but for
// its progress.
func knowsState(fields []string, u *Upload) bool {
	for _, field := range fields {
		for tag := range strings.SplitSeq(field, ",") {
			tag = strings.TrimPrefix(strings.TrimSpace(tag), "W/")
			if strings.HasPrefix(tag, `"`+u.stateTag()+".") {
				return true
			}
		}
	}
	return false
}

// waitParameter is how long a GET may wait.
func waitParameter(r *http.Request) (time.Duration, error) {
	q, err := query(r)
	if err != nil || !q.Has("wait") {
		return 0, err
	}
	if repeated(q, "wait") != "" {
		return 0, refusal(kindParameter, "wait is given more than once. Give it once.")
	}
	seconds, err := strconv.Atoi(q.Get("wait"))
	if most := int(maxWait / time.Second); err != nil || seconds < 0 || seconds > most {
		return 0, refusal(kindParameter, "wait is %.40q; it is a whole number of seconds from 0 to %d.", q.Get("wait"), most)
	}
	return time.Duration(seconds) * time.Second, nil
}

// waited returns an upload, after it has changed if the request wants to wait
// for that.
func (a *httpAPI) waited(r *http.Request, id ulid.ULID) (Upload, error) {
	most, err := waitParameter(r)
	if err != nil {
		return Upload{}, err
	}
	u, err := a.core.get(r.Context(), id)
	if err != nil || most == 0 {
		return u, err
	}
	known := r.Header.Values("If-None-Match")
	if len(known) == 0 && u.isFinal() || len(known) > 0 && !knowsState(known, &u) {
		return u, nil
	}
	before := u.stateTag()
	return a.core.await(r.Context(), id, most, func(u Upload) bool { return u.stateTag() != before })
}

// getUpload shows one upload.
//
//	@Summary		Show an upload
//	@ID				getUpload
//	@Tags			uploads
//	@Produce		json
//	@Description	With wait, the answer comes as soon as the upload's state or the number of its attempts is another one than at the beginning, or at once if that is final and not known by If-None-Match: a loop of such requests follows an upload with nothing missed if each sends the ETag of the answer before in If-None-Match. Progress alone ends no wait.
//	@Param			id				path		string	true	"The upload's id"
//	@Param			wait			query		integer	false	"For how many seconds the answer may wait for a change"	minimum(0)	maximum(60)	example(30)
//	@Param			If-None-Match	header		string	false	"The ETag of an answer before: with wait, changes since that one count"
//	@Success		200	{object}	Upload	"The upload as it stands"
//	@Header			200	{string}	ETag	"Names the upload as it stands"
//	@Success		304	"It is as If-None-Match says, also after the time to wait"
//	@Header			304	{string}	ETag	"Names the upload as it stands"
//	@Failure		400	{object}	problem	"wait has a value that is not allowed, or the address has another parameter"
//	@Failure		404	{object}	problem	"There is no such upload, or not any more"
//	@Failure		503	{object}	problem	"Too many requests wait"
//	@Header			503	{integer}	Retry-After	"When to try again, in seconds"
//	@Router			/uploads/{id} [get]
func (a *httpAPI) getUpload(x *exchange, r *http.Request) error {
	id, err := uploadID(r)
	if err != nil {
		return err
	}
	u, err := a.waited(r, id)
	if err != nil {
		return err
	}
	body := encodeJSON(u)
	s := static{content: body, mediaType: "application/json", etag: uploadTag(&u, body)}
	return s.serve(x, r)
}
