package v4_test

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	v4 "ferry/proto/v4"
)

// someKey is a client's key, made once.
var someKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, v4.KeyBits)
	if err != nil {
		panic(err)
	}
	return k
})

// extract is HKDF's first half (RFC 5869) with SHA-256, written from it.
func extract(salt, secret []byte) []byte {
	h := hmac.New(sha256.New, salt)
	h.Write(secret)
	return h.Sum(nil)
}

// expand is the second one's first block, which is the 32 bytes that are used.
func expand(prk []byte, info string) v4.Key {
	h := hmac.New(sha256.New, prk)
	h.Write(append([]byte(info), 1))
	return v4.Key(h.Sum(nil))
}

func TestKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var secret v4.Secret
		var id [v4.IDSize]byte
		exporter := rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "exporter")
		copy(secret[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "secret"))
		copy(id[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
		toServer, toClient, err := v4.Keys(secret, exporter, id)
		if err != nil {
			t.Fatal(err)
		}
		prk := extract(exporter, secret[:])
		if want := expand(prk, "ferry/4 client to server"+string(id[:])); toServer != want {
			t.Errorf("to the server: got %x, want %x", toServer[:], want[:])
		}
		if want := expand(prk, "ferry/4 server to client"+string(id[:])); toClient != want {
			t.Errorf("to the client: got %x, want %x", toClient[:], want[:])
		}
	})
}

// A bit of any of what the keys are made from makes other keys.
func TestKeysDependOnAll(t *testing.T) {
	var secret v4.Secret
	exporter, id := make([]byte, 32), someID
	seen := map[v4.Key]string{}
	add := func(what string) {
		t.Helper()
		toServer, toClient, err := v4.Keys(secret, exporter, id)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range []v4.Key{toServer, toClient} {
			if before, ok := seen[k]; ok {
				t.Errorf("%s: a key is the same as with %s", what, before)
			}
			seen[k] = what
		}
	}
	add("nothing changed")
	for name, b := range map[string][]byte{"secret": secret[:], "exporter": exporter, "id": id[:]} {
		for i := range len(b) * 8 {
			b[i/8] ^= 1 << (i % 8)
			add(fmt.Sprintf("bit %d of the %s changed", i, name))
			b[i/8] ^= 1 << (i % 8)
		}
	}
}

func TestSecretsAreHidden(t *testing.T) {
	secret := v4.NewSecret()
	key := v4.Key(secret)
	if secret == v4.NewSecret() {
		t.Error("two secrets are the same")
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		if got := fmt.Sprintf(verb, secret); got != "v4.Secret(hidden)" {
			t.Errorf("%s of a secret: %s", verb, got)
		}
		if got := fmt.Sprintf(verb, key); got != "v4.Key(hidden)" {
			t.Errorf("%s of a key: %s", verb, got)
		}
		sealer, opener := pair(t, key)
		for _, shown := range []string{fmt.Sprintf(verb, sealer), fmt.Sprintf(verb, opener)} {
			if strings.Contains(shown, hex.EncodeToString(key[:4])) || strings.Contains(shown, strings.Trim(fmt.Sprintf("%d", key[:4]), "[]")) {
				t.Errorf("%s shows a key: %s", verb, shown)
			}
		}
	}
}

func TestWrapSecret(t *testing.T) {
	secret, key := v4.NewSecret(), someKey()
	wrapped, err := v4.WrapSecret(&key.PublicKey, secret)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := v4.UnwrapSecret(key, wrapped); got != secret || err != nil {
		t.Errorf("got another secret, or %v", err)
	}
	// The primitive by itself.
	plain, err := rsa.DecryptOAEP(sha256.New(), nil, key, wrapped, []byte("ferry/4 secret"))
	if err != nil || !bytes.Equal(plain, secret[:]) {
		t.Errorf("RSA-OAEP with SHA-256 and the label: %v", err)
	}
	again, err := v4.WrapSecret(&key.PublicKey, secret)
	if err != nil || bytes.Equal(again, wrapped) {
		t.Errorf("wrapped twice, it is the same, or %v", err)
	}
	refused := func(what string, wrapped []byte) {
		t.Helper()
		if got, err := v4.UnwrapSecret(key, wrapped); got != (v4.Secret{}) || err == nil {
			t.Errorf("%s: there is a secret, or no error", what)
		}
	}
	oaep := func(text []byte, label string) []byte {
		b, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, &key.PublicKey, text, []byte(label))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	refused("nothing", nil)
	refused("a byte too few", wrapped[1:])
	for wrapped := wrapped; ; wrapped = oaep(secret[:], "ferry/4 secret") { // by chance, one of 256
		if wrapped[0] == 0 {
			refused("its first byte, which is 0, too few", wrapped[1:])
			break
		}
	}
	refused("a byte too many", append(bytes.Clone(wrapped), 0))
	refused("another label", oaep(secret[:], "ferry/3 secret"))
	refused("no label", oaep(secret[:], ""))
	refused("31 bytes", oaep(secret[:31], "ferry/4 secret"))
	refused("33 bytes", oaep(append(secret[:], 0), "ferry/4 secret"))
	for _, i := range []int{0, 1, len(wrapped) / 2, len(wrapped) - 1} {
		changed := bytes.Clone(wrapped)
		changed[i] ^= 1
		refused(fmt.Sprintf("byte %d changed", i), changed)
	}
}

// spki is a key in the form in which clients send theirs.
func spki(t testing.TB, public crypto.PublicKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestParseKey(t *testing.T) {
	good := spki(t, &someKey().PublicKey)
	got, err := v4.ParseKey(good)
	if err != nil || !got.Equal(&someKey().PublicKey) {
		t.Errorf("a good key: got %v, %v", got, err)
	}
	// Large keys are slow to make; their public half is any odd number.
	largest := spki(t, &rsa.PublicKey{N: oddOf(8192), E: 65537})
	if _, err := v4.ParseKey(largest); err != nil || len(largest) > v4.MaxKey {
		t.Errorf("RSA of 8192 bits, %d bytes: %v", len(largest), err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		der  []byte
		want string
	}{
		"nothing":         {nil, "malformed key"},
		"a byte too few":  {good[:len(good)-1], "malformed key"},
		"a byte too many": {append(bytes.Clone(good), 0), "malformed key"},
		"PKCS#1":          {x509.MarshalPKCS1PublicKey(&someKey().PublicKey), "malformed key"},
		"3071 bits":       {spki(t, &rsa.PublicKey{N: oddOf(3071), E: 65537}), "RSA of 3071 bits"},
		"8193 bits":       {spki(t, &rsa.PublicKey{N: oddOf(8193), E: 65537}), "RSA of 8193 bits"},
		"ECDSA":           {spki(t, &curve.PublicKey), "want RSA, got *ecdsa.PublicKey"},
		"2049 bytes":      {make([]byte, 2049), "2049 bytes"},
	} {
		k, err := v4.ParseKey(test.der)
		if k != nil || !errors.Is(err, v4.ErrFormat) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, %v, want %q", name, k, err, test.want)
		}
	}
}

func TestRotate(t *testing.T) {
	key, exporter := someKey(), bytes.Repeat([]byte{7}, 32)
	der := spki(t, &key.PublicKey)
	context := v4.RotateContext(exporter, someID, der)
	want := []byte("ferry/4 new key\x00" + string(exporter) + string(someID[:]) + string(der))
	if !bytes.Equal(context, want) {
		t.Errorf("context: got\n%x, want\n%x", context, want)
	}
	signature, err := v4.SignRotate(key, context)
	if err != nil {
		t.Fatal(err)
	}
	if err := v4.CheckRotate(&key.PublicKey, context, signature); err != nil {
		t.Error(err)
	}
	digest := sha256.Sum256(want)
	if err := rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, digest[:], signature); err != nil {
		t.Errorf("RSASSA-PKCS1-v1_5 with SHA-256: %v", err)
	}
	other := bytes.Clone(context)
	other[20] ^= 1
	for name, err := range map[string]error{
		"another context":   v4.CheckRotate(&key.PublicKey, other, signature),
		"another signature": v4.CheckRotate(&key.PublicKey, context, append([]byte{signature[0] ^ 1}, signature[1:]...)),
		"no signature":      v4.CheckRotate(&key.PublicKey, context, nil),
	} {
		if err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func pair(t testing.TB, k v4.Key) (*v4.Sealer, *v4.Opener) {
	t.Helper()
	s, err := v4.NewSealer(k)
	if err != nil {
		t.Fatal(err)
	}
	o, err := v4.NewOpener(k)
	if err != nil {
		t.Fatal(err)
	}
	return s, o
}

// open opens a whole message.
func open(o *v4.Opener, m []byte) (v4.Header, []byte, error) {
	h, err := v4.ParseHeader(m)
	if err != nil {
		return h, nil, err
	}
	b, err := o.Open(nil, m[:v4.HeaderSize], m[v4.HeaderSize:])
	return h, b, err
}

func sealAll(t testing.TB, s *v4.Sealer, payloads ...string) [][]byte {
	t.Helper()
	var all [][]byte
	for i, p := range payloads {
		m, err := s.Append(nil, v4.CodePacket, uint64(i), []byte(p))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
	}
	return all
}

// A sealed message is AES-256-GCM as the standard library has it, with the count
// for the nonce.
func TestSealedForm(t *testing.T) {
	key := v4.Key{1, 2, 3}
	block, err := aes.NewCipher(key[:])
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	sealer, _ := pair(t, key)
	for i, payload := range []string{"", "a", strings.Repeat("b", 8192)} {
		got, err := sealer.Append([]byte("before"), v4.CodeFile, 77, []byte(payload))
		if err != nil {
			t.Fatal(err)
		}
		header := []byte{0x40, 0x03, 0, 0}
		header = binary.LittleEndian.AppendUint32(header, uint32(len(payload)+16))
		header = append(header, 77, 0, 0, 0, 0, 0, 0, 0)
		nonce := []byte{0, 0, 0, 0, byte(i), 0, 0, 0, 0, 0, 0, 0}
		want := gcm.Seal(append([]byte("before"), header...), nonce, []byte(payload), header)
		if !bytes.Equal(got, want) {
			t.Errorf("message %d: got\n%x, want\n%x", i, got, want)
		}
	}
}

func TestSealAndOpen(t *testing.T) {
	sealer, opener := pair(t, v4.Key{1})
	for i := range 300 {
		payload := bytes.Repeat([]byte{byte(i)}, i*7)
		m, err := sealer.Append(nil, v4.Code(i), uint64(i)<<40, payload)
		if err != nil {
			t.Fatal(err)
		}
		if len(m) != v4.HeaderSize+len(payload)+v4.TagSize {
			t.Fatalf("message %d has %d bytes, want %d more than its payload", i, len(m), v4.HeaderSize+v4.TagSize)
		}
		h, b, err := open(opener, m)
		if want := (v4.Header{Code: v4.Code(i), Length: uint32(len(payload) + 16), Number: uint64(i) << 40}); h != want || err != nil || !bytes.Equal(b, payload) {
			t.Fatalf("message %d: got %+v, %d bytes, %v, want %+v", i, h, len(b), err, want)
		}
	}
}

// In place is how messages are opened out of one buffer.
func TestOpenInPlace(t *testing.T) {
	sealer, opener := pair(t, v4.Key{1})
	m := sealAll(t, sealer, "first")[0]
	b, err := opener.Open(m[v4.HeaderSize:v4.HeaderSize], m[:v4.HeaderSize], m[v4.HeaderSize:])
	if err != nil || string(b) != "first" || &b[0] != &m[v4.HeaderSize] {
		t.Errorf("got %q, %v, want it where it was sealed", b, err)
	}
	m = sealAll(t, sealer, "second")[0]
	b, err = opener.Open([]byte("before "), m[:v4.HeaderSize], m[v4.HeaderSize:])
	if err != nil || string(b) != "before second" {
		t.Errorf("got %q, %v", b, err)
	}
}

// After a message that does not open, nothing does: not even what was sealed
// next.
func TestOpenerRefuses(t *testing.T) {
	key := v4.Key{1}
	sealer, _ := pair(t, key)
	all := sealAll(t, sealer, "one", "two", "three", "four")
	reverse, _ := pair(t, v4.Key{2})
	back := sealAll(t, reverse, "one", "two")
	flipped := bytes.Clone(all[1])
	flipped[v4.HeaderSize] ^= 1
	for name, test := range map[string]struct {
		said [][]byte
		good int // how many open
	}{
		"reordered":             {[][]byte{all[0], all[2], all[1], all[3]}, 1},
		"repeated":              {[][]byte{all[0], all[0], all[1], all[2]}, 1},
		"repeated later":        {[][]byte{all[0], all[1], all[0], all[2]}, 2},
		"left out":              {[][]byte{all[0], all[2], all[3]}, 1},
		"the first left out":    {[][]byte{all[1], all[2], all[3]}, 0},
		"another direction's":   {[][]byte{all[0], back[1], all[1]}, 1},
		"changed":               {[][]byte{all[0], flipped, all[1], all[2]}, 1},
		"cut, and then whole":   {[][]byte{all[0], all[1][:v4.HeaderSize+15], all[1]}, 1},
		"tag cut off":           {[][]byte{all[0], all[1][:len(all[1])-1], all[1]}, 1},
		"without a tag":         {[][]byte{all[0], all[1][:v4.HeaderSize], all[1]}, 1},
		"a byte more":           {[][]byte{all[0], append(bytes.Clone(all[1]), 0), all[1]}, 1},
		"two messages for one":  {[][]byte{all[0], append(bytes.Clone(all[1]), all[2]...), all[1]}, 1},
		"another one's payload": {[][]byte{all[0], append(bytes.Clone(all[1][:v4.HeaderSize]), all[2][v4.HeaderSize:]...), all[1]}, 1},
	} {
		_, opener := pair(t, key)
		for i, m := range test.said {
			_, b, err := open(opener, m)
			if i < test.good && err != nil {
				t.Errorf("%s: message %d: %v", name, i, err)
			}
			if i >= test.good && (err == nil || b != nil) {
				t.Errorf("%s: message %d opens, to %q", name, i, b)
			}
			if i >= test.good && !errors.Is(err, v4.ErrOpen) && !errors.Is(err, v4.ErrFormat) {
				t.Errorf("%s: message %d: got %v, want %v", name, i, err, v4.ErrOpen)
			}
		}
	}
}

// Each bit of header and payload counts.
func TestEveryBitCounts(t *testing.T) {
	key := v4.Key{1}
	sealer, _ := pair(t, key)
	m := sealAll(t, sealer, "some bytes of a file")[0]
	for i := range len(m) * 8 {
		changed := bytes.Clone(m)
		changed[i/8] ^= 1 << (i % 8)
		_, opener := pair(t, key)
		// Even of a header that does not parse.
		if b, err := opener.Open(nil, changed[:v4.HeaderSize], changed[v4.HeaderSize:]); !errors.Is(err, v4.ErrOpen) || b != nil {
			t.Errorf("bit %d of byte %d flipped: got %q, %v, want %v", i%8, i/8, b, err, v4.ErrOpen)
		}
	}
}

// A direction's key is followed by one made from it, and the count goes on.
func TestEpochs(t *testing.T) {
	const epoch = 4
	key := v4.Key{1}
	sealer, err := v4.NewSealerAt(key, 0, epoch)
	if err != nil {
		t.Fatal(err)
	}
	opener, err := v4.NewOpenerAt(key, 0, epoch)
	if err != nil {
		t.Fatal(err)
	}
	under := key
	for i := range 5 * epoch {
		if i > 0 && i%epoch == 0 {
			under = expand(under[:], "ferry/4 next key")
		}
		m, err := sealer.Append(nil, v4.CodePacket, 5, []byte("bytes"))
		if err != nil {
			t.Fatal(err)
		}
		if want := sealOne(t, under, uint64(i), m[:v4.HeaderSize], "bytes"); !bytes.Equal(m, want) {
			t.Errorf("message %d: got\n%x, want\n%x", i, m, want)
		}
		if _, b, err := open(opener, m); err != nil || string(b) != "bytes" {
			t.Errorf("message %d: got %q, %v", i, b, err)
		}
	}
	if v4.EpochMessages != 1<<24 {
		t.Errorf("a key is for %d messages, want %d", v4.EpochMessages, 1<<24)
	}
}

// sealOne is AES-256-GCM by itself.
func sealOne(t *testing.T, k v4.Key, counter uint64, header []byte, payload string) []byte {
	t.Helper()
	block, err := aes.NewCipher(k[:])
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	nonce := binary.LittleEndian.AppendUint64(make([]byte, 4), counter)
	return gcm.Seal(bytes.Clone(header), nonce, []byte(payload), header)
}

// A message of one epoch does not open in another, and one that is left out at
// the border is missed.
func TestEpochsRefuse(t *testing.T) {
	const epoch = 3
	key := v4.Key{1}
	var all [][]byte
	sealer, err := v4.NewSealerAt(key, 0, epoch)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 * epoch {
		all = append(all, sealAll(t, sealer, "same")...)
	}
	for name, order := range map[string][]int{
		"left out before the border": {0, 1, 3}, "left out behind the border": {0, 1, 2, 4}, "swapped over the border": {0, 1, 3, 2},
	} {
		opener, err := v4.NewOpenerAt(key, 0, epoch)
		if err != nil {
			t.Fatal(err)
		}
		var last error
		for _, i := range order {
			if _, _, err := open(opener, all[i]); err != nil {
				last = err
				break
			}
		}
		if !errors.Is(last, v4.ErrOpen) {
			t.Errorf("%s: got %v, want %v", name, last, v4.ErrOpen)
		}
	}
}

// Slots are sealed in any order, by many goroutines, over the end of an epoch,
// and are the same messages.
func TestSlots(t *testing.T) {
	const n, epoch = 64, 10
	key := v4.Key{1}
	inOrder, err := v4.NewSealerAt(key, 0, epoch)
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := v4.NewSealerAt(key, 0, epoch)
	if err != nil {
		t.Fatal(err)
	}
	var want, got [n][]byte
	var slots [n]v4.Slot
	for i := range n {
		if want[i], err = inOrder.Append(nil, v4.CodePacket, uint64(i), []byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
		if slots[i], err = sealer.Reserve(); err != nil {
			t.Fatal(err)
		}
	}
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			for i := n - 1 - worker; i >= 0; i -= 4 {
				got[i] = slots[i].Append(nil, v4.CodePacket, uint64(i), []byte{byte(i)})
			}
		})
	}
	all.Wait()
	opener, err := v4.NewOpenerAt(key, 0, epoch)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if !bytes.Equal(got[i], want[i]) {
			t.Errorf("slot %d: got\n%x, want\n%x", i, got[i], want[i])
		}
		if _, b, err := open(opener, got[i]); err != nil || len(b) != 1 || b[0] != byte(i) {
			t.Errorf("slot %d: got %x, %v", i, b, err)
		}
	}
}

// What a packet costs has no allocation in it.
func TestNoAllocation(t *testing.T) {
	sealer, opener := pair(t, v4.Key{1})
	payload := make([]byte, 64<<10)
	buffer := make([]byte, 0, v4.HeaderSize+len(payload)+v4.TagSize)
	if n := testing.AllocsPerRun(200, func() {
		slot, err := sealer.Reserve()
		if err != nil {
			t.Fatal(err)
		}
		m := slot.Append(buffer, v4.CodePacket, 1, payload)
		if _, err := v4.ParseHeader(m); err != nil {
			t.Fatal(err)
		}
		sealed := m[v4.HeaderSize:]
		if _, err := opener.Open(sealed[:0], m[:v4.HeaderSize], sealed); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations for each packet, want none", n)
	}
}

// Keys have no business in a log of JSON either.
func TestKeysInJSON(t *testing.T) {
	key := v4.Key{1, 2, 3, 250}
	b, err := json.Marshal(struct{ Sealer any }{must(v4.NewSealer(key))})
	if err != nil || bytes.Contains(b, []byte("250")) {
		t.Errorf("got %s, %v", b, err)
	}
}

func oddOf(bits int) *big.Int {
	n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
	return n.SetBit(n, 0, 1)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func BenchmarkSeal(b *testing.B) {
	for _, size := range []int{64, 8 << 10, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			sealer, _ := pair(b, v4.Key{1})
			payload, buffer := make([]byte, size), make([]byte, 0, v4.HeaderSize+size+v4.TagSize)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := sealer.Append(buffer, v4.CodePacket, 0, payload); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
