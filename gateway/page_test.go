package gateway

import (
	"io/fs"
	"net/http"
	"path"
	"regexp"
	"strings"
	"testing"

	"ferry/api"
	"ferry/web"
)

func TestStaticFiles(t *testing.T) {
	s := newFakeAPI(t)
	want := map[string][]byte{"/openapi.yaml": api.OpenAPI}
	err := fs.WalkDir(web.Files(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if mediaTypes[path.Ext(name)] == "" {
			t.Errorf("%s has a media type that page.go does not know", name)
		}
		content, err := fs.ReadFile(web.Files(), name)
		if path.Base(name) == "index.html" {
			name = path.Dir(name)
		}
		want[path.Clean("/"+name)] = content
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if want["/"] == nil {
		t.Fatal("there is no page")
	}
	want["/"] = staticFiles()["/"].content // which names the other files by their version
	for url, content := range want {
		a := s.ask(t, "GET", url, nil)
		etag := strings.TrimPrefix(a.Header.Get("ETag"), "W/")
		if a.StatusCode != http.StatusOK || string(a.body) != string(content) || etag == "" || a.Header.Get("Cache-Control") != "no-cache" {
			t.Errorf("%s: %d, %d bytes, ETag %q, Cache-Control %q", url, a.StatusCode, len(a.body), etag, a.Header.Get("Cache-Control"))
		}
		for _, tags := range []string{"W/" + etag, `"other", ` + etag, "*"} {
			if a := s.ask(t, "GET", url, nil, "If-None-Match", tags); a.StatusCode != http.StatusNotModified {
				t.Errorf("%s with %s: %d", url, tags, a.StatusCode)
			}
		}
		if a := s.ask(t, "GET", url, nil, "Range", "bytes=99999999-", "If-Match", `"other"`); a.StatusCode != http.StatusOK {
			t.Errorf("%s with Range: %d", url, a.StatusCode)
		}
		if a := s.ask(t, "GET", url, nil, "If-None-Match", etag); a.StatusCode != http.StatusNotModified || len(a.body) > 0 {
			t.Errorf("%s with its ETag: %d, %d bytes", url, a.StatusCode, len(a.body))
		}
		if a := s.ask(t, "GET", url, nil, "If-None-Match", `"other"`); a.StatusCode != http.StatusOK {
			t.Errorf("%s with another ETag: %d", url, a.StatusCode)
		}
	}
}

// TestVersionedFiles wants what belongs to the page to be kept by browsers for
// good, and the page to name nothing else.
func TestVersionedFiles(t *testing.T) {
	s := newFakeAPI(t)
	page := string(s.ask(t, "GET", "/", nil).body)
	names := regexp.MustCompile(`(?:src|href)="([^"]+\.(?:js|css|svg))"`).FindAllStringSubmatch(page, -1)
	if len(names) < 10 {
		t.Fatalf("the page names %d files: %v", len(names), names)
	}
	for _, name := range names {
		a := s.ask(t, "GET", "/"+name[1], nil)
		if a.StatusCode != http.StatusOK || a.Header.Get("Cache-Control") != "public, max-age=31536000, immutable" {
			t.Errorf("%s: %d, Cache-Control %q", name[1], a.StatusCode, a.Header.Get("Cache-Control"))
		}
	}
}

// TestPageIsSmall bounds what a visitor loads, as it is sent: the page, what
// belongs to it, and the words of one language.
func TestPageIsSmall(t *testing.T) {
	const most = 60_000
	s := newFakeAPI(t)
	files, words := 0, 0
	for url := range staticFiles() {
		if strings.HasPrefix(url, "/v-") || strings.HasPrefix(url, "/docs") {
			continue
		}
		a := s.ask(t, "GET", url, nil, "Accept-Encoding", "br, gzip;q=0.5")
		if a.Header.Get("Content-Encoding") != "gzip" || a.Header.Get("Vary") != "Accept-Encoding" {
			t.Errorf("%s: Content-Encoding %q, Vary %q", url, a.Header.Get("Content-Encoding"), a.Header.Get("Vary"))
		}
		if strings.HasPrefix(url, "/words/") {
			words = max(words, len(a.body))
		} else {
			files += len(a.body)
		}
		plain := s.ask(t, "GET", url, nil, "Accept-Encoding", "gzip;q=0")
		if plain.Header.Get("Content-Encoding") != "" || plain.Header.Get("ETag") == a.Header.Get("ETag") {
			t.Errorf("%s without gzip: Content-Encoding %q, ETag %q", url, plain.Header.Get("Content-Encoding"), plain.Header.Get("ETag"))
		}
	}
	t.Logf("%d bytes, and at most %d of words", files, words)
	if files+words > most {
		t.Errorf("the page has %d bytes; want at most %d", files+words, most)
	}
}

// TestSlashAtTheEnd leads to where the links of a page lead where they are to.
func TestSlashAtTheEnd(t *testing.T) {
	s := newGuarded(t)
	s.token(t, "ci", ScopeRead)
	for from, to := range map[string]string{
		"/docs/": "/docs", "/problems/": "/problems", "/destinations/": "/destinations", "/events/": "/events",
		"/uploads/?state=failed&label=a%3Db": "/uploads?state=failed&label=a%3Db",
	} {
		for _, method := range []string{"GET", "HEAD"} {
			if a := s.ask(t, method, from, nil); a.StatusCode != http.StatusPermanentRedirect || a.Header.Get("Location") != to {
				t.Errorf("%s %s: %d to %q, want 308 to %s", method, from, a.StatusCode, a.Header.Get("Location"), to)
			}
		}
	}
	for _, path := range []string{"//www.example.org/", "/docs//", "/app.js/", "/uploads/x/"} {
		if a := s.ask(t, "GET", path, nil); a.Header.Get("Location") != "" {
			t.Errorf("%s: %d to %q, want nowhere", path, a.StatusCode, a.Header.Get("Location"))
		}
	}
}

func TestTakesGzip(t *testing.T) {
	for field, want := range map[string]bool{
		"": false, "gzip": true, "GZip": true, "x-gzip": true, "gzipped": false, "identity": false, "br, deflate": false,
		"br, gzip": true, "deflate ; q=1.0,gzip ;q=0.5": true, "gzip;q=0.001": true, "gzip; q=1": true,
		"gzip;q=0": false, "gzip; q=0.000": false, "gzip;q=0, *": false, "*, gzip;q=0": false,
		"*": true, "*;q=0.1": true, "*;q=0": false, "identity, *;q=0": false, "gzip, *;q=0": true, "br, *": true,
		"gzip;q=x": false, "gzip;q=2": false, "gzip;q=-1": false, "gzip;q": false, ",,": false, ", gzip,": true, "gzip;q=NaN": false,
	} {
		if got := takesGzip([]string{field}); got != want {
			t.Errorf("%q: %v, want %v", field, got, want)
		}
	}
	for _, fields := range [][]string{{"br", "gzip"}, {"*;q=0", "gzip;q=0.1"}} {
		if !takesGzip(fields) {
			t.Errorf("%q: false, want true", fields)
		}
	}
	if takesGzip(nil) {
		t.Error("nothing said: true, want false")
	}
}
