package gateway

import (
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// A small body that was declared is held in as much memory as it has bytes where they
// end as those of net/http do, and in little more however they come.
func TestMemoryOfSmallBodies(t *testing.T) {
	g := openCore(t, t.TempDir(), newRemote())
	for _, way := range []struct {
		name  string
		read  func(io.Reader) io.Reader
		exact bool
	}{
		{"the end with the last bytes", iotest.DataErrReader, true},
		{"the end apart", func(r io.Reader) io.Reader { return r }, false},
		{"a byte at a time", iotest.OneByteReader, false},
		{"halves", iotest.HalfReader, false},
	} {
		for _, size := range []int{0, 1, 100, firstPiece - 1, firstPiece, firstPiece + 1, 10_000, 4 * firstPiece, smallBody - 1, smallBody} {
			want := content(1, size)
			r := g.receive(t.Context())
			if _, err := r.add(fileName(t, "f"), int64(size), way.read(strings.NewReader(want))); err != nil {
				t.Fatalf("%s: %d bytes: %v", way.name, size, err)
			}
			held := r.files[0].small
			if string(held) != want {
				t.Errorf("%s: of %d bytes %d are held, or others", way.name, size, len(held))
			}
			if most := size * 4 / 3; cap(held) > most+1 || way.exact && cap(held) != size {
				t.Errorf("%s: %d bytes take %d", way.name, size, cap(held))
			}
			r.abort()
		}
	}
	c := &intake{in: &incoming{declared: smallBody}}
	if got := cap(c.memory(0)); got != firstPiece {
		t.Errorf("a body gets %d bytes before it has sent any, want %d", got, firstPiece)
	}
}
