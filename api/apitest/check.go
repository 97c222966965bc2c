// Package apitest checks what passes between clients and a gateway against
// api/openapi.yaml. It is for tests.
package apitest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/getkin/kin-openapi/openapi3"

	"ferry/api"
	"ferry/web"
)

const (
	problemType = "application/problem+json"
	jsonType    = "application/json"
	lineType    = "application/x-ndjson"

	uploadsPath = "/uploads/"
)

// MaxSent is how much of a request's body is looked at.
const MaxSent = 64 << 10

// Description returns the document that gateways serve, of which no object may have
// more than it says: there must be nothing in an answer that is not described, which
// clients may well expect. Nobody may change it.
var Description = sync.OnceValues(func() (*openapi3.T, error) {
	doc, err := openapi3.NewLoader().LoadFromData(api.OpenAPI)
	if err != nil {
		return nil, fmt.Errorf("api/openapi.yaml: %w", err)
	}
	for _, s := range doc.Components.Schemas {
		if len(s.Value.Properties) > 0 {
			s.Value.AdditionalProperties.Has = new(false)
		}
	}
	return doc, nil
})

// An Exchange is a request and its answer.
type Exchange struct {
	Request *http.Request
	Sent    []byte // the request's body, or its beginning
	Status  int
	Header  http.Header
	Body    []byte
	Whole   bool // Body is all of the answer's; else it is not looked at
}

// Check returns what of an exchange the description does not have: anything in the
// answer, and of a request that was taken anything in that. What is refused may be
// as it likes.
func Check(e Exchange) error {
	doc, err := Description()
	if err != nil {
		return err
	}
	if err := conforms(doc, e); err != nil {
		return fmt.Errorf("%s %.80s: answer %d does not conform to the description: %w\n%.2000s", e.Request.Method, e.Request.URL.Path, e.Status, err, e.Body)
	}
	if err := asks(doc, e.Request, e.Status, e.Sent); err != nil {
		return fmt.Errorf("%s %.80s is answered with %d, and does not conform to the description: %w", e.Request.Method, e.Request.URL, e.Status, err)
	}
	return nil
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

func conforms(doc *openapi3.T, e Exchange) error {
	r, h := e.Request, e.Header
	if h.Get("X-Request-Id") == "" {
		return fmt.Errorf("no X-Request-Id")
	}
	op := Operation(doc, r)
	if op == nil {
		if IsFile(r.URL.Path) && e.Status < http.StatusBadRequest || e.Status == http.StatusPermanentRedirect && h.Get("Location") != "" {
			return nil
		}
		if r.Method == http.MethodOptions && e.Status == http.StatusNoContent && h.Get("Allow") != "" {
			return nil
		}
		if !slices.Contains([]int{http.StatusUnauthorized, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusForbidden, http.StatusMisdirectedRequest}, e.Status) {
			return fmt.Errorf("it is no operation of the description")
		}
		return validate(doc.Components.Schemas["Problem"], h, problemType, e)
	}
	ref := op.Responses.Value(strconv.Itoa(e.Status))
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
		if e.Whole && len(e.Body) > 0 {
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
	if mediaType == problemType && e.Whole {
		if err := isShown(content.Examples, e.Body); err != nil {
			return err
		}
	}
	return validate(content.Schema, h, mediaType, e)
}

// isShown wants a problem of the same kind among the examples of its answer.
func isShown(examples openapi3.Examples, body []byte) error {
	var p struct{ Type string }
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

func validate(schema *openapi3.SchemaRef, h http.Header, mediaType string, e Exchange) error {
	if got, _, _ := mime.ParseMediaType(h.Get("Content-Type")); got != mediaType {
		return fmt.Errorf("the type is %q, want %q", got, mediaType)
	}
	if !e.Whole {
		return nil
	}
	body := e.Body
	if mediaType == lineType { // at once: a schema is compiled anew each time
		all := []any{}
		for line := range bytes.Lines(body) {
			var value any
			if err := json.Unmarshal(line, &value); err != nil {
				return fmt.Errorf("%s: %w", line, err)
			}
			all = append(all, value)
		}
		list := openapi3.Schema{Type: &openapi3.Types{openapi3.TypeArray}, Items: &openapi3.SchemaRef{Value: schema.Value}}
		return list.VisitJSON(all, openapi3.EnableJSONSchema2020())
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

// Operation finds what the description calls a request; HEAD is as GET.
func Operation(doc *openapi3.T, r *http.Request) *openapi3.Operation {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	parts := strings.Split(r.URL.Path, "/")
	if method == http.MethodPost && r.URL.Path == uploadsPath {
		parts = []string{"", "uploads"}
	}
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

// IsFile reports whether a path is that of one of the page's files.
func IsFile(at string) bool {
	name := strings.TrimPrefix(at, "/")
	if version, rest, ok := strings.Cut(name, "/"); ok && strings.HasPrefix(version, "v-") {
		name = rest
	}
	if name == "" || name == "docs" {
		name = path.Join(name, "index.html")
	}
	info, err := fs.Stat(web.Files(), name)
	return err == nil && !info.IsDir()
}
