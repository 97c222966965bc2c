package proto_test

import (
	"bytes"
	"fmt"
	"testing"

	"ferry/proto/v4"
)

// listening reads answers while the test writes: a pipe holds nothing.
func (r *rawV4) listening(write func()) []messageV4 {
	r.t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		write()
	}()
	var all []messageV4
	for {
		select {
		case <-done:
			return all
		default:
		}
		m, err := r.tryRead()
		if err != nil {
			return all
		}
		all = append(all, m)
	}
}

func TestV4Files(t *testing.T) {
	h := newHostV4(alice(t))
	r := h.rawTCP(t).enter()
	number := uint64(0)
	for _, size := range []int64{0, 1, v4.MaxSmall} {
		number++
		name := fmt.Sprintf("small/%d", size)
		r.write(r.small(number, name, content(size)))
		files := r.expectStored(number)
		if as, _ := h.stored(name); files[0] != as || !bytes.Equal(h.content(name), content(size)) {
			t.Errorf("%s: the receipt says %+v, stored is %+v with %d bytes", name, files[0], as, len(h.content(name)))
		}
	}
	for _, size := range []int64{0, 1, 8191, 100_000, 3 << 20} {
		for _, packet := range []int{1 << 13, 1 << 16, 1 << 20} {
			number++
			name := fmt.Sprintf("large/%d/%d", size, packet)
			c := content(size)
			if from := r.offer(number, offerV4(name, c, byte(number))); from != 0 {
				t.Fatalf("%s is wanted from %d", name, from)
			}
			r.write(r.packets(c, 0, packet), r.end(number, c))
			files := r.expectStored(number)
			if as, _ := h.stored(name); files[0] != as || !bytes.Equal(h.content(name), c) {
				t.Errorf("%s: the receipt says %+v, stored is %+v", name, files[0], as)
			}
		}
	}
	r.bye()
	if errs := h.errors(); len(errs) != 0 {
		t.Errorf("got errors %v", errs)
	}
}
