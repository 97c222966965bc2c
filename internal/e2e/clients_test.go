package e2e_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

const description = "../../api/openapi.yaml"

// TestGoClient sends a file with a client that oapi-codegen makes of the
// description.
func TestGoClient(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"go.mod", "go.sum", "main.go"} {
		copyFile(t, filepath.Join("../../tools/goclient", name), filepath.Join(dir, name))
	}
	document, err := filepath.Abs(description)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "ferryapi"), 0o755); err != nil {
		t.Fatal(err)
	}
	runIn(t, dir, "go", "tool", "oapi-codegen", "-generate", "types,client", "-package", "ferryapi", "-o", "ferryapi/client.go", document)
	runIn(t, dir, "go", "build", "-trimpath", "-o", "goclient", ".") // -trimpath: compiled once, in whichever folder
	checkClient(t, "go", filepath.Join(dir, "goclient"))
}

// TestTypeScriptClient sends a file with a client whose types openapi-typescript
// makes of the description.
func TestTypeScriptClient(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	modules, err := filepath.Abs("../../tools/npm/node_modules")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(modules, filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	copyFile(t, "testdata/client.ts", filepath.Join(dir, "client.ts"))
	write(t, filepath.Join(dir, "package.json"), []byte(`{"type": "module"}`))
	write(t, filepath.Join(dir, "node.d.ts"), []byte(`// What the client uses of Node.js.
declare const process: { argv: string[] };
declare module "node:fs/promises" {
  export function readFile(path: string): Promise<Uint8Array>;
}
`))
	runIn(t, ".", "node", filepath.Join(modules, "openapi-typescript", "bin", "cli.js"), description, "--output", filepath.Join(dir, "ferry.d.ts"))
	runIn(t, dir, "node", filepath.Join(modules, "typescript", "bin", "tsc"), "--strict", "--skipLibCheck", "--noUncheckedIndexedAccess", "--module", "nodenext",
		"--target", "es2023", "--lib", "es2023,dom,dom.iterable", "node.d.ts", "client.ts")
	checkClient(t, "typescript", "node", filepath.Join(dir, "client.js"))
}

// checkClient has a client send a file into a folder, and wants it delivered.
func checkClient(t *testing.T, name string, command ...string) {
	t.Helper()
	data := t.TempDir()
	p := up(t, data).tap()
	content := randomBytes(100_001)
	path := filepath.Join(t.TempDir(), "app.bin")
	write(t, path, content)
	stored := name + "/app.bin"
	var u struct {
		Name   string            `json:"name"`
		State  string            `json:"state"`
		Mode   string            `json:"mode"`
		Labels map[string]string `json:"labels"`
	}
	out := runIn(t, ".", command[0], append(command[1:], p.http, stored, path)...)
	if err := json.Unmarshal(out, &u); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if u.Name != stored || u.State != "delivered" || u.Mode != "0640" || u.Labels["client"] != name {
		t.Errorf("the client shows %s", out)
	}
	got, err := os.ReadFile(filepath.Join(storedFolder(t, filepath.Join(data, "server")), stored))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, content) {
		t.Errorf("%d bytes are stored that are not the %d sent", len(got), len(content))
	}
}

// runIn runs a command in a folder and returns what it prints.
func runIn(t *testing.T, dir, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", name, err, out, stderr.Bytes())
	}
	return out
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	write(t, to, b)
}
