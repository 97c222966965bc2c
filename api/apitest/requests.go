package apitest

import (
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
)

// generalFields are what HTTP gives a meaning in any request, what browsers send with
// each, what says who it comes from, and what tests send to see that nothing comes
// of it.
var generalFields = []string{
	"Accept", "Accept-Encoding", "Accept-Language", "Authorization", "Cache-Control", "Connection", "Content-Length", "Content-Type", "Expect", "Host", "Pragma",
	"Priority", "Te", "Trailer", "Upgrade-Insecure-Requests", "User-Agent",
	"Origin", "Referer", "Sec-Ch-Ua", "Sec-Ch-Ua-Mobile", "Sec-Ch-Ua-Platform", "Sec-Fetch-Dest", "Sec-Fetch-Mode", "Sec-Fetch-Site", "Sec-Fetch-User",
	"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto",
	"Content-Encoding", // identity alone is taken
	"X-Large", "X-Request-Id",
}

// asks returns what of a request that was taken the description does not have.
// What is refused may be as it likes.
func asks(doc *openapi3.T, r *http.Request, status int, body []byte) error {
	op := Operation(doc, r)
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
