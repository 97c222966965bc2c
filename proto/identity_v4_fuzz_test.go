package proto_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"

	"ferry/proto"
)

// FuzzServerIdentity: an identity that is taken has a key that a server may have,
// and its pin is that key's; an error comes alone. Neither shows the private key.
func FuzzServerIdentity(f *testing.F) {
	kinds := []keyKind{
		{"RSA-2048", rsaOf(2048)}, {"P-384", ecdsaOn(elliptic.P384())}, {"Ed25519", newEd25519},
		{"RSA-1024", rsaOf(1024)}, {"P-521", ecdsaOn(elliptic.P521())},
	}
	var before []byte
	for _, k := range kinds {
		both := must(pemOf(must(k.make())))
		f.Add(both, both)
		f.Add(append(bytes.Clone(both), both...), both)
		f.Add(both[:len(both)/3], both)
		f.Add(both, both[:len(both)-40])
		f.Add(before, both)
		before = both
		block, _ := pem.Decode(both)
		f.Add(append(bytes.Clone(both), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: block.Bytes[:50]})...), both)
		encrypted := bytes.ReplaceAll(both, []byte(" PRIVATE KEY-"), []byte(" ENCRYPTED PRIVATE KEY-"))
		f.Add(both, encrypted)
	}
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, certificate, key []byte) {
		id, err := proto.ParseServerIdentity(certificate, key)
		if err != nil {
			if id != (proto.ServerIdentity{}) {
				t.Errorf("there is %v beside %v", id, err)
			}
			checkUnseen(t, err.Error(), key)
			return
		}
		checkUnseen(t, fmt.Sprintf("%v %+v %#v %x", id, id, id, id), key)
		if id.Pin() == (proto.Pin{}) || fmt.Sprint(id) != id.Pin().String() {
			t.Errorf("%v has the pin %v", id, id.Pin())
		}
		shown := proto.CertificateOf(id)
		for _, der := range shown.Certificate {
			if _, err := x509.ParseCertificate(der); err != nil {
				t.Errorf("it shows what is no certificate: %v", err)
			}
		}
		leaf := must(x509.ParseCertificate(shown.Certificate[0]))
		if id.Pin() != sha256.Sum256(leaf.RawSubjectPublicKeyInfo) {
			t.Errorf("the pin %v is not its key's", id.Pin())
		}
		checkServerKeys(t, shown.PrivateKey.(crypto.Signer).Public(), leaf.PublicKey)
	})
}

// checkServerKeys wants a key that a server may have, and its private half.
func checkServerKeys(t *testing.T, private, public crypto.PublicKey) {
	t.Helper()
	good := false
	switch k := public.(type) {
	case *rsa.PublicKey:
		good = k.N.BitLen() >= 2048 && k.N.BitLen() <= 8192 && k.Equal(private)
	case *ecdsa.PublicKey:
		good = (k.Curve == elliptic.P256() || k.Curve == elliptic.P384()) && k.Equal(private)
	case ed25519.PublicKey:
		good = k.Equal(private)
	}
	if !good {
		t.Errorf("a %T is taken with a %T", public, private)
	}
}

// checkUnseen wants no line of a key's file in text.
func checkUnseen(t *testing.T, text string, key []byte) {
	t.Helper()
	for line := range strings.Lines(string(key)) {
		if line = strings.TrimSpace(line); len(line) >= 32 && !strings.HasPrefix(line, "-----") && strings.Contains(text, line) {
			t.Errorf("%q shows the private key", text)
		}
	}
}
