package gateway

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/go-chi/chi/v5"

	"ferry/api/apitest"
)

func description(t testing.TB) *openapi3.T {
	t.Helper()
	doc, err := apitest.Description()
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// checked passes requests on and fails the test on every answer that
// api/openapi.yaml does not describe, whoever asked, and on every request that
// is taken though it is not described.
func checked(t testing.TB, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec, whole := &recording{ResponseWriter: w}, false
		body, seen := &tee{ReadCloser: r.Body}, *r // net/http looks at the Body of its own
		seen.Body = body
		defer func() {
			if rec.status == 0 || !whole { // the connection was cut
				return
			}
			x := apitest.Exchange{Request: r, Sent: body.kept.Bytes(), Status: rec.status, Header: rec.Header(), Body: rec.body.Bytes(), Whole: true}
			if err := apitest.Check(x); err != nil {
				t.Error(err)
			}
		}()
		next.ServeHTTP(rec, &seen)
		whole = true
	})
}

// recording keeps what is answered.
type recording struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (r *recording) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func (r *recording) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

func (r *recording) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	r.body.Write(p)
	return r.ResponseWriter.Write(p)
}

type nobody struct {
	http.ResponseWriter
	h http.Header
}

func (n *nobody) Header() http.Header { return n.h }

// TestRoutesAreDescribed compares the routes with the paths, both ways.
func TestRoutesAreDescribed(t *testing.T) {
	doc := description(t)
	if err := doc.Validate(t.Context(), openapi3.IsOpenAPI31OrLater()); err != nil {
		t.Errorf("api/openapi.yaml: %v", err)
	}
	routes := map[string]bool{}
	a := newFakeAPI(t)
	err := chi.Walk(a.api.routes(), func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		if method != http.MethodHead && route != uploadsPath+"*" && route != uploadsPath && (route == "/" || route == docsPath || !apitest.IsFile(route)) {
			routes[method+" "+route] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(routes) == 0 {
		t.Fatal("no routes")
	}
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			if !routes[method+" "+path] {
				t.Errorf("api/openapi.yaml describes %s %s, which is no route", method, path)
			}
			delete(routes, method+" "+path)
		}
	}
	for route := range routes {
		t.Errorf("%s is not described in api/openapi.yaml: run make generate", route)
	}
}

// TestProblemsAreDescribed wants the status of each kind of problem in the
// description of some operation.
func TestProblemsAreDescribed(t *testing.T) {
	described := map[string]bool{"404": true, "405": true}
	for _, item := range description(t).Paths.Map() {
		for _, op := range item.Operations() {
			for status := range op.Responses.Map() {
				described[status] = true
			}
		}
	}
	for _, k := range problemPages {
		if !described[strconv.Itoa(k.status)] {
			t.Errorf("no operation describes %d, which %s has", k.status, k.name)
		}
	}
}

// tee keeps the beginning of what is read of a request's body.
type tee struct {
	io.ReadCloser
	kept bytes.Buffer
}

func (b *tee) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.kept.Write(p[:min(n, max(0, apitest.MaxSent-b.kept.Len()))])
	return n, err
}
