package proto

import "ferry/proto/v4"

// MostMarks is how many marks there are of a file at most.
const MostMarks = marksV4

// A Marker is the flow of a file to a server with that window, as far as its marks go.
type Marker struct{ flow *flowV4 }

// NewMarker returns one that hands out sums as a [Watcher] gets them.
func NewMarker(window uint64, size int64, summed func(state []byte)) *Marker {
	d := &deliveryV4{
		line:  &lineV4{welcome: v4.Welcome{Packet: 8 << 10, Window: window}},
		offer: Offer{Size: size}, hash: NewSummer(), watch: Watcher{Summed: summed},
	}
	return &Marker{d.newFlow()}
}

// Mark hashes b, and returns how many marks there are.
func (m *Marker) Mark(b []byte) int {
	m.flow.d.hashed(b, m.flow.d.hash.size)
	m.flow.mark()
	return len(m.flow.marks)
}

// Keep takes note of what the server keeps.
func (m *Marker) Keep(bytes int64) { m.flow.remember(bytes) }
