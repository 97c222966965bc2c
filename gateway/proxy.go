package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
)

// Front is what stands between clients and the gateway. The zero value is
// nothing.
type Front struct {
	// BasePath is below which path clients reach the gateway, such as /ferry; "" is
	// the top. Requests come with it or, where the proxy takes it away, without.
	BasePath string
	// Trusted are the proxies whose Forwarded and X-Forwarded-For, -Proto and -Host
	// count. Those of others are as if they were not there.
	Trusted []netip.Prefix
	// TrustSocket trusts whoever comes by a unix socket in the same way.
	TrustSocket bool
}

// ParseBasePath checks a Front's BasePath and returns it without a slash at its end.
func ParseBasePath(s string) (string, error) {
	path := strings.TrimRight(s, "/")
	if path == "" {
		return "", nil
	}
	u, err := url.Parse(path)
	switch {
	case err != nil, u.Path != path, u.EscapedPath() != path, !strings.HasPrefix(path, "/"), strings.Contains(path, "//"):
		return "", fmt.Errorf("%q: want a path such as /ferry, of letters, digits, - and _", s)
	}
	for part := range strings.SplitSeq(path[1:], "/") {
		if part == "." || part == ".." {
			return "", fmt.Errorf("%q: want a path without . and .. in it", s)
		}
	}
	return path, nil
}

// unixWord stands for the unix socket in a list of trusted proxies.
const unixWord = "unix"

// ParseTrusted reads networks and addresses with commas between them, or the
// word unix.
func ParseTrusted(s string) (networks []netip.Prefix, socket bool, err error) {
	for part := range strings.SplitSeq(s, ",") {
		part = strings.TrimSpace(part)
		if part == unixWord {
			socket = true
			continue
		}
		if ip, err := netip.ParseAddr(part); err == nil {
			networks = append(networks, netip.PrefixFrom(ip.Unmap(), ip.Unmap().BitLen()))
			continue
		}
		network, err := netip.ParsePrefix(part)
		if err != nil {
			return nil, false, fmt.Errorf("%q: want a network such as 10.0.0.0/8, an address, or the word unix for a unix socket", part)
		}
		if network.Masked() != network {
			return nil, false, fmt.Errorf("%q: that network is %v", part, network.Masked())
		}
		networks = append(networks, network)
	}
	return networks, socket, nil
}

// arrive returns the request as the client sent it to what stands in front: with
// its own address, scheme and host, and without the base path.
func (f *Front) arrive(r *http.Request) *http.Request {
	u := *r.URL
	u.Scheme = "http" // what the request's first line claims is nobody's word
	if r.TLS != nil {
		u.Scheme = "https"
	}
	u.Path, u.RawPath = f.below(u.Path), f.below(u.RawPath)
	c := *r
	c.URL = &u
	if f.trusts(r) {
		f.forwarded(&c)
	}
	return &c
}

// below is a path without the base path.
func (f *Front) below(path string) string {
	rest, ok := strings.CutPrefix(path, f.BasePath)
	if ok && strings.HasPrefix(rest, "/") {
		return rest
	}
	return path
}

// isAtBase reports whether a request is for the base path without the slash
// without which the page's relative links lead elsewhere.
func (f *Front) isAtBase(r *http.Request) bool {
	return f.BasePath != "" && isSafe(r.Method) && r.URL.Path == f.BasePath
}

// bySocket reports whether a request came by a unix socket, which no browser
// can be led to.
func bySocket(r *http.Request) bool {
	a, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return ok && a.Network() == "unix"
}

// trusts reports whether the peer is a proxy of ours.
func (f *Front) trusts(r *http.Request) bool {
	if bySocket(r) {
		return f.TrustSocket
	}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && f.knows(peer.Addr())
}

func (f *Front) knows(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	for _, network := range f.Trusted {
		if network.Contains(ip) {
			return true
		}
	}
	return false
}

// A hop is what a proxy says of who came to it; "" where it does not.
type hop struct{ from, proto, host string }

// forwarded applies what a trusted proxy says. X-Forwarded-* go before Forwarded:
// proxies set the former, most know nothing of the latter and pass on what anybody
// wrote.
func (f *Front) forwarded(r *http.Request) {
	h := f.xForwarded(r.Header)
	if h == (hop{}) {
		h = f.rfc7239(r.Header)
	}
	if ip, ok := hopAddress(h.from); ok {
		r.RemoteAddr = netip.AddrPortFrom(ip.Unmap(), 0).String() // its port is not known
	}
	if h.proto == "http" || h.proto == "https" {
		r.URL.Scheme = h.proto
	}
	if isHost(h.host) {
		r.Host = h.host
	}
}

func (f *Front) xForwarded(h http.Header) hop {
	last := func(key string) string {
		all := elements(h, key)
		if len(all) == 0 {
			return ""
		}
		return all[len(all)-1]
	}
	client := ""
	for _, address := range backwards(elements(h, "X-Forwarded-For")) {
		client = address
		if ip, ok := hopAddress(address); !ok || !f.knows(ip) {
			break
		}
	}
	return hop{client, strings.ToLower(last("X-Forwarded-Proto")), last("X-Forwarded-Host")}
}

// rfc7239 reads Forwarded from its end: what our own proxies say of who came to
// the first of them. Before that, anybody may have written it.
func (f *Front) rfc7239(h http.Header) (client hop) {
	for _, element := range backwards(elements(h, "Forwarded")) {
		client = hop{}
		for pair := range strings.SplitSeq(element, ";") {
			key, value, _ := strings.Cut(strings.TrimSpace(pair), "=")
			value = strings.Trim(value, `"`)
			switch strings.ToLower(key) {
			case "for":
				client.from = value
			case "proto":
				client.proto = strings.ToLower(value)
			case "host":
				client.host = value
			}
		}
		if ip, ok := hopAddress(client.from); !ok || !f.knows(ip) {
			break
		}
	}
	return client
}

// addressed is where the description of the API has an address as a value, alone on
// its line.
var addressed = regexp.MustCompile(`(?m)^( *(?:- |[a-z_]+: ))(/(?:problems|uploads)/[^ {]+)$`)

// describe returns the description of the API as it is below the base path.
func (f *Front) describe(openAPI []byte) []byte {
	if f.BasePath == "" {
		return openAPI
	}
	below := bytes.Replace(openAPI, []byte("\n    url: /\n"), []byte("\n    url: "+f.BasePath+"\n"), 1)
	return addressed.ReplaceAll(below, []byte("${1}"+f.BasePath+"${2}"))
}

// maxHops bounds how many proxies are asked one after another.
const maxHops = 16

// elements are those of a list that several fields may make.
func elements(h http.Header, key string) []string {
	var all []string
	for _, field := range h.Values(key) {
		for part := range strings.SplitSeq(field, ",") {
			all = append(all, strings.TrimSpace(part))
		}
	}
	return all
}

func backwards(all []string) []string {
	var turned []string
	for i := len(all) - 1; i >= 0 && len(turned) < maxHops; i-- {
		turned = append(turned, all[i])
	}
	return turned
}

// hopAddress reads an address as proxies write it: with a port or without, one of
// IPv6 with brackets or without.
func hopAddress(s string) (netip.Addr, bool) {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr(), true
	}
	ip, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"))
	return ip, err == nil
}

const hostCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:[]"

func isHost(s string) bool {
	return s != "" && len(s) <= 255+len(":65535") && strings.Trim(s, hostCharacters) == ""
}

// address is where clients have what the API calls path.
func (f *Front) address(path string) string {
	if strings.HasPrefix(path, "/") {
		return f.BasePath + path
	}
	return path
}

// relocate has the links of an answer's header lead below the base path.
func (f *Front) relocate(h http.Header) {
	if f.BasePath == "" {
		return
	}
	if to := h.Get("Location"); to != "" {
		h.Set("Location", f.address(to))
	}
	for i, link := range h["Link"] {
		h["Link"][i] = strings.ReplaceAll(link, "</", "<"+f.BasePath+"/")
	}
}

var errNotGuarded = errors.New("other machines could reach it, and what passes would not be encrypted: give --tls-cert and --tls-key, " +
	"or --behind-proxy if a proxy in front does that, or listen on 127.0.0.1, [::1] or localhost")

// CheckGuarded returns why a gateway must not listen on address, HOST:PORT, or
// nil. guarded says that TLS, its own or a proxy's, is between it and others.
func CheckGuarded(address string, guarded bool) error {
	if CheckListen(address) != nil && !guarded {
		if _, _, err := net.SplitHostPort(address); err != nil {
			return err
		}
		return errNotGuarded
	}
	return nil
}
