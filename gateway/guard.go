package gateway

import (
	"errors"
	"net"
	"net/http"
	"strings"
)

var errNotLoopback = errors.New("other machines could reach it, and there are no tokens yet to tell who may: " +
	"listen on 127.0.0.1, [::1] or localhost")

// CheckListen returns why the gateway must not listen on address, HOST:PORT,
// or nil: it listens on loopback alone as long as it knows no tokens.
func CheckListen(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	if host != "localhost" && !net.ParseIP(host).IsLoopback() {
		return errNotLoopback
	}
	return nil
}

// maxRequestHeader bounds a request's line and header; net/http refuses what is
// much larger by itself, in words of its own.
const maxRequestHeader = 32 << 10

// contentPolicy lets the page use what the gateway serves and nothing else.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; " +
	"connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; " +
	"require-trusted-types-for 'script'; trusted-types ferry"

// dataPolicy lets what is not a page use nothing, should a browser show it nevertheless.
const dataPolicy = "default-src 'none'; frame-ancestors 'none'"

// What is the same in nearly every answer. A field is replaced, and its values are never changed, so
// that answers share them.
var (
	dataPolicyOnly = []string{dataPolicy}
	noSniff        = []string{"nosniff"}
	sameOrigin     = []string{"same-origin"}
	typeJSON       = []string{"application/json"}
	noStore        = []string{"no-store"}
	soonAgain      = []string{acceptedAgain}
)

// secure sets the header fields that keep browsers from doing more with an
// answer than they should. Another site's page can make a part of itself of what GET answers alone:
// whatever else it asks for is refused (isForeign), in JSON that tells nothing.
func secure(h http.Header, method string) {
	h["X-Content-Type-Options"] = noSniff
	if isSafe(method) {
		h["Content-Security-Policy"] = dataPolicyOnly
		h["Cross-Origin-Resource-Policy"] = sameOrigin
	}
}

// securePage is secure for what browsers show as a page, and for what belongs to one.
func securePage(h http.Header, policy string) {
	h.Set("Content-Security-Policy", policy)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
}

// refuse returns why a request is not answered at all, or nil. anyHost says that
// its Host does not matter: a page that was led here has no token to show.
func refuse(r *http.Request, anyHost bool) *refusalError {
	switch {
	case headerSize(r) > maxRequestHeader:
		return &refusalError{problemKind: kindHeader, limit: maxRequestHeader, detail: "The request's address and header may have " +
			grouped(maxRequestHeader) + " bytes together. Nothing was done. Send fewer or shorter fields; cookies of other programs on this host may be among them."}
	case !anyHost && !isOurHost(r.Host):
		return refusal(kindHost, "It answers as localhost and under loopback addresses only, so that no other site can be made to point here (DNS rebinding). Nothing was done. Use http://localhost or http://127.0.0.1 with the gateway's port.")
	case isForeign(r):
		return refusal(kindOrigin, "The request comes from a page of another origin. Nothing was done. Use the gateway's own page, or a program that is not a browser.")
	}
	return nil
}

func headerSize(r *http.Request) int {
	size := len(r.Method) + len(r.RequestURI) + len(r.Host)
	for key, values := range r.Header {
		for _, v := range values {
			size += len(key) + len(v) + len(": \r\n")
		}
	}
	return size
}

// isOurHost reports whether a Host field, HOST or HOST:PORT, can only mean this
// machine: a name that DNS resolves could have been pointed here by anybody.
func isOurHost(host string) bool {
	name := host
	if h, port, err := net.SplitHostPort(host); err == nil {
		if strings.Trim(port, "0123456789") != "" {
			return false
		}
		name = h
	} else if inner, ok := strings.CutPrefix(host, "["); ok {
		name, ok = strings.CutSuffix(inner, "]")
		if !ok {
			return false
		}
	}
	return strings.EqualFold(name, "localhost") || net.ParseIP(name).IsLoopback()
}

func isSafe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead
}

// isForeign reports whether a browser says that a page of another origin is
// behind the request. A page without an origin (null) may read nothing either,
// as no answer allows it to, but must not change anything.
func isForeign(r *http.Request) bool {
	for _, origin := range r.Header.Values("Origin") {
		if origin == "null" && isSafe(r.Method) {
			continue
		}
		if !strings.EqualFold(origin, scheme(r)+"://"+r.Host) {
			return true
		}
	}
	if isSafe(r.Method) {
		return false
	}
	site := r.Header.Get("Sec-Fetch-Site")
	return site == "cross-site" || site == "same-site"
}

func scheme(r *http.Request) string {
	if r.URL.Scheme == "https" || r.TLS != nil { // see Front.arrive
		return "https"
	}
	return "http"
}
