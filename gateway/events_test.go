package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
)

// An event is one that a stream had.
type event struct {
	name, id string
	data     string
	upload   Upload // of upload and progress; the id alone of forgotten
}

// A listener reads a stream.
type listener struct {
	t      testing.TB
	events chan event // closed at its end
	stop   func()
	header http.Header
	last   string // the id of the last event with one
}

func (s *testAPI) listen(t testing.TB, path string, header ...string) *listener {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(req) //nolint:bodyclose // whoever reads it does
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != eventsType {
		body, _ := io.ReadAll(res.Body)
		t.Fatalf("GET %s: %s %s: %s", path, res.Status, res.Header.Get("Content-Type"), body)
	}
	l := &listener{t: t, events: make(chan event, 1000), stop: cancel, header: res.Header}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(l.events)
		defer res.Body.Close()
		var e event
		for lines := bufio.NewScanner(res.Body); lines.Scan(); {
			switch field, value, _ := strings.Cut(lines.Text(), ": "); field {
			case "event":
				e.name = value
			case "id":
				e.id = value
			case "data":
				e.data = value
			case "":
				if e.data == "" { // a comment
					continue
				}
				if err := json.Unmarshal([]byte(e.data), &e.upload); err != nil {
					t.Errorf("%s: %v", e.data, err)
				}
				l.events <- e
				e = event{}
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return l
}

// next is the next event that is no progress.
func (l *listener) next() event {
	l.t.Helper()
	for limit := time.After(patience); ; {
		select {
		case e, ok := <-l.events:
			if !ok {
				l.t.Fatal("the stream has ended")
			}
			if e.id != "" {
				l.last = e.id
			}
			if e.name != "progress" {
				return e
			}
		case <-limit:
			l.t.Fatal("no event came")
		}
	}
}

// until reads up to the event that says that an upload is in a state.
func (l *listener) until(id ulid.ULID, state State) (all []event) {
	l.t.Helper()
	for {
		e := l.next()
		if all = append(all, e); e.name == "upload" && e.upload.ID == id && e.upload.State == state {
			return all
		}
	}
}

// TestEvents follows uploads, is cut off, and hears what it has missed after a
// restart: of each upload how it stands, and what was forgotten.
func TestEvents(t *testing.T) {
	r, dir := newRemote(), t.TempDir()
	c := openCore(t, dir, r)
	s := newTestAPI(t, c.httpAPI())
	put := func(name string) Upload {
		return s.ask(t, "PUT", "/uploads/"+name, strings.NewReader(name)).upload(t, http.StatusAccepted)
	}
	before := put("before")
	l := s.listen(t, "/events")
	if e := l.next(); e.name != "ready" || e.id == "" {
		t.Fatalf("first comes %+v, want ready", e)
	}
	if got := l.header.Get("X-Accel-Buffering"); got != "no" {
		t.Errorf("X-Accel-Buffering %q", got)
	}
	first := put("first")
	if e := l.next(); e.name != "upload" || e.upload.ID != first.ID || e.upload.State != StateQueued {
		t.Errorf("%+v, want the first upload", e)
	}
	stop := c.deliverAll()
	l.until(first.ID, StateDelivered)
	stop()
	l.stop()

	// Missed: one more, one held, one forgotten.
	more, held := put("more"), put("held")
	s.ask(t, "POST", "/uploads/"+held.ID.String()+"/hold", nil).upload(t, http.StatusOK)
	if a := s.ask(t, "DELETE", "/uploads/"+before.ID.String(), nil); a.StatusCode != http.StatusNoContent {
		t.Fatalf("forget: %d", a.StatusCode)
	}
	c.shut()
	c = openCore(t, dir, r)
	s = newTestAPI(t, c.httpAPI())
	l = s.listen(t, "/events", "Last-Event-ID", l.last)
	got := map[string]string{}
	for range 3 {
		e := l.next()
		got[e.upload.ID.String()] = fmt.Sprint(e.name, " ", e.upload.State, " ", e.upload.Held)
	}
	for id, want := range map[ulid.ULID]string{more.ID: "upload queued false", held.ID: "upload queued true", before.ID: "forgotten  false"} {
		if got[id.String()] != want {
			t.Errorf("missed: %q, want %q; all: %v", got[id.String()], want, got)
		}
	}
	c.deliverAll()
	l.until(more.ID, StateDelivered)
}

// TestEventsReset: who was away for too long, or comes from another database, is
// told to ask for the list.
func TestEventsReset(t *testing.T) {
	s := newRealAPI(t)
	u := s.ask(t, "PUT", "/uploads/a", strings.NewReader("a")).upload(t, http.StatusAccepted)
	l := s.listen(t, "/events", "Last-Event-ID", "1000000")
	if e := l.next(); e.name != "reset" {
		t.Errorf("%+v, want reset", e)
	}
	s.ask(t, "POST", "/uploads/"+u.ID.String()+"/cancel", nil).upload(t, http.StatusOK)
	l.until(u.ID, StateCancelled)
	for _, id := range []string{"x", "-1", "99999999999999999999"} {
		s.ask(t, "GET", "/events", nil, "Last-Event-ID", id).problem(t, kindParameter)
	}
}

func TestForgottenIsBounded(t *testing.T) {
	c := openCore(t, t.TempDir(), newRemote())
	if last, missed, err := c.lastChange(t.Context(), 0); last != 0 || missed || err != nil {
		t.Errorf("of nothing: %d, %v, %v", last, missed, err)
	}
	u := c.take("a", "a")
	c.fillForgotten(maxForgotten + 5)
	c.cancel(u.ID)
	if _, gone, err := c.remove(t.Context(), u.ID); err != nil || !gone {
		t.Fatal(gone, err)
	}
	var n, oldest int64
	if err := c.db.Read().QueryRow("select count(*), min(changed) from forgotten").Scan(&n, &oldest); err != nil || n != maxForgotten {
		t.Errorf("%d are remembered as forgotten, %v; want %d", n, err, maxForgotten)
	}
	for after, want := range map[int64]bool{0: true, oldest - 2: true, oldest - 1: false, oldest: false} {
		if _, missed, err := c.lastChange(t.Context(), after); missed != want || err != nil {
			t.Errorf("after %d of %d: missed %v, %v", after, oldest, missed, err)
		}
	}
}

// TestEventsOfOne ends with the upload's end, and does not begin again after it.
func TestEventsOfOne(t *testing.T) {
	c := openCore(t, t.TempDir(), newRemote())
	s := newTestAPI(t, c.httpAPI())
	u := s.ask(t, "PUT", "/uploads/a", strings.NewReader("a")).upload(t, http.StatusAccepted)
	path := "/uploads/" + u.ID.String() + "/events"
	l := s.listen(t, path)
	if e := l.next(); e.upload.State != StateQueued {
		t.Errorf("%+v, want it as it stands", e)
	}
	c.deliverAll()
	l.until(u.ID, StateDelivered)
	if e := soon(t, l.events); e.name+e.id+e.data != "" {
		t.Errorf("after its end comes %+v", e)
	}
	if a := s.ask(t, "GET", path, nil, "Last-Event-ID", l.last); a.StatusCode != http.StatusNoContent {
		t.Errorf("again: %d, want 204", a.StatusCode)
	}
	again := s.listen(t, path, "Last-Event-ID", "0")
	again.until(u.ID, StateDelivered)
	later := c.take("b", "b")
	c.await(later.ID, StateDelivered)
	last, _, err := c.lastChange(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if a := s.ask(t, "GET", path, nil, "Last-Event-ID", strconv.FormatInt(last, 10)); a.StatusCode != http.StatusNoContent {
		t.Errorf("after another upload's event: %d, want 204", a.StatusCode)
	}
	unknown := s.listen(t, path, "Last-Event-ID", strconv.FormatInt(last+1, 10))
	unknown.until(u.ID, StateDelivered)
	s.ask(t, "GET", "/uploads/"+ulid.Make().String()+"/events", nil).problem(t, kindNotFound)
}

// TestEventsOfWhatComesIn shows the bytes of a body as they come, and that it was
// given up.
func TestEventsOfWhatComesIn(t *testing.T) {
	s := newRealAPI(t)
	l := s.listen(t, "/events")
	l.next()
	body, more := io.Pipe()
	go func() {
		req, err := http.NewRequest(http.MethodPut, s.url+"/uploads/a", body)
		if err != nil {
			t.Error(err)
			return
		}
		if res, err := http.DefaultTransport.RoundTrip(req); err == nil {
			_ = res.Body.Close()
		}
	}()
	if _, err := more.Write(make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	var id ulid.ULID
	for e := range l.events {
		if e.name == "progress" && e.upload.Progress.Bytes == 1000 {
			id = e.upload.ID
			break
		}
	}
	if err := more.CloseWithError(io.ErrUnexpectedEOF); err != nil {
		t.Fatal(err)
	}
	if e := l.next(); e.name != "forgotten" || e.upload.ID != id {
		t.Errorf("%+v, want that %s is no more", e, id)
	}
}

// TestEventsByToken: who may only send hears of its own alone.
func TestEventsByToken(t *testing.T) {
	s := newGuarded(t)
	one, other := s.token(t, "one", ScopeUpload), s.token(t, "other", ScopeUpload)
	l := s.listen(t, "/events", "Authorization", one)
	l.next()
	theirs := s.as(t, other, "PUT", "/uploads/theirs", "x").upload(t, http.StatusAccepted)
	own := s.as(t, one, "PUT", "/uploads/own", "x").upload(t, http.StatusAccepted)
	if e := l.next(); e.upload.ID != own.ID {
		t.Errorf("%+v, want its own %s", e, own.ID)
	}
	s.as(t, one, "GET", "/uploads/"+theirs.ID.String()+"/events", "").problem(t, kindNotFound)
	// A token that is revoked hears nothing more.
	if err := RevokeToken(t.Context(), s.data, "one"); err != nil {
		t.Fatal(err)
	}
	for range l.events {
		continue
	}
}

// TestOthersArePassedOver: who may see some uploads alone does not go over those of
// others again at each look, and is told to ask for the list if there are too many.
func TestOthersArePassedOver(t *testing.T) {
	g := openCore(t, t.TempDir(), newRemote())
	for i := range 5 {
		g.take(fmt.Sprint(i), "x")
	}
	own := context.WithValue(t.Context(), callerKey{}, &caller{TokenInfo: TokenInfo{Name: "x", Scopes: []Scope{ScopeUpload}}})
	if all, upTo, err := g.changedAfter(own, 0, 10); len(all) != 0 || upTo != 5 || err != nil {
		t.Errorf("one who sees nothing: %d changes up to %d, %v; want none up to 5", len(all), upTo, err)
	}
	if all, upTo, err := g.changedAfter(t.Context(), 0, 3); len(all) != 3 || upTo != 3 || err != nil {
		t.Errorf("a page: %d changes up to %d, %v; want 3 up to 3", len(all), upTo, err)
	}
	if all, upTo, err := g.changedAfter(t.Context(), 3, 3); len(all) != 2 || upTo != 5 || err != nil {
		t.Errorf("the next page: %d changes up to %d, %v; want 2 up to 5", len(all), upTo, err)
	}
	g.exec("update uploads set changed = $1 where changed = 5", maxPassed+5)
	for _, c := range []struct {
		ctx   context.Context
		after int64
		want  bool
	}{{own, 4, true}, {own, 5, false}, {t.Context(), 0, false}} {
		if _, missed, err := g.lastChange(c.ctx, c.after); missed != c.want || err != nil {
			t.Errorf("after %d: missed %v, %v; want %v", c.after, missed, err, c.want)
		}
	}
}

// TestEventsStop: they end when the gateway stops.
func TestEventsStop(t *testing.T) {
	c := openCore(t, t.TempDir(), newRemote())
	s := newTestAPI(t, c.httpAPI())
	u := s.ask(t, "PUT", "/uploads/a", strings.NewReader("a")).upload(t, http.StatusAccepted)
	all, one := s.listen(t, "/events"), s.listen(t, "/uploads/"+u.ID.String()+"/events")
	all.next()
	one.next()
	c.live.changes.stop()
	for range all.events {
		continue
	}
	for range one.events {
		continue
	}
}

// TestEventsAreBounded admits so many at once.
func TestEventsAreBounded(t *testing.T) {
	s := newFakeAPI(t)
	for range maxStreams {
		s.api.streams <- struct{}{}
	}
	if a := s.ask(t, "GET", "/events", nil); a.Header.Get("Retry-After") == "" {
		t.Errorf("no Retry-After: %v", a.Header)
	} else {
		a.problem(t, kindBusy)
	}
}

// TestEventsToCurl has curl follow an upload to its end.
func TestEventsToCurl(t *testing.T) {
	c := openCore(t, t.TempDir(), newRemote())
	s := newTestAPI(t, c.httpAPI())
	u := s.ask(t, "PUT", "/uploads/a", strings.NewReader("a")).upload(t, http.StatusAccepted)
	c.deliverAll()
	out, err := exec.CommandContext(t.Context(), "curl", "-sSN", "--max-time", "20", s.url+"/uploads/"+u.ID.String()+"/events").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "event: upload\nid: ") || !strings.Contains(string(out), `"state":"delivered"`) || !strings.HasSuffix(string(out), "\n\n") {
		t.Errorf("%v: %s", err, out)
	}
}

// TestChangePlans: what is asked for each event is found by an index.
func TestChangePlans(t *testing.T) {
	c := openCore(t, t.TempDir(), newRemote())
	for _, statement := range []string{selectChanged, selectForgotten} {
		for _, step := range plan(t, c, statement, []any{1, true, "x", "", "", 10}) {
			if strings.HasPrefix(step, "SCAN u") || strings.Contains(step, "TEMP B-TREE") {
				t.Errorf("%s in %s", step, statement)
			}
		}
	}
	for _, step := range plan(t, c, "select "+nextChange, nil) {
		if strings.HasPrefix(step, "SCAN") && !strings.Contains(step, "CONSTANT ROW") && !strings.Contains(step, "USING") {
			t.Errorf("%s for the number of a change", step)
		}
	}
}

// fillForgotten records that uploads were forgotten.
func (c *core) fillForgotten(n int) {
	c.t.Helper()
	c.exec(`insert into forgotten (changed, upload) with recursive i(n) as (select 1 union all select n + 1 from i where n < $1)
		select (select max(changed) from uploads) + n, zeroblob(16) from i`, n)
}
