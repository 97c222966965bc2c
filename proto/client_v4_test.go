package proto_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ferry/proto"
	"ferry/proto/v4"
)

func pkcs8(key *rsa.PrivateKey) []byte { return must(x509.MarshalPKCS8PrivateKey(key)) }

// aliceV4 is what [alice] keeps of herself.
func aliceV4(t testing.TB) *keyring {
	return &keyring{ok: true, id: proto.Identity{Name: clientName(t, "alice"), ID: proto.ClientID{0xa1}, PrivateKey: pkcs8(keyV4())}}
}

// clientV4 returns a Client of the server at an address, which knows it, closed at
// the test's end.
func clientV4(t testing.TB, address string, change ...func(*proto.ClientConfig)) *proto.Client {
	t.Helper()
	cfg := proto.ClientConfig{
		To:      destination(t, "v4://"+address).WithPin(serverV4().Pin()),
		Name:    clientName(t, "alice"),
		Keyring: aliceV4(t),
	}
	for _, f := range change {
		f(&cfg)
	}
	c := proto.NewClient(cfg)
	proto.MakeKeys(c, someKey)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// madeKeys are keys for clients to take by turns.
var madeKeys = sync.OnceValue(func() []*rsa.PrivateKey {
	var keys []*rsa.PrivateKey
	for range 4 {
		keys = append(keys, must(rsa.GenerateKey(rand.Reader, v4.KeyBits)))
	}
	return keys
})

var keysTaken atomic.Int64

// someKey is another key than the last three.
func someKey() (*rsa.PrivateKey, error) {
	return madeKeys()[keysTaken.Add(1)%4], nil
}

// offered is an offer of that content under an id made of its name.
func offered(t testing.TB, name string, b []byte, known bool) (proto.Offer, proto.Source) {
	t.Helper()
	sum := sumOf(b)
	o := proto.Offer{Name: fileName(t, name), Size: int64(len(b)), Mode: 0o640, ModTime: time.Unix(1_700_000_000, 5)}
	id := sumOf([]byte(name)).SHA256
	copy(o.ID[:], id[:])
	if known {
		o.Sum = &sum
	}
	return o, func() (io.ReadCloser, error) { return seekable{bytes.NewReader(b)}, nil }
}

type seekable struct{ *bytes.Reader }

func (seekable) Close() error { return nil }

// checkReceipt wants a receipt that the server has signed, for that content.
func checkReceipt(t testing.TB, r proto.Receipt, o proto.Offer, b []byte, sends int) {
	t.Helper()
	s, err := proto.VerifyReceipt(r.Envelope, serverV4().Pin())
	if err != nil {
		t.Fatalf("%s: its receipt: %v", o.Name.String(), err)
	}
	if f, ok := s.File(o.Name, sumOf(b)); !ok || f.Transfer != o.ID || s.ClientID != r.ClientID {
		t.Errorf("%s: the receipt says %+v", o.Name.String(), s)
	}
	if r.Name != o.Name || r.Sum != sumOf(b) || r.Sends != sends || r.ClientID != (proto.ClientID{0xa1}) || time.Since(r.At) > time.Minute {
		t.Errorf("%s: receipt %+v, %d sends; want %d", o.Name.String(), r, r.Sends, sends)
	}
}

func TestV4Send(t *testing.T) {
	for _, query := range []string{"", "?packet=8192", "?packet=1048576"} {
		h := newHostV4(alice(t))
		c := clientV4(t, h.listen(t)+query)
		sizes := []int64{0, 65_537, 2<<20 + 3}
		if query == "" {
			sizes = []int64{0, 1, 65_535, 65_536, 65_537, 262_144, 262_145, 1 << 20, 5<<20 + 3}
		}
		for _, size := range sizes {
			for _, known := range []bool{true, false} {
				b := content(size)
				o, src := offered(t, fmt.Sprintf("a folder/%d-%v", size, known), b, known)
				phases, last := []proto.Phase{}, proto.Progress{}
				matched := 0
				r, err := c.Send(t.Context(), o, src, proto.Watcher{
					Progress: func(p proto.Progress) {
						if len(phases) == 0 || phases[len(phases)-1] != p.Phase {
							phases = append(phases, p.Phase)
						}
						last = p
					},
					Matched: func(context.Context) error { matched++; return nil },
				})
				if err != nil {
					t.Fatalf("%d bytes: %v; the server: %v", size, err, h.errs)
				}
				checkReceipt(t, r, o, b, 1)
				if !bytes.Equal(h.content(o.Name.String()), b) {
					t.Errorf("%s has not arrived", o.Name.String())
				}
				if as, _ := h.stored(o.Name.String()); as.Transfer != o.ID {
					t.Errorf("stored as %+v", as)
				}
				if matched != 1 || last.Bytes != size || last.TotalBytes != size || last.Packets != last.TotalPackets || last.Phase != proto.PhaseVerifying {
					t.Errorf("%d bytes: matched %d times, at last %+v", size, matched, last)
				}
				want := []proto.Phase{proto.PhaseConnecting, proto.PhaseKeying, proto.PhaseSending, proto.PhaseVerifying}
				if fmt.Sprint(phases) != fmt.Sprint(want) && len(phases) != 3 {
					t.Errorf("%d bytes: phases %v", size, phases)
				}
				// Again: it is there.
				r, err = c.Send(t.Context(), o, src, proto.Watcher{})
				sends := 0
				if size <= 65_536 {
					sends = 1
				}
				if err != nil {
					t.Fatalf("%d bytes again: %v", size, err)
				}
				checkReceipt(t, r, o, b, sends)
			}
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if errs := h.errors(); len(errs) > 0 {
			t.Errorf("the server: %v", errs)
		}
	}
}
