package v3_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"ferry/proto/prototest"
	v3 "ferry/proto/v3"
)

// An encoder is any message of version 3.
type encoder interface{ Append(b []byte) []byte }

// A request is what a client said: a header, and either a payload or a packet.
type request struct {
	v3.RequestHeader
	payload encoder // PacketHeader for an 828
	raw     []byte  // all of it
}

// A response is what a server said.
type response struct {
	v3.ResponseHeader
	payload encoder // nil if it is empty
	raw     []byte
}

// A conversation is a whole recording as a server and a client of ours read it.
type conversation struct {
	requests  []request
	responses []response
	unpacker  *v3.Unpacker // the one of all packets
	sends     []send       // of the file, each from packet 1 to the last
}

// A send is what came of one send of the file.
type send struct {
	text []byte
	err  error // of Finish
}

// read takes a recording apart. The test fails where something does not parse,
// is longer than its limit, is left over, or does not encode to the same bytes.
func read(t testing.TB, r prototest.Recording, key v3.Key) conversation {
	t.Helper()
	var c conversation
	for s := (stream{t, r.C2S}); len(s.left) > 0; {
		c.request(&s, key)
	}
	for s := (stream{t, r.S2C}); len(s.left) > 0; {
		c.response(&s)
	}
	return c
}

// A stream is taken from as a connection is read.
type stream struct {
	t    testing.TB
	left []byte
}

func (s *stream) take(n int) []byte {
	s.t.Helper()
	if n > len(s.left) {
		s.t.Fatalf("the stream ends: %d more bytes, want %d", len(s.left), n)
	}
	b := s.left[:n]
	s.left = s.left[n:]
	return b
}

// parsed is what raw parses to. It must encode to the same bytes.
func parsed[M encoder](t testing.TB, parse func([]byte) (M, error), raw []byte) M {
	t.Helper()
	m, err := parse(raw)
	if err != nil {
		t.Fatalf("%T: %v", m, err)
	}
	if got := m.Append(nil); !bytes.Equal(got, raw) {
		t.Fatalf("%T encodes to\n%x, want\n%x", m, got, raw)
	}
	return m
}

// limit fails for a payload that a reader would refuse.
func limit(t testing.TB, code v3.Code, size uint32) {
	t.Helper()
	if limit, ok := v3.PayloadLimit(code); !ok || int64(size) > int64(limit) {
		t.Fatalf("%v with a payload of %d bytes: the limit is %d, %v", code, size, limit, ok)
	}
}

func (c *conversation) request(s *stream, key v3.Key) {
	t, all := s.t, s.left
	t.Helper()
	req := request{RequestHeader: parsed(t, v3.ParseRequestHeader, s.take(v3.RequestHeaderSize))}
	limit(t, req.Code, req.PayloadSize)
	size := int(req.PayloadSize)
	switch req.Code {
	case v3.CodeRegister:
		req.payload = parsed(t, v3.ParseRegister, s.take(size))
	case v3.CodePublicKey:
		req.payload = parsed(t, v3.ParsePublicKey, s.take(size))
	case v3.CodeReconnect:
		req.payload = parsed(t, v3.ParseReconnect, s.take(size))
	case v3.CodeEqual, v3.CodeDiffers, v3.CodeGiveUp:
		req.payload = parsed(t, v3.ParseConfirm, s.take(size))
	case v3.CodePacket:
		h := parsed(t, v3.ParsePacketHeader, s.take(v3.PacketHeaderSize))
		req.payload = h
		c.packet(s, key, req.PayloadSize, h)
	default:
		t.Fatalf("request %v", req.Code)
	}
	req.raw = all[:len(all)-len(s.left)]
	c.requests = append(c.requests, req)
}

func (c *conversation) packet(s *stream, key v3.Key, payload uint32, h v3.PacketHeader) {
	t, u := s.t, c.unpacker
	t.Helper()
	var err error
	switch {
	case u == nil:
		u, err = v3.Recognize(key, payload, h)
		c.unpacker = u
	case u.Done():
		u.Restart()
		err = u.Next(payload, h)
	default:
		err = u.Next(payload, h)
	}
	if err != nil {
		t.Fatalf("packet %v: %v", h.Numbers, err)
	}
	if u.Number() == 1 {
		c.sends = append(c.sends, send{})
	}
	last := &c.sends[len(c.sends)-1]
	last.text = u.Open(last.text, s.take(u.Left()))
	last.err = u.Finish()
}

func (c *conversation) response(s *stream) {
	t, all := s.t, s.left
	t.Helper()
	resp := response{ResponseHeader: parsed(t, v3.ParseResponseHeader, s.take(v3.ResponseHeaderSize))}
	limit(t, resp.Code, resp.PayloadSize)
	switch size := int(resp.PayloadSize); {
	case resp.Code == v3.CodeKey || resp.Code == v3.CodeReconnected:
		resp.payload = parsed(t, v3.ParseWrappedKey, s.take(size))
	case resp.Code == v3.CodeReceived:
		resp.payload = parsed(t, v3.ParseReceived, s.take(size))
	case size > 0:
		resp.payload = parsed(t, v3.ParseRegistered, s.take(size))
	case resp.Code == v3.CodeRegistered:
		t.Fatalf("response %v without an id", resp.Code)
	}
	resp.raw = all[:len(all)-len(s.left)]
	c.responses = append(c.responses, resp)
}

// dialect is the one that a recording is in, known from outside.
func dialect(t *testing.T, r prototest.Recording) v3.Dialect {
	t.Helper()
	d, err := v3.DialectNamed(r.Dialect, r.Slice)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestVectorsDecode(t *testing.T) {
	for _, v := range prototest.Vectors(t) {
		t.Run(v.String(), func(t *testing.T) {
			c := read(t, v.Recording, v.Key)
			if len(c.sends) != 1 || c.sends[0].err != nil || !bytes.Equal(c.sends[0].text, v.Content()) {
				t.Errorf("the file did not come: %d sends, %v", len(c.sends), c.sends)
			}
			if got := c.unpacker.Name(); got != v.File {
				t.Errorf("name: got %q, want %q", got, v.File)
			}
			recognised(t, c.unpacker.Plan(), dialect(t, v.Recording), v.Size)
		})
	}
}

// A failer is a *testing.T or a *rapid.T.
type failer interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// recognised checks a plan made of a first packet against one made from
// outside. A file in one packet shows its dialect in seed only, and never how
// large a packet may be.
func recognised(t failer, got v3.Plan, d v3.Dialect, size int64) {
	t.Helper()
	want, err := d.Plan(size)
	if err != nil {
		t.Errorf("plan: %v", err)
		return
	}
	if want.Packets == 1 && d.StatedPayload == 0 {
		want, err = v3.Mainstream(want.CipherSize(1)).Plan(size)
		if err != nil {
			t.Errorf("plan: %v", err)
		}
	}
	if got != want {
		t.Errorf("recognised plan: got %+v, want %+v", got, want)
	}
}

// What a client of ours says for the same inputs is what was recorded.
func TestVectorsClientBytes(t *testing.T) {
	for _, v := range prototest.Vectors(t) {
		t.Run(v.String(), func(t *testing.T) {
			d := dialect(t, v.Recording)
			got := clientOpening(t, v)
			plan, err := d.Plan(v.Size)
			if err != nil {
				t.Fatal(err)
			}
			src := bytes.NewReader(v.Content())
			p := v3.NewPacker(plan, v.Key, v.ClientID, v.File)
			for !p.Done() {
				if got, err = p.Append(got, src); err != nil {
					t.Fatal(err)
				}
			}
			if !d.Unconfirmed {
				got = append(got, say(v.ClientID, v3.CodeEqual, v3.Confirm{Name: v.File})...)
			}
			sameBytes(t, got, v.C2S)
		})
	}
}

// clientOpening is what a client says before its first packet.
func clientOpening(t *testing.T, v prototest.Vector) []byte {
	t.Helper()
	if !v.Registers() {
		return say(v.ClientID, v3.CodeReconnect, v3.Reconnect{Name: v.User})
	}
	// The id in an 825 is anything: ours is the recorded one.
	h := parsed(t, v3.ParseRequestHeader, v.C2S[:v3.RequestHeaderSize])
	priv, err := v3.ParsePrivateKey(v.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := v3.MarshalPublicKeyInfo(&priv.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	b := say(h.Client, v3.CodeRegister, v3.Register{Name: v.User})
	return append(b, say(v.ClientID, v3.CodePublicKey, v3.PublicKey{Name: v.User, Key: pub})...)
}

// say encodes a request.
func say(client v3.ID, code v3.Code, m encoder) []byte {
	payload := m.Append(nil)
	return append(v3.RequestHeader{Client: client, Code: code, PayloadSize: uint32(len(payload))}.Append(nil), payload...)
}

// answer encodes a response.
func answer(code v3.Code, m encoder) []byte {
	payload := m.Append(nil)
	return append(v3.ResponseHeader{Code: code, PayloadSize: uint32(len(payload))}.Append(nil), payload...)
}

// What a server of ours says in the same place is what was recorded.
func TestVectorsServerBytes(t *testing.T) {
	for _, v := range prototest.Vectors(t) {
		t.Run(v.String(), func(t *testing.T) {
			d := dialect(t, v.Recording)
			plan, err := d.Plan(v.Size)
			if err != nil {
				t.Fatal(err)
			}
			key := v3.WrappedKey{Client: v.ClientID, Key: v.WrappedKey}
			var got []byte
			if v.Registers() {
				got = append(got, answer(v3.CodeRegistered, v3.Registered{Client: v.ClientID})...)
				got = append(got, answer(v3.CodeKey, key)...)
			} else {
				got = append(got, answer(v3.CodeReconnected, key)...)
			}
			for range plan.Packets {
				if d.AckPackets {
					got = d.AppendThanks(got, v.ClientID)
				}
			}
			got = append(got, answer(v3.CodeReceived, v3.Received{
				Client: v.ClientID, ContentSize: plan.ReceivedSize(), Name: v.File, Cksum: v.Cksum,
			})...)
			if !d.Unconfirmed {
				got = d.AppendThanks(got, v.ClientID)
			}
			sameBytes(t, got, v.S2C)
		})
	}
}

func sameBytes(t *testing.T, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	n := 0
	for n < min(len(got), len(want)) && got[n] == want[n] {
		n++
	}
	t.Errorf("byte %d differs: got %x…, want %x…, of %d and %d bytes", n,
		got[n:min(n+16, len(got))], want[n:min(n+16, len(want))], len(got), len(want))
}

func TestVectorsUnwrapKeys(t *testing.T) {
	for _, v := range prototest.Vectors(t) {
		priv, err := v3.ParsePrivateKey(v.PrivateKey)
		if err != nil {
			t.Fatalf("%v: %v", v, err)
		}
		if got, err := v3.UnwrapKey(priv, v.WrappedKey); got != v.Key || err != nil {
			t.Errorf("%v: unwrapped key is not the recorded one: %v", v, err)
		}
	}
}

// scenarios is how the programs behave when something is amiss: the codes that
// were sent each way.
var scenarios = map[string][2]string{
	"mainstream-4096/badcrc-all": {
		"825 826 828 901 828 901 828 901 828 902",
		"1600 1602 1603 1603 1603 1603 1604",
	},
	"mainstream-4096/badcrc1-first": {
		"825 826 828 901 828 900",
		"1600 1602 1603 1603 1604",
	},
	"mainstream-4096/name-taken": {
		"825 825 825 825",
		"1601 1601 1601 1601",
	},
	"mainstream-4096/reconnect-unknown": {
		"827 825 826 828 900",
		"1606 1600 1602 1603 1604",
	},
	"mainstream-4096/same-file-again": {
		"827 828 900",
		"1605 1603 1604",
	},
	"mainstream-734/badcrc-all": {
		"825 826 828 828 828 828 828",
		"1600 1602 1603 1603 1603 1603 1603",
	},
	"mainstream-734/badcrc1-first": {
		"825 826 828 828",
		"1600 1602 1603 1603",
	},
	"mainstream-734/name-taken": {
		"825 825 825 825",
		"1601 1601 1601 1601",
	},
	"mainstream-734/reconnect-unknown": {
		"827 825 826 828",
		"1606 1600 1602 1603",
	},
	"mainstream-734/same-file-again": {
		"827 828",
		"1605 1603",
	},
	"mainstream-8192/badcrc-all": {
		"825 826 828 901 828 901 828 901 828 902",
		"1600 1602 1603 1604 1603 1604 1603 1604 1603 1604",
	},
	"mainstream-8192/badcrc1-first": {
		"825 826 828 901 828 900",
		"1600 1602 1603 1604 1603 1604",
	},
	"mainstream-8192/name-taken": {
		"825 826 828 900",
		"1600 1602 1603 1604",
	},
	"mainstream-8192/reconnect-unknown": {
		"827 827 827 827 825 826 828 900",
		"1606 1606 1606 1606 1600 1602 1603 1604",
	},
	"mainstream-8192/same-file-again": {
		"827 828 900",
		"1605 1603 1604",
	},
	"per-slice-1040/badcrc-all": {
		"825 826 828 901 828 901 828 901 828 902",
		"1600 1602 1603 1603 1603 1603 1604",
	},
	"per-slice-1040/badcrc1-first": {
		"825 826 828 901 828 900",
		"1600 1602 1603 1603 1604",
	},
	"per-slice-1040/name-taken": {
		"825 825 825",
		"1601 1601 1601",
	},
	"per-slice-1040/reconnect-unknown": {
		"827 825 826 828 900",
		"1606 1600 1602 1603 1604",
	},
	"per-slice-1040/same-file-again": {
		"827 828 900",
		"1605 1603 1604",
	},
	"seed/badcrc-all": {
		"825 826 828 901 828 828 828 828",
		"1600 1602 1604 1603 1607 1607 1607 1607",
	},
	"seed/badcrc1-first": {
		"825 826 828 901 828 828 828 828",
		"1600 1602 1604 1603 1607 1607 1607 1607",
	},
	"seed/name-taken": {
		"825",
		"1601",
	},
	"seed/reconnect-unknown": {
		"827 825 826",
		"1606 1600 1602",
	},
	"seed/same-file-again": {
		"827 828 828 828 828",
		"1605 1607 1607 1607 1607",
	},
}

func TestScenarios(t *testing.T) {
	recorded := prototest.Scenarios(t)
	if len(recorded) != len(scenarios) {
		t.Errorf("%d scenarios are recorded, %d known", len(recorded), len(scenarios))
	}
	for _, r := range recorded {
		t.Run(r.String(), func(t *testing.T) {
			c := read(t, r, v3.Key{}) // the true one is not known
			var got [2]string
			for _, req := range c.requests {
				got[0] += fmt.Sprintf(" %d", req.Code)
			}
			for _, resp := range c.responses {
				got[1] += fmt.Sprintf(" %d", resp.Code)
			}
			got = [2]string{strings.TrimSpace(got[0]), strings.TrimSpace(got[1])}
			if got != scenarios[r.String()] {
				t.Errorf("codes: got %q, want %q", got, scenarios[r.String()])
			}
			resends(t, c)
			for i, s := range c.sends {
				if !errors.Is(s.err, v3.ErrCiphertext) {
					t.Errorf("send %d under a wrong key: got %v, want ErrCiphertext", i+1, s.err)
				}
			}
			answers(t, c, dialect(t, r))
		})
	}
}

// resends checks that a file is sent again in the same bytes.
func resends(t *testing.T, c conversation) {
	t.Helper()
	first := map[[2]uint16][]byte{}
	for _, req := range c.requests {
		h, ok := req.payload.(v3.PacketHeader)
		if !ok {
			continue
		}
		if first[h.Numbers] == nil {
			first[h.Numbers] = req.raw
		}
		sameBytes(t, req.raw, first[h.Numbers])
	}
}

// answers checks every 1603 and 1604 against what a server of ours says.
func answers(t *testing.T, c conversation, d v3.Dialect) {
	t.Helper()
	var client v3.ID
	for _, resp := range c.responses {
		switch m := resp.payload.(type) {
		case v3.Registered:
			client = m.Client
		case v3.WrappedKey:
			client = m.Client
		case v3.Received:
			plan, err := d.Plan(500)
			if err != nil {
				t.Fatal(err)
			}
			want := v3.Received{Client: client, ContentSize: plan.ReceivedSize(), Name: c.unpacker.Name(), Cksum: m.Cksum}
			if m != want {
				t.Errorf("1603: got %+v, want %+v", m, want)
			}
		}
		if resp.Code == v3.CodeThanks {
			sameBytes(t, resp.raw, d.AppendThanks(nil, client))
		}
	}
}
