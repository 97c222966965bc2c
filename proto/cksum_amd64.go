package proto

import "golang.org/x/sys/cpu"

const (
	foldBlock     = 64
	foldWideBlock = 128
)

// wide is whether foldWide is used.
var wide = hasWide()

// hasWide reports whether the processor has what foldWide needs.
func hasWide() bool {
	has := &cpu.X86
	return has.HasAVX && has.HasPCLMULQDQ && has.HasAVX512F && has.HasAVX512BW && has.HasAVX512VPCLMULQDQ
}

// foldBlocks sets rest to 16 bytes that leave POSIX's register, begun at 0, as n
// bytes at p leave it, begun at register; n is a positive multiple of foldBlock.
// It needs AVX and PCLMULQDQ.
//
//go:noescape
func foldBlocks(rest *[16]byte, p *byte, n int, register uint32)

// foldWide does the same for n that is a positive multiple of foldWideBlock, and
// needs AVX-512 with BW and VPCLMULQDQ as well.
//
//go:noescape
func foldWide(rest *[16]byte, p *byte, n int, register uint32)

// fold takes what it can of p: what is left of it, and rest before that, leave
// POSIX's register, begun at 0, as p leaves it, begun at register. If ok is false,
// it has taken nothing.
func fold(register uint32, p []byte) (rest [16]byte, left []byte, ok bool) {
	if n := len(p) / foldWideBlock * foldWideBlock; wide && n > foldWideBlock {
		foldWide(&rest, &p[0], n, register)
		return rest, p[n:], true
	}
	n := len(p) / foldBlock * foldBlock
	if n == 0 || !cpu.X86.HasAVX || !cpu.X86.HasPCLMULQDQ {
		return rest, p, false
	}
	foldBlocks(&rest, &p[0], n, register)
	return rest, p[n:], true
}
