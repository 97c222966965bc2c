package gateway

import (
	"bytes"
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"ferry/proto"
)

// declaredKinds are the names of all kinds of problems in the source.
func declaredKinds(t *testing.T) (names []string) {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for n := range ast.Preorder(parsed) {
			c, ok := n.(*ast.CompositeLit)
			if !ok || len(c.Elts) == 0 || strings.HasSuffix(file, "_test.go") {
				continue
			}
			name, ok := c.Elts[0].(*ast.BasicLit)
			if kind, _ := c.Type.(*ast.Ident); ok && kind != nil && kind.Name == "problemKind" {
				names = append(names, strings.Trim(name.Value, `"`))
			}
		}
	}
	if len(names) == 0 {
		t.Fatal("the source declares no kinds")
	}
	return names
}

// TestProblemPages holds together the kinds that the source declares, the
// pages, the description and docs/api.md.
func TestProblemPages(t *testing.T) {
	s := newFakeAPI(t)
	manual, err := os.ReadFile("../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	index := s.ask(t, "GET", "/problems", nil)
	types := description(t).Components.Schemas["Problem"].Value.Properties["type"].Value.Enum
	declared := declaredKinds(t)
	for _, name := range declared {
		i := slices.IndexFunc(problemPages, func(p problemPage) bool { return p.name == name })
		if i < 0 {
			t.Errorf("problem %s has no page: see problemPages", name)
			continue
		}
		p := problemPages[i]
		if !slices.Contains(types, any("/problems/"+name)) {
			t.Errorf("problem %s is not in api/openapi.yaml: make generate", name)
		}
		row := fmt.Sprintf("| `%s` | %d | %s |", name, p.status, map[bool]string{true: "yes", false: "no"}[p.retryable()])
		if !strings.Contains(string(manual), "\n"+row) {
			t.Errorf("docs/api.md has no line %s", row)
		}
		if !bytes.Contains(index.body, []byte(`href="problems/`+name+`"`)) {
			t.Errorf("/problems does not list %s", name)
		}
		page := s.ask(t, "GET", "/problems/"+name, nil)
		if page.StatusCode != http.StatusOK || page.Header.Get("Content-Type") != "text/html; charset=utf-8" || !strings.Contains(page.Header.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("/problems/%s: %d %v", name, page.StatusCode, page.Header)
		}
		for _, text := range []string{p.title, p.means, p.kept, p.do} {
			if text == "" {
				t.Errorf("the page of %s says less than it should", name)
			}
		}
		if a := s.ask(t, "HEAD", "/problems/"+name, nil, "If-None-Match", page.Header.Get("ETag")); a.StatusCode != http.StatusNotModified {
			t.Errorf("/problems/%s again: %d, want 304", name, a.StatusCode)
		}
	}
	if len(problemPages) != len(declared) {
		t.Errorf("%d pages for %d kinds", len(problemPages), len(declared))
	}
	s.ask(t, "GET", "/problems/nothing", nil).problem(t, kindNotFound)
}

// TestCurlRetriesWhatPasses has curl meet a problem that passes, and one that
// does not.
func TestCurlRetriesWhatPasses(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is not installed")
	}
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		err   error
		asked int64
	}{
		"passes": {&refusalError{problemKind: kindBusy, retryAfter: 1}, 2},
		"stays":  {errSpoolFull, 1},
	} {
		var asked atomic.Int64
		s := newFakeAPI(t, func(a *httpAPI, core *fakeCore) {
			a.receive = func(ctx context.Context) receiver {
				if asked.Add(1) == 1 {
					return refusing{err: c.err}
				}
				return core.receive(ctx)
			}
		})
		out, err := exec.CommandContext(t.Context(), "curl", "--silent", "--show-error", "--fail-with-body", "--retry", "5",
			"--data-binary", "@"+file, s.url+"/uploads?name=f").CombinedOutput()
		if got := asked.Load(); got != c.asked || (err == nil) != (c.asked == 2) {
			t.Errorf("%s: curl asked %d times and ended with %v, want %d times:\n%s", name, got, err, c.asked, out)
		}
	}
}

// refusing is a receiver that takes nothing.
type refusing struct {
	receiver
	err error
}

func (r refusing) to(outlet) {}

func (r refusing) label(map[string]string) {}

func (r refusing) describe(attributes) {}

func (r refusing) add(proto.FileName, int64, io.Reader) (int, error) { return 0, r.err }

func (r refusing) abort() {}
