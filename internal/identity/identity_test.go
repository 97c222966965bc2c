package identity_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ferry/internal/identity"
	"ferry/proto"
)

func open(t *testing.T, dir string) *identity.File {
	t.Helper()
	f, err := identity.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func named(t *testing.T, s string) proto.ClientName {
	t.Helper()
	name, err := proto.ParseClientName(s)
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// want has f, and whoever opens the folder anew, know id.
func want(t *testing.T, dir string, f *identity.File, id proto.Identity) {
	t.Helper()
	for _, f := range []*identity.File{f, open(t, dir)} {
		got, ok, err := f.Load(t.Context())
		if err != nil || !ok || f.Client() != id.ID {
			t.Errorf("%v, %v, client %v; want %v", ok, err, f.Client(), id.ID)
		}
		if d := cmp.Diff(id, got, cmp.AllowUnexported(proto.ClientName{})); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	}
}

// wantFiles wants nothing else in the folder: no copies of keys.
func wantFiles(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
		if info, err := e.Info(); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s has mode %v, %v", e.Name(), info.Mode(), err)
		}
	}
	if d := cmp.Diff(names, got); d != "" {
		t.Errorf("files (-want +got):\n%s", d)
	}
}

func TestSave(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir)
	if _, ok, err := f.Load(t.Context()); ok || err != nil || f.Client() != (proto.ClientID{}) {
		t.Errorf("before the first: %v, %v, client %v", ok, err, f.Client())
	}
	if err := f.CheckWritable(); err != nil {
		t.Error(err)
	}
	wantFiles(t, dir)
	me := proto.Identity{Name: named(t, "grüße"), ID: proto.ClientID{1}, PrivateKey: []byte("first")}
	rotating, rotated := me, me
	rotating.NextKey = []byte("second")
	rotated.PrivateKey = rotating.NextKey
	other := proto.Identity{Name: me.Name, ID: proto.ClientID{2}, PrivateKey: []byte("third")}
	rekeyed := other
	rekeyed.PrivateKey = []byte("fourth") // another key under the same id: a token was used
	for _, step := range []struct {
		id    proto.Identity
		files []string
		old   string
	}{
		{me, []string{"identity"}, ""},
		{rotating, []string{"identity"}, ""},
		{rotated, []string{"identity"}, ""},
		{other, []string{"identity", "identity.old"}, "c2Vjb25k"},
		{rekeyed, []string{"identity", "identity.old"}, "dGhpcmQ="},
		{rekeyed, []string{"identity", "identity.old"}, "dGhpcmQ="},
	} {
		if err := f.Save(t.Context(), step.id); err != nil {
			t.Fatal(err)
		}
		want(t, dir, f, step.id)
		wantFiles(t, dir, step.files...)
		if b, _ := os.ReadFile(filepath.Join(dir, "identity.old")); !strings.Contains(string(b), step.old) {
			t.Errorf("the one before is %s, want one with %s", b, step.old)
		}
	}
}

// TestFormat keeps what is written readable, and reads what was written before
// there was a next key.
func TestFormat(t *testing.T) {
	dir := t.TempDir()
	before := `{"name":"ci","id":"01000000000000000000000000000000","private_key":"a2V5"}` + "\n"
	if err := os.WriteFile(filepath.Join(dir, identity.Name), []byte(before), 0o600); err != nil {
		t.Fatal(err)
	}
	me := proto.Identity{Name: named(t, "ci"), ID: proto.ClientID{1}, PrivateKey: []byte("key")}
	f := open(t, dir)
	want(t, dir, f, me)
	for _, step := range []struct {
		next    []byte
		written string
	}{
		{nil, before},
		{[]byte("next"), strings.Replace(before, "}", `,"next_key":"bmV4dA=="}`, 1)},
	} {
		me.NextKey = step.next
		if err := f.Save(t.Context(), me); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(dir, identity.Name))
		if d := cmp.Diff(step.written, string(b)); d != "" || err != nil {
			t.Errorf("%v (-want +got):\n%s", err, d)
		}
	}
}

// TestLoadSeesOthers has another process replace the identity.
func TestLoadSeesOthers(t *testing.T) {
	dir := t.TempDir()
	here, there := open(t, dir), open(t, dir)
	me := proto.Identity{Name: named(t, "ci"), ID: proto.ClientID{1}, PrivateKey: []byte("key")}
	if err := there.Save(t.Context(), me); err != nil {
		t.Fatal(err)
	}
	want(t, dir, here, me)
}

// TestSaveAtOnce has many save at once, each by a File of its own: what is
// there is always one of them, whole.
func TestSaveAtOnce(t *testing.T) {
	dir := t.TempDir()
	name := named(t, "ci")
	var all sync.WaitGroup
	for i := range 8 {
		f := open(t, dir)
		all.Go(func() {
			for range 10 {
				key := []byte(strings.Repeat(fmt.Sprint(i), 1000*(i+1)))
				if err := f.Save(t.Context(), proto.Identity{Name: name, ID: proto.ClientID{byte(i)}, PrivateKey: key}); err != nil {
					t.Error(err)
				}
				if err := f.CheckWritable(); err != nil {
					t.Error(err)
				}
				got, ok, err := f.Load(t.Context())
				if err != nil || !ok || len(got.PrivateKey) != 1000*(int(got.ID[0])+1) {
					t.Errorf("%v, %v, client %v has a key of %d bytes", ok, err, got.ID, len(got.PrivateKey))
				}
			}
		})
	}
	all.Wait()
	wantFiles(t, dir, "identity", "identity.old")
}

func TestUnusable(t *testing.T) {
	const good = `{"name":"ci","id":"01000000000000000000000000000000","private_key":"c2VjcmV0"}`
	for name, c := range map[string]struct {
		content string
		mode    fs.FileMode
		says    string
	}{
		"group reads":  {good, 0o640, "0600"},
		"others read":  {good, 0o604, "0600"},
		"group writes": {good, 0o620, "0600"},
		"empty":        {"", 0o600, "damaged"},
		"half":         {good[:len(good)/2], 0o600, "damaged"},
		"two":          {good + good, 0o600, "something follows"},
		"no id":        {`{"name":"ci","private_key":"c2VjcmV0"}`, 0o600, "client id"},
		"no name":      {strings.Replace(good, "ci", "", 1), 0o600, "empty"},
		"no key":       {strings.Replace(good, "c2VjcmV0", "", 1), 0o600, "no private key"},
		"a newer one":  {strings.Replace(good, "}", `,"other":1}`, 1), 0o600, "other"},
		"not base64":   {strings.Replace(good, "c2VjcmV0", "c2VjcmV0!", 1), 0o600, "damaged"},
		"far too much": {good + strings.Repeat(" ", 64<<10), 0o600, "limit"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			known := open(t, dir)
			path := filepath.Join(dir, identity.Name)
			if err := errors.Join(os.WriteFile(path, []byte(c.content), 0o600), os.Chmod(path, c.mode)); err != nil {
				t.Fatal(err)
			}
			_, err := identity.Open(dir)
			_, ok, err2 := known.Load(t.Context())
			for _, err := range []error{err, err2} {
				if !errors.Is(err, identity.ErrUnusable) || ok {
					t.Fatalf("%v, want it to be unusable", err)
				}
				for _, secret := range []string{dir, "secret", "c2VjcmV0"} {
					if strings.Contains(err.Error(), secret) {
						t.Errorf("%q has %q in it", err, secret)
					}
				}
				if !strings.Contains(err.Error(), c.says) {
					t.Errorf("%q does not say %q", err, c.says)
				}
			}
			// What cannot be read is kept all the same.
			if err := known.Save(t.Context(), proto.Identity{Name: named(t, "ci"), PrivateKey: []byte("key")}); err != nil {
				t.Fatal(err)
			}
			if b, err := os.ReadFile(path + ".old"); err != nil || string(b) != c.content {
				t.Errorf("kept %q, %v", b, err)
			}
		})
	}
}

// TestNoFile has something else where the file should be.
func TestNoFile(t *testing.T) {
	for name, create := range map[string]func(path string) error{
		"folder": func(path string) error { return os.Mkdir(path, 0o700) },
		"pipe":   func(path string) error { return syscall.Mkfifo(path, 0o600) },
	} {
		dir := t.TempDir()
		if err := create(filepath.Join(dir, identity.Name)); err != nil {
			t.Fatal(err)
		}
		if _, err := identity.Open(dir); !errors.Is(err, identity.ErrUnusable) || !strings.Contains(err.Error(), "no file") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := identity.Open(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder that is not there: %v", err)
	}
}

// TestNotWritable: whoever asks before registering is told in time.
func TestNotWritable(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir)
	// A folder in the way stops even root.
	if err := os.Mkdir(filepath.Join(dir, "identity.new"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"check": f.CheckWritable(),
		"save":  f.Save(t.Context(), proto.Identity{Name: named(t, "ci"), PrivateKey: []byte("key")}),
	} {
		if _, ok := errors.AsType[*fs.PathError](err); !ok || strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v, want an error about a file, without its folder", name, err)
		}
	}
	if _, ok, err := f.Load(t.Context()); ok || err != nil {
		t.Errorf("afterwards: %v, %v", ok, err)
	}
}
