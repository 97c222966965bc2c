package proto

// SetWide has cksum use the widest instructions that the processor has, or not, and
// reports whether there are any.
func SetWide(on bool) bool {
	has := hasWide()
	wide = on && has
	return has
}
