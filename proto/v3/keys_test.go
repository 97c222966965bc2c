package v3_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ferry/proto/prototest"
	v3 "ferry/proto/v3"
)

func TestGenerateKey(t *testing.T) {
	var before *rsa.PrivateKey
	for range 5 {
		key, err := v3.GenerateKey()
		if err != nil {
			t.Fatal(err)
		}
		if err := key.Validate(); err != nil {
			t.Errorf("validate: %v", err)
		}
		if key.E != 17 || key.N.BitLen() != 1024 {
			t.Errorf("got exponent %d and %d bits, want 17 and 1024", key.E, key.N.BitLen())
		}
		if before != nil && before.Equal(key) {
			t.Error("the same key twice")
		}
		before = key
		der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
		if err != nil || len(der) != v3.PublicKeySize {
			t.Errorf("the public key has %d bytes of DER, want %d: %v", len(der), v3.PublicKeySize, err)
		}
		field, err := v3.MarshalPublicKeyInfo(&key.PublicKey)
		if err != nil || !bytes.Equal(field[:], der) {
			t.Errorf("marshal public key: got %x, %v, want %x", field, err, der)
		}
		if got, err := v3.ParsePublicKeyInfo(field); err != nil || !got.Equal(&key.PublicKey) {
			t.Errorf("parse public key: %v", err)
		}
		priv, err := v3.MarshalPrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := v3.ParsePrivateKey(priv); err != nil || !got.Equal(key) {
			t.Errorf("parse private key: %v", err)
		}
		wraps(t, key)
	}
}

// wraps checks that a key comes out as it was wrapped, and in other bytes each
// time.
func wraps(t *testing.T, key *rsa.PrivateKey) {
	t.Helper()
	want := v3.NewKey()
	wrapped, err := v3.WrapKey(&key.PublicKey, want)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := v3.UnwrapKey(key, wrapped); got != want || err != nil {
		t.Errorf("the unwrapped key is another one: %v", err)
	}
	again, err := v3.WrapKey(&key.PublicKey, want)
	if err != nil || again == wrapped {
		t.Errorf("wrapped twice to the same bytes, or not at all: %v", err)
	}
	wrapped[7] ^= 1
	if got, err := v3.UnwrapKey(key, wrapped); got != (v3.Key{}) || err == nil {
		t.Errorf("a changed wrapped key: got a key or no error: %v", err)
	}
}

func TestUnwrapKeyRefusesOtherSizes(t *testing.T) {
	key, err := v3.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{0, 16, 31, 33} {
		wrapped := [v3.WrappedKeySize]byte(openOAEP(t, &key.PublicKey, make([]byte, size)))
		if got, err := v3.UnwrapKey(key, wrapped); got != (v3.Key{}) || err == nil {
			t.Errorf("a wrapped key of %d bytes was taken: %v", size, err)
		}
	}
}

func TestPublicKeyRefuses(t *testing.T) {
	other := func(bits int) *rsa.PublicKey {
		n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
		return &rsa.PublicKey{N: n.Add(n, big.NewInt(99)), E: 17}
	}
	with := func(change func(k *rsa.PublicKey)) *rsa.PublicKey {
		k := other(1024)
		change(k)
		return k
	}
	if _, err := v3.MarshalPublicKeyInfo(other(1024)); err != nil {
		t.Fatalf("a fitting key: %v", err)
	}
	for what, key := range map[string]*rsa.PublicKey{
		"512 bits":       other(512),
		"1016 bits":      other(1016),
		"1023 bits":      other(1023),
		"1025 bits":      other(1025),
		"2048 bits":      other(2048),
		"exponent 65537": with(func(k *rsa.PublicKey) { k.E = 65537 }),
		"exponent 129":   with(func(k *rsa.PublicKey) { k.E = 129 }),
		"exponent 16":    with(func(k *rsa.PublicKey) { k.E = 16 }),
		"exponent 1":     with(func(k *rsa.PublicKey) { k.E = 1 }),
		"exponent -17":   with(func(k *rsa.PublicKey) { k.E = -17 }),
		"even modulus":   with(func(k *rsa.PublicKey) { k.N.Add(k.N, big.NewInt(1)) }),
	} {
		if got, err := v3.MarshalPublicKeyInfo(key); err == nil || got != [v3.PublicKeySize]byte{} {
			t.Errorf("%s: got %x, %v, want an error alone", what, got, err)
		}
	}
	field, err := v3.MarshalPublicKeyInfo(other(1024))
	if err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(f *[v3.PublicKeySize]byte){
		"zeros":            func(f *[v3.PublicKeySize]byte) { clear(f[:]) },
		"another sequence": func(f *[v3.PublicKeySize]byte) { f[0] = 0x31 },
		"a longer length":  func(f *[v3.PublicKeySize]byte) { f[2]++ },
		"a short modulus":  func(f *[v3.PublicKeySize]byte) { f[29] = 0 },
		"even exponent":    func(f *[v3.PublicKeySize]byte) { f[159] = 16 },
		"exponent 1":       func(f *[v3.PublicKeySize]byte) { f[159] = 1 },
	} {
		bad := field
		change(&bad)
		if got, err := v3.ParsePublicKeyInfo(bad); err == nil || got != nil {
			t.Errorf("%s: got %v, %v, want an error alone", what, got, err)
		}
	}
}

func TestPrivateKeyRefuses(t *testing.T) {
	large, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for what, key := range map[string]any{"2048 bits": large, "another algorithm": curve} {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := v3.ParsePrivateKey(der); err == nil || got != nil {
			t.Errorf("%s: got a key and %v, want an error alone", what, err)
		}
	}
	good := prototest.Vectors(t)[0].PrivateKey
	for what, der := range map[string][]byte{
		"nothing": nil, "half": good[:len(good)/2], "a byte too many": append(bytes.Clone(good), 0),
	} {
		if got, err := v3.ParsePrivateKey(der); err == nil || got != nil {
			t.Errorf("%s: got a key and %v, want an error alone", what, err)
		}
	}
}

func TestKeyIsNeverPrinted(t *testing.T) {
	key := v3.NewKey()
	if key == v3.NewKey() || key == (v3.Key{}) {
		t.Fatal("keys are not random")
	}
	type holder struct{ Key v3.Key }
	var said []string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%o", "%b", "%c", "%U", "%t"} {
		for _, v := range []any{key, &key, holder{key}, []v3.Key{key}, map[v3.Key]int{key: 1}} {
			said = append(said, fmt.Sprintf(verb, v))
		}
	}
	text, err := json.Marshal(map[string]any{"key": key, "in": holder{key}})
	if err != nil {
		t.Fatal(err)
	}
	said = append(said, string(text))
	for _, s := range said {
		if !strings.Contains(s, "hidden") {
			t.Errorf("printed as %q, want a placeholder", s)
		}
		for _, form := range []string{
			string(key[:4]), hex.EncodeToString(key[:4]), fmt.Sprintf("%d %d %d", key[0], key[1], key[2]),
			fmt.Sprintf("%d,%d,%d", key[0], key[1], key[2]), fmt.Sprintf("%x %x %x", key[0], key[1], key[2]),
		} {
			if strings.Contains(strings.ToLower(s), form) {
				t.Errorf("printed as %q: it has the key in it", s)
			}
		}
	}
}

// openssl is another implementation of all this, where there is one.
func openssl(t *testing.T, stdin []byte, args ...string) []byte {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no openssl here to compare with")
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("openssl %s: %v: %s", strings.Join(args, " "), err, stderr.String())
	}
	return out
}

// openOAEP wraps text as openssl does.
func openOAEP(t *testing.T, pub *rsa.PublicKey, text []byte) []byte {
	t.Helper()
	field, err := v3.MarshalPublicKeyInfo(pub)
	if err != nil {
		t.Fatal(err)
	}
	return openssl(t, text, append([]string{
		"pkeyutl", "-encrypt", "-pubin", "-keyform", "DER", "-inkey", keyFile(t, field[:]),
	}, oaep...)...)
}

var oaep = []string{"-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha1", "-pkeyopt", "rsa_mgf1_md:sha1"}

func keyFile(t *testing.T, der []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key.der")
	if err := os.WriteFile(path, der, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestKeysAgainstOpenSSL(t *testing.T) {
	key, err := v3.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := v3.MarshalPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file := keyFile(t, der)
	if got := string(openssl(t, nil, "pkey", "-inform", "DER", "-in", file, "-check", "-noout")); !strings.Contains(got, "Key is valid") {
		t.Errorf("private key: openssl says %q, want that it is valid", got)
	}
	field, err := v3.MarshalPublicKeyInfo(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	text := string(openssl(t, field[:], "pkey", "-pubin", "-inform", "DER", "-text", "-noout"))
	if !strings.Contains(text, "(1024 bit)") || !strings.Contains(text, "Exponent: 17 (0x11)") {
		t.Errorf("public key: openssl says %q, want 1024 bits and exponent 17", text)
	}
	if got := openssl(t, der, "pkey", "-inform", "DER", "-pubout", "-outform", "DER"); !bytes.Equal(got, field[:]) {
		t.Errorf("public key: got %x, openssl makes %x", field, got)
	}

	want := v3.NewKey()
	wrapped, err := v3.WrapKey(&key.PublicKey, want)
	if err != nil {
		t.Fatal(err)
	}
	args := append([]string{"pkeyutl", "-decrypt", "-keyform", "DER", "-inkey", file}, oaep...)
	if got := openssl(t, wrapped[:], args...); !bytes.Equal(got, want[:]) {
		t.Errorf("our wrapped key: openssl gets %d other bytes", len(got))
	}
	theirs := [v3.WrappedKeySize]byte(openOAEP(t, &key.PublicKey, want[:]))
	if got, err := v3.UnwrapKey(key, theirs); got != want || err != nil {
		t.Errorf("openssl's wrapped key: we get another one, %v", err)
	}
}

func TestCiphertextAgainstOpenSSL(t *testing.T) {
	for _, size := range []int64{0, 1, 16, 5000} {
		var got []byte
		for _, p := range pack(t, v3.Mainstream(734), pattern(size)) {
			got = append(got, p.cipher...)
		}
		want := openssl(t, pattern(size), "enc", "-aes-256-cbc", "-K", hex.EncodeToString(testKey[:]), "-iv", strings.Repeat("0", 32))
		if !bytes.Equal(got, want) {
			t.Errorf("%d bytes: the ciphertext is not openssl's", size)
		}
	}
}
