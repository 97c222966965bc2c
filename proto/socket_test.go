package proto_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"ferry/proto"
	"ferry/proto/prototest"
)

// listen serves the host's sessions on a socket until the test ends.
func (h *host) listen(t testing.TB) (address string) { return prototest.Listen(t, &h.conns, h.serve) }

// Over sockets, where a half of a connection can be closed, every way of
// speaking has an answer at its end: what was sent is stored when Send returns,
// and what was not stored was not sent.
func TestSockets(t *testing.T) {
	for _, way := range ways {
		t.Run(way.url, func(t *testing.T) {
			h := newHost()
			h.accept = func(o proto.Offer, _ []byte) error {
				if o.Name.String() == "refused" {
					return errors.New("no room")
				}
				return nil
			}
			url := "v3://" + h.listen(t) + way.url[len("v3://h"):]
			c := h.client(t, url, func(cfg *proto.ClientConfig) { cfg.Dial = nil })
			for i, size := range []int64{0, 1, 3 * way.slice, 1 << 20} {
				name := fmt.Sprint(i)
				if _, err := send(t, c, name, size); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(h.file(name), content(size)) || h.file(name) == nil {
					t.Errorf("%d bytes have not arrived", size)
				}
				if _, err := send(t, c, "refused", size); !errors.Is(err, proto.ErrRefused) {
					t.Errorf("%d bytes: %v, want %v", size, err, proto.ErrRefused)
				}
				if _, err := send(t, c, name, size); !errors.Is(err, proto.ErrExists) {
					t.Errorf("%d bytes again: %v, want %v", size, err, proto.ErrExists)
				}
			}
		})
	}
}
