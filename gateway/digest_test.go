package gateway

import (
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

func base64Of(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// digestsOf are fields that are right for content, by what they show.
func digestsOf(content string) map[string][2]string {
	b := []byte(content)
	s256, s512, m := sha256.Sum256(b), sha512.Sum512(b), md5.Sum(b)
	return map[string][2]string{
		"repr":       {"Repr-Digest", "sha-256=:" + base64Of(s256[:]) + ":"},
		"512":        {"Repr-Digest", "sha-512=:" + base64Of(s512[:]) + ":"},
		"both":       {"Content-Digest", "sha-512=:" + base64Of(s512[:]) + ":, sha-256=:" + base64Of(s256[:]) + ":;x=1"},
		"unknown":    {"Repr-Digest", `md5=:AAAA:, x="a, b\"";y, list=(1 "a" :AA==:), flag, unixsum=1, sha-256=:` + base64Of(s256[:]) + ":"},
		"no padding": {"Content-Digest", "sha-256=:" + strings.TrimRight(base64Of(s256[:]), "=") + ":"},
		"md5":        {"Content-MD5", base64Of(m[:])},
		"checksum":   {"X-Checksum-Sha256", fmt.Sprintf("%X", s256)},
	}
}

// TestDigests sends right and wrong digests of small and large bodies, in header
// and trailer.
func TestDigests(t *testing.T) {
	for size, body := range map[string]string{"small": "hello", "empty": "", "large": content(4, 3*smallBody)} {
		t.Run(size, func(t *testing.T) {
			s := newRealAPI(t)
			for name, d := range digestsOf(body) {
				path := "/uploads/" + strings.ReplaceAll(name, " ", "-")
				a := s.ask(t, "PUT", path, strings.NewReader(body), d[0], d[1])
				if u := a.upload(t, http.StatusAccepted); *u.SHA256 != a.Header.Get("X-Checksum-Sha256") {
					t.Errorf("X-Checksum-Sha256 is %q", a.Header.Get("X-Checksum-Sha256"))
				}
				if got, want := a.Header.Get("Repr-Digest"), digestsOf(string(a.body))["repr"][1]; got != want {
					t.Errorf("Repr-Digest is %s; the answer has %s", got, want)
				}
				s.trailing(t, path+".late", body, d[0], d[1]).upload(t, http.StatusAccepted)
				wrong := body + "x"
				s.ask(t, "PUT", "/uploads/wrong", strings.NewReader(wrong), d[0], d[1]).problem(t, kindMismatch)
				s.trailing(t, "/uploads/wrong", wrong, d[0], d[1]).problem(t, kindMismatch)
			}
			for _, u := range s.ask(t, "GET", "/uploads", nil).uploads(t, http.StatusOK) {
				if u.Name == "wrong" {
					t.Errorf("%+v is kept", u)
				}
			}
		})
	}
}

// trailing puts a body in chunks, with a field of its trailer.
func (s *testAPI) trailing(t testing.TB, path, body, field, value string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, s.url+path, struct{ io.Reader }{strings.NewReader(body)})
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = -1
	req.Trailer = http.Header{http.CanonicalHeaderKey(field): {value}}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{res, got}
}

// TestDigestOfForm wants the digests of a form to be the whole form's.
func TestDigestOfForm(t *testing.T) {
	s := newRealAPI(t)
	form := browser(file("a", "1"), file("b", "2"))
	for name, d := range digestsOf(form) {
		k := kindMismatch
		if name == "checksum" {
			s.form(t, form, d[0], d[1]).problem(t, kindDigest)
			k = kindDigest
		} else {
			s.form(t, form, d[0], d[1]).takenAll(t)
		}
		s.form(t, browser(file("wrong", "1")), d[0], d[1]).problem(t, k)
	}
}

// TestMalformedDigests wants them to be refused before the body comes.
func TestMalformedDigests(t *testing.T) {
	s := newRealAPI(t)
	for field, values := range map[string][]string{
		"Repr-Digest": {
			"sha-256", "sha-256=", "sha-256=x", "sha-256=:AAAA:", "sha-256=:*:", "sha-256=:AAAA", "sha-512=:AAAA:", "SHA-256=:AAAA:", "sha-256=:AAAA:,",
			`sha-256="47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="`, "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", "a=(((, b=1", "a=(1", `a="`, `a="\`, "a;", "a=1 b=2", "-a=1",
		},
		"Content-Digest":    {"sha-256=:AAAA:"},
		"Content-MD5":       {"AAAA", "*", "d41d8cd98f00b204e9800998ecf8427e"},
		"X-Checksum-Sha256": {"00", "sha-256=x", strings.Repeat("0", 65)},
	} {
		for _, value := range values {
			conn := s.raw(t, "PUT /uploads/x HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 9\r\n"+field+": "+value+"\r\n\r\n")
			read(t, conn).problem(t, kindDigest)
			s.trailing(t, "/uploads/x", "x", field, value).problem(t, kindDigest)
		}
	}
	if l := s.ask(t, "GET", "/uploads", nil).uploads(t, http.StatusOK); len(l) > 0 {
		t.Errorf("%d are kept", len(l))
	}
}
