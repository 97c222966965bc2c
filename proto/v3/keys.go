package v3

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // OAEP of version 3 is defined with SHA-1; no collision resistance is needed there
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
)

const (
	rsaBits = 1024
	// rsaExponent is the one that Crypto++, which the old programs are built
	// on, generates. The usual 65537 makes the DER 162 bytes long, which do not
	// fit the field.
	rsaExponent = 17
)

// GenerateKey returns a new key pair whose public half encodes to exactly
// [PublicKeySize] bytes. crypto/rsa cannot choose the exponent, so the key is
// assembled from two primes.
func GenerateKey() (*rsa.PrivateKey, error) {
	e := big.NewInt(rsaExponent)
	one := big.NewInt(1)
	for {
		p, err := rand.Prime(rand.Reader, rsaBits/2)
		if err != nil {
			return nil, fmt.Errorf("generate prime: %w", err)
		}
		q, err := rand.Prime(rand.Reader, rsaBits/2)
		if err != nil {
			return nil, fmt.Errorf("generate prime: %w", err)
		}
		n := new(big.Int).Mul(p, q)
		phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
		d := new(big.Int).ModInverse(e, phi)
		if d == nil || n.BitLen() != rsaBits || p.Cmp(q) == 0 {
			continue
		}
		key := &rsa.PrivateKey{
			PublicKey: rsa.PublicKey{N: n, E: rsaExponent},
			D:         d,
			Primes:    []*big.Int{p, q},
		}
		key.Precompute()
		if err := key.Validate(); err != nil {
			return nil, fmt.Errorf("generate key: %w", err)
		}
		return key, nil
	}
}

// MarshalPrivateKey encodes a key as PKCS#8 in DER.
func MarshalPrivateKey(key *rsa.PrivateKey) ([]byte, error) {
	return x509.MarshalPKCS8PrivateKey(key)
}

// ParsePrivateKey reads PKCS#8 in DER, as this package and the old programs
// write it, and accepts what [ParsePublicKeyInfo] accepts of the public half.
func ParsePrivateKey(der []byte) (*rsa.PrivateKey, error) {
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	// x509 says nothing of what follows the key.
	if rest, err := asn1.Unmarshal(der, new(asn1.RawValue)); err != nil || len(rest) > 0 {
		return nil, fmt.Errorf("private key: %d bytes behind it", len(rest))
	}
	key, ok := k.(*rsa.PrivateKey)
	if !ok {
		return nil, errors.New("private key: it is not RSA")
	}
	if _, err := MarshalPublicKeyInfo(&key.PublicKey); err != nil {
		return nil, err
	}
	return key, nil
}

// MarshalPublicKeyInfo encodes a key for [PublicKey]: SubjectPublicKeyInfo in
// DER. It fails for a key that does not fit the field.
func MarshalPublicKeyInfo(key *rsa.PublicKey) ([PublicKeySize]byte, error) {
	var field [PublicKeySize]byte
	if err := checkPublicKey(key); err != nil {
		return field, err
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return field, fmt.Errorf("public key: %w", err)
	}
	if copy(field[:], der) != len(der) || len(der) != len(field) {
		return [PublicKeySize]byte{}, fmt.Errorf("public key: %d bytes of DER, the field has %d", len(der), len(field))
	}
	return field, nil
}

// ParsePublicKeyInfo reads what [MarshalPublicKeyInfo] writes: RSA of 1024 bits
// with an odd exponent from 3 to 127, all that fits the field. Encodings other
// than the canonical one are refused.
func ParsePublicKeyInfo(field [PublicKeySize]byte) (*rsa.PublicKey, error) {
	k, err := x509.ParsePKIXPublicKey(field[:])
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	key, ok := k.(*rsa.PublicKey)
	if !ok {
		return nil, errors.New("public key: it is not RSA")
	}
	again, err := MarshalPublicKeyInfo(key)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again[:], field[:]) {
		return nil, errors.New("public key: its DER is not canonical")
	}
	return key, nil
}

func checkPublicKey(key *rsa.PublicKey) error {
	switch {
	case key.N.BitLen() != rsaBits:
		return fmt.Errorf("public key: %d bits, want %d", key.N.BitLen(), rsaBits)
	case key.N.Bit(0) == 0:
		return errors.New("public key: its modulus is even")
	case key.E < 3 || key.E%2 == 0:
		return fmt.Errorf("public key: exponent %d", key.E)
	}
	return nil
}

// WrapKey encrypts an AES key for the owner of pub, for [WrappedKey]: RSA-OAEP
// with SHA-1 and an empty label.
func WrapKey(pub *rsa.PublicKey, key Key) ([WrappedKeySize]byte, error) {
	var wrapped [WrappedKeySize]byte
	b, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, pub, key[:], nil) //nolint:gosec // see the import
	if err != nil {
		return wrapped, fmt.Errorf("wrap key: %w", err)
	}
	if len(b) != len(wrapped) {
		return wrapped, fmt.Errorf("wrap key: %d bytes, the field has %d", len(b), len(wrapped))
	}
	copy(wrapped[:], b)
	return wrapped, nil
}

// UnwrapKey decrypts what [WrapKey] or an old server wrapped.
func UnwrapKey(priv *rsa.PrivateKey, wrapped [WrappedKeySize]byte) (Key, error) {
	b, err := rsa.DecryptOAEP(sha1.New(), nil, priv, wrapped[:], nil) //nolint:gosec // see the import
	if err != nil {
		return Key{}, fmt.Errorf("unwrap key: %w", err)
	}
	if len(b) != keySize {
		return Key{}, fmt.Errorf("unwrap key: %d bytes, want %d", len(b), keySize)
	}
	return Key(b), nil
}
