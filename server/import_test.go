package server_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"ferry/proto"
	"ferry/server"
)

// TestImportClientKeys: a client that could never reconnect is not taken over,
// and its name stays free.
func TestImportClientKeys(t *testing.T) {
	h := openOn(t, t.TempDir(), server.Limits{})
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	long, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	fits := short.PublicKey
	fits.E = 17
	name, err := proto.ParseClientName("alice")
	if err != nil {
		t.Fatal(err)
	}
	r := proto.Registration{ID: proto.ClientID{1}, Name: name}
	for what, key := range map[string]any{"exponent 65537": &short.PublicKey, "2048 bits": &long.PublicKey, "no RSA": &curve.PublicKey} {
		if r.PublicKey, err = x509.MarshalPKIXPublicKey(key); err != nil {
			t.Fatal(err)
		}
		if err := h.ImportClient(t.Context(), r, time.Time{}); err == nil || !strings.Contains(err.Error(), "public key") {
			t.Errorf("%s: %v, want that the key is not one of version 3", what, err)
		}
	}
	if r.PublicKey, err = x509.MarshalPKIXPublicKey(&fits); err != nil {
		t.Fatal(err)
	}
	if err := h.ImportClient(t.Context(), r, time.Time{}); err != nil {
		t.Errorf("a key of version 3: %v", err)
	}
	if err := h.ImportClient(t.Context(), r, time.Time{}); err != nil {
		t.Errorf("once more: %v", err)
	}
}
