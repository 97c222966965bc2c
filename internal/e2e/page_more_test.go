package e2e_test

import (
	"flag"
	"net/http"
	"path/filepath"
	"testing"
	"time"
)

var pagePictures = flag.String("page-pictures", "", "write pictures of more of the page's states to this `folder`")

// TestPageSignIn uses a gateway that wants a token.
func TestPageSignIn(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	p := up(t, data)
	token := makeToken(t, filepath.Join(data, "gateway"), "page", "upload")
	waitClosed(t, p.http)
	browse(t, "tokens", p, map[string]any{"token": token, "pictures": *pagePictures})
	wantStored(t, data, map[string][]byte{"early.txt": []byte("early\n")})
}

// waitClosed waits until a gateway lets nobody in without a token: one that runs
// looks for its first every now and then.
func waitClosed(t *testing.T, base string) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range 1000 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/uploads?limit=1", nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if err := res.Body.Close(); err != nil {
			t.Fatal(err)
		}
		if res.StatusCode == http.StatusUnauthorized {
			return
		}
		<-tick.C
	}
	t.Fatal("the gateway lets everybody in, although there is a token")
}
