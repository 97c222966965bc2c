package oldserver_test

import (
	"bytes"
	"database/sql"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ferry/internal/oldserver"
)

var (
	idA  = bytes.Repeat([]byte{0xa1}, 16)
	key  = bytes.Repeat([]byte{0x30}, 160)
	seen = time.Date(2024, 5, 6, 7, 8, 9, 0, time.Local)
)

// create runs statements on a database in dir.
func create(t *testing.T, dir, name string, statements ...func(*sql.DB) error) {
	t.Helper()
	db, err := sql.Open("sqlite3", filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range statements {
		if err := s(db); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func exec(query string, args ...any) func(*sql.DB) error {
	return func(db *sql.DB) error {
		_, err := db.Exec(query, args...)
		return err
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o640); err != nil {
		t.Fatal(err)
	}
}

// TestForms reads the same client and file out of the ways in which old
// programs kept them.
func TestForms(t *testing.T) {
	forms := map[string]func(t *testing.T, dir string){
		"one database, blanks, raw ids": func(t *testing.T, dir string) {
			create(t, dir, "server.db",
				exec(`create table clients (ID blob(16) primary key, Name varchar(255), PublicKey blob(160), LastSeen datetime, AES blob(32))`),
				exec(`create table files (ID blob(16), "File Name" varchar(255), "Path Name" varchar(255), Verified boolean, unique (ID, "File Name"))`),
				exec(`insert into clients values (?, ?, ?, '2024-05-06 07:08:09', ?)`, idA, "alice\x00\x00", key, make([]byte, 32)),
				exec(`insert into files values (?, 'a.txt', 'files/alice/a.txt', 1)`, idA))
		},
		"two databases, words joined, ids as text": func(t *testing.T, dir string) {
			create(t, dir, "clients.sqlite",
				exec(`create table Clients (id text, name text, public_key blob, last_seen text, aes_key blob)`),
				exec(`insert into Clients values (?, 'alice', ?, '2024-05-06T07:08:09', null)`, strings.Repeat("A1", 16), key))
			create(t, dir, "files.sqlite",
				exec(`create table Files (id text, FileName text, PathName text, verified text)`),
				exec(`insert into Files values (?, 'a.txt', 'C:\srv\files\alice\a.txt', 'True')`, strings.Repeat("a1", 16)))
		},
	}
	for name, prepare := range forms {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			prepare(t, dir)
			write(t, filepath.Join(dir, "files", "alice", "a.txt"), "what was stored")
			before := listing(t, dir)
			f, err := oldserver.Open(t.Context(), dir)
			if err != nil {
				t.Fatal(err)
			}
			clients, err := f.Clients(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for i := range clients { // a moment without a zone is UTC to the driver, and local to the text
				if d := clients[i].LastSeen.Sub(seen); d > -15*time.Hour && d < 15*time.Hour {
					clients[i].LastSeen = seen
				}
			}
			if d := cmp.Diff([]oldserver.Client{{ID: idA, Name: "alice", PublicKey: key, LastSeen: seen}}, clients); d != "" {
				t.Errorf("clients (-want +got):\n%s", d)
			}
			files, err := f.Files(t.Context())
			if err != nil || len(files) != 1 {
				t.Fatalf("%d files, %v; want 1", len(files), err)
			}
			if got := files[0]; !bytes.Equal(got.Client, idA) || got.Name != "a.txt" || !got.Verified {
				t.Errorf("file %+v", got)
			}
			if got := read(t, f, files[0].Path); got != "what was stored" {
				t.Errorf("read %q", got)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(before, listing(t, dir)); d != "" {
				t.Errorf("the old folder has changed (-before +after):\n%s", d)
			}
		})
	}
}

func read(t *testing.T, f *oldserver.Folder, path string) string {
	t.Helper()
	file, err := f.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	b, err := io.ReadAll(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// listing is every file below dir with its content.
func listing(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		all[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestPathsStayInTheFolder(t *testing.T) {
	outside, dir := t.TempDir(), t.TempDir()
	write(t, filepath.Join(outside, "secret"), "secret")
	if err := os.Symlink(filepath.Join(outside, "secret"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	create(t, dir, "server.db", exec(`create table clients (ID blob)`))
	f, err := oldserver.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, path := range []string{"", ".", "/", "..", "../" + filepath.Base(outside) + "/secret", filepath.Join(outside, "secret"), "link", "absent", `..\secret`} {
		if file, err := f.OpenFile(path); !errors.Is(err, oldserver.ErrOutside) {
			if file != nil {
				file.Close()
			}
			t.Errorf("%q: %v, want ErrOutside", path, err)
		}
	}
}

// TestPathsAreOfStoredFiles: what nobody sent is not taken for a file that is
// lost, nor is a database that the server kept.
func TestPathsAreOfStoredFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "Server")
	write(t, filepath.Join(dir, "port.info"), "1256")
	write(t, filepath.Join(dir, "flat.txt"), "flat")
	write(t, filepath.Join(dir, "files", "alice", "a.txt"), "a")
	create(t, dir, "server.db", exec(`create table clients (ID blob)`))
	create(t, dir, "files.db", exec(`create table files (ID blob)`))
	create(t, dir, "sent.db", exec(`create table something (a)`))
	f, err := oldserver.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, path := range []string{"files/alice/port.info", "/srv/files/bob/port.info", `C:\srv\flat.txt`, "server.db", "files/server.db", "./files.db", `C:\Server\files.db`} {
		if file, err := f.OpenFile(path); !errors.Is(err, oldserver.ErrOutside) {
			if file != nil {
				file.Close()
			}
			t.Errorf("%q: %v, want ErrOutside", path, err)
		}
	}
	for path, want := range map[string]string{
		"flat.txt": "flat", "./flat.txt": "flat", "Server/flat.txt": "flat", `C:\srv\Server\flat.txt`: "flat",
		"alice/../files/alice/a.txt": "a", "/home/old/Server/files/alice/a.txt": "a", `D:\srv\files\alice\a.txt`: "a",
	} {
		if got := read(t, f, path); got != want {
			t.Errorf("%q: %q, want %q", path, got, want)
		}
	}
	if got := read(t, f, "sent.db"); !strings.HasPrefix(got, "SQLite format 3") {
		t.Errorf("a database that a client sent: %q", got)
	}
}

// TestLostDatabase: where the table of files is gone, or cannot be read, there
// must not seem to be none.
func TestLostDatabase(t *testing.T) {
	for name, damage := range map[string]struct {
		do   func(path string) error
		want string
	}{
		"missing": {os.Remove, "no database with a table of files"},
		"empty":   {func(path string) error { return os.Truncate(path, 0) }, "no database with a table of files"},
		"cut":     {func(path string) error { return os.Truncate(path, 100) }, "files.db: "},
		"not sqlite": {func(path string) error {
			return os.WriteFile(path, bytes.Repeat([]byte("?"), 8192), 0o600)
		}, "no database with a table of files"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			create(t, dir, "clients.db", exec(`create table clients (ID blob, Name, PublicKey)`))
			create(t, dir, "files.db", exec(`create table files (ID blob)`))
			if err := damage.do(filepath.Join(dir, "files.db")); err != nil {
				t.Fatal(err)
			}
			f, err := oldserver.Open(t.Context(), dir)
			if err == nil {
				_, err = f.Files(t.Context())
				if err := f.Close(); err != nil {
					t.Error(err)
				}
			}
			if err == nil || !strings.Contains(err.Error(), damage.want) {
				t.Errorf("%v, want %q", err, damage.want)
			}
		})
	}
}

// TestUnreadable: a file that cannot be read might be a database.
func TestUnreadable(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may read everything")
	}
	dir := t.TempDir()
	create(t, dir, "clients.db", exec(`create table clients (ID blob)`))
	create(t, dir, "files.db", exec(`create table files (ID blob)`))
	if err := os.Chmod(filepath.Join(dir, "files.db"), 0); err != nil {
		t.Fatal(err)
	}
	f, err := oldserver.Open(t.Context(), dir)
	if f != nil {
		f.Close()
	}
	if !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "files.db") {
		t.Errorf("%v, want that files.db may not be read", err)
	}
}

// TestLastSeen takes moments in every form, and what is none for not known.
func TestLastSeen(t *testing.T) {
	none, whole := time.Time{}, time.Unix(1714979289, 0)
	for _, c := range []struct {
		kept any
		want time.Time
	}{
		{"2024-05-06 07:08:09", seen},
		{"2024-05-06 07:08:09.000000", seen},
		{"2024-05-06T07:08:09", seen},
		{"Mon May  6 07:08:09 2024", seen},
		{"06/05/2024 07:08:09", seen},
		{"06/05/24 07:08:09\x00", seen},
		{int64(1714979289), whole},
		{int64(1714979289000), whole},
		{1714979289.0, whole},
		{int64(-1_000_000_000_000_000), none},
		{int64(math.MaxInt64), none},
		{int64(math.MinInt64), none},
		{1e300, none},
		{math.Inf(-1), none},
		{"once", none},
		{"99999-01-01 00:00:00", none},
		{nil, none},
	} {
		dir := t.TempDir()
		create(t, dir, "server.db",
			exec(`create table clients (ID blob, Name, PublicKey, LastSeen)`),
			exec(`insert into clients values (?, 'alice', ?, ?)`, idA, key, c.kept))
		f, err := oldserver.Open(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		clients, err := f.Clients(t.Context())
		if err != nil || len(clients) != 1 {
			t.Fatalf("%v: %v, %v", c.kept, clients, err)
		}
		if got := clients[0].LastSeen; !got.Equal(c.want) {
			t.Errorf("%v: %v, want %v", c.kept, got, c.want)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNoDatabase(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "server.db"), "no database at all")
	create(t, dir, "other.db", exec(`create table something (a)`))
	if f, err := oldserver.Open(t.Context(), dir); !errors.Is(err, oldserver.ErrNoDatabase) {
		if f != nil {
			f.Close()
		}
		t.Errorf("%v, want ErrNoDatabase", err)
	}
}
