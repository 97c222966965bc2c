package v3_test

import (
	"bytes"
	"testing"

	"ferry/proto/prototest"
	v3 "ferry/proto/v3"
)

// recorded returns all that was ever said, in headers and payloads.
func recorded(tb testing.TB) [][]byte {
	tb.Helper()
	var all [][]byte
	add := func(m encoder) {
		if m != nil {
			all = append(all, m.Append(nil))
		}
	}
	recordings := prototest.Scenarios(tb)
	for _, v := range prototest.Vectors(tb) {
		recordings = append(recordings, v.Recording)
	}
	for _, r := range recordings {
		c := read(tb, r, v3.Key{})
		for _, req := range c.requests {
			add(req.RequestHeader)
			add(req.payload)
		}
		for _, resp := range c.responses {
			add(resp.ResponseHeader)
			add(resp.payload)
		}
	}
	return all
}

// A parser must give back what its message encodes to, and nothing beside an
// error.
func fuzz[M interface {
	comparable
	encoder
}](f *testing.F, parse func([]byte) (M, error)) {
	f.Helper()
	seen := map[string]bool{}
	for _, b := range recorded(f) {
		if _, err := parse(b); err == nil && !seen[string(b)] {
			seen[string(b)] = true
			f.Add(b)
			f.Add(b[1:])
			f.Add(append(b[:len(b)-1:len(b)-1], b[len(b)-1]^0x80))
			f.Add(append(bytes.Clone(b), 0))
		}
	}
	if len(seen) == 0 {
		f.Fatal("nothing that was recorded parses")
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parse(b)
		if err != nil {
			var zero M
			if m != zero {
				t.Errorf("a failed parse returned %+v, want the zero value", m)
			}
			return
		}
		if got := m.Append([]byte("before")); !bytes.Equal(got, append([]byte("before"), b...)) {
			t.Errorf("%+v encodes to\n%x, want\n%x", m, got[6:], b)
		}
	})
}

func FuzzRequestHeader(f *testing.F)  { fuzz(f, v3.ParseRequestHeader) }
func FuzzResponseHeader(f *testing.F) { fuzz(f, v3.ParseResponseHeader) }
func FuzzRegister(f *testing.F)       { fuzz(f, v3.ParseRegister) }
func FuzzPublicKey(f *testing.F)      { fuzz(f, v3.ParsePublicKey) }
func FuzzReconnect(f *testing.F)      { fuzz(f, v3.ParseReconnect) }
func FuzzPacketHeader(f *testing.F)   { fuzz(f, v3.ParsePacketHeader) }
func FuzzConfirm(f *testing.F)        { fuzz(f, v3.ParseConfirm) }
func FuzzRegistered(f *testing.F)     { fuzz(f, v3.ParseRegistered) }
func FuzzWrappedKey(f *testing.F)     { fuzz(f, v3.ParseWrappedKey) }
func FuzzReceived(f *testing.F)       { fuzz(f, v3.ParseReceived) }

func FuzzPublicKeyInfo(f *testing.F) {
	for _, v := range prototest.Vectors(f) {
		priv, err := v3.ParsePrivateKey(v.PrivateKey)
		if err != nil {
			f.Fatal(err)
		}
		field, err := v3.MarshalPublicKeyInfo(&priv.PublicKey)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(field[:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) != v3.PublicKeySize {
			return
		}
		key, err := v3.ParsePublicKeyInfo([v3.PublicKeySize]byte(b))
		if err != nil {
			if key != nil {
				t.Errorf("a failed parse returned a key")
			}
			return
		}
		if got, err := v3.MarshalPublicKeyInfo(key); err != nil || !bytes.Equal(got[:], b) {
			t.Errorf("the key encodes to\n%x, %v, want\n%x", got, err, b)
		}
		// Whoever sent it will be answered with a key wrapped for it.
		if _, err := v3.WrapKey(key, testKey); err != nil {
			t.Errorf("wrap: %v", err)
		}
	})
}

// Private keys come from files that old programs wrote too, so that their DER
// need not be ours; the key must be the same.
func FuzzPrivateKey(f *testing.F) {
	for _, v := range prototest.Vectors(f) {
		f.Add(v.PrivateKey)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		key, err := v3.ParsePrivateKey(b)
		if err != nil {
			if key != nil {
				t.Errorf("a failed parse returned a key")
			}
			return
		}
		der, err := v3.MarshalPrivateKey(key)
		if err != nil {
			t.Fatalf("marshal: %v", err)
		}
		if again, err := v3.ParsePrivateKey(der); err != nil || !again.Equal(key) {
			t.Errorf("parsed again it is another key: %v", err)
		}
	})
}

// FuzzPackets reads any stream as packets of a file. Whatever is in it, memory
// stays bounded and no more than the stated size comes out; and a file that
// is content with itself is packed to the same stream again.
func FuzzPackets(f *testing.F) {
	const most = 64 << 10
	for _, v := range prototest.Vectors(f) {
		if from := bytes.Index(v.C2S, []byte{v3.Version, 828 & 0xff, 828 >> 8}) - v3.IDSize; len(v.C2S) <= most {
			f.Add(v.C2S[from:], v.Key[:], uint16(1000))
		}
	}
	for _, d := range []v3.Dialect{v3.Seed(), v3.Mainstream(33), v3.PerSlice(48)} {
		for _, size := range []int64{0, 1, 200, 300, 9000} {
			f.Add(stitch(f, d, size), testKey[:], uint16(17))
		}
	}
	f.Fuzz(func(t *testing.T, packets, key []byte, piece uint16) {
		if len(packets) > most || len(key) != len(v3.Key{}) {
			return
		}
		fuzzPackets(t, packets, v3.Key(key), int(piece))
	})
}

// stitch returns a file's packets in a row.
func stitch(tb testing.TB, d v3.Dialect, size int64) []byte {
	tb.Helper()
	plan, err := d.Plan(size)
	if err != nil {
		tb.Fatal(err)
	}
	return repack(tb, plan, testKey, testClient, testName, pattern(size))
}

func repack(tb testing.TB, plan v3.Plan, key v3.Key, client v3.ID, name string, content []byte) []byte {
	tb.Helper()
	p := v3.NewPacker(plan, key, client, name)
	src := bytes.NewReader(content)
	var b []byte
	for !p.Done() {
		var err error
		if b, err = p.Append(b, src); err != nil {
			tb.Fatal(err)
		}
	}
	return b
}

func fuzzPackets(t *testing.T, packets []byte, key v3.Key, piece int) {
	var u *v3.Unpacker
	var client v3.ID
	var text []byte
	oneClient, surplus := true, false
	buffer := make([]byte, 0, v3.MaxSlice+16)
	rest := packets
	for len(rest) >= v3.RequestHeaderSize+v3.PacketHeaderSize {
		h, err := v3.ParseRequestHeader(rest[:v3.RequestHeaderSize])
		if err != nil || h.Code != v3.CodePacket {
			return
		}
		ph, err := v3.ParsePacketHeader(rest[v3.RequestHeaderSize:][:v3.PacketHeaderSize])
		if err != nil {
			return
		}
		rest = rest[v3.RequestHeaderSize+v3.PacketHeaderSize:]
		if u == nil {
			client = h.Client
			u, err = v3.Recognize(key, h.PayloadSize, ph)
		} else {
			err = u.Next(h.PayloadSize, ph)
		}
		if err != nil {
			return
		}
		if u.Left() > v3.MaxSlice {
			t.Fatalf("a packet of %d bytes, the limit is %d", u.Left(), v3.MaxSlice)
		}
		oneClient = oneClient && h.Client == client
		surplus = surplus || u.Left() != u.Plan().CipherSize(u.Number())
		for u.Left() > 0 {
			n := min(piece+1, u.Left(), len(rest))
			if n == 0 {
				return
			}
			out := u.Open(buffer, rest[:n])
			if cap(out) != cap(buffer) {
				t.Fatalf("a piece of %d bytes became %d, in a new buffer", n, len(out))
			}
			rest, text = rest[n:], append(text, out...)
		}
		if int64(len(text)) > u.Plan().Size {
			t.Fatalf("%d bytes of plaintext, %d were stated", len(text), u.Plan().Size)
		}
		if u.Done() {
			break
		}
		if u.Finish() == nil {
			t.Fatalf("finished in packet %d of %d", u.Number(), u.Plan().Packets)
		}
	}
	if u == nil || u.Finish() != nil {
		return
	}
	if int64(len(text)) != u.Plan().Size {
		t.Fatalf("finished with %d bytes of plaintext, %d were stated", len(text), u.Plan().Size)
	}
	if oneClient && !surplus {
		sameBytes(t, repack(t, u.Plan(), key, client, u.Name(), text), packets[:len(packets)-len(rest)])
	}
}
