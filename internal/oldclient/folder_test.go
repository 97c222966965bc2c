package oldclient_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ferry/internal/oldclient"
	"ferry/proto"
)

// copyFolder copies a folder of testdata, with the modes that old clients left.
func copyFolder(t *testing.T, name string, mode fs.FileMode) string {
	t.Helper()
	dir := t.TempDir()
	paths, err := filepath.Glob(filepath.Join("testdata", name, "*"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("testdata/%s: %q, %v", name, paths, err)
	}
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, filepath.Base(p)), b, mode)
	}
	return dir
}

func write(t *testing.T, path string, b []byte, mode fs.FileMode) {
	t.Helper()
	if err := errors.Join(os.WriteFile(path, b, mode), os.Chmod(path, mode)); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, dir, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestFolderWithoutIdentity(t *testing.T) {
	id, ok, err := oldclient.NewFolder(t.TempDir(), nil).Load(t.Context())
	if d := cmp.Diff(proto.Identity{}, id, compareNames); ok || err != nil || d != "" {
		t.Errorf("got %v, %v, %s; want no identity", ok, err, d)
	}
	if _, err := oldclient.NewFolder(t.TempDir(), nil).Transfer(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want that there is no transfer.info", err)
	}
}

// TestFolderOfOldClient wants each program's folder to be read and to be left
// as it is by saving the same identity again.
func TestFolderOfOldClient(t *testing.T) {
	for _, program := range []string{"seed", "per-slice"} {
		t.Run(program, func(t *testing.T) {
			dir := copyFolder(t, program, 0o600)
			me, key := read(t, dir, "me.info"), read(t, dir, "priv.key")
			folder := oldclient.NewFolder(dir, func(m string) { t.Errorf("warned: %s", m) })
			id, ok, err := folder.Load(t.Context())
			if err != nil || !ok {
				t.Fatalf("got %v, %v", ok, err)
			}
			if err := folder.Save(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			if got := read(t, dir, "me.info"); !bytes.Equal(got, me) {
				t.Errorf("me.info is now\n%s\nwant\n%s", got, me)
			}
			if got := read(t, dir, "priv.key"); !bytes.Equal(got, key) {
				t.Errorf("priv.key is now\n%q\nwant\n%q", got, key)
			}
		})
	}
}

func TestFolderSaves(t *testing.T) {
	from := copyFolder(t, "seed", 0o600)
	id, _, err := oldclient.NewFolder(from, nil).Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	folder := oldclient.NewFolder(dir, nil)
	if err := errors.Join(folder.CheckWritable(), folder.Save(t.Context(), id)); err != nil {
		t.Fatal(err)
	}
	got, ok, err := folder.Load(t.Context())
	if d := cmp.Diff(id, got, compareNames); !ok || err != nil || d != "" {
		t.Errorf("%v, %v (-want +got):\n%s", ok, err, d)
	}
	for _, name := range []string{"me.info", "priv.key"} {
		if got, want := read(t, dir, name), read(t, from, name); !bytes.Equal(got, want) {
			t.Errorf("%s is\n%s\nwant, as the seed writes it,\n%s", name, got, want)
		}
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: mode %v, %v; want 0600", name, info.Mode(), err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("left in the folder: %v, %v; want two files", entries, err)
	}
}

func TestFolderTakesKeyOfPrivKey(t *testing.T) {
	dir := copyFolder(t, "per-slice", 0o600)
	want, err := oldclient.ParseMe(read(t, dir, "me.info"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "me.info"), oldclient.Me{Name: want.Name, ID: want.ID}.Append(nil), 0o600)
	folder := oldclient.NewFolder(dir, nil)
	got, ok, err := folder.Load(t.Context())
	if err != nil || !ok || !bytes.Equal(got.PrivateKey, want.Key) {
		t.Errorf("got %x, %v, %v; want priv.key's %x", got.PrivateKey, ok, err, want.Key)
	}
	write(t, filepath.Join(dir, "priv.key"), []byte("damaged"), 0o600)
	if _, _, err = folder.Load(t.Context()); err == nil || !strings.Contains(err.Error(), "priv.key: private key: it is damaged") {
		t.Errorf("damaged priv.key: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "priv.key")); err != nil {
		t.Fatal(err)
	}
	if _, _, err = folder.Load(t.Context()); err == nil || !strings.Contains(err.Error(), "there is no priv.key") {
		t.Errorf("no priv.key: %v", err)
	}
}

// TestFolderKeepsWhatItCannotRead: a damaged me.info is an error, not a client
// that has never registered.
func TestFolderKeepsWhatItCannotRead(t *testing.T) {
	dir := copyFolder(t, "seed", 0o600)
	cut := read(t, dir, "me.info")[:300]
	write(t, filepath.Join(dir, "me.info"), cut, 0o600)
	_, ok, err := oldclient.NewFolder(dir, nil).Load(t.Context())
	if ok || err == nil || !strings.Contains(err.Error(), "me.info: private key: it is damaged") {
		t.Errorf("got %v, %v", ok, err)
	}
	if got := read(t, dir, "me.info"); !bytes.Equal(got, cut) {
		t.Error("me.info was changed")
	}
}

// TestFolderWantsAKey: what is whole and no key of RSA, or none that version 3 can
// use, is found before anything is sent.
func TestFolderWantsAKey(t *testing.T) {
	_, ed25519Key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	other, err := x509.MarshalPKCS8PrivateKey(ed25519Key)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string][]byte{"it is damaged": {0x30, 0}, "it is not RSA": other}
	for bits, want := range map[int]string{1024: "version 3 cannot use it: public key: 162 bytes", 2048: "version 3 cannot use it: public key: 294 bytes"} {
		key, err := rsa.GenerateKey(rand.Reader, bits) // its exponent is 65537
		if err != nil {
			t.Fatal(err)
		}
		if keys[want], err = x509.MarshalPKCS8PrivateKey(key); err != nil {
			t.Fatal(err)
		}
	}
	for want, der := range keys {
		dir := t.TempDir()
		me := oldclient.Me{Name: clientName(t, "alice"), Key: der}
		write(t, filepath.Join(dir, "me.info"), me.Append(nil), 0o600)
		folder := oldclient.NewFolder(dir, nil)
		if _, ok, err := folder.Load(t.Context()); ok || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, %v; want an error that contains %q", ok, err, want)
		}
		if err := folder.Save(t.Context(), proto.Identity{Name: me.Name, PrivateKey: der}); err == nil {
			t.Error("saved")
		}
	}
}

func TestFolderWarnsOnceOfReadableKeys(t *testing.T) {
	dir := copyFolder(t, "seed", 0o644)
	var warnings []string
	folder := oldclient.NewFolder(dir, func(m string) { warnings = append(warnings, m) })
	for range 2 {
		if _, ok, err := folder.Load(t.Context()); err != nil || !ok {
			t.Fatalf("got %v, %v; want it to work", ok, err)
		}
	}
	want := []string{"others can read the private key; shut them out: chmod 600 " + filepath.Join(dir, "me.info") + " " + filepath.Join(dir, "priv.key")}
	if d := cmp.Diff(want, warnings); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// TestFolderOfOtherThings: what is no file is an error at once. Nobody writes to
// these pipes.
func TestFolderOfOtherThings(t *testing.T) {
	for _, name := range []string{"transfer.info", "me.info", "priv.key"} {
		for what, put := range map[string]func(string) error{
			"folder": func(path string) error { return os.Mkdir(path, 0o700) },
			"pipe":   func(path string) error { return syscall.Mkfifo(path, 0o600) },
		} {
			dir := copyFolder(t, "per-slice", 0o600)
			if name == "priv.key" { // which me.info may leave the key to
				me, err := oldclient.ParseMe(read(t, dir, "me.info"))
				if err != nil {
					t.Fatal(err)
				}
				write(t, filepath.Join(dir, "me.info"), oldclient.Me{Name: me.Name, ID: me.ID}.Append(nil), 0o600)
			}
			path := filepath.Join(dir, name)
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			if err := put(path); err != nil {
				t.Fatal(err)
			}
			folder := oldclient.NewFolder(dir, nil)
			var err error
			if name == "transfer.info" {
				_, err = folder.Transfer()
			} else {
				_, _, err = folder.Load(t.Context())
			}
			if err == nil || !strings.Contains(err.Error(), name+": not a regular file") {
				t.Errorf("%s is a %s: got %v", name, what, err)
			}
		}
	}
}

func TestFolderReadOnly(t *testing.T) {
	err := oldclient.NewFolder(filepath.Join(t.TempDir(), "absent"), nil).CheckWritable()
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want that the folder is not there", err)
	}
}

// TestFolderSavesWhole reads while another saves: never half a file, never
// none.
func TestFolderSavesWhole(t *testing.T) {
	dir := copyFolder(t, "seed", 0o600)
	writer, reader := oldclient.NewFolder(dir, nil), oldclient.NewFolder(dir, nil)
	id, _, err := writer.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var saving sync.WaitGroup
	saving.Go(func() {
		for range 20 {
			if err := writer.Save(t.Context(), id); err != nil {
				t.Error(err)
			}
		}
	})
	for range 200 {
		got, ok, err := reader.Load(t.Context())
		if d := cmp.Diff(id, got, compareNames); !ok || err != nil || d != "" {
			t.Fatalf("%v, %v (-want +got):\n%s", ok, err, d)
		}
	}
	saving.Wait()
}
