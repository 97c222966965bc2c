package gateway

import (
	"bytes"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestPutNames puts files under all kinds of names, in one piece and, where the
// destination has folders, in several.
func TestPutNames(t *testing.T) {
	forBoth(t, func(t *testing.T, s *testAPI) {
		for _, name := range goodNames {
			a := s.ask(t, "PUT", "/uploads/"+url.PathEscape(name), strings.NewReader(name))
			u := a.upload(t, http.StatusAccepted)
			if u.Name != name || *u.SHA256 != sum([]byte(name)) || a.Header.Get("Location") != u.address() {
				t.Errorf("put %q: kept %q, Location %q", name, u.Name, a.Header.Get("Location"))
			}
		}
		for name, reason := range badNames {
			if name == "" {
				continue
			}
			p := s.ask(t, "PUT", "/uploads/"+url.PathEscape(name), strings.NewReader("x")).problem(t, kindName)
			if !strings.Contains(p.Detail, reason) {
				t.Errorf("put %q: %q, want %q in it", name, p.Detail, reason)
			}
		}
	})
	s := newRealAPITo(t, "v4://127.0.0.1:1")
	for path, name := range map[string]string{
		"build-17/app.tar.gz": "build-17/app.tar.gz", "build%2017%2Fapp": "build 17/app", "x/retry": "x/retry", "a/b/c/d": "a/b/c/d", "100%25/%3F": "100%/?",
	} {
		if u := s.ask(t, "PUT", "/uploads/"+path, strings.NewReader("x")).upload(t, http.StatusAccepted); u.Name != name {
			t.Errorf("put to %s: kept %q, want %q", path, u.Name, name)
		}
	}
	for _, path := range []string{"", "/", "a//b", "a/../b", "a/", "%2e%2e/a", "a?name=b", "%00", "a%2f%2fb"} {
		s.ask(t, "PUT", "/uploads/"+path, strings.NewReader("x")).problem(t, kindName)
	}
}

// TestPutIsWhole wants the body as it is, whatever its type says, and no part
// of a file.
func TestPutIsWhole(t *testing.T) {
	s := newRealAPI(t)
	u := s.ask(t, "PUT", "/uploads/form", strings.NewReader("--X--"), "Content-Type", "multipart/form-data; boundary=X").upload(t, http.StatusAccepted)
	if *u.SHA256 != sum([]byte("--X--")) {
		t.Errorf("kept %s of a body that looks like a form", *u.SHA256)
	}
	s.ask(t, "PUT", "/uploads/part", strings.NewReader("x"), "Content-Range", "bytes 1-1/2").problem(t, kindParameter)
	s.ask(t, "PUT", "/uploads/z", strings.NewReader("x"), "Content-Encoding", "gzip").problem(t, kindEncoding)
	read(t, s.raw(t, "PUT /uploads/length HTTP/1.1\r\nHost: localhost\r\n\r\n")).problem(t, kindLength)
	if u := s.ask(t, "PUT", "/uploads/waits", strings.NewReader("x"), "Prefer", "wait=0").upload(t, http.StatusAccepted); u.Name != "waits" {
		t.Errorf("kept %q", u.Name)
	}
}

// TestPutByCurl has curl add the file's name, and send what has no length.
func TestPutByCurl(t *testing.T) {
	s := newRealAPI(t)
	want := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
	path := filepath.Join(t.TempDir(), "big file.iso")
	if err := os.WriteFile(path, want, 0o600); err != nil {
		t.Fatal(err)
	}
	stream, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	for _, args := range [][]string{
		{"-T", path, s.url + "/uploads/"},
		{"-T", path, "-H", "Transfer-Encoding: chunked", s.url + "/uploads/chunked"},
		{"-T", "-", s.url + "/uploads/stdin"},
	} {
		out, _ := curlFrom(t, stream, append([]string{"--fail-with-body"}, args...)...)
		if !strings.Contains(out, sum(want)) || !strings.Contains(out, `"state":"queued"`) {
			t.Errorf("curl %q: %s", args, out)
		}
	}
	var names []string
	for _, u := range s.ask(t, "GET", "/uploads", nil).uploads(t, http.StatusOK) {
		names = append(names, u.Name)
	}
	if slices.Sort(names); !slices.Equal(names, []string{"big file.iso", "chunked", "stdin"}) {
		t.Errorf("kept %q", names)
	}
}

// TestAttributes takes modes and times in every way in which they may come.
func TestAttributes(t *testing.T) {
	mode, at := "0640", time.Date(2026, 3, 14, 15, 9, 26, 535897932, time.UTC)
	stamp := at.Format(time.RFC3339Nano)
	check := func(t *testing.T, u Upload) {
		t.Helper()
		if u.Mode == nil || u.ModifiedAt == nil || *u.Mode != mode || !u.ModifiedAt.Equal(at) {
			t.Errorf("mode %q, time %v; want %s, %v", *orEmpty(u.Mode), u.ModifiedAt, mode, at)
		}
	}
	forBoth(t, func(t *testing.T, s *testAPI) {
		check(t, s.ask(t, "PUT", "/uploads/header", strings.NewReader("x"), modeField, "640", mtimeField, stamp).upload(t, http.StatusAccepted))
		u := s.ask(t, "POST", "/uploads?name=query&mode=0640&mtime="+stamp, strings.NewReader("x"), modeField, "777", mtimeField, "no time").upload(t, http.StatusAccepted)
		check(t, u)
		check(t, s.ask(t, "GET", u.address(), nil).upload(t, http.StatusOK))
		for _, l := range s.form(t, browser(file("form", "x"), field("mode", mode), field("mtime", stamp))).uploads(t, http.StatusAccepted) {
			check(t, l)
		}
		u = s.ask(t, "PUT", "/uploads/seconds", strings.NewReader("x"), "Last-Modified", at.Format(http.TimeFormat)).upload(t, http.StatusAccepted)
		if u.Mode != nil || !u.ModifiedAt.Equal(at.Truncate(time.Second)) {
			t.Errorf("mode %q, time %v", *orEmpty(u.Mode), u.ModifiedAt)
		}
		if u = s.ask(t, "PUT", "/uploads/none", strings.NewReader("x")).upload(t, http.StatusAccepted); u.Mode != nil || u.ModifiedAt != nil {
			t.Errorf("mode %q, time %v of a file of which nothing was said", *orEmpty(u.Mode), u.ModifiedAt)
		}
		for _, bad := range []string{"mode=0644&mode=0600", "mtime=2026-03-14T00:00:00Z&mtime=2026-03-15T00:00:00Z", "mode=", "mode=0", "mode=1777", "mode=rw-r--r--", "mode=-1", "mode=8", "mtime=", "mtime=2026-03-14", "mtime=1500-01-01T00:00:00Z", "mtime=9999-01-01T00:00:00Z"} {
			s.ask(t, "PUT", "/uploads/bad?"+bad, strings.NewReader("x")).problem(t, kindParameter)
		}
		for _, bad := range []string{"yesterday", "Mon, 01 Jan 1500 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT"} {
			s.ask(t, "PUT", "/uploads/bad", strings.NewReader("x"), "Last-Modified", bad).problem(t, kindParameter)
		}
		s.form(t, browser(file("bad", "x"), field("mode", "999"))).problem(t, kindParameter)
		for name, value := range map[string]string{"mode": "0640", "mtime": stamp, "destination": DefaultDestination} {
			s.form(t, browser(field(name, value), field(name, value), file("bad", "x"))).problem(t, kindParameter)
		}
		s.ask(t, "PUT", "/uploads/bad", strings.NewReader("x"), modeField, "0644", modeField, "0600").problem(t, kindParameter)
	})
}

// TestAttributesAreOffered wants the destination to be told.
func TestAttributesAreOffered(t *testing.T) {
	r := newRemote()
	g := openCore(t, t.TempDir(), r)
	in := g.receive(t.Context())
	at := attributes{mode: 0o750, modTime: time.Date(2001, 2, 3, 4, 5, 6, 7, time.UTC)}
	in.describe(at)
	if _, err := in.add(fileName(t, "f"), -1, strings.NewReader("content")); err != nil {
		t.Fatal(err)
	}
	u, err := in.commit()
	if err != nil {
		t.Fatal(err)
	}
	plain := g.take("plain", "content")
	g.deliverAll()
	g.await(u[0].ID, StateDelivered)
	g.await(plain.ID, StateDelivered)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, o := range r.offers {
		got, want := attributes{mode: o.Mode, modTime: o.ModTime}, attributes{}
		if o.Name.String() == "f" {
			want = at
		}
		if got.mode != want.mode || !got.modTime.Equal(want.modTime) {
			t.Errorf("offered %s with %v, want %v", o.Name, got, want)
		}
	}
	if len(r.offers) != 2 {
		t.Errorf("%d offers", len(r.offers))
	}
}
