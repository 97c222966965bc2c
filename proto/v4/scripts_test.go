package v4_test

import (
	"bytes"
	"encoding/hex"

	"ferry/proto"
	v4 "ferry/proto/v4"
)

// A vectorFile is a file of the vectors. Byte i of its content is
// (i*7 + i/251) & 255.
type vectorFile struct {
	v4.Offer
	content []byte
}

func vectorFileOf(id byte, name string, size int) vectorFile {
	content := make([]byte, size)
	for i := range content {
		content[i] = byte(i*7 + i/251)
	}
	s := proto.NewSummer()
	_, _ = s.Write(content)
	sum := s.Sum()
	return vectorFile{v4.Offer{
		Transfer: [v4.IDSize]byte{0: id, 15: 0xF1}, Size: sum.Size, Mode: 0o644, ModTime: 1_767_322_800_123_456_789,
		Known: true, Sum: v4.Sum{Cksum: sum.Cksum, SHA256: sum.SHA256}, Name: name,
	}, content}
}

// unknown is the offer of a sender that has not read the file yet.
func (f vectorFile) unknown() v4.Offer {
	o := f.Offer
	o.Known, o.Sum = false, v4.Sum{}
	return o
}

func (f vectorFile) inOne() small { return small{f.Offer, f.content} }

// A numbered file is one that was given that number in a session.
type numbered struct {
	number uint64
	vectorFile
}

// packets sends a file from an offset to another, in packets of 8 KiB.
func (k *talk) packets(f vectorFile, from, to int64) {
	const packet = 8192
	for at := from; at < to; at += packet {
		k.client(v4.CodePacket, uint64(at), raw(f.content[at:min(at+packet, to)]))
	}
}

// A script plays a conversation.
type script struct {
	name, what string
	play       func(*talk)
}

var (
	large   = vectorFileOf(1, "build-17/app.tar.gz", 40_000)
	little  = vectorFileOf(2, "notes/été.txt", 100)
	another = vectorFileOf(3, "notes/b.txt", 251)
	empty   = vectorFileOf(4, "empty", 0)
)

var scripts = []script{
	{"register", "A new client registers with a join token, is given an id, and proves that the key is its own.", (*talk).register},
	{"register-refused", "The join token is not good.", func(k *talk) {
		k.client(v4.CodeRegister, 0, v4.Register{Name: vectorClient, Token: "ferry-join-x"})
		k.refused(0, v4.ReasonUnauthorized, 0, "the join token is not good: ask the server's operator for one")
	}},
	{"register-taken", "Another client has the name.", func(k *talk) {
		k.client(v4.CodeRegister, 0, v4.Register{Name: vectorClient})
		k.server(v4.CodeNameTaken, 0, nil)
	}},
	{"register-lost", "The client knows an id that the server does not, and registers in the same connection.", func(k *talk) {
		k.client(v4.CodeReconnect, 0, v4.Reconnect{ID: [v4.IDSize]byte{9}, Name: vectorClient})
		k.server(v4.CodeUnknown, 0, v4.Client{ID: [v4.IDSize]byte{9}})
		k.register()
	}},
	{"reconnect", "A known client comes back.", (*talk).reconnect},
	{"reconnect-proof", "The proof does not open: the client has another exporter value, because TLS was opened in between. The refusal is not sealed.", func(k *talk) {
		k.client(v4.CodeReconnect, 0, v4.Reconnect{ID: someID, Name: vectorClient})
		k.server(v4.CodeReconnKey, 0, v4.Wrapped{ID: someID, Secret: k.fixture.wrapped})
		k.keys(counting(0xC0, 32))
		k.c.Exporter = hex.EncodeToString(counting(0xC0, 32))
		k.client(v4.CodeProve, 0, v4.Prove{Packet: 65536})
		k.c.Messages[len(k.c.Messages)-1].Opens = new(bool)
		k.toClient = nil
		k.refused(0, v4.ReasonUnauthorized, 0, "the proof does not open: the client's key is another one, or TLS is opened in between")
	}},
	{"reconnect-revoked", "The operator has revoked the client.", func(k *talk) {
		k.client(v4.CodeReconnect, 0, v4.Reconnect{ID: someID, Name: vectorClient})
		k.refused(0, v4.ReasonRevoked, 0, "the server's operator has revoked this client")
	}},
	{"large", "A file in packets, whose sums the client takes while it sends.", func(k *talk) {
		k.reconnect()
		k.client(v4.CodeOffer, 1, large.unknown())
		k.server(v4.CodeGo, 1, v4.Offset{})
		k.packets(large, 0, 16384)
		k.server(v4.CodeThanks, 1, v4.Offset{Bytes: 16384})
		k.packets(large, 16384, 32768)
		k.server(v4.CodeThanks, 1, v4.Offset{Bytes: 32768})
		k.packets(large, 32768, 40_000)
		k.client(v4.CodeEnd, 1, large.Sum)
		k.stored(numbered{1, large})
	}},
	{"large-cut", "The connection ends in the middle of a file.", func(k *talk) {
		k.reconnect()
		k.client(v4.CodeOffer, 7, large.Offer)
		k.server(v4.CodeGo, 7, v4.Offset{})
		k.packets(large, 0, 8192)
		k.server(v4.CodeThanks, 7, v4.Offset{Bytes: 8192})
		k.packets(large, 8192, 24_576)
	}},
	{"large-resume", "A small file, and at once a transfer that goes on behind what was kept; one answer for both.", func(k *talk) {
		k.reconnect()
		k.client(v4.CodeFile, 2, little.inOne())
		k.client(v4.CodeOffer, 1, large.Offer)
		k.server(v4.CodeGo, 1, v4.Offset{Bytes: 8192})
		k.packets(large, 8192, 24_576)
		k.server(v4.CodeThanks, 1, v4.Offset{Bytes: 24_576})
		k.packets(large, 24_576, 40_000)
		k.client(v4.CodeEnd, 1, large.Sum)
		k.stored(numbered{2, little}, numbered{1, large})
	}},
	{"large-kept", "All of a file is kept already: its end follows at once.", func(k *talk) {
		k.reconnect()
		k.client(v4.CodeOffer, 1, large.Offer)
		k.server(v4.CodeGo, 1, v4.Offset{Bytes: 40_000})
		k.client(v4.CodeEnd, 1, large.Sum)
		k.stored(numbered{1, large})
	}},
	{"large-empty", "A file of no bytes, offered as a large one.", func(k *talk) {
		k.reconnect()
		k.client(v4.CodeOffer, 1, empty.unknown())
		k.server(v4.CodeGo, 1, v4.Offset{})
		k.client(v4.CodeEnd, 1, empty.Sum)
		k.stored(numbered{1, empty})
	}},
	{"large-differs", "The sums differ once; the file comes again from its start.", func(k *talk) {
		k.reconnect()
		k.client(v4.CodeOffer, 1, another.Offer)
		k.server(v4.CodeGo, 1, v4.Offset{})
		k.client(v4.CodePacket, 0, raw(bytes.Repeat([]byte{0}, 251)))
		k.client(v4.CodeEnd, 1, another.Sum)
		k.server(v4.CodeDiffers, 1, differsOf(make([]byte, 251)))
		k.client(v4.CodeAgain, 1, nil)
		k.packets(another, 0, 251)
		k.client(v4.CodeEnd, 1, another.Sum)
		k.stored(numbered{1, another})
	}},
	{"large-differs-4", "The sums differ four times; the client gives up.", func(k *talk) {
		k.reconnect()
		k.client(v4.CodeOffer, 1, another.Offer)
		k.server(v4.CodeGo, 1, v4.Offset{})
		for send := range 4 {
			if send > 0 {
				k.client(v4.CodeAgain, 1, nil)
			}
			k.client(v4.CodePacket, 0, raw(bytes.Repeat([]byte{byte(send)}, 251)))
			k.client(v4.CodeEnd, 1, another.Sum)
			k.server(v4.CodeDiffers, 1, differsOf(bytes.Repeat([]byte{byte(send)}, 251)))
		}
		k.client(v4.CodeGiveUp, 1, nil)
	}},
	{"large-given-up", "The client gives up in the middle of a file, and offers another.", func(k *talk) {
		k.reconnect()
		k.client(v4.CodeOffer, 1, large.Offer)
		k.server(v4.CodeGo, 1, v4.Offset{})
		k.packets(large, 0, 8192)
		k.client(v4.CodeGiveUp, 1, nil)
		k.client(v4.CodeOffer, 2, another.Offer)
		k.server(v4.CodeGo, 2, v4.Offset{})
		k.packets(another, 0, 251)
		k.client(v4.CodeEnd, 2, another.Sum)
		k.stored(numbered{2, another})
	}},
	{"large-refused", "The disk is full in the middle of a file: packets that are on their way are passed over until the client gives up.", func(k *talk) {
		k.reconnect()
		k.client(v4.CodeOffer, 1, large.Offer)
		k.server(v4.CodeGo, 1, v4.Offset{})
		k.packets(large, 0, 8192)
		k.refused(1, v4.ReasonNoRoom, 30_000, "the server's disk is full")
		k.packets(large, 8192, 16_384)
		k.client(v4.CodeGiveUp, 1, nil)
		k.client(v4.CodeFile, 2, little.inOne())
		k.stored(numbered{2, little})
	}},
	{"large-revoked", "The client is revoked in the middle of a file.", func(k *talk) {
		k.reconnect()
		k.client(v4.CodeOffer, 1, large.Offer)
		k.server(v4.CodeGo, 1, v4.Offset{})
		k.packets(large, 0, 8192)
		k.refused(0, v4.ReasonRevoked, 0, "the server's operator has revoked this client")
	}},
	{"small", "Files in one message each; the answers come in another order, and one for two of them.", func(k *talk) {
		k.reconnect()
		k.client(v4.CodeFile, 10, little.inOne())
		k.client(v4.CodeFile, 1<<40, another.inOne())
		k.client(v4.CodeFile, 3, empty.inOne())
		k.stored(numbered{1 << 40, another})
		k.stored(numbered{3, empty}, numbered{10, little})
	}},
	{"small-differs", "The content of a file in one message does not add up; it comes again under another number.", func(k *talk) {
		k.reconnect()
		wrong := little.inOne()
		wrong.Content = make([]byte, len(wrong.Content))
		k.client(v4.CodeFile, 1, wrong)
		k.server(v4.CodeDiffers, 1, differsOf(wrong.Content))
		k.client(v4.CodeFile, 2, little.inOne())
		k.stored(numbered{2, little})
	}},
	{"again", "Files that are stored already are answered with their receipts, offered or sent.", func(k *talk) {
		k.reconnect()
		k.client(v4.CodeOffer, 1, large.Offer)
		k.stored(numbered{1, large})
		k.client(v4.CodeOffer, 2, large.unknown())
		k.stored(numbered{2, large})
		k.client(v4.CodeFile, 3, little.inOne())
		k.stored(numbered{3, little})
	}},
	{"exists", "The names are taken by other content.", func(k *talk) {
		k.reconnect()
		other := v4.Differs{Size: another.Size, Sum: another.Sum}
		k.client(v4.CodeOffer, 1, large.Offer)
		k.server(v4.CodeRefused, 1, v4.Refused{Reason: v4.ReasonExists, Words: "a file of that name exists", Exists: other})
		k.client(v4.CodeFile, 2, little.inOne())
		k.server(v4.CodeRefused, 2, v4.Refused{Reason: v4.ReasonExists, Words: "a file of that name exists", Exists: other})
	}},
	{"refusals", "What else may be wrong with one file.", func(k *talk) {
		k.reconnect()
		bad := little
		bad.Name = "../../etc/passwd"
		huge := large
		huge.Size = 1 << 62
		k.client(v4.CodeFile, 1, bad.inOne())
		k.refused(1, v4.ReasonName, 0, "its part \"..\" means a folder")
		k.client(v4.CodeOffer, 2, huge.unknown())
		k.refused(2, v4.ReasonTooLarge, 0, "the file is larger than the server takes")
		k.client(v4.CodeFile, 3, little.inOne())
		k.refused(3, v4.ReasonQuota, 600_000, "quota")
		k.client(v4.CodeFile, 4, little.inOne())
		k.refused(4, v4.ReasonNoRoom, 30_000, "the server's disk is full")
		k.client(v4.CodeFile, 5, little.inOne())
		k.refused(5, v4.ReasonBusy, 1000, "too much at once")
		k.client(v4.CodeFile, 6, little.inOne())
		k.refused(6, v4.ReasonInternal, 60_000, "something is wrong with the server")
	}},
	{"violation", "The client says what it may not; the session ends.", func(k *talk) {
		k.reconnect()
		k.client(v4.CodePacket, 0, raw("nobody asked for this"))
		k.refused(0, v4.ReasonViolation, 0, "828 (packet) belongs to no offer")
	}},
	{"stopping", "The server is shut down.", func(k *talk) {
		k.reconnect()
		k.refused(0, v4.ReasonStopping, 5000, "the server is shutting down")
	}},
	{"rotate", "The client puts another key in the place of its own.", func(k *talk) {
		k.reconnect()
		k.rotate(k.fixture.exporter)
		k.server(v4.CodeThanks, 0, v4.Offset{})
		k.client(v4.CodeFile, 1, little.inOne())
		k.stored(numbered{1, little})
	}},
	{"rotate-refused", "The new key's signature is for another connection.", func(k *talk) {
		k.reconnect()
		k.rotate(counting(0xC0, 32))
		k.refused(0, v4.ReasonUnauthorized, 0, "the new key's signature is not good")
	}},
	{"rotate-reconnect", "Afterwards the server wraps for the new key.", func(k *talk) {
		k.client(v4.CodeReconnect, 0, v4.Reconnect{ID: someID, Name: vectorClient})
		k.server(v4.CodeReconnKey, 0, v4.Wrapped{ID: someID, Secret: k.fixture.wrappedNext})
		k.welcome()
	}},
}

// rotate asks to replace the key.
func (k *talk) rotate(exporter []byte) {
	k.t.Helper()
	der := spki(k.t, &k.fixture.next.PublicKey)
	signature, err := v4.SignRotate(k.fixture.next, v4.RotateContext(exporter, someID, der))
	if err != nil {
		k.t.Fatal(err)
	}
	k.client(v4.CodeRotate, 0, v4.Rotate{Key: der, Signature: signature})
}

// differsOf is what the server says of content.
func differsOf(content []byte) v4.Differs {
	s := proto.NewSummer()
	_, _ = s.Write(content)
	sum := s.Sum()
	return v4.Differs{Size: sum.Size, Sum: v4.Sum{Cksum: sum.Cksum, SHA256: sum.SHA256}}
}
