package proto

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

const (
	serverKeyBits    = 3072 // of a key made here
	minServerKeyBits = 2048 // of one that an operator brings
	maxServerKeyBits = 8192 // a client's TLS takes no larger one: crypto/tls, checkKeySize
)

// A ServerIdentity is the key and certificate that a server of version 4 is
// known by. It comes from [ParseServerIdentity]; however it is printed, it shows
// its pin alone.
type ServerIdentity struct {
	pin  Pin
	held *held
}

// held has the private key behind two pointers: fmt goes through one with some
// verbs where it stands in a field that cannot be asked how to print, and never
// through two.
type held struct{ certificate *tls.Certificate }

// NewServerIdentity makes a key of 3072 bits and a self-signed certificate, as
// one PEM file with both: what [ParseServerIdentity] reads.
func NewServerIdentity() ([]byte, error) {
	key, err := rsa.GenerateKey(rand.Reader, serverKeyBits)
	if err != nil {
		return nil, fmt.Errorf("make the server's key: %w", err)
	}
	certificate, err := selfSigned(key, time.Now())
	if err != nil {
		return nil, fmt.Errorf("make the server's certificate: %w", err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("make the server's key: %w", err)
	}
	return append(
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})...), nil
}

// selfSigned returns a certificate in DER. Clients know its key by the pin and
// ask for nothing else, so that it never expires (RFC 5280, section 4.1.2.5) and
// names no host.
func selfSigned(key crypto.Signer, now time.Time) ([]byte, error) {
	template := x509.Certificate{
		Subject:               pkix.Name{CommonName: "ferry server"},
		NotBefore:             now.Add(-24 * time.Hour).UTC(),
		NotAfter:              time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	return x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
}

// ParseServerIdentity reads a certificate (the chain may follow it) and its
// private key, in PEM: RSA of at least 2048 bits, ECDSA on P-256 or P-384, or
// Ed25519. Both may be the same bytes.
func ParseServerIdentity(certificate, key []byte) (ServerIdentity, error) {
	if bytes.Contains(key, []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----")) || bytes.Contains(key, []byte("Proc-Type: 4,ENCRYPTED")) {
		return ServerIdentity{}, errors.New("server's identity: the private key is encrypted: decrypt it, as with openssl pkey, and let only the server read it")
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return ServerIdentity{}, fmt.Errorf("server's identity: %s", strings.TrimPrefix(err.Error(), "tls: "))
	}
	for i, der := range pair.Certificate[1:] {
		if _, err := x509.ParseCertificate(der); err != nil {
			return ServerIdentity{}, fmt.Errorf("server's identity: certificate %d of the chain: %w", i+2, err)
		}
	}
	if err := checkServerKey(pair.Leaf.PublicKey); err != nil {
		return ServerIdentity{}, fmt.Errorf("server's identity: %w", err)
	}
	return ServerIdentity{pin: sha256.Sum256(pair.Leaf.RawSubjectPublicKeyInfo), held: &held{&pair}}, nil
}

// checkServerKey wants a key that a server may have.
func checkServerKey(public crypto.PublicKey) error {
	const want = "want RSA of 2048 to 8192 bits, ECDSA on P-256 or P-384, or Ed25519"
	switch k := public.(type) {
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < minServerKeyBits || bits > maxServerKeyBits {
			return fmt.Errorf("the key is RSA of %d bits: %s", bits, want)
		}
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() {
			return fmt.Errorf("the key is ECDSA on %s: %s", k.Curve.Params().Name, want)
		}
	case ed25519.PublicKey:
	default:
		return fmt.Errorf("the key is a %T: %s", public, want)
	}
	return nil
}

// Pin is what clients know the server by.
func (id ServerIdentity) Pin() Pin { return id.pin }

// Format prints the pin, whatever the verb.
func (id ServerIdentity) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, id.pin.String()) }

// certificate is what TLS presents and proves.
func (id ServerIdentity) certificate() tls.Certificate { return *id.held.certificate }

// signer is the private key, which is one of those that checkServerKey takes.
func (id ServerIdentity) signer() crypto.Signer {
	return id.held.certificate.PrivateKey.(crypto.Signer) //nolint:forcetypeassert // X509KeyPair returns no other
}

// serverKey is the public key, as SubjectPublicKeyInfo in DER: what the pin is
// the SHA-256 of.
func (id ServerIdentity) serverKey() []byte { return id.held.certificate.Leaf.RawSubjectPublicKeyInfo }
