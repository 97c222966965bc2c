package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// writeCertificate makes a certificate with a serial number of its own.
func writeCertificate(t *testing.T, cert, key string, serial int64) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if path == "" {
			continue
		}
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		// Files that are written in one tick of the disk's clock differ in time, too.
		at := time.Unix(serial, 0)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCertificateIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writeCertificate(t, cert, key, 1)
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		c := &certificate{cert: cert, key: key, log: slog.New(slog.NewTextHandler(&log, nil))}
		if err := c.load(); err != nil {
			t.Fatal(err)
		}
		want := func(serial int64) {
			t.Helper()
			if got := c.get().Leaf.SerialNumber.Int64(); got != serial {
				t.Errorf("certificate %d is in use, want %d", got, serial)
			}
		}
		want(1)
		writeCertificate(t, cert, key, 2)
		want(1) // it is not looked at for every connection
		time.Sleep(certificateAge)
		want(2)
		writeCertificate(t, cert, "", 3) // whose key is not there yet
		time.Sleep(certificateAge)
		want(2)
		if !strings.Contains(log.String(), "the one before stays in use") {
			t.Errorf("the log says %q", log.String())
		}
		writeCertificate(t, cert, key, 4)
		time.Sleep(certificateAge)
		want(4)
	})
}

func TestListenTLS(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writeCertificate(t, cert, key, 1)
	e := &entrance{mode: "0660", cert: cert, key: key}
	if err := e.check("0.0.0.0:0"); err != nil {
		t.Fatal(err)
	}
	ln, err := e.listen(t.Context(), "127.0.0.1:0", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	done := make(chan error, 1)
	go func() {
		conn, err := ln.Accept()
		if err == nil {
			_, err = conn.Write([]byte("x"))
			_ = conn.Close()
		}
		done <- err
	}()
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}}}
	conn, err := d.DialContext(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := conn.(*tls.Conn).ConnectionState().NegotiatedProtocol; got != "http/1.1" {
		t.Errorf("it speaks %q, want http/1.1", got)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := e.url(ln.Addr()); got != "https://"+ln.Addr().(*net.TCPAddr).String() {
		t.Errorf("its URL is %s", got)
	}
}
