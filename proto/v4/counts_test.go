package v4_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	v4 "ferry/proto/v4"
)

// Messages that are numbered about 2^31 and 2^32 are sealed under their whole
// number, on both sides of a key's end, and open in their order alone.
func TestCountsBeyond32Bits(t *testing.T) {
	first := v4.Key{1}
	second := expand(first[:], "ferry/4 next key")
	for _, at := range []uint64{1 << 31, 1 << 32} {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			sealer, err := v4.NewSealerAt(first, at-1, v4.EpochMessages)
			if err != nil {
				t.Fatal(err)
			}
			opener, err := v4.NewOpenerAt(first, at-1, v4.EpochMessages)
			if err != nil {
				t.Fatal(err)
			}
			under := []v4.Key{first, second, second} // both are multiples of how long a key lasts
			for i, payload := range []string{"one below", "at", "one above"} {
				n := at - 1 + uint64(i)
				m, err := sealer.Append(nil, v4.CodePacket, n, []byte(payload))
				if err != nil {
					t.Fatal(err)
				}
				header := v4.Header{Code: v4.CodePacket, Length: uint32(len(payload) + v4.TagSize), Number: n}
				if want := sealOne(t, under[i], n, header.Append(nil), payload); !bytes.Equal(m, want) {
					t.Errorf("message %d: got\n%x, want\n%x", n, m, want)
				}
				for _, other := range []uint64{n - 1, n + 1, n ^ 1<<31, n ^ 1<<32, n ^ 1<<63} {
					refusedAt(t, under[i], other, m)
				}
				h, b, err := open(opener, m)
				if err != nil || h != header || string(b) != payload {
					t.Errorf("message %d: got %+v, %q, %v", n, h, b, err)
				}
			}
		})
	}
}

// refusedAt wants that the message does not open as the one with number n. Keys
// last for ever there.
func refusedAt(t *testing.T, k v4.Key, n uint64, m []byte) {
	t.Helper()
	opener, err := v4.NewOpenerAt(k, n, 1<<63)
	if err != nil {
		t.Fatal(err)
	}
	if _, b, err := open(opener, m); !errors.Is(err, v4.ErrOpen) || b != nil {
		t.Errorf("as number %d it opens, to %q, %v", n, b, err)
	}
}

// Slots that are reserved over such a number are sealed in any order, and are the
// same messages.
func TestSlotsBeyond32Bits(t *testing.T) {
	for _, at := range []uint64{1 << 31, 1 << 32} {
		var slots [3]v4.Slot
		var want [3][]byte
		sealer, inOrder := must(v4.NewSealerAt(v4.Key{1}, at-1, v4.EpochMessages)), must(v4.NewSealerAt(v4.Key{1}, at-1, v4.EpochMessages))
		for i := range slots {
			slots[i] = must(sealer.Reserve())
			want[i] = must(inOrder.Append(nil, v4.CodePacket, uint64(i), []byte("bytes")))
		}
		opener := must(v4.NewOpenerAt(v4.Key{1}, at-1, v4.EpochMessages))
		var got [3][]byte
		for _, i := range []int{2, 0, 1} {
			got[i] = slots[i].Append(nil, v4.CodePacket, uint64(i), []byte("bytes"))
		}
		for i := range got {
			if !bytes.Equal(got[i], want[i]) {
				t.Errorf("%d: slot %d: got\n%x, want\n%x", at, i, got[i], want[i])
			}
			if _, b, err := open(opener, got[i]); err != nil || string(b) != "bytes" {
				t.Errorf("%d: slot %d: got %q, %v", at, i, b, err)
			}
		}
	}
}
