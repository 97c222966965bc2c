package proto_test

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"ferry/proto"
	"ferry/proto/v3"
)

// What a session refuses without ending, and without a Transfer, is told to its
// caller, who has to have a line of it in a log.
func TestRefusalsAreTold(t *testing.T) {
	type told struct {
		Client, File string
		Is           bool
	}
	for _, test := range []struct {
		name  string
		knows bool // the client is known already
		say   func(*raw) []byte
		is    error
		want  told
	}{
		{"client name", false, func(r *raw) []byte { return r.registerAs("../escaped") }, proto.ErrName, told{"../escaped", "", true}},
		{"client name taken", false, func(r *raw) []byte { return r.registerAs("alice") }, proto.ErrNameTaken, told{"alice", "", true}},
		{"client unknown", false, func(r *raw) []byte { return r.reconnectAs("bob") }, proto.ErrUnknownClient, told{"bob", "", true}},
		{"confirmation of nothing", true, func(r *raw) []byte { return r.confirm(v3.CodeDiffers, "file") }, proto.ErrProtocol, told{"alice", "file", true}},
		{"handshake again", true, func(r *raw) []byte { return r.registerAs("bob") }, proto.ErrProtocol, told{"alice", "", true}},
		{"file name", true, func(r *raw) []byte { return r.packets(v3.Mainstream(4096), "../escaped", nil)[0] }, proto.ErrName, told{"alice", "../escaped", true}},
		{"too large", true, func(r *raw) []byte { return r.packets(v3.Mainstream(4096), "file", content(1001))[0] }, proto.ErrTooLarge, told{"alice", "file", true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHost()
				h.known(t, "alice")
				var got []told
				h.cfg.MaxFileSize = 1000
				h.cfg.Refused = func(client, file string, why error) {
					got = append(got, told{client, file, errors.Is(why, test.is)})
				}
				r := h.raw(t)
				r.id = v3.ID{0xa1}
				r.priv, _ = publicKeyOf(t, aliceKey())
				if test.knows {
					r.say(r.reconnectAs("alice"))
					r.unwrap(r.read())
				}
				r.say(test.say(r))
				r.read()
				synctest.Wait()
				if d := cmp.Diff([]told{test.want}, got); d != "" {
					t.Errorf("told (-want +got):\n%s", d)
				}
			})
		})
	}
}
