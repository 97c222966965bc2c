package e2e_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"ferry/api"
	"ferry/web"
)

// TestPageDocs reads the API's description below a base path, and tries what it
// describes with a token.
func TestPageDocs(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	token := makeToken(t, data, "reader", "read")
	p := start(t, "gateway", "--data", data, "--name", "docs", "--to", "v3://127.0.0.1:1", "--http", "127.0.0.1:0", "--base-path", "/ferry")
	doc, err := openapi3.NewLoader().LoadFromData(api.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	var operations []string
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			operations = append(operations, method+" "+path)
		}
	}
	p.http = strings.TrimSuffix(p.http, "/ferry")
	browse(t, "docs", p, map[string]any{"at": "/ferry/docs", "token": token, "operations": operations})
}

// TestSwaggerUI wants Swagger UI to be as npm has it, which checks it against
// the lock file.
func TestSwaggerUI(t *testing.T) {
	t.Parallel()
	const npm = "../../tools/npm/node_modules/swagger-ui-dist"
	ours, err := fs.Sub(web.Files(), "docs/swagger-ui")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	err = fs.WalkDir(ours, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		found++
		got, err := fs.ReadFile(ours, name)
		if err != nil {
			return err
		}
		from := name
		if name == "LICENSE.txt" || name == "NOTICE.txt" {
			from = strings.TrimSuffix(name, ".txt")
		}
		want, err := os.ReadFile(filepath.Join(npm, from))
		if err == nil && !bytes.Equal(got, want) {
			t.Errorf("%s is not as npm has it: make swagger-ui", name)
		}
		return err
	})
	if err != nil || found == 0 {
		t.Fatalf("%d files, %v", found, err)
	}
}
