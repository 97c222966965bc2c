//go:build !amd64

package proto

// fold takes nothing: there are no instructions for it here.
func fold(_ uint32, p []byte) (rest [16]byte, left []byte, ok bool) { return rest, p, false }
