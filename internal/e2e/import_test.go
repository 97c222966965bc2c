package e2e_test

import (
	"database/sql"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/mattn/go-sqlite3" // the old database is written with it

	"ferry/internal/oldclient"
	"ferry/proto/v3"
)

// TestImport takes over an old server's folder. A client that had registered
// there comes back with the id and key it has, and finds its file: the name is
// taken, and what is stored is what the old server had.
func TestImport(t *testing.T) {
	old, home, src := t.TempDir(), t.TempDir(), t.TempDir()
	address := startPeerServer(t, old, "--dialect", "seed")
	first := filepath.Join(src, "first.bin")
	writeFile(t, first, 1, 100_000)
	if got, err := runPeerClient(t, "--to", address, "--dir", home, "--name", "alice", "--file", first); err != nil {
		t.Fatalf("%+v, %v", got, err)
	}
	writeOldDatabase(t, old, home)

	data := filepath.Join(t.TempDir(), "server")
	out, err := exec.Command(ferryBinary, "server", "import", "--from", old, "--data", data).CombinedOutput()
	if status(err) != 1 || !strings.Contains(string(out), "1 clients and 1 files taken over, 0 files were here already, 1 were never verified.") ||
		!strings.Contains(string(out), `file "escape" is left out: its path on record is not in the folder`) {
		t.Fatalf("import: %v\n%s", err, out)
	}
	wantSame(t, first, filepath.Join(data, "files", "alice", "first.bin"))

	again, err := exec.Command(ferryBinary, "server", "import", "--from", old, "--data", data).CombinedOutput()
	if status(err) != 1 || !strings.Contains(string(again), "0 files taken over, 1 files were here already") {
		t.Fatalf("import once more: %v\n%s", err, again)
	}

	server := start(t, "server", "--data", data, "--listen", "none", "--v3-listen", "127.0.0.1:0")
	second := filepath.Join(src, "second.bin")
	writeFile(t, second, 2, 100_000)
	if got, err := runPeerClient(t, "--to", server.native, "--dir", home, "--file", second); err != nil || got.Answers[0] != 1605 {
		t.Fatalf("%+v, %v; want to be known", got, err)
	}
	wantSame(t, second, filepath.Join(data, "files", "alice", "second.bin"))
	got, err := runPeerClient(t, "--to", server.native, "--dir", home, "--file", first)
	if err == nil || got.Answers[len(got.Answers)-1] != 1607 {
		t.Errorf("the same file again: %+v, %v; want 1607", got, err)
	}
	if out, err := exec.Command(ferryBinary, "server", "verify", "--data", data).CombinedOutput(); err != nil {
		t.Errorf("verify: %v\n%s", err, out)
	}
}

func status(err error) int {
	if e, ok := err.(*exec.ExitError); ok { //nolint:errorlint // exec returns it as it is
		return e.ExitCode()
	}
	return 0
}

// writeOldDatabase gives the peer's folder the database that an old server
// would have there, with the peer's client in it, and two files that must not
// be taken over.
func writeOldDatabase(t *testing.T, old, home string) {
	t.Helper()
	me, err := oldclient.ParseMe(readFile(t, filepath.Join(home, "me.info")))
	if err != nil {
		t.Fatal(err)
	}
	key, err := v3.ParsePrivateKey(me.Key)
	if err != nil {
		t.Fatal(err)
	}
	public, err := v3.MarshalPublicKeyInfo(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	var book map[string]json.RawMessage
	if err := json.Unmarshal(readFile(t, filepath.Join(old, "clients.json")), &book); err != nil || len(book) != 1 {
		t.Fatalf("the peer's clients: %v, %v", book, err)
	}
	db, err := sql.Open("sqlite3", filepath.Join(old, "server.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, s := range []struct {
		query string
		args  []any
	}{
		{`create table clients (ID blob(16) primary key, Name varchar(255), PublicKey blob(160), LastSeen datetime, AES blob(32))`, nil},
		{`create table files (ID blob(16), "File Name" varchar(255), "Path Name" varchar(255), Verified boolean, unique (ID, "File Name"))`, nil},
		{`insert into clients values (?, 'alice', ?, '2024-05-06 07:08:09', zeroblob(32))`, []any{me.ID[:], public[:]}},
		{`insert into files values (?, 'first.bin', 'files\alice\first.bin', 1)`, []any{me.ID[:]}},
		{`insert into files values (?, 'half', 'files/alice/half', 0)`, []any{me.ID[:]}},
		{`insert into files values (?, 'escape', '../../../../etc/hostname', 1)`, []any{me.ID[:]}},
	} {
		if _, err := db.Exec(s.query, s.args...); err != nil {
			t.Fatal(err)
		}
	}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
