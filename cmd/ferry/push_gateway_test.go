package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"ferry/gateway"
	"ferry/proto"
	"ferry/server"
)

// liveGateway is a gateway in this process that delivers to a server in this
// process.
type liveGateway struct {
	url  string
	data string // of the server
	pin  proto.Pin

	open func() // starts it again on the same address
	stop func()
}

// stored is the path of a file at the server.
func (g *liveGateway) stored(name string) string {
	return filepath.Join(g.data, "files", "local", filepath.FromSlash(name))
}

func startGateway(t *testing.T) *liveGateway {
	t.Helper()
	to, data := startServerV4(t)
	destination, err := proto.ParseDestination(to)
	if err != nil {
		t.Fatal(err)
	}
	g := startGatewayTo(t, destination, data)
	g.data, g.pin = data, destination.Pin()
	return g
}

// startGatewayTo delivers to a destination, at which it can join if data is that
// of a server.
func startGatewayTo(t *testing.T, to proto.Destination, data string) *liveGateway {
	t.Helper()
	name, err := proto.ParseClientName("local")
	if err != nil {
		t.Fatal(err)
	}
	cfg := gateway.Config{Data: t.TempDir(), Destinations: []gateway.Destination{{To: to}}, Name: name, Grace: time.Millisecond}
	if data != "" {
		if cfg.Destinations[0].Join, err = server.CreateToken(t.Context(), data, server.TokenOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	g := &liveGateway{}
	address := "127.0.0.1:0"
	g.open = func() {
		gw, err := gateway.Open(t.Context(), cfg)
		if err != nil {
			t.Error(err)
			return
		}
		ln, err := listen(t.Context(), "http", address)
		if err != nil {
			t.Error(errors.Join(err, gw.Close()))
			return
		}
		address = ln.Addr().String()
		g.url = "http://" + address
		ctx, cancel := context.WithCancel(context.Background())
		served := make(chan error)
		go func() { served <- gw.Serve(ctx, ln) }()
		g.stop = sync.OnceFunc(func() {
			cancel()
			if err := errors.Join(<-served, gw.Close()); err != nil {
				t.Error(err)
			}
		})
	}
	g.open()
	t.Cleanup(func() { g.stop() })
	return g
}

// push runs ferry push as main does, in an environment of its own.
func push(t *testing.T, gateway string, args ...string) sent {
	t.Helper()
	return pushContext(t.Context(), []string{"FERRY_GATEWAY=" + gateway}, "", args...)
}

func pushContext(ctx context.Context, environ []string, stdin string, args ...string) sent {
	var stdout, stderr bytes.Buffer
	status := run(ctx, append([]string{"push"}, args...), environ, strings.NewReader(stdin), &stdout, &stderr)
	return sent{status, stdout.String(), stderr.String()}
}

// outcomes are the last lines of --json, by the file's name at the destination.
func (s sent) outcomes(t *testing.T) map[string]pushOutcome {
	t.Helper()
	last := map[string]pushOutcome{}
	for line := range strings.Lines(s.stdout) {
		var o pushOutcome
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if o.Done {
			last[o.Name] = o
		}
	}
	return last
}

func wantContent(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("%s: %.60q, %v; want %.60q", path, got, err, want)
	}
}

// fakeGateway answers as it is told, and says that it has no uploads.
func fakeGateway(t *testing.T, answer http.HandlerFunc) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && r.URL.Path == "/uploads" {
			_, _ = w.Write([]byte(`{"uploads":[]}`))
			return
		}
		answer(w, r)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

// says is a problem.
func says(status int, problem string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(problem))
	}
}
