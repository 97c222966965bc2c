package v4

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// The labels of the key schedule.
const (
	ExporterLabel = "EXPORTER-ferry/4" // RFC 8446, section 7.5: without a context, 32 bytes
	ExporterSize  = 32

	labelSecret = "ferry/4 secret"           // of RSA-OAEP
	labelClient = "ferry/4 client to server" // of HKDF, before the client's id
	labelServer = "ferry/4 server to client"
	labelNext   = "ferry/4 next key"
	labelRotate = "ferry/4 new key"
)

// Sizes of RSA keys in bits.
const (
	KeyBits    = 3072
	maxKeyBits = 8192
)

// ErrOpen: a sealed message that this key did not seal, or not as the one that
// comes next, or that was changed.
var ErrOpen = errors.New("a sealed message does not open: it was changed, moved, repeated or left out, or the two ends have different keys")

// Secret is the 32 random bytes that a session's keys are made from.
type Secret [32]byte

// Format hides the secret from logs, whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "v4.Secret(hidden)") }

// NewSecret returns a random secret.
func NewSecret() Secret {
	var s Secret
	_, _ = rand.Read(s[:]) // never fails
	return s
}

// ParseKey reads a client's public key: RSA of 3072 to 8192 bits.
func ParseKey(der []byte) (*rsa.PublicKey, error) {
	if len(der) > MaxKey {
		return nil, fmt.Errorf("%w key: %d bytes", ErrFormat, len(der))
	}
	k, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("%w key: %w", ErrFormat, err)
	}
	public, ok := k.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%w key: want RSA, got %T", ErrFormat, k)
	}
	if bits := public.N.BitLen(); bits < KeyBits || bits > maxKeyBits {
		return nil, fmt.Errorf("%w key: RSA of %d bits, want %d to %d", ErrFormat, bits, KeyBits, maxKeyBits)
	}
	return public, nil
}

// WrapSecret encrypts s for a client: RSA-OAEP with SHA-256 (RFC 8017).
func WrapSecret(public *rsa.PublicKey, s Secret) ([]byte, error) {
	return rsa.EncryptOAEP(sha256.New(), rand.Reader, public, s[:], []byte(labelSecret))
}

// UnwrapSecret is the other half of [WrapSecret].
func UnwrapSecret(private *rsa.PrivateKey, wrapped []byte) (Secret, error) {
	if len(wrapped) != private.Size() { // crypto/rsa takes one without its first bytes, if these are 0
		return Secret{}, errors.New("the wrapped secret is not as long as the key")
	}
	b, err := rsa.DecryptOAEP(sha256.New(), nil, private, wrapped, []byte(labelSecret))
	if err != nil || len(b) != len(Secret{}) {
		return Secret{}, errors.New("the wrapped secret is for another key")
	}
	return Secret(b), nil
}

// RotateContext is what a new key signs (RSASSA-PKCS1-v1_5 with SHA-256, RFC
// 8017) to take an old one's place, in this TLS connection alone.
func RotateContext(exporter []byte, client [IDSize]byte, key []byte) []byte {
	b := append([]byte(labelRotate), 0)
	b = append(b, exporter...)
	b = append(b, client[:]...)
	return append(b, key...)
}

// SignRotate signs a RotateContext.
func SignRotate(private *rsa.PrivateKey, context []byte) ([]byte, error) {
	digest := sha256.Sum256(context)
	return rsa.SignPKCS1v15(nil, private, crypto.SHA256, digest[:])
}

// CheckRotate checks the signature of a RotateContext.
func CheckRotate(public *rsa.PublicKey, context, signature []byte) error {
	digest := sha256.Sum256(context)
	return rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], signature)
}

// Keys returns the two keys of a session: HKDF with SHA-256 (RFC 5869) of the
// secret, the TLS connection's exporter value and the client's id.
func Keys(s Secret, exporter []byte, client [IDSize]byte) (toServer, toClient Key, err error) {
	prk, err := hkdf.Extract(sha256.New, s[:], exporter)
	if err != nil {
		return Key{}, Key{}, err
	}
	if toServer, err = expand(prk, labelClient+string(client[:])); err != nil {
		return Key{}, Key{}, err
	}
	toClient, err = expand(prk, labelServer+string(client[:]))
	return toServer, toClient, err
}

// Key is the AES-256 key of one direction.
type Key [32]byte

// Format hides the key from logs, whatever the verb.
func (Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "v4.Key(hidden)") }

func expand(prk []byte, info string) (Key, error) {
	b, err := hkdf.Expand(sha256.New, prk, info, len(Key{}))
	if err != nil {
		return Key{}, err
	}
	return Key(b), nil
}

// epochMessages is after how many messages a direction's key is replaced by
// one made from it: far below what AES-GCM allows under one key (RFC 8446,
// section 5.5), so that a session has no end.
const epochMessages = 1 << 24

// A chain is the keys of a direction, one after another, and how many messages
// have been sealed or opened.
type chain struct {
	key     *Key // fmt goes through one pointer with some verbs, and never through two
	aead    cipher.AEAD
	counter uint64
	epoch   uint64 // messages under one key
}

func newChain(k Key, epoch uint64) (*chain, error) {
	aead, err := newAEAD(k)
	if err != nil {
		return nil, err
	}
	return &chain{key: &k, aead: aead, epoch: epoch}, nil
}

func newAEAD(k Key) (cipher.AEAD, error) {
	block, err := aes.NewCipher(k[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// next is the key and the number of the message that comes next.
func (c *chain) next() (cipher.AEAD, uint64, error) {
	if c.counter > 0 && c.counter%c.epoch == 0 {
		k, err := expand(c.key[:], labelNext)
		if err != nil {
			return nil, 0, err
		}
		aead, err := newAEAD(k)
		if err != nil {
			return nil, 0, err
		}
		c.key, c.aead = &k, aead
	}
	n := c.counter
	c.counter++
	return c.aead, n, nil
}

// A nonce is four bytes of 0 and a message's number.
type nonce [12]byte

func (n *nonce) set(counter uint64) []byte {
	binary.LittleEndian.PutUint64(n[4:], counter)
	return n[:]
}

// nonces spares an allocation for each message: what goes to a cipher.AEAD is
// on the heap.
var nonces = sync.Pool{New: func() any { return new(nonce) }}

// A Sealer seals the messages of one direction, in their order. It is used by
// one goroutine.
type Sealer struct{ chain *chain }

// NewSealer returns the Sealer of a direction.
func NewSealer(k Key) (*Sealer, error) {
	c, err := newChain(k, epochMessages)
	return &Sealer{c}, err
}

// Append appends a whole message: header, and payload sealed.
func (s *Sealer) Append(dst []byte, code Code, number uint64, payload []byte) ([]byte, error) {
	slot, err := s.Reserve()
	if err != nil {
		return dst, err
	}
	return slot.Append(dst, code, number, payload), nil
}

// A Slot is the place of one message in its direction's order. Slots are sealed
// by any goroutines in any order, each once, and written in the order in which
// they were reserved.
type Slot struct {
	aead    cipher.AEAD
	counter uint64
}

// Reserve takes the next place.
func (s *Sealer) Reserve() (Slot, error) {
	aead, n, err := s.chain.next()
	return Slot{aead, n}, err
}

// Append is [Sealer.Append] for that place. payload must not overlap what is
// appended.
func (s Slot) Append(dst []byte, code Code, number uint64, payload []byte) []byte {
	start := len(dst)
	dst = Header{Code: code, Length: uint32(len(payload) + TagSize), Number: number}.Append(dst) //nolint:gosec // of bounded length
	n := nonces.Get().(*nonce)                                                                   //nolint:forcetypeassert // nothing else is in it
	dst = s.aead.Seal(dst, n.set(s.counter), payload, dst[start:])
	nonces.Put(n)
	return dst
}

// An Opener opens the messages of one direction, in their order. It is used by
// one goroutine.
type Opener struct {
	chain *chain
	nonce nonce
	err   error // of the first message that did not open: it stays
}

// NewOpener returns the Opener of a direction.
func NewOpener(k Key) (*Opener, error) {
	c, err := newChain(k, epochMessages)
	return &Opener{chain: c}, err
}

// Open appends a message's payload to dst. header is its header's bytes as they
// came, sealed what follows them. Nothing can be opened after an error. dst may
// be sealed[:0].
func (o *Opener) Open(dst, header, sealed []byte) ([]byte, error) {
	if o.err != nil {
		return dst, o.err
	}
	plain, err := o.open(dst, header, sealed)
	if err != nil {
		o.err = err
		return dst, err
	}
	return plain, nil
}

func (o *Opener) open(dst, header, sealed []byte) ([]byte, error) {
	if len(sealed) < TagSize {
		return nil, fmt.Errorf("%w: a sealed payload of %d bytes", ErrFormat, len(sealed))
	}
	aead, counter, err := o.chain.next()
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(dst, o.nonce.set(counter), sealed, header[:HeaderSize])
	if err != nil {
		return nil, ErrOpen
	}
	return plain, nil
}
