package e2e_test

import (
	"bytes"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// links is where a page names another address.
var links = regexp.MustCompile(`(?:href|src|action)="([^"#]+)"`)

// TestPageValid validates each page and style sheet of a gateway, as they are
// served: what its pages lead to, and what the form leads to without scripts.
func TestPageValid(t *testing.T) {
	t.Parallel()
	p := up(t, t.TempDir())
	found := map[string][]byte{}
	collect(t, navigate(t, p.http), found)
	for _, start := range []string{"/", "/docs", "/problems"} {
		collect(t, visit(t, p.http+start), found)
	}

	folder := t.TempDir()
	count := map[string]int{}
	for address, content := range found {
		name := "page" + strings.ReplaceAll(strings.TrimPrefix(address, p.http), "/", "_")
		if !strings.HasSuffix(name, ".css") {
			name += ".html"
		}
		count[filepath.Ext(name)]++
		write(t, filepath.Join(folder, name), content)
	}
	if count[".html"] < 30 || count[".css"] < 1 {
		t.Fatalf("%v pages and style sheets were found", count)
	}
	runNode(t, "valid.mjs", folder)
}

// visit gets what is at an address.
func visit(t *testing.T, address string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// navigate sends the page's form as a browser does without scripts.
func navigate(t *testing.T, base string) *http.Request {
	t.Helper()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	part, err := form.CreateFormFile("file", "sent.txt")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(part, "sent\n") // to a buffer
	if err := form.Close(); err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/uploads", &body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", form.FormDataContentType())
	req.Header.Set("Accept", "text/html,*/*;q=0.8")
	req.Header.Set("Origin", base)
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	req.Header.Set("Sec-Fetch-Mode", "navigate")
	return req
}

// collect adds what a request is answered with to found, by its address, if it
// is a page or a style sheet, and what it leads to. Swagger UI's own sheet is not
// ours to mend.
func collect(t *testing.T, req *http.Request, found map[string][]byte) {
	t.Helper()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	address := res.Request.URL // where it was led to
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	switch {
	case res.StatusCode >= http.StatusBadRequest && kind != "text/html":
		return // an address that takes other methods
	case kind == "text/css", kind == "text/html":
	case req.Method == http.MethodPost:
		t.Fatalf("the form is answered with %s %s, want a page", res.Status, kind)
	default:
		return
	}
	found[address.String()] = content
	for _, link := range links.FindAllSubmatch(content, -1) {
		to, err := address.Parse(string(link[1]))
		if err != nil {
			t.Fatalf("%s leads to %q: %v", address, link[1], err)
		}
		if _, known := found[to.String()]; known || to.Host != address.Host || isSwagger(to) {
			continue
		}
		collect(t, visit(t, to.String()), found)
	}
}

func isSwagger(address *url.URL) bool { return strings.HasPrefix(address.Path, "/docs/swagger-ui/") }
