package proto

import "sync"

// bufferSizes are those of the buffers that are used again, in the order of
// their size: answers and small files' offers; small files; what passes through
// the socket at once; the largest packet, sealed.
var bufferSizes = [...]int{8 << 10, 128 << 10, 512 << 10, 1<<20 + 64<<10}

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
