package gateway

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"ferry/api"
)

func TestParseBasePath(t *testing.T) {
	for text, want := range map[string]string{"": "", "/": "", "/ferry": "/ferry", "/ferry/": "/ferry", "/a/b-c_d.e": "/a/b-c_d.e"} {
		if got, err := ParseBasePath(text); got != want || err != nil {
			t.Errorf("ParseBasePath(%q) = %q, %v, want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"ferry", "/a//b", "/a?b", "/a#b", "/a%2f", "/a b", "//host", "http://host/a", "/..", "/a/./b", "/<x>"} {
		if got, err := ParseBasePath(text); err == nil {
			t.Errorf("ParseBasePath(%q) = %q, want an error", text, got)
		}
	}
}

func TestParseTrusted(t *testing.T) {
	networks, socket, err := ParseTrusted("10.0.0.0/8, 192.168.1.1,::1,unix")
	if err != nil || !socket || len(networks) != 3 {
		t.Errorf("got %v, %v, %v", networks, socket, err)
	}
	for _, text := range []string{"", "10.0.0.1/8", "example.org", "10.0.0.0/33", "10.0.0.1,", "all"} {
		if networks, _, err := ParseTrusted(text); err == nil {
			t.Errorf("ParseTrusted(%q) = %v, want an error", text, networks)
		}
	}
}

func TestForwarded(t *testing.T) {
	trusted, _, err := ParseTrusted("127.0.0.0/8,10.0.0.0/8,2001:db8::/32")
	if err != nil {
		t.Fatal(err)
	}
	f := &Front{Trusted: trusted}
	const proxy = "127.0.0.1:999"
	for _, c := range []struct {
		peer   string
		header []string
		want   string // client, scheme and host
	}{
		{proxy, nil, "127.0.0.1:999 http here"},
		{proxy, []string{"X-Forwarded-For", "192.0.2.1", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "files.example.org"}, "192.0.2.1:0 https files.example.org"},
		{proxy, []string{"X-Forwarded-For", "6.6.6.6, 192.0.2.1, 10.1.1.1"}, "192.0.2.1:0 http here"},
		{proxy, []string{"X-Forwarded-For", "6.6.6.6", "X-Forwarded-For", "192.0.2.1"}, "192.0.2.1:0 http here"},
		{proxy, []string{"X-Forwarded-For", "10.1.1.1"}, "10.1.1.1:0 http here"},
		{proxy, []string{"X-Forwarded-For", "6.6.6.6, nobody"}, "127.0.0.1:999 http here"},
		{proxy, []string{"X-Forwarded-Proto", "ftp", "X-Forwarded-Host", "a b<script>"}, "127.0.0.1:999 http here"},
		{proxy, []string{"Forwarded", `for=192.0.2.1;proto=https;host="files.example.org"`}, "192.0.2.1:0 https files.example.org"},
		{proxy, []string{"Forwarded", `for=6.6.6.6;proto=http, For="[2001:db9::1]:4711";Proto=https, for=10.1.1.1;proto=http`}, "[2001:db9::1]:0 https here"},
		{proxy, []string{"Forwarded", "for=6.6.6.6, for=_hidden;proto=https"}, "127.0.0.1:999 https here"},
		{proxy, []string{"Forwarded", "for=6.6.6.6;host=evil", "X-Forwarded-For", "192.0.2.1"}, "192.0.2.1:0 http here"},
		{"[2001:db8::5]:1", []string{"X-Forwarded-For", "192.0.2.1"}, "192.0.2.1:0 http here"},
		{"[::ffff:10.0.0.9]:1", []string{"X-Forwarded-For", "192.0.2.1"}, "192.0.2.1:0 http here"},
		{"192.0.2.7:1", []string{"X-Forwarded-For", "6.6.6.6", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "evil", "Forwarded", "for=6.6.6.6;proto=https;host=evil"}, "192.0.2.7:1 http here"},
		{"@", []string{"X-Forwarded-Proto", "https"}, "@ http here"},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://here/uploads", nil) // as a first line may claim it
		if err != nil {
			t.Fatal(err)
		}
		r.RemoteAddr = c.peer
		for i := 0; i < len(c.header); i += 2 {
			r.Header.Add(c.header[i], c.header[i+1])
		}
		a := f.arrive(r)
		if got := a.RemoteAddr + " " + scheme(a) + " " + a.Host; got != c.want {
			t.Errorf("from %s with %q: %s, want %s", c.peer, c.header, got, c.want)
		}
	}
}

// TestSocketIsTrustedOnRequest has what comes by a unix socket believed only if
// that was asked for.
func TestSocketIsTrustedOnRequest(t *testing.T) {
	here := context.WithValue(t.Context(), http.LocalAddrContextKey, net.Addr(&net.UnixAddr{Name: "s", Net: "unix"}))
	for _, trusted := range []bool{true, false} {
		r, err := http.NewRequestWithContext(here, http.MethodGet, "/uploads", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.RemoteAddr = "@"
		r.Header.Set("X-Forwarded-Proto", "https")
		f := &Front{TrustSocket: trusted}
		if got := scheme(f.arrive(r)) == "https"; got != trusted {
			t.Errorf("trusted %v: believed %v", trusted, got)
		}
	}
}

// TestBehindProxy has a page's requests pass for its own once what the proxy says
// is believed, and only then.
func TestBehindProxy(t *testing.T) {
	trusted, _, err := ParseTrusted("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	for _, believed := range []bool{true, false} {
		s := newGuarded(t, func(cfg *Config) {
			if believed {
				cfg.Front.Trusted = trusted
			}
		})
		token := s.token(t, "ci", ScopeAdmin)
		a := s.ask(t, "POST", "/uploads?name=a", strings.NewReader("x"), "Authorization", token, "Host", "files.example.org",
			"Origin", "https://files.example.org", "X-Forwarded-Proto", "https", "X-Forwarded-For", "192.0.2.1")
		if believed {
			a.upload(t, http.StatusAccepted)
		} else {
			a.problem(t, kindOrigin)
		}
		if got := strings.Contains(s.log.String(), "client=192.0.2.1:0"); got != believed {
			t.Errorf("believed %v: the log has the client's address: %v", believed, got)
		}
	}
}

func TestBasePath(t *testing.T) {
	s := newGuarded(t, func(cfg *Config) { cfg.Front.BasePath = "/ferry" })
	for _, at := range []string{"/ferry", ""} { // as the proxy passes it on
		a := s.ask(t, "POST", at+"/uploads?name=a", strings.NewReader("x"))
		u := a.taken(t)
		if got, want := a.Header.Get("Location"), "/ferry"+u.address(); got != want {
			t.Errorf("Location %q, want %q", got, want)
		}
		s.ask(t, "GET", at+u.address(), nil).upload(t, http.StatusOK)
		a = s.ask(t, "GET", at+"/uploads?limit=1", nil)
		if link := a.Header.Get("Link"); link != "" && !strings.HasPrefix(link, "</ferry/uploads?") {
			t.Errorf("Link %q, want one below /ferry", link)
		}
		if a = s.ask(t, "GET", at+"/openapi.yaml", nil); !bytes.Contains(a.body, []byte("url: /ferry\n")) {
			t.Errorf("%s/openapi.yaml does not say where the server is", at)
		}
		if a = s.ask(t, "GET", at+"/", nil); a.StatusCode != http.StatusOK || bytes.Contains(a.body, []byte(`"/`)) {
			t.Errorf("%s/ answers %d, or links that are not relative", at, a.StatusCode)
		}
	}
	a := s.ask(t, "GET", "/ferry", nil)
	if got := a.Header.Get("Location"); a.StatusCode != http.StatusPermanentRedirect || got != "/ferry/" {
		t.Errorf("GET /ferry: %d to %q, want 308 to /ferry/", a.StatusCode, got)
	}
	a = s.ask(t, "GET", "/ferry/uploads/x", nil)
	if !bytes.Contains(a.body, []byte(`"type":"/ferry/problems/not-found"`)) || a.StatusCode != http.StatusNotFound {
		t.Errorf("GET /ferry/uploads/x: %d: %s, want a problem whose type is below /ferry", a.StatusCode, a.body)
	}
	if a = s.ask(t, "GET", "/ferry/problems/not-found", nil); a.StatusCode != http.StatusOK {
		t.Errorf("the problem's page: %d, want 200", a.StatusCode)
	}
	if a = s.ask(t, "GET", "/ferryboat/uploads", nil); a.StatusCode != http.StatusNotFound {
		t.Errorf("GET /ferryboat/uploads: %d, want 404", a.StatusCode)
	}
}

func TestDescribeBelow(t *testing.T) {
	f := &Front{BasePath: "/ferry"}
	doc, err := openapi3.NewLoader().LoadFromData(f.describe(api.OpenAPI))
	if err != nil {
		t.Fatal(err)
	}
	kind := doc.Components.Schemas["Problem"].Value.Properties["type"].Value.Enum[0]
	if doc.Servers[0].URL != "/ferry" || !strings.HasPrefix(kind.(string), "/ferry/problems/") || doc.Paths.Value("/problems") == nil {
		t.Errorf("server %s, kind %v", doc.Servers[0].URL, kind)
	}
	if err := doc.Validate(t.Context(), openapi3.IsOpenAPI31OrLater()); err != nil { // its examples, too
		t.Error(err)
	}
	list, err := doc.Paths.Value("/uploads").Get.Responses.Value("200").Value.Content["application/json"].Examples["list"].Value.MarshalJSON()
	if err != nil || !strings.Contains(string(list), `"/ferry/uploads/`+anID+receiptPath+`"`) {
		t.Errorf("the list is shown as %s, %v", list, err)
	}
}

func TestCheckGuarded(t *testing.T) {
	for address, ok := range map[string][2]bool{"127.0.0.1:1": {true, true}, "0.0.0.0:1": {false, true}, ":1": {false, true}, "1.2.3.4": {false, true}} {
		for i, guarded := range []bool{false, true} {
			if err := CheckGuarded(address, guarded); (err == nil) != ok[i] {
				t.Errorf("CheckGuarded(%q, %v) = %v, want error: %v", address, guarded, err, !ok[i])
			}
		}
	}
}
