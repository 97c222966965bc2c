package proto

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"hash/crc32"
	"math/bits"
)

// Sum is what a whole file adds up to.
type Sum struct {
	Size   int64
	Cksum  uint32 // POSIX cksum, as the cksum command prints it
	SHA256 [sha256.Size]byte
}

// sumChunk is how much is summed at a time: the chunk and its reversed copy
// stay in the first-level cache while both sums are taken.
const sumChunk = 4 << 10

// Summer computes a [Sum] of what is written to it. It never fails, and no
// Write allocates. It must come from [NewSummer] and is used by one goroutine.
type Summer struct {
	size   int64
	sha256 hash.Hash
	// crc is the POSIX cksum so far, as hash/crc32 holds it. POSIX's polynomial
	// is the IEEE one, but POSIX feeds each byte from its highest bit and
	// hash/crc32 from its lowest. With the bits of every byte reversed, and those
	// of the result, the two are the same, and hash/crc32 has an instruction for
	// its way. It inverts what it is given and what it returns: the register that
	// POSIX starts at 0 starts here at ^0, and what POSIX inverts at the end
	// has been.
	crc      uint32
	reversed [sumChunk]byte // scratch
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
	reversed := s.reversed[:len(chunk)]
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

// reverseBits sets dst to src with the bits of each byte in the reverse order.
// They have the same length. Four words a round keep the processor twice as
// busy as one does.
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
