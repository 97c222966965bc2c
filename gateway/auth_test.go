package gateway

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ferry/proto"
)

// A guarded gateway answers HTTP, delivers nothing, and looks after its tokens.
type guarded struct {
	*testAPI
	data string
}

func newGuarded(t *testing.T, changes ...func(*Config)) *guarded {
	t.Helper()
	name, err := proto.ParseClientName("test")
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Data: t.TempDir(), Destinations: to(t, "v3://127.0.0.1:1"), Name: name}
	for _, change := range changes {
		change(&cfg)
	}
	g, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var watching sync.WaitGroup
	watching.Go(func() { g.door.watch(ctx) })
	s := newTestAPI(t, g.httpAPI())
	if cfg.Front.BasePath != "" { // the description that answers are checked against is that of the top
		srv := httptest.NewServer(g.Handler())
		t.Cleanup(srv.Close)
		s.url = srv.URL
	}
	t.Cleanup(func() {
		stop()
		watching.Wait()
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return &guarded{s, cfg.Data}
}

// token makes a token and returns the header field that shows it.
func (s *guarded) token(t testing.TB, name string, scopes ...Scope) string {
	t.Helper()
	return s.tokenWith(t, TokenOptions{Name: name, Scopes: scopes})
}

func (s *guarded) tokenWith(t testing.TB, o TokenOptions) string {
	t.Helper()
	token, err := CreateToken(t.Context(), s.data, o)
	if err != nil {
		t.Fatal(err)
	}
	s.awaitClosed(t)
	return "Bearer " + token
}

// awaitClosed waits until the gateway has noticed that there are tokens.
func (s *guarded) awaitClosed(t testing.TB) {
	t.Helper()
	for deadline := time.Now().Add(patience); !s.api.door.isClosed(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the gateway has not noticed its first token")
		}
	}
}

func (s *guarded) as(t testing.TB, token, method, path, body string) answer {
	t.Helper()
	return s.ask(t, method, path, strings.NewReader(body), "Authorization", token)
}

func TestOpenUntilTheFirstToken(t *testing.T) {
	s := newGuarded(t)
	s.ask(t, "POST", "/uploads?name=before", strings.NewReader("x")).upload(t, http.StatusAccepted)
	token := s.token(t, "ci", ScopeAdmin)
	a := s.ask(t, "GET", "/uploads", nil)
	a.problem(t, kindUnauthorized)
	if got, want := a.Header.Get("WWW-Authenticate"), `Bearer realm="ferry"`; got != want {
		t.Errorf("WWW-Authenticate %q, want %q", got, want)
	}
	if got := s.as(t, token, "GET", "/uploads", "").uploads(t, http.StatusOK); len(got) != 1 {
		t.Errorf("admin sees %d uploads, want 1", len(got))
	}
	// It is not open again when the last one goes.
	if err := RevokeToken(t.Context(), s.data, "ci"); err != nil {
		t.Fatal(err)
	}
	s.ask(t, "GET", "/uploads", nil).problem(t, kindUnauthorized)
	s.as(t, token, "GET", "/uploads", "").problem(t, kindUnauthorized)
}

func TestBadBearers(t *testing.T) {
	s := newGuarded(t)
	good := s.token(t, "ci", ScopeAdmin)
	secret := strings.TrimPrefix(good, "Bearer ")
	for _, fields := range [][]string{
		{"Bearer"}, {"Bearer "}, {secret}, {"Basic " + secret}, {"Bearer " + secret + "x"}, {"Bearer " + secret[:len(secret)-1]},
		{"Bearer " + strings.ToUpper(secret)}, {"Bearer " + strings.Repeat("x", 1<<10)}, {good, good}, {""},
	} {
		var header []string
		for _, f := range fields {
			header = append(header, "Authorization", f)
		}
		for _, path := range []string{"/uploads", "/uploads/01KKPXQ7M7C1WB0K8VQ0N4Y6TJ", "/nowhere"} {
			a := s.ask(t, "GET", path, nil, header...)
			a.problem(t, kindUnauthorized)
			if got, want := a.Header.Get("WWW-Authenticate"), `Bearer realm="ferry", error="invalid_token"`; got != want {
				t.Errorf("%q: WWW-Authenticate %q, want %q", fields, got, want)
			}
		}
	}
	for _, header := range []string{good, "bearer " + secret, "BEARER  " + secret} {
		s.ask(t, "GET", "/uploads", nil, "Authorization", header).uploads(t, http.StatusOK)
	}
	for _, path := range []string{"/", "/healthz", "/readyz", "/openapi.yaml", "/docs", "/docs/docs.js", "/app.js", "/problems", "/problems/unauthorized"} {
		if a := s.ask(t, "GET", path, nil); a.StatusCode != http.StatusOK {
			t.Errorf("%s without a token: %d, want 200", path, a.StatusCode)
		}
	}
	if log := s.log.String(); strings.Contains(log, secret) {
		t.Error("the log has a token")
	}
}

// TestFirstTokenAtOnce uses the first token before the gateway has looked for it:
// what is sent with it is its own.
func TestFirstTokenAtOnce(t *testing.T) {
	s := newGuarded(t)
	token, err := CreateToken(t.Context(), s.data, TokenOptions{Name: "ci", Scopes: []Scope{ScopeUpload}})
	if err != nil {
		t.Fatal(err)
	}
	u := s.as(t, "Bearer "+token, "PUT", "/uploads/a", "x").upload(t, http.StatusAccepted)
	s.awaitClosed(t)
	s.as(t, "Bearer "+token, "GET", "/uploads/"+u.ID.String(), "").upload(t, http.StatusOK)
}

func TestScopes(t *testing.T) {
	s := newGuarded(t)
	tokens := map[Scope]string{
		ScopeUpload: s.token(t, "upload", ScopeUpload), ScopeRead: s.token(t, "read", ScopeRead), ScopeAdmin: s.token(t, "admin", ScopeAdmin),
	}
	otherUpload := s.as(t, tokens[ScopeAdmin], "POST", "/uploads?name=other", "x").upload(t, http.StatusAccepted)
	ownUpload := s.as(t, tokens[ScopeUpload], "POST", "/uploads?name=own", "x").upload(t, http.StatusAccepted)
	other, own := otherUpload.address(), ownUpload.address()
	const none = "/uploads/01KKPXQ7M7C1WB0K8VQ0N4Y6TJ"
	for _, c := range []struct {
		method, path string
		scope        Scope
		want         int
	}{
		{"GET", own, ScopeUpload, 200}, {"GET", own, ScopeRead, 200}, {"GET", own, ScopeAdmin, 200},
		{"GET", other, ScopeUpload, 404}, {"GET", other, ScopeRead, 200}, {"GET", other, ScopeAdmin, 200},
		{"GET", none, ScopeUpload, 404}, {"GET", none, ScopeRead, 404},
		{"GET", own + "/attempts", ScopeUpload, 200}, {"GET", other + "/attempts", ScopeUpload, 404}, {"GET", other + "/attempts", ScopeRead, 200},
		{"GET", own + "/receipt", ScopeUpload, 404}, {"GET", other + "/receipt", ScopeUpload, 404},
		{"GET", "/uploads", ScopeRead, 200}, {"GET", "/nowhere", ScopeUpload, 403}, {"GET", "/nowhere", ScopeRead, 404},
		{"POST", "/uploads?name=more", ScopeRead, 403}, {"POST", own + "/retry", ScopeUpload, 403}, {"POST", none + "/retry", ScopeUpload, 403},
		{"POST", other + "/retry", ScopeRead, 403}, {"POST", none + "/retry", ScopeRead, 403}, {"POST", other + "/retry", ScopeAdmin, 409},
		{"DELETE", other, ScopeUpload, 404}, {"DELETE", none, ScopeUpload, 404}, {"DELETE", other, ScopeRead, 403}, {"DELETE", none, ScopeRead, 403},
		{"DELETE", own, ScopeUpload, 200}, // cancelled
		{"POST", own + "/cancel", ScopeUpload, 200}, {"POST", other + "/cancel", ScopeUpload, 404}, {"POST", none + "/cancel", ScopeUpload, 404},
		{"POST", own + "/hold", ScopeUpload, 403}, {"POST", "/uploads/bulk", ScopeUpload, 403}, {"POST", other + "/hold", ScopeRead, 403},
		{"DELETE", own, ScopeUpload, 403}, // to forget it needs more
		{"GET", own, ScopeUpload, 200},
		{"DELETE", own, ScopeAdmin, 204}, {"GET", own, ScopeUpload, 404},
	} {
		a := s.as(t, tokens[c.scope], c.method, c.path, "")
		if a.StatusCode != c.want {
			t.Errorf("%s %s with %s: %d, want %d: %s", c.method, c.path, c.scope, a.StatusCode, c.want, a.body)
		}
		if got := a.Header.Get("WWW-Authenticate"); (got != "") != (a.StatusCode == http.StatusForbidden) {
			t.Errorf("%s %s with %s: WWW-Authenticate %q", c.method, c.path, c.scope, got)
		}
	}
	for scope, want := range map[Scope]int{ScopeUpload: 0, ScopeRead: 1, ScopeAdmin: 1} {
		if got := s.as(t, tokens[scope], "GET", "/uploads", "").uploads(t, http.StatusOK); len(got) != want {
			t.Errorf("%s sees %d uploads, want %d", scope, len(got), want)
		}
	}
	mine := s.as(t, tokens[ScopeUpload], "POST", "/uploads?name=mine", "x").upload(t, http.StatusAccepted)
	for _, query := range []string{"", "?state=queued", "?sha256=" + *mine.SHA256, "?destination=" + mine.Destination} {
		if got := s.as(t, tokens[ScopeUpload], "GET", "/uploads"+query, "").uploads(t, http.StatusOK); len(got) != 1 || got[0].ID != mine.ID {
			t.Errorf("GET /uploads%s shows %v, want its own upload alone", query, got)
		}
	}
	// What another sent is refused in the same words as what there is not.
	for _, c := range [][2]string{{"GET", ""}, {"GET", "/attempts"}, {"DELETE", ""}, {"POST", "/cancel"}} {
		method := c[0]
		strange := s.as(t, tokens[ScopeUpload], method, other+c[1], "").problem(t, kindNotFound)
		missing := s.as(t, tokens[ScopeUpload], method, none+c[1], "").problem(t, kindNotFound)
		strange.RequestID, missing.RequestID = "", ""
		if d := cmp.Diff(missing, strange); d != "" {
			t.Errorf("%s: what is another's is refused otherwise (-missing +another's):\n%s", method, d)
		}
	}
}

func TestTokenOfTheSameNameOwns(t *testing.T) {
	s := newGuarded(t)
	u := s.as(t, s.token(t, "ci", ScopeUpload), "POST", "/uploads?name=a", "x").upload(t, http.StatusAccepted)
	if _, err := CreateToken(t.Context(), s.data, TokenOptions{Name: "ci", Scopes: []Scope{ScopeRead}}); !errors.Is(err, ErrTokenTaken) {
		t.Errorf("a second token of one name: %v, want ErrTokenTaken", err)
	}
	if err := RevokeToken(t.Context(), s.data, "ci"); err != nil {
		t.Fatal(err)
	}
	s.as(t, s.token(t, "ci", ScopeUpload), "GET", u.address(), "").upload(t, http.StatusOK)
}

func TestTokenSize(t *testing.T) {
	s := newGuarded(t)
	token := s.tokenWith(t, TokenOptions{Name: "small", Scopes: []Scope{ScopeUpload}, MaxSize: 100})
	s.as(t, token, "POST", "/uploads?name=a", strings.Repeat("x", 100)).upload(t, http.StatusAccepted)
	if p := s.as(t, token, "POST", "/uploads?name=b", strings.Repeat("x", 101)).problem(t, kindTooLarge); p.Limit != 100 {
		t.Errorf("limit %d, want 100", p.Limit)
	}
	chunked := io.MultiReader(strings.NewReader(strings.Repeat("x", 101))) // of no length that is known
	s.ask(t, "POST", "/uploads?name=c", chunked, "Authorization", token).problem(t, kindTooLarge)
	if got := s.as(t, s.token(t, "all", ScopeRead), "GET", "/uploads", "").uploads(t, http.StatusOK); len(got) != 1 {
		t.Errorf("kept %d uploads, want 1", len(got))
	}
}

// TestTokenEndsInTheMiddle has tokens end while a body comes in.
func TestTokenEndsInTheMiddle(t *testing.T) {
	for name, c := range map[string]struct {
		expires time.Duration
		end     func(t *testing.T, s *guarded)
	}{
		"revoked": {0, func(t *testing.T, s *guarded) {
			if err := RevokeToken(t.Context(), s.data, "ci"); err != nil {
				t.Fatal(err)
			}
		}},
		"expired": {time.Second, func(*testing.T, *guarded) {}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newGuarded(t)
			reader, stranger := s.token(t, "reader", ScopeRead), s.token(t, "stranger", ScopeUpload)
			token := s.tokenWith(t, TokenOptions{Name: "ci", Scopes: []Scope{ScopeUpload}, Expires: c.expires})
			conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, "POST /uploads?name=a HTTP/1.1\r\nHost: localhost\r\nAuthorization: "+token+"\r\nContent-Length: 1000000\r\n\r\n"+strings.Repeat("x", 1000)); err != nil {
				t.Fatal(err)
			}
			var coming []Upload
			for len(coming) == 0 {
				coming = s.as(t, reader, "GET", "/uploads", "").uploads(t, http.StatusOK)
			}
			s.as(t, token, "GET", coming[0].address(), "").upload(t, http.StatusOK)
			s.as(t, stranger, "GET", coming[0].address(), "").problem(t, kindNotFound)
			s.as(t, stranger, "DELETE", coming[0].address(), "").problem(t, kindNotFound)
			c.end(t, s)
			ended := time.Now()
			if err := conn.SetReadDeadline(ended.Add(patience)); err != nil {
				t.Fatal(err)
			}
			answer, err := io.ReadAll(conn)
			if !strings.HasPrefix(string(answer), "HTTP/1.1 401 ") || !strings.Contains(string(answer), "while the request was under way") {
				t.Errorf("answered %q (%v), want 401", answer, err)
			}
			if took := time.Since(ended) - c.expires; took > time.Second+leaveTimeout {
				t.Errorf("it took %v, want a second at most", took)
			}
			if got := s.as(t, reader, "GET", "/uploads", "").uploads(t, http.StatusOK); len(got) > 0 {
				t.Errorf("kept %d uploads, want none", len(got))
			}
		})
	}
}

// TestTokenEndsWhileFollowing has a token end while events are followed with it, and
// uses the connection that they came over again.
func TestTokenEndsWhileFollowing(t *testing.T) {
	t.Parallel()
	s := newGuarded(t)
	token, other := s.token(t, "ci", ScopeRead), s.token(t, "other", ScopeRead)
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(conn)
	begin := func(path, token string) *http.Response {
		t.Helper()
		if _, err := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\nAuthorization: "+token+"\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		answer, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	end := func(answer *http.Response) string {
		t.Helper()
		body, err := io.ReadAll(answer.Body)
		if err := errors.Join(err, answer.Body.Close()); err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	events := begin("/events", token) //nolint:bodyclose // end closes it
	if events.StatusCode != http.StatusOK {
		t.Fatalf("events: %d %s", events.StatusCode, end(events))
	}
	if err := RevokeToken(t.Context(), s.data, "ci"); err != nil {
		t.Fatal(err)
	}
	end(events)
	for _, c := range []struct {
		token string
		want  int
	}{{token, http.StatusUnauthorized}, {other, http.StatusOK}} {
		answer := begin("/uploads", c.token) //nolint:bodyclose // end closes it
		if body := end(answer); answer.StatusCode != c.want {
			t.Errorf("the list after the end of the events: %d %s, want %d", answer.StatusCode, body, c.want)
		}
	}
}

func TestTokenList(t *testing.T) {
	s := newGuarded(t)
	s.tokenWith(t, TokenOptions{Name: "b", Scopes: []Scope{ScopeAdmin, ScopeUpload}, MaxSize: 7, Expires: time.Hour})
	s.token(t, "a", ScopeRead)
	s.token(t, "gone", ScopeRead)
	s.tokenWith(t, TokenOptions{Name: "late", Scopes: []Scope{ScopeRead}, Expires: time.Microsecond})
	if err := RevokeToken(t.Context(), s.data, "gone"); err != nil {
		t.Fatal(err)
	}
	if err := RevokeToken(t.Context(), s.data, "gone"); !errors.Is(err, ErrNoToken) {
		t.Errorf("revoked twice: %v, want ErrNoToken", err)
	}
	var got []TokenInfo
	for token, err := range Tokens(t.Context(), s.data) {
		if err != nil {
			t.Fatal(err)
		}
		if token.CreatedAt.IsZero() || (token.Name == "b") != (token.ExpiresAt.Sub(token.CreatedAt) == time.Hour) {
			t.Errorf("%s: made at %v, expires at %v", token.Name, token.CreatedAt, token.ExpiresAt)
		}
		token.CreatedAt, token.ExpiresAt = time.Time{}, time.Time{}
		got = append(got, token)
	}
	want := []TokenInfo{{Name: "a", Scopes: []Scope{ScopeRead}}, {Name: "b", Scopes: []Scope{ScopeUpload, ScopeAdmin}, MaxSize: 7}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("the list (-want +got):\n%s", d)
	}
	s.token(t, "late", ScopeRead) // its name is free again
	for _, name := range []string{"", " a", "a ", "a\nb", "\x80", strings.Repeat("x", 65)} {
		if _, err := CreateToken(t.Context(), s.data, TokenOptions{Name: name, Scopes: []Scope{ScopeRead}}); !errors.Is(err, ErrTokenName) {
			t.Errorf("name %q: %v, want ErrTokenName", name, err)
		}
	}
	for _, err := range Tokens(t.Context(), t.TempDir()) {
		if !errors.Is(err, ErrNoGateway) {
			t.Errorf("tokens of an empty folder: %v, want ErrNoGateway", err)
		}
	}
}

func TestParseScopes(t *testing.T) {
	for text, want := range map[string][]Scope{
		"upload": {ScopeUpload}, "read, upload": {ScopeRead, ScopeUpload}, "admin,admin": {ScopeAdmin}, "": nil, "all": nil, "read,": nil, "Read": nil,
	} {
		if got, err := ParseScopes(text); !slices.Equal(got, want) || (err == nil) != (want != nil) {
			t.Errorf("ParseScopes(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
}

// Who may only send learns nothing of what others have sent: not from a digest
// that is claimed, and not from a name that is taken.
func TestRerunsOfOthers(t *testing.T) {
	s := newGuarded(t)
	alice, bob, reader := s.token(t, "alice", ScopeUpload), s.token(t, "bob", ScopeUpload), s.token(t, "reader", ScopeUpload, ScopeRead)
	first := s.as(t, alice, "PUT", "/uploads/name", "content").upload(t, http.StatusAccepted)
	if again := s.as(t, alice, "PUT", "/uploads/name", "content").upload(t, http.StatusOK); again.ID != first.ID {
		t.Errorf("her own again: %v, want %v", again.ID, first.ID)
	}
	if again := s.as(t, reader, "PUT", "/uploads/name", "content").upload(t, http.StatusOK); again.ID != first.ID {
		t.Errorf("by who sees all: %v, want %v", again.ID, first.ID)
	}
	digest := sum([]byte("content"))
	a := s.ask(t, "PUT", "/uploads/name", strings.NewReader("not it"), "Authorization", bob, "X-Checksum-Sha256", digest, "Expect", "100-continue")
	a.problem(t, kindMismatch)
	for _, secret := range []string{first.ID.String(), digest} {
		a := s.as(t, bob, "PUT", "/uploads/name", "other")
		a.problem(t, kindConflict)
		if strings.Contains(string(a.body), secret) {
			t.Errorf("the conflict tells %s", secret)
		}
	}
	own := s.as(t, bob, "PUT", "/uploads/name", "content").upload(t, http.StatusAccepted)
	if own.ID == first.ID {
		t.Error("another sender's upload is the answer")
	}
	if again := s.as(t, bob, "PUT", "/uploads/name", "content").upload(t, http.StatusOK); again.ID != own.ID {
		t.Errorf("his own again: %v, want %v", again.ID, own.ID)
	}
}
