package proto

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// Destination is a native server's address and the version spoken there, as
// parsed from a URL.
//
//	v4://HOST:PORT[?pin=sha256:HEX][&ca=system][&packet=N]
//	v3://HOST:PORT[?dialect=seed|mainstream|per-slice][&slice=N][&window=N]
//
// A missing port is 1257 in version 4 and 1256 in version 3.
//
// In version 4, pin is that of the server's key: see [Pin]. ca=system trusts
// the system's certificate authorities and the host's name instead. Without
// either nothing can be sent: see [Destination.WithPin]. packet is the largest
// packet in bytes, 8192 to 1048576, that the client asks for; 65536.
//
// In version 3, window is how many packets may be in flight without
// their acknowledgement; 1, the default, is all that the seed's server copes
// with. A larger window, of at most 1024, says that the server is known to
// cope, also with several connections of one client at once and with several
// files in one connection.
//
// Destinations are comparable: equal ones are the same server, spoken to in the
// same way.
type Destination struct {
	url     string // canonical
	address string // host:port
	version destinationVersion
}

// A destinationVersion is what a URL says beside the address, for one version.
// Values are comparable.
type destinationVersion interface {
	// query returns the options that are not the default, in their canonical form.
	query() string
	maxSize() int64
	parallel() int
	// normal brings a name to the form that the version wants.
	normal(name string) string
	checkName(name FileName) error
	newClient(cfg ClientConfig) clientVersion
}

// scheme is how a version's URLs are read.
type scheme struct {
	port  string
	parse func(options map[string]string) (destinationVersion, error)
}

var schemes = map[string]scheme{
	"v3": {port: "1256", parse: parseV3},
	"v4": {port: "1257", parse: parseV4},
}

// ParseDestination reads such a URL. An unknown scheme, key or value is an error
// that says what is allowed.
func ParseDestination(s string) (Destination, error) {
	d, err := parseDestination(s)
	if err != nil {
		return Destination{}, fmt.Errorf("destination %q: %w", s, err)
	}
	return d, nil
}

func parseDestination(s string) (Destination, error) {
	u, err := url.Parse(s)
	if err != nil {
		return Destination{}, errors.Unwrap(err) // without the URL, which the caller names
	}
	kind, ok := schemes[u.Scheme]
	switch {
	case !ok:
		return Destination{}, fmt.Errorf("scheme %q: want v4 or v3, as in v4://HOST:PORT", u.Scheme)
	case u.Opaque != "" || u.Hostname() == "":
		return Destination{}, fmt.Errorf("no host: want %s://HOST:PORT", u.Scheme)
	case u.User != nil:
		return Destination{}, errors.New("user and password have no meaning here")
	case u.Path != "":
		return Destination{}, fmt.Errorf("path %q: none is allowed", u.Path)
	case u.Fragment != "" || strings.Contains(s, "#"):
		return Destination{}, errors.New("a fragment has no meaning here")
	}
	d := Destination{}
	if d.address, err = hostPort(u, kind.port); err != nil {
		return Destination{}, err
	}
	given, err := options(u)
	if err != nil {
		return Destination{}, err
	}
	if d.version, err = kind.parse(given); err != nil {
		return Destination{}, err
	}
	d.url = canonical(u.Scheme, d.address, d.version)
	return d, nil
}

func canonical(scheme, address string, v destinationVersion) string {
	u := url.URL{Scheme: scheme, Host: address, RawQuery: v.query()}
	return u.String()
}

func hostPort(u *url.URL, usual string) (string, error) {
	port := u.Port()
	if port == "" {
		if strings.HasSuffix(u.Host, ":") {
			return "", errors.New("port is empty")
		}
		port = usual
	}
	if _, err := number("port", port, 1, 65535); err != nil {
		return "", err
	}
	host, err := canonicalHost(strings.ToLower(u.Hostname()), strings.HasPrefix(u.Host, "["))
	if err != nil {
		return "", fmt.Errorf("host %q: %w", u.Hostname(), err)
	}
	return net.JoinHostPort(host, port), nil
}

// canonicalHost wants a name or an address in lower case; brackets belong around
// one of IPv6, and around nothing else. Of an IPv6 address's many spellings it
// returns the one of RFC 5952, by which servers and identities are remembered.
func canonicalHost(host string, brackets bool) (string, error) {
	if brackets {
		a, err := netip.ParseAddr(host)
		if err != nil || !a.Is6() {
			return "", errors.New("want an IPv6 address in the brackets")
		}
		return a.String(), nil
	}
	for _, r := range host {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && !strings.ContainsRune("-._", r) {
			return "", errors.New("want a name or an address, one of IPv6 in brackets")
		}
	}
	return host, nil
}

// options reads a query in which each key is given once.
func options(u *url.URL) (map[string]string, error) {
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, err
	}
	given := map[string]string{}
	for key, values := range query {
		if len(values) != 1 {
			return nil, fmt.Errorf("%s is given %d times", key, len(values))
		}
		given[key] = values[0]
	}
	return given, nil
}

// number reads a decimal number in its only form.
func number(what, s string, least, most int) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < least || n > most || strconv.Itoa(n) != s {
		return 0, fmt.Errorf("%s %q: want a number from %d to %d", what, s, least, most)
	}
	return n, nil
}

// String returns the URL in its canonical form.
func (d Destination) String() string { return d.url }

// Address returns HOST:PORT.
func (d Destination) Address() string { return d.address }

// MaxSize is the largest file in bytes that the destination's version and
// dialect can carry; for version 3's seed dialect 517,857,567.
func (d Destination) MaxSize() int64 { return d.version.maxSize() }

// CheckName returns an [ErrName] if the destination's version cannot carry a
// file of that name: version 3 wants a plain name of at most 255 bytes, version
// 4 one in NFC.
func (d Destination) CheckName(name FileName) error {
	if name == (FileName{}) {
		return fmt.Errorf("file %w: it is empty", ErrName)
	}
	return d.version.checkName(name)
}

// ParseName is [ParseFileName] and [Destination.CheckName] for a name in whatever
// form somebody has it: for version 4 it is brought to NFC.
func (d Destination) ParseName(s string) (FileName, error) {
	name, err := ParseFileName(d.version.normal(s))
	if err == nil {
		err = d.CheckName(name)
	}
	if err != nil {
		return FileName{}, err
	}
	return name, nil
}

// Parallel is how many files a client may deliver at once: 1 to a server that is
// not known to cope with more.
func (d Destination) Parallel() int { return d.version.parallel() }
