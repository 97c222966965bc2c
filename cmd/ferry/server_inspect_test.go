package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ferry/proto"
	"ferry/proto/v3"
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

// TestListsShowNamesAsTheyAre: clients choose the names, and no list reads otherwise
// for that.
func TestListsShowNamesAsTheyAre(t *testing.T) {
	data := filepath.Join(t.TempDir(), "server")
	s, err := server.Open(t.Context(), server.Config{Data: data})
	if err != nil {
		t.Fatal(err)
	}
	key, err := v3.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	public, err := v3.MarshalPublicKeyInfo(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	client, err := proto.ParseClientName("client\u202e")
	if err != nil {
		t.Fatal(err)
	}
	file, err := proto.ParseFileName("file\u202e")
	if err != nil {
		t.Fatal(err)
	}
	r := proto.Registration{ID: proto.ClientID{1}, Name: client, PublicKey: public[:]}
	if err := s.ImportClient(t.Context(), r, time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ImportFile(t.Context(), r, file, time.Now(), strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(data, "files", client.String(), file.String())); err != nil { // for verify to tell
		t.Fatal(err)
	}
	for command, want := range map[string][]string{
		"clients": {`"client\u202e"`}, "files": {`"client\u202e"`, `"file\u202e"`}, "verify": {`"client\u202e"`, `"file\u202e"`},
	} {
		out, words := new(bytes.Buffer), new(bytes.Buffer)
		run(t.Context(), []string{"server", command, "--data", data}, nil, os.Stdin, out, words)
		for _, name := range want {
			if !strings.Contains(out.String(), name) {
				t.Errorf("%s prints %q, %q; want %s", command, out, words, name)
			}
		}
	}
}
