package main

import (
	"bytes"
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/mattn/go-sqlite3" // the old database is written with it
)

// stoppingAt ends a context as soon as something that matches is written.
type stoppingAt struct {
	bytes.Buffer
	words string
	stop  context.CancelCauseFunc
}

func (s *stoppingAt) Write(p []byte) (int, error) {
	if strings.Contains(string(p), s.words) {
		s.stop(errStopped)
	}
	return s.Buffer.Write(p)
}

// TestImportStopped: whoever deletes the old folder after a success must not be
// told of one by an import that a signal ended. Run again it goes on.
func TestImportStopped(t *testing.T) {
	old, data := t.TempDir(), filepath.Join(t.TempDir(), "server")
	db, err := sql.Open("sqlite3", filepath.Join(old, "server.db"))
	if err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{
		"create table clients (ID, Name, PublicKey)", "create table files (ID, FileName, PathName, Verified)",
		"insert into clients values ('short', 'alice', null)",
		"insert into clients values ('short', 'bob', null)",
	} {
		if _, err := db.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	args := []string{"server", "import", "--from", old, "--data", data}
	for _, at := range []string{"", `"alice" is left out`, `"bob" is left out`} {
		ctx, stop := context.WithCancelCause(t.Context())
		out, words := &stoppingAt{words: at, stop: stop}, new(bytes.Buffer)
		if at == "" {
			stop(errStopped)
		}
		status := run(ctx, args, nil, os.Stdin, out, words)
		stop(nil)
		if status != exitFailure || !strings.Contains(words.String(), "stopped by a signal before everything was taken over") || strings.Contains(out.String(), "taken over,") {
			t.Errorf("stopped at %q: status %d, %q, %q; want a failure that says so", at, status, out.String(), words.String())
		}
	}
	out, words := new(bytes.Buffer), new(bytes.Buffer)
	if status := run(t.Context(), args, nil, os.Stdin, out, words); status != exitFailure || !strings.Contains(out.String(), "0 clients and 0 files taken over") {
		t.Errorf("run again: status %d, %q, %q", status, out.String(), words.String())
	}
}
