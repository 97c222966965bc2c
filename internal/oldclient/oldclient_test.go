package oldclient_test

import (
	"bytes"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ferry/internal/oldclient"
	"ferry/proto"
)

func testdata(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", filepath.FromSlash(path)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func clientName(t testing.TB, s string) proto.ClientName {
	t.Helper()
	n, err := proto.ParseClientName(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// compareNames lets cmp look into what proto keeps shut.
var compareNames = cmp.AllowUnexported(proto.ClientName{})

func TestParseTransfer(t *testing.T) {
	alice := clientName(t, "alice")
	for name, c := range map[string]struct {
		in   string
		want oldclient.Transfer
	}{
		"plain":               {"127.0.0.1:1256\nalice\n./a.bin\n", oldclient.Transfer{Address: "127.0.0.1:1256", Name: alice, Path: "./a.bin"}},
		"no end of line":      {"127.0.0.1:1256\nalice\na.bin", oldclient.Transfer{Address: "127.0.0.1:1256", Name: alice, Path: "a.bin"}},
		"CRLF":                {"127.0.0.1:1256\r\nalice\r\na b.bin\r\n", oldclient.Transfer{Address: "127.0.0.1:1256", Name: alice, Path: "a b.bin"}},
		"blanks":              {" \t127.0.0.1 : 01256 \nalice\na.bin\n", oldclient.Transfer{Address: "127.0.0.1:1256", Name: alice, Path: "a.bin"}},
		"padded name":         {"127.0.0.1:1256\nalice" + strings.Repeat("\x00", 250) + "\na.bin\n", oldclient.Transfer{Address: "127.0.0.1:1256", Name: alice, Path: "a.bin"}},
		"empty lines at end":  {"127.0.0.1:1256\nalice\na.bin\n\n \r\n", oldclient.Transfer{Address: "127.0.0.1:1256", Name: alice, Path: "a.bin"}},
		"byte order mark":     {"\xef\xbb\xbf127.0.0.1:1256\r\nalice\r\na.bin", oldclient.Transfer{Address: "127.0.0.1:1256", Name: alice, Path: "a.bin"}},
		"host name":           {"files.example.org:7\nalice\na.bin\n", oldclient.Transfer{Address: "files.example.org:7", Name: alice, Path: "a.bin"}},
		"IPv6":                {"[::1]:1256\nalice\na.bin\n", oldclient.Transfer{Address: "[::1]:1256", Name: alice, Path: "a.bin"}},
		"blanks in user name": {"127.0.0.1:1256\nMichael Jackson\n/tmp/New Folder/é.bin\n", oldclient.Transfer{Address: "127.0.0.1:1256", Name: clientName(t, "Michael Jackson"), Path: "/tmp/New Folder/é.bin"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := oldclient.ParseTransfer([]byte(c.in))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, got, compareNames); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestParseTransferRefuses(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"empty":        {"", "it has 0 lines, want 3"},
		"two lines":    {"127.0.0.1:1256\nalice\n", "it has 2 lines, want 3"},
		"four lines":   {"127.0.0.1:1256\nalice\na.bin\nb.bin\n", "it has 4 lines, want 3"},
		"no port":      {"127.0.0.1\nalice\na.bin\n", "line 1: \"127.0.0.1\": want HOST:PORT"},
		"port 0":       {"127.0.0.1:0\nalice\na.bin\n", "line 1: \"127.0.0.1:0\": want a port"},
		"port 65536":   {"127.0.0.1:65536\nalice\na.bin\n", "want a port from 1 to 65535"},
		"no host":      {" :1256\nalice\na.bin\n", "want an address"},
		"URL's parts":  {"a/b?c@d:1256\nalice\na.bin\n", "want an address"},
		"bare IPv6":    {"::1:1256\nalice\na.bin\n", "want an address"},
		"IPv6 zone":    {"[fe80::1%eth0]:1256\nalice\na.bin\n", "want an address"},
		"no name":      {"127.0.0.1:1256\n\na.bin\n", "line 2: client name not allowed: it is empty"},
		"name escapes": {"127.0.0.1:1256\n../x\na.bin\n", "line 2: client name not allowed"},
		"NUL in path":  {"127.0.0.1:1256\nalice\na\x00.bin\n", "line 3: the path"},
		"too long":     {strings.Repeat("a", 64<<10+1), "65536 are the limit"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := oldclient.ParseTransfer([]byte(c.in))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v, want one that contains %q", err, c.want)
			}
			if got != (oldclient.Transfer{}) {
				t.Errorf("got %+v beside the error", got)
			}
		})
	}
}

func TestParseMe(t *testing.T) {
	seed := string(testdata(t, "seed/me.info"))
	want, err := oldclient.ParseMe([]byte(seed))
	if err != nil {
		t.Fatal(err)
	}
	if want.Name.String() != "alice" || want.ID.String() != strings.Split(seed, "\n")[1] || len(want.Key) != 632 {
		t.Errorf("got %v, %v, a key of %d bytes", want.Name, want.ID, len(want.Key))
	}
	if got := want.Append(nil); !bytes.Equal(got, []byte(seed)) {
		t.Errorf("written again:\n%s\nwant\n%s", got, seed)
	}
	name, rest, _ := strings.Cut(seed, "\n")
	id, key, _ := strings.Cut(rest, "\n")
	for form, in := range map[string]string{
		"CRLF":               strings.ReplaceAll(seed, "\n", "\r\n"),
		"padded name":        name + strings.Repeat("\x00", 255-len(name)) + "\n" + rest,
		"padded, CRLF":       name + strings.Repeat("\x00", 255-len(name)) + "\r\n" + strings.ReplaceAll(rest, "\n", "\r\n"),
		"upper-case id":      name + "\n" + strings.ToUpper(id) + "\n" + key,
		"blanks after id":    name + "\n" + id + " \n" + key,
		"key in one line":    name + "\n" + id + "\n" + strings.ReplaceAll(key, "\n", ""),
		"no end of line":     strings.TrimSuffix(seed, "\n"),
		"empty lines at end": seed + "\n\n",
	} {
		t.Run(form, func(t *testing.T) {
			got, err := oldclient.ParseMe([]byte(in))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, got, compareNames); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
	t.Run("no key", func(t *testing.T) {
		got, err := oldclient.ParseMe([]byte(name + "\n" + id + "\n"))
		if err != nil || got.Key != nil || got.ID != want.ID {
			t.Errorf("got %+v, %v", got, err)
		}
	})
}

func TestParseMeRefuses(t *testing.T) {
	seed := string(testdata(t, "seed/me.info"))
	for name, c := range map[string]struct{ in, want string }{
		"empty":       {"", "cut short"},
		"name alone":  {"alice", "cut short"},
		"bad name":    {"../alice" + seed[len("alice"):], "line 1: client name not allowed"},
		"short id":    {"alice\n0123\n", "line 2: client id"},
		"id not hex":  {"alice\n" + strings.Repeat("g", 32) + "\n", "line 2: client id"},
		"cut key":     {seed[:len(seed)-10], "damaged or cut short"},
		"cut line":    {seed[:len(seed)-75], "damaged or cut short"},
		"not base64":  {seed + "!", "damaged or cut short"},
		"more behind": {seed[:strings.Index(seed, "MII")] + "MAAA\n", "damaged or cut short"},
		"no sequence": {seed[:strings.Index(seed, "MII")] + "BAA=\n", "damaged or cut short"},
		"too long":    {seed + strings.Repeat("\n", 64<<10), "are the limit"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := oldclient.ParseMe([]byte(c.in))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v, want one that contains %q", err, c.want)
			}
			if d := cmp.Diff(oldclient.Me{}, got, compareNames); d != "" {
				t.Errorf("beside the error:\n%s", d)
			}
		})
	}
}

func TestParseKey(t *testing.T) {
	text := testdata(t, "seed/priv.key")
	want, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(string(text), "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	for form, in := range map[string][]byte{
		"base64":      text,
		"CRLF":        bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n")),
		"one line":    bytes.ReplaceAll(text, []byte("\n"), nil),
		"DER as such": want,
	} {
		got, err := oldclient.ParseKey(in)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: got %x, %v; want %x", form, got, err, want)
		}
	}
	if got := oldclient.AppendKey(nil, want); !bytes.Equal(got, text) {
		t.Errorf("written again:\n%s\nwant\n%s", got, text)
	}
	raw := testdata(t, "per-slice/priv.key")
	if got, err := oldclient.ParseKey(raw); err != nil || !bytes.Equal(got, raw) {
		t.Errorf("the per-slice program's: got %x, %v; want it as it is", got, err)
	}
	for _, bad := range [][]byte{nil, {0x30}, want[:100], []byte("MII"), append(bytes.Clone(want), 0)} {
		if got, err := oldclient.ParseKey(bad); err == nil || got != nil {
			t.Errorf("%q: got %x, %v; want an error", bad, got, err)
		}
	}
}

func TestParsePort(t *testing.T) {
	for in, want := range map[string]int{
		"1357": 1357, " 1357 \r\n": 1357, "": 1256, "0": 1256, "65536": 1256, "-1": 1256, "port": 1256, "1\n2": 1256,
	} {
		if got := oldclient.ParsePort([]byte(in)); got != want {
			t.Errorf("%q: got %d, want %d", in, got, want)
		}
	}
}

// FuzzTransfer: what parses encodes to what parses to the same.
func FuzzTransfer(f *testing.F) {
	f.Add(testdata(f, "seed/transfer.info"))
	f.Add([]byte(" 127.0.0.1 : 1 \r\nbob\x00\x00\r\n/tmp/a\r\n\r\n"))
	f.Add([]byte("[::1]:1256\nbob\na"))
	f.Fuzz(func(t *testing.T, b []byte) {
		first, err := oldclient.ParseTransfer(b)
		if err != nil {
			if first != (oldclient.Transfer{}) {
				t.Fatalf("%+v beside %v", first, err)
			}
			return
		}
		again, err := oldclient.ParseTransfer(first.Append(nil))
		if err != nil || again != first {
			t.Fatalf("got %+v, %v; want %+v", again, err, first)
		}
	})
}

// FuzzMe: what parses encodes to what parses to the same.
func FuzzMe(f *testing.F) {
	seed := testdata(f, "seed/me.info")
	f.Add(seed)
	f.Add(bytes.ReplaceAll(seed, []byte("\n"), []byte("\r\n")))
	f.Add([]byte("bob\x00\x00\n00112233445566778899aabbccddeeff\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		first, err := oldclient.ParseMe(b)
		if err != nil {
			if d := cmp.Diff(oldclient.Me{}, first, compareNames); d != "" {
				t.Fatalf("%s beside %v", d, err)
			}
			return
		}
		again, err := oldclient.ParseMe(first.Append(nil))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(first, again, compareNames); d != "" {
			t.Fatalf("(-want +got):\n%s", d)
		}
	})
}

// FuzzKey: what parses, in either form, encodes to the seed's form of the same.
func FuzzKey(f *testing.F) {
	f.Add(testdata(f, "seed/priv.key"))
	f.Add(testdata(f, "per-slice/priv.key"))
	f.Fuzz(func(t *testing.T, b []byte) {
		first, err := oldclient.ParseKey(b)
		if err != nil {
			if first != nil {
				t.Fatalf("%x beside %v", first, err)
			}
			return
		}
		again, err := oldclient.ParseKey(oldclient.AppendKey(nil, first))
		if err != nil || !bytes.Equal(again, first) {
			t.Fatalf("got %x, %v; want %x", again, err, first)
		}
	})
}

// FuzzPort: a port, whatever is read.
func FuzzPort(f *testing.F) {
	f.Add([]byte("1357\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n := oldclient.ParsePort(b); n < 1 || n > 65535 {
			t.Fatalf("got %d", n)
		}
	})
}
