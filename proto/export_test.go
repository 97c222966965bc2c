package proto

import (
	"context"
	"net"

	"ferry/proto/v3"
)

// SumChunk is how much [AddCksum] takes.
const SumChunk = sumChunk

// AddCksum adds a chunk to the cksum alone, for its benchmark.
func AddCksum(s *Summer, chunk []byte) { s.addCksum(chunk) }

// AcceptV3With is AcceptV3 with what it makes at random given.
func AcceptV3With(key v3.Key, id ClientID) Accept {
	return func(ctx context.Context, conn net.Conn, cfg SessionConfig) (Session, error) {
		return acceptV3(ctx, conn, cfg, key, func() ClientID { return id })
	}
}

// ReverseBits is what the cksum is made with, and ReverseWords the same without
// instructions of one processor.
var ReverseBits, ReverseWords = reverseBits, reverseWords
