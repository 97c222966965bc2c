package v3

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
)

const (
	blockSize = aes.BlockSize
	keySize   = 32
)

// Key is an AES-256 key. Printing it shows nothing of it.
type Key [keySize]byte

// NewKey returns a random key.
func NewKey() Key {
	var k Key
	_, _ = rand.Read(k[:]) // never fails: it ends the program instead
	return k
}

// hidden stands for a key wherever one is printed.
const hidden = "v3.Key(hidden)"

// Format writes a placeholder whatever the verb, so that no key reaches a log.
// fmt does not ask it for a key in an unexported field: print no such struct.
func (Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// MarshalText is Format for JSON and for what logs in it.
func (Key) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// ErrCiphertext: the ciphertext does not decrypt to what was stated. The key or
// the bytes are wrong, and nobody can tell where. Tell the peer no more than
// that the checksum differs: an answer of its own kind is a padding oracle.
var ErrCiphertext = errors.New("ciphertext does not decrypt")

// padded is the size of n bytes of plaintext as ciphertext. PKCS#7 adds 1 to
// 16 bytes, always.
func padded(n int64) int64 { return (n/blockSize + 1) * blockSize }

// zeroIV is the IV of every file, or of every slice. Never written to.
var zeroIV [blockSize]byte

// cbcMode is what crypto/cipher's CBC modes are. SetIV is documented nowhere but
// part of their tested method set; it saves an allocation for each slice.
type cbcMode interface {
	cipher.BlockMode
	SetIV(iv []byte)
}

func newBlock(key Key) cipher.Block {
	b, err := aes.NewCipher(key[:])
	if err != nil {
		panic("internal error: " + err.Error())
	}
	return b
}

func newEncrypter(key Key) cbcMode {
	return cipher.NewCBCEncrypter(newBlock(key), zeroIV[:]).(cbcMode)
}

func newDecrypter(key Key) cbcMode {
	return cipher.NewCBCDecrypter(newBlock(key), zeroIV[:]).(cbcMode)
}

// An opener decrypts one run of ciphertext, in pieces of any size.
type opener struct {
	mode cbcMode
	// held is the end of what was given: a block may be the last one only if
	// nothing follows it, so it is decrypted when something does.
	held [blockSize]byte
	n    int
}

// open appends the plaintext that is certain by now to dst, whose spare
// capacity must not overlap src.
func (o *opener) open(dst, src []byte) []byte {
	if o.n+len(src) <= blockSize {
		o.n += copy(o.held[o.n:], src)
		return dst
	}
	if o.n > 0 {
		fill := copy(o.held[o.n:], src)
		src = src[fill:]
		dst = o.crypt(dst, o.held[:])
	}
	whole := (len(src) - 1) / blockSize * blockSize
	dst = o.crypt(dst, src[:whole])
	o.n = copy(o.held[:], src[whole:])
	return dst
}

func (o *opener) crypt(dst, src []byte) []byte {
	n := len(dst)
	dst = slices.Grow(dst, len(src))[:n+len(src)]
	o.mode.CryptBlocks(dst[n:], src)
	return dst
}

// finish appends what was held, without its padding, checks that padding in
// full, and makes the opener ready for the next run.
func (o *opener) finish(dst []byte) ([]byte, error) {
	defer o.reset()
	if o.n != blockSize {
		return dst, fmt.Errorf("%w: it ends within a block", ErrCiphertext)
	}
	o.mode.CryptBlocks(o.held[:], o.held[:])
	fill := int(o.held[blockSize-1])
	if fill < 1 || fill > blockSize {
		return dst, fmt.Errorf("%w: wrong padding", ErrCiphertext)
	}
	text, padding := o.held[:blockSize-fill], o.held[blockSize-fill:]
	if bytes.Count(padding, padding[:1]) != fill {
		return dst, fmt.Errorf("%w: wrong padding", ErrCiphertext)
	}
	return append(dst, text...), nil
}

func (o *opener) reset() {
	o.mode.SetIV(zeroIV[:])
	o.n = 0
}
