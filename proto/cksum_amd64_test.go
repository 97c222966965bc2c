package proto_test

import (
	"testing"

	"ferry/proto"
)

// TestCksumEachWay: whatever instructions a processor has, the cksum is the same.
// It runs alone, as it says which are used.
func TestCksumEachWay(t *testing.T) {
	has := proto.SetWide(false)
	defer proto.SetWide(true)
	src := pattern(3000)
	for _, wide := range []bool{false, true} {
		if wide && !has {
			t.Skip("SKIPPED: this processor has no AVX-512 with VPCLMULQDQ: the cksum by them is not compared")
		}
		proto.SetWide(wide)
		one, other := proto.NewSummer(), proto.NewSummer()
		for n := range 1400 {
			for _, offset := range []int{0, 1, 63} {
				chunk := src[offset+n : offset+2*n]
				proto.AddCksum(one, chunk)
				proto.AddReversed(other, chunk)
				if one.Sum() != other.Sum() {
					t.Fatalf("wide %v, %d bytes from %d: cksum %d, want %d", wide, n, offset, one.Sum().Cksum, other.Sum().Cksum)
				}
			}
		}
	}
}
