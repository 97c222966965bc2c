package prototest

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
)

// A Mutator changes conversations at random. What it makes depends on what it
// was seeded with alone. It is used by one goroutine.
type Mutator struct {
	source rand.PCG
	random *rand.Rand
}

// NewMutator returns one that has to be seeded.
func NewMutator() *Mutator {
	m := &Mutator{}
	m.random = rand.New(&m.source) //nolint:gosec // it has to be the same again for the same seed
	return m
}

// Seed begins the n-th of the conversations that belong to a seed.
func (m *Mutator) Seed(seed, n uint64) { m.source.Seed(seed, n) }

// IntN returns a random number below n.
func (m *Mutator) IntN(n int) int { return m.random.IntN(n) }

// Mutate returns the messages of a conversation, changed in one to four places:
// bits flipped, numbers replaced, bytes or whole messages cut, repeated, moved or
// left out, or taken from the messages of another conversation. What it is
// given stays as it was.
func (m *Mutator) Mutate(messages, others [][]byte) [][]byte {
	messages = slices.Clone(messages)
	for range 1 + m.random.IntN(4) {
		if len(messages) == 0 {
			break
		}
		if m.random.IntN(3) == 0 {
			messages = m.whole(messages, others)
			continue
		}
		i := m.random.IntN(len(messages))
		messages[i] = m.within(messages[i])
	}
	return messages
}

// whole changes the order or number of the messages.
func (m *Mutator) whole(messages, others [][]byte) [][]byte {
	i, j := m.random.IntN(len(messages)), m.random.IntN(len(messages))
	switch m.random.IntN(6) {
	case 0: // left out
		return slices.Delete(messages, i, i+1)
	case 1: // again
		return slices.Insert(messages, j, messages[i])
	case 2: // another order
		messages[i], messages[j] = messages[j], messages[i]
		return messages
	case 3: // somebody else's
		return slices.Insert(messages, i, others[m.random.IntN(len(others))])
	case 4: // from some place on all over again
		return slices.Concat(messages, messages[i:])
	default: // the end
		return messages[:i]
	}
}

// The numbers of version 3's headers: where they are, and their size.
var numbers = [][2]int{
	{16, 1}, {17, 2}, {19, 4}, // version, code, payload size
	{23, 4}, {27, 4}, {31, 2}, {33, 2}, // content size, original size, and the two numbers of a packet
}

// codes of all requests, and of one answer.
var codes = []uint16{825, 826, 827, 828, 900, 901, 902, 1604}

// within returns a changed copy of a message.
func (m *Mutator) within(message []byte) []byte {
	b := slices.Clone(message)
	if len(b) == 0 {
		return b
	}
	i := m.random.IntN(len(b))
	j := i + m.random.IntN(min(len(b)-i, 64)+1)
	switch m.random.IntN(8) {
	case 0:
		b[i] ^= 1 << m.random.IntN(8)
	case 1:
		b[i] = byte(m.random.Uint32()) //nolint:gosec // any byte
	case 2:
		b = b[:i]
	case 3:
		b = slices.Delete(b, i, j)
	case 4:
		b = slices.Insert(b, j, b[i:j]...)
	case 5:
		if len(b) >= 19 {
			binary.LittleEndian.PutUint16(b[17:], codes[m.random.IntN(len(codes))])
		}
	default:
		m.number(b)
	}
	return b
}

// number replaces one of a header's numbers, by one that is near it or extreme.
func (m *Mutator) number(b []byte) {
	at := numbers[m.random.IntN(len(numbers))]
	if len(b) < at[0]+at[1] {
		return
	}
	field := b[at[0] : at[0]+at[1]]
	var whole [8]byte
	copy(whole[:], field)
	n := binary.LittleEndian.Uint64(whole[:])
	switch m.random.IntN(6) {
	case 0:
		n++
	case 1:
		n--
	case 2:
		n = 0
	case 3:
		n = math.MaxUint64
	case 4:
		n += 16 // a block more
	default:
		n = m.random.Uint64() >> m.random.IntN(64)
	}
	binary.LittleEndian.PutUint64(whole[:], n)
	copy(field, whole[:])
}
