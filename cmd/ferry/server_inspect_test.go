package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ferry/server"
)

// TestVerifyStopped: what was not verified to its end is no success.
func TestVerifyStopped(t *testing.T) {
	data := filepath.Join(t.TempDir(), "server")
	s, err := server.Open(t.Context(), server.Config{Data: data})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancelCause(t.Context())
	stop(errStopped)
	out, words := new(bytes.Buffer), new(bytes.Buffer)
	status := run(ctx, []string{"server", "verify", "--data", data}, nil, os.Stdin, out, words)
	if status != exitFailure || !strings.Contains(words.String(), errStopped.Error()) || strings.Contains(out.String(), "what is on record") {
		t.Errorf("status %d, %q, %q; want a failure that says why", status, out.String(), words.String())
	}
}
