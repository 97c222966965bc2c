package v3

import (
	"errors"
	"fmt"
)

// An Unpacker takes the packets of one file, in the dialect that the first of
// them was recognised to be in, and makes plaintext of them. Each packet is
// begun with its headers; then as many bytes as Left says are read from the
// connection and given to Open, in pieces of any size, or to Skip.
type Unpacker struct {
	plan   Plan
	name   string
	opener opener
	number int   // of the packet begun last
	wire   int   // how many bytes of it are still to come
	cipher int   // how many of those are ciphertext; the rest is surplus
	run    int64 // ciphertext still to come until the next padding
	plain  int64 // plaintext returned so far
	failed error // the first one, for Finish
}

// Recognize begins a file with the headers of its first packet: payload is the
// payload size that the request header stated. The dialect follows from what
// these numbers say and contradict:
//
//   - total first and a payload size of 8169: seed. With one packet the stated
//     size gives it away, with more of them the order of the numbers does.
//   - a content size that is the file's as one ciphertext, and as many packets
//     as it takes: mainstream, in whichever order the numbers are.
//   - a content size that is the packet's own, and as many packets as the
//     plaintext takes: per-slice.
//
// A file in one packet looks the same in mainstream and per-slice, and is taken
// for mainstream: what a client can notice is the content size in 1603. A file
// of mainstream in one packet that is padded to exactly 8169 would be taken for
// seed. Headers that fit no dialect are an error, as are sizes, totals and
// numbers that contradict each other; so is whatever [PayloadLimit] excludes.
func Recognize(key Key, payload uint32, h PacketHeader) (*Unpacker, error) {
	plan, err := recognize(payload, h)
	if err != nil {
		return nil, err
	}
	u := &Unpacker{plan: plan, name: h.Name, opener: opener{mode: newDecrypter(key)}}
	u.Restart()
	if err := u.Next(payload, h); err != nil {
		return nil, err
	}
	return u, nil
}

func recognize(payload uint32, h PacketHeader) (Plan, error) {
	if payload < PacketHeaderSize || payload > PacketHeaderSize+MaxSlice {
		return Plan{}, fmt.Errorf("packet with a payload of %d bytes: %d to %d are allowed", payload, PacketHeaderSize, PacketHeaderSize+MaxSlice)
	}
	slice := int(payload - PacketHeaderSize)
	for _, d := range [...]Dialect{Seed(), Mainstream(slice), PerSlice(slice)} {
		if d.StatedPayload == 0 {
			d.TotalFirst = h.Numbers[0] > h.Numbers[1]
		}
		p, err := d.Plan(int64(h.OriginalSize))
		if err != nil {
			continue
		}
		if p.header(1, h.Name) == h && (d.StatedPayload == 0 || payload == d.StatedPayload) {
			return p, nil
		}
	}
	return Plan{}, fmt.Errorf("first packet fits no dialect: payload %d, content %d, original %d, numbers %d and %d",
		payload, h.ContentSize, h.OriginalSize, h.Numbers[0], h.Numbers[1])
}

// Next begins the next packet with its headers. What is not exactly the packet
// that has to follow is an error that says in what it differs; the Unpacker
// stays as it was.
func (u *Unpacker) Next(payload uint32, h PacketHeader) error {
	if u.wire > 0 {
		panic("internal error: packet begun within another")
	}
	if u.number == u.plan.Packets {
		return fmt.Errorf("packet behind the last of %d", u.plan.Packets)
	}
	number := u.number + 1
	if want := u.plan.header(number, u.name); h != want {
		return fmt.Errorf("packet %d of %d: %w", number, u.plan.Packets, difference(h, want))
	}
	cipher := u.plan.CipherSize(number)
	wire := cipher
	if u.plan.StatedPayload == 0 {
		wire = int(payload) - PacketHeaderSize
	}
	if err := u.checkPayload(number, payload, wire, cipher); err != nil {
		return fmt.Errorf("packet %d of %d: %w", number, u.plan.Packets, err)
	}
	u.number, u.wire, u.cipher = number, wire, cipher
	if u.plan.PerSlice {
		u.run = int64(cipher)
	}
	return nil
}

// checkPayload allows for surplus bytes in the last packet: one program fills
// it up to the slice.
func (u *Unpacker) checkPayload(number int, payload uint32, wire, cipher int) error {
	stated := u.plan.payloadSize(number)
	if payload == stated {
		return nil
	}
	if u.plan.StatedPayload != 0 || number < u.plan.Packets || wire < cipher || wire > u.plan.Slice {
		return fmt.Errorf("payload of %d bytes, want %d", payload, stated)
	}
	return nil
}

func difference(got, want PacketHeader) error {
	switch {
	case got.Name != want.Name:
		return errors.New("the file's name has changed")
	case got.Numbers != want.Numbers:
		return fmt.Errorf("numbers %v, want %v", got.Numbers, want.Numbers)
	case got.OriginalSize != want.OriginalSize:
		return fmt.Errorf("original size %d, want %d", got.OriginalSize, want.OriginalSize)
	default:
		return fmt.Errorf("content size %d, want %d", got.ContentSize, want.ContentSize)
	}
}

// Plan is how the file is laid out, and in which dialect.
func (u *Unpacker) Plan() Plan { return u.plan }

// Name is the file's, not validated.
func (u *Unpacker) Name() string { return u.name }

// Number is that of the packet begun last; 0 after Restart.
func (u *Unpacker) Number() int { return u.number }

// Left is how many bytes of the packet are still to be read from the
// connection. It is not what the packet's header states: a seed's client
// states a full packet always, and sends what there is.
func (u *Unpacker) Left() int { return u.wire }

// Done reports whether the last packet has been read to its end.
func (u *Unpacker) Done() bool { return u.number == u.plan.Packets && u.wire == 0 }

// Open takes the next bytes of the packet, not more than Left, and appends the
// plaintext that is certain by now to dst; over the file that is never more
// than its stated size, whatever its ciphertext decrypts to. dst's spare capacity must not overlap src; with as much
// of it as src is long and 16 bytes, nothing is allocated. What fails to
// decrypt shows in Finish, so that the conversation stays in step.
func (u *Unpacker) Open(dst, src []byte) []byte {
	text := src[:min(len(src), u.cipher)]
	u.Skip(len(src))
	before := len(dst)
	dst = u.opener.open(dst, text)
	u.run -= int64(len(text))
	ended := u.run == 0 && len(text) > 0
	if ended {
		var err error
		if dst, err = u.opener.finish(dst); err != nil && u.failed == nil {
			u.failed = err
		}
	}
	u.plain += int64(len(dst) - before)
	if want := u.plan.PlainSize(u.number); u.plain > want || ended && u.plain < want {
		if u.failed == nil {
			u.failed = fmt.Errorf("%w: %d bytes of plaintext by packet %d, want %d", ErrCiphertext, u.plain, u.number, want)
		}
		surplus := max(0, u.plain-want)
		u.plain -= surplus
		dst = dst[:len(dst)-int(surplus)]
	}
	return dst
}

// Skip passes over the next n bytes of the packet, not more than Left, as Open
// does, but drops them: for a file that was refused while its packets are
// still coming. Finish will not be content with it.
func (u *Unpacker) Skip(n int) {
	if n > u.wire {
		panic("internal error: more bytes than the packet has")
	}
	u.wire -= n
	u.cipher -= min(n, u.cipher)
}

// Finish reports whether all that Open returned is the file: nil, or
// [ErrCiphertext] if something did not decrypt or not to the size stated.
// It fails for a file that is not Done.
func (u *Unpacker) Finish() error {
	switch {
	case !u.Done():
		return fmt.Errorf("file ends in packet %d of %d", u.number, u.plan.Packets)
	case u.failed != nil:
		return u.failed
	case u.run != 0:
		return errors.New("file was skipped in part")
	case u.plain != u.plan.Size:
		return fmt.Errorf("%w: %d bytes of plaintext, want %d", ErrCiphertext, u.plain, u.plan.Size)
	}
	return nil
}

// Restart makes the Unpacker expect the same file again, from packet 1.
func (u *Unpacker) Restart() {
	u.number, u.wire, u.cipher = 0, 0, 0
	u.run, u.plain, u.failed = u.plan.Content, 0, nil
	u.opener.reset()
}
