package proto

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"ferry/proto/v3"
)

const (
	defaultPort = "1256"
	// maxWindow is more than keeps any network busy, and little enough for a
	// server that has to skip what is in flight of a file it refused.
	maxWindow = 1024
	// parallel is how many connections of one client a server is asked to serve
	// at once that is known to cope.
	parallel = 8
)

// Destination is a native server's address and the version spoken there, as
// parsed from a URL such as v3://127.0.0.1:1256?window=64.
//
//	v3://HOST:PORT[?dialect=seed|mainstream|per-slice][&slice=N][&window=N]
//
// A missing port is 1256. window is how many packets may be in flight without
// their acknowledgement; 1, the default, is all that the seed's server copes
// with. A larger window, of at most 1024, says that the server is known to
// cope, also with several connections of one client at once and with several
// files in one connection. Destinations are comparable: equal ones are the same
// server, spoken to in the same way.
type Destination struct {
	url     string // canonical
	address string // host:port
	dialect v3.Dialect
	window  int
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
	switch {
	case u.Scheme != "v3":
		return Destination{}, fmt.Errorf("scheme %q: want v3, as in v3://HOST:PORT", u.Scheme)
	case u.Opaque != "" || u.Hostname() == "":
		return Destination{}, errors.New("no host: want v3://HOST:PORT")
	case u.User != nil:
		return Destination{}, errors.New("user and password have no meaning here")
	case u.Path != "":
		return Destination{}, fmt.Errorf("path %q: none is allowed", u.Path)
	case u.Fragment != "" || strings.Contains(s, "#"):
		return Destination{}, errors.New("a fragment has no meaning here")
	}
	d := Destination{}
	if d.address, err = hostPort(u); err != nil {
		return Destination{}, err
	}
	if err := d.options(u); err != nil {
		return Destination{}, err
	}
	d.url = d.canonical()
	return d, nil
}

func hostPort(u *url.URL) (string, error) {
	port := u.Port()
	if port == "" {
		if strings.HasSuffix(u.Host, ":") {
			return "", errors.New("port is empty")
		}
		port = defaultPort
	}
	if _, err := number("port", port, 1, 65535); err != nil {
		return "", err
	}
	host := strings.ToLower(u.Hostname())
	if err := checkHost(host, strings.HasPrefix(u.Host, "[")); err != nil {
		return "", fmt.Errorf("host %q: %w", host, err)
	}
	return net.JoinHostPort(host, port), nil
}

// checkHost wants a name or an address; brackets belong around one of IPv6, and
// around nothing else.
func checkHost(host string, brackets bool) error {
	if brackets {
		if a, err := netip.ParseAddr(host); err != nil || !a.Is6() {
			return errors.New("want an IPv6 address in the brackets")
		}
		return nil
	}
	for _, r := range host {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && !strings.ContainsRune("-._", r) {
			return errors.New("want a name or an address, one of IPv6 in brackets")
		}
	}
	return nil
}

func (d *Destination) options(u *url.URL) error {
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return err
	}
	name, slice := "seed", 0
	d.window = 1
	for key, values := range query {
		if len(values) != 1 {
			return fmt.Errorf("%s is given %d times", key, len(values))
		}
		switch value := values[0]; key {
		case "dialect":
			name = value
		case "slice":
			slice, err = number(key, value, 1, v3.MaxSlice)
		case "window":
			d.window, err = number(key, value, 1, maxWindow)
		default:
			err = fmt.Errorf("%q: want dialect, slice or window", key)
		}
		if err != nil {
			return err
		}
	}
	d.dialect, err = v3.DialectNamed(name, slice)
	return err
}

// number reads a decimal number in its only form.
func number(what, s string, least, most int) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < least || n > most || strconv.Itoa(n) != s {
		return 0, fmt.Errorf("%s %q: want a number from %d to %d", what, s, least, most)
	}
	return n, nil
}

// canonical leaves out what is the default.
func (d Destination) canonical() string {
	var options []string
	if d.dialect.Name != "seed" {
		options = append(options, "dialect="+d.dialect.Name)
	}
	if usual, err := v3.DialectNamed(d.dialect.Name, 0); err != nil || usual.Slice != d.dialect.Slice {
		options = append(options, "slice="+strconv.Itoa(d.dialect.Slice))
	}
	if d.window != 1 {
		options = append(options, "window="+strconv.Itoa(d.window))
	}
	u := url.URL{Scheme: "v3", Host: d.address, RawQuery: strings.Join(options, "&")}
	return u.String()
}

// String returns the URL in its canonical form.
func (d Destination) String() string { return d.url }

// MaxSize is the largest file in bytes that the destination's version and
// dialect can carry; for the seed dialect 517,857,567.
func (d Destination) MaxSize() int64 { return d.dialect.MaxSize() }

// Parallel is how many connections of one client the server copes with at
// once: 1 for a server that is not known to cope with more.
func (d Destination) Parallel() int {
	if d.copes() {
		return parallel
	}
	return 1
}

// copes reports whether the server takes more than the seed's does.
func (d Destination) copes() bool { return d.window > 1 }
