package proto_test

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
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"ferry/proto"
)

// A keyKind is a kind of key that an operator may bring.
type keyKind struct {
	name string
	make func() (crypto.Signer, error)
}

func rsaOf(bits int) func() (crypto.Signer, error) {
	return func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, bits) }
}

func ecdsaOn(c elliptic.Curve) func() (crypto.Signer, error) {
	return func() (crypto.Signer, error) { return ecdsa.GenerateKey(c, rand.Reader) }
}

func newEd25519() (crypto.Signer, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	return key, err
}

var goodKeys = []keyKind{
	{"RSA-2048", rsaOf(2048)},
	{"RSA-3072", rsaOf(3072)},
	{"P-256", ecdsaOn(elliptic.P256())},
	{"P-384", ecdsaOn(elliptic.P384())},
	{"Ed25519", newEd25519},
}

// A made is a server's key in all its forms.
type made struct {
	key          crypto.Signer
	pem          []byte // certificate and key
	identity     proto.ServerIdentity
	subjectInfo  []byte
	publicKeyPEM []byte
}

// identities has one of each kind, made once.
var identities = sync.OnceValues(func() (map[string]made, error) {
	all := map[string]made{}
	for _, k := range goodKeys {
		key, err := k.make()
		if err != nil {
			return nil, err
		}
		m, err := madeOf(key)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k.name, err)
		}
		all[k.name] = m
	}
	return all, nil
})

func madeOf(key crypto.Signer) (made, error) {
	both, err := pemOf(key)
	if err != nil {
		return made{}, err
	}
	m := made{key: key, pem: both}
	if m.identity, err = proto.ParseServerIdentity(both, both); err != nil {
		return made{}, err
	}
	if m.subjectInfo, err = x509.MarshalPKIXPublicKey(key.Public()); err != nil {
		return made{}, err
	}
	m.publicKeyPEM = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: m.subjectInfo})
	return m, nil
}

// pemOf is a certificate of the key, and the key.
func pemOf(key crypto.Signer) ([]byte, error) {
	der, err := proto.SelfSigned(key, time.Now())
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})...), nil
}

func identityOf(t testing.TB, kind string) made {
	t.Helper()
	all, err := identities()
	if err != nil {
		t.Fatal(err)
	}
	m, ok := all[kind]
	if !ok {
		t.Fatalf("there is no identity %q", kind)
	}
	return m
}

func TestNewServerIdentity(t *testing.T) {
	both, err := proto.NewServerIdentity()
	if err != nil {
		t.Fatal(err)
	}
	id, err := proto.ParseServerIdentity(both, both)
	if err != nil {
		t.Fatal(err)
	}
	first, rest := pem.Decode(both)
	second, rest := pem.Decode(rest)
	if first.Type != "CERTIFICATE" || second.Type != "PRIVATE KEY" || len(rest) != 0 {
		t.Errorf("the file has %s, %s and %d bytes more, want CERTIFICATE, PRIVATE KEY and none", first.Type, second.Type, len(rest))
	}
	c, err := x509.ParseCertificate(first.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := c.Subject.String(), "CN=ferry server"; got != want {
		t.Errorf("subject: got %s, want %s", got, want)
	}
	if bits := c.PublicKey.(*rsa.PublicKey).N.BitLen(); bits != 3072 {
		t.Errorf("the key has %d bits, want 3072", bits)
	}
	if err := c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature); err != nil {
		t.Errorf("the certificate is not signed by its own key: %v", err)
	}
	if now := time.Now(); c.NotBefore.After(now.Add(-23*time.Hour)) || c.NotAfter.Before(now.AddDate(1000, 0, 0)) {
		t.Errorf("valid from %v to %v, want for long, and already for a clock that is an hour behind", c.NotBefore, c.NotAfter)
	}
	if got, want := id.Pin(), proto.Pin(sha256.Sum256(c.RawSubjectPublicKeyInfo)); got != want {
		t.Errorf("pin: got %v, want %v", got, want)
	}
	again, err := proto.NewServerIdentity()
	if err != nil || bytes.Equal(again, both) {
		t.Errorf("a second identity: %v, the same as the first: %t", err, bytes.Equal(again, both))
	}
}

// The pin is what openssl makes of the certificate, as documentation tells
// operators to.
func TestPinAgainstOpenSSL(t *testing.T) {
	for _, k := range goodKeys {
		m := identityOf(t, k.name)
		public := runOpenSSL(t, m.pem, "x509", "-pubkey", "-noout")
		der := runOpenSSL(t, public, "pkey", "-pubin", "-outform", "DER")
		sum := sha256.Sum256(der)
		if got, want := m.identity.Pin().String(), "sha256:"+hex.EncodeToString(sum[:]); got != want {
			t.Errorf("%s: pin %s, openssl says %s", k.name, got, want)
		}
	}
}

// runOpenSSL returns what openssl prints. tools/deps sees to it that it is there.
func runOpenSSL(t *testing.T, stdin []byte, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "openssl", args...)
	cmd.Stdin = bytes.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("openssl %s: %v: %s%s", strings.Join(args, " "), err, out, stderr.Bytes())
	}
	return out
}

func writeFile(t *testing.T, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestServerIdentitySpeaksTLS(t *testing.T) {
	for _, k := range goodKeys {
		m := identityOf(t, k.name)
		a, b := net.Pipe()
		server := tls.Server(a, &tls.Config{Certificates: []tls.Certificate{proto.CertificateOf(m.identity)}, MinVersion: tls.VersionTLS13})
		client := tls.Client(b, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = server.HandshakeContext(t.Context()) // nobody waits for what it says last
		}()
		if err := client.HandshakeContext(t.Context()); err != nil {
			t.Errorf("%s: %v", k.name, err)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		<-done
		peers := client.ConnectionState().PeerCertificates
		if len(peers) != 1 || sha256.Sum256(peers[0].RawSubjectPublicKeyInfo) != m.identity.Pin() {
			t.Errorf("%s: TLS shows %d certificates, or another key than the pin's", k.name, len(peers))
		}
	}
}

// A chain behind the certificate is presented with it, in two files or one.
func TestServerIdentityWithChain(t *testing.T) {
	leaf, issuer := identityOf(t, "P-256"), identityOf(t, "RSA-2048")
	certificate, key := splitPEM(t, leaf.pem)
	chain, _ := splitPEM(t, issuer.pem)
	for _, both := range [][2][]byte{
		{join(certificate, chain), key},
		{join(certificate, chain, key), join(certificate, chain, key)},
		{join(key, certificate, chain), join([]byte("a note of the operator's\n"), key)},
	} {
		id, err := proto.ParseServerIdentity(both[0], both[1])
		if err != nil {
			t.Fatal(err)
		}
		if got := len(proto.CertificateOf(id).Certificate); got != 2 || id.Pin() != leaf.identity.Pin() {
			t.Errorf("%d certificates, pin %v, want 2 and %v", got, id.Pin(), leaf.identity.Pin())
		}
	}
}

func splitPEM(t *testing.T, both []byte) (certificate, key []byte) {
	t.Helper()
	_, key = pem.Decode(both)
	return both[:len(both)-len(key)], key
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func TestParseServerIdentityRefuses(t *testing.T) {
	good, other := identityOf(t, "RSA-2048"), identityOf(t, "RSA-3072")
	certificate, key := splitPEM(t, good.pem)
	otherCertificate, otherKey := splitPEM(t, other.pem)
	_, curveKey := splitPEM(t, identityOf(t, "P-256").pem)
	weak := func(k keyKind) []byte {
		signer, err := k.make()
		if err != nil {
			t.Fatal(err)
		}
		both, err := pemOf(signer)
		if err != nil {
			t.Fatal(err)
		}
		return both
	}
	rsa1024 := weak(keyKind{make: rsaOf(1024)})
	p224 := weak(keyKind{make: ecdsaOn(elliptic.P224())})
	p521 := weak(keyKind{make: ecdsaOn(elliptic.P521())})
	encrypted := runOpenSSL(t, key, "pkcs8", "-topk8", "-passout", "pass:not-a-secret", "-v2", "aes-256-cbc")
	noCertificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("none")})
	for _, test := range []struct {
		name             string
		certificate, key []byte
		want             string
	}{
		{"nothing", nil, nil, "failed to find any PEM data in certificate input"},
		{"no key", certificate, nil, "failed to find any PEM data in key input"},
		{"certificate for key", certificate, certificate, "found a certificate rather than a key"},
		{"switched", key, certificate, "PEM inputs may have been switched"},
		{"another certificate", otherCertificate, key, "private key does not match public key"},
		{"another key", certificate, otherKey, "private key does not match public key"},
		{"another kind of key", certificate, curveKey, "private key type does not match public key type"},
		{"chain before the certificate", join(otherCertificate, certificate), key, "private key does not match public key"},
		{"junk", []byte("x"), []byte("y"), "failed to find any PEM data in certificate input"},
		{"key cut off", certificate, key[:len(key)/2], "failed to find any PEM data in key input"},
		{"certificate of junk", noCertificate, key, "malformed certificate"},
		{"chain of junk", join(certificate, noCertificate), key, "certificate 2 of the chain"},
		{"RSA of 1024 bits", rsa1024, rsa1024, "the key is RSA of 1024 bits: want RSA of 2048 to 8192 bits"},
		{"P-224", p224, p224, "the key is ECDSA on P-224: want"},
		{"P-521", p521, p521, "the key is ECDSA on P-521: want"},
		{"encrypted", certificate, encrypted, "the private key is encrypted: decrypt it"},
	} {
		id, err := proto.ParseServerIdentity(test.certificate, test.key)
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), "server's identity: ") {
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		}
		if id != (proto.ServerIdentity{}) {
			t.Errorf("%s: there is an identity beside the error", test.name)
		}
		if err != nil && strings.Contains(err.Error(), "PRIVATE KEY-----") {
			t.Errorf("%s: the error shows a key: %v", test.name, err)
		}
	}
}

// However an identity is printed or logged, it shows the pin, and never the key.
func TestServerIdentityHidesItsKey(t *testing.T) {
	for _, k := range goodKeys {
		m := identityOf(t, k.name)
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t"} {
			if got, want := fmt.Sprintf(verb, m.identity), m.identity.Pin().String(); got != want {
				t.Errorf("%s with %s: got %.200s, want %s", k.name, verb, got, want)
			}
		}
		// Within a field that fmt may not call a method of, pointers end its walk.
		within := struct{ id proto.ServerIdentity }{m.identity}
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("start", "identity", m.identity)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("start", "identity", m.identity)
		var shown strings.Builder
		shown.WriteString(log.String())
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t"} {
			shown.WriteString(fmt.Sprintf(verb, within) + fmt.Sprintf(verb, &within))
		}
		for _, secret := range secretsOf(t, m.key) {
			if strings.Contains(shown.String(), secret) {
				t.Errorf("%s: the key is in %.500s", k.name, shown.String())
			}
		}
	}
}

// secretsOf is the beginning of a private key in the ways fmt could write it.
func secretsOf(t *testing.T, key crypto.Signer) []string {
	t.Helper()
	var b []byte
	switch k := key.(type) {
	case *rsa.PrivateKey:
		return []string{k.D.String()[:20], fmt.Sprintf("%x", k.D)[:20], k.Primes[0].String()[:20]}
	case *ecdsa.PrivateKey:
		var err error
		if b, err = k.Bytes(); err != nil {
			t.Fatal(err)
		}
	case ed25519.PrivateKey:
		b = k
	}
	decimal := strings.Trim(fmt.Sprintf("%d", b[:8]), "[]")
	return []string{decimal, strings.ReplaceAll(decimal, " ", ", "), hex.EncodeToString(b[:8])}
}
