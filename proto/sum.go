package proto

import (
	"context"
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"math/bits"
)

// Sum is what a whole file adds up to.
type Sum struct {
	Size   int64
	Cksum  uint32 // POSIX cksum, as the cksum command prints it
	SHA256 [sha256.Size]byte
}

// sumChunk is how much is summed at a time: the chunk stays in the first-level cache
// while both sums are taken, beside its reversed copy, where one is made.
const sumChunk = 8 << 10

// fewBytes are at least as many as are left of a chunk that fold has taken.
const fewBytes = 128

// Summer computes a [Sum] of what is written to it. It never fails, and after
// the first few no Write allocates. It must come from [NewSummer] and is used by one goroutine.
type Summer struct {
	size   int64
	sha256 hash.Hash
	// crc is the POSIX cksum so far, as hash/crc32 holds it. POSIX's polynomial
	// is the IEEE one, but POSIX feeds each byte from its highest bit and
	// hash/crc32 from its lowest. With the bits of every byte reversed, and those
	// of the result, the two are the same. hash/crc32 inverts what it is given and what it returns: the register that
	// POSIX starts at 0 starts here at ^0, and what POSIX inverts at the end
	// has been.
	crc     uint32
	scratch []byte // as large as was needed
}

// NewSummer returns a Summer of nothing yet.
func NewSummer() *Summer {
	s := &Summer{sha256: sha256.New()}
	s.Reset()
	return s
}

// Write adds p.
func (s *Summer) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		chunk := p[:min(len(p), sumChunk)]
		s.sha256.Write(chunk)
		s.addCksum(chunk)
		p = p[len(chunk):]
	}
	s.size += int64(n)
	return n, nil
}

// addCksum adds a chunk to the cksum.
func (s *Summer) addCksum(chunk []byte) {
	if rest, left, ok := fold(bits.Reverse32(^s.crc), chunk); ok {
		s.crc = ^uint32(0) // POSIX's 0
		s.addReversed(rest[:])
		chunk = left
	}
	s.addReversed(chunk)
}

// addReversed adds a chunk by way of hash/crc32.
func (s *Summer) addReversed(chunk []byte) {
	if cap(s.scratch) < len(chunk) {
		size := sumChunk
		if len(chunk) <= fewBytes {
			size = fewBytes // a Summer of a small file is no larger than that
		}
		s.scratch = make([]byte, size)
	}
	reversed := s.scratch[:len(chunk)]
	reverseBits(reversed, chunk)
	s.crc = crc32.Update(s.crc, crc32.IEEETable, reversed)
}

// Sum returns the sum of everything written since the start or Reset; more
// may be written afterwards.
func (s *Summer) Sum() Sum {
	sum := Sum{Size: s.size, Cksum: s.cksum()}
	s.sha256.Sum(sum.SHA256[:0])
	return sum
}

// cksum adds the length, from its lowest byte up to its highest that is not 0.
func (s *Summer) cksum() uint32 {
	var length []byte
	for n := s.size; n > 0; n >>= 8 {
		length = append(length, bits.Reverse8(byte(n)))
	}
	return bits.Reverse32(crc32.Update(s.crc, crc32.IEEETable, length))
}

// Reset forgets what was written.
func (s *Summer) Reset() {
	s.size, s.crc = 0, ^uint32(0)
	s.sha256.Reset()
}

// summerVersion begins a Summer's state: the one there is.
const summerVersion = 1

// stateFixed is what of a state comes before that of SHA-256.
const stateFixed = 1 + 8 + 4

var (
	_ encoding.BinaryMarshaler   = (*Summer)(nil)
	_ encoding.BinaryUnmarshaler = (*Summer)(nil)
)

// MarshalBinary returns what has been summed so far, for UnmarshalBinary to go on
// from in another process.
func (s *Summer) MarshalBinary() ([]byte, error) {
	b := make([]byte, 0, 128)
	b = append(b, summerVersion)
	b = binary.LittleEndian.AppendUint64(b, uint64(s.size)) //nolint:gosec // not negative
	b = binary.LittleEndian.AppendUint32(b, s.crc)
	return s.sha256.(encoding.BinaryAppender).AppendBinary(b) //nolint:forcetypeassert // crypto/sha256 says so of it
}

// UnmarshalBinary makes the Summer go on from what MarshalBinary returned. After
// an error it has summed nothing.
func (s *Summer) UnmarshalBinary(state []byte) error {
	if err := s.unmarshal(state); err != nil {
		s.Reset()
		return fmt.Errorf("state of a sum: %w", err)
	}
	return nil
}

func (s *Summer) unmarshal(state []byte) error {
	if len(state) < stateFixed+8 || state[0] != summerVersion {
		return errors.New("it is none, or of another version")
	}
	size := binary.LittleEndian.Uint64(state[1:])
	// SHA-256's own ends with how much it has been given.
	if hashed := binary.BigEndian.Uint64(state[len(state)-8:]); size > 1<<63-1 || hashed != size {
		return fmt.Errorf("it is of %d bytes and of %d", size, hashed)
	}
	s.size, s.crc = int64(size), binary.LittleEndian.Uint32(state[9:])
	return s.sha256.(encoding.BinaryUnmarshaler).UnmarshalBinary(state[stateFixed:]) //nolint:forcetypeassert // crypto/sha256 says so of it
}

// SumOf adds up what is left of r. It returns context.Cause(ctx) when ctx ends, or
// r's error.
func SumOf(ctx context.Context, r io.Reader) (Sum, error) {
	all, buffer := NewSummer(), getBuffer(256<<10)
	buffer = buffer[:cap(buffer)]
	defer putBuffer(buffer)
	for {
		if ctx.Err() != nil {
			return Sum{}, context.Cause(ctx)
		}
		n, err := r.Read(buffer)
		_, _ = all.Write(buffer[:n]) // never fails
		if errors.Is(err, io.EOF) {
			return all.Sum(), nil
		}
		if err != nil {
			return Sum{}, err
		}
	}
}

// reverseBits sets dst to src with the bits of each byte in the reverse order. They
// have the same length. Four words a round keep a processor twice as busy as one does.
func reverseBits(dst, src []byte) {
	le := binary.LittleEndian
	for len(src) >= 32 && len(dst) >= 32 {
		le.PutUint64(dst, reverseEach(le.Uint64(src)))
		le.PutUint64(dst[8:16], reverseEach(le.Uint64(src[8:16])))
		le.PutUint64(dst[16:24], reverseEach(le.Uint64(src[16:24])))
		le.PutUint64(dst[24:32], reverseEach(le.Uint64(src[24:32])))
		dst, src = dst[32:], src[32:]
	}
	for i, b := range src {
		dst[i] = bits.Reverse8(b)
	}
}

// reverseEach reverses the bits within each byte of x: neighbours are swapped,
// then pairs, then halves. It is bits.ReverseBytes64(bits.Reverse64(x)) without
// reversing the bytes twice, and adds where that ors, which is one instruction
// with the shift.
func reverseEach(x uint64) uint64 {
	const (
		neighbours = 0x5555555555555555
		pairs      = 0x3333333333333333
		halves     = 0x0F0F0F0F0F0F0F0F
	)
	x = x>>1&neighbours + x&neighbours*2
	x = x>>2&pairs + x&pairs*4
	return x>>4&halves + x&halves<<4
}
