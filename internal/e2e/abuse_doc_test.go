package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestSecurityPage wants docs/security.md to name tests that there are, every
// attack, and the limits with the defaults that ferry server has.
func TestSecurityPage(t *testing.T) {
	root := filepath.Join("..", "..")
	b, err := os.ReadFile(filepath.Join(root, "docs", "security.md"))
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)

	var sources strings.Builder
	for _, pattern := range []string{"*/*_test.go", "*/*/*_test.go"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			sources.Write(b)
		}
	}
	named := regexp.MustCompile("`(Test[A-Za-z0-9]+)").FindAllStringSubmatch(page, -1)
	if len(named) < 20 {
		t.Errorf("the page names %d tests, want more", len(named))
	}
	for _, m := range named {
		if !strings.Contains(sources.String(), "func "+m[1]+"(t *testing.T)") {
			t.Errorf("the page names %s, and there is no such test", m[1])
		}
	}
	for i, a := range abuses {
		row := regexp.MustCompile(fmt.Sprintf("(?m)^\\| .*`TestAbuse/%02d` \\|$", i+1)).FindString(page)
		if promised := !strings.Contains(a.what, "not prevented"); row == "" || promised == strings.Contains(row, "not promised") {
			t.Errorf("attack %d, %s, has the row %q", i+1, a.what, row)
		}
	}

	help, err := exec.CommandContext(t.Context(), ferryBinary, "server", "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	flags := strings.Join(strings.Fields(string(help)), " ")
	rows := regexp.MustCompile("(?m)^\\| `(--[a-z-]+)` \\| ([^ ]+) \\|").FindAllStringSubmatch(page, -1)
	if want := len(regexp.MustCompile(` --(max|min)-|-timeout `).FindAllString(flags, -1)); len(rows) != want {
		t.Errorf("the page has %d limits, ferry server %d", len(rows), want)
	}
	for _, row := range rows {
		_, text, found := strings.Cut(flags, row[1]+" ")
		text, _, _ = strings.Cut(text, " --")
		said := strings.Contains(text, "(default "+row[2]+")") || row[2] == "0" && !strings.Contains(text, "(default")
		if !found || !said {
			t.Errorf("the page says %s is %s; ferry server --help: %q", row[1], row[2], text)
		}
	}
}
