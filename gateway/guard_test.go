package gateway

import (
	"net/http"
	"strings"
	"testing"
)

func TestCheckListen(t *testing.T) {
	for address, ok := range map[string]bool{
		"127.0.0.1:8080": true, "127.1.2.3:0": true, "[::1]:8080": true, "localhost:80": true,
		"0.0.0.0:8080": false, ":8080": false, "[::]:8080": false, "192.168.1.1:80": false, "example.org:80": false, "localhost.example.org:80": false, "127.0.0.1": false, "": false,
	} {
		if err := CheckListen(address); (err == nil) != ok {
			t.Errorf("CheckListen(%q) = %v, want error: %v", address, err, !ok)
		}
	}
}

func TestHosts(t *testing.T) {
	s := newFakeAPI(t)
	for host, ok := range map[string]bool{
		"localhost": true, "localhost:1": true, "LOCALHOST:8080": true, "127.0.0.1": true, "127.0.0.1:99999": true, "127.9.9.9": true, "[::1]": true, "[::1]:8080": true,
		"example.org": false, "example.org:8080": false, "localhost.example.org": false, "127.0.0.1.example.org": false, "127.0.0.1.nip.io:8080": false,
		"0.0.0.0": false, "[::]": false, "10.0.0.1:8080": false, "2130706433": false, "127.1": false, "localhost.": false, "evil@localhost": false, "localhost:x": false, "[::1": false,
	} {
		a := s.ask(t, "GET", "/uploads", nil, "Host", host)
		if ok {
			a.uploads(t, http.StatusOK)
			continue
		}
		if a.StatusCode == http.StatusBadRequest && !strings.Contains(a.Header.Get("Content-Type"), "json") {
			continue // net/http does not take it for a host at all
		}
		a.problem(t, kindHost)
		s.ask(t, "POST", "/uploads?name=x", strings.NewReader("x"), "Host", host).problem(t, kindHost)
	}
	if got := s.names(); len(got) > 0 {
		t.Errorf("kept %q, want nothing", got)
	}
}

func TestOrigins(t *testing.T) {
	s := newFakeAPI(t)
	own := s.url
	for _, c := range []struct {
		header []string
		get    bool // it is answered
		post   bool // it is done
	}{
		{nil, true, true},
		{[]string{"Origin", own}, true, true},
		{[]string{"Origin", own, "Sec-Fetch-Site", "same-origin"}, true, true},
		{[]string{"Sec-Fetch-Site", "none"}, true, true},
		{[]string{"Origin", "null"}, true, false},
		{[]string{"Origin", "null", "Sec-Fetch-Site", "cross-site"}, true, false},
		{[]string{"Origin", "http://example.org"}, false, false},
		{[]string{"Origin", "http://example.org", "Sec-Fetch-Site", "same-origin"}, false, false},
		{[]string{"Origin", strings.Replace(own, "http:", "https:", 1)}, false, false},
		{[]string{"Origin", own + "0"}, false, false},
		{[]string{"Origin", own, "Origin", "http://example.org"}, false, false},
		{[]string{"Origin", "http://localhost:1"}, false, false},
		{[]string{"Origin", ""}, false, false},
		{[]string{"Sec-Fetch-Site", "cross-site"}, true, false},
		{[]string{"Sec-Fetch-Site", "same-site"}, true, false},
		{[]string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate"}, true, false},
	} {
		a := s.ask(t, "GET", "/uploads", nil, c.header...)
		for field := range a.Header {
			if strings.HasPrefix(field, "Access-Control-") {
				t.Errorf("%q: GET answers %s", c.header, field)
			}
		}
		if c.get {
			a.uploads(t, http.StatusOK)
		} else {
			a.problem(t, kindOrigin)
		}
		kept := len(s.names())
		a = s.ask(t, "POST", "/uploads?name=x", strings.NewReader("x"), c.header...)
		if c.post {
			a.upload(t, http.StatusAccepted)
			continue
		}
		a.problem(t, kindOrigin)
		s.ask(t, "DELETE", "/uploads/x", nil, c.header...).problem(t, kindOrigin)
		if len(s.names()) != kept {
			t.Errorf("%q: POST was done", c.header)
		}
	}
}

func TestLargeHeader(t *testing.T) {
	s := newFakeAPI(t)
	s.ask(t, "GET", "/uploads", nil, "X-Large", strings.Repeat("x", 30<<10)).uploads(t, http.StatusOK)
	if p := s.ask(t, "GET", "/uploads", nil, "X-Large", strings.Repeat("x", 40<<10)).problem(t, kindHeader); p.Limit != maxRequestHeader {
		t.Errorf("limit %d, want %d", p.Limit, maxRequestHeader)
	}
	s.ask(t, "GET", "/uploads?x="+strings.Repeat("x", 40<<10), nil).problem(t, kindHeader)
}

func TestSecurityHeaders(t *testing.T) {
	s := newRealAPI(t)
	put := s.ask(t, "PUT", "/uploads/f", strings.NewReader("f"))
	u := put.upload(t, http.StatusAccepted)
	refused := s.ask(t, "POST", "/uploads", nil, "Sec-Fetch-Site", "cross-site")
	refused.problem(t, kindOrigin)
	for _, a := range []answer{put, refused} { // which no page can load
		if a.Header.Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(a.Header.Get("Content-Type"), "json") {
			t.Errorf("%s: %v", a.Request.Method, a.Header)
		}
	}
	for _, c := range []struct{ path, policy string }{
		{u.address(), dataPolicy},
		{u.address() + "?wait=0", dataPolicy},
		{"/", contentPolicy},
		{"/app.js", contentPolicy},
		{"/problems", contentPolicy},
		{"/docs", docsPolicy},
		{"/openapi.yaml", contentPolicy},
		{"/uploads", dataPolicy},
		{"/x", dataPolicy},
	} {
		path, want := c.path, map[string]string{
			"Content-Security-Policy":      c.policy,
			"X-Content-Type-Options":       "nosniff",
			"Cross-Origin-Resource-Policy": "same-origin",
		}
		if c.policy != dataPolicy {
			want["Referrer-Policy"], want["Cross-Origin-Opener-Policy"] = "no-referrer", "same-origin"
		}
		a := s.ask(t, "GET", path, nil)
		for field, value := range want {
			if got := a.Header.Get(field); got != value {
				t.Errorf("%s: %s is %q, want %q", path, field, got, value)
			}
		}
	}
}
