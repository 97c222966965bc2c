package proto

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"time"

	"ferry/proto/v4"
)

// What a receipt calls itself.
const (
	payloadType   = "application/vnd.in-toto+json"
	statementType = "https://in-toto.io/Statement/v1"
	predicateType = "https://ferry.invalid/receipt/v1"

	receiptTime = "2006-01-02T15:04:05.000Z" // UTC
)

// A Statement is what a receipt says: that the server held these files, verified
// and durable.
type Statement struct {
	Server   Pin
	Client   ClientName
	ClientID ClientID
	Files    []Stored // each At in UTC, in whole milliseconds
}

// File returns what the statement says of the file with that name and sum; with
// the zero name, of the first one with that sum. ok is false if it says nothing.
func (s Statement) File(name FileName, sum Sum) (f Stored, ok bool) {
	for _, f := range s.Files {
		if f.Sum == sum && (f.Name == name || name == FileName{}) {
			return f, true
		}
	}
	return Stored{}, false
}

// SignReceipt returns a receipt for files that the client has stored, with
// their times cut to milliseconds. More of them than [ServerIdentity.fits] says
// are an error.
func (id ServerIdentity) SignReceipt(client Registration, files []Stored) ([]byte, error) {
	if err := checkFiles(client, files); err != nil {
		return nil, fmt.Errorf("sign a receipt: %w", err)
	}
	payload := appendStatement(nil, id.statement(client, files), id.serverKey())
	signature, err := signPAE(id.signer(), pae(payload))
	if err != nil {
		return nil, fmt.Errorf("sign a receipt: %w", err)
	}
	envelope := appendEnvelope(nil, payload, id.pin, signature)
	if len(envelope) > v4.MaxEnvelope {
		return nil, fmt.Errorf("sign a receipt: it has %d bytes, %d are the limit", len(envelope), v4.MaxEnvelope)
	}
	return envelope, nil
}

func (id ServerIdentity) statement(client Registration, files []Stored) Statement {
	return Statement{Server: id.pin, Client: client.Name, ClientID: client.ID, Files: files}
}

// fits is how many of the first files one receipt can speak of: at least 1.
func (id ServerIdentity) fits(client Registration, files []Stored) int {
	const longestSignature = maxServerKeyBits / 8 // others are shorter
	size := len(appendStatement(nil, id.statement(client, nil), id.serverKey()))
	around := len(appendEnvelope(nil, nil, id.pin, make([]byte, longestSignature)))
	for n, f := range files[:min(len(files), v4.MaxStored)] {
		size += len(appendSubject(nil, f)) + len(appendFile(nil, f)) + len(",,")
		if n > 0 && around+base64.StdEncoding.EncodedLen(size) > v4.MaxEnvelope {
			return n
		}
	}
	return min(len(files), v4.MaxStored)
}

// checkFiles finds what no receipt can say.
func checkFiles(client Registration, files []Stored) error {
	if len(files) < 1 || len(files) > v4.MaxStored {
		return fmt.Errorf("it is for %d files, want 1 to %d", len(files), v4.MaxStored)
	}
	if client.Name == (ClientName{}) {
		return errors.New("the client has no name")
	}
	for _, f := range files {
		year := f.At.UTC().Year()
		if f.Name == (FileName{}) || f.Sum.Size < 0 || f.At.IsZero() || year < 1 || year > 9999 {
			return fmt.Errorf("file %q of %d bytes, stored at %v, cannot be in it", f.Name.String(), f.Sum.Size, f.At)
		}
	}
	return nil
}

// pae is DSSE's pre-authentication encoding: what is signed.
func pae(payload []byte) []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(payload), payload)
}

func signPAE(key crypto.Signer, message []byte) ([]byte, error) {
	if _, ok := key.(ed25519.PrivateKey); ok {
		return key.Sign(nil, message, crypto.Hash(0))
	}
	digest := sha256.Sum256(message)
	signature, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if public, ok := key.Public().(*ecdsa.PublicKey); ok && err == nil {
		return lowerS(public, signature)
	}
	return signature, err
}

func verifyPAE(public crypto.PublicKey, message, signature []byte) error {
	digest := sha256.Sum256(message)
	good := false
	switch k := public.(type) {
	case *rsa.PublicKey:
		good = rsa.VerifyPKCS1v15(k, crypto.SHA256, digest[:], signature) == nil
	case *ecdsa.PublicKey:
		only, err := lowerS(k, signature)
		good = err == nil && bytes.Equal(only, signature) && ecdsa.VerifyASN1(k, digest[:], signature)
	case ed25519.PublicKey:
		good = ed25519.Verify(k, message, signature)
	}
	if !good {
		return errors.New("the signature is not the server's: the receipt was changed")
	}
	return nil
}

// lowerS returns the one of an ECDSA signature's two forms that a receipt has:
// with s goes the curve's order less s, and without the rule anybody could make
// another receipt of one.
func lowerS(public *ecdsa.PublicKey, signature []byte) ([]byte, error) {
	var form struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(signature, &form); err != nil || len(rest) > 0 {
		return nil, errors.New("no ECDSA signature")
	}
	order := public.Curve.Params().N
	if other := new(big.Int).Sub(order, form.S); other.Cmp(form.S) < 0 {
		form.S = other
	}
	return asn1.Marshal(form)
}

// The JSON of receipts has one form, so that it is written by hand: fields in
// their order, no blanks, and in strings nothing is escaped but the quotation
// mark. Names have no back-slash and no control character.

func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	b = append(b, strings.ReplaceAll(s, `"`, `\"`)...)
	return append(b, '"')
}

func appendEnvelope(b, payload []byte, server Pin, signature []byte) []byte {
	b = append(b, `{"payloadType":"`+payloadType+`","payload":"`...)
	b = base64.StdEncoding.AppendEncode(b, payload)
	b = append(b, `","signatures":[{"keyid":"`...)
	b = append(b, server.String()...)
	b = append(b, `","sig":"`...)
	b = base64.StdEncoding.AppendEncode(b, signature)
	return append(b, `"}]}`...)
}

func appendStatement(b []byte, s Statement, serverKey []byte) []byte {
	b = append(b, `{"_type":"`+statementType+`","subject":[`...)
	b = appendEach(b, s.Files, appendSubject)
	b = append(b, `],"predicateType":"`+predicateType+`","predicate":{"client":{"name":`...)
	b = appendString(b, s.Client.String())
	b = append(b, `,"id":"`+s.ClientID.String()+`"},"serverKey":"`...)
	b = base64.StdEncoding.AppendEncode(b, serverKey)
	b = append(b, `","files":[`...)
	b = appendEach(b, s.Files, appendFile)
	return append(b, `]}}`...)
}

func appendEach(b []byte, files []Stored, one func([]byte, Stored) []byte) []byte {
	for i, f := range files {
		if i > 0 {
			b = append(b, ',')
		}
		b = one(b, f)
	}
	return b
}

func appendSubject(b []byte, f Stored) []byte {
	b = appendString(append(b, `{"name":`...), f.Name.String())
	b = hex.AppendEncode(append(b, `,"digest":{"sha256":"`...), f.Sum.SHA256[:])
	return append(b, `"}}`...)
}

func appendFile(b []byte, f Stored) []byte {
	b = strconv.AppendInt(append(b, `{"size":"`...), f.Sum.Size, 10)
	b = strconv.AppendUint(append(b, `","cksum":`...), uint64(f.Sum.Cksum), 10)
	b = append(b, `,"transfer":"`+f.Transfer.String()+`","storedAt":"`...)
	b = f.At.UTC().AppendFormat(b, receiptTime)
	return append(b, `"}`...)
}

// The same, to read. That nothing else is there is seen by writing it again.

type envelopeJSON struct {
	PayloadType string `json:"payloadType"`
	Payload     []byte `json:"payload"`
	Signatures  []struct {
		KeyID string `json:"keyid"`
		Sig   []byte `json:"sig"`
	} `json:"signatures"`
}

type statementJSON struct {
	Subject []struct {
		Name   string `json:"name"`
		Digest struct {
			SHA256 string `json:"sha256"`
		} `json:"digest"`
	} `json:"subject"`
	Predicate struct {
		Client struct {
			Name string `json:"name"`
			ID   string `json:"id"`
		} `json:"client"`
		ServerKey []byte `json:"serverKey"`
		Files     []struct {
			Size     string `json:"size"`
			Cksum    uint32 `json:"cksum"`
			Transfer string `json:"transfer"`
			StoredAt string `json:"storedAt"`
		} `json:"files"`
	} `json:"predicate"`
}

// VerifyReceipt checks a receipt with nothing but the pin of the server that
// signed it. Any byte that is not what [docs/protocol-v4.md] prescribes is an
// error, so that a receipt that was changed in whatever way is none.
func VerifyReceipt(envelope []byte, server Pin) (Statement, error) {
	s, err := verifyReceipt(envelope, server)
	if err != nil {
		return Statement{}, fmt.Errorf("receipt: %w", err)
	}
	return s, nil
}

func verifyReceipt(envelope []byte, server Pin) (Statement, error) {
	if len(envelope) > v4.MaxEnvelope {
		return Statement{}, fmt.Errorf("it has %d bytes, %d are the limit", len(envelope), v4.MaxEnvelope)
	}
	var outer envelopeJSON
	if err := json.Unmarshal(envelope, &outer); err != nil {
		return Statement{}, fmt.Errorf("it is none: %w", err)
	}
	if outer.PayloadType != payloadType || len(outer.Signatures) != 1 {
		return Statement{}, fmt.Errorf("it has the type %.100q and %d signatures, want %q and 1", outer.PayloadType, len(outer.Signatures), payloadType)
	}
	signed := outer.Signatures[0]
	if signed.KeyID != server.String() {
		return Statement{}, fmt.Errorf("it says that %.100q signed it, want %s", signed.KeyID, server)
	}
	var inner statementJSON
	if err := json.Unmarshal(outer.Payload, &inner); err != nil {
		return Statement{}, fmt.Errorf("its payload: %w", err)
	}
	if err := verifySignature(inner.Predicate.ServerKey, server, outer.Payload, signed.Sig); err != nil {
		return Statement{}, err
	}
	s, err := inner.statement(server)
	if err != nil {
		return Statement{}, err
	}
	again := appendEnvelope(nil, appendStatement(nil, s, inner.Predicate.ServerKey), server, signed.Sig)
	if !bytes.Equal(again, envelope) {
		return Statement{}, errors.New("it is not in the form that receipts have: it was changed")
	}
	return s, nil
}

func verifySignature(serverKey []byte, server Pin, payload, signature []byte) error {
	if got := Pin(sha256.Sum256(serverKey)); got != server {
		return fmt.Errorf("the key in it is %s, want %s", got, server)
	}
	public, err := x509.ParsePKIXPublicKey(serverKey)
	if err != nil {
		return fmt.Errorf("the key in it: %w", err)
	}
	if err := checkServerKey(public); err != nil {
		return err
	}
	return verifyPAE(public, pae(payload), signature)
}

// statement checks each value. What it returns need not be written as it was
// read.
func (j statementJSON) statement(server Pin) (Statement, error) {
	s := Statement{Server: server}
	var err error
	if s.Client, err = ParseClientName(j.Predicate.Client.Name); err != nil {
		return Statement{}, err
	}
	if s.ClientID, err = ParseClientID(j.Predicate.Client.ID); err != nil {
		return Statement{}, err
	}
	if n := len(j.Subject); n != len(j.Predicate.Files) || n < 1 || n > v4.MaxStored {
		return Statement{}, fmt.Errorf("%d subjects and %d files, want as many, 1 to %d", n, len(j.Predicate.Files), v4.MaxStored)
	}
	for i := range j.Subject {
		f, err := j.file(i)
		if err != nil {
			return Statement{}, fmt.Errorf("file %d: %w", i+1, err)
		}
		s.Files = append(s.Files, f)
	}
	return s, nil
}

func (j statementJSON) file(i int) (f Stored, err error) {
	subject, file := j.Subject[i], j.Predicate.Files[i]
	if f.Name, err = ParseFileName(subject.Name); err != nil {
		return Stored{}, err
	}
	if err := decodeHex(f.Sum.SHA256[:], subject.Digest.SHA256); err != nil {
		return Stored{}, fmt.Errorf("sha256: %w", err)
	}
	size, err := strconv.ParseUint(file.Size, 10, 63)
	if err != nil {
		return Stored{}, fmt.Errorf("size: %w", err)
	}
	f.Sum.Size, f.Sum.Cksum = int64(size), file.Cksum
	if err := decodeHex(f.Transfer[:], file.Transfer); err != nil {
		return Stored{}, fmt.Errorf("transfer: %w", err)
	}
	if f.At, err = time.Parse(receiptTime, file.StoredAt); err != nil {
		return Stored{}, err
	}
	return f, nil
}

// decodeHex fills dst.
func decodeHex(dst []byte, s string) error {
	if len(s) != hex.EncodedLen(len(dst)) {
		return fmt.Errorf("%d characters, want %d", len(s), hex.EncodedLen(len(dst)))
	}
	_, err := hex.Decode(dst, []byte(s))
	return err
}
