package proto

import "sync"

// What of a file is hashed and written at once. Both are whole numbers of packets
// of any usual size, behind which there is room for the tag of the last.
const (
	smallBatch = 128<<10 + slack
	largeBatch = 512<<10 + slack
	slack      = 4 << 10
)

// bufferSizes are those of the buffers that are used again, in the order of
// their size: small messages; small files; what passes through the socket at once;
// the largest packet.
var bufferSizes = [...]int{8 << 10, smallBatch, largeBatch, 1<<20 + slack}

// buffers are shared by all connections, which come and go.
var buffers [len(bufferSizes)]sync.Pool // of *[]byte

// getBuffer returns an empty buffer with room for n bytes at least.
func getBuffer(n int) []byte {
	for i, size := range bufferSizes {
		if n > size {
			continue
		}
		if b, ok := buffers[i].Get().(*[]byte); ok {
			return (*b)[:0]
		}
		return make([]byte, 0, size)
	}
	return make([]byte, 0, n)
}

// putBuffer gives a buffer back, or nil. Nobody uses it any more.
func putBuffer(b []byte) {
	for i, size := range bufferSizes {
		if cap(b) == size {
			b = b[:0]
			buffers[i].Put(&b)
			return
		}
	}
}
