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
	for _, wide := range []bool{false, true} {
		if wide && !has {
			t.Skip("SKIPPED: this processor has no AVX-512 with VPCLMULQDQ: the cksum by them is not compared")
		}
		proto.SetWide(wide)
		t.Logf("by the widest instructions: %v", wide)
		sameBothWays(t, 1400, 0, 1, 63)
	}
}
