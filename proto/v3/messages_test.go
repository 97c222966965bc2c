package v3_test

import (
	"bytes"
	"errors"
	"maps"
	"math"
	"strings"
	"testing"

	v3 "ferry/proto/v3"
)

// refuses checks that a message with these bytes changed does not parse, and
// leaves nothing behind.
func refuses[M interface {
	comparable
	encoder
}](t *testing.T, parse func([]byte) (M, error), m M, changes map[string]func([]byte) []byte,
) {
	t.Helper()
	var zero M
	good := m.Append(nil)
	if got, err := parse(good); got != m || err != nil {
		t.Errorf("%T: got %+v, %v, want %+v", m, got, err, m)
	}
	all := map[string]func([]byte) []byte{
		"a byte too few":  func(b []byte) []byte { return b[:len(b)-1] },
		"a byte too many": func(b []byte) []byte { return append(b, 0) },
		"nothing":         func([]byte) []byte { return nil },
	}
	maps.Copy(all, changes)
	for what, change := range all {
		if got, err := parse(change(bytes.Clone(good))); got != zero || err == nil {
			t.Errorf("%T: %s: got %+v, %v, want an error alone", m, what, got, err)
		}
	}
}

func TestParsersRefuse(t *testing.T) {
	set := func(at int, to byte) func([]byte) []byte {
		return func(b []byte) []byte { b[at] = to; return b }
	}
	// A name that two readers would read differently, at the end of its field.
	name := func(from int) map[string]func([]byte) []byte {
		return map[string]func([]byte) []byte{"bytes behind the name's NUL": set(from+v3.NameSize-1, 'x')}
	}
	id := v3.ID{1, 15: 2}
	refuses(t, v3.ParseRequestHeader, v3.RequestHeader{Client: id, Code: v3.CodePacket, PayloadSize: 8169},
		map[string]func([]byte) []byte{"version 2": set(16, 2), "version 4": set(16, 4)})
	refuses(t, v3.ParseResponseHeader, v3.ResponseHeader{Code: v3.CodeThanks, PayloadSize: 16},
		map[string]func([]byte) []byte{"version 0": set(0, 0), "version 255": set(0, 255)})
	refuses(t, v3.ParseRegister, v3.Register{Name: "alice"}, name(0))
	refuses(t, v3.ParsePublicKey, v3.PublicKey{Name: "alice", Key: [v3.PublicKeySize]byte{9}}, name(0))
	refuses(t, v3.ParseReconnect, v3.Reconnect{Name: "alice"}, name(0))
	refuses(t, v3.ParseConfirm, v3.Confirm{Name: "f.bin"}, name(0))
	refuses(t, v3.ParsePacketHeader, v3.PacketHeader{ContentSize: 16, OriginalSize: 15, Numbers: [2]uint16{1, 1}, Name: "f.bin"}, name(12))
	refuses(t, v3.ParseReceived, v3.Received{Client: id, ContentSize: 16, Name: "f.bin", Cksum: 7}, name(20))
	refuses(t, v3.ParseRegistered, v3.Registered{Client: id}, nil)
	refuses(t, v3.ParseWrappedKey, v3.WrappedKey{Client: id, Key: [v3.WrappedKeySize]byte{9}}, nil)
}

func TestWrongVersionIsToldApart(t *testing.T) {
	req := v3.RequestHeader{Code: v3.CodeRegister}.Append(nil)
	req[16] = 4
	if _, err := v3.ParseRequestHeader(req); !errors.Is(err, v3.ErrVersion) {
		t.Errorf("request: got %v, want ErrVersion", err)
	}
	resp := v3.ResponseHeader{Code: v3.CodeThanks}.Append(nil)
	resp[0] = 4
	if _, err := v3.ParseResponseHeader(resp); !errors.Is(err, v3.ErrVersion) {
		t.Errorf("response: got %v, want ErrVersion", err)
	}
	if _, err := v3.ParseRequestHeader(req[:22]); err == nil || errors.Is(err, v3.ErrVersion) {
		t.Errorf("half a header: got %v, want another error", err)
	}
}

// Names fill their field to its end, without a NUL then.
func TestLongestName(t *testing.T) {
	for _, n := range []int{0, 1, v3.NameSize - 1, v3.NameSize} {
		want := v3.Register{Name: strings.Repeat("n", n)}
		if got, err := v3.ParseRegister(want.Append(nil)); got != want || err != nil {
			t.Errorf("name of %d bytes: got %d, %v", n, len(got.Name), err)
		}
	}
}

func TestPayloadLimits(t *testing.T) {
	want := map[v3.Code]int{
		825: 255, 826: 415, 827: 255, 828: 267 + 65536, 900: 255, 901: 255, 902: 255,
		1600: 16, 1601: 1024, 1602: 144, 1603: 279, 1604: 1024, 1605: 144, 1606: 1024, 1607: 1024,
	}
	for code := range v3.Code(math.MaxUint16) {
		limit, ok := v3.PayloadLimit(code)
		if wanted, known := want[code]; limit != wanted || ok != known {
			t.Errorf("%v: got %d, %v, want %d, %v", code, limit, ok, wanted, known)
		}
		if known := !strings.Contains(code.String(), "unknown"); known != ok {
			t.Errorf("%v: its name is known: %v, want %v", code, known, ok)
		}
	}
	if got := v3.CodePacket.String(); got != "828 (file packet)" {
		t.Errorf("got %q, want %q", got, "828 (file packet)")
	}
}
