package proto_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ferry/proto"
)

// nowhereV4 is a server that keeps nothing of what it acknowledges.
func nowhereV4(t testing.TB) string {
	h := newHostV4(alice(t))
	h.take = func(ctx context.Context, t proto.Transfer) error {
		sum, err := t.Receive(ctx, nowhere{})
		if err != nil {
			return err
		}
		return t.Accept(ctx, proto.Stored{Name: t.Offer().Name, Sum: sum, Transfer: t.Offer().ID, At: time.Now()})
	}
	return h.listen(t)
}

// One large file, hashed by the server, and by the client as well unless the sum
// is known.
func BenchmarkClientV4Large(b *testing.B) {
	const size = 256 << 20
	s := proto.NewSummer()
	chunk := make([]byte, 1<<20)
	for range size / len(chunk) {
		_, _ = s.Write(chunk)
	}
	sum := s.Sum()
	for _, known := range []bool{true, false} {
		for _, packet := range []int{8 << 10, 64 << 10, 1 << 20} {
			b.Run(fmt.Sprintf("known=%v/packet=%d", known, packet), func(b *testing.B) {
				c := clientV4(b, fmt.Sprintf("%s?packet=%d", nowhereV4(b), packet))
				b.SetBytes(size)
				b.ReportAllocs()
				n := byte(0)
				for b.Loop() {
					n++
					o := proto.Offer{ID: proto.TransferID{1, n}, Name: fileName(b, "file"), Size: size}
					if known {
						o.Sum = &sum
					}
					if _, err := c.Send(b.Context(), o, zeros(size), proto.Watcher{}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// Small files, as many on their way at once as there are senders.
func BenchmarkClientV4Small(b *testing.B) {
	for _, senders := range []int{1, 8, 64, 256} {
		b.Run(fmt.Sprintf("senders=%d", senders), func(b *testing.B) {
			c := clientV4(b, nowhereV4(b))
			body := content(4 << 10)
			sum := sumOf(body)
			name := fileName(b, "file")
			b.ReportAllocs()
			b.SetBytes(int64(len(body)))
			var left atomic.Int64
			left.Store(int64(b.N))
			var all sync.WaitGroup
			for range senders {
				all.Go(func() {
					for left.Add(-1) >= 0 {
						o := proto.Offer{ID: proto.TransferID{1}, Name: name, Size: int64(len(body)), Sum: &sum}
						if _, err := c.Send(b.Context(), o, bytesOf(body), proto.Watcher{}); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			all.Wait()
		})
	}
}
