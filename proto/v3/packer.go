package v3

import (
	"errors"
	"fmt"
	"io"
	"slices"
)

// A Packer makes the 828 messages of one send of a file. For a resend, make
// another one and read the plaintext from its start.
type Packer struct {
	plan   Plan
	client ID
	name   string
	mode   cbcMode
	number int   // of the last packet appended
	left   int64 // plaintext still to be read

	// Packets end where they like, ciphertext at its blocks: carry holds the
	// rest of a block that the packet before had no room for.
	carry [blockSize]byte
	n     int
}

// NewPacker returns a Packer of the file that p lays out.
func NewPacker(p Plan, key Key, client ID, name string) *Packer {
	return &Packer{plan: p, client: client, name: name, mode: newEncrypter(key), left: p.Size}
}

// Plan is how the file is laid out.
func (p *Packer) Plan() Plan { return p.plan }

// Number is that of the packet appended last; 0 before the first.
func (p *Packer) Number() int { return p.number }

// Done reports whether all packets have been appended.
func (p *Packer) Done() bool { return p.number == p.plan.Packets }

// BufferSize is the spare capacity with which Append does not allocate.
func (p *Packer) BufferSize() int {
	return RequestHeaderSize + PacketHeaderSize + p.plan.Slice + blockSize
}

// Append appends the next packet to b, as one message from its request header
// to its last byte of ciphertext, and reads from src as much plaintext as it
// needs for that: never more than the plan's size in all. An error is src's,
// io.ErrUnexpectedEOF if it ended early; b is then returned as it was, and the
// Packer is of no more use. Append panics when it is Done.
func (p *Packer) Append(b []byte, src io.Reader) ([]byte, error) {
	if p.Done() {
		panic("internal error: packet behind the last one")
	}
	start := len(b)
	p.number++
	b = slices.Grow(b, p.BufferSize())
	b = RequestHeader{Client: p.client, Code: CodePacket, PayloadSize: p.plan.payloadSize(p.number)}.Append(b)
	b = p.plan.header(p.number, p.name).Append(b)
	b, err := p.seal(b, src, p.plan.CipherSize(p.number))
	if err != nil {
		return b[:start], fmt.Errorf("read plaintext: %w", err)
	}
	return b, nil
}

// seal appends the next size bytes of ciphertext. The plaintext is read to
// where its ciphertext will be.
func (p *Packer) seal(b []byte, src io.Reader, size int) ([]byte, error) {
	start := len(b)
	b = append(b, p.carry[:p.n]...)
	blocks := (size - p.n + blockSize - 1) / blockSize * blockSize
	from := len(b)
	b = b[:from+blocks] // Append has made room
	if err := p.fill(b[from:], src); err != nil {
		return b, err
	}
	p.mode.CryptBlocks(b[from:], b[from:])
	p.n = copy(p.carry[:], b[start+size:])
	return b[:start+size], nil
}

// fill reads plaintext to all of b; where the file or the slice ends within
// it, the padding follows. The plan has left room for exactly that.
func (p *Packer) fill(b []byte, src io.Reader) error {
	text := min(int64(len(b)), p.left)
	if p.plan.PerSlice {
		text = min(text, int64(p.plan.plainSlice()))
		p.mode.SetIV(zeroIV[:])
	}
	if _, err := io.ReadFull(src, b[:text]); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	p.left -= text
	padding := b[text:]
	for i := range padding {
		padding[i] = byte(len(padding)) //nolint:gosec // at most a block
	}
	return nil
}
