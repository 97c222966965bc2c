package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestPageTabs follows uploads in several tabs.
func TestPageTabs(t *testing.T) {
	t.Parallel()
	inBrowsers(t, pageTabs)
}

func pageTabs(t *testing.T, browser string) {
	browseIn(t, browser, "tabs", up(t, t.TempDir()), nil, nil)
}

// TestPageRestart kills the gateway while the page sends, and starts it again.
func TestPageRestart(t *testing.T) {
	t.Parallel()
	inBrowsers(t, pageRestart)
}

func pageRestart(t *testing.T, browser string) {
	data, dir := t.TempDir(), t.TempDir()
	files := map[string][]byte{"there.txt": []byte("there\n"), "cut.bin": randomBytes(48 << 20), "later.txt": []byte("later\n")}
	for name, content := range files {
		write(t, filepath.Join(dir, name), content)
	}
	p := up(t, data)
	again := []string{"up", "--data", data, "--http", strings.TrimPrefix(p.http, "http://"), "--listen", "127.0.0.1:0"}
	browseIn(t, browser, "restart", p, map[string]any{"dir": dir}, map[string]func(){
		"freeze": func() {
			if err := syscall.Kill(p.pid(), syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
		},
		"kill":  func() { p.kill() },
		"start": func() { p = start(t, again...) },
	})
	wantStored(t, data, files)
}

// TestPageHistory looks through ten thousand uploads.
func TestPageHistory(t *testing.T) {
	t.Parallel()
	inBrowsers(t, pageHistory)
}

func pageHistory(t *testing.T, browser string) {
	srv := startV4(t, t.TempDir())
	between := newRelay(t, srv.v4)
	gw := srv.startGatewayV4(t.TempDir(), between.address(), "studio").process
	between.cut.Store(true) // nothing is delivered
	between.drop()
	const many, each = 10_000, 100
	for first := 0; first < many; first += each {
		cancelAll(t, gw.http, postForm(t, gw.http, first, each))
	}
	browseIn(t, browser, "history", gw, map[string]any{"many": many, "pictures": *pagePictures}, nil)
}

// postForm sends small files in one form, and returns their ids.
func postForm(t *testing.T, base string, first, files int) (ids []string) {
	t.Helper()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	for i := range files {
		part, err := form.CreateFormFile("file", fmt.Sprintf("%05d.txt", first+i))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(part, first+i)
	}
	if err := form.Close(); err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Uploads []upload `json:"uploads"`
	}
	postJSON(t, base+"/uploads", form.FormDataContentType(), &body, &answer)
	for _, u := range answer.Uploads {
		ids = append(ids, u.ID)
	}
	if len(ids) != files {
		t.Fatalf("%d of %d files were taken", len(ids), files)
	}
	return ids
}

func cancelAll(t *testing.T, base string, ids []string) {
	t.Helper()
	order, err := json.Marshal(map[string]any{"action": "cancel", "ids": ids})
	if err != nil {
		t.Fatal(err)
	}
	postJSON(t, base+"/uploads/bulk", "application/json", bytes.NewReader(order), &struct{}{})
}

// postJSON reads the JSON that a POST is answered with.
func postJSON(t *testing.T, url, mediaType string, body io.Reader, answer any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", mediaType)
	req.Header.Set("Accept", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode >= http.StatusMultipleChoices {
		t.Fatalf("POST %s: %s", url, res.Status)
	}
	if err := json.NewDecoder(res.Body).Decode(answer); err != nil {
		t.Fatal(err)
	}
}
