package v4_test

import (
	"bytes"
	"errors"
	"testing"

	v4 "ferry/proto/v4"
)

// fuzz states what holds of each parser: what it takes is what the message's
// bytes are, and beside an error there is nothing.
func fuzz[M encoder](f *testing.F, parse func([]byte) (M, error)) {
	f.Helper()
	parser := parserOf(parse)
	seeds := 0
	for _, b := range knownMessages(f) {
		if _, err := parser(b); err == nil && len(b) > 0 {
			seeds++
			f.Add(b)
			f.Add(append(b[:len(b):len(b)], 0))
			f.Add(b[:len(b)-1])
		}
	}
	if seeds == 0 {
		f.Fatal("no known message parses")
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		m, err := parser(b)
		if !bytes.Equal(b, before) {
			t.Errorf("parsing changed the bytes")
		}
		if err != nil {
			if !errors.Is(err, v4.ErrFormat) || !isZero(m) {
				t.Errorf("got %+v, %v, want %v alone", m, err, v4.ErrFormat)
			}
			return
		}
		want := before
		if _, header := any(m).(v4.Header); header {
			want = before[:v4.HeaderSize]
		}
		if got := m.Append([]byte("x")); !bytes.Equal(got, append([]byte("x"), want...)) {
			t.Errorf("%+v has the bytes\n%x, and was read from\n%x", m, got[1:], want)
		}
	})
}

// knownMessages are those written by hand, and those of the vectors.
func knownMessages(tb testing.TB) [][]byte {
	tb.Helper()
	var all [][]byte
	for _, g := range golden {
		all = append(all, bytesOf(tb, g.bytes))
	}
	for _, c := range readManifest(tb).Conversations {
		for _, m := range c.Messages {
			all = append(all, bytesOf(tb, m.Payload))
		}
	}
	return all
}

func FuzzHeader(f *testing.F)    { fuzz(f, v4.ParseHeader) }
func FuzzRegister(f *testing.F)  { fuzz(f, v4.ParseRegister) }
func FuzzClient(f *testing.F)    { fuzz(f, v4.ParseClient) }
func FuzzPublicKey(f *testing.F) { fuzz(f, v4.ParsePublicKey) }
func FuzzReconnect(f *testing.F) { fuzz(f, v4.ParseReconnect) }
func FuzzWrapped(f *testing.F)   { fuzz(f, v4.ParseWrapped) }
func FuzzProve(f *testing.F)     { fuzz(f, v4.ParseProve) }
func FuzzWelcome(f *testing.F)   { fuzz(f, v4.ParseWelcome) }
func FuzzSum(f *testing.F)       { fuzz(f, v4.ParseSum) }
func FuzzOffer(f *testing.F)     { fuzz(f, v4.ParseOffer) }
func FuzzFile(f *testing.F)      { fuzz(f, parseSmall) }
func FuzzOffset(f *testing.F)    { fuzz(f, v4.ParseOffset) }
func FuzzStored(f *testing.F)    { fuzz(f, v4.ParseStored) }
func FuzzDiffers(f *testing.F)   { fuzz(f, v4.ParseDiffers) }
func FuzzRefused(f *testing.F)   { fuzz(f, v4.ParseRefused) }
func FuzzRotate(f *testing.F)    { fuzz(f, v4.ParseRotate) }

// FuzzKey: a client's key that is taken can be wrapped for, or that is refused
// with an error.
func FuzzKey(f *testing.F) {
	f.Add(spki(f, &clientKey(f, "client.pem").PublicKey))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		key, err := v4.ParseKey(b)
		if err != nil {
			if key != nil || !errors.Is(err, v4.ErrFormat) {
				t.Errorf("got %v, %v, want %v alone", key, err, v4.ErrFormat)
			}
			return
		}
		if bits := key.N.BitLen(); bits < 3072 || bits > 8192 || len(b) > 2048 {
			t.Errorf("a key of %d bits in %d bytes is taken", bits, len(b))
		}
		if wrapped, err := v4.WrapSecret(key, v4.Secret{}); err == nil && len(wrapped) != key.Size() {
			t.Errorf("wrapped, it has %d bytes, want %d", len(wrapped), key.Size())
		}
	})
}

// FuzzOpen: nothing opens but what was sealed, where it was sealed.
func FuzzOpen(f *testing.F) {
	key := v4.Key{1}
	sealer, _ := pair(f, key)
	said := bytes.Join(sealAll(f, sealer, "one", "", "three"), nil)
	f.Add(said)
	f.Add(said[:20])
	f.Add(append(said[35:len(said):len(said)], said[:35]...))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, opener := pair(t, key)
		opened := 0
		for rest := b; len(rest) >= v4.HeaderSize; {
			h, err := v4.ParseHeader(rest)
			if err != nil || int64(h.Length) > int64(len(rest)-v4.HeaderSize) {
				break
			}
			end := v4.HeaderSize + int(h.Length)
			if _, err := opener.Open(nil, rest[:v4.HeaderSize], rest[v4.HeaderSize:end]); err == nil {
				opened += end
			}
			rest = rest[end:]
		}
		if !bytes.HasPrefix(said, b[:opened]) {
			t.Errorf("%d bytes opened that nobody sealed: %x", opened, b[:opened])
		}
	})
}
