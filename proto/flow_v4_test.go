package proto_test

import (
	"bytes"
	"testing"

	"ferry/proto"
)

// TestV4Marks: what a client remembers of a file does not grow with what the
// server says, and it still has a sum of most of what the server keeps.
func TestV4Marks(t *testing.T) {
	const each, batches, window = 64, 20 * proto.MostMarks, 1 << 40
	b := content(each * batches)
	var states [][]byte
	m := proto.NewMarker(window, int64(len(b)), func(state []byte) { states = append(states, state) })
	for i := range batches {
		if n := m.Mark(b[i*each : (i+1)*each]); n > proto.MostMarks {
			t.Fatalf("%d marks after %d batches, want %d at most", n, i+1, proto.MostMarks)
		}
	}
	kept := int64(len(b) / 2)
	m.Keep(kept)
	if len(states) != 1 {
		t.Fatalf("%d sums of what is kept, want one", len(states))
	}
	found := int64(-1)
	for size := kept; size > kept-2*int64(len(b)/proto.MostMarks) && found < 0; size -= each {
		if bytes.Equal(states[0], stateOf(t, b[:size])) {
			found = size
		}
	}
	if found < 0 {
		t.Errorf("the sum is not one of nearly all of the first %d bytes", kept)
	}
	m.Keep(int64(len(b)))
	if len(states) != 2 || !bytes.Equal(states[1], stateOf(t, b)) {
		t.Errorf("%d sums; the last is not of all", len(states))
	}
}
