package identity

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ferry/proto"
)

// FuzzParse: what is taken is whole, and is the same when it has been saved
// again; an error comes alone, and has nothing of the key in it.
func FuzzParse(f *testing.F) {
	name, err := proto.ParseClientName("alice")
	if err != nil {
		f.Fatal(err)
	}
	for _, id := range []proto.Identity{
		{Name: name, ID: proto.ClientID{1, 2, 255}, PrivateKey: []byte("a private key, so to speak")},
		{Name: name, PrivateKey: []byte{0}, NextKey: []byte("the key that is to follow it")},
	} {
		b := savedBytes(f, id)
		f.Add(b)
		f.Add(b[:len(b)/2])
		f.Add(append(b, '{'))
	}
	for _, s := range []string{
		``, `null`, `[]`, `{}`, `{"name":"alice"}`,
		`{"name":"alice","id":"00000000000000000000000000000001","private_key":""}`,
		`{"name":"alice","id":"0000000000000000000000000000000x","private_key":"c29tZSBzZWNyZXQgYnl0ZXM="}`,
		`{"name":"alice","id":"01","private_key":"c29tZSBzZWNyZXQgYnl0ZXM!"}`,
		`{"name":"","id":"00000000000000000000000000000001","private_key":"c29tZSBzZWNyZXQgYnl0ZXM="}`,
		`{"NAME":"alice","Id":"00000000000000000000000000000001","private_key":"AA==","next_key":null}`,
		`{"name":"alice","id":"00000000000000000000000000000001","private_key":"AA==","more":1}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		id, err := parse(b)
		if err != nil {
			if id != nil {
				t.Errorf("there is %v beside %v", id.Name, err)
			}
			if key := keyIn(b); key != "" && strings.Contains(err.Error(), key) {
				t.Errorf("the error shows the private key: %v", err)
			}
			return
		}
		if !json.Valid(b) || id == nil || id.Name == (proto.ClientName{}) || len(id.PrivateKey) == 0 {
			t.Fatalf("%q is taken, and is not whole: %v", b, id)
		}
		again, err := json.Marshal(saved{Name: id.Name.String(), ID: id.ID.String(), PrivateKey: id.PrivateKey, NextKey: id.NextKey})
		if err != nil {
			t.Fatal(err)
		}
		back, err := parse(again)
		if err != nil {
			t.Fatalf("saved again: %v", err)
		}
		if len(id.NextKey) == 0 {
			id.NextKey = nil // is left out
		}
		if d := cmp.Diff(id, back, cmp.AllowUnexported(proto.ClientName{})); d != "" {
			t.Errorf("saved again (-want +got):\n%s", d)
		}
	})
}

// savedBytes is what Save writes.
func savedBytes(tb testing.TB, id proto.Identity) []byte {
	tb.Helper()
	dir := tb.TempDir()
	file, err := Open(dir)
	if err != nil {
		tb.Fatal(err)
	}
	defer file.Close()
	if err := file.Save(tb.Context(), id); err != nil {
		tb.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, Name))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// keyIn is the private key as it stands in a file that is JSON at least, if it is
// long enough to be one and stands nowhere else in it.
func keyIn(b []byte) string {
	var loose struct {
		PrivateKey string `json:"private_key"`
	}
	if json.Unmarshal(b, &loose) != nil || len(loose.PrivateKey) < 16 || strings.Count(string(b), loose.PrivateKey) != 1 {
		return ""
	}
	return loose.PrivateKey
}
