package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// generalFields are what HTTP gives a meaning in any request, what says who it
// comes from, and what tests send to see that nothing comes of it.
var generalFields = []string{
	"Accept", "Accept-Encoding", "Accept-Language", "Authorization", "Connection", "Content-Length", "Content-Type", "Expect", "Host", "Trailer", "User-Agent",
	"Origin", "Referer", "Sec-Fetch-Dest", "Sec-Fetch-Mode", "Sec-Fetch-Site",
	"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto",
	"Content-Encoding", // identity alone is taken
	"X-Large", "X-Request-Id",
}

// asks returns what of a request that was taken the description does not have.
// What is refused may be as it likes.
func asks(doc *openapi3.T, r *http.Request, status int, body []byte) error {
	op := operation(doc, r)
	if op == nil || status >= http.StatusBadRequest {
		return nil
	}
	for name, values := range r.URL.Query() {
		if err := hasParameter(op, openapi3.ParameterInQuery, name, values); err != nil {
			return err
		}
	}
	for name, values := range r.Header {
		if isConditional(name) && op.Responses.Value(strconv.Itoa(http.StatusNotModified)) != nil || slices.Contains(generalFields, name) {
			continue
		}
		if err := hasParameter(op, openapi3.ParameterInHeader, name, values); err != nil {
			return err
		}
	}
	for _, p := range op.Parameters {
		if p.Value.In != openapi3.ParameterInPath && p.Value.Required && r.URL.Query()[p.Value.Name] == nil && r.Header.Values(p.Value.Name) == nil {
			return fmt.Errorf("%s lacks %s", op.OperationID, p.Value.Name)
		}
	}
	return hasBody(op, r, body)
}

// isConditional reports whether a field asks for what has changed alone, or for
// a range, which is not given.
func isConditional(name string) bool {
	return slices.Contains([]string{"If-Match", "If-None-Match", "Range"}, name)
}

func hasParameter(op *openapi3.Operation, in, name string, values []string) error {
	i := slices.IndexFunc(op.Parameters, func(p *openapi3.ParameterRef) bool {
		return p.Value.In == in && (p.Value.Name == name || in == openapi3.ParameterInHeader && strings.EqualFold(p.Value.Name, name))
	})
	if i < 0 {
		return fmt.Errorf("%s has no parameter %s in the %s", op.OperationID, name, in)
	}
	schema := op.Parameters[i].Value.Schema.Value
	var value any = values[0]
	switch {
	case schema.Type.Is(openapi3.TypeArray):
		all := make([]any, 0, len(values))
		for _, v := range values {
			all = append(all, v)
		}
		value = all
	case len(values) > 1:
		return fmt.Errorf("%s takes %s once", op.OperationID, name)
	case schema.Type.Is(openapi3.TypeInteger):
		number, err := strconv.ParseInt(values[0], 10, 64)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		value = float64(number)
	}
	if err := schema.VisitJSON(value, openapi3.EnableJSONSchema2020()); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func hasBody(op *openapi3.Operation, r *http.Request, body []byte) error {
	if op.RequestBody == nil {
		if len(body) > 0 {
			return fmt.Errorf("%s has no body", op.OperationID)
		}
		return nil
	}
	mediaType, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	content := op.RequestBody.Value.Content[mediaType]
	switch {
	case content == nil && op.RequestBody.Value.Content["application/octet-stream"] == nil:
		return fmt.Errorf("%s takes no body of the type %s", op.OperationID, mediaType)
	case mediaType != jsonType || content == nil: // bytes of any kind, or files with whatever is beside them
		return nil
	}
	var value any
	if err := json.Unmarshal(body, &value); err != nil {
		return err
	}
	return content.Schema.Value.VisitJSON(value, openapi3.EnableJSONSchema2020())
}

// tee keeps the beginning of what is read of a request's body.
type tee struct {
	io.ReadCloser
	kept bytes.Buffer
}

func (b *tee) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.kept.Write(p[:min(n, max(0, maxBulkBody-b.kept.Len()))])
	return n, err
}

// strict has no schema of an object allow more than it says: there must be
// nothing in an answer that is not described, which clients may well expect.
func strict(doc *openapi3.T) {
	for _, s := range doc.Components.Schemas {
		if len(s.Value.Properties) > 0 {
			s.Value.AdditionalProperties.Has = new(false)
		}
	}
}

// TestAsksCatches shows that the check of requests finds what it is for.
func TestAsksCatches(t *testing.T) {
	doc := description(t)
	const order = `{"action": "cancel", "ids": ["01KKPXQ7M7C1WB0K8VQ0N4Y6TJ"]}`
	for name, c := range map[string]struct {
		method, url, field, body string
		fails                    bool
	}{
		"right":          {"POST", "/uploads?name=a&label=a%3Db&label=c%3Dd", "Prefer: wait=3", "x", false},
		"a list":         {"GET", "/uploads?state=queued&limit=500", "Accept: text/csv", "", false},
		"parameter":      {"GET", "/uploads?colour=red", "", "", true},
		"twice":          {"GET", "/uploads?limit=1&limit=2", "", "", true},
		"no number":      {"GET", "/uploads?limit=many", "", "", true},
		"too many":       {"GET", "/uploads?limit=501", "", "", true},
		"too long":       {"POST", "/uploads?name=" + strings.Repeat("x", 1025), "", "x", true},
		"unknown state":  {"GET", "/uploads?state=lost", "", "", true},
		"field":          {"POST", "/uploads?name=a", "X-Colour: red", "x", true},
		"field not here": {"GET", "/uploads", "Prefer: wait=3", "", true},
		"body":           {"GET", "/uploads", "", "x", true},
		"order":          {"POST", "/uploads/bulk", "Content-Type: application/json", order, false},
		"order's type":   {"POST", "/uploads/bulk", "Content-Type: text/plain", order, true},
		"order's field":  {"POST", "/uploads/bulk", "Content-Type: application/json", strings.Replace(order, "action", "deed", 1), true},
		"order's action": {"POST", "/uploads/bulk", "Content-Type: application/json", strings.Replace(order, "cancel", "praise", 1), true},
		"more in it":     {"POST", "/uploads/bulk", "Content-Type: application/json", strings.Replace(order, "{", `{"why": "", `, 1), true},
		"of none":        {"POST", "/uploads/bulk", "Content-Type: application/json", `{"action": "cancel", "ids": []}`, true},
	} {
		r, err := http.NewRequestWithContext(t.Context(), c.method, c.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if key, value, ok := strings.Cut(c.field, ": "); ok {
			r.Header.Set(key, value)
		}
		if err := asks(doc, r, http.StatusOK, []byte(c.body)); (err != nil) != c.fails {
			t.Errorf("%s: %v", name, err)
		}
		if err := asks(doc, r, http.StatusBadRequest, []byte(c.body)); err != nil {
			t.Errorf("%s, refused: %v", name, err)
		}
	}
}
