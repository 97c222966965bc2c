package proto

import "golang.org/x/sys/cpu"

const reverseBlock = 64

// reverseBlocks reverses the bits of each of n bytes, a positive multiple of reverseBlock.
// It needs AVX2.
//
//go:noescape
func reverseBlocks(dst, src *byte, n int)

// reverseBits sets dst to src with the bits of each byte in the reverse order.
// They have the same length.
func reverseBits(dst, src []byte) {
	if n := len(src) / reverseBlock * reverseBlock; n > 0 && cpu.X86.HasAVX2 {
		reverseBlocks(&dst[:n][0], &src[0], n)
		dst, src = dst[n:], src[n:]
	}
	reverseWords(dst, src)
}
