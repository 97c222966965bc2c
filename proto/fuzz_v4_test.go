package proto_test

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"

	"ferry/proto"
	"ferry/proto/v4"
)

// Scripts for FuzzSessionV4 are records: what kind, a code, a number, a length
// and so many bytes.
const (
	recordSealed = iota // a message with that payload
	recordClear         // bytes as they are
	recordFile          // a whole small file with that content
	recordOffer         // an offer of that content, and number
	recordPacket        // that payload where the file goes on
	recordEnd           // of what was offered and sent
	recordKinds
)

func record(kind byte, code v4.Code, number uint64, payload []byte) []byte {
	b := []byte{kind}
	b = binary.LittleEndian.AppendUint16(b, uint16(code))
	b = append(b, byte(number))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(payload)))
	return append(b, payload...)
}

// scripted plays a script from the beginning of a handshake, or once the client is
// known, and returns what it has offered and sent in full.
func (r *rawV4) scripted(script []byte) {
	var sent []byte
	for len(script) >= 6 {
		kind, code := script[0]%recordKinds, v4.Code(binary.LittleEndian.Uint16(script[1:]))
		number, n := uint64(script[3]), int(binary.LittleEndian.Uint16(script[4:]))
		script = script[6:]
		n = min(n, len(script))
		payload := script[:n]
		script = script[n:]
		var b []byte
		switch kind {
		case recordSealed:
			b = r.message(code, number, payload)
		case recordClear:
			b = payload
		case recordFile:
			if len(payload) > v4.MaxSmall {
				continue
			}
			b = r.small(number, "small", payload)
		case recordOffer:
			sent = nil
			b = r.message(v4.CodeOffer, number, offerV4("large", payload, byte(number)).Append(nil))
		case recordPacket:
			b = r.message(v4.CodePacket, uint64(len(sent)), payload)
			sent = append(sent, payload...)
		case recordEnd:
			b = r.end(number, sent)
		}
		if _, err := r.tls.Write(b); err != nil {
			return
		}
	}
}

// FuzzSessionV4 is a client that says anything: before it is known as it is, or
// afterwards sealed with the right keys. What is stored is what was offered, the
// session ends, and what it is ended with is about the client and not ours.
func FuzzSessionV4(f *testing.F) {
	c := []byte("some content")
	f.Add(true, append(record(recordOffer, 0, 1, c), append(record(recordPacket, 0, 1, c), record(recordEnd, 0, 1, nil)...)...))
	f.Add(true, append(record(recordFile, 0, 1, c), record(recordFile, 0, 2, nil)...))
	f.Add(true, append(record(recordOffer, 0, 1, c), record(recordSealed, v4.CodeGiveUp, 1, nil)...))
	f.Add(true, append(record(recordOffer, 0, 1, c), append(record(recordPacket, 0, 1, c[:5]), record(recordClear, 0, 0, c)...)...))
	f.Add(true, record(recordSealed, v4.CodeRotate, 0, v4.Rotate{Key: c, Signature: c}.Append(nil)))
	f.Add(false, record(recordClear, 0, 0, v4.Header{Code: v4.CodeRegister, Length: 4}.Append(nil)))
	f.Add(false, record(recordSealed, v4.CodeRegister, 0, v4.Register{Name: "bob"}.Append(nil)))
	f.Add(false, append(record(recordSealed, v4.CodeRegister, 0, v4.Register{Name: "bob"}.Append(nil)),
		record(recordSealed, v4.CodePublicKey, 0, v4.PublicKey{Key: spki(keyV4())}.Append(nil))...))
	f.Add(false, append(record(recordSealed, v4.CodeReconnect, 0, v4.Reconnect{ID: proto.ClientID{0xa1}, Name: "alice"}.Append(nil)),
		record(recordSealed, v4.CodeProve, 0, v4.Prove{Packet: 8192}.Append(nil))...))
	f.Fuzz(func(t *testing.T, known bool, script []byte) {
		h := newHostV4(alice(t))
		h.id = quickV4
		h.take = func(ctx context.Context, tr proto.Transfer) error {
			o := tr.Offer()
			if as, ok := h.stored(o.Name.String()); ok {
				return tr.Exists(ctx, as)
			}
			dst := h.stage(o.ID)
			sum, err := tr.Receive(ctx, dst)
			if err != nil {
				return err
			}
			if got := sumOf(dst.b); got != sum || sum.Size != o.Size || o.Sum != nil && len(dst.b) <= v4.MaxSmall && dst.kept == 0 && o.Sum.Size != sum.Size {
				t.Errorf("received are %+v, in the sink are %+v, offered %+v", sum, got, o)
			}
			return tr.Accept(ctx, h.publish(o, dst, sum))
		}
		near, far := net.Pipe()
		h.conns.Go(func() { h.serve(far) })
		r := &rawV4{t: t, host: h, conn: near, tls: tls.Client(near, clientConfigV4()), key: keyV4()}
		if err := r.tls.Handshake(); err != nil {
			t.Fatal(err)
		}
		if known {
			r.enter()
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_, _ = io.Copy(io.Discard, r.tls)
			_ = near.Close() // as a client does that has heard the end
		}()
		r.scripted(script)
		_ = r.tls.CloseWrite()
		errs := h.errors()
		<-ended
		for _, err := range errs {
			if !about(err) {
				t.Errorf("the session ended with %v", err)
			}
		}
		if all := h.dir.(*directory).all(); len(all) != 1 {
			t.Errorf("%d clients are on record, want the one that was", len(all))
		}
	})
}

// about reports whether an error is one that a client brings about.
func about(err error) bool {
	for _, kind := range []error{proto.ErrProtocol, proto.ErrChecksum, proto.ErrUnauthorized, proto.ErrName, io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}
