package server_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ferry/internal/smalldisk"
	"ferry/proto"
	"ferry/server"
)

// put writes a file where a server keeps those of a client.
func put(t *testing.T, data, client, name, content string) {
	t.Helper()
	folder := filepath.Join(data, "files", client)
	if err := os.MkdirAll(folder, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o640); err != nil {
		t.Fatal(err)
	}
}

// TestSweep starts a server on what crashes and operators leave.
func TestSweep(t *testing.T) {
	data := t.TempDir()
	h := start(t, data, server.Limits{})
	h.client("alice").send(file("kept", "kept"), file("gone", "gone"))
	h.client("bob").send(file("all", "gone"))
	h.client("carol") // has no file
	h.stop()

	// Killed while a file came in, and between publish and record.
	if err := os.WriteFile(filepath.Join(data, "staging", "staged-7"), []byte("left"), 0o640); err != nil {
		t.Fatal(err)
	}
	put(t, data, "alice", "published", "not recorded")
	put(t, data, "carol", "first", "")
	// What an operator did.
	put(t, data, "nobody", "theirs", "theirs")
	put(t, data, "alice", "control\x01", "no client could ask for it")
	if err := os.Mkdir(filepath.Join(data, "files", "alice", "folder"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(data, "files", "alice", "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(data, "files", "alice", "gone")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(data, "files", "bob")); err != nil {
		t.Fatal(err)
	}

	want := []string{"alice/gone 4", "alice/kept 4", "alice/published 12", "bob/all 4", "carol/first 0"}
	for range 2 { // the second time there is nothing left to do
		h = start(t, data, server.Limits{})
		if diff := cmp.Diff(want, h.rows()); diff != "" {
			t.Errorf("on record (-want +got):\n%s", diff)
		}
		if got := h.staged(); got != 0 {
			t.Errorf("%d bytes are left in staging", got)
		}
		for client, name := range map[string]string{"nobody": "theirs", "alice": "control\x01"} {
			if _, ok := h.read(client, name); !ok {
				t.Errorf("%s of %s was removed", name, client)
			}
		}
		for _, parts := range [][]string{
			{"missing", "client=alice", "file=gone", "files=1"},
			{"missing", "client=bob", "files=1"},
			{"not registered", "client=nobody"},
			{"not recorded", "client=alice", "control character"},
		} {
			if got := h.log.lines(append(parts, "level=WARN")...); len(got) != 1 {
				t.Errorf("%q: the log says %s", parts, h.log)
			}
		}
		h.stop()
	}

	// The clients come again.
	h = start(t, data, server.Limits{})
	alice := h.client("alice")
	for _, name := range []string{"kept", "published", "gone", "folder", "link"} {
		if got := alice.offer(file(name, "again")); !errors.Is(got.err, proto.ErrExists) {
			t.Errorf("%s again: %+v, want ErrExists", name, got)
		}
	}
	nobody := h.client("nobody")
	if got := nobody.offer(file("theirs", "mine")); !errors.Is(got.err, proto.ErrExists) {
		t.Errorf("a file that was there before its client: %+v, want ErrExists", got)
	}
	if got, _ := h.read("nobody", "theirs"); got != "theirs" {
		t.Errorf("it became %q", got)
	}
	// The counter of files is right.
	in, err := server.Inspect(data)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]int64{}
	for c, err := range in.Clients(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		files[c.Name] = c.Files
	}
	if diff := cmp.Diff(map[string]int64{"alice": 3, "bob": 1, "carol": 1, "nobody": 1}, files); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

// TestPublishedNotRecorded lets the catalog fail between publish and record: the
// client hears nothing, the file is kept, and asking again is answered.
func TestPublishedNotRecorded(t *testing.T) {
	data := t.TempDir()
	h := start(t, data, server.Limits{})
	p := h.client("alice")
	lift := func() {}
	got := p.offer(sent("f", "content", func(_ context.Context, dst proto.Sink) error {
		lift = holdCatalog(t, data)
		_, err := dst.Write([]byte("content"))
		return err
	}))
	if !errors.Is(got.err, errGone) {
		t.Errorf("got %+v, want no answer", got)
	}
	await(t, p.gone, "the end of the connection")
	if content, _ := h.read("alice", "f"); content != "content" {
		t.Errorf("stored: %q", content)
	}
	if got := h.rows(); got != nil {
		t.Errorf("on record: %q", got)
	}
	// As long as it cannot be recorded, nobody is told that it exists: its client
	// would take that for an acknowledgement.
	p = h.client("alice")
	if got := p.offer(file("f", "content")); !errors.Is(got.err, proto.ErrRefused) || errors.Is(got.err, proto.ErrExists) {
		t.Errorf("while it cannot be recorded: %+v, want it refused for another reason", got)
	}
	lift()
	if got := p.offer(file("f", "content")); !errors.Is(got.err, proto.ErrExists) {
		t.Errorf("again: %+v, want ErrExists", got)
	}
	if diff := cmp.Diff([]string{"alice/f 7"}, h.rows()); diff != "" {
		t.Errorf("on record (-want +got):\n%s", diff)
	}
	verified(t, data, 1)
	if len(h.log.lines("level=ERROR", "file not recorded", "client=alice", "file=f")) != 1 || len(h.log.lines("file adopted", "file=f")) != 1 {
		t.Errorf("the log says %s", h.log)
	}
}

// TestVisitNotNoted: a client may come although that cannot be noted.
func TestVisitNotNoted(t *testing.T) {
	data := t.TempDir()
	h := start(t, data, server.Limits{})
	h.client("alice").send(file("f", "x"))
	h.stop()
	h = start(t, data, server.Limits{})
	defer holdCatalog(t, data)()
	if got := h.client("alice").offer(file("f", "x")); !errors.Is(got.err, proto.ErrExists) {
		t.Errorf("got %+v, want ErrExists", got)
	}
	if got := h.log.lines("level=WARN", "visit not noted", "full"); len(got) != 1 {
		t.Errorf("the log says %s", h.log)
	}
}

// breakRecord makes the catalog fail for files of one name.
func breakRecord(t *testing.T, data, name string) (lift func()) {
	t.Helper()
	return catalogTriggers(t, data, map[string]string{
		"bad": "before insert on files when new.name = '" + name + "'",
	})
}

// holdCatalog makes what stores a file or notes a visit fail, as a full disk
// would.
func holdCatalog(t *testing.T, data string) (lift func()) {
	t.Helper()
	return catalogTriggers(t, data, map[string]string{
		"full": "before insert on files", "full2": "before update on clients",
	})
}

func catalogTriggers(t *testing.T, data string, fail map[string]string) (lift func()) {
	t.Helper()
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(data, "catalog.db")+"?_busy_timeout=10000")
	if err != nil {
		t.Fatal(err)
	}
	exec := func(text string) {
		if _, err := db.ExecContext(context.Background(), text); err != nil {
			t.Error(err)
		}
	}
	for name, when := range fail {
		exec("create trigger " + name + " " + when + " begin select raise(fail, 'full'); end")
	}
	return func() {
		for name := range fail {
			exec("drop trigger " + name)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestFullDisk fills a small disk: what does not fit is refused and leaves
// nothing, and what fits goes on being stored.
func TestFullDisk(t *testing.T) {
	dir := smalldisk.Mount(t, "8m")
	h := start(t, dir, server.Limits{Free: -1})
	p := h.client("alice")
	p.send(file("first", strings.Repeat("x", 3<<20)))
	// One that says so, and one that claims to be small: it fills the disk.
	if got := p.offer(file("large", strings.Repeat("x", 9<<20))); !errors.Is(got.err, proto.ErrRefused) {
		t.Errorf("a file that cannot fit: %+v, want it refused", got)
	}
	if got := p.offer(claiming(1, file("lie", strings.Repeat("x", 9<<20)))); got.accepted {
		t.Error("a file that does not fit was stored")
	}
	if got := h.staged(); got != 0 {
		t.Errorf("%d bytes are left in staging", got)
	}
	p.send(file("fits", strings.Repeat("x", 2<<20)))
	verified(t, dir, 2)
	h.stop()

	// With a reserve nothing is taken that would use it, be it said or not.
	h = start(t, dir, server.Limits{Free: 4 << 20})
	p = h.client("alice")
	if got := p.offer(file("small", "x")); !errors.Is(got.err, proto.ErrRefused) {
		t.Errorf("with less room than is kept: %+v", got)
	}
	smalldisk.Resize(t, dir, "32m")
	lie := claiming(1, sent("lie", strings.Repeat("x", 27<<20), func(_ context.Context, dst proto.Sink) error {
		for range 27 {
			if _, err := dst.Write(make([]byte, 1<<20)); err != nil {
				return err
			}
		}
		return nil
	}))
	if got := p.offer(lie); !errors.Is(got.err, proto.ErrRefused) {
		t.Errorf("a file that grows into what is kept: %+v", got)
	}
	p.send(file("small", "x"))
	verified(t, dir, 3)
}

// TestAdoptOnlyWhatRests: a file that changes while it is read is not recorded.
func TestAdoptOnlyWhatRests(t *testing.T) {
	data := t.TempDir()
	h := start(t, data, server.Limits{})
	p := h.client("alice")
	put(t, data, "alice", "f", "")
	if err := os.Truncate(filepath.Join(data, "files", "alice", "f"), 64<<20); err != nil {
		t.Fatal(err) // it takes a while to read
	}
	growing, quit, ended := filepath.Join(data, "files", "alice", "f"), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		f, err := os.OpenFile(growing, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		for i := 0; ; i++ {
			select {
			case <-quit:
				return
			default:
				if _, err := f.Write([]byte("more")); err != nil {
					t.Error(err)
					return
				}
				if i == 0 { // offered only now
					quit <- struct{}{}
				}
			}
		}
	}()
	<-quit
	got := p.offer(file("f", "x"))
	close(quit)
	<-ended
	if !errors.Is(got.err, proto.ErrRefused) || errors.Is(got.err, proto.ErrExists) {
		t.Errorf("while it is written: %+v", got)
	}
	if got := p.offer(file("f", "x")); !errors.Is(got.err, proto.ErrExists) {
		t.Errorf("when it rests: %+v", got)
	}
	verified(t, data, 1)
}

func TestOpenStopsInTheMiddle(t *testing.T) {
	data := t.TempDir()
	h := start(t, data, server.Limits{})
	h.client("alice")
	h.stop()
	put(t, data, "alice", "f", "x")
	cause := errors.New("changed my mind")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if _, err := server.Open(ctx, server.Config{Data: data}); err == nil {
		t.Error("opened although the context had ended")
	}
	start(t, data, server.Limits{}) // nothing is locked
}

func TestOneServerADataFolder(t *testing.T) {
	h := start(t, t.TempDir(), server.Limits{})
	if _, err := server.Open(t.Context(), server.Config{Data: h.data}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second server: %v", err)
	}
	if _, err := server.Open(t.Context(), server.Config{}); err == nil {
		t.Error("a server without a data folder")
	}
}
