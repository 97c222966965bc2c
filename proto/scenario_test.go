package proto_test

import (
	"bytes"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"ferry/proto"
	"ferry/proto/prototest"
	"ferry/proto/v3"
)

// What we answer to each request of a recorded client with which something was
// amiss. Its own server did not always know how to go on; then ours does not
// hear the rest of the recording.
var scenarios = []struct {
	programs []string
	name     string
	answers  [][]v3.Code // to each request
	more     []v3.Code   // what the test says behind them; each is answered 1604
	stored   bool
}{
	{[]string{"seed", "mainstream-8192"}, "name-taken", [][]v3.Code{{1601}}, nil, false},
	{[]string{"mainstream-4096", "mainstream-734"}, "name-taken", [][]v3.Code{{1601}, {1601}, {1601}, {1601}}, nil, false},
	{[]string{"per-slice-1040"}, "name-taken", [][]v3.Code{{1601}, {1601}, {1601}}, nil, false},

	{[]string{"seed"}, "reconnect-unknown", [][]v3.Code{{1606}, {1600}, {1602}}, nil, false},
	{[]string{"mainstream-4096", "per-slice-1040"}, "reconnect-unknown",
		[][]v3.Code{{1606}, {1600}, {1602}, {1603}, {1604}}, nil, true},
	{[]string{"mainstream-734"}, "reconnect-unknown", [][]v3.Code{{1606}, {1600}, {1602}, {1603}}, nil, true},
	{[]string{"mainstream-8192"}, "reconnect-unknown",
		[][]v3.Code{{1606}, {1606}, {1606}, {1606}, {1600}, {1602}, {1603}, {1604}}, nil, true},

	{[]string{"seed"}, "same-file-again", [][]v3.Code{{1605}, {1607}, {1607}, {1607}, {1607}}, nil, false},
	{[]string{"mainstream-4096", "mainstream-734", "mainstream-8192", "per-slice-1040"}, "same-file-again",
		[][]v3.Code{{1605}, {1607}}, nil, false},

	{[]string{"seed"}, "badcrc1-first", [][]v3.Code{{1600}, {1602}, {1604, 1603}, {}, {1604, 1603}}, []v3.Code{900}, true},
	{[]string{"mainstream-4096", "per-slice-1040"}, "badcrc1-first",
		[][]v3.Code{{1600}, {1602}, {1603}, {}, {1603}, {1604}}, nil, true},
	{[]string{"mainstream-734"}, "badcrc1-first", [][]v3.Code{{1600}, {1602}, {1603}, {1603}}, nil, true},
	{[]string{"mainstream-8192"}, "badcrc1-first", [][]v3.Code{{1600}, {1602}, {1603}, {1604}, {1603}, {1604}}, nil, true},

	{[]string{"seed"}, "badcrc-all", [][]v3.Code{{1600}, {1602}, {1604, 1603}, {}, {1604, 1603}}, []v3.Code{902}, false},
	{[]string{"mainstream-4096", "per-slice-1040"}, "badcrc-all",
		[][]v3.Code{{1600}, {1602}, {1603}, {}, {1603}, {}, {1603}, {}, {1603}, {1604}}, nil, false},
	{[]string{"mainstream-734"}, "badcrc-all", [][]v3.Code{{1600}, {1602}, {1603}, {1603}, {1603}, {1603}, {1603}}, nil, false},
	{[]string{"mainstream-8192"}, "badcrc-all",
		[][]v3.Code{{1600}, {1602}, {1603}, {1604}, {1603}, {1604}, {1603}, {1604}, {1603}, {1604}}, nil, false},
}

func TestRecordedScenarios(t *testing.T) {
	recordings := map[string]prototest.Recording{}
	for _, r := range prototest.Scenarios(t) {
		recordings[r.String()] = r
	}
	for _, s := range scenarios {
		for _, program := range s.programs {
			name := program + "/" + s.name
			r, ok := recordings[name]
			if !ok {
				t.Errorf("there is no recording %s", name)
			}
			delete(recordings, name)
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					h := newHost()
					c := prepare(t, h, r, s.name)
					for i, want := range s.answers {
						c.say(requestsIn(t, r.C2S)[i])
						if d := cmp.Diff(want, answersNow(c, len(want))); d != "" {
							t.Fatalf("answers to request %d (-want +got):\n%s", i+1, d)
						}
					}
					for _, code := range s.more {
						c.say(c.confirm(code, scenarioFile(t, r)))
						c.expect(v3.CodeThanks)
					}
					c.conn.Close()
					h.conns.Wait()
					if stored := bytes.Equal(h.file(scenarioFile(t, r)), content(500)); stored != s.stored {
						t.Errorf("stored: %v, want %v; the server: %v", stored, s.stored, h.errors())
					}
				})
			})
		}
	}
	if len(recordings) > 0 {
		t.Errorf("not replayed: %v", recordings)
	}
}

// answersNow reads the codes of n answers.
func answersNow(c *raw, n int) []v3.Code {
	codes := []v3.Code{}
	for range n {
		codes = append(codes, c.read().Code)
	}
	return codes
}

// prepare makes the host what the recorded one was, and seals the recording's
// packets, which have 500 bytes of plaintext, with its key.
func prepare(t *testing.T, h *host, r prototest.Recording, name string) *raw {
	h.key = v3.NewKey()
	h.id = proto.ClientID{1} // of the recording, if it is in there
	var user string
	for _, m := range requestsIn(t, r.C2S) {
		switch codeOf(m) {
		case v3.CodeRegister, v3.CodeReconnect:
			user = nameAt(m, v3.RequestHeaderSize)
		case v3.CodePublicKey:
			copy(h.id[:], m)
		case v3.CodePacket:
			seal(t, h.key, m)
		}
	}
	priv, public := publicKeyOf(t, prototest.Vectors(t)[0].PrivateKey)
	switch name {
	case "name-taken":
		h.dir = newDirectory(registration(t, user, proto.ClientID{2}, public))
	case "same-file-again":
		var id proto.ClientID
		copy(id[:], r.C2S)
		h.dir = newDirectory(registration(t, user, id, public))
		h.files[scenarioFile(t, r)] = []byte("another")
	}
	c := h.raw(t)
	copy(c.id[:], r.C2S[:v3.IDSize])
	if name != "same-file-again" {
		c.id = v3.ID(h.id)
	}
	c.priv = priv
	return c
}

// seal puts the right ciphertext into a packet with a whole file of 500 bytes.
func seal(t *testing.T, key v3.Key, m []byte) {
	t.Helper()
	p := v3.NewPacker(must(v3.Seed().Plan(500)), key, v3.ID{}, "")
	sealed, err := p.Append(nil, bytes.NewReader(content(500)))
	if err != nil {
		t.Fatal(err)
	}
	if len(m) != len(sealed) {
		t.Fatalf("packet of %d bytes, want %d", len(m), len(sealed))
	}
	copy(m[len(m)-512:], sealed[len(sealed)-512:])
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func nameAt(m []byte, at int) string {
	return string(bytes.TrimRight(m[at:at+v3.NameSize], "\x00"))
}

// scenarioFile is the name of the recording's file, if it has one.
func scenarioFile(t *testing.T, r prototest.Recording) string {
	requests := requestsIn(t, r.C2S)
	i := slices.IndexFunc(requests, func(m []byte) bool { return codeOf(m) == v3.CodePacket })
	if i < 0 {
		return "none"
	}
	return nameAt(requests[i], v3.RequestHeaderSize+12)
}
