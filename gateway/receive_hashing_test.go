package gateway

import (
	"bytes"
	"testing"
	"testing/synctest"
)

// A gated writer writes a piece for each value it gets.
type gated struct {
	bytes.Buffer
	pieces chan struct{}
}

func (g *gated) Write(p []byte) (int, error) {
	<-g.pieces
	return g.Buffer.Write(p)
}

// TestPieces sees which pieces a body gets, by how far its sum is behind.
func TestPieces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &Gateway{largeRoom: make(largeRoom, 3)}
		sum := &gated{pieces: make(chan struct{})}
		h := g.hashing(sum)
		var want []byte
		next := func(size int) {
			t.Helper()
			p := h.piece()
			if len(*p) != size {
				t.Fatalf("a piece of %d bytes, not %d", len(*p), size)
			}
			n := size - len(want)%7
			for i := range n {
				(*p)[i] = byte(i + n)
			}
			want = append(want, (*p)[:n]...)
			h.add(p, n)
		}
		next(copyPiece)
		sum.pieces <- struct{}{}
		synctest.Wait()
		next(copyPiece) // the first one again
		if h.small != 1 {
			t.Errorf("%d small pieces of a body that comes slowly, not 1", h.small)
		}
		next(copyPiece)
		g.largeRoom <- struct{}{} // of another body
		next(largePiece)
		next(largePiece)
		before := len(want)
		went := make(chan struct{})
		go func() {
			next(copyPiece) // there is no room for another large one
			close(went)
		}()
		synctest.Wait()
		if len(want) != before {
			t.Error("there are more pieces than may be")
		}
		sum.pieces <- struct{}{}
		<-went
		close(sum.pieces)
		synctest.Wait()
		next(copyPiece) // its sum has caught up
		if h.small != 1 || h.large != 0 || len(g.largeRoom) != 1 {
			t.Errorf("%d small and %d large pieces are left, not 1 and 0", h.small, h.large)
		}
		h.end()
		if !bytes.Equal(sum.Bytes(), want) {
			t.Error("what was summed is not what was added, in its order")
		}
	})
}

// TestPiecesOfPanic gives all room back, even that of a piece that is lost.
func TestPiecesOfPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &Gateway{largeRoom: make(largeRoom, mostLarge)}
		sum := &gated{pieces: make(chan struct{})}
		h := g.hashing(sum)
		for range 2 + mostLarge - 1 {
			p := h.piece()
			h.add(p, len(*p))
		}
		h.piece() // and it is not added
		if len(g.largeRoom) != mostLarge {
			t.Errorf("%d large pieces, not %d", len(g.largeRoom), mostLarge)
		}
		close(sum.pieces)
		h.end()
		if len(g.largeRoom) != 0 {
			t.Errorf("%d large pieces are never given back", len(g.largeRoom))
		}
	})
}
