package proto_test

import (
	"crypto/tls"
	"errors"
	"testing"

	"ferry/proto"
)

// TestV4HybridKeyExchange: who records a connection today cannot open it with a
// quantum computer later. Each side asks for it as it is by itself, with a peer of
// which nothing was set.
func TestV4HybridKeyExchange(t *testing.T) {
	t.Run("server", func(t *testing.T) {
		r := newHostV4(alice(t)).raw(t).enter()
		wantHybrid(t, r.tls.ConnectionState())
		r.bye()
	})
	t.Run("client", func(t *testing.T) {
		states := make(chan tls.ConnectionState, 1)
		address, connections := scriptedV4(t, func(p *peerV4) {
			select {
			case states <- p.tls.ConnectionState():
			default: // it is tried again
			}
		})
		if err := sendV4(t, clientV4(t, address), "a", 10); err == nil || errors.Is(err, proto.ErrPin) {
			t.Errorf("a server that hangs up after the handshake: %v", err)
		}
		if connections.Load() == 0 {
			t.Fatal("no connection came")
		}
		wantHybrid(t, <-states)
	})
}

func wantHybrid(t *testing.T, state tls.ConnectionState) {
	t.Helper()
	if state.CurveID != tls.X25519MLKEM768 || state.Version != tls.VersionTLS13 || state.DidResume {
		t.Errorf("keys were exchanged with %v in %s, resumed: %v; want %v in TLS 1.3",
			state.CurveID, tls.VersionName(state.Version), state.DidResume, tls.X25519MLKEM768)
	}
}
