package gateway

import (
	"errors"
	"net"
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
