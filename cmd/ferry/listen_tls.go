package main

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"
)

// certificateAge is how long a certificate is used before its files are looked at
// again.
const certificateAge = time.Second

// listenTLS has a listener speak TLS, with a certificate that is read again when
// its files change.
func listenTLS(ln net.Listener, cert, key string, log *slog.Logger) (net.Listener, error) {
	c := &certificate{cert: cert, key: key, log: log}
	if err := c.load(); err != nil {
		return nil, fmt.Errorf("--tls-cert %s, --tls-key %s: %w", cert, key, err)
	}
	return tls.NewListener(ln, &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.get(), nil },
	}), nil
}

// certificate is one that may be renewed. It is safe for concurrent use.
type certificate struct {
	cert, key string
	log       *slog.Logger

	mu      sync.Mutex
	looked  time.Time        // guarded by mu
	version [2]fileVersion   // guarded by mu
	pair    *tls.Certificate // guarded by mu
}

// fileVersion changes when a file does.
type fileVersion struct {
	modified time.Time
	size     int64
}

// get returns the certificate as its files have it. One that cannot be read, such
// as half of a renewed pair, leaves the one before in use.
func (c *certificate) get() *tls.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.looked) >= certificateAge {
		if err := c.renew(); err != nil {
			c.log.Error("the certificate cannot be read again: the one before stays in use", "err", err)
		}
	}
	return c.pair
}

func (c *certificate) load() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.renew()
}

// renew reads the files if they have changed. c.mu is held.
func (c *certificate) renew() error {
	c.looked = time.Now()
	var now [2]fileVersion
	for i, path := range []string{c.cert, c.key} {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		now[i] = fileVersion{info.ModTime(), info.Size()}
	}
	if now == c.version {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return err
	}
	if c.pair != nil {
		c.log.Info("the certificate was renewed")
	}
	c.pair, c.version = &pair, now
	return nil
}
