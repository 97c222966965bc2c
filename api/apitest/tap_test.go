package apitest_test

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"ferry/api/apitest"
)

const readyAnswer = `{"status":"ready"}`

// ready answers as a gateway does, but for what wrong changes.
func ready(wrong func(h http.Header) (status int, body string)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		h := w.Header()
		h.Set("X-Request-Id", "1")
		h.Set("Content-Type", "application/json")
		h.Set("Cache-Control", "no-store")
		status, body := wrong(h)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
}

// lines answers in lines.
func lines(h http.Header, all ...string) string {
	h.Set("Content-Type", "application/x-ndjson")
	h.Set("Vary", "Accept")
	return strings.Join(all, "")
}

func tapped(t *testing.T, h http.Handler) (url string, tap *apitest.Tap) {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	tap, err := apitest.NewTap(strings.TrimPrefix(srv.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	return "http://" + tap.Address(), tap
}

// TestTapCatches has servers answer what the description does not have.
func TestTapCatches(t *testing.T) {
	doc, err := apitest.Description()
	if err != nil {
		t.Fatal(err)
	}
	shown, err := json.Marshal(doc.Paths.Value("/uploads").Get.Responses.Value("200").Value.Content["application/x-ndjson"].Examples["lines"].Value.Value)
	if err != nil {
		t.Fatal(err)
	}
	aLine := string(shown) + "\n"
	for name, c := range map[string]struct {
		path, says string
		wrong      func(h http.Header) (int, string)
	}{
		"right":   {"/readyz", "", func(http.Header) (int, string) { return 200, readyAnswer }},
		"status":  {"/readyz", "status", func(http.Header) (int, string) { return 202, readyAnswer }},
		"body":    {"/readyz", "status", func(http.Header) (int, string) { return 200, `{"status":"happy"}` }},
		"no body": {"/readyz", "JSON", func(http.Header) (int, string) { return 200, "" }},
		"field":   {"/readyz", "X-Colour", func(h http.Header) (int, string) { h.Set("X-Colour", "red"); return 200, readyAnswer }},
		"no id":   {"/readyz", "X-Request-Id", func(h http.Header) (int, string) { h.Del("X-Request-Id"); return 200, readyAnswer }},
		"address": {"/ready", "no operation", func(http.Header) (int, string) { return 200, readyAnswer }},
		"lines":   {"/uploads", "", func(h http.Header) (int, string) { return 200, lines(h, aLine, aLine) }},
		"a line": {"/uploads", "state", func(h http.Header) (int, string) {
			return 200, lines(h, aLine, strings.Replace(aLine, `"delivered"`, `"lost"`, 1))
		}},
		"no line":   {"/uploads", "JSON", func(h http.Header) (int, string) { return 200, lines(h, aLine, "\n") }},
		"parameter": {"/readyz?colour=red", "colour", func(http.Header) (int, string) { return 200, readyAnswer }},
	} {
		t.Run(name, func(t *testing.T) {
			url, tap := tapped(t, ready(c.wrong))
			for range 2 { // on one connection
				res, err := http.Get(url + c.path)
				if err != nil {
					t.Fatal(err)
				}
				if _, err = io.Copy(io.Discard, res.Body); err != nil || res.Body.Close() != nil {
					t.Fatal(err)
				}
			}
			http.DefaultClient.CloseIdleConnections()
			checked, err := tap.Close()
			if (err != nil) != (c.says != "") || err != nil && !strings.Contains(err.Error(), c.says) || checked == 0 {
				t.Errorf("%d answers checked: %v, want %q", checked, err, c.says)
			}
		})
	}
}

// TestTapPasses lets everything through that it cannot read as well, and the end of
// each side.
func TestTapPasses(t *testing.T) {
	for name, c := range map[string]struct{ request, says string }{
		"none":    {"hello\r\n\r\n", "HTTP/1.1 400 Bad Request"},
		"no more": {"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", readyAnswer},
		"two":     {strings.Repeat("GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n", 2) + "GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n", readyAnswer},
		"asks":    {"PUT /uploads/a HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx", "HTTP/1.1 100 Continue"},
	} {
		t.Run(name, func(t *testing.T) {
			url, tap := tapped(t, ready(func(http.Header) (int, string) { return 200, readyAnswer }))
			conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, c.request); err != nil {
				t.Fatal(err)
			}
			answer, err := io.ReadAll(conn)
			if err != nil || !strings.Contains(string(answer), c.says) {
				t.Errorf("answer %q, %v; want %q", answer, err, c.says)
			}
			_, _ = tap.Close()
		})
	}
}

// TestTapOfNothing: whoever connects is cut off as if nobody listened.
func TestTapOfNothing(t *testing.T) {
	url, tap := tapped(t, ready(func(http.Header) (int, string) { return 200, readyAnswer }))
	nothing, err := apitest.NewTap(strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	if checked, err := tap.Close(); checked != 0 || err != nil {
		t.Errorf("%d answers checked, %v", checked, err)
	}
	if res, err := http.Get("http://" + nothing.Address() + "/readyz"); err == nil {
		_ = res.Body.Close()
		t.Errorf("answer %s, want none", res.Status)
	}
	if checked, err := nothing.Close(); checked != 0 || err != nil {
		t.Errorf("%d answers checked, %v", checked, err)
	}
}
