package proto_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"ferry/proto"
	"ferry/proto/prototest"
	"ferry/proto/v3"
)

// script is a connection that reads what is given and forgets what is written.
// Its deadlines never pass: at the end of what is given, it ends.
type script struct {
	net.Conn // nil: nothing else is called
	in       []byte
	passed   int
	piece    int // the longest Read; 0: any
	atEnd    atomic.Int32
	closed   atomic.Bool
	t        testing.TB
}

func (s *script) Read(p []byte) (int, error) {
	if s.closed.Load() {
		return 0, net.ErrClosed
	}
	if s.passed == len(s.in) {
		if s.atEnd.Add(1) > 100 {
			s.t.Error("it reads on behind the end")
			panic("hangs")
		}
		return 0, io.EOF
	}
	if s.piece > 0 {
		p = p[:min(len(p), s.piece)]
	}
	n := copy(p, s.in[s.passed:])
	s.passed += n
	return n, nil
}

func (s *script) Write(p []byte) (int, error)      { return len(p), nil }
func (s *script) Close() error                     { s.closed.Store(true); return nil }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// A known conversation, for a fuzzer to start from.
type known struct {
	vector   prototest.Vector
	client   proto.Registration
	identity proto.Identity
	to       proto.Destination
}

func knownOnes(t testing.TB) []known {
	var all []known
	for _, v := range prototest.Vectors(t) {
		if v.Size > 10_000 { // nothing new, and slow
			continue
		}
		_, public := publicKeyOf(t, v.PrivateKey)
		all = append(all, known{
			vector:   v,
			client:   registration(t, v.User, v.ClientID, public),
			identity: proto.Identity{Name: clientName(t, v.User), ID: v.ClientID, PrivateKey: v.PrivateKey},
			to:       destination(t, fmt.Sprintf("v3://h?window=64&dialect=%s&slice=%d", v.Dialect, v.Slice)),
		})
	}
	return all
}

// Whatever a client says, the session comes to an end, and a file counts as
// received only if it is in there, in full, and was confirmed.
func FuzzSession(f *testing.F) {
	all := knownOnes(f)
	for i, k := range all {
		f.Add(uint8(i), uint8(0), k.vector.C2S)
		f.Add(uint8(i), uint8(9), k.vector.C2S)
		requests := requestsIn(f, k.vector.C2S)
		last := len(requests) - 1
		f.Add(uint8(i), uint8(0), bytes.Join(append(requests[:last:last], k.vector.C2S), nil)) // left out, and all again
		if codeOf(requests[last]) == v3.CodeEqual {
			differs := bytes.Clone(requests[last])
			binary.LittleEndian.PutUint16(differs[17:], uint16(v3.CodeDiffers))
			first := slices.IndexFunc(requests, func(m []byte) bool { return codeOf(m) == v3.CodePacket })
			f.Add(uint8(i), uint8(0), bytes.Join(slices.Concat(requests[:last], [][]byte{differs}, requests[first:]), nil))
		}
	}
	f.Fuzz(func(t *testing.T, which, how uint8, in []byte) {
		runSession(t, all[int(which)%len(all)], how, in)
	})
}

// FuzzConversation is FuzzSession with whole messages left out, repeated, put
// elsewhere, cut, changed, or said between others: three bytes for each edit.
func FuzzConversation(f *testing.F) {
	all := knownOnes(f)
	for i := range all {
		for op := range uint8(edits) {
			f.Add(uint8(i), uint8(0), []byte{op, 2, 1})
			f.Add(uint8(i), op<<5, []byte{op, 3, 2, op + 1, 2, 3, op + 2, 1, 4})
		}
	}
	f.Fuzz(func(t *testing.T, which, how uint8, changes []byte) {
		k := all[int(which)%len(all)]
		messages := requestsIn(t, k.vector.C2S)
		for ; len(changes) >= 3 && len(messages) < 100; changes = changes[3:] {
			messages = edit(k, messages, changes[0], changes[1], changes[2])
		}
		runSession(t, k, how, bytes.Join(messages, nil))
	})
}

const edits = 9 // what edit can do

func edit(k known, messages [][]byte, op, a, b uint8) [][]byte {
	if len(messages) == 0 {
		return messages
	}
	i, j := int(a)%len(messages), int(b)%len(messages)
	file, _ := proto.ParseFileName(k.vector.File)
	said := confirmation(k.client.ID, file)
	switch op % edits {
	case 0:
		return slices.Delete(messages, i, i+1)
	case 1:
		return slices.Insert(messages, j, messages[i])
	case 2:
		messages[i], messages[j] = messages[j], messages[i]
	case 3:
		messages[i] = messages[i][:len(messages[i])*int(b)/256]
	case 4, 5, 6:
		said[17] += op%edits - 4 // 900, 901, 902
		return slices.Insert(messages, i, said)
	case 7:
		changed := bytes.Clone(messages[i])
		if len(changed) > 0 {
			changed[int(b)%len(changed)] ^= 1 << (a % 8)
		}
		messages[i] = changed
	case 8:
		return append(messages, messages[i:]...)
	}
	return messages
}

func runSession(t *testing.T, k known, how uint8, in []byte) {
	conn := &script{in: in, t: t, piece: int(how & 0x3f)}
	dir := newDirectory()
	if !k.vector.Registers() {
		dir = newDirectory(k.client)
	}
	accept := proto.AcceptV3With(v3.Key(k.vector.Key), k.vector.ClientID)
	s, err := accept(t.Context(), conn, proto.SessionConfig{Directory: dir})
	if err != nil {
		return
	}
	received := 0
	for {
		tr, err := s.Next(t.Context())
		if err != nil {
			if _, again := s.Next(t.Context()); !errors.Is(again, err) {
				t.Fatalf("after %v, Next returned %v", err, again)
			}
			return
		}
		if how >= 0xc0 { // of these, every file exists
			if err := tr.Refuse(t.Context(), proto.ErrExists); err != nil {
				return
			}
			continue
		}
		dst := &sink{}
		if how >= 0x80 {
			dst.limit, dst.err = 300, io.ErrShortWrite
		}
		sum, err := tr.Receive(t.Context(), dst)
		if err != nil {
			continue
		}
		received++
		if sum != sumOf(dst.Bytes()) || sum.Size != tr.Offer().Size {
			t.Fatalf("received %+v of %+v", sum, tr.Offer())
		}
		confirmed := bytes.Count(in[:conn.passed], confirmation(s.Client().ID, tr.Offer().Name))
		if conn.passed == len(in) && conn.atEnd.Load() > 0 {
			confirmed++ // for one dialect, that is one
		}
		if confirmed == 0 {
			t.Fatal("received what was not confirmed")
		}
		if err := tr.Accept(t.Context(), proto.Stored{}); err != nil {
			t.Fatal(err)
		}
	}
}

func confirmation(id proto.ClientID, name proto.FileName) []byte {
	h := v3.RequestHeader{Client: v3.ID(id), Code: v3.CodeEqual, PayloadSize: v3.NameSize}
	return v3.Confirm{Name: name.String()}.Append(h.Append(nil))
}

// Whatever a server says, the client comes to an end, and has a receipt only if
// the server stated the right checksum and acknowledged.
func FuzzClient(f *testing.F) {
	all := knownOnes(f)
	for i, k := range all {
		if k.vector.Registers() {
			continue // the key is new each time
		}
		s2c := k.vector.S2C
		f.Add(uint8(i), uint8(0), s2c)
		f.Add(uint8(i), uint8(9), s2c)
		answers := answersIn(f, s2c)
		key := v3.ResponseHeaderSize + len(answers[0].Payload)
		f.Add(uint8(i), uint8(0), append(s2c[:key:key], 3, 0x47, 6, 0, 0, 0, 0))  // 1607
		f.Add(uint8(i), uint8(0), append([]byte{3, 0x46, 6, 0, 0, 0, 0}, s2c...)) // 1606
		if k.vector.Dialect != "seed" {
			wrong := bytes.Clone(s2c[key : key+v3.ResponseHeaderSize+279])
			wrong[len(wrong)-1]++
			f.Add(uint8(i), uint8(0), slices.Concat(s2c[:key], wrong, wrong, s2c[key:]))
		}
	}
	type peer struct {
		client *proto.Client
		keys   *keyring
	}
	peers := map[uint8]peer{} // each knows its key already, which takes long to learn
	var conn *script
	dials := 0
	dial := func(context.Context, string, string) (net.Conn, error) { dials++; return conn, nil }
	f.Fuzz(func(t *testing.T, which, how uint8, in []byte) {
		which %= uint8(len(all))
		k := all[which]
		p, ok := peers[which]
		if !ok || how >= 0xf0 {
			p.keys = &keyring{id: k.identity, ok: how < 0xf0}
			p.client = proto.NewClient(proto.ClientConfig{To: k.to, Name: k.client.Name, Keyring: p.keys, IdleConns: -1, Dial: dial})
			peers[which] = p
		}
		c := p.client
		conn, dials = &script{in: in, t: t, piece: int(how & 0x3f)}, 0
		defer func() {
			if p.keys.saves > 0 || how >= 0xf0 {
				delete(peers, which) // it is another client now
			}
		}()
		want := sumOf(k.vector.Content())
		o := proto.Offer{Name: fileName(t, k.vector.File), Size: k.vector.Size, Sum: &want}
		matched := 0
		r, err := c.Send(t.Context(), o, bytesOf(k.vector.Content()), proto.Watcher{
			Matched: func(context.Context) error { matched++; return nil },
		})
		if dials != 1 || matched > 1 {
			t.Fatalf("%d connections, %d times matched", dials, matched)
		}
		if matched == 1 && !bytes.Contains(in, binary.LittleEndian.AppendUint32(nil, want.Cksum)) {
			t.Fatal("matched a checksum that was not stated")
		}
		switch {
		case err != nil && !reflect.DeepEqual(r, proto.Receipt{}):
			t.Fatalf("%+v and %v", r, err)
		case err == nil && (matched != 1 || r.Sum != want || r.Sends > v3.MaxSends):
			t.Fatalf("%+v, matched %d times", r, matched)
		case errors.Is(err, proto.ErrSource) || errors.Is(err, proto.ErrName) || errors.Is(err, proto.ErrTooLarge):
			t.Fatalf("%v, of a source that is right", err)
		}
	})
}
