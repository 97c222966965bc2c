package proto_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"

	"ferry/proto"
	"ferry/proto/prototest"
)

// nowhere is a Sink that keeps nothing.
type nowhere struct{}

func (nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (nowhere) Reset() error                { return nil }
func (nowhere) Kept() (int64, []byte)       { return 0, nil }
func (nowhere) Keep([]byte) error           { return nil }

// loopback serves sessions on a socket that keep nothing, until the test ends.
func loopback(t testing.TB, dir *directory) string {
	t.Helper()
	return prototest.Listen(t, new(sync.WaitGroup), func(conn net.Conn) {
		ctx := context.Background()
		s, err := proto.AcceptV3(ctx, conn, proto.SessionConfig{Directory: dir})
		for err == nil {
			var tr proto.Transfer
			if tr, err = s.Next(ctx); err != nil {
				return
			}
			if _, err = tr.Receive(ctx, nowhere{}); err == nil {
				err = tr.Accept(ctx, proto.Stored{})
			}
		}
	})
}

// zeros is a Source of that many zeros.
func zeros(n int64) proto.Source {
	return func() (io.ReadCloser, error) { return io.NopCloser(io.LimitReader(zero{}, n)), nil }
}

type zero struct{}

func (zero) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func BenchmarkSend(b *testing.B) {
	for _, size := range []int64{4 << 10, 1 << 20, 256 << 20} {
		for _, options := range []string{"window=1", "window=64", "dialect=mainstream&window=64"} {
			b.Run(fmt.Sprintf("%d/%s", size, options), func(b *testing.B) {
				h := newHost()
				address := loopback(b, h.dir)
				c := proto.NewClient(proto.ClientConfig{
					To: destination(b, "v3://"+address+"?"+options), Name: clientName(b, "alice"), Keyring: h.known(b, "alice"),
				})
				defer c.Close()
				o := proto.Offer{Name: fileName(b, "file"), Size: size}
				b.SetBytes(size)
				b.ReportAllocs()
				for b.Loop() {
					if _, err := c.Send(b.Context(), o, zeros(size), proto.Watcher{}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// However large the file, both halves allocate no more for a packet than its
// parsed name.
func TestAllocations(t *testing.T) {
	for _, options := range []string{"window=64", "dialect=per-slice", "dialect=mainstream&slice=1040&window=64"} {
		h := newHost()
		c := proto.NewClient(proto.ClientConfig{
			To: destination(t, "v3://"+loopback(t, h.dir)+"?"+options), Name: clientName(t, "alice"), Keyring: h.known(t, "alice"),
		})
		defer c.Close()
		measure := func(packets int64) (allocs, bytes float64) {
			size := packets * 1024
			o := proto.Offer{Name: fileName(t, "file"), Size: size}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if _, err := c.Send(t.Context(), o, zeros(size), proto.Watcher{}); err != nil {
				t.Fatal(err)
			}
			runtime.ReadMemStats(&after)
			return float64(after.Mallocs - before.Mallocs), float64(after.TotalAlloc - before.TotalAlloc)
		}
		const packets = 2_000
		measure(packets)
		smallAllocs, small := measure(100)
		largeAllocs, large := measure(packets)
		if largeAllocs-smallAllocs > 1.2*packets || large-small > 400*packets {
			t.Errorf("%s: %.0f allocations of %.0f bytes for a small file, %.0f of %.0f for a large one", options, smallAllocs, small, largeAllocs, large)
		}
	}
}
