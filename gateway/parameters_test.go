package gateway

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// TestParameters sends each operation each parameter that the description has, and
// one that it has not.
func TestParameters(t *testing.T) {
	s := newRealAPI(t)
	// Clients of ours are not to send what is not described, and are told so: others may.
	srv := httptest.NewServer(s.api.around(s.api.routes()))
	defer srv.Close()
	s.url = srv.URL
	asked := 0
	for path, item := range description(t).Paths.Map() {
		path = strings.NewReplacer("{id}", anID, "{name}", "nowhere").Replace(path)
		for method, op := range item.Operations() {
			refused := func(parameter string) bool {
				body := io.Reader(nil)
				if strings.Contains(path, eventsPath) && method == http.MethodGet {
					method = http.MethodHead // an answer that ends
				}
				if op.RequestBody != nil {
					body = strings.NewReader("x")
				}
				a := s.ask(t, method, path+"?"+parameter, body)
				asked++
				if a.Request.Method == http.MethodHead {
					return a.StatusCode == http.StatusBadRequest
				}
				if a.StatusCode != http.StatusBadRequest || !strings.Contains(string(a.body), "/problems/"+kindUnknown.name) {
					return false
				}
				a.problem(t, kindUnknown)
				return true
			}
			for _, p := range op.Parameters {
				if p.Value.In == openapi3.ParameterInQuery && refused(url.QueryEscape(p.Value.Name)+"=1") {
					t.Errorf("%s %s takes no %s, which is described", method, path, p.Value.Name)
				}
			}
			ours := !slices.Contains(op.Tags, "service")
			for _, other := range []string{"colour=red", "_=1", "colour", "=", "Name=a", "%6eame%5b%5d=a"} {
				if refused(other) != ours {
					t.Errorf("%s %s?%s is refused: %v, want %v", method, path, other, !ours, ours)
				}
			}
		}
	}
	if asked < 100 {
		t.Fatalf("%d requests, of too few operations", asked)
	}
}

// TestUnknownParameterKeepsNothing wants the answer before the body is asked for.
func TestUnknownParameterKeepsNothing(t *testing.T) {
	s := newRealAPI(t)
	for _, request := range []string{
		"PUT /uploads/notes.txt?destnatoin=default HTTP/1.1\r\n",
		"PUT /uploads/notes.txt?destnatoin=default HTTP/1.1\r\nIdempotency-Key: \"build-17\"\r\n",
		"POST /uploads?name=notes.txt&lable=a=b HTTP/1.1\r\n",
		"POST /uploads?name=notes.txt&lable=a=b HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=b\r\n",
	} {
		conn := s.raw(t, request+"Host: localhost\r\nContent-Length: 14\r\nExpect: 100-continue\r\n\r\n")
		r, err := http.NewRequestWithContext(t.Context(), strings.Fields(request)[0], "/", nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(bufio.NewReader(conn), r)
		if err != nil {
			t.Fatalf("%s: %v", request, err)
		}
		body, err := io.ReadAll(res.Body)
		if err := errors.Join(err, res.Body.Close()); err != nil {
			t.Fatalf("%s: %v", request, err)
		}
		answer{res, body}.problem(t, kindUnknown)
	}
	if all := s.ask(t, "GET", "/uploads", nil).uploads(t, http.StatusOK); len(all) != 0 {
		t.Errorf("kept: %v", all)
	}
	// What was refused did not use the key up.
	s.keyedPut(t, `"build-17"`, "/uploads/notes.txt", aText).upload(t, http.StatusAccepted)
}

func TestNearest(t *testing.T) {
	for given, want := range map[string]string{
		"destnatoin": "destination", "Destination": "destination", "destination_name": "destination", "dest": "destination", "dsetinatoin": "destination",
		"lable": "label", "labels": "label", "label[]": "label", "mod": "mode", "time": "mtime", "filename": "name", "stat": "state", "states": "state",
		"limits": "limit", "sha-256": "sha256", "": "", "x": "", "na": "", "colour": "", "sort": "", "page": "", "offset": "", "nome": "name",
		strings.Repeat("x", 1<<16): "", "größe": "",
	} {
		if got := nearest(given, append(slices.Clone(listParameters), "mode", "mtime")); got != want {
			t.Errorf("%.40q: got %q, want %q", given, got, want)
		}
	}
	for given, want := range map[string]string{"filename": "", "time": "mtime", "timezone": "", "MODE": "mode", "names": "name", "dest": "", "nothing": ""} {
		if got := misspelt(given, sendParameters); got != want {
			t.Errorf("%q: got %q, want %q", given, got, want)
		}
	}
}
