package v3

import (
	"fmt"
	"math"
)

// A Dialect is what one family of programs makes of version 3. It is a value:
// whatever differs between the families is one of its fields.
type Dialect struct {
	Name string // "seed", "mainstream" or "per-slice"
	// Slice is how many bytes of ciphertext each packet but the last one holds.
	Slice int
	// PerSlice: each packet's plaintext is encrypted by itself, with its own
	// zero IV and padding, and the content size is that of the packet. Else the
	// file is encrypted as one and its ciphertext cut into packets.
	PerSlice bool
	// TotalFirst: of a packet's two numbers the first is the total.
	TotalFirst bool
	// StatedPayload, if not zero, is the payload size that the header of every
	// 828 states, whatever it really is.
	StatedPayload uint32
	// EmptyLast: ciphertext that fills its packets exactly is followed by an
	// empty packet (seed/reconnect-63200).
	EmptyLast bool
	// AckPackets: each 828 is answered 1604, and the client waits for it.
	AckPackets bool
	// AckDiffers: 901 is answered 1604, and the client waits for it. A
	// [Recognize] of a file in one packet cannot always tell: a client that is
	// silent after its 901 is waiting for it.
	AckDiffers bool
	// Unconfirmed: the client sends no 900, 901 or 902. It repeats from packet 1
	// at once or closes the connection. A Recognize of a file in one packet
	// cannot tell.
	Unconfirmed bool
	// EmptyThanks: 1604 has no payload, else the client's id.
	EmptyThanks bool
	// ReceivedPlain: the content size in 1603 is that of the plaintext, else that
	// of the ciphertext.
	ReceivedPlain bool
}

// Slices of ciphertext seen in the recordings.
const (
	SeedSlice       = 7902 // so that a whole 828 has 8192 bytes
	MainstreamSlice = 8192 // mainstream-8192; others have 4096 and 734
	PerSliceSlice   = 1040 // 1024 bytes of plaintext, padded
)

// Seed is the dialect of the programs that version 3 was invented for. Their
// client states the payload size of a full packet in each 828, and counts
// n/7902 + 1 packets for n bytes of ciphertext.
func Seed() Dialect {
	return Dialect{
		Name:          "seed",
		Slice:         SeedSlice,
		TotalFirst:    true,
		StatedPayload: PacketHeaderSize + SeedSlice, // 8169
		EmptyLast:     true,
		AckPackets:    true,
	}
}

// Mainstream is the dialect of most other programs, with slice bytes of
// ciphertext in a packet.
func Mainstream(slice int) Dialect {
	return Dialect{
		Name:        "mainstream",
		Slice:       slice,
		AckDiffers:  slice == 8192, // mainstream-8192/scenario-badcrc-all
		Unconfirmed: slice == 734,  // mainstream-734/scenario-badcrc-all
	}
}

// PerSlice is the dialect of a program that encrypts each packet by itself,
// with slice bytes of ciphertext in a packet, padding included.
func PerSlice(slice int) Dialect {
	return Dialect{
		Name:          "per-slice",
		Slice:         slice,
		PerSlice:      true,
		TotalFirst:    true,
		EmptyThanks:   true,
		ReceivedPlain: true,
	}
}

// DialectNamed returns the dialect of that name; a slice of 0 means the one
// that was seen, for mainstream [MainstreamSlice].
func DialectNamed(name string, slice int) (Dialect, error) {
	var d Dialect
	switch name {
	case "seed":
		d = Seed()
		if slice != 0 && slice != SeedSlice {
			return Dialect{}, fmt.Errorf("slice %d: dialect seed has %d always", slice, SeedSlice)
		}
	case "mainstream":
		d = Mainstream(orDefault(slice, MainstreamSlice))
	case "per-slice":
		d = PerSlice(orDefault(slice, PerSliceSlice))
	default:
		return Dialect{}, fmt.Errorf("dialect %q: want seed, mainstream or per-slice", name)
	}
	if err := d.check(); err != nil {
		return Dialect{}, err
	}
	return d, nil
}

func orDefault(slice, def int) int {
	if slice == 0 {
		return def
	}
	return slice
}

func (d Dialect) check() error {
	switch {
	case d.Slice < 1 || d.Slice > MaxSlice:
		return fmt.Errorf("slice of %d bytes: 1 to %d are allowed", d.Slice, MaxSlice)
	case d.PerSlice && (d.Slice%blockSize != 0 || d.Slice < 2*blockSize):
		return fmt.Errorf("slice of %d bytes: dialect %s takes multiples of %d from %d", d.Slice, d.Name, blockSize, 2*blockSize)
	}
	return nil
}

// MaxSize is the largest plaintext in bytes that the 16-bit packet numbers and
// the 32-bit sizes allow; for seed 517,857,567.
func (d Dialect) MaxSize() int64 {
	if d.PerSlice {
		return min(math.MaxUint16*int64(d.plainSlice()), math.MaxUint32)
	}
	n := math.MaxUint16 * int64(d.Slice)
	if d.EmptyLast {
		n-- // a ciphertext that fills them all would need one more
	}
	n = min(n, math.MaxUint32)
	return n - n%blockSize - 1 // of padding there is at least one byte
}

// plainSlice is how much plaintext a full packet carries by itself.
func (d Dialect) plainSlice() int { return d.Slice - blockSize }

// AppendThanks appends a whole 1604, header included, as the dialect's server
// says it to the client with that id.
func (d Dialect) AppendThanks(b []byte, client ID) []byte {
	if d.EmptyThanks {
		return ResponseHeader{Code: CodeThanks}.Append(b)
	}
	b = ResponseHeader{Code: CodeThanks, PayloadSize: IDSize}.Append(b)
	return Registered{Client: client}.Append(b)
}

func (d Dialect) numbers(number, total int) [2]uint16 {
	if d.TotalFirst {
		number, total = total, number
	}
	return [2]uint16{uint16(number), uint16(total)} //nolint:gosec // Plan bounds both to 16 bits
}

// A Plan is how a file of one size lies in the packets of a dialect. Packets
// are counted from 1, as on the wire.
type Plan struct {
	Dialect
	Size    int64 // of the plaintext
	Content int64 // of all ciphertext
	Packets int
}

// Plan lays out a file of size bytes. It fails if the dialect cannot carry
// them: see [Dialect.MaxSize].
func (d Dialect) Plan(size int64) (Plan, error) {
	if err := d.check(); err != nil {
		return Plan{}, err
	}
	if limit := d.MaxSize(); size < 0 || size > limit {
		return Plan{}, fmt.Errorf("size of %d bytes: dialect %s carries 0 to %d", size, d.Name, limit)
	}
	p := Plan{Dialect: d, Size: size}
	slice := int64(d.Slice)
	switch {
	case d.PerSlice:
		full := int64(d.plainSlice())
		// No recording has an empty file in this dialect; without one packet
		// there would be nothing to answer.
		n := max(1, (size+full-1)/full)
		p.Packets = int(n)
		p.Content = (n-1)*slice + padded(size-(n-1)*full)
	case d.EmptyLast:
		p.Content = padded(size)
		p.Packets = int(p.Content/slice + 1)
	default:
		p.Content = padded(size)
		p.Packets = int((p.Content + slice - 1) / slice)
	}
	return p, nil
}

// CipherSize is how many bytes of ciphertext packet number n holds.
func (p Plan) CipherSize(n int) int {
	return int(min(int64(p.Slice), p.Content-int64(n-1)*int64(p.Slice)))
}

// PlainSize is how much of the plaintext the first n packets carry, for a
// display of progress.
func (p Plan) PlainSize(n int) int64 {
	each := p.Slice
	if p.PerSlice {
		each = p.plainSlice()
	}
	return min(p.Size, int64(n)*int64(each))
}

// ReceivedSize is the content size that a 1603 states for the file.
func (p Plan) ReceivedSize() uint32 {
	if p.ReceivedPlain {
		return uint32(p.Size) //nolint:gosec // MaxSize bounds it to 32 bits
	}
	return uint32(p.Content) //nolint:gosec // MaxSize bounds it to 32 bits
}

// payloadSize is what the request header of packet n states.
func (p Plan) payloadSize(n int) uint32 {
	if p.StatedPayload != 0 {
		return p.StatedPayload
	}
	return uint32(PacketHeaderSize + p.CipherSize(n)) //nolint:gosec // at most MaxSlice
}

// header is the packet header of packet n.
func (p Plan) header(n int, name string) PacketHeader {
	content := p.Content
	if p.PerSlice {
		content = int64(p.CipherSize(n))
	}
	return PacketHeader{
		ContentSize:  uint32(content), //nolint:gosec // MaxSize bounds both to 32 bits
		OriginalSize: uint32(p.Size),  //nolint:gosec // see above
		Numbers:      p.numbers(n, p.Packets),
		Name:         name,
	}
}
