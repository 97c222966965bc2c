package v4_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	v4 "ferry/proto/v4"
)

// An encoder is a message.
type encoder interface{ Append(b []byte) []byte }

// A parser is a message's Parse function.
type parser func([]byte) (encoder, error)

func parserOf[M encoder](parse func([]byte) (M, error)) parser {
	return func(b []byte) (encoder, error) {
		m, err := parse(b)
		return m, err
	}
}

// small is a file in one message.
type small struct {
	v4.Offer
	Content []byte
}

func (m small) Append(b []byte) []byte { return append(m.Offer.Append(b), m.Content...) }

func parseSmall(b []byte) (small, error) {
	o, content, err := v4.ParseFile(b)
	return small{o, content}, err
}

// bytesOf reads hexadecimal digits between blanks.
func bytesOf(t testing.TB, digits string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(digits), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var (
	someID  = [v4.IDSize]byte{0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff}
	someSum = v4.Sum{Cksum: 0xDEADBEEF, SHA256: [32]byte{0: 0xA0, 31: 0xAF}}
)

const (
	someIDHex  = "00112233 44556677 8899aabb ccddeeff"
	someSumHex = "efbeadde a0000000 00000000 00000000 00000000 00000000 00000000 00000000 000000af"
	noSumHex   = "00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000"
)

// golden has messages and their bytes, written by hand from the page.
var golden = []struct {
	name  string
	m     encoder
	parse parser
	bytes string
}{
	{"register", v4.Register{Name: "ci", Token: "abc"}, parserOf(v4.ParseRegister), "0200 6369 0300 616263"},
	{"register without a token", v4.Register{Name: "é"}, parserOf(v4.ParseRegister), "0200 c3a9 0000"},
	{"client", v4.Client{ID: someID}, parserOf(v4.ParseClient), someIDHex},
	{"public key", v4.PublicKey{Key: []byte{1, 2, 3}}, parserOf(v4.ParsePublicKey), "0300 010203"},
	{"reconnect", v4.Reconnect{ID: someID, Name: "ci"}, parserOf(v4.ParseReconnect), someIDHex + "0200 6369"},
	{"wrapped", v4.Wrapped{ID: someID, Secret: []byte{9, 8}}, parserOf(v4.ParseWrapped), someIDHex + "0200 0908"},
	{"prove", v4.Prove{Packet: 65536}, parserOf(v4.ParseProve), "00000100"},
	{
		"welcome", v4.Welcome{Packet: 8192, Window: 16 << 20, Unanswered: 256}, parserOf(v4.ParseWelcome),
		"00200000 0000000100000000 00010000",
	},
	{
		"welcome at its limits", v4.Welcome{Packet: 1 << 20, Window: math.MaxInt64, Unanswered: math.MaxUint32}, parserOf(v4.ParseWelcome),
		"00001000 ffffffffffffff7f ffffffff",
	},
	{"sum", someSum, parserOf(v4.ParseSum), someSumHex},
	{
		"offer", v4.Offer{Transfer: someID, Size: 1 << 40, Mode: 0o640, ModTime: 1, Known: true, Sum: someSum, Name: "a/b"},
		parserOf(v4.ParseOffer),
		someIDHex + "0000000000010000 a0010000 0100000000000000 01" + someSumHex + "0300 612f62",
	},
	{
		"offer of what is not known", v4.Offer{Transfer: someID, Size: math.MaxInt64, Mode: 0o777, ModTime: v4.NoTime, Name: "x"},
		parserOf(v4.ParseOffer),
		someIDHex + "ffffffffffffff7f ff010000 0000000000000080 00" + noSumHex + "0100 78",
	},
	{
		"offer from before 1970, known to add up to zeros", v4.Offer{ModTime: -2, Known: true}, parserOf(v4.ParseOffer),
		"00000000 00000000 00000000 00000000 0000000000000000 00000000 feffffffffffffff 01" + noSumHex + "0000",
	},
	{
		"file", small{v4.Offer{Transfer: someID, Size: 4, ModTime: v4.NoTime, Known: true, Sum: someSum, Name: "x"}, []byte("text")},
		parserOf(parseSmall),
		someIDHex + "0400000000000000 00000000 0000000000000080 01" + someSumHex + "0100 78 74657874",
	},
	{
		"empty file", small{v4.Offer{Known: true, Sum: someSum, Name: "x"}, nil}, parserOf(parseSmall),
		"00000000 00000000 00000000 00000000 0000000000000000 00000000 0000000000000000 01" + someSumHex + "0100 78",
	},
	{"offset", v4.Offset{Bytes: 0x0102030405060708}, parserOf(v4.ParseOffset), "0807060504030201"},
	{
		"stored", v4.Stored{Numbers: []uint64{1, math.MaxUint64}, Envelope: []byte("{}")}, parserOf(v4.ParseStored),
		"02000000 0100000000000000 ffffffffffffffff 02000000 7b7d",
	},
	{"stored without a receipt", v4.Stored{Numbers: []uint64{0}}, parserOf(v4.ParseStored), "01000000 0000000000000000 00000000"},
	{"differs", v4.Differs{Size: 5, Sum: someSum}, parserOf(v4.ParseDiffers), "0500000000000000" + someSumHex},
	{"refused", v4.Refused{Reason: v4.ReasonBusy, After: 1500, Words: "später"}, parserOf(v4.ParseRefused), "0a00 dc050000 0700 7370c3a4746572"},
	{
		"refused for what exists", v4.Refused{Reason: v4.ReasonExists, Exists: v4.Differs{Size: 5, Sum: someSum}}, parserOf(v4.ParseRefused),
		"0300 00000000 0000 0500000000000000" + someSumHex,
	},
	{"refused for a reason that nobody knows", v4.Refused{Reason: 65535, After: math.MaxUint32}, parserOf(v4.ParseRefused), "ffff ffffffff 0000"},
	{"rotate", v4.Rotate{Key: []byte{1}, Signature: []byte{2, 3}}, parserOf(v4.ParseRotate), "0100 01 0200 0203"},
	{"header", v4.Header{Code: v4.CodePacket, Length: 8208, Number: 1 << 32}, parserOf(v4.ParseHeader), "3c03 0000 10200000 0000000001000000"},
	{
		"header at its limits", v4.Header{Code: 65535, Length: math.MaxUint32, Number: math.MaxUint64}, parserOf(v4.ParseHeader),
		"ffff 0000 ffffffff ffffffffffffffff",
	},
}

// TestMessages: a message has these bytes and no others; of fewer or more of
// them nothing is read.
func TestMessages(t *testing.T) {
	for _, test := range golden {
		t.Run(test.name, func(t *testing.T) {
			want := bytesOf(t, test.bytes)
			if got := test.m.Append([]byte("before")); !bytes.Equal(got, append([]byte("before"), want...)) {
				t.Errorf("bytes: got\n%x, want\n%x", got[len("before"):], want)
			}
			got, err := test.parse(want)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(test.m, got, equateEmpty); d != "" {
				t.Errorf("message (-want +got):\n%s", d)
			}
			for n := range want {
				refuses(t, fmt.Sprintf("the first %d bytes", n), test.parse, want[:n])
			}
			if _, header := test.m.(v4.Header); !header { // it is read from what more follows on
				refuses(t, "a byte more", test.parse, append(bytes.Clone(want), 0))
				refuses(t, "the message twice", test.parse, append(bytes.Clone(want), want...))
			}
		})
	}
}

var equateEmpty = cmp.Comparer(func(a, b []byte) bool { return bytes.Equal(a, b) })

// refuses wants an ErrFormat, and nothing else.
func refuses(t *testing.T, what string, parse parser, b []byte) {
	t.Helper()
	m, err := parse(b)
	if !errors.Is(err, v4.ErrFormat) {
		t.Errorf("%s: got %v, want %v", what, err, v4.ErrFormat)
	}
	if !isZero(m) {
		t.Errorf("%s: there is a message beside the error: %+v", what, m)
	}
}

func isZero(m encoder) bool {
	switch m := m.(type) {
	case v4.PublicKey:
		return m.Key == nil
	case v4.Wrapped:
		return m.ID == [v4.IDSize]byte{} && m.Secret == nil
	case v4.Stored:
		return m.Numbers == nil && m.Envelope == nil
	case v4.Rotate:
		return m.Key == nil && m.Signature == nil
	case small:
		return m.Offer == v4.Offer{} && m.Content == nil
	case v4.Register:
		return m == v4.Register{}
	case v4.Client:
		return m == v4.Client{}
	case v4.Reconnect:
		return m == v4.Reconnect{}
	case v4.Prove:
		return m == v4.Prove{}
	case v4.Welcome:
		return m == v4.Welcome{}
	case v4.Sum:
		return m == v4.Sum{}
	case v4.Offer:
		return m == v4.Offer{}
	case v4.Offset:
		return m == v4.Offset{}
	case v4.Differs:
		return m == v4.Differs{}
	case v4.Refused:
		return m == v4.Refused{}
	case v4.Header:
		return m == v4.Header{}
	}
	panic(fmt.Sprintf("no rule for %T", m))
}

// with is the bytes of a golden message, some of them changed.
func with(t *testing.T, name string, at int, change string) (parser, []byte) {
	t.Helper()
	for _, test := range golden {
		if test.name == name {
			b := bytesOf(t, test.bytes)
			copy(b[at:], bytesOf(t, change))
			return test.parse, b
		}
	}
	t.Fatalf("there is no message %q", name)
	return nil, nil
}

// Values that a field cannot have.
func TestMessagesRefuse(t *testing.T) {
	for _, test := range []struct {
		what, message string
		at            int
		change        string
	}{
		{"a header's bytes that must be 0", "header", 2, "01"},
		{"a header's bytes that must be 0", "header", 3, "80"},
		{"a packet below 8 KiB", "welcome", 0, "ff1f0000"},
		{"a packet over 1 MiB", "welcome at its limits", 0, "01001000"},
		{"a window below a packet", "welcome", 4, "ff1f000000000000"},
		{"a window of 2^63", "welcome", 4, "0000000000000080"},
		{"none may be unanswered", "welcome", 12, "00000000"},
		{"a size of 2^63", "offer", 16, "0000000000000080"},
		{"a mode beyond permissions", "offer", 24, "00020000"},
		{"a mode of another 32 bits", "offer", 24, "00000080"},
		{"a flag that does not exist", "offer", 36, "03"},
		{"a flag that does not exist", "offer", 36, "80"},
		{"a sum that is not known", "offer", 36, "00"},
		{"a sum that is not known", "offer of what is not known", 72, "01"},
		{"a file of unknown sum", "file", 36, "00"},
		{"a file of another size", "file", 16, "05"},
		{"a file of another size", "file", 16, "03"},
		{"a file's size of 2^63", "file", 23, "80"},
		{"an offset of 2^63", "offset", 7, "80"},
		{"an answer for no file", "stored without a receipt", 0, "00"},
		{"an answer for 129 files", "stored", 0, "81"},
		{"an answer for 2^32-1 files", "stored", 0, "ffffffff"},
		{"a receipt longer than it is", "stored", 20, "03"},
		{"a receipt shorter than it is", "stored", 20, "01"},
		{"a receipt of 2^32-1 bytes", "stored", 20, "ffffffff"},
		{"a size of 2^63", "differs", 7, "80"},
		{"a size of 2^63", "refused for what exists", 15, "80"},
		{"what exists with another reason", "refused for what exists", 0, "04"},
		{"nothing that exists", "refused", 0, "03"},
		{"words that are not UTF-8", "refused", 8, "ff"},
	} {
		parse, b := with(t, test.message, test.at, test.change)
		refuses(t, test.message+": "+test.what, parse, b)
	}
}

// The longest of each that the limits allow, and one byte more.
func TestLimits(t *testing.T) {
	offer := func(name int) v4.Offer {
		return v4.Offer{Known: true, Name: strings.Repeat("n", name), Size: 1}
	}
	file := func(name, content int) small {
		m := small{offer(name), make([]byte, content)}
		m.Size = int64(content)
		return m
	}
	stored := func(files, envelope int) v4.Stored {
		return v4.Stored{Numbers: make([]uint64, files), Envelope: make([]byte, envelope)}
	}
	const most = 65535 // that a length of 16 bits can say
	for _, test := range []struct {
		name  string
		code  v4.Code
		parse parser
		good  encoder
		bad   []encoder
	}{
		{
			"register", v4.CodeRegister, parserOf(v4.ParseRegister), v4.Register{strings.Repeat("n", 255), strings.Repeat("t", 64)},
			[]encoder{
				v4.Register{strings.Repeat("n", 256), ""}, v4.Register{"", strings.Repeat("t", 65)},
				v4.Register{strings.Repeat("n", most), ""}, v4.Register{"", strings.Repeat("t", most)},
			},
		},
		{
			"public key", v4.CodePublicKey, parserOf(v4.ParsePublicKey), v4.PublicKey{make([]byte, 2048)},
			[]encoder{v4.PublicKey{make([]byte, 2049)}},
		},
		{
			"reconnect", v4.CodeReconnect, parserOf(v4.ParseReconnect), v4.Reconnect{someID, strings.Repeat("n", 255)},
			[]encoder{v4.Reconnect{someID, strings.Repeat("n", 256)}},
		},
		{
			"wrapped", v4.CodeKey, parserOf(v4.ParseWrapped), v4.Wrapped{someID, make([]byte, 2048)},
			[]encoder{v4.Wrapped{someID, make([]byte, 2049)}},
		},
		{"offer", v4.CodeOffer, parserOf(v4.ParseOffer), offer(1024), []encoder{offer(1025), offer(most)}},
		{
			"file", v4.CodeFile, parserOf(parseSmall), file(1024, 64<<10),
			[]encoder{file(1025, 1), file(1, 64<<10+1)},
		},
		{
			"stored", v4.CodeStored, parserOf(v4.ParseStored), stored(128, 64<<10),
			[]encoder{stored(0, 1), stored(129, 1), stored(1, 64<<10+1)},
		},
		{"rotate", v4.CodeRotate, parserOf(v4.ParseRotate), v4.Rotate{make([]byte, 2048), make([]byte, 1024)}, []encoder{
			v4.Rotate{make([]byte, 2049), nil}, v4.Rotate{nil, make([]byte, 2049)},
		}},
		{
			"refused", v4.CodeRefused, parserOf(v4.ParseRefused),
			v4.Refused{Reason: v4.ReasonExists, Words: strings.Repeat("w", 512), Exists: v4.Differs{Size: 1, Sum: someSum}}, nil,
		},
	} {
		b := test.good.Append(nil)
		m, err := test.parse(b)
		if err != nil {
			t.Errorf("%s: the longest does not parse: %v", test.name, err)
		} else if d := cmp.Diff(test.good, m, equateEmpty); d != "" {
			t.Errorf("%s: the longest (-want +got):\n%s", test.name, d)
		}
		if limit := v4.PayloadLimit(test.code, v4.MinPacket); len(b) > limit {
			t.Errorf("%s: it may have %d bytes, the limit of its code is %d", test.name, len(b), limit)
		}
		for i, bad := range test.bad {
			refuses(t, fmt.Sprintf("%s, too long (%d)", test.name, i), test.parse, bad.Append(nil))
		}
	}
	long := append(bytesOf(t, "0100 00000000 0102"), make([]byte, 513)...)
	refuses(t, "refused with 513 bytes of words", parserOf(v4.ParseRefused), long)
}

func TestPayloadLimit(t *testing.T) {
	for code, want := range map[v4.Code]int{
		v4.CodeRegister: 4096, v4.CodePublicKey: 4096, v4.CodeReconnect: 4096, v4.CodeProve: 4096,
		v4.CodePacket: 12345, v4.CodeOffer: 16 + 8 + 4 + 8 + 1 + 36 + 2 + 1024, v4.CodeFile: 16 + 8 + 4 + 8 + 1 + 36 + 2 + 1024 + 65536,
		v4.CodeEnd: 4096, v4.CodeRotate: 4096, v4.CodeAgain: 0, v4.CodeGiveUp: 0,
		v4.CodeRegistered: 4096, v4.CodeNameTaken: 0, v4.CodeKey: 4096, v4.CodeStored: 4 + 128*8 + 4 + 65536, v4.CodeThanks: 4096,
		v4.CodeReconnKey: 4096, v4.CodeUnknown: 4096, v4.CodeRefused: 4096, v4.CodeDiffers: 4096, v4.CodeWelcome: 4096, v4.CodeGo: 4096,
		0: 0, 824: 0, 834: 0, 1609: 0, 65535: 0,
	} {
		if got := v4.PayloadLimit(code, 12345); got != want {
			t.Errorf("%v: got %d, want %d", code, got, want)
		}
	}
}

// Words are cut off where a character ends.
func TestRefusedWords(t *testing.T) {
	for _, test := range []struct{ words, want string }{
		{"", ""},
		{strings.Repeat("w", 513), strings.Repeat("w", 512)},
		{"w" + strings.Repeat("é", 300), "w" + strings.Repeat("é", 255)},
		{strings.Repeat("\U0001F600", 129), strings.Repeat("\U0001F600", 128)},
		{"w" + strings.Repeat("\U0001F600", 129), "w" + strings.Repeat("\U0001F600", 127)},
		{"a\xffb", "ab"},
		{strings.Repeat("\xff", 600), ""},
	} {
		got, err := v4.ParseRefused(v4.Refused{Reason: v4.ReasonName, Words: test.words}.Append(nil))
		if err != nil || got.Words != test.want || !utf8.ValidString(got.Words) {
			t.Errorf("%.20q…: got %q, %v, want %q", test.words, got.Words, err, test.want)
		}
	}
}

// An offer whose sum is not known carries none.
func TestOfferOfUnknownSum(t *testing.T) {
	m := v4.Offer{Name: "x", Sum: someSum}
	got, err := v4.ParseOffer(m.Append(nil))
	m.Sum = v4.Sum{}
	if err != nil || got != m {
		t.Errorf("got %+v, %v, want %+v", got, err, m)
	}
}

func TestCodeString(t *testing.T) {
	for code, want := range map[v4.Code]string{
		v4.CodePacket: "828 (packet)", v4.CodeWelcome: "1610 (welcome)", 834: "834 (unknown)", 0: "0 (unknown)",
	} {
		if got := code.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	for code := range v4.Code(2000) {
		known := !strings.Contains(code.String(), "unknown)")
		if exists := isCode(code); known != exists {
			t.Errorf("%v: has a name: %t, exists: %t", code, known, exists)
		}
	}
}

// isCode goes by the page.
func isCode(c v4.Code) bool {
	return c >= 825 && c <= 833 || c == 901 || c == 902 || c >= 1600 && c <= 1608 || c == 1610 || c == 1611
}
