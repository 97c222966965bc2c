package proto_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"testing"

	"ferry/proto"
)

// Where things are in the state of a Summer.
const (
	sumStateSize = 1         // how much was summed, in 8 bytes
	sumStateHash = 1 + 8 + 4 // the state of SHA-256: a magic, and the hash so far
	sumStateRest = 4 + 32    // in that: what makes no whole block yet
	sumStateAll  = 13 + 4 + 32 + 64 + 8
)

// FuzzSummerState: a state that is taken is of as much as it says, comes out of
// the Summer again, and goes on as another Summer does that is given it; one that
// is not leaves a Summer of nothing.
func FuzzSummerState(f *testing.F) {
	for _, n := range []int64{0, 1, 63, 64, 65, 5000, 1 << 20} {
		s := proto.NewSummer()
		_, _ = s.Write(content(n))
		state := must(s.MarshalBinary())
		f.Add(state, []byte("more"))
		f.Add(state[:len(state)-1], []byte{})
		f.Add(append(bytes.Clone(state), 0), []byte{})
		f.Add(state[:20], []byte{})
		for _, size := range []uint64{1<<31 - 1, 1 << 32, math.MaxInt64, 1 << 63, math.MaxUint64} {
			large := bytes.Clone(state)
			binary.LittleEndian.PutUint64(large[sumStateSize:], size)
			f.Add(bytes.Clone(large), []byte{})
			binary.BigEndian.PutUint64(large[len(large)-8:], size)
			f.Add(large, []byte("more"))
		}
		padded := bytes.Clone(state)
		padded[len(padded)-9] ^= 1 // behind what makes no whole block, but for 63 bytes
		f.Add(padded, []byte("more"))
	}
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, state, more []byte) {
		s := proto.NewSummer()
		_, _ = s.Write([]byte("before"))
		before := bytes.Clone(state)
		err := s.UnmarshalBinary(state)
		if !bytes.Equal(state, before) {
			t.Error("the state was changed")
		}
		if err != nil {
			if _, _ = s.Write(more); s.Sum() != sumOf(more) {
				t.Errorf("after %v it had summed something", err)
			}
			return
		}
		checkSummerState(t, s, state)
		again := proto.NewSummer()
		if err := again.UnmarshalBinary(must(s.MarshalBinary())); err != nil {
			t.Fatalf("out of the Summer again: %v", err)
		}
		if s.Sum().Size > math.MaxInt64-int64(len(more)) {
			return // there are no such files
		}
		size := s.Sum().Size
		_, _ = s.Write(more)
		for _, b := range more {
			_, _ = again.Write([]byte{b})
		}
		if s.Sum() != again.Sum() || s.Sum().Size != size+int64(len(more)) {
			t.Errorf("it goes on to %+v, another one to %+v", s.Sum(), again.Sum())
		}
	})
}

// checkSummerState wants that the Summer has what the state says. Behind what makes
// no whole block, SHA-256 looks at nothing, and writes zeros.
func checkSummerState(t *testing.T, s *proto.Summer, state []byte) {
	t.Helper()
	size := binary.LittleEndian.Uint64(state[sumStateSize:])
	if got := s.Sum().Size; got < 0 || uint64(got) != size || len(state) != sumStateAll {
		t.Fatalf("a state of %d bytes, of size %d, is taken for %d", len(state), size, got)
	}
	if hashed := binary.BigEndian.Uint64(state[len(state)-8:]); hashed != size {
		t.Errorf("a state of size %d is taken, of which SHA-256 was given %d", size, hashed)
	}
	want := bytes.Clone(state)
	clear(want[sumStateHash+sumStateRest+int(size%sha256.BlockSize) : len(want)-8])
	if got := must(s.MarshalBinary()); !bytes.Equal(got, want) {
		t.Errorf("it comes out as\n%x, want\n%x", got, want)
	}
}
