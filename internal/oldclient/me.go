package oldclient

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"ferry/proto"
)

// Me is what me.info says: the client's name, its id as 32 hexadecimal digits,
// then its private key in base64, over several lines.
type Me struct {
	Name proto.ClientName
	ID   proto.ClientID
	Key  []byte // PKCS#8 in DER; nil where me.info leaves it to priv.key
}

// ParseMe reads me.info in every form the old programs write: lines may end in
// CRLF, the name may be padded with NULs, the key may be missing. It sees that
// the key is whole, not that it is one.
func ParseMe(b []byte) (Me, error) {
	if len(b) > maxFile {
		return Me{}, fmt.Errorf("it has %d bytes, %d are the limit", len(b), maxFile)
	}
	lines := lines(b)
	if len(lines) < 2 {
		return Me{}, errors.New("it is cut short, want the client's name, its id and its private key")
	}
	name, err := parseName(lines[0])
	if err != nil {
		return Me{}, fmt.Errorf("line 1: %w", err)
	}
	id, err := proto.ParseClientID(strings.TrimSpace(lines[1]))
	if err != nil {
		return Me{}, fmt.Errorf("line 2: %w", err)
	}
	me := Me{Name: name, ID: id}
	if text := strings.Join(lines[2:], "\n"); strings.TrimSpace(text) != "" {
		if me.Key, err = parseBase64(text); err != nil {
			return Me{}, err
		}
	}
	return me, nil
}

// Append appends me.info as the seed's client writes it.
func (m Me) Append(b []byte) []byte {
	return appendBase64(fmt.Appendf(b, "%s\n%s\n", m.Name, m.ID), m.Key)
}

// sequence is the first byte of every PKCS#8 key in DER. The per-slice program
// keeps its priv.key so; base64 of it begins with "M".
const sequence = 0x30

// ParseKey reads priv.key: a private key as PKCS#8 in DER, in base64 or as it
// is. It sees that it is whole, not that it is a key.
func ParseKey(b []byte) ([]byte, error) {
	if len(b) > maxFile {
		return nil, fmt.Errorf("it has %d bytes, %d are the limit", len(b), maxFile)
	}
	if isRaw(b) {
		if err := checkSequence(b); err != nil {
			return nil, err
		}
		return bytes.Clone(b), nil
	}
	return parseBase64(string(b))
}

func isRaw(b []byte) bool { return len(b) > 0 && b[0] == sequence }

// AppendKey appends priv.key as the seed's client writes it.
func AppendKey(b, der []byte) []byte { return appendBase64(b, der) }

// lineLength is that of Crypto++'s Base64Encoder, which wrote these files.
const lineLength = 72

func appendBase64(b, der []byte) []byte {
	text := base64.StdEncoding.EncodeToString(der)
	for len(text) > 0 {
		n := min(lineLength, len(text))
		b = append(append(b, text[:n]...), '\n')
		text = text[n:]
	}
	return b
}

// parseBase64 reads a key over any number of lines.
func parseBase64(text string) ([]byte, error) {
	der, err := base64.StdEncoding.Strict().DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		return nil, errDamagedKey
	}
	if err := checkSequence(der); err != nil {
		return nil, err
	}
	return der, nil
}

// checkSequence finds a key that was cut short or has something behind it;
// whether it is one, [checkKey] finds out, which takes a thousand times longer.
func checkSequence(der []byte) error {
	var whole asn1.RawValue
	rest, err := asn1.Unmarshal(der, &whole)
	if err != nil || len(rest) > 0 || der[0] != sequence {
		return errDamagedKey
	}
	return nil
}

// checkKey wants a private key of RSA as PKCS#8 in DER, and one that version 3
// can use: no server can be asked with another.
func checkKey(der []byte) error {
	if err := checkSequence(der); err != nil {
		return err
	}
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return errDamagedKey // err could show bytes of it
	}
	key, ok := k.(*rsa.PrivateKey)
	if !ok {
		return errors.New("private key: it is not RSA")
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err == nil {
		err = proto.CheckKeyV3(public)
	}
	if err != nil {
		return fmt.Errorf("private key: version 3 cannot use it: %w", err)
	}
	return nil
}

// errDamagedKey shows nothing of the key.
var errDamagedKey = errors.New("private key: it is damaged or cut short")
