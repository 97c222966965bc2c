package proto_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"ferry/proto"
	"ferry/proto/v3"
)

// These tests show what version 3 does not promise. One that fails means that
// docs/security.md has to be changed.

// between is a client's connection with somebody on the way, who sees and may
// change what either end says, a message at a time.
type between struct {
	net.Conn
	request func([]byte)
	answer  func([]byte)
}

func (b *between) Write(p []byte) (int, error) {
	m := slices.Clone(p)
	b.request(m)
	return b.Conn.Write(m)
}

func (b *between) Read(p []byte) (int, error) {
	n, err := b.Conn.Read(p)
	if n >= v3.ResponseHeaderSize {
		b.answer(p[:n])
	}
	return n, err
}

// through returns a client of the host with somebody on the way to it.
func (h *host) through(t *testing.T, url string, request, answer func([]byte)) *proto.Client {
	t.Helper()
	return h.client(t, url, func(cfg *proto.ClientConfig) {
		cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := h.dial(ctx, network, address)
			return &between{conn, request, answer}, err
		}
	})
}

func nothing([]byte) {}

// TestBelievesWhatIsChanged: a client takes a file for stored that is not, where
// somebody on the way turns its 900 into a 902, or the server's no into a yes.
func TestBelievesWhatIsChanged(t *testing.T) {
	for name, test := range map[string]struct {
		request, answer func([]byte)
		accept          func(proto.Offer, []byte) error
	}{
		"900 into 902": {
			request: func(m []byte) {
				if codeOf(m) == v3.CodeEqual {
					binary.LittleEndian.PutUint16(m[17:], uint16(v3.CodeGiveUp))
				}
			},
			answer: nothing,
		},
		"1607 into 1604": {
			request: nothing,
			answer: func(m []byte) {
				if binary.LittleEndian.Uint16(m[1:]) == uint16(v3.CodeGeneralError) {
					binary.LittleEndian.PutUint16(m[1:], uint16(v3.CodeThanks))
				}
			},
			accept: func(proto.Offer, []byte) error { return errors.New("the disk is full") },
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHost()
				h.accept = test.accept
				c := h.through(t, "v3://host", test.request, test.answer)
				o, src := offer(t, "file", 5000)
				r, err := c.Send(t.Context(), o, src, proto.Watcher{})
				if err != nil || r.Sends != 1 {
					t.Errorf("got %+v, %v; want the client to believe that it is stored", r, err)
				}
				if h.file("file") != nil {
					t.Error("it is stored")
				}
			})
		})
	}
}

// TestShowsAllButContents: who listens reads the client's id and name, and the
// name and size of its file, and not what is in it.
func TestShowsAllButContents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost()
		var mu sync.Mutex
		var heard []byte // guarded by mu
		c := h.through(t, "v3://host", func(m []byte) {
			mu.Lock()
			defer mu.Unlock()
			heard = append(heard, m...)
		}, nothing)
		secret := []byte(strings.Repeat("what is in the file ", 250))
		o, src := offered(t, "payroll.ods", secret, true)
		if _, err := c.Send(t.Context(), o, src, proto.Watcher{}); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		defer mu.Unlock()
		id := proto.ClientID{0xa1}
		size := binary.LittleEndian.AppendUint32(nil, uint32(len(secret)))
		for what, part := range map[string][]byte{"id": id[:], "client": []byte("alice\x00"), "file": []byte("payroll.ods\x00"), "size": size} {
			if !bytes.Contains(heard, part) {
				t.Errorf("the %s was not to be heard", what)
			}
		}
		if bytes.Contains(heard, []byte("what is in")) {
			t.Error("what is in the file was to be heard")
		}
	})
}

// TestTellsWhichNamesAreTaken: and anybody may ask.
func TestTellsWhichNamesAreTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost()
		h.known(t, "alice")
		r := h.raw(t)
		r.say(r.registerAs("alice"))
		r.expect(v3.CodeNameTaken)
		r.say(r.registerAs("bob"))
		r.expect(v3.CodeRegistered)
		if all := h.dir.all(); len(all) != 1 {
			t.Errorf("asking has registered somebody: %v", all)
		}
	})
}
