package gateway

import (
	"io/fs"
	"net/http"
	"path"
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
	for url, content := range want {
		a := s.ask(t, "GET", url, nil)
		etag := a.Header.Get("ETag")
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
