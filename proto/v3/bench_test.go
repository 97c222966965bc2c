package v3_test

import (
	"fmt"
	"strings"
	"testing"

	v3 "ferry/proto/v3"
)

// zeros is a source without an end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// longName is the longest, so that anything that copies it shows.
var longName = strings.Repeat("n", v3.NameSize)

// packing returns what appends the next packet of one endless file after the
// other.
func packing(tb testing.TB, d v3.Dialect) (next func() int) {
	tb.Helper()
	plan, err := d.Plan(d.MaxSize())
	if err != nil {
		tb.Fatal(err)
	}
	p := v3.NewPacker(plan, testKey, testClient, longName)
	buffer := make([]byte, 0, p.BufferSize())
	return func() int {
		if p.Done() {
			p = v3.NewPacker(plan, testKey, testClient, longName)
		}
		b, err := p.Append(buffer, zeros{})
		if err != nil {
			tb.Fatal(err)
		}
		return len(b)
	}
}

// unpacking returns what takes the next packet of such files, without parsing
// its headers.
func unpacking(tb testing.TB, d v3.Dialect) (next func() int) {
	tb.Helper()
	plan, err := d.Plan(d.MaxSize())
	if err != nil {
		tb.Fatal(err)
	}
	p := v3.NewPacker(plan, testKey, testClient, longName)
	b, err := p.Append(nil, zeros{})
	if err != nil {
		tb.Fatal(err)
	}
	first := takeApart(tb, b)
	u, err := begin(nil, first)
	if err != nil {
		tb.Fatal(err)
	}
	buffer := make([]byte, 0, v3.MaxSlice+16)
	u.Open(buffer, first.cipher)
	number := 0
	if d.TotalFirst {
		number = 1
	}
	return func() int {
		h := first.header
		h.Numbers[number] = uint16(u.Number() + 1)
		// The last packet is another size: begin again before it.
		if u.Number() == plan.Packets-2 {
			u.Restart()
			h.Numbers[number] = 1
		}
		if err := u.Next(first.payload, h); err != nil {
			tb.Fatal(err)
		}
		return len(u.Open(buffer, first.cipher))
	}
}

func TestNothingIsAllocatedPerPacket(t *testing.T) {
	for _, d := range []v3.Dialect{v3.Seed(), v3.Mainstream(v3.MaxSlice), v3.PerSlice(v3.PerSliceSlice)} {
		pack, unpack := packing(t, d), unpacking(t, d)
		if n := testing.AllocsPerRun(200, func() { pack() }); n != 0 {
			t.Errorf("%s: a packet packed allocates %v times, want 0", d.Name, n)
		}
		if n := testing.AllocsPerRun(200, func() { unpack() }); n != 0 {
			t.Errorf("%s: a packet unpacked allocates %v times, want 0", d.Name, n)
		}
	}
	// Of a packet's headers it is the name alone.
	raw := v3.PacketHeader{Name: longName}.Append(nil)
	if n := testing.AllocsPerRun(200, func() { _, _ = v3.ParsePacketHeader(raw) }); n > 1 {
		t.Errorf("a packet header parsed allocates %v times, want 1", n)
	}
}

func BenchmarkPacker(b *testing.B)   { bench(b, packing) }
func BenchmarkUnpacker(b *testing.B) { bench(b, unpacking) }

func bench(b *testing.B, of func(testing.TB, v3.Dialect) func() int) {
	for _, d := range []v3.Dialect{v3.Seed(), v3.Mainstream(v3.MaxSlice), v3.PerSlice(v3.PerSliceSlice)} {
		b.Run(fmt.Sprintf("%s-%d", d.Name, d.Slice), func(b *testing.B) {
			next := of(b, d)
			b.SetBytes(int64(next()))
			b.ReportAllocs()
			for b.Loop() {
				next()
			}
		})
	}
}
