package v3_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	v3 "ferry/proto/v3"
)

var (
	testKey    = v3.Key{1, 2, 3, 31: 4}
	testClient = v3.ID{5, 6, 15: 7}
)

const testName = "naïve file.bin"

// pattern is n bytes in which no two slices are equal.
func pattern(n int64) []byte {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

func dialects() []v3.Dialect {
	totalFirst := v3.Mainstream(4096)
	totalFirst.TotalFirst = true
	return []v3.Dialect{
		v3.Seed(), totalFirst,
		v3.Mainstream(v3.MainstreamSlice), v3.Mainstream(734), v3.Mainstream(1), v3.Mainstream(15), v3.Mainstream(v3.MaxSlice),
		v3.PerSlice(v3.PerSliceSlice), v3.PerSlice(32), v3.PerSlice(v3.MaxSlice),
	}
}

// A packet is an 828 taken apart.
type packet struct {
	payload uint32
	header  v3.PacketHeader
	cipher  []byte
}

// pack returns a file's packets as a Packer makes them.
func pack(t failer, d v3.Dialect, content []byte) []packet {
	t.Helper()
	plan, err := d.Plan(int64(len(content)))
	if err != nil {
		t.Fatalf("plan: %v", err)
	}
	p := v3.NewPacker(plan, testKey, testClient, testName)
	src := bytes.NewReader(content)
	var packets []packet
	for !p.Done() {
		b, err := p.Append(nil, src)
		if err != nil {
			t.Fatalf("packet %d: %v", p.Number(), err)
		}
		packets = append(packets, takeApart(t, b))
	}
	return packets
}

func takeApart(t failer, b []byte) packet {
	t.Helper()
	h, err := v3.ParseRequestHeader(b[:v3.RequestHeaderSize])
	if err != nil || h.Code != v3.CodePacket || h.Client != testClient {
		t.Fatalf("request header %+v: %v", h, err)
	}
	b = b[v3.RequestHeaderSize:]
	ph, err := v3.ParsePacketHeader(b[:v3.PacketHeaderSize])
	if err != nil {
		t.Fatalf("packet header: %v", err)
	}
	return packet{payload: h.PayloadSize, header: ph, cipher: b[v3.PacketHeaderSize:]}
}

// begin gives an Unpacker a packet's headers; with none it recognises one.
func begin(u *v3.Unpacker, p packet) (*v3.Unpacker, error) {
	if u == nil {
		return v3.Recognize(testKey, p.payload, p.header)
	}
	return u, u.Next(p.payload, p.header)
}

// unpack returns what packets become, opened in pieces as piece says.
func unpack(t failer, packets []packet, piece func(left int) int) (*v3.Unpacker, []byte) {
	t.Helper()
	var u *v3.Unpacker
	var text []byte
	for i, p := range packets {
		var err error
		if u, err = begin(u, p); err != nil {
			t.Fatalf("packet %d: %v", i+1, err)
		}
		if u.Left() != len(p.cipher) || u.Number() != i+1 {
			t.Fatalf("packet %d: %d bytes and number %d, want %d and %d", i+1, u.Left(), u.Number(), len(p.cipher), i+1)
		}
		for b := p.cipher; u.Left() > 0; {
			n := piece(u.Left())
			text = u.Open(text, b[:n])
			b = b[n:]
		}
	}
	return u, text
}

func whole(left int) int { return left }

func roundTrip(t failer, d v3.Dialect, content []byte, piece func(int) int) {
	t.Helper()
	u, text := unpack(t, pack(t, d, content), piece)
	if err := u.Finish(); err != nil || !u.Done() {
		t.Fatalf("finish: %v, done %v", err, u.Done())
	}
	if !bytes.Equal(text, content) {
		t.Fatalf("%d bytes came, want the %d that were sent", len(text), len(content))
	}
	if u.Name() != testName {
		t.Errorf("name: got %q, want %q", u.Name(), testName)
	}
	recognised(t, u.Plan(), d, int64(len(content)))
}

func TestRoundTripAtEdges(t *testing.T) {
	for _, d := range dialects() {
		t.Run(fmt.Sprintf("%s-%d", d.Name, d.Slice), func(t *testing.T) {
			slice := int64(d.Slice)
			sizes := []int64{
				0, 1, 15, 16, 17, 63, 200, slice - 17, slice - 16, slice - 15, slice - 1, slice, slice + 1,
				2*slice - 33, 2*slice - 32, 2*slice - 31, 2 * slice, 7885, 7886, 7901, 7902, 8192, 63_200,
			}
			if limit := d.MaxSize(); limit <= 2<<20 {
				sizes = append(sizes, limit-1, limit)
			}
			for _, size := range sizes {
				if size < 0 || size > d.MaxSize() {
					continue
				}
				roundTrip(t, d, pattern(size), whole)
			}
		})
	}
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := drawDialect(t)
		slice := int64(d.Slice)
		size := rapid.OneOf(
			rapid.Int64Range(0, 300),
			rapid.Int64Range(0, 20_000),
			rapid.Map(rapid.Int64Range(-40, 40), func(n int64) int64 { return 3*slice + n }),
		).Draw(t, "size")
		size = min(max(0, size), d.MaxSize(), 200_000)
		most := rapid.SampledFrom([]int{1, 7, 16, 17, 33, 5000, math.MaxInt}).Draw(t, "most")
		roundTrip(t, d, pattern(size), func(left int) int {
			return rapid.IntRange(1, min(left, most)).Draw(t, "piece")
		})
	})
}

func drawDialect(t *rapid.T) v3.Dialect {
	switch rapid.IntRange(0, 2).Draw(t, "dialect") {
	case 0:
		return v3.Seed()
	case 1:
		d := v3.Mainstream(rapid.OneOf(rapid.IntRange(1, 100), rapid.IntRange(1, v3.MaxSlice)).Draw(t, "slice"))
		d.TotalFirst = d.Slice != v3.SeedSlice && rapid.Bool().Draw(t, "total first")
		return d
	default:
		return v3.PerSlice(16 * rapid.IntRange(2, v3.MaxSlice/16).Draw(t, "blocks"))
	}
}

func TestPlans(t *testing.T) {
	if got := v3.Seed().MaxSize(); got != 517_857_567 {
		t.Errorf("seed's largest file: got %d bytes, want 517857567", got)
	}
	for _, d := range dialects() {
		limit := d.MaxSize()
		for _, size := range []int64{-1, limit + 1, limit + 16, math.MaxUint32 + 1, math.MaxInt64} {
			if p, err := d.Plan(size); err == nil || p != (v3.Plan{}) {
				t.Errorf("%s-%d: plan of %d bytes: got %+v, %v, want an error alone", d.Name, d.Slice, size, p, err)
			}
		}
		for _, size := range []int64{0, 1, 1000, limit - 1, limit} {
			checkPlan(t, d, size)
		}
	}
	// One byte more would need another packet or a wider field.
	emptyLast := v3.Seed()
	emptyLast.Slice = 16
	for d, want := range map[v3.Dialect]int64{
		emptyLast:                         65534*16 - 1,
		v3.Mainstream(16):                 65535*16 - 1,
		v3.Mainstream(v3.MaxSlice):        65535*v3.MaxSlice - 1,
		v3.PerSlice(32):                   65535 * 16,
		v3.PerSlice(v3.PerSliceSlice):     65535 * 1024,
		v3.PerSlice(v3.MaxSlice):          65535 * (v3.MaxSlice - 16),
		v3.Mainstream(v3.MainstreamSlice): 65535*8192 - 1,
	} {
		if got := d.MaxSize(); got != want {
			t.Errorf("%s-%d: largest file: got %d bytes, want %d", d.Name, d.Slice, got, want)
		}
	}
}

// checkPlan adds up a plan's packets.
func checkPlan(t *testing.T, d v3.Dialect, size int64) {
	t.Helper()
	p, err := d.Plan(size)
	if err != nil || p.Size != size {
		t.Errorf("%s-%d: plan of %d bytes: got %+v, %v", d.Name, d.Slice, size, p, err)
		return
	}
	if p.Packets < 1 || p.Packets > math.MaxUint16 {
		t.Errorf("%s-%d: %d bytes in %d packets", d.Name, d.Slice, size, p.Packets)
	}
	var cipher, plain int64
	for n := 1; n <= p.Packets; n++ {
		c := p.CipherSize(n)
		if c < 0 || c > d.Slice || n < p.Packets && c != d.Slice {
			t.Fatalf("%s-%d: packet %d of %d holds %d", d.Name, d.Slice, n, p.Packets, c)
		}
		cipher += int64(c)
		if now := p.PlainSize(n); now < plain {
			t.Fatalf("%s-%d: plaintext falls from %d to %d in packet %d", d.Name, d.Slice, plain, now, n)
		}
		plain = p.PlainSize(n)
	}
	if cipher != p.Content || plain != size || p.PlainSize(0) != 0 {
		t.Errorf("%s-%d: %d bytes: packets hold %d of %d bytes and %d of plaintext", d.Name, d.Slice, size, cipher, p.Content, plain)
	}
	if want := p.Content; !d.ReceivedPlain && int64(p.ReceivedSize()) != want {
		t.Errorf("%s-%d: 1603 states %d, want %d", d.Name, d.Slice, p.ReceivedSize(), want)
	}
	if d.ReceivedPlain && int64(p.ReceivedSize()) != size {
		t.Errorf("%s-%d: 1603 states %d, want %d", d.Name, d.Slice, p.ReceivedSize(), size)
	}
}

func TestDialectNamed(t *testing.T) {
	for _, c := range []struct {
		name  string
		slice int
		want  v3.Dialect
	}{
		{"seed", 0, v3.Seed()},
		{"seed", 7902, v3.Seed()},
		{"mainstream", 0, v3.Mainstream(8192)},
		{"mainstream", 734, v3.Mainstream(734)},
		{"per-slice", 0, v3.PerSlice(1040)},
		{"per-slice", 32, v3.PerSlice(32)},
		{"seed", 4096, v3.Dialect{}},
		{"mainstream", -1, v3.Dialect{}},
		{"mainstream", v3.MaxSlice + 1, v3.Dialect{}},
		{"per-slice", 16, v3.Dialect{}},
		{"per-slice", 1041, v3.Dialect{}},
		{"", 0, v3.Dialect{}},
		{"Seed", 0, v3.Dialect{}},
	} {
		got, err := v3.DialectNamed(c.name, c.slice)
		if got != c.want || (err != nil) != (c.want == v3.Dialect{}) {
			t.Errorf("dialect %q with a slice of %d: got %+v, %v, want %+v", c.name, c.slice, got, err, c.want)
		}
	}
}

func TestPackerReportsItsSource(t *testing.T) {
	plan, err := v3.Seed().Plan(20_000)
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("disk gone")
	for _, c := range []struct {
		src  io.Reader
		want error
	}{
		{strings.NewReader(""), io.ErrUnexpectedEOF},
		{bytes.NewReader(pattern(19_999)), io.ErrUnexpectedEOF},
		{io.MultiReader(bytes.NewReader(pattern(100)), iotest.ErrReader(broken)), broken},
	} {
		p := v3.NewPacker(plan, testKey, testClient, testName)
		b := []byte("before")
		for !p.Done() {
			if b, err = p.Append([]byte("before"), c.src); err != nil {
				break
			}
		}
		if !errors.Is(err, c.want) || string(b) != "before" {
			t.Errorf("got %v and %d bytes, want %v and what was there before", err, len(b), c.want)
		}
	}
}

func TestPackerReadsNoMoreThanTheSize(t *testing.T) {
	for _, d := range dialects() {
		plan, err := d.Plan(3000)
		if err != nil {
			t.Fatal(err)
		}
		src := bytes.NewReader(pattern(5000))
		p := v3.NewPacker(plan, testKey, testClient, testName)
		for !p.Done() {
			if _, err := p.Append(nil, iotest.OneByteReader(src)); err != nil {
				t.Fatal(err)
			}
		}
		if got := src.Len(); got != 2000 {
			t.Errorf("%s-%d: %d bytes of the source are left, want 2000", d.Name, d.Slice, got)
		}
	}
}
