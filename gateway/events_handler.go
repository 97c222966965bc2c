package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/oklog/ulid/v2"
)

const (
	eventsPath = "/events"
	eventsType = "text/event-stream"

	// maxStreams bounds how many requests are answered with events at once.
	maxStreams = 1024
	// eventPage is how many changes are looked up at a time.
	eventPage = 64
	// eventBuffer is about how many bytes wait for a reader that is slow.
	eventBuffer = 16 << 10
	// eventPause is the least time between two looks at what has changed: changes of
	// one upload that come faster are one event. It is longer by eventPauseEach for each
	// that follows events, so that many cost no more than some.
	eventPause     = 50 * time.Millisecond
	eventPauseEach = 500 * time.Microsecond
	// progressEvery is how often progress is written.
	progressEvery = 500 * time.Millisecond
	// eventHeartbeat keeps proxies and the other end from taking silence for a cut.
	eventHeartbeat = 15 * time.Second
)

// A stream writes server-sent events
// (https://html.spec.whatwg.org/multipage/server-sent-events.html). A reader that
// takes nothing for writeTimeout is cut.
type stream struct {
	x      *exchange
	buffer bytes.Buffer
}

// begin answers with the header.
func (a *httpAPI) stream(x *exchange) *stream {
	h := x.Header()
	h.Set("Content-Type", eventsType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would hold events back
	x.WriteHeader(http.StatusOK)
	return &stream{x: x}
}

// event adds one to what flush writes; id is 0 for an event that is not told again.
func (s *stream) event(name string, id int64, data any) { s.encoded(name, id, encodeJSON(data)) }

// encoded is event with data in JSON, which is one line.
func (s *stream) encoded(name string, id int64, data []byte) {
	fmt.Fprintf(&s.buffer, "event: %s\n", name)
	if id > 0 {
		fmt.Fprintf(&s.buffer, "id: %d\n", id)
	}
	s.buffer.WriteString("data: ")
	s.buffer.Write(data)
	s.buffer.WriteByte('\n')
}

// flushFrom writes what is to be written once it has so many bytes.
func (s *stream) flushFrom(size int) error {
	if s.buffer.Len() < size {
		return nil
	}
	if _, err := s.x.Write(s.buffer.Bytes()); err != nil {
		return err
	}
	s.buffer.Reset()
	return s.x.control.Flush()
}

func (s *stream) flush() error { return s.flushFrom(1) }

// forgottenEvent is the data of an event that says that an upload is no more.
type forgottenEvent struct {
	ID ulid.ULID `json:"id"`
}

// change adds the event of a change.
func (s *stream) change(c change) {
	if c.upload == nil {
		s.event("forgotten", c.number, forgottenEvent{c.id})
	} else {
		s.encoded("upload", c.number, c.json)
	}
}

// lastEventID is where a client that was cut off wants to go on.
func lastEventID(r *http.Request) (id int64, given bool, err error) {
	text := r.Header.Get("Last-Event-ID")
	if text == "" {
		return 0, false, nil
	}
	if id, err = strconv.ParseInt(text, 10, 64); err != nil || id < 0 {
		return 0, false, refusal(kindParameter, "Last-Event-ID is %.40q; it is the id of an event that came before.", text)
	}
	return id, true, nil
}

// admitStream counts the requests that are answered with events.
func (a *httpAPI) admitStream() (leave func(), err error) {
	select {
	case a.streams <- struct{}{}:
		return func() { <-a.streams }, nil
	default:
		return nil, &refusalError{problemKind: kindBusy, retryAfter: 5, limit: maxStreams, detail: "As many requests follow events as may. Nothing was changed. Try again in a moment, or ask from time to time."}
	}
}

// getEvents tells what becomes of all uploads.
//
//	@Summary		Follow all uploads
//	@ID				getEvents
//	@Tags			uploads
//	@Produce		text/event-stream
//	@Description	Server-sent events, until the client goes. First comes `ready`, with the id from which a list that is asked for now goes on; or, with Last-Event-ID, what was missed. Then: `upload`, with the upload as GET shows it, whenever its state or its attempts have changed; changes in quick succession are one event. `forgotten`, with its `id`, when it is no more. `progress`, with the upload, up to twice a second while bytes move; it has no id and is not told again. `reset`, if what was missed cannot be told any more: ask for the list. A comment comes every 15 seconds.
//	@Param			Last-Event-ID	header		string	false	"The id of the last event that was seen: what followed comes first, after a restart too"	example(4711)
//	@Success		200	{string}	string	"Events, until the client goes or the gateway stops"
//	@Header			200	{string}	X-Accel-Buffering	"no: a proxy is to pass events on as they come"
//	@Failure		400	{object}	problem	"Last-Event-ID is none, or the address has a parameter"
//	@Failure		503	{object}	problem	"Too many requests follow events"
//	@Header			503	{integer}	Retry-After	"When to try again, in seconds"
//	@Router			/events [get]
func (a *httpAPI) getEvents(x *exchange, r *http.Request) error {
	after, given, err := lastEventID(r)
	if err != nil {
		return err
	}
	leave, err := a.admitStream()
	if err != nil {
		return err
	}
	defer leave()
	last, missed, err := a.core.lastChange(r.Context(), after)
	if err != nil {
		return err
	}
	s := a.stream(x)
	if r.Method == http.MethodHead {
		return nil
	}
	switch {
	case !given:
		after = last
		s.event("ready", last, struct{}{})
	case missed:
		after = last
		s.event("reset", last, struct{}{})
	}
	f := &following{httpAPI: a, stream: s, after: after, shown: map[ulid.ULID]shownProgress{}}
	x.err = quiet(r.Context(), f.run(r.Context()))
	return nil
}

// quiet leaves out what ends a stream in an orderly way.
func quiet(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
		return nil
	}
	return err
}

// following is a request for the events of all uploads.
type following struct {
	*httpAPI
	*stream
	after int64                       // the number of the last change that was told
	shown map[ulid.ULID]shownProgress // of what is active
}

// shownProgress is what has to change for the next event.
type shownProgress struct {
	state    State
	phase    string
	progress Progress
}

// run writes events until the client or the gateway ends that.
func (f *following) run(ctx context.Context) error {
	progress, heartbeat := time.NewTicker(progressEvery), time.NewTicker(eventHeartbeat)
	defer progress.Stop()
	defer heartbeat.Stop()
	for {
		changed, stopped := f.core.nextChanges()
		if err := f.changes(ctx); err != nil {
			return err
		}
		for waits := true; waits; {
			if err := f.flush(); err != nil {
				return err
			}
			select {
			case <-changed:
				if err := pause(ctx, eventPause+time.Duration(len(f.streams))*eventPauseEach); err != nil {
					return err
				}
				waits = false
			case <-progress.C:
				if err := f.progress(ctx); err != nil {
					return err
				}
			case <-heartbeat.C:
				f.buffer.WriteString(":\n\n")
			case <-stopped:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// changes writes what has changed since the last look, but for what flush has to.
func (f *following) changes(ctx context.Context) error {
	for {
		page, upTo, err := f.core.changedAfter(ctx, f.after, eventPage)
		if err != nil {
			return err
		}
		for _, c := range page {
			f.change(c)
			delete(f.shown, c.id)
			if err := f.flushFrom(eventBuffer); err != nil {
				return err
			}
		}
		f.after = upTo
		if len(page) < eventPage {
			return nil
		}
	}
}

// progress adds the events of what has moved. What came in and was given up was
// never recorded: it is said to be forgotten here.
func (f *following) progress(ctx context.Context) error {
	active, err := f.core.active(ctx, f.after)
	if err != nil {
		return err
	}
	now := make(map[ulid.ULID]shownProgress, len(active))
	for _, c := range active {
		p := shownProgress{state: c.upload.State, progress: c.upload.Progress}
		if c.upload.Phase != nil {
			p.phase = string(*c.upload.Phase)
		}
		if now[c.id] = p; f.shown[c.id] != p {
			f.encoded("progress", 0, c.json)
			if err := f.flushFrom(eventBuffer); err != nil {
				return err
			}
		}
	}
	for id, p := range f.shown {
		if _, ok := now[id]; ok || p.state != StateReceiving {
			continue
		}
		if _, err := f.core.get(ctx, id); errors.Is(err, errNotFound) {
			f.event("forgotten", 0, forgottenEvent{id})
		}
	}
	f.shown = now
	return nil
}

// getUploadEvents tells what becomes of one upload.
//
//	@Summary		Follow an upload
//	@ID				getUploadEvents
//	@Tags			uploads
//	@Produce		text/event-stream
//	@Description	Server-sent events about one upload: `upload` as it stands, and again whenever its state or its attempts have changed, `progress` up to twice a second while bytes move, `forgotten` if it is no more. The answer ends with the event that says that it is delivered, failed or cancelled. A client that asks again with the id of that event gets 204, which ends an EventSource; an id that no event has had yet is taken for none.
//	@Param			id				path		string	true	"The upload's id"
//	@Param			Last-Event-ID	header		string	false	"The id of the last event that was seen"	example(4711)
//	@Success		200	{string}	string	"Events, until it is final"
//	@Header			200	{string}	X-Accel-Buffering	"no: a proxy is to pass events on as they come"
//	@Success		204	"It is final, and was told to be"
//	@Failure		400	{object}	problem	"Last-Event-ID is none, or the address has a parameter"
//	@Failure		404	{object}	problem	"There is no such upload"
//	@Failure		503	{object}	problem	"Too many requests follow events"
//	@Header			503	{integer}	Retry-After	"When to try again, in seconds"
//	@Router			/uploads/{id}/events [get]
func (a *httpAPI) getUploadEvents(x *exchange, r *http.Request) error {
	id, err := uploadID(r)
	if err != nil {
		return err
	}
	after, given, err := lastEventID(r)
	if err != nil {
		return err
	}
	leave, err := a.admitStream()
	if err != nil {
		return err
	}
	defer leave()
	u, err := a.core.get(r.Context(), id)
	if err != nil {
		return err
	}
	known, err := a.told(r.Context(), u, after, given)
	if err != nil {
		return err
	}
	if known && u.isFinal() {
		x.Header().Set("Cache-Control", "no-store")
		x.WriteHeader(http.StatusNoContent)
		return nil
	}
	s := a.stream(x)
	if r.Method == http.MethodHead {
		return nil
	}
	x.err = quiet(r.Context(), a.followOne(r.Context(), s, u, known))
	return nil
}

// told reports whether a client that was told of a change was told of an upload as it
// stands: not if there was no such change, as in another database.
func (a *httpAPI) told(ctx context.Context, u Upload, after int64, given bool) (bool, error) {
	if !given || after <= u.Change {
		return given && after == u.Change, nil
	}
	last, _, err := a.core.lastChange(ctx, after)
	return after <= last, err
}

// followOne writes the events of an upload until it is final. known says that it
// was told as it stands.
func (a *httpAPI) followOne(ctx context.Context, s *stream, u Upload, known bool) error {
	heartbeat := time.NewTicker(eventHeartbeat)
	defer heartbeat.Stop()
	seen, told := shownProgress{}, int64(-1)
	if known {
		told = u.Change
	}
	for {
		if told != u.Change {
			s.event("upload", u.Change, u)
		} else if p := (shownProgress{state: u.State, progress: u.Progress}); p != seen {
			s.event("progress", 0, u)
		}
		told, seen = u.Change, shownProgress{state: u.State, progress: u.Progress}
		select {
		case <-heartbeat.C:
			s.buffer.WriteString(":\n\n")
		default:
		}
		if s.buffer.Len() > 0 {
			if err := s.flush(); err != nil {
				return err
			}
		}
		if u.isFinal() {
			return nil
		}
		before := u.Change
		next, err := a.core.moved(ctx, u.ID, progressEvery, func(u Upload) bool { return u.Change != before })
		switch {
		case errors.Is(err, errNotFound):
			s.event("forgotten", 0, forgottenEvent{u.ID})
			return s.flush()
		case err != nil:
			return err
		}
		u = next
		if _, stopped := a.core.nextChanges(); isClosed(stopped) {
			return nil
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
