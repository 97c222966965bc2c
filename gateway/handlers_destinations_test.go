package gateway

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// destinations are those that an answer lists.
func (a answer) destinations(t testing.TB) (names []string) {
	t.Helper()
	var list destinationList
	if err := json.Unmarshal(a.body, &list); err != nil || a.StatusCode != http.StatusOK {
		t.Fatalf("answer %d: %s", a.StatusCode, a.body)
	}
	for _, d := range list.Destinations {
		names = append(names, d.Name)
	}
	return names
}

// TestChooseDestination sends files to each of two destinations, of which only the
// second takes folders.
func TestChooseDestination(t *testing.T) {
	s := newTestAPI(t, openCore(t, t.TempDir(), newRemote(), andOther).httpAPI())
	put := func(path string) answer { return s.ask(t, "PUT", "/uploads/"+path, strings.NewReader("x")) }
	first, second := put("f").upload(t, http.StatusAccepted), put("f?destination=other").upload(t, http.StatusAccepted)
	if first.DestinationName != DefaultDestination || second.DestinationName != "other" || second.Destination != "v4://other:1" {
		t.Errorf("sent to %s, and to %s, %s", first.DestinationName, second.DestinationName, second.Destination)
	}
	for path, want := range map[string]Upload{"f": first, "f?destination=default": first, "f?destination=other": second} {
		if again := put(path).upload(t, http.StatusOK); again.ID != want.ID {
			t.Errorf("PUT %s again: %s, want %s", path, again.ID, want.ID)
		}
	}
	put("a/b?destination=other").upload(t, http.StatusAccepted)
	put("a/b").problem(t, kindName)
	s.ask(t, "POST", "/uploads?name=posted&destination=other", strings.NewReader("x")).upload(t, http.StatusAccepted)

	s.form(t, browser(field("destination", "other"), field("name", "c/d"), file("f", "x"))).takenAll(t)
	s.form(t, browser(file("f", "x"), field("destination", "other"))).problem(t, kindForm)
	s.form(t, browser(field("name", "n"), field("destination", "other"), file("f", "x"))).problem(t, kindForm)
	s.form(t, browser(field("destination", "default"), field("destination", "other"), file("f", "x"))).problem(t, kindParameter)
	s.form(t, browser(field("destination", ""), file("f", "x"))).problem(t, kindParameter)

	key := []string{"Idempotency-Key", `"k"`}
	s.form(t, browser(field("destination", "other"), file("keyed", "x")), key...).takenAll(t)
	s.form(t, browser(field("destination", "default"), file("keyed", "x")), key...).problem(t, kindKeyReused)

	put("f?destination=").problem(t, kindParameter)
	put("f?destination=other&destination=other").problem(t, kindParameter)
	if p := put("f?destination=nowhere").problem(t, kindDestination); !strings.Contains(p.Detail, "default, other") {
		t.Errorf("%s: want the names that there are", p.Detail)
	}
	for query, want := range map[string]int{"destination=other": 5, "destination=default": 1, "destination=v4://other:1": 5, "destination=nowhere": 0} {
		if got := s.ask(t, "GET", "/uploads?"+query, nil).uploads(t, http.StatusOK); len(got) != want {
			t.Errorf("%s lists %d uploads, want %d", query, len(got), want)
		}
	}
}

// TestDestinations asks for destinations, pauses and resumes one.
func TestDestinations(t *testing.T) {
	s := newTestAPI(t, openCore(t, t.TempDir(), newRemote(), andOther).httpAPI())
	if got := strings.Join(s.ask(t, "GET", "/destinations", nil).destinations(t), " "); got != "default other" {
		t.Errorf("destinations %s, want default other", got)
	}
	s.ask(t, "PUT", "/uploads/f?destination=other", strings.NewReader("x")).upload(t, http.StatusAccepted)
	for _, c := range []struct {
		method, path string
		state        DestinationState
	}{
		{"GET", "", DestinationReady},
		{"POST", "/pause", DestinationPaused},
		{"GET", "", DestinationPaused},
		{"POST", "/resume", DestinationReady},
	} {
		a := s.ask(t, c.method, "/destinations/other"+c.path, nil)
		var got DestinationStatus
		if err := json.Unmarshal(a.body, &got); err != nil || a.StatusCode != http.StatusOK {
			t.Fatalf("answer %d: %s", a.StatusCode, a.body)
		}
		want := DestinationStatus{
			Name: "other", URL: "v4://other:1", State: c.state, Paused: c.state == DestinationPaused, Queued: 1, Deliveries: 32,
		}
		if got != want {
			t.Errorf("%s %s: %+v, want %+v", c.method, c.path, got, want)
		}
	}
	for _, path := range []string{"GET /destinations/nowhere", "POST /destinations/nowhere/pause", "POST /destinations/nowhere/resume"} {
		method, path, _ := strings.Cut(path, " ")
		s.ask(t, method, path, nil).problem(t, kindNotFound)
	}
}

// TestTokenOfOneDestination: a token for one destination uses it alone, and learns
// nothing of others, whatever its scopes.
func TestTokenOfOneDestination(t *testing.T) {
	s := newGuarded(t, func(cfg *Config) { andOther(cfg, nil) })
	all := s.token(t, "all", ScopeAdmin)
	only := func(name string, scopes ...Scope) string {
		return s.tokenWith(t, TokenOptions{Name: name, Scopes: scopes, Destination: "other"})
	}
	admin, reader, sender := only("admin", ScopeAdmin), only("reader", ScopeRead), only("sender", ScopeUpload)
	hidden := s.as(t, all, "PUT", "/uploads/hidden", "x").upload(t, http.StatusAccepted)
	shown := s.as(t, all, "PUT", "/uploads/shown?destination=other", "x").upload(t, http.StatusAccepted)
	if u := s.as(t, sender, "PUT", "/uploads/own", "x").upload(t, http.StatusAccepted); u.DestinationName != "other" {
		t.Errorf("without a destination it went to %s", u.DestinationName)
	}
	for _, to := range []string{DefaultDestination, "nowhere"} {
		if p := s.as(t, sender, "PUT", "/uploads/own?destination="+to, "x").problem(t, kindDestination); strings.Contains(strings.ReplaceAll(p.Detail, `"`+to+`"`, ""), DefaultDestination) {
			t.Errorf("%s: it tells of others", p.Detail)
		}
	}
	for _, token := range []string{admin, reader} {
		if got := s.as(t, token, "GET", "/uploads", "").uploads(t, http.StatusOK); len(got) != 2 {
			t.Errorf("lists %d uploads, want 2", len(got))
		}
		s.as(t, token, "GET", shown.address(), "").upload(t, http.StatusOK)
		for _, path := range []string{"", "/attempts", "/receipt", "/events", "?wait=1"} {
			s.as(t, token, "GET", hidden.address()+path, "").problem(t, kindNotFound)
		}
	}
	for _, token := range []string{admin, reader, sender} {
		if got := strings.Join(s.as(t, token, "GET", "/destinations", "").destinations(t), " "); got != "other" {
			t.Errorf("destinations %s, want other", got)
		}
		for _, name := range []string{DefaultDestination, "nowhere"} {
			s.as(t, token, "GET", "/destinations/"+name, "").problem(t, kindNotFound)
			want := kindForbidden
			if token == admin {
				want = kindNotFound
			}
			s.as(t, token, "POST", "/destinations/"+name+"/pause", "").problem(t, want)
		}
	}
	for _, action := range []string{"retry", "hold", "release", "cancel"} {
		s.as(t, admin, "POST", hidden.address()+"/"+action, "").problem(t, kindNotFound)
	}
	s.as(t, admin, "DELETE", hidden.address(), "").problem(t, kindNotFound)
	bulk := s.ask(t, "POST", "/uploads/bulk", strings.NewReader(`{"action": "cancel", "ids": ["`+hidden.ID.String()+`", "`+shown.ID.String()+`"]}`), "Authorization", admin, "Content-Type", "application/json")
	if !strings.Contains(string(bulk.body), `"status":404`) || !strings.Contains(string(bulk.body), `"status":200`) {
		t.Errorf("bulk: %s", bulk.body)
	}
	s.as(t, admin, "POST", "/destinations/other/pause", "")
	if u := s.as(t, all, "GET", hidden.address(), "").upload(t, http.StatusOK); u.State != StateQueued || u.Blocked != nil {
		t.Errorf("what it must not reach is %s, blocked %v", u.State, u.Blocked)
	}
}

// TestOwnBeforeTheLimit: what was sent under the token's name is not seen with a
// later token that is for another destination.
func TestOwnBeforeTheLimit(t *testing.T) {
	s := newGuarded(t, func(cfg *Config) { andOther(cfg, nil) })
	before := s.token(t, "ci", ScopeUpload)
	u := s.as(t, before, "PUT", "/uploads/f", "x").upload(t, http.StatusAccepted)
	if err := RevokeToken(t.Context(), s.data, "ci"); err != nil {
		t.Fatal(err)
	}
	after := s.tokenWith(t, TokenOptions{Name: "ci", Scopes: []Scope{ScopeUpload}, Destination: "other"})
	s.as(t, after, "GET", u.address(), "").problem(t, kindNotFound)
	s.as(t, after, "DELETE", u.address(), "").problem(t, kindNotFound)
	if got := s.as(t, after, "GET", "/uploads", "").uploads(t, http.StatusOK); len(got) != 0 {
		t.Errorf("lists %d uploads, want none", len(got))
	}
}

// TestEventsOfOneDestination: a token for one destination hears of that one alone, also
// of what was forgotten.
func TestEventsOfOneDestination(t *testing.T) {
	g := openCore(t, t.TempDir(), newRemote(), andOther)
	only := context.WithValue(t.Context(), callerKey{}, &caller{TokenInfo: TokenInfo{Name: "x", Scopes: []Scope{ScopeRead}, Destination: "other"}})
	g.takeFor("", "hidden", "x")
	shown := g.takeFor("other", "shown", "x")
	forgotten := g.takeFor("", "forgotten", "x")
	for range 2 {
		if _, _, err := g.remove(t.Context(), forgotten.ID); err != nil {
			t.Fatal(err)
		}
	}
	heard, _, err := g.changedAfter(only, 0, 10)
	if err != nil || len(heard) != 1 || heard[0].id != shown.ID {
		t.Errorf("heard %+v, %v; want %s alone", heard, err, shown.ID)
	}
	if all, _, err := g.changedAfter(t.Context(), 0, 10); err != nil || len(all) != 3 {
		t.Errorf("%d changes in all, %v; want 3", len(all), err)
	}
}
