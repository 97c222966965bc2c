package v3_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	v3 "ferry/proto/v3"
)

// What is not the packet that has to follow is refused, and the one that has
// to follow is taken afterwards.
func TestNextRefuses(t *testing.T) {
	for _, d := range []v3.Dialect{v3.Seed(), v3.Mainstream(734), v3.PerSlice(1040)} {
		number := 0
		if d.TotalFirst {
			number = 1
		}
		for _, c := range []struct {
			what   string
			change func(p *packet)
			want   string
		}{
			{"the packet before", func(p *packet) { p.header.Numbers[number]-- }, "numbers"},
			{"the packet after", func(p *packet) { p.header.Numbers[number]++ }, "numbers"},
			{"number 0", func(p *packet) { p.header.Numbers[number] = 0 }, "numbers"},
			{"a larger total", func(p *packet) { p.header.Numbers[1-number]++ }, "numbers"},
			{"a smaller total", func(p *packet) { p.header.Numbers[1-number]-- }, "numbers"},
			{"total and number the other way round", func(p *packet) { slices.Reverse(p.header.Numbers[:]) }, "numbers"},
			{"another content size", func(p *packet) { p.header.ContentSize += 16 }, "content size"},
			{"a content size of 0", func(p *packet) { p.header.ContentSize = 0 }, "content size"},
			{"another original size", func(p *packet) { p.header.OriginalSize-- }, "original size"},
			{"another name", func(p *packet) { p.header.Name += "x" }, "name"},
			{"no name", func(p *packet) { p.header.Name = "" }, "name"},
			{"a longer payload", func(p *packet) { p.payload++ }, "payload"},
			{"a shorter payload", func(p *packet) { p.payload-- }, "payload"},
			{"an empty payload", func(p *packet) { p.payload = 0 }, "payload"},
			{"the longest payload", func(p *packet) { p.payload = math.MaxUint32 }, "payload"},
		} {
			packets := pack(t, d, pattern(30_000))
			u, text := unpack(t, packets[:1], whole)
			bad := packets[1]
			c.change(&bad)
			err := u.Next(bad.payload, bad.header)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %s: got %v, want an error about the %s", d.Name, c.what, err, c.want)
				continue
			}
			for _, p := range packets[1:] {
				if err := u.Next(p.payload, p.header); err != nil {
					t.Fatalf("%s: after %s: %v", d.Name, c.what, err)
				}
				text = u.Open(text, p.cipher)
			}
			if err := u.Finish(); err != nil || !bytes.Equal(text, pattern(30_000)) {
				t.Errorf("%s: after %s: %d bytes, %v", d.Name, c.what, len(text), err)
			}
			last := packets[len(packets)-1]
			if err := u.Next(last.payload, last.header); err == nil {
				t.Errorf("%s: a packet behind the last one was taken", d.Name)
			}
		}
	}
}

func TestRecognizeRefuses(t *testing.T) {
	good := func() packet { return pack(t, v3.Mainstream(734), pattern(3000))[0] } // 3008 in 5 packets
	for _, c := range []struct {
		what   string
		change func(p *packet)
	}{
		{"a payload without room for its header", func(p *packet) { p.payload = v3.PacketHeaderSize - 1 }},
		{"no ciphertext", func(p *packet) { p.payload = v3.PacketHeaderSize }},
		{"an empty payload", func(p *packet) { p.payload = 0 }},
		{"more than the largest slice", func(p *packet) { p.payload = v3.PacketHeaderSize + v3.MaxSlice + 1 }},
		{"the longest payload", func(p *packet) { p.payload = math.MaxUint32 }},
		{"packet 2", func(p *packet) { p.header.Numbers[0] = 2 }},
		{"packet 0", func(p *packet) { p.header.Numbers[0] = 0 }},
		{"a total of 0", func(p *packet) { p.header.Numbers[1] = 0 }},
		{"a total too small", func(p *packet) { p.header.Numbers[1]-- }},
		{"a total too large", func(p *packet) { p.header.Numbers[1]++ }},
		{"the largest total", func(p *packet) { p.header.Numbers[1] = math.MaxUint16 }},
		{"a content size that is not the original's", func(p *packet) { p.header.ContentSize += 16 }},
		{"a content size of 0", func(p *packet) { p.header.ContentSize = 0 }},
		{"the largest content size", func(p *packet) { p.header.ContentSize = math.MaxUint32 }},
		{"an original size that is not the content's", func(p *packet) { p.header.OriginalSize = 2991 }},
		{"the largest original size", func(p *packet) { p.header.OriginalSize = math.MaxUint32 }},
		{"both sizes the largest", func(p *packet) {
			p.header.OriginalSize, p.header.ContentSize = math.MaxUint32, math.MaxUint32
		}},
	} {
		p := good()
		c.change(&p)
		if u, err := v3.Recognize(testKey, p.payload, p.header); err == nil || u != nil {
			t.Errorf("%s: got %v, %v, want an error alone", c.what, u, err)
		}
	}
	if _, err := v3.Recognize(testKey, good().payload, good().header); err != nil {
		t.Errorf("the packet itself: %v", err)
	}
}

// A file that is too large for its packets' numbers makes its total wrap in
// old clients.
func TestRecognizeRefusesWrappedTotal(t *testing.T) {
	size := v3.Seed().MaxSize() + 1
	content := (size/16 + 1) * 16
	packets := content/v3.SeedSlice + 1
	h := v3.PacketHeader{
		ContentSize: uint32(content), OriginalSize: uint32(size),
		Numbers: [2]uint16{uint16(packets), 1}, Name: testName,
	}
	if packets <= math.MaxUint16 {
		t.Fatalf("%d packets do not wrap", packets)
	}
	if _, err := v3.Recognize(testKey, v3.Seed().StatedPayload, h); err == nil {
		t.Errorf("a total of %d packets was taken for %d", packets, h.Numbers[0])
	}
}

// Old clients of mainstream fill the last packet up to the slice.
func TestSurplusIsDropped(t *testing.T) {
	for _, size := range []int64{0, 100, 733, 734, 1500} {
		for _, d := range []v3.Dialect{v3.Mainstream(1024), v3.PerSlice(1040)} {
			packets := pack(t, d, pattern(size))
			last := &packets[len(packets)-1]
			for len(last.cipher) < d.Slice {
				last.cipher = append(last.cipher, 0xEE)
			}
			last.payload = uint32(v3.PacketHeaderSize + d.Slice)
			u, text := unpack(t, packets, func(left int) int { return min(left, 100) })
			if err := u.Finish(); err != nil || !bytes.Equal(text, pattern(size)) {
				t.Errorf("%s: %d bytes in a full packet: got %d, %v", d.Name, size, len(text), err)
			}
		}
	}
}

func TestSurplusBeyondTheSliceIsRefused(t *testing.T) {
	packets := pack(t, v3.Mainstream(1024), pattern(1500))
	u, _ := unpack(t, packets[:1], whole)
	if err := u.Next(v3.PacketHeaderSize+1025, packets[1].header); err == nil {
		t.Error("a last packet larger than the ones before was taken")
	}
	if err := u.Next(v3.PacketHeaderSize+1024, packets[1].header); err != nil {
		t.Errorf("a last packet as large as the one before: %v", err)
	}
}

// All of the file has come, but not the empty packet that ends it.
func TestEmptyLastPacketIsWaitedFor(t *testing.T) {
	packets := pack(t, v3.Seed(), pattern(63_200))
	last := packets[len(packets)-1]
	if len(last.cipher) != 0 {
		t.Fatalf("the last packet has %d bytes, want 0", len(last.cipher))
	}
	u, text := unpack(t, packets[:len(packets)-1], whole)
	if len(text) != 63_200 || u.Done() || u.Finish() == nil {
		t.Errorf("%d bytes came, done %v, finish %v, want all of them and neither", len(text), u.Done(), u.Finish())
	}
	if err := u.Next(last.payload, last.header); err != nil || !u.Done() || u.Finish() != nil {
		t.Errorf("the last packet: %v, done %v, finish %v", err, u.Done(), u.Finish())
	}
}

// seal encrypts whole blocks as they are, padding or not.
func seal(b []byte) []byte {
	block, err := aes.NewCipher(testKey[:])
	if err != nil {
		panic(err)
	}
	out := make([]byte, len(b))
	cipher.NewCBCEncrypter(block, make([]byte, aes.BlockSize)).CryptBlocks(out, b)
	return out
}

// Whatever the ciphertext is, what comes out is never more than was stated, and
// Finish says so once.
func TestWrongPlaintext(t *testing.T) {
	padding := func(b []byte, last ...byte) []byte {
		return append(append([]byte(nil), b...), last...)
	}
	fifteen := pattern(15)
	for _, c := range []struct {
		what string
		size uint32
		text []byte // with its padding
	}{
		{"padding of 0", 15, padding(fifteen, 0)},
		{"padding of 17", 15, padding(fifteen, 17)},
		{"padding of 255", 15, padding(fifteen, 255)},
		{"padding that is not uniform", 12, padding(fifteen[:12], 4, 3, 4, 4)},
		{"a byte more than stated", 14, padding(fifteen, 1)},
		{"a byte less than stated", 15, padding(fifteen[:14], 2, 2)},
		{"15 bytes more than stated", 0, padding(fifteen, 1)},
		{"nothing, but some was stated", 15, bytes.Repeat([]byte{16}, 16)},
	} {
		plan, err := v3.Mainstream(16).Plan(int64(c.size))
		if err != nil {
			t.Fatal(err)
		}
		h := v3.PacketHeader{ContentSize: uint32(plan.Content), OriginalSize: c.size, Numbers: [2]uint16{1, 1}, Name: testName}
		u, err := v3.Recognize(testKey, v3.PacketHeaderSize+16, h)
		if err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		text := u.Open(nil, seal(c.text))
		if err := u.Finish(); !errors.Is(err, v3.ErrCiphertext) {
			t.Errorf("%s: got %v, want ErrCiphertext", c.what, err)
		}
		if len(text) > int(c.size) {
			t.Errorf("%s: got %d bytes, %d were stated", c.what, len(text), c.size)
		}
	}
}

// Per-slice, a client can say in each packet that there is less padding than
// the plan has room for.
func TestSlicesNeverExceedTheFile(t *testing.T) {
	packets := pack(t, v3.PerSlice(32), pattern(160))
	full := seal(append(pattern(31), 1))
	for i := range packets {
		packets[i].cipher = full
	}
	u, text := unpack(t, packets, whole)
	if err := u.Finish(); !errors.Is(err, v3.ErrCiphertext) || len(text) > 160 {
		t.Errorf("got %d bytes of 160 stated, %v, want ErrCiphertext", len(text), err)
	}
}

// What one slice has too little, another must not make up for: the same file
// would have several ciphertexts.
func TestSlicesHaveTheirSize(t *testing.T) {
	packets := pack(t, v3.PerSlice(32), pattern(16+5))
	packets[0].cipher = seal(append(pattern(17), bytes.Repeat([]byte{15}, 15)...))
	packets[1].cipher = seal(append(pattern(4), bytes.Repeat([]byte{12}, 12)...))
	u, text := unpack(t, packets, whole)
	if err := u.Finish(); !errors.Is(err, v3.ErrCiphertext) {
		t.Errorf("got %d bytes and %v, want ErrCiphertext", len(text), err)
	}
}

func TestWrongCiphertext(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := drawDialect(t)
		content := pattern(min(int64(rapid.IntRange(0, 5000).Draw(t, "size")), d.MaxSize()))
		packets := pack(t, d, content)
		n := rapid.IntRange(0, len(packets)-1).Draw(t, "packet")
		if len(packets[n].cipher) == 0 {
			n-- // seed's empty last packet
		}
		at := rapid.IntRange(0, len(packets[n].cipher)-1).Draw(t, "at")
		packets[n].cipher[at] ^= byte(rapid.IntRange(1, 255).Draw(t, "flip"))
		u, text := unpack(t, packets, whole)
		err := u.Finish()
		if bytes.Equal(text, content) && err == nil {
			t.Fatalf("a changed byte went unnoticed")
		}
		if len(text) > len(content) {
			t.Fatalf("%d bytes came of %d stated", len(text), len(content))
		}
		if err != nil && !errors.Is(err, v3.ErrCiphertext) {
			t.Fatalf("got %v, want ErrCiphertext", err)
		}
	})
}

func TestSkippedIsNeverFinished(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := drawDialect(t)
		content := pattern(min(int64(rapid.IntRange(0, 3000).Draw(t, "size")), d.MaxSize()))
		packets := pack(t, d, content)
		var u *v3.Unpacker
		skipped := 0
		take := func(p packet, skip bool) {
			for b := p.cipher; u.Left() > 0; {
				n := rapid.IntRange(1, u.Left()).Draw(t, "piece")
				if skip && rapid.Bool().Draw(t, "skip") {
					u.Skip(n)
					skipped += n
				} else {
					u.Open(nil, b[:n])
				}
				b = b[n:]
			}
		}
		for _, p := range packets {
			var err error
			if u, err = begin(u, p); err != nil {
				t.Fatal(err)
			}
			if u.Finish() == nil && !u.Done() {
				t.Fatalf("packet %d: finished before it was done", u.Number())
			}
			take(p, true)
		}
		if err := u.Finish(); (err == nil) != (skipped == 0) {
			t.Fatalf("%d bytes skipped: got %v", skipped, err)
		}
		u.Restart()
		if u.Number() != 0 || u.Done() || u.Finish() == nil {
			t.Fatalf("after Restart: number %d, done %v, finish %v", u.Number(), u.Done(), u.Finish())
		}
		var text []byte
		for _, p := range packets {
			if err := u.Next(p.payload, p.header); err != nil {
				t.Fatal(err)
			}
			text = u.Open(text, p.cipher)
		}
		if err := u.Finish(); err != nil || !bytes.Equal(text, content) {
			t.Fatalf("after Restart: %d bytes, %v", len(text), err)
		}
	})
}

// A restart within a packet begins a fresh file, whatever was held.
func TestRestartWithin(t *testing.T) {
	packets := pack(t, v3.Seed(), pattern(20_000))
	u, _ := unpack(t, packets[:1], whole)
	if err := u.Next(packets[1].payload, packets[1].header); err != nil {
		t.Fatal(err)
	}
	u.Open(nil, packets[1].cipher[:777])
	u.Restart()
	var text []byte
	for _, p := range packets {
		if err := u.Next(p.payload, p.header); err != nil {
			t.Fatal(err)
		}
		text = u.Open(text, p.cipher)
	}
	if err := u.Finish(); err != nil || !bytes.Equal(text, pattern(20_000)) {
		t.Errorf("after Restart: %d bytes, %v", len(text), err)
	}
}

func TestMisusePanics(t *testing.T) {
	packets := pack(t, v3.Seed(), pattern(20_000))
	for what, f := range map[string]func(u *v3.Unpacker){
		"more than the packet has":      func(u *v3.Unpacker) { u.Open(nil, make([]byte, u.Left()+1)) },
		"skipping more than it has":     func(u *v3.Unpacker) { u.Skip(u.Left() + 1) },
		"a packet within another":       func(u *v3.Unpacker) { _ = u.Next(packets[1].payload, packets[1].header) },
		"a name too long for its field": func(*v3.Unpacker) { v3.Register{Name: strings.Repeat("x", 256)}.Append(nil) },
		"a name with a NUL":             func(*v3.Unpacker) { v3.Confirm{Name: "a\x00b"}.Append(nil) },
		"a packet behind the last": func(*v3.Unpacker) {
			plan, _ := v3.Seed().Plan(0)
			p := v3.NewPacker(plan, testKey, testClient, testName)
			for range 2 {
				_, _ = p.Append(nil, strings.NewReader(""))
			}
		},
	} {
		u, err := begin(nil, packets[0])
		if err != nil {
			t.Fatal(err)
		}
		func() {
			defer func() {
				if got, _ := recover().(string); !strings.HasPrefix(got, "internal error: ") {
					t.Errorf("%s: got panic %q, want an internal error", what, got)
				}
			}()
			f(u)
		}()
	}
}
