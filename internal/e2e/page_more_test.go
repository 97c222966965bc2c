package e2e_test

import (
	"bytes"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"
)

var pagePictures = flag.String("page-pictures", "", "write pictures of more of the page's states to this `folder`")

// TestPageSignIn uses a gateway that wants a token.
func TestPageSignIn(t *testing.T) {
	t.Parallel()
	inBrowsers(t, pageSignIn)
}

func pageSignIn(t *testing.T, browser string) {
	data := t.TempDir()
	p := up(t, data)
	token := makeToken(t, filepath.Join(data, "gateway"), "page", "upload")
	waitClosed(t, p.http)
	browseIn(t, browser, "tokens", p, map[string]any{"token": token, "pictures": *pagePictures}, nil)
	wantStored(t, data, map[string][]byte{"early.txt": []byte("early\n")})
}

// TestPageFolders drops folders on the page, and pastes. No driver drops folders
// in Firefox, where what the page is handed is made up.
func TestPageFolders(t *testing.T) {
	t.Parallel()
	inBrowsers(t, pageFolders)
}

func pageFolders(t *testing.T, browser string) {
	data, dir := t.TempDir(), t.TempDir()
	want := map[string][]byte{"pasted.txt": []byte("pasted\n")}
	for i := range 300 {
		name := fmt.Sprintf("tree/part %d/%03d.txt", i%7, i)
		want[name] = []byte(name)
		write(t, filepath.Join(dir, name), want[name])
	}
	if err := os.MkdirAll(filepath.Join(dir, "void", "inner"), 0o755); err != nil {
		t.Fatal(err)
	}
	browseIn(t, browser, "folders", up(t, data), map[string]any{"dir": dir}, nil)
	for name, content := range want {
		got, err := os.ReadFile(filepath.Join(storedFolder(t, filepath.Join(data, "server")), name))
		if err != nil {
			t.Error(err)
		} else if !bytes.Equal(got, content) {
			t.Errorf("%s has %q, want %q", name, got, content)
		}
	}
}

// TestPageThousands chooses a folder with more files than can be shown.
func TestPageThousands(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "many")
	for i := range 5000 {
		write(t, filepath.Join(dir, fmt.Sprintf("%04d.txt", i)), []byte("small\n"))
	}
	browse(t, "thousands", up(t, t.TempDir()), map[string]any{"dir": dir, "pictures": *pagePictures})
}

// TestPageDestinations chooses on the page where files go.
func TestPageDestinations(t *testing.T) {
	t.Parallel()
	one, two := startV4(t, t.TempDir()), startV4(t, t.TempDir())
	p := start(t, "gateway", "--data", t.TempDir(), "--http", "127.0.0.1:0", "--name", "page",
		"--to", "one="+one.url(one.v4), "--join", "one="+one.token(), "--to", "two="+two.url(two.v4), "--join", "two="+two.token())
	if got := curl(t, "-X", "POST", p.http+"/destinations/two/pause"); got.status != http.StatusOK {
		t.Fatalf("pause: %d %s", got.status, got.body)
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "first.txt"), []byte("first\n"))
	write(t, filepath.Join(dir, "second.txt"), []byte("second\n"))
	write(t, filepath.Join(dir, "empty.txt"), nil)
	write(t, filepath.Join(dir, "third.txt"), []byte("third\n"))
	browse(t, "destinations", p, map[string]any{"dir": dir})
	for path, want := range map[string]string{one.stored("page", "first.txt"): "first\n", two.stored("page", "second.txt"): "second\n", two.stored("page", "empty.txt"): ""} {
		if b, err := os.ReadFile(path); err != nil || string(b) != want {
			t.Errorf("stored %q, %v; want %q", b, err, want)
		}
	}
}

// TestPageUnreachable sends files that wait, as their destination cannot be reached.
func TestPageUnreachable(t *testing.T) {
	t.Parallel()
	inBrowsers(t, pageUnreachable)
}

func pageUnreachable(t *testing.T, browser string) {
	srv := startV4(t, t.TempDir())
	between := newRelay(t, srv.v4)
	gw := srv.startGatewayV4(t.TempDir(), between.address(), "page").process
	between.cut.Store(true)
	between.drop()
	browseIn(t, browser, "unreachable", gw, map[string]any{"pictures": *pagePictures}, map[string]func(){
		"heal": func() { between.cut.Store(false) },
	})
	for _, name := range []string{"first.txt", "second.txt", "third.txt"} {
		if b, err := os.ReadFile(srv.stored("page", name)); err != nil || string(b) != name {
			t.Errorf("stored %q, %v; want %q", b, err, name)
		}
	}
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
