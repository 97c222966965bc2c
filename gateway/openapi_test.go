package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/go-chi/chi/v5"

	"ferry/api"
)

// loaded is the document that is served. Nobody changes it.
var loaded = sync.OnceValues(func() (*openapi3.T, error) {
	doc, err := openapi3.NewLoader().LoadFromData(api.OpenAPI)
	if err == nil {
		strict(doc)
	}
	return doc, err
})

func description(t testing.TB) *openapi3.T {
	t.Helper()
	doc, err := loaded()
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// checked passes requests on and fails the test on every answer that
// api/openapi.yaml does not describe, whoever asked, and on every request that
// is taken though it is not described.
func checked(t testing.TB, next http.Handler) http.Handler {
	doc := description(t)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec, whole := &recording{ResponseWriter: w}, false
		body, seen := &tee{ReadCloser: r.Body}, *r // net/http looks at the Body of its own
		seen.Body = body
		defer func() {
			if rec.status == 0 || !whole { // the connection was cut
				return
			}
			if err := conforms(doc, r, rec); err != nil {
				t.Errorf("%s %.80s: answer %d does not conform to the description: %v\n%s", r.Method, r.URL.Path, rec.status, err, rec.body.Bytes())
			}
			if err := asks(doc, r, rec.status, body.kept.Bytes()); err != nil {
				t.Errorf("%s %.80s is answered with %d, and does not conform to the description: %v", r.Method, r.URL, rec.status, err)
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
	r.body.Write(p)
	return r.ResponseWriter.Write(p)
}

// everyAnswer has the header fields that mean the same in all answers of HTTP,
// and those that keep browsers from doing more with one than they should.
var everyAnswer = []string{
	"Cache-Control", "Connection", "Content-Encoding", "Content-Length", "Content-Type", "Date", "Vary",
	"Content-Security-Policy", "Cross-Origin-Opener-Policy", "Cross-Origin-Resource-Policy", "Referrer-Policy", "X-Content-Type-Options",
}

// described is a field's name as RFCs write it.
func described(name string) string {
	switch name {
	case "Etag":
		return "ETag"
	case "Www-Authenticate":
		return "WWW-Authenticate"
	}
	return name
}

func conforms(doc *openapi3.T, r *http.Request, rec *recording) error {
	h := rec.Header()
	if h.Get("X-Request-Id") == "" {
		return fmt.Errorf("no X-Request-Id")
	}
	op := operation(doc, r)
	if op == nil {
		if isStatic(r.URL.Path) && rec.status < http.StatusBadRequest || rec.status == http.StatusPermanentRedirect && h.Get("Location") != "" {
			return nil
		}
		if !slices.Contains([]int{http.StatusUnauthorized, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusForbidden, http.StatusMisdirectedRequest}, rec.status) {
			return fmt.Errorf("it is no operation of the description")
		}
		return validate(doc.Components.Schemas["Problem"], h, problemType, rec.body.Bytes())
	}
	ref := op.Responses.Value(strconv.Itoa(rec.status))
	if ref == nil {
		return fmt.Errorf("the status is not among those of %s", op.OperationID)
	}
	for name, header := range ref.Value.Headers {
		if header.Value == nil || header.Value.Schema == nil {
			return fmt.Errorf("the header field %s has no schema", name)
		}
	}
	for name := range h {
		if !slices.Contains(everyAnswer, name) && ref.Value.Headers[described(name)] == nil {
			return fmt.Errorf("the header field %s is not described", name)
		}
	}
	if len(ref.Value.Content) == 0 {
		if rec.body.Len() > 0 {
			return fmt.Errorf("no body is described")
		}
		return nil
	}
	mediaType, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil {
		return err
	}
	content := ref.Value.Content[mediaType]
	if content == nil {
		return fmt.Errorf("the type %s is not described", mediaType)
	}
	if mediaType == problemType && r.Method != http.MethodHead {
		if err := isShown(content.Examples, rec.body.Bytes()); err != nil {
			return err
		}
	}
	return validate(content.Schema, h, mediaType, rec.body.Bytes())
}

// isShown wants a problem of the same kind among the examples of its answer.
func isShown(examples openapi3.Examples, body []byte) error {
	var p problem
	if err := json.Unmarshal(body, &p); err != nil {
		return err
	}
	for _, x := range examples {
		shown, ok := x.Value.Value.(map[string]any)
		if ok && shown["type"] == p.Type {
			return nil
		}
	}
	return fmt.Errorf("no example is a problem of the type %s", p.Type)
}

func validate(schema *openapi3.SchemaRef, h http.Header, mediaType string, body []byte) error {
	if got, _, _ := mime.ParseMediaType(h.Get("Content-Type")); got != mediaType {
		return fmt.Errorf("the type is %q, want %q", got, mediaType)
	}
	if mediaType == lineType {
		for line := range bytes.Lines(body) {
			var value any
			if err := errors.Join(json.Unmarshal(line, &value), schema.Value.VisitJSON(value, openapi3.EnableJSONSchema2020())); err != nil {
				return fmt.Errorf("%s: %w", line, err)
			}
		}
		return nil
	}
	var value any = string(body)
	if strings.HasSuffix(mediaType, "json") {
		want := "no-store"
		if h.Get("ETag") != "" {
			want = "no-cache"
		}
		if got := h.Get("Cache-Control"); got != want {
			return fmt.Errorf("Cache-Control is %q, want %s", got, want)
		}
		if err := json.Unmarshal(body, &value); err != nil {
			return err
		}
	}
	return schema.Value.VisitJSON(value, openapi3.EnableJSONSchema2020())
}

// operation finds what the description calls a request; HEAD is as GET.
func operation(doc *openapi3.T, r *http.Request) *openapi3.Operation {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	parts := strings.Split(r.URL.Path, "/")
	if method == http.MethodPut && strings.HasPrefix(r.URL.Path, uploadsPath) { // the rest of the address is one parameter, whatever it is
		parts = []string{"", "uploads", "x"}
	}
	for path, item := range doc.Paths.Map() {
		template := strings.Split(path, "/")
		if slices.EqualFunc(template, parts, func(t, p string) bool { return t == p || strings.HasPrefix(t, "{") && p != "" }) {
			if op := item.GetOperation(method); op != nil {
				return op
			}
		}
	}
	return nil
}

// isStatic reports whether a path is that of one of the page's files.
func isStatic(path string) bool {
	_, ok := staticFiles()[path]
	return ok
}

// TestConformsCatches shows that the check above finds what it is for.
func TestConformsCatches(t *testing.T) {
	doc := description(t)
	id := "01KKPXQ7M7C1WB0K8VQ0N4Y6TJ"
	whole, err := json.Marshal(sample(id))
	if err != nil {
		t.Fatal(err)
	}
	answer := func(status int, mediaType, body string) *recording {
		rec := &recording{ResponseWriter: &nobody{h: http.Header{}}, status: status}
		rec.Header().Set("X-Request-Id", "1")
		rec.Header().Set("Content-Type", mediaType)
		rec.Header().Set("Cache-Control", "no-store")
		rec.body.WriteString(body)
		return rec
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/uploads/"+id, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := conforms(doc, r, answer(200, "application/json", string(whole))); err != nil {
		t.Fatalf("a right answer: %v", err)
	}
	replaced := func(old, other string) string {
		if !strings.Contains(string(whole), old) {
			t.Fatalf("the sample has no %s: %s", old, whole)
		}
		return strings.Replace(string(whole), old, other, 1)
	}
	problem := `{"type": "/problems/not-found", "title": "x", "status": 404, "detail": "x", "retryable": false, "request_id": "1"}`
	if err := conforms(doc, r, answer(404, problemType, problem)); err != nil {
		t.Fatalf("a right problem: %v", err)
	}
	field := answer(200, "application/json", string(whole))
	field.Header().Set("X-Colour", "red")
	for name, rec := range map[string]*recording{
		"field":      field,
		"status":     answer(418, problemType, problem),
		"type":       answer(200, "text/plain", string(whole)),
		"missing":    answer(200, "application/json", replaced(`"size":`, `"length":`)),
		"null":       answer(200, "application/json", replaced(`"name":"a.txt"`, `"name":null`)),
		"enum":       answer(200, "application/json", replaced(`"queued"`, `"lost"`)),
		"phase":      answer(200, "application/json", replaced(`"phase":null`, `"phase":"flying"`)),
		"format":     answer(200, "application/json", replaced(`"created_at":"2026`, `"created_at":"26`)),
		"more":       answer(200, "application/json", replaced(`"size":`, `"colour":"red","size":`)),
		"deep":       answer(200, "application/json", replaced(`"count":0`, `"count":"0"`)),
		"problem":    answer(404, problemType, `{"type": "/problems/x"}`),
		"kind":       answer(404, problemType, strings.Replace(problem, "not-found", "x", 1)),
		"not shown":  answer(404, problemType, strings.Replace(problem, "not-found", "no-receipt", 1)),
		"plain json": answer(404, "application/json", problem),
	} {
		if err := conforms(doc, r, rec); err == nil {
			t.Errorf("%s: conforms: %s", name, rec.body.Bytes())
		}
	}
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
		if method != http.MethodHead && route != uploadsPath+"*" && (route == "/" || route == docsPath || !isStatic(route)) {
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
