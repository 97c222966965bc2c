package gateway

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// An answer is what a request got.
type answer struct {
	*http.Response
	body []byte
}

// ask sends a request; header are names and values in turn. A Host is taken
// from there.
func (s *testAPI) ask(t testing.TB, method, path string, body io.Reader, header ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.url+path, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
		req.Header.Add(header[i], header[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return answer{res, got}
}

// upload wants a single upload.
func (a answer) upload(t testing.TB, status int) Upload {
	t.Helper()
	var u Upload
	if err := json.Unmarshal(a.body, &u); err != nil || a.StatusCode != status {
		t.Fatalf("answer %d: %s (%v), want %d and an upload", a.StatusCode, a.body, err, status)
	}
	return u
}

// taken wants a single upload that was made, or was there already.
func (a answer) taken(t testing.TB) Upload {
	t.Helper()
	return a.upload(t, a.takenStatus())
}

// takenAll is the same of a list.
func (a answer) takenAll(t testing.TB) []Upload {
	t.Helper()
	return a.uploads(t, a.takenStatus())
}

func (a answer) takenStatus() int {
	if a.StatusCode == http.StatusOK {
		return http.StatusOK
	}
	return http.StatusAccepted
}

// uploads wants a list of uploads.
func (a answer) uploads(t testing.TB, status int) []Upload {
	t.Helper()
	var l uploadList
	if err := json.Unmarshal(a.body, &l); err != nil || a.StatusCode != status {
		t.Fatalf("answer %d: %s (%v), want %d and a list", a.StatusCode, a.body, err, status)
	}
	return l.Uploads
}

// problem wants a problem of a kind.
func (a answer) problem(t testing.TB, k problemKind) problem {
	t.Helper()
	var p problem
	if err := json.Unmarshal(a.body, &p); err != nil {
		t.Fatalf("answer %d: %s: %v, want a problem", a.StatusCode, a.body, err)
	}
	want := problem{Type: "/problems/" + k.name, Title: k.title, Status: k.status, Retryable: k.retryable(), RequestID: a.Header.Get("X-Request-Id")}
	got := p
	got.Detail, got.Size, got.Limit, got.Upload, got.SHA256, got.ExistingSHA256 = "", 0, 0, "", "", ""
	if d := cmp.Diff(want, got); d != "" || a.StatusCode != k.status || p.Detail == "" {
		t.Fatalf("answer %d: %s, want another problem (-want +got):\n%s", a.StatusCode, a.body, d)
	}
	return p
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// goodNames must arrive as they are, in every way of sending them.
var goodNames = []string{
	"a", "app.tar.gz", "grüße aus 東京 🚢.txt", "  blanks  around  ", `quote " percent %41 plus + & = ;.txt`,
	"%", "100%.txt", "%2", "a%zz", "'", "a;b", "a,b", "=", "~", "#", "?", "..a", "a..", "-", ".hidden", "\u00a0", "\ufeffbom", "e\u0301", "\u202egpj.exe",
	strings.Repeat("n", 255), strings.Repeat("é", 127) + "n",
}

// badNames cannot be stored, by a word of the reason.
var badNames = map[string]string{
	"":                       "empty",
	".":                      "folder",
	"..":                     "folder",
	"a/b":                    "slash",
	"/etc/passwd":            "slash",
	`a\b`:                    "slash",
	"a\x00b":                 "control",
	"a\nb":                   "control",
	"a\x7fb":                 "control",
	"\xff":                   "UTF-8",
	strings.Repeat("n", 256): "256 bytes",
}

func TestRawNames(t *testing.T) {
	forBoth(t, func(t *testing.T, s *testAPI) {
		body := []byte("hello")
		extended := func(name string) string {
			return "attachment; filename=\"other\"; filename*=UTF-8''" + strings.ReplaceAll(url.QueryEscape(name), "+", "%20")
		}
		quoted := func(name string) string {
			return `attachment; filename="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name) + `"`
		}
		for _, name := range goodNames {
			for way, a := range map[string]answer{
				"query":     s.ask(t, "POST", "/uploads?name="+url.QueryEscape(name), bytes.NewReader(body), "Content-Disposition", "attachment; filename=other"),
				"filename":  s.ask(t, "POST", "/uploads", bytes.NewReader(body), "Content-Disposition", quoted(name)),
				"filename*": s.ask(t, "POST", "/uploads", bytes.NewReader(body), "Content-Disposition", extended(name)),
			} {
				u := a.taken(t)
				if u.Name != name || *u.SHA256 != sum(body) || *u.Size != 5 {
					t.Errorf("%s: got %q, want %q", way, u.Name, name)
				}
				if got, want := a.Header.Get("Location"), "/uploads/"+u.ID.String(); got != want {
					t.Errorf("Location is %q, want %q", got, want)
				}
			}
		}
		for name, reason := range badNames {
			answers := []answer{
				s.ask(t, "POST", "/uploads?name="+url.QueryEscape(name), bytes.NewReader(body)),
				s.ask(t, "POST", "/uploads", bytes.NewReader(body), "Content-Disposition", extended(name)),
			}
			if !strings.ContainsAny(name, "\x00\n\x7f") { // net/http sends no such header
				answers = append(answers, s.ask(t, "POST", "/uploads", bytes.NewReader(body), "Content-Disposition", quoted(name)))
			}
			for _, a := range answers {
				if p := a.problem(t, kindName); !strings.Contains(p.Detail, reason) {
					t.Errorf("name %q: detail %q, want one with %q", name, p.Detail, reason)
				}
			}
		}
	})
}

func TestRawWithoutUsableName(t *testing.T) {
	s := newFakeAPI(t)
	for _, c := range []struct {
		path   string
		header []string
		kind   problemKind
		says   string
	}{
		{"/uploads", nil, kindName, "?name=app.tar.gz"},
		{"/uploads", []string{"Content-Disposition", "attachment"}, kindName, "?name=app.tar.gz"},
		{"/uploads", []string{"Content-Disposition", "attachment; filename=two words"}, kindName, "cannot be read"},
		{"/uploads?name=a&name=b", nil, kindName, "more than one"},
		{"/uploads?name=100%.txt", nil, kindParameter, "%25"},
		{"/uploads?name=a;b", nil, kindParameter, "%3B"},
	} {
		a := s.ask(t, "POST", c.path, strings.NewReader("x"), c.header...)
		if p := a.problem(t, c.kind); !strings.Contains(p.Detail, c.says) {
			t.Errorf("%s %q: detail %q, want one with %q", c.path, c.header, p.Detail, c.says)
		}
	}
	if got := s.names(); len(got) > 0 {
		t.Errorf("kept %q, want nothing", got)
	}
}

func TestBodies(t *testing.T) {
	forBoth(t, func(t *testing.T, s *testAPI) {
		for _, size := range []int{0, 1, 4096, 64<<10 - 1, 64 << 10, 64<<10 + 1, 1 << 20} {
			body := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
			for way, r := range map[string]io.Reader{
				"length": bytes.NewReader(body),
				"chunks": io.MultiReader(bytes.NewReader(body)), // of a type that tells no length
			} {
				u := s.ask(t, "POST", fmt.Sprintf("/uploads?name=%s-%d", way, size), r, "Content-Type", "application/x-www-form-urlencoded").upload(t, http.StatusAccepted)
				if *u.Size != int64(size) || *u.SHA256 != sum(body) {
					t.Errorf("%d bytes, %s: got %d bytes, %s", size, way, *u.Size, *u.SHA256)
				}
			}
		}
	})
}

func TestBodiesThatAreNotTaken(t *testing.T) {
	s := newFakeAPI(t)
	for _, c := range []struct {
		header []string
		kind   problemKind
	}{
		{[]string{"Content-Encoding", "gzip"}, kindEncoding},
		{[]string{"Content-Type", "multipart/mixed; boundary=x"}, kindEncoding},
		{[]string{"Content-Type", "multipart/form-data"}, kindForm},
		{[]string{"Content-Type", `multipart/form-data; boundary="`}, kindForm},
		{[]string{"Content-Type", "multipart/form-data; boundary=" + strings.Repeat("x", 71)}, kindForm},
	} {
		s.ask(t, "POST", "/uploads?name=x", strings.NewReader("x"), c.header...).problem(t, c.kind)
	}
	s.ask(t, "POST", "/uploads?name=x", strings.NewReader("x"), "Content-Encoding", "identity").upload(t, http.StatusAccepted)
	if got, want := s.names(), []string{"x"}; !slices.Equal(got, want) {
		t.Errorf("kept %q, want %q", got, want)
	}
}

func TestListPages(t *testing.T) {
	forBoth(t, func(t *testing.T, s *testAPI) {
		if got := s.ask(t, "GET", "/uploads", nil); string(got.body) != "{\"uploads\":[]}\n" || got.Header.Get("Link") != "" {
			t.Errorf("without uploads: %q, Link %q", got.body, got.Header.Get("Link"))
		}
		var want []string
		for i := range 7 {
			u := s.ask(t, "POST", fmt.Sprintf("/uploads?name=%d", i), strings.NewReader("x")).upload(t, http.StatusAccepted)
			want = append(want, u.ID.String())
		}
		slices.Reverse(want)
		for _, limit := range []int{1, 3, 7, 8, 500} {
			var got []string
			pages := 0
			for path := fmt.Sprintf("/uploads?limit=%d", limit); path != ""; pages++ {
				a := s.ask(t, "GET", path, nil)
				for _, u := range a.uploads(t, http.StatusOK) {
					got = append(got, u.ID.String())
				}
				path = ""
				if link := a.Header.Get("Link"); link != "" {
					rest, ok := strings.CutSuffix(link, `>; rel="next"`)
					if !ok || rest[0] != '<' {
						t.Fatalf("Link is %q", link)
					}
					path = rest[1:]
				}
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("in pages of %d (-want +got):\n%s", limit, d)
			}
			if most := (len(want) + limit - 1) / limit; pages != most {
				t.Errorf("%d pages of %d, want %d", pages, limit, most)
			}
		}
	})
}

func TestListParameters(t *testing.T) {
	s := newFakeAPI(t)
	for _, q := range []string{"limit=0", "limit=501", "limit=-1", "limit=x", "limit=", "limit=1e2", "before=x", "before=", "before=8ZZZZZZZZZZZZZZZZZZZZZZZZZ", "limit=%zz"} {
		s.ask(t, "GET", "/uploads?"+q, nil).problem(t, kindParameter)
	}
	for _, q := range []string{"limit=1", "limit=500", "before=01KKPXQ7M7C1WB0K8VQ0N4Y6TJ"} {
		s.ask(t, "GET", "/uploads?"+q, nil).uploads(t, http.StatusOK)
	}
}

func TestOneUpload(t *testing.T) {
	forBoth(t, func(t *testing.T, s *testAPI) {
		u := s.ask(t, "POST", "/uploads?name=a", strings.NewReader("x")).upload(t, http.StatusAccepted)
		path := "/uploads/" + u.ID.String()
		if got := s.ask(t, "GET", path, nil).upload(t, http.StatusOK); got.Name != "a" || got.State != StateQueued {
			t.Errorf("got %+v", got)
		}
		s.ask(t, "POST", path+"/retry", nil).problem(t, kindState)
		if got := s.ask(t, "DELETE", path, nil).upload(t, http.StatusOK); got.State != StateCancelled {
			t.Errorf("after DELETE: %s, want cancelled", got.State)
		}
		if got := s.ask(t, "POST", path+"/retry", nil).upload(t, http.StatusAccepted); got.State != StateQueued {
			t.Errorf("after retry: %s, want queued", got.State)
		}
		s.ask(t, "DELETE", path, nil).upload(t, http.StatusOK)
		if a := s.ask(t, "DELETE", path, nil); a.StatusCode != http.StatusNoContent || len(a.body) > 0 {
			t.Errorf("second DELETE: %d %q, want 204 and nothing", a.StatusCode, a.body)
		}
		for _, path := range []string{path, "/uploads/01KKPXQ7M7C1WB0K8VQ0N4Y6TJ", "/uploads/x", "/uploads/..%2f..", "/uploads/%00"} {
			s.ask(t, "GET", path, nil).problem(t, kindNotFound)
			s.ask(t, "DELETE", path, nil).problem(t, kindNotFound)
			s.ask(t, "POST", path+"/retry", nil).problem(t, kindNotFound)
		}
	})
}

func TestUnknownAddresses(t *testing.T) {
	s := newFakeAPI(t)
	for _, path := range []string{"/x", "//uploads", "/index.html", "/static/index.html", "/../go.mod", "/.git/config"} {
		s.ask(t, "GET", path, nil).problem(t, kindNotFound)
	}
	for path, allow := range map[string]string{
		"/": "GET, HEAD", "/uploads": "GET, HEAD, POST", "/uploads/x": "GET, HEAD, PUT, DELETE", "/uploads/x/retry": "PUT, POST", "/uploads/": "PUT, POST", "/uploads/x/y": "PUT",
		"/healthz": "GET, HEAD",
	} {
		allow += ", OPTIONS"
		if a := s.ask(t, "OPTIONS", path, nil); a.StatusCode != http.StatusNoContent || a.Header.Get("Allow") != allow {
			t.Errorf("OPTIONS %s: %d, Allow is %q, want 204 and %q", path, a.StatusCode, a.Header.Get("Allow"), allow)
		}
		for _, method := range []string{"PUT", "PATCH", "TRACE", "GARBAGE"} {
			if method == http.MethodPut && strings.HasPrefix(path, uploadsPath) {
				continue
			}
			a := s.ask(t, method, path, nil)
			a.problem(t, kindMethod)
			if got := a.Header.Get("Allow"); got != allow {
				t.Errorf("%s %s: Allow is %q, want %q", method, path, got, allow)
			}
		}
	}
	s.ask(t, "GET", "/uploads/x/retry", nil).problem(t, kindMethod)
	s.ask(t, "OPTIONS", "/x", nil).problem(t, kindNotFound)
	s.ask(t, "OPTIONS", "/uploads", nil, "Origin", "https://www.example.org", "Access-Control-Request-Method", "PUT").problem(t, kindOrigin)
}

// TestOptionsTellNothing has OPTIONS answered in the same way whatever the token may see.
func TestOptionsTellNothing(t *testing.T) {
	s := newGuarded(t)
	one, other := s.token(t, "one", ScopeUpload), s.token(t, "other", ScopeUpload)
	u := s.as(t, one, "POST", "/uploads/?name=a", "x").upload(t, http.StatusAccepted) // with a slash it is as good
	for _, path := range []string{u.address(), "/uploads/" + anID} {
		if a := s.as(t, other, "OPTIONS", path, ""); a.StatusCode != http.StatusNoContent {
			t.Errorf("OPTIONS %s: %d %s, want 204", path, a.StatusCode, a.body)
		}
	}
	s.ask(t, "OPTIONS", u.address(), nil).problem(t, kindUnauthorized)
	if a := s.ask(t, "OPTIONS", "/", nil); a.StatusCode != http.StatusNoContent {
		t.Errorf("OPTIONS /: %d %s, want 204", a.StatusCode, a.body)
	}
	s.as(t, s.token(t, "reader", ScopeRead), "POST", "/uploads/?name=b", "x").problem(t, kindForbidden)
}

func TestHead(t *testing.T) {
	s := newFakeAPI(t)
	for _, path := range []string{"/", "/uploads", "/healthz", "/readyz", "/openapi.yaml"} {
		want := s.ask(t, "GET", path, nil)
		got := s.ask(t, "HEAD", path, nil)
		if got.StatusCode != http.StatusOK || len(got.body) > 0 || got.Header.Get("Content-Type") != want.Header.Get("Content-Type") {
			t.Errorf("HEAD %s: %d, %q, %d bytes", path, got.StatusCode, got.Header.Get("Content-Type"), len(got.body))
		}
	}
	if a := s.ask(t, "HEAD", "/x", nil); a.StatusCode != http.StatusNotFound || a.Header.Get("Content-Type") != problemType {
		t.Errorf("HEAD /x: %d, %q", a.StatusCode, a.Header.Get("Content-Type"))
	}
}

func TestService(t *testing.T) {
	forBoth(t, func(t *testing.T, s *testAPI) {
		if got, want := string(s.ask(t, "GET", "/healthz", nil).body), `{"status":"ok","version":"v0.0.0-test"}`+"\n"; got != want {
			t.Errorf("healthz: %s, want %s", got, want)
		}
		if got, want := string(s.ask(t, "GET", "/readyz", nil).body), `{"status":"ready"}`+"\n"; got != want {
			t.Errorf("readyz: %s, want %s", got, want)
		}
	})
	s := newFakeAPI(t)
	s.core.fail["ready"] = fmt.Errorf("%w: 5 bytes", errSpoolFull)
	if p := s.ask(t, "GET", "/readyz", nil).problem(t, kindNotReady); !strings.Contains(p.Detail, "room") {
		t.Errorf("full: %q", p.Detail)
	}
	s.core.fail["ready"] = errors.New("/secret/path: broken")
	if a := s.ask(t, "GET", "/readyz", nil); a.problem(t, kindNotReady).Detail == "" || bytes.Contains(a.body, []byte("secret")) {
		t.Errorf("broken: %s", a.body)
	}
	if a := s.ask(t, "GET", "/healthz", nil); a.StatusCode != http.StatusOK {
		t.Errorf("healthz: %d, want 200 while the process is alive", a.StatusCode)
	}
}

// TestErrors sees what becomes of the core's errors.
func TestErrors(t *testing.T) {
	_, badName := plain().stored("..")
	for _, c := range []struct {
		method string // of the core
		err    error
		kind   problemKind
	}{
		{"add", fmt.Errorf("x: %w", errSpoolFull), kindFull},
		{"add", errInterrupted, kindCancelled},
		{"add", errLength, kindIncomplete},
		{"add", errTooManyFiles, kindTooMany},
		{"add", tooLarge(7), kindTooLarge},
		{"add", badName, kindName},
		{"add", errGivenBack, kindStopping},
		{"add", errors.New("/secret/path: broken"), kindInternal},
		{"add", io.EOF, kindInternal},
		{"add", errPanic, kindInternal},
		{"commit", errSpoolFull, kindFull},
		{"commit", errors.New("/secret/path: broken"), kindInternal},
		{"list", errors.New("/secret/path: broken"), kindInternal},
		{"get", errors.New("/secret/path: broken"), kindInternal},
		{"get", errPanic, kindInternal},
		{"remove", errors.New("/secret/path: broken"), kindInternal},
		{"remove", errNotFound, kindNotFound},
		{"retry", errState, kindState},
		{"retry", errors.New("/secret/path: broken"), kindInternal},
	} {
		t.Run(c.method+"/"+c.err.Error(), func(t *testing.T) {
			s := newFakeAPI(t)
			s.core.fail[c.method] = c.err
			one := "/uploads/01KKPXQ7M7C1WB0K8VQ0N4Y6TJ"
			request := map[string][2]string{
				"add": {"POST", "/uploads?name=x"}, "commit": {"POST", "/uploads?name=x"},
				"list": {"GET", "/uploads"}, "get": {"GET", one}, "remove": {"DELETE", one}, "retry": {"POST", one + "/retry"},
			}[c.method]
			a := s.ask(t, request[0], request[1], strings.NewReader("some bytes"))
			p := a.problem(t, c.kind)
			if bytes.Contains(a.body, []byte("secret")) || c.kind == kindInternal && !strings.Contains(p.Detail, "an error that it did not expect") {
				t.Errorf("answer %s tells too much", a.body)
			}
			if a.Header.Get("Location") != "" {
				t.Errorf("Location is %q", a.Header.Get("Location"))
			}
			log := strings.ReplaceAll(s.log.String(), `\"`, `"`)
			if !strings.Contains(log, p.RequestID) || !errors.Is(c.err, errPanic) && !strings.Contains(log, c.err.Error()) {
				t.Errorf("log %q has not the request %s and %q", log, p.RequestID, c.err)
			}
			if errors.Is(c.err, errPanic) && (!strings.Contains(log, "fake_test.go") || !strings.Contains(log, "level=ERROR")) {
				t.Errorf("log %q has no stack", log)
			}
			if got := s.names(); len(got) > 0 {
				t.Errorf("kept %q, want nothing", got)
			}
		})
	}
}

// TestErrorAfterHeader takes back what was to go with another answer.
func TestErrorAfterHeader(t *testing.T) {
	a := newHTTPAPI(&fakeCore{limit: 1, names: plain()}, nil)
	h := a.serve(func(x *exchange, _ *http.Request) error {
		x.Header().Set("Location", "/uploads/x")
		x.Header().Set("Content-Length", "5")
		return errors.New("too late")
	})
	srv := httptest.NewServer(a.around(h))
	t.Cleanup(srv.Close)
	got := (&testAPI{api: a, url: srv.URL}).ask(t, "GET", "/", nil)
	got.problem(t, kindInternal)
	if location := got.Header.Get("Location"); location != "" {
		t.Errorf("Location is %q", location)
	}
}

// TestPanicInAnswer cuts the connection: half an answer must not look whole.
func TestPanicInAnswer(t *testing.T) {
	s := newFakeAPI(t)
	boom := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		fmt.Fprint(w, "half")
		panic("the test was told to")
	})
	cut := make(chan any, 1)
	x := &nobody{h: http.Header{}}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost/", nil)
	if err != nil {
		t.Fatal(err)
	}
	func() {
		defer func() { cut <- recover() }()
		s.api.around(boom).ServeHTTP(writable{x}, r)
	}()
	got := soon(t, cut)
	if err, _ := got.(error); !errors.Is(err, http.ErrAbortHandler) {
		t.Errorf("recovered %v, want http.ErrAbortHandler", got)
	}
}

// writable takes an answer and forgets it.
type writable struct{ *nobody }

func (writable) WriteHeader(int) {}

func (writable) Write(p []byte) (int, error) { return len(p), nil }

func TestTooManyAtOnce(t *testing.T) {
	s := newFakeAPI(t, func(a *httpAPI, c *fakeCore) {
		a.slots = make(chan struct{}, 2)
		c.began = make(chan struct{})
	})
	var bodies []*io.PipeWriter
	done := make(chan answer, 2)
	for i := range 2 {
		r, w := io.Pipe()
		bodies = append(bodies, w)
		go func() { done <- s.ask(t, "POST", fmt.Sprintf("/uploads?name=%d", i), r) }()
		soon(t, s.core.began)
	}
	a := s.ask(t, "POST", "/uploads?name=third", strings.NewReader("x"))
	a.problem(t, kindBusy)
	if got := a.Header.Get("Retry-After"); got != "1" {
		t.Errorf("Retry-After is %q, want 1", got)
	}
	s.ask(t, "GET", "/uploads", nil).uploads(t, http.StatusOK)
	for _, w := range bodies {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		soon(t, done).upload(t, http.StatusAccepted)
	}
	s.core.began = nil
	s.ask(t, "POST", "/uploads?name=fourth", strings.NewReader("x")).upload(t, http.StatusAccepted)
}

func TestJSONIsPlain(t *testing.T) {
	s := newFakeAPI(t)
	a := s.ask(t, "POST", "/uploads?name="+url.QueryEscape("<a&b>"), strings.NewReader("x"))
	if !bytes.Contains(a.body, []byte(`"name":"<a&b>"`)) || !bytes.Contains(a.body, []byte(`"created_at":"2026-03-14T15:09:26.535897Z"`)) {
		t.Errorf("answer %s", a.body)
	}
	if got := a.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type is %q", got)
	}
}

func TestRequestIDs(t *testing.T) {
	s := newFakeAPI(t)
	seen := map[string]bool{}
	for range 3 {
		a := s.ask(t, "GET", "/healthz", nil, "X-Request-Id", "forged\tvalue")
		seen[a.Header.Get("X-Request-Id")] = true
	}
	if len(seen) != 3 || seen["forged\tvalue"] {
		t.Errorf("ids %v, want three of our own", seen)
	}
	for id := range seen {
		if !strings.Contains(s.log.String(), "request="+id) {
			t.Errorf("the log has no request=%s: %s", id, s.log)
		}
	}
}
