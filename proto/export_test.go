package proto

// SumChunk is how much [AddCksum] takes.
const SumChunk = sumChunk

// AddCksum adds a chunk to the cksum alone, for its benchmark.
func AddCksum(s *Summer, chunk []byte) { s.addCksum(chunk) }
