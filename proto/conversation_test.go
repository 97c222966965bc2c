package proto_test

import (
	"bytes"
	"fmt"
	"testing"
	"testing/synctest"

	"ferry/proto"
)

// Each way of speaking version 3, with the sizes at which its packets change.
var ways = []struct {
	url   string
	slice int64 // of plaintext that fills a packet, about
	acks  bool
}{
	{"v3://h", 7902, true},
	{"v3://h?window=2", 7902, true},
	{"v3://h?window=64", 7902, true},
	{"v3://h?dialect=mainstream", 8192, false},
	{"v3://h?dialect=mainstream&window=64", 8192, false},
	{"v3://h?dialect=mainstream&slice=4096", 4096, false},
	{"v3://h?dialect=mainstream&slice=734", 734, false},
	{"v3://h?dialect=mainstream&slice=65536&window=8", 65536, false},
	{"v3://h?dialect=per-slice", 1024, false},
	{"v3://h?dialect=per-slice&window=64", 1024, false},
}

func TestFilesArrive(t *testing.T) {
	for _, way := range ways {
		t.Run(way.url, func(t *testing.T) {
			sizes := []int64{0, 1, 15, 16, 17, way.slice - 1, way.slice, way.slice + 1, 2*way.slice - 16, 5 * way.slice, 63200, 300_000}
			synctest.Test(t, func(t *testing.T) {
				h := newHost()
				c := h.client(t, way.url)
				for i, size := range sizes {
					name := fmt.Sprintf("file %d", i)
					want := content(size)
					sum := sumOf(want)
					o := proto.Offer{Name: fileName(t, name), Size: size, Sum: &sum}
					r, err := c.Send(t.Context(), o, bytesOf(want), proto.Watcher{})
					synctest.Wait() // one way has the server store it behind the receipt
					if err != nil {
						t.Fatalf("%d bytes: %v; the server: %v", size, err, h.errors())
					}
					if r.Sum != sum || r.Name != o.Name || r.Sends != 1 || r.At.IsZero() {
						t.Errorf("receipt %+v, want sum %+v", r, sum)
					}
					if got := h.file(name); !bytes.Equal(got, want) {
						t.Fatalf("%d bytes arrived, want those %d", len(got), size)
					}
				}
				synctest.Wait()
				if errs := h.errors(); len(errs) > 0 {
					t.Errorf("the server met %v", errs)
				}
			})
		})
	}
}
