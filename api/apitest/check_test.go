package apitest_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"ferry/api/apitest"
)

// TestConformsCatches shows that the check above finds what it is for.
func TestConformsCatches(t *testing.T) {
	doc, err := apitest.Description()
	if err != nil {
		t.Fatal(err)
	}
	const id = "01KKPXQ7M7C1WB0K8VQ0N4Y6TJ"
	shown := doc.Paths.Value("/uploads/{id}").Get.Responses.Value("200").Value.Content["application/json"].Examples["delivered"]
	whole, err := json.Marshal(shown.Value.Value)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/uploads/"+id, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer := func(status int, mediaType, body string) apitest.Exchange {
		h := http.Header{"X-Request-Id": {"1"}, "Content-Type": {mediaType}, "Cache-Control": {"no-store"}}
		return apitest.Exchange{Request: r, Status: status, Header: h, Body: []byte(body), Whole: true}
	}
	if err := apitest.Check(answer(200, "application/json", string(whole))); err != nil {
		t.Fatalf("a right answer: %v", err)
	}
	replaced := func(old, other string) string {
		if !strings.Contains(string(whole), old) {
			t.Fatalf("the sample has no %s: %s", old, whole)
		}
		return strings.Replace(string(whole), old, other, 1)
	}
	problem := `{"type": "/problems/not-found", "title": "x", "status": 404, "detail": "x", "retryable": false, "request_id": "1"}`
	if err := apitest.Check(answer(404, "application/problem+json", problem)); err != nil {
		t.Fatalf("a right problem: %v", err)
	}
	field := answer(200, "application/json", string(whole))
	field.Header.Set("X-Colour", "red")
	for name, x := range map[string]apitest.Exchange{
		"field":      field,
		"status":     answer(418, "application/problem+json", problem),
		"type":       answer(200, "text/plain", string(whole)),
		"missing":    answer(200, "application/json", replaced(`"size":`, `"length":`)),
		"null":       answer(200, "application/json", replaced(`"name":"build-17/notes.txt"`, `"name":null`)),
		"enum":       answer(200, "application/json", replaced(`"delivered"`, `"lost"`)),
		"phase":      answer(200, "application/json", replaced(`"phase":null`, `"phase":"flying"`)),
		"format":     answer(200, "application/json", replaced(`"created_at":"2026`, `"created_at":"26`)),
		"more":       answer(200, "application/json", replaced(`"size":`, `"colour":"red","size":`)),
		"deep":       answer(200, "application/json", replaced(`"count":1`, `"count":"0"`)),
		"problem":    answer(404, "application/problem+json", `{"type": "/problems/x"}`),
		"kind":       answer(404, "application/problem+json", strings.Replace(problem, "not-found", "x", 1)),
		"not shown":  answer(404, "application/problem+json", strings.Replace(problem, "not-found", "no-receipt", 1)),
		"plain json": answer(404, "application/json", problem),
	} {
		if err := apitest.Check(x); err == nil {
			t.Errorf("%s: conforms: %s", name, x.Body)
		}
	}
}

// TestAsksCatches shows that the check of requests finds what it is for.
func TestAsksCatches(t *testing.T) {
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
		if err := apitest.Asks(r, http.StatusOK, []byte(c.body)); (err != nil) != c.fails {
			t.Errorf("%s: %v", name, err)
		}
		if err := apitest.Asks(r, http.StatusBadRequest, []byte(c.body)); err != nil {
			t.Errorf("%s, refused: %v", name, err)
		}
	}
}
