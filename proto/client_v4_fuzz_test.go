package proto_test

import (
	"sync/atomic"
	"testing"
	"time"

	"ferry/proto"
	"ferry/proto/v4"
)

// Of these, each byte of a fuzzer's script chooses one.
var answersOfV4 = []v4.Code{
	v4.CodeStored, v4.CodeGo, v4.CodeThanks, v4.CodeDiffers, v4.CodeRefused, v4.CodeWelcome, v4.CodeRegistered,
	v4.CodeKey, v4.CodeReconnKey, v4.CodeUnknown, v4.CodeNameTaken, v4.CodePacket, v4.Code(0), v4.Code(1609), v4.Code(65535),
}

// Whatever a server says, a send comes to an end, and succeeds only if the server
// has signed that it holds the file.
func FuzzClientV4(f *testing.F) {
	offset := func(n int64) []byte { return v4.Offset{Bytes: n}.Append(nil) }
	script := func(parts ...[]byte) []byte {
		var b []byte
		for _, p := range parts {
			b = append(b, p...)
		}
		return b
	}
	say := func(code, number byte, payload []byte) []byte {
		return append([]byte{code, number, byte(len(payload))}, payload...)
	}
	receipt := []byte{200, 1, 0}
	f.Add(false, receipt)
	f.Add(true, receipt)
	f.Add(true, script(say(1, 1, offset(0)), []byte{201, 0, 0}, receipt))
	f.Add(true, script(say(1, 1, offset(50_000)), say(2, 1, offset(60_000)), []byte{201, 0, 0}, receipt))
	f.Add(true, script(say(1, 1, offset(200_000)), []byte{201, 0, 0}, say(3, 1, v4.Differs{Size: 3}.Append(nil)), []byte{201, 0, 0}, receipt))
	f.Add(false, say(3, 1, v4.Differs{Size: 3}.Append(nil)))
	f.Add(true, say(4, 0, v4.Refused{Reason: v4.ReasonStopping, Words: "x"}.Append(nil)))
	f.Add(true, say(4, 1, v4.Refused{Reason: v4.ReasonExists, Exists: v4.Differs{Size: 200_000}}.Append(nil)))
	f.Add(false, say(0, 0, v4.Stored{Numbers: []uint64{1, 2}, Envelope: []byte("{}")}.Append(nil)))
	f.Fuzz(func(t *testing.T, large bool, script []byte) {
		size := int64(300)
		if large {
			size = 200_000
		}
		b := content(size)
		o, src := offered(t, "file", b, len(script)%2 == 0)
		var signed atomic.Bool
		address, _ := scriptedV4(t, func(p *peerV4) {
			if !p.enter() {
				return
			}
			number, _, ok := p.offered()
			if !ok {
				return
			}
			p.perform(script, number, o, b, &signed)
		})
		c := clientV4(t, address, func(cfg *proto.ClientConfig) { cfg.IdleTimeout = time.Second })
		start := time.Now()
		r, err := c.Send(t.Context(), o, src, proto.Watcher{})
		if d := time.Since(start); d > 20*time.Second {
			t.Errorf("it took %v: %v", d, err)
		}
		if err == nil {
			if s, err := proto.VerifyReceipt(r.Envelope, serverV4().Pin()); err != nil || r.Sum != sumOf(b) || s.ClientID != r.ClientID {
				t.Errorf("success with the receipt %+v, %v", r, err)
			}
			if !signed.Load() {
				t.Error("success without a receipt")
			}
		}
	})
}

// perform says what is in a script, and notes that it says that the file is
// stored.
func (p *peerV4) perform(script []byte, number uint64, o proto.Offer, b []byte, signed *atomic.Bool) {
	for len(script) >= 3 {
		kind, of, length := script[0], number, min(int(script[2]), len(script)-3)
		if script[1] != 1 {
			of = number + uint64(script[1]) - 1
		}
		payload := script[3 : 3+length]
		script = script[3+length:]
		switch kind {
		case 200:
			signed.Store(true)
			p.stored([]proto.Stored{{Name: o.Name, Sum: sumOf(b), Transfer: o.ID, At: time.Now()}}, of)
		case 201:
			_ = p.conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			p.skipTo()
		default:
			p.say(answersOfV4[int(kind)%len(answersOfV4)], of, payload)
		}
	}
}
