package blob

import (
	"bytes"
	"math"
	"testing"
)

// FuzzRecord reads slots as they come, and with a checksum that is right: what is
// taken counts, is the same when it is written again, and is taken neither cut
// short, nor changed, nor for another key.
func FuzzRecord(f *testing.F) {
	const key = "k"
	for _, r := range []record{
		{serial: 1},
		{serial: 7, size: 5 << 30, durable: true, boot: "1b4e28ba-2fa1-11d2-883f-0016d3cca427", state: []byte("a state")},
		{serial: math.MaxUint64, size: math.MaxInt64, boot: string(make([]byte, math.MaxUint8)), state: make([]byte, maxState)},
		{size: 1},             // none
		{serial: 1, size: -1}, // of no file
	} {
		b := r.append(nil, key)
		f.Add(b, key)
		f.Add(append(b, make([]byte, slotSize-len(b))...), key)
		f.Add(b[:len(b)-len(slotSum(nil, ""))], key)
		f.Add(b[:len(slotMagic)+18], key)
		f.Add(b, "another")
	}
	f.Add([]byte{}, "")
	f.Add(make([]byte, slotSize), key)
	f.Fuzz(func(t *testing.T, b []byte, key string) {
		sum := slotSum(b, key)
		for _, slot := range [][]byte{b, append(bytes.Clone(b), sum[:]...)} {
			before := bytes.Clone(slot)
			r, ok := parseRecord(slot, key)
			if !bytes.Equal(slot, before) {
				t.Fatal("parsing changed the slot")
			}
			if ok {
				checkRecord(t, r, key)
			}
		}
	})
}

func checkRecord(t *testing.T, r record, key string) {
	t.Helper()
	if r.serial == 0 || r.size < 0 {
		t.Errorf("%+v is taken", r)
	}
	b := r.append(nil, key)
	again, ok := parseRecord(b, key)
	if !ok || again.serial != r.serial || again.size != r.size || again.durable != r.durable ||
		again.boot != r.boot || !bytes.Equal(again.state, r.state) {
		t.Errorf("written again it is %+v, %v, want %+v", again, ok, r)
	}
	if _, ok := parseRecord(b[:len(b)-1], key); ok {
		t.Error("it is taken without its last byte")
	}
	if _, ok := parseRecord(b, key+"x"); ok {
		t.Error("it is taken for another key's")
	}
	for _, at := range []int{0, len(slotMagic), len(slotMagic) + 8, len(slotMagic) + 17, len(b) / 2, len(b) - 1} {
		b[at] ^= 1
		if _, ok := parseRecord(b, key); ok {
			t.Errorf("it is taken with byte %d changed", at)
		}
		b[at] ^= 1
	}
}
