package proto

import "golang.org/x/sys/cpu"

const foldBlock = 64

// foldBlocks sets rest to 16 bytes that leave POSIX's register, begun at 0, as n
// bytes at p leave it, begun at register; n is a positive multiple of foldBlock.
// It needs AVX and PCLMULQDQ.
//
//go:noescape
func foldBlocks(rest *[16]byte, p *byte, n int, register uint32)

// fold takes what it can of p: what is left of it, and rest before that, leave
// POSIX's register, begun at 0, as p leaves it, begun at register. If ok is false,
// it has taken nothing.
func fold(register uint32, p []byte) (rest [16]byte, left []byte, ok bool) {
	n := len(p) / foldBlock * foldBlock
	if n == 0 || !cpu.X86.HasAVX || !cpu.X86.HasPCLMULQDQ {
		return rest, p, false
	}
	foldBlocks(&rest, &p[0], n, register)
	return rest, p[n:], true
}
