package proto_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"ferry/proto"
	"ferry/proto/prototest"
	"ferry/proto/v3"
)

// replay says what the client of a recording said, waiting for as many bytes
// of answers as there were in between, and returns what the server answered.
func replay(t *testing.T, conn net.Conn, r prototest.Recording) []byte {
	t.Helper()
	var got []byte
	for _, c := range r.Chunks {
		if !c.FromServer {
			if _, err := conn.Write(c.Bytes(r)); err != nil {
				t.Fatal(err)
			}
			continue
		}
		b := make([]byte, c.Len)
		n, err := io.ReadFull(conn, b)
		got = append(got, b[:n]...)
		if err != nil {
			t.Fatalf("after answers %v: %v", answersIn(t, got), err)
		}
	}
	return got
}

// Every recorded client has its file stored by us, and what we say to it is
// what its own server said.
func TestRecordedClients(t *testing.T) {
	for _, v := range prototest.Vectors(t) {
		t.Run(v.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHost()
				h.key, h.id = v3.Key(v.Key), v.ClientID
				priv, public := publicKeyOf(t, v.PrivateKey)
				if !v.Registers() {
					h.dir = newDirectory(registration(t, v.User, v.ClientID, public))
				}
				r := h.raw(t)
				got := answersIn(t, replay(t, r.conn, sameShape(t, v)))
				r.conn.Close()
				synctest.Wait()
				if !bytes.Equal(h.file(v.File), v.Content()) || h.file(v.File) == nil {
					t.Errorf("the file has not arrived: %v", h.errors())
				}
				want := answersIn(t, sameShape(t, v).S2C)
				for i, a := range got {
					if a.Code != v3.CodeKey && a.Code != v3.CodeReconnected {
						continue
					}
					m, err := v3.ParseWrappedKey(a.Payload)
					if err != nil {
						t.Fatal(err)
					}
					if key, err := v3.UnwrapKey(priv, m.Key); err != nil || key != h.key || m.Client != v.ClientID {
						t.Errorf("%v wraps another key, or for another: %v", a.Code, err)
					}
					copy(got[i].Payload[v3.IDSize:], want[i].Payload[v3.IDSize:]) // each wrapping is another one
				}
				if d := cmp.Diff(want, got); d != "" {
					t.Errorf("answers (-recorded +got):\n%s", d)
				}
				if public := h.dir.all()[v.ClientID].PublicKey; !bytes.Equal(public, publicOf(t, v.PrivateKey)) {
					t.Errorf("registered with public key %x", public)
				}
			})
		})
	}
}

func publicOf(t *testing.T, der []byte) []byte {
	t.Helper()
	_, public := publicKeyOf(t, der)
	return public
}

// sameShape returns the recording with the answers that ours are to equal. A
// file of per-slice in one packet looks like one of mainstream, and is answered
// like one; all that its client can notice are two sizes.
func sameShape(t *testing.T, v prototest.Vector) prototest.Recording {
	t.Helper()
	r := v.Recording
	if v.Dialect != "per-slice" || v.Size > 1023 {
		return r
	}
	answers := answersIn(t, r.S2C)
	last, verdict := len(answers)-1, len(answers)-2
	answers[last].Payload = v.ClientID[:]
	answers[verdict].Payload[v3.IDSize] = 16
	r.S2C = nil
	for _, a := range answers {
		r.S2C = append(v3.ResponseHeader{Code: a.Code, PayloadSize: uint32(len(a.Payload))}.Append(r.S2C), a.Payload...)
	}
	r.Chunks = slices.Clone(r.Chunks)
	for i := range r.Chunks {
		if c := &r.Chunks[i]; c.FromServer && c.Offset+c.Len == len(v.S2C) {
			c.Len += v3.IDSize
		}
	}
	return r
}

// Every recorded server has our client's file, and what we say to it is what
// its own client said.
func TestRecordedServers(t *testing.T) {
	for _, v := range prototest.Vectors(t) {
		t.Run(v.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				defer far.Close()
				keys := &keyring{}
				if !v.Registers() {
					keys.ok = true
					keys.id = proto.Identity{Name: clientName(t, v.User), ID: v.ClientID, PrivateKey: v.PrivateKey}
				}
				played := make(chan error, 1)
				go func() { played <- playServer(t, far, v) }()
				url := fmt.Sprintf("v3://h?dialect=%s&slice=%d", v.Dialect, v.Slice)
				c := proto.NewClient(proto.ClientConfig{
					To: destination(t, url), Name: clientName(t, v.User), Keyring: keys,
					Dial: func(context.Context, string, string) (net.Conn, error) { return near, nil },
				})
				defer c.Close()
				o := proto.Offer{Name: fileName(t, v.File), Size: v.Size}
				receipt, err := c.Send(t.Context(), o, bytesOf(v.Content()), proto.Watcher{})
				if err != nil {
					t.Error(err)
				}
				if err := <-played; err != nil {
					t.Error(err)
				}
				if receipt.Sum.Cksum != v.Cksum || receipt.ClientID != v.ClientID || receipt.Sends != 1 {
					t.Errorf("receipt %+v, want cksum %d from client %x", receipt, v.Cksum, v.ClientID)
				}
				if id, _, _ := keys.Load(t.Context()); id.ID != v.ClientID {
					t.Errorf("kept id %v, want %x", id.ID, v.ClientID)
				}
			})
		})
	}
}

// playServer answers as recorded, and compares what it is told.
func playServer(t *testing.T, conn net.Conn, v prototest.Vector) error {
	answers := answersIn(t, v.S2C)
	requests := requestsIn(t, v.C2S)
	for i, want := range requests {
		got := make([]byte, len(want))
		if n, err := io.ReadFull(conn, got); err != nil {
			t.Errorf("request %d: %v after %d bytes, want %d", i+1, err, n, len(want))
			return err
		}
		switch codeOf(want) {
		case v3.CodeRegister:
			copy(want, got[:v3.IDSize]) // means nothing
		case v3.CodePublicKey:
			m, err := v3.ParsePublicKey(got[v3.RequestHeaderSize:])
			if err != nil {
				return err
			}
			copy(want[v3.RequestHeaderSize+v3.NameSize:], m.Key[:]) // new each time
			public, err := v3.ParsePublicKeyInfo(m.Key)
			if err != nil {
				return err
			}
			wrapped, err := v3.WrapKey(public, v3.Key(v.Key))
			if err != nil {
				return err
			}
			copy(answers[0].Payload[v3.IDSize:], wrapped[:])
		}
		if !bytes.Equal(got, want) {
			t.Errorf("request %d, %v, differs from the recorded one", i+1, codeOf(want))
		}
		for range answersTo(v, requests, i) {
			a := answers[0]
			answers = answers[1:]
			m := append(v3.ResponseHeader{Code: a.Code, PayloadSize: uint32(len(a.Payload))}.Append(nil), a.Payload...)
			if _, err := conn.Write(m); err != nil {
				return err
			}
		}
	}
	// A client that goes on, or does not leave, is wrong as well.
	if n, err := conn.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("%d more bytes, %v: want the end", n, err)
	}
	return nil
}

// answersTo is how many answers a request has.
func answersTo(v prototest.Vector, requests [][]byte, i int) int {
	if codeOf(requests[i]) != v3.CodePacket {
		return 1
	}
	n := 0
	if v.Dialect == "seed" {
		n++
	}
	if i+1 == len(requests) || codeOf(requests[i+1]) != v3.CodePacket {
		n++
	}
	return n
}
