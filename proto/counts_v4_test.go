package proto_test

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"testing"

	"ferry/proto"
	"ferry/proto/v4"
)

// borders are numbers that do not all fit in 32 bits, signed or not.
var borders = []uint64{
	1<<31 - 1, 1 << 31, 1<<31 + 1,
	1<<32 - 1, 1 << 32, 1<<32 + 1,
	1<<63 - 1, 1 << 63, math.MaxUint64,
}

// bordered is a file's offer, with a transfer of its own.
func bordered(i int, name string, c []byte) v4.Offer {
	o := offerV4(name, c, 7)
	o.Transfer[1] = byte(i)
	return o
}

// TestV4FileNumbers gives files numbers about 2^31 and 2^32: each answer is for
// the number that the file has, whole.
func TestV4FileNumbers(t *testing.T) {
	c := content(20_000)
	wrong := bytes.Clone(c)
	wrong[5] ^= 1
	h := newHostV4(alice(t))
	h.id = quickV4
	r := h.rawTCP(t).enter()
	for i, n := range borders {
		small, large, refused := fmt.Sprintf("small %d", n), fmt.Sprintf("large %d", n), bordered(3*i, "../a", c[:9])
		r.write(r.message(v4.CodeFile, n, append(bordered(3*i+1, small, c[:9]).Append(nil), c[:9]...)))
		if as := r.expectStored(n); as[0].Name.String() != small {
			t.Errorf("number %d: the receipt is for %s", n, as[0].Name.String())
		}
		r.write(r.message(v4.CodeFile, n, append(refused.Append(nil), c[:9]...)))
		r.expectRefused(n, v4.ReasonName)

		r.offer(n, bordered(3*i+2, large, c)) // wants the number in the answer
		r.write(r.packets(wrong, 0, 8192), r.end(n, c))
		if m := r.expect(v4.CodeDiffers); m.Number != n {
			t.Errorf("number %d: the sums of %d differ", n, m.Number)
		}
		r.say(v4.CodeAgain, n, nil)
		r.write(r.packets(c, 0, 8192), r.end(n, c))
		r.expectStored(n)
		if !bytes.Equal(h.content(small), c[:9]) || !bytes.Equal(h.content(large), c) {
			t.Errorf("number %d: something else is stored", n)
		}
	}
	// The same but for its highest bits is another file's.
	r.offer(1<<32+5, bordered(100, "f", c))
	r.write(r.packets(c, 0, 8192))
	r.mutter(r.end(5, c))
	r.expectRefused(1<<32+5, v4.ReasonViolation)
	r.expectEnd()
}

// TestV4FileNumbersTogether has one receipt answer for files with numbers on both
// sides of 2^31 and 2^32.
func TestV4FileNumbersTogether(t *testing.T) {
	h := newHostV4(alice(t))
	h.id = quickV4
	r := h.rawTCP(t).enter()
	var all []byte
	for i, n := range borders {
		c := []byte{byte(i)}
		all = append(all, r.message(v4.CodeFile, n, append(bordered(i, fmt.Sprint(n), c).Append(nil), c...))...)
	}
	r.write(all)
	r.expectStored(slices.Clone(borders)...)
	for i, n := range borders {
		if got := h.content(fmt.Sprint(n)); !bytes.Equal(got, []byte{byte(i)}) {
			t.Errorf("number %d: %x is stored", n, got)
		}
	}
	r.bye()
}

// TestV4ClientNumbersFiles has a client that has sent about 2^31 and 2^32 files in
// each of its connections.
func TestV4ClientNumbersFiles(t *testing.T) {
	h := newHostV4(alice(t))
	c := clientV4(t, h.listen(t))
	send := func(name string, size int64) {
		t.Helper()
		b := content(size)
		o, src := offered(t, name, b, true)
		receipt, err := c.Send(t.Context(), o, src, proto.Watcher{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		checkReceipt(t, receipt, o, b, 1)
	}
	send("small", 10)
	send("large", 70_000)
	for _, at := range []uint64{1 << 31, 1 << 32} {
		if lines := proto.FilesSent(c, at-2); lines != 2 {
			t.Fatalf("the client has %d connections, want 2", lines)
		}
		for i := range 3 {
			send(fmt.Sprintf("small %d", at-1+uint64(i)), 10)
			send(fmt.Sprintf("large %d", at-1+uint64(i)), 70_000)
		}
		if small, large := proto.LastNumbers(c); small != at+1 || large != at+1 {
			t.Errorf("the last files had the numbers %d and %d, want %d", small, large, at+1)
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if errs := h.errors(); len(errs) > 0 {
		t.Errorf("the server: %v", errs)
	}
}
