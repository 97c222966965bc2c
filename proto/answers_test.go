package proto_test

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"testing"

	"ferry/proto"
	"ferry/proto/v3"
)

// What a server answers to a file in one packet, and what the client makes of it.
func TestAnswers(t *testing.T) {
	all := knownOnes(t)
	v := all[slices.IndexFunc(all, func(k known) bool { return k.vector.Case == "reconnect-1" })].vector
	id, file := v3.ID(v.ClientID), v.File
	received := func(change func(*v3.Received)) []byte {
		m := v3.Received{Client: id, ContentSize: 16, Name: file, Cksum: v.Cksum}
		change(&m)
		return m.Append(v3.ResponseHeader{Code: v3.CodeReceived, PayloadSize: 279}.Append(nil))
	}
	right := received(func(*v3.Received) {})
	wrong := received(func(m *v3.Received) { m.Cksum++ })
	thanks := v3.Seed().AppendThanks(nil, id)
	sorry := func(payload []byte) []byte {
		return append(v3.ResponseHeader{Code: v3.CodeGeneralError, PayloadSize: uint32(len(payload))}.Append(nil), payload...)
	}
	named := func(name string) []byte { return sorry(v3.Confirm{Name: name}.Append(nil)) }
	taken := v3.ResponseHeader{Code: v3.CodeNameTaken}.Append(nil)
	for _, test := range []struct {
		name, dialect string
		says          [][]byte
		want          error
	}{
		{"taken", "seed", [][]byte{thanks, right, thanks}, nil},
		{"size of the plaintext", "seed", [][]byte{thanks, received(func(m *v3.Received) { m.ContentSize = 1 }), thanks}, nil},
		{"another size", "seed", [][]byte{thanks, received(func(m *v3.Received) { m.ContentSize = 2 }), thanks, right, thanks}, nil},
		{"exists", "seed", [][]byte{sorry(nil)}, proto.ErrExists},
		{"exists, with an id", "seed", [][]byte{sorry(id[:])}, proto.ErrExists},
		{"refused", "seed", [][]byte{thanks, sorry(nil)}, proto.ErrRefused},
		{"refused at the end", "seed", [][]byte{thanks, right, sorry(nil)}, proto.ErrRefused},
		{"refused again", "seed", [][]byte{thanks, wrong, sorry(nil)}, proto.ErrRefused},
		{"two thanks for a packet", "seed", [][]byte{thanks, thanks, right, thanks}, proto.ErrProtocol},
		{"no thanks for a packet", "seed", [][]byte{right, thanks}, proto.ErrProtocol},
		{"two checksums", "seed", [][]byte{thanks, right, right}, proto.ErrProtocol},
		{"a checksum of another client", "seed", [][]byte{thanks, received(func(m *v3.Received) { m.Client[0]++ }), thanks}, proto.ErrProtocol},
		{"a checksum of another file", "seed", [][]byte{thanks, received(func(m *v3.Received) { m.Name += "x" }), thanks}, proto.ErrProtocol},
		{"a name taken", "seed", [][]byte{taken}, proto.ErrProtocol},
		{"a request", "seed", [][]byte{v3.ResponseHeader{Code: v3.CodeEqual}.Append(nil)}, proto.ErrProtocol},
		{"another version", "seed", [][]byte{{4, 0x44, 6, 0, 0, 0, 0}}, proto.ErrProtocol},
		{"4 GiB", "seed", [][]byte{{3, 0x44, 6, 0xff, 0xff, 0xff, 0xff}}, proto.ErrProtocol},
		{"nothing", "seed", nil, io.ErrUnexpectedEOF},
		{"half an answer", "seed", [][]byte{thanks[:9]}, io.ErrUnexpectedEOF},
		{"nothing at the end", "seed", [][]byte{thanks, right}, io.ErrUnexpectedEOF},

		{"taken", "mainstream", [][]byte{right, thanks}, nil},
		{"901 unanswered", "mainstream&slice=4096", [][]byte{wrong, wrong, right, thanks}, nil},
		{"901 answered", "mainstream&slice=4096", [][]byte{wrong, thanks, wrong, thanks, right, thanks}, nil},
		{"901 answered as it has to be", "mainstream", [][]byte{wrong, thanks, wrong, thanks, right, thanks}, nil},
		{"901 unanswered where it has to be", "mainstream", [][]byte{wrong, wrong}, proto.ErrProtocol},
		{"901 answered twice", "mainstream&slice=4096", [][]byte{wrong, thanks, thanks, right}, proto.ErrProtocol},
		{"exists, at a Ferry server", "mainstream", [][]byte{named(file)}, proto.ErrExists},
		{"exists, another file", "mainstream", [][]byte{named(file + "x")}, proto.ErrRefused},
		{"refused", "mainstream", [][]byte{sorry(nil)}, proto.ErrRefused},
		{"refused, with an id", "mainstream", [][]byte{sorry(id[:])}, proto.ErrRefused},
		{"seed's thanks", "mainstream", [][]byte{thanks, right, thanks}, proto.ErrProtocol},
		{"gave up", "mainstream", [][]byte{wrong, thanks, wrong, thanks, wrong, thanks, wrong, thanks}, proto.ErrChecksum},
		{"exists, refused at the end", "mainstream", [][]byte{right, named(file)}, proto.ErrRefused},
	} {
		t.Run(test.dialect+"/"+test.name, func(t *testing.T) {
			key := v.S2C[:v3.ResponseHeaderSize+v3.IDSize+v3.WrappedKeySize]
			conn := &script{in: slices.Concat(key, slices.Concat(test.says...)), t: t}
			c := proto.NewClient(proto.ClientConfig{
				To: destination(t, "v3://h?dialect="+test.dialect), Name: clientName(t, v.User),
				Keyring: &keyring{ok: true, id: proto.Identity{Name: clientName(t, v.User), ID: v.ClientID, PrivateKey: v.PrivateKey}},
				Dial:    func(context.Context, string, string) (net.Conn, error) { return conn, nil },
			})
			defer c.Close()
			_, err := send(t, c, file, 1)
			if !errors.Is(err, test.want) {
				t.Errorf("%v, want %v", err, test.want)
			}
			if permanent := proto.Permanent(err); permanent != errors.Is(test.want, proto.ErrExists) {
				t.Errorf("permanent: %v", permanent)
			}
		})
	}
}

// polite says thanks twice.
type polite struct{ net.Conn }

func (p *polite) Write(b []byte) (int, error) {
	n, err := p.Conn.Write(b)
	if err == nil && must(v3.ParseResponseHeader(b[:v3.ResponseHeaderSize])).Code == v3.CodeThanks {
		_, _ = p.Conn.Write(b) // until the client has left
	}
	return n, err
}
