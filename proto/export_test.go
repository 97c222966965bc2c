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

// ReverseBits is what the cksum is made with where there is no [Fold], which
// takes what it can of a chunk.
var (
	ReverseBits = reverseBits
	Fold        = fold
)

// AddReversed adds a chunk to the cksum alone, without Fold.
func AddReversed(s *Summer, chunk []byte) { s.addReversed(chunk) }
