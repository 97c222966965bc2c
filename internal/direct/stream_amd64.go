package direct

import "unsafe"

// streams is whether the machine has a stream.
const streams = true

// line is what a processor's caches hold in one piece.
const line = 64

// streamBlocks copies n bytes with stores that pass the caches. n is a positive multiple
// of 64, and dst the address of a multiple of 16.
//
//go:noescape
func streamBlocks(dst, src *byte, n int)

// stream copies as many bytes from src as dst has, with stores that pass the caches where
// whole lines are written.
func stream(dst, src []byte) {
	n := min(len(dst), len(src))
	dst, src = dst[:n], src[:n]
	if n == 0 {
		return
	}
	//nolint:gosec // only whether it is a multiple
	if odd := int(uintptr(unsafe.Pointer(&dst[0])) % line); odd != 0 {
		head := copy(dst[:min(line-odd, n)], src)
		dst, src = dst[head:], src[head:]
	}
	if whole := len(dst) / line * line; whole > 0 {
		streamBlocks(&dst[0], &src[0], whole)
		dst, src = dst[whole:], src[whole:]
	}
	copy(dst, src)
}
