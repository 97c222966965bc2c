package proto_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/bits"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/cpu"
	"pgregory.net/rapid"

	"ferry/proto"
	"ferry/proto/prototest"
)

// pattern is n bytes in which no chunk repeats.
func pattern(n int) []byte {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

// naiveCksum is POSIX's definition, a bit at a time.
func naiveCksum(p []byte) uint32 {
	var crc uint32
	add := func(b byte) {
		crc ^= uint32(b) << 24
		for range 8 {
			top := crc >> 31
			crc <<= 1
			if top == 1 {
				crc ^= 0x04C11DB7
			}
		}
	}
	for _, b := range p {
		add(b)
	}
	for n := len(p); n > 0; n >>= 8 {
		add(byte(n))
	}
	return ^crc
}

func want(p []byte) proto.Sum {
	return proto.Sum{Size: int64(len(p)), Cksum: naiveCksum(p), SHA256: sha256.Sum256(p)}
}

func TestSummerOfNothing(t *testing.T) {
	got := proto.NewSummer().Sum()
	if got != want(nil) || got.Cksum != 4294967295 {
		t.Errorf("sum of nothing: got %+v, want %+v", got, want(nil))
	}
}

func TestSummerAgainstDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// Small sizes for every tail, and larger ones for several chunks.
		size := rapid.OneOf(rapid.IntRange(0, 64), rapid.IntRange(0, 40_000)).Draw(t, "size")
		offset := rapid.IntRange(0, 7).Draw(t, "offset")
		content := pattern(offset + size)[offset:]
		s := proto.NewSummer()
		var written int
		for written < size {
			n := rapid.IntRange(0, size-written).Draw(t, "write")
			if rapid.Bool().Draw(t, "short") {
				n = min(n, 20)
			}
			if got, err := s.Write(content[written : written+n]); got != n || err != nil {
				t.Fatalf("Write: got %d, %v, want %d, nil", got, err, n)
			}
			written += n
			if rapid.Bool().Draw(t, "look") {
				if got := s.Sum(); got != want(content[:written]) {
					t.Fatalf("sum of the first %d bytes: got %+v, want %+v", written, got, want(content[:written]))
				}
			}
		}
		if got := s.Sum(); got != want(content) {
			t.Fatalf("sum: got %+v, want %+v", got, want(content))
		}
		if got := s.Sum(); got != want(content) {
			t.Fatalf("second look: got %+v, want %+v", got, want(content))
		}
		s.Reset()
		if got := s.Sum(); got != want(nil) {
			t.Fatalf("sum after Reset: got %+v, want %+v", got, want(nil))
		}
		_, _ = s.Write(content)
		if got := s.Sum(); got != want(content) {
			t.Fatalf("sum after Reset and writing again: got %+v, want %+v", got, want(content))
		}
	})
}

func TestSummerGoesOn(t *testing.T) {
	content := pattern(70_000)
	for _, at := range []int{0, 1, 63, 64, 65, 4095, 4096, 4097, 65_536, len(content)} {
		before := proto.NewSummer()
		_, _ = before.Write(content[:at])
		state, err := before.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		after := proto.NewSummer()
		_, _ = after.Write(content) // to be forgotten
		if err := after.UnmarshalBinary(state); err != nil {
			t.Fatalf("at %d: %v", at, err)
		}
		if got := after.Sum(); got != want(content[:at]) {
			t.Errorf("at %d: got %+v, want %+v", at, got, want(content[:at]))
		}
		_, _ = after.Write(content[at:])
		_, _ = before.Write(content[at:])
		if got := after.Sum(); got != want(content) || got != before.Sum() {
			t.Errorf("gone on from %d: got %+v, want %+v", at, got, want(content))
		}
	}
}

func TestSummerRefusesStates(t *testing.T) {
	s := proto.NewSummer()
	_, _ = s.Write(pattern(100))
	state, err := s.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	for n := range state {
		if err := s.UnmarshalBinary(state[:n]); err == nil {
			t.Fatalf("the first %d bytes of %d are taken for a state", n, len(state))
		}
		if got := s.Sum(); got != want(nil) {
			t.Fatalf("after an error: got %+v, want %+v", got, want(nil))
		}
	}
	for what, change := range map[string]func([]byte){
		"version":       func(b []byte) { b[0]++ },
		"size":          func(b []byte) { b[1]++ },
		"negative size": func(b []byte) { b[8], b[len(b)-8] = 0x80, 0x80 },
		"SHA-256":       func(b []byte) { b[13]++ },
		"more":          nil,
	} {
		changed := bytes.Clone(state)
		if change == nil {
			changed = append(changed, 0)
		} else {
			change(changed)
		}
		if err := s.UnmarshalBinary(changed); err == nil {
			t.Errorf("a state with another %s is taken", what)
		}
	}
}

func TestSummerAgainstCommands(t *testing.T) {
	// Sizes about which the length takes another byte, a chunk ends or a block.
	for _, size := range []int{0, 1, 31, 32, 33, 63, 64, 255, 256, 257, 4095, 4096, 4097, 65535, 65536, 1 << 20, 1<<24 + 1} {
		content := pattern(size)
		s := proto.NewSummer()
		_, _ = s.Write(content)
		got := s.Sum()
		if out, want := fmt.Sprintf("%d %d", got.Cksum, got.Size), command(t, content, "cksum"); out != want {
			t.Errorf("cksum of %d bytes: got %s, want %s", size, out, want)
		}
		if out, want := hex.EncodeToString(got.SHA256[:])+"  -", command(t, content, "sha256sum"); out != want {
			t.Errorf("sha256sum of %d bytes: got %s, want %s", size, out, want)
		}
	}
}

// command returns what a command prints for what it reads.
func command(t *testing.T, stdin []byte, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("no %s here to compare with", name)
	}
	cmd := exec.CommandContext(t.Context(), path)
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return strings.TrimSpace(string(out))
}

func TestSummerAgainstRecordings(t *testing.T) {
	for _, v := range prototest.Vectors(t) {
		s := proto.NewSummer()
		_, _ = s.Write(v.Content())
		for _, want := range append(v.Received, v.Cksum) {
			if got := s.Sum(); got.Cksum != want || got.Size != v.Size {
				t.Errorf("%v: got cksum %d of %d bytes, want %d of %d", v, got.Cksum, got.Size, want, v.Size)
			}
		}
	}
}

func TestSummerDoesNotAllocate(t *testing.T) {
	content := pattern(100_000)
	s := proto.NewSummer()
	if n := testing.AllocsPerRun(10, func() { _, _ = s.Write(content) }); n != 0 {
		t.Errorf("a Write allocates %v times, want 0", n)
	}
}

func BenchmarkSummer(b *testing.B) {
	for _, size := range []int{512, 7902, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			content := pattern(size)
			s := proto.NewSummer()
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				_, _ = s.Write(content)
			}
		})
	}
}

// BenchmarkCksum is what of BenchmarkSummer is not SHA-256.
func BenchmarkCksum(b *testing.B) {
	chunk := pattern(proto.SumChunk)
	s := proto.NewSummer()
	b.SetBytes(int64(len(chunk)))
	for b.Loop() {
		proto.AddCksum(s, chunk)
	}
}

// BenchmarkCksumReversed is the same where there are no instructions for it.
func BenchmarkCksumReversed(b *testing.B) {
	chunk := pattern(proto.SumChunk)
	s := proto.NewSummer()
	b.SetBytes(int64(len(chunk)))
	for b.Loop() {
		proto.AddReversed(s, chunk)
	}
}

// TestCksumBothWays: that with the processor's instructions and that without are
// the same, for chunks of all lengths, one after another.
func TestCksumBothWays(t *testing.T) {
	switch _, left, ok := proto.Fold(0, pattern(128)); {
	case cpu.X86.HasAVX && cpu.X86.HasPCLMULQDQ && (!ok || len(left) != 0):
		t.Errorf("the processor's instructions leave %d bytes of 128, want 0", len(left))
	case !ok:
		t.Skip("SKIPPED: there are no instructions for the cksum on this processor: nothing is compared")
	}
	sameBothWays(t, 600, 0, 1, 15)
}

// sameBothWays wants the same cksum of chunks of less than so many bytes, one after
// another, each from those offsets on.
func sameBothWays(t *testing.T, lengths int, offsets ...int) {
	t.Helper()
	src := pattern(2*lengths + slices.Max(offsets))
	one, other := proto.NewSummer(), proto.NewSummer()
	for n := range lengths {
		for _, offset := range offsets {
			chunk := src[offset+n : offset+2*n]
			proto.AddCksum(one, chunk)
			proto.AddReversed(other, chunk)
			if one.Sum() != other.Sum() {
				t.Fatalf("%d bytes from %d: cksum %d, want %d", n, offset, one.Sum().Cksum, other.Sum().Cksum)
			}
		}
	}
}

func TestReverseBits(t *testing.T) {
	src := pattern(400)
	for n := range 300 {
		for _, offset := range []int{0, 1, 31} {
			got := bytes.Repeat([]byte{0xA5}, n+64)
			proto.ReverseBits(got[:n], src[offset:offset+n])
			for i, b := range got {
				want := byte(0xA5) // nothing behind it is touched
				if i < n {
					want = bits.Reverse8(src[offset+i])
				}
				if b != want {
					t.Fatalf("%d bytes from %d: byte %d is %02x, want %02x", n, offset, i, b, want)
				}
			}
		}
	}
}
