// Package archtest_test keeps the imports of docs/architecture.md: they point
// one way, and what must not know of something does not import it.
package archtest_test

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const module = "ferry"

// A rule says what a package may use.
type rule struct {
	ours   []string // of this module, imported directly; nil is none
	direct []string // never imported directly
	never  []string // never used, not even through others
}

// everything stands for no restriction among our own packages.
var everything = []string{"..."}

// rules has an entry for every package that has code of its own beside tests.
var rules = map[string]rule{
	"proto/v3": {direct: []string{"net", "os", "database/sql", "log/slog"}, never: []string{"net/http"}},
	"proto/v4": {direct: []string{"net", "os", "database/sql", "log/slog"}, never: []string{"net/http"}},
	"proto":    {ours: []string{"proto/v3", "proto/v4"}, never: []string{"net/http", "database/sql"}},

	// For tests alone: no other rule names them.
	"proto/prototest":    {ours: []string{"proto/v3/testdata"}},
	"proto/v3/testdata":  {},
	"internal/smalldisk": {},
	"api/apitest":        {ours: []string{"api", "web"}},

	"internal/atomicfile": {never: []string{"net/http"}},
	"internal/blob":       {ours: []string{"internal/direct"}, never: []string{"net/http"}},
	"internal/direct":     {ours: []string{"internal/seccomp"}, never: []string{"net/http", "database/sql"}},
	"internal/seccomp":    {never: []string{"net", "database/sql"}},
	"internal/datadir":    {never: []string{"net/http"}},
	"internal/sqldb":      {never: []string{"net/http"}},

	"internal/identity": {ours: []string{"proto"}, never: []string{"net/http", "database/sql"}},

	"internal/oldserver": {never: []string{"net/http"}},
	"internal/oldclient": {ours: []string{"proto", "internal/atomicfile"}, never: []string{"net/http", "database/sql"}},

	"server": {
		ours:  []string{"proto", "internal/blob", "internal/datadir", "internal/sqldb"},
		never: []string{"net/http", "github.com/go-chi/chi/v5"},
	},
	"gateway": {
		ours: []string{"proto", "internal/blob", "internal/datadir", "internal/identity", "internal/sqldb", "api", "web"},
	},
	"api": {},
	"web": {},

	"cmd/ferry":      {ours: everything},
	"internal/bench": {ours: []string{"gateway", "proto"}},
	"tools/deps":     {},
	"tools/openapi":  {},
}

// pkg is what go list says of a package.
type pkg struct {
	ImportPath string
	Imports    []string
	GoFiles    []string
	CgoFiles   []string
}

// list returns every package that the module's own need, by import path.
func list(t *testing.T) map[string]pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=ImportPath,Imports,GoFiles,CgoFiles", module+"/...")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	all := map[string]pkg{}
	for d := json.NewDecoder(out); ; {
		var p pkg
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		all[p.ImportPath] = p
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	return all
}

// own returns a package's path in the module.
func own(importPath string) (string, bool) { return strings.CutPrefix(importPath, module+"/") }

func TestImports(t *testing.T) {
	all := list(t)
	checked := 0
	for _, path := range slices.Sorted(maps.Keys(all)) {
		p := all[path]
		name, ours := own(path)
		if !ours || len(p.GoFiles)+len(p.CgoFiles) == 0 {
			continue
		}
		checked++
		r, ok := rules[name]
		if !ok {
			t.Errorf("%s has no rule here: say what it may import", name)
			continue
		}
		for _, imported := range p.Imports {
			if other, ours := own(imported); ours && !slices.Equal(r.ours, everything) && !slices.Contains(r.ours, other) {
				t.Errorf("%s imports %s; of ours it may import %q", name, other, r.ours)
			}
			if slices.Contains(r.direct, imported) || slices.Contains(r.never, imported) {
				t.Errorf("%s imports %s, which it must not", name, imported)
			}
		}
		for _, banned := range r.never {
			if way := wayTo(all, path, banned); len(way) > 2 {
				t.Errorf("%s uses %s, which it must not, through %s", name, banned, strings.Join(way, " -> "))
			}
		}
	}
	if checked == 0 {
		t.Error("go list named no package of ours")
	}
}

// wayTo returns a shortest chain of imports between two packages, nil if there
// is none.
func wayTo(all map[string]pkg, from, to string) []string {
	before := map[string]string{from: ""}
	for queue := []string{from}; len(queue) > 0; queue = queue[1:] {
		if queue[0] == to {
			var way []string
			for at := to; at != ""; at = before[at] {
				way = append(way, at)
			}
			slices.Reverse(way)
			return way
		}
		for _, next := range all[queue[0]].Imports {
			if _, seen := before[next]; !seen {
				before[next] = queue[0]
				queue = append(queue, next)
			}
		}
	}
	return nil
}

// TestRulesAreUsed finds rules for packages that are gone.
func TestRulesAreUsed(t *testing.T) {
	all := list(t)
	for name := range rules {
		if _, ok := all[module+"/"+name]; !ok {
			t.Errorf("there is a rule for %s, and no such package", name)
		}
	}
}

// TestRootHasNoCode wants every .go file in a package with a name of its own.
func TestRootHasNoCode(t *testing.T) {
	root := filepath.Join("..", "..")
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		t.Fatal(err)
	}
	found, err := fs.Glob(os.DirFS(root), "*.go")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string(nil), found); d != "" {
		t.Errorf("Go files in the root (-want +got):\n%s", d)
	}
}
