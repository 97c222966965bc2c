package gateway

import (
	"io"
	"runtime"
	"sync"
)

const (
	// copyPiece is read, hashed and written at a time, of a body that comes no faster
	// than it is hashed; it may have two such pieces in memory.
	copyPiece = 64 << 10
	// largePiece is what one gets that comes faster: goroutines wake each other less.
	largePiece = 512 << 10
	// mostLarge is how many of those a body may have at once.
	mostLarge = 4
	// mostPieces is how many pieces of a body may be in memory at once.
	mostPieces = 2 + mostLarge
)

var (
	smallPieces = sync.Pool{New: func() any { b := make([]byte, copyPiece); return &b }}
	largePieces = sync.Pool{New: func() any { b := make([]byte, largePiece); return &b }}
)

// largeRoom bounds the large pieces of all bodies: as many as keep all processors
// hashing.
type largeRoom chan struct{}

func newLargeRoom() largeRoom { return make(largeRoom, mostLarge*runtime.GOMAXPROCS(0)) }

// A hashing sums the pieces of a body, in their order, in a goroutine of its own,
// beside what reads and writes them.
type hashing struct {
	room  largeRoom
	small int         // pieces in memory
	large int         // and of those that count in room
	toSum chan summed // has room for all of them
	free  chan *[]byte
	done  chan struct{}
}

// summed is the part of a piece that is to be summed.
type summed struct {
	p *[]byte
	n int
}

// hashing begins to sum; nobody else uses sum, which never fails, until end.
func (g *Gateway) hashing(sum io.Writer) *hashing {
	h := &hashing{room: g.largeRoom, toSum: make(chan summed, mostPieces), free: make(chan *[]byte, mostPieces), done: make(chan struct{})}
	go func() {
		defer close(h.done)
		for s := range h.toSum {
			_, _ = sum.Write((*s.p)[:s.n])
			h.free <- s.p // has room for all
		}
	}()
	return h
}

// piece returns one to be filled and added. The one before is not used any more,
// except by who sums it.
func (h *hashing) piece() *[]byte {
	select {
	case p := <-h.free:
		return h.fewer(p)
	default:
	}
	if h.small < 2 {
		h.small++
		p, _ := smallPieces.Get().(*[]byte)
		return p
	}
	if h.large < mostLarge {
		select {
		case h.room <- struct{}{}:
			h.large++
			p, _ := largePieces.Get().(*[]byte)
			return p
		default:
		}
	}
	return <-h.free
}

// fewer returns one of those that are free, the smallest, and gives the others
// back: the body does not come as fast as it is hashed.
func (h *hashing) fewer(p *[]byte) *[]byte {
	for {
		select {
		case other := <-h.free:
			if len(*other) < len(*p) {
				p, other = other, p
			}
			h.giveBack(other)
		default:
			return p
		}
	}
}

func (h *hashing) giveBack(p *[]byte) {
	if len(*p) == copyPiece {
		h.small--
		smallPieces.Put(p)
		return
	}
	h.large--
	largePieces.Put(p)
	<-h.room
}

// add has the first n bytes of a piece summed, which may be read meanwhile.
func (h *hashing) add(p *[]byte, n int) { h.toSum <- summed{p, n} }

// end returns when all that was added has been summed.
func (h *hashing) end() {
	close(h.toSum)
	<-h.done
	close(h.free)
	for p := range h.free {
		h.giveBack(p)
	}
	for ; h.large > 0; h.large-- { // what was not added, as something has panicked
		<-h.room
	}
}
