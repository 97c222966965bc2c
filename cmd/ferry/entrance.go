package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"ferry/gateway"
)

// unixPrefix begins the address of a unix socket.
const unixPrefix = "unix:"

// entrance says how others than those on loopback reach the gateway.
type entrance struct {
	mode, cert, key   string
	behindProxy       bool
	trusted, basePath string
	silence           time.Duration
	minRate           size

	front      gateway.Front // what trusted and basePath come to
	permission fs.FileMode   // what mode comes to
}

func (e *entrance) register(flags *pflag.FlagSet) {
	flags.Lookup("http").Usage = "`ADDRESS` of the page and the API; port 0 takes any that is free. On others than loopback it wants TLS, or --behind-proxy, and a token. " +
		"unix:/PATH is a socket of that name"
	flags.StringVar(&e.mode, "http-mode", "0660", "permissions of the unix socket, an octal `MODE`: who may write to it may talk to the gateway")
	flags.StringVar(&e.cert, "tls-cert", "", "`FILE` with the certificate, in PEM, and those up to its authority; it is read again when it changes")
	flags.StringVar(&e.key, "tls-key", "", "`FILE` with its private key, in PEM")
	flags.BoolVar(&e.behindProxy, "behind-proxy", false, "a proxy in front encrypts: listen on any address without TLS")
	flags.StringVar(&e.trusted, "trusted-proxy", "", "`NETWORKS` with commas between them, such as 10.0.0.0/8, or the word unix for the socket: "+
		"whose Forwarded and X-Forwarded-For, -Proto and -Host count")
	e.minRate = 1 << 10
	flags.DurationVar(&e.silence, "idle-timeout", 30*time.Second, "how long the body of a request may be silent, a `DURATION`; 0 is 30s")
	flags.Var(&e.minRate, "min-rate", "least `SIZE` a second that a body has to come with in the long run; 0 is 1KiB")
	flags.StringVar(&e.basePath, "base-path", "", "`PATH` below which the proxy has the gateway, such as /ferry")
}

// check makes of the flags what they come to. address is that of --http.
func (e *entrance) check(address string) error {
	var errs []error
	add := func(flag, value string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("--%s %s: %w", flag, value, err))
		}
	}
	mode, err := strconv.ParseUint(e.mode, 8, 32)
	if err != nil || mode > 0o777 {
		add("http-mode", e.mode, errors.New("want an octal number such as 0660"))
	}
	e.permission = fs.FileMode(mode).Perm()
	if e.silence < 0 {
		errs = append(errs, fmt.Errorf("--idle-timeout %v: want more than nothing, or 0 for 30s", e.silence))
	}
	if (e.cert == "") != (e.key == "") {
		errs = append(errs, errors.New("--tls-cert and --tls-key: give both or none"))
	}
	if e.trusted != "" {
		e.front.Trusted, e.front.TrustSocket, err = gateway.ParseTrusted(e.trusted)
		add("trusted-proxy", e.trusted, err)
	}
	e.front.BasePath, err = gateway.ParseBasePath(e.basePath)
	add("base-path", e.basePath, err)
	if path, ok := strings.CutPrefix(address, unixPrefix); ok {
		if path == "" || strings.ContainsRune(path, 0) {
			add("http", address, errors.New("want unix:/PATH"))
		}
		return errors.Join(errs...)
	}
	if err := checkAddress("http", address); err != nil {
		return errors.Join(append(errs, err)...)
	}
	add("http", address, gateway.CheckGuarded(address, e.encrypted()))
	return errors.Join(errs...)
}

func (e *entrance) encrypted() bool { return e.cert != "" || e.behindProxy }

// othersRate is how many requests a second are answered where others come in.
const othersRate = 1000

// isOpenToOthers reports whether others than those on this machine come in.
func (e *entrance) isOpenToOthers(address string) bool {
	return e.behindProxy || !strings.HasPrefix(address, unixPrefix) && gateway.CheckListen(address) != nil
}

// checkTokens wants a token where others than those on this machine come in.
func (e *entrance) checkTokens(ctx context.Context, gw *gateway.Gateway, data string, address string) error {
	if !e.isOpenToOthers(address) {
		return nil
	}
	has, err := gw.HasTokens(ctx)
	if err != nil || has {
		return err
	}
	return fmt.Errorf("there is no token, and others than those on this machine could come in: make one, ferry token create NAME --scope upload --data %s", printable(data))
}

// listen opens the address of --http.
func (e *entrance) listen(ctx context.Context, address string, log *slog.Logger) (net.Listener, error) {
	var ln net.Listener
	var err error
	if path, ok := strings.CutPrefix(address, unixPrefix); ok {
		ln, err = listenUnix(ctx, path, e.permission)
	} else {
		ln, err = listen(ctx, "http", address)
	}
	if err != nil || e.cert == "" {
		return ln, err
	}
	encrypted, err := listenTLS(ln, e.cert, e.key, log)
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return encrypted, nil
}

// url is where the gateway is, as far as it knows.
func (e *entrance) url(a net.Addr) string {
	scheme := "http"
	if e.cert != "" {
		scheme = "https"
	}
	if a.Network() == "unix" {
		return unixPrefix + a.String()
	}
	return scheme + "://" + public(a) + e.front.BasePath
}

// curl sends a file there.
func (e *entrance) curl(a net.Addr) string {
	const line = "curl -F file=@FILE "
	if a.Network() != "unix" {
		return line + e.url(a) + "/uploads"
	}
	return line + "--unix-socket " + a.String() + " http://localhost" + e.front.BasePath + "/uploads"
}
