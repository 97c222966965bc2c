//go:build !amd64

package proto

// reverseBits sets dst to src with the bits of each byte in the reverse order.
// They have the same length.
func reverseBits(dst, src []byte) { reverseWords(dst, src) }
