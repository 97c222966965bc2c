package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"

	"ferry/proto"
)

// TestHold keeps an upload from being delivered, over a restart, and what comes
// after it under its name; release lets them go in their order.
func TestHold(t *testing.T) {
	r, dir := newRemote(), t.TempDir()
	g := openCore(t, dir, r)
	first, second, other := g.take("f", "1"), g.take("f", "1"), g.take("other", "2")
	u, err := g.hold(t.Context(), first.ID)
	if err != nil || !u.Held || u.State != StateQueued {
		t.Fatalf("hold: %+v, %v", u, err)
	}
	stop := g.deliverAll()
	g.await(other.ID, StateDelivered)
	stop()
	g.shut()

	g = openCore(t, dir, r)
	g.deliverAll()
	third := g.take("third", "3")
	g.await(third.ID, StateDelivered)
	for _, id := range []ulid.ULID{first.ID, second.ID} {
		if u := g.see(id); u.State != StateQueued || u.Held != (id == first.ID) {
			t.Fatalf("after a restart: %+v", u)
		}
	}
	if u, err := g.release(t.Context(), first.ID); err != nil || u.Held || u.State != StateQueued {
		t.Fatalf("release: %+v, %v", u, err)
	}
	g.await(first.ID, StateDelivered)
	g.await(second.ID, StateDelivered)
}

// TestHoldStates tries hold and release in every state.
func TestHoldStates(t *testing.T) {
	r := newRemote()
	g := openCore(t, t.TempDir(), r)
	gate := newGate()
	r.expect("delivering", gate.then((*sending).deliver))
	r.expect("waiting", fails(proto.ErrRefused))
	r.expect("failed", fails(proto.ErrName))
	delivering := g.take("delivering", "0")
	waiting, failed := g.take("waiting", "1"), g.take("failed", "2")
	cancelled, delivered := g.take("cancelled", "3"), g.take("delivered", "4")
	g.cancel(cancelled.ID)
	g.deliverAll()
	gate.await(t)
	defer close(gate.open)
	g.await(waiting.ID, StateWaiting)
	g.await(failed.ID, StateFailed)
	g.await(delivered.ID, StateDelivered)
	for name, u := range map[string]Upload{"failed": failed, "cancelled": cancelled, "delivered": delivered, "delivering": delivering} {
		_, err := g.hold(t.Context(), u.ID)
		_, err2 := g.release(t.Context(), u.ID)
		if !errors.Is(err, errState) || !errors.Is(err2, errState) || errors.Is(err, errDelivering) != (name == "delivering") {
			t.Errorf("%s: hold %v, release %v", name, err, err2)
		}
	}
	if _, err := g.hold(t.Context(), ulid.Make()); !errors.Is(err, errNotFound) {
		t.Errorf("no such upload: %v", err)
	}
	// What waits for its next attempt has none to come while it is held.
	u, err := g.hold(t.Context(), waiting.ID)
	if err != nil || !u.Held || u.Attempts.NextAt != nil || u.State != StateWaiting {
		t.Errorf("waiting: %+v, %v", u, err)
	}
	if u, err := g.retry(t.Context(), waiting.ID); err != nil || u.Held {
		t.Errorf("retry: %+v, %v", u, err)
	}
	g.await(waiting.ID, StateDelivered)

}

// TestHoldIsCancelled: what is held can be cancelled, and is not held then.
func TestHoldIsCancelled(t *testing.T) {
	g := openCore(t, t.TempDir(), newRemote())
	u := g.take("f", "1")
	if _, err := g.hold(t.Context(), u.ID); err != nil {
		t.Fatal(err)
	}
	if u, err := g.Gateway.cancel(t.Context(), u.ID); err != nil || u.State != StateCancelled || u.Held {
		t.Errorf("cancel: %+v, %v", u, err)
	}
	g.deliverAll()
	if u, err := g.retry(t.Context(), u.ID); err != nil || u.Held {
		t.Errorf("retry: %+v, %v", u, err)
	}
	g.await(u.ID, StateDelivered)
}

// TestCancelKeepsWhatIsFinal: cancelling twice, or too late, forgets nothing.
func TestCancelKeepsWhatIsFinal(t *testing.T) {
	forBoth(t, func(t *testing.T, s *testAPI) {
		u := s.ask(t, "PUT", "/uploads/a", strings.NewReader("1")).upload(t, http.StatusAccepted)
		path := "/uploads/" + u.ID.String()
		for range 3 {
			if u := s.ask(t, "POST", path+"/cancel", nil).upload(t, http.StatusOK); u.State != StateCancelled {
				t.Errorf("it is %s", u.State)
			}
		}
		s.ask(t, "GET", path, nil).upload(t, http.StatusOK)
		s.ask(t, "POST", path+"/hold", nil).problem(t, kindState)
		s.ask(t, "POST", path+"/release", nil).problem(t, kindState)
		none := "/uploads/" + ulid.Make().String()
		for _, action := range []string{"/cancel", "/hold", "/release"} {
			s.ask(t, "POST", none+action, nil).problem(t, kindNotFound)
		}
	})
}

func TestHoldOverHTTP(t *testing.T) {
	forBoth(t, func(t *testing.T, s *testAPI) {
		u := s.ask(t, "PUT", "/uploads/a", strings.NewReader("1")).upload(t, http.StatusAccepted)
		path := "/uploads/" + u.ID.String()
		if u := s.ask(t, "POST", path+"/hold", nil).upload(t, http.StatusOK); !u.Held {
			t.Error("it is not held")
		}
		if u := s.ask(t, "GET", path, nil).upload(t, http.StatusOK); !u.Held {
			t.Error("it is not held later")
		}
		if u := s.ask(t, "POST", path+"/release", nil).upload(t, http.StatusOK); u.Held {
			t.Error("it is held")
		}
	})
}

// bulk wants an answer for each id.
func (s *testAPI) bulk(t *testing.T, action string, ids ...string) (results []bulkResult) {
	t.Helper()
	order, err := json.Marshal(bulkOrder{action, ids})
	if err != nil {
		t.Fatal(err)
	}
	a := s.ask(t, "POST", "/uploads/bulk", bytes.NewReader(order), "Content-Type", "application/json")
	var answer bulkAnswer
	if err := json.Unmarshal(a.body, &answer); err != nil || a.StatusCode != http.StatusOK || len(answer.Results) != len(ids) {
		t.Fatalf("answer %d: %s (%v), want 200 and %d results", a.StatusCode, a.body, err, len(ids))
	}
	for i, r := range answer.Results {
		if r.ID != ids[i] {
			t.Fatalf("result %d is of %s, want %s", i, r.ID, ids[i])
		}
	}
	return answer.Results
}

// TestBulk does each thing with an upload that there is, one for which it is
// nothing to do, and one that there is not.
func TestBulk(t *testing.T) {
	forBoth(t, func(t *testing.T, s *testAPI) {
		queued := s.ask(t, "PUT", "/uploads/a", strings.NewReader("1")).upload(t, http.StatusAccepted).ID.String()
		over := s.ask(t, "PUT", "/uploads/b", strings.NewReader("1")).upload(t, http.StatusAccepted).ID.String()
		s.ask(t, "POST", "/uploads/"+over+"/cancel", nil).upload(t, http.StatusOK)
		none := ulid.Make().String()
		for _, c := range []struct {
			action string
			want   []int
		}{
			{"hold", []int{200, 409, 404, 404}},
			{"release", []int{200, 409, 404, 404}},
			{"cancel", []int{200, 200, 404, 404}},
			{"retry", []int{202, 202, 404, 404}},
			{"cancel", []int{200, 200, 404, 404}},
			{"delete", []int{204, 204, 404, 404}},
			{"delete", []int{404, 404, 404, 404}},
		} {
			var got []int
			for _, r := range s.bulk(t, c.action, queued, over, none, "no id") {
				got = append(got, r.Status)
				if (r.Problem == nil) != (r.Status < 400) || (r.Upload == nil) != (r.Status == 204 || r.Status >= 400) {
					t.Errorf("%s: %+v", c.action, r)
				}
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("%s (-want +got):\n%s", c.action, d)
			}
		}
	})
}

// TestBulkWaitsOnce cancels several that are being delivered, of which nobody knows yet what
// becomes of them: they are waited for hardly longer than one is.
func TestBulkWaitsOnce(t *testing.T) {
	c := openCore(t, t.TempDir(), newRemote())
	s := newTestAPI(t, c.httpAPI())
	var ids []string
	var holds []*gate
	for i := range 3 {
		name := fmt.Sprint(i)
		holds = append(holds, newGate())
		c.remote.expect(name, holds[i].matchedThen(storeMatched))
		ids = append(ids, c.take(name, "x").ID.String())
	}
	c.deliverAll()
	for _, hold := range holds {
		hold.await(t)
	}
	begun := c.now()
	answers := make(chan []bulkResult, 1)
	go func() { answers <- s.bulk(t, "cancel", ids...) }()
	c.time.await(t, begun.Add(cancelWait))
	c.time.advance(cancelWait)
	for range ids[1:] {
		c.time.await(t, c.now().Add(cancelWaitMore))
		c.time.advance(cancelWaitMore)
	}
	for i, r := range soon(t, answers) {
		if r.Status != http.StatusOK || r.Upload.State != StateDelivering {
			t.Errorf("%d: %+v", i, r)
		}
		close(holds[i].open)
		c.await(r.Upload.ID, StateDelivered)
	}
}

func TestBulkRefuses(t *testing.T) {
	s := newFakeAPI(t)
	id := ulid.Make().String()
	many := make([]string, maxBulk+1)
	for i := range many {
		many[i] = fmt.Sprintf("%026d", i)
	}
	for _, body := range []string{
		"", "{}", "[]", `{"action":"cancel"}`, `{"action":"cancel","ids":[]}`, `{"action":"burn","ids":["` + id + `"]}`, `{"action":"cancel","ids":["` + id + `"]} more`,
		`{"action":"cancel","ids":["` + id + `"],"force":true}`, `{"action":"cancel","ids":["` + id + `","` + strings.ToLower(id) + `"]}`,
		`{"action":"cancel","ids":["` + strings.Join(many, `","`) + `"]}`, `{"action":"cancel","ids":["` + strings.Repeat("x", maxBulkBody) + `"]}`,
	} {
		s.ask(t, "POST", "/uploads/bulk", strings.NewReader(body), "Content-Type", "application/json").problem(t, kindBody)
	}
	if got := s.bulk(t, "cancel", many[1:]...); got[0].Status != http.StatusNotFound {
		t.Errorf("%+v", got[0])
	}
}

// TestIfMatch has uploads changed only as long as they are as their ETag has it.
func TestIfMatch(t *testing.T) {
	c := openCore(t, t.TempDir(), newRemote())
	s := newTestAPI(t, c.httpAPI())
	u := c.take("a", "hello")
	tag := func() string { return s.ask(t, "HEAD", u.address(), nil).Header.Get("ETag") }
	old := tag()
	for _, field := range []string{`"other"`, "W/" + old, `"other", W/` + old, "x"} {
		for _, what := range []string{"/cancel", "/retry", "/hold", "/release"} {
			s.ask(t, "POST", u.address()+what, nil, "If-Match", field).problem(t, kindPrecondition)
		}
		s.ask(t, "DELETE", u.address(), nil, "If-Match", field).problem(t, kindPrecondition)
	}
	if now := tag(); now != old {
		t.Errorf("the upload was changed: %s, want %s", now, old)
	}
	s.ask(t, "POST", u.address()+"/hold", nil, "If-Match", old).upload(t, http.StatusOK)
	s.ask(t, "POST", u.address()+"/release", nil, "If-Match", old).problem(t, kindPrecondition)
	s.ask(t, "POST", u.address()+"/release", nil, "If-Match", `"other", `+tag()).upload(t, http.StatusOK)
	s.ask(t, "POST", u.address()+"/cancel", nil, "If-Match", "*").upload(t, http.StatusOK)
	s.ask(t, "POST", u.address()+"/retry", nil, "If-Match", tag()).upload(t, http.StatusAccepted)
	s.ask(t, "DELETE", u.address(), nil, "If-Match", old+", "+tag()).upload(t, http.StatusOK)
	if a := s.ask(t, "DELETE", u.address(), nil, "If-Match", tag()); a.StatusCode != http.StatusNoContent {
		t.Errorf("forget: %d %s, want 204", a.StatusCode, a.body)
	}
	s.ask(t, "DELETE", u.address(), nil, "If-Match", "*").problem(t, kindNotFound)
	other := c.take("c", "hello")
	tag = func() string { return s.ask(t, "HEAD", other.address(), nil).Header.Get("ETag") }
	for _, field := range []string{"*", tag(), `"other", W/` + tag()} {
		s.ask(t, "POST", other.address()+"/hold", nil, "If-None-Match", field).problem(t, kindPrecondition)
	}
	s.ask(t, "POST", other.address()+"/hold", nil, "If-None-Match", `"other"`).upload(t, http.StatusOK)
	s.ask(t, "DELETE", "/uploads/x", nil, "If-Match", "*").problem(t, kindNotFound)
	s.ask(t, "PUT", "/uploads/b", strings.NewReader("x"), "If-Match", "*").problem(t, kindPrecondition)
	s.ask(t, "POST", "/uploads?name=b", strings.NewReader("x"), "If-Match", "*").problem(t, kindPrecondition)
}

// TestIfMatchToTheEnd has an upload change between the look at it and the transaction.
func TestIfMatchToTheEnd(t *testing.T) {
	c := openCore(t, t.TempDir(), newRemote())
	for state, acts := range map[State][]func(context.Context, ulid.ULID) (Upload, error){
		StateQueued:    {c.Gateway.cancel, c.hold, c.release},
		StateCancelled: {c.retry, func(ctx context.Context, id ulid.ULID) (u Upload, err error) { u, _, err = c.remove(ctx, id); return }},
	} {
		u := c.take(string(state), "hello")
		before := context.WithValue(t.Context(), stateKey{}, u.stateTag())
		if state == StateCancelled {
			u = c.cancel(u.ID)
		} else {
			before = context.WithValue(t.Context(), stateKey{}, "of before")
		}
		for i, act := range acts {
			if _, err := act(before, u.ID); !errors.Is(err, errChanged) {
				t.Errorf("%s, %d: %v, want errChanged", state, i, err)
			}
		}
		if now := c.see(u.ID); now.stateTag() != u.stateTag() {
			t.Errorf("it is %s, want still %s", now.State, u.State)
		}
	}
}
