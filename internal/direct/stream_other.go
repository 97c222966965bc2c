//go:build !amd64

package direct

// streams is whether the machine has a stream.
const streams = false

// stream copies as many bytes from src as dst has.
func stream(dst, src []byte) { copy(dst, src) }
