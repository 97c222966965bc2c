package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// makeTree makes a folder with files of a line each, and links to x at those
// that have an arrow.
func makeTree(t *testing.T, files ...string) {
	t.Helper()
	t.Chdir(t.TempDir())
	for _, f := range files {
		name, to, link := strings.Cut(f, " -> ")
		err := os.MkdirAll(filepath.Dir(name), 0o700)
		if err == nil && link {
			err = os.Symlink(to, name)
		} else if err == nil {
			err = os.WriteFile(name, []byte(f+"\n"), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestPushPlan finds files, and says under which name each is stored.
func TestPushPlan(t *testing.T) {
	makeTree(t, "app.tar.gz", "dist/a.js", "dist/a.tmp", "dist/css/b.css", "dist/css/deep/c.css", "dist/tmp/d.js", "dist/.map",
		"dist/.git/config", "dist/linked.js -> a.js", "dist/loop -> css", "current -> dist", "odd[1].txt", ".env")
	for _, c := range []struct {
		name     string
		patterns string
		hidden   bool
		want     string // path=name
		empty    string
	}{
		{"a file", "app.tar.gz", false, "app.tar.gz=app.tar.gz", ""},
		{"a file in a folder", "dist/css/deep/c.css", false, "dist/css/deep/c.css=c.css", ""},
		{"a folder", "dist/css", false, "dist/css/b.css=css/b.css dist/css/deep/c.css=css/deep/c.css", ""},
		{"a folder with a slash", "./dist/css/", false, "dist/css/b.css=css/b.css dist/css/deep/c.css=css/deep/c.css", ""},
		{"a folder that a link leads to", "current !*.tmp !css !tmp", false, "current/a.js=current/a.js current/linked.js=current/linked.js", ""},
		{"one star", "dist/*.js", false, "dist/a.js=a.js dist/linked.js=linked.js", ""},
		{"a star that matches folders", "dist/c*", false, "dist/css/b.css=css/b.css dist/css/deep/c.css=css/deep/c.css", ""},
		{"any folders", "dist/**/*.css", false, "dist/css/b.css=css/b.css dist/css/deep/c.css=css/deep/c.css", ""},
		{"any folders in the middle", "dist/**/deep/*", false, "dist/css/deep/c.css=css/deep/c.css", ""},
		{"no folder is any folders", "dist/**/*.js !tmp", false, "dist/a.js=a.js dist/linked.js=linked.js", ""},
		{"everything", "dist/** !dist/css !dist/tmp/*", false, "dist/a.js=a.js dist/a.tmp=a.tmp dist/linked.js=linked.js", ""},
		{"excluded by name", "dist/css !deep", false, "dist/css/b.css=css/b.css", ""},
		{"excluded by path", "dist/css !dist/**/c.*", false, "dist/css/b.css=css/b.css", ""},
		{"all excluded", "dist/css !*.css", false, "", "dist/css"},
		{"a named file excluded", "app.tar.gz dist/a.js !*.gz", false, "dist/a.js=a.js", ""},
		{"hidden on request", "dist !css !tmp !*.js !*.tmp", true, "dist/.git/config=dist/.git/config dist/.map=dist/.map", ""},
		{"hidden if spelt out", "dist/.g*/* dist/.map .env", false, "dist/.git/config=.git/config dist/.map=.map .env=.env", ""},
		{"a class", "dist/css/[a-c].css", false, "dist/css/b.css=b.css", ""},
		{"a name with wildcards", "odd[1].txt", false, "odd[1].txt=odd[1].txt", ""},
		{"the same twice", "dist/a.js ./dist/a.js dist/*.js", false, "dist/a.js=a.js dist/linked.js=linked.js", ""},
		{"nothing", "none dist/*.none other/** dist/a.js", false, "dist/a.js=a.js", "none dist/*.none other/**"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &pushFinder{hidden: c.hidden}
			if err := f.find(strings.Fields(c.patterns)); err != nil {
				t.Fatal(err)
			}
			got := []string{}
			for _, file := range f.files {
				got = append(got, file.path+"="+file.name.String())
			}
			if d := cmp.Diff(strings.Fields(c.want), got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if d := strings.Join(f.empty, " "); d != c.empty || len(f.errs) > 0 {
				t.Errorf("nothing found for %q, want %q; errors %v", d, c.empty, f.errs)
			}
		})
	}
}

// TestPushNames: what could not lie side by side everywhere is an error before
// anything is sent, and so is what cannot be read.
func TestPushNames(t *testing.T) {
	makeTree(t, "a/x", "b/x", "b/X", "b/S", "c/\u017f", "d/e\u0301", "e/\u00e9", "f/x/y", "g/\u1fb3", "h/gone -> none", "back\\slash")
	for patterns, want := range map[string]string{
		"a/x b/x":       "a/x and b/x would both be stored as x",
		"a/x b/X":       "a/x would be stored as x and b/X as X, which differ in upper and lower case alone",
		"b/S c/*":       "differ in upper and lower case alone", // a long s
		"d/* e/*":       "would both be stored as \u00e9",
		"a/x f/*":       "a/x would be stored as x, which is a folder for f/x/y",
		"f/* a/x":       "a/x would be stored as x, which is a folder for f/x/y",
		"back\\slash":   "file name",
		"a/[x":          "the pattern's part \"[x\" cannot be read",
		"a/x !b/[x":     "the pattern's part \"[x\" cannot be read",
		"h":             "h/gone: no such file or directory",
		"/dev/null":     "/dev/null: not a regular file",
		"a f g e":       "",
		"a/x ./a/x a/*": "",
	} {
		f := &pushFinder{}
		err := f.find(strings.Fields(patterns))
		for _, e := range f.errs {
			err = e
		}
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", patterns, err, want)
		}
	}
}

// TestPushList reads patterns from a file and from stdin, and a list of nothing
// is what --if-no-files says.
func TestPushList(t *testing.T) {
	live := startGateway(t)
	makeTree(t, "a.txt", "b.txt", "with\nline", "list", "empty", "marked", "none")
	for name, content := range map[string]string{"list": "a.txt\r\n\n!b.txt\n*.txt\n", "empty": "", "marked": "\ufeffa.txt\r\n"} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	environ := []string{"FERRY_GATEWAY=" + live.url}
	for _, c := range []struct {
		args, stdin string
		status      int
		names       []string
		words       string
	}{
		{"--from-file list", "", 0, []string{"a.txt"}, ""},
		{"--from-file - list", "a.txt\x00with\nline\x00", 2, nil, "name"}, // such a name cannot be stored
		{"--from-file -", "a.txt\x00b.txt\x00", 0, []string{"a.txt", "b.txt"}, ""},
		{"--from-file marked", "", 0, []string{"a.txt"}, ""},
		{"--from-file empty", "", 8, nil, "no file to send"},
		{"--from-file empty --if-no-files warn", "", 0, nil, "no file to send"},
		{"--if-no-files ignore *.none", "", 0, nil, ""},
		{"--if-no-files warn *.none a.txt", "", 0, []string{"a.txt"}, `no file for "*.none"`},
		{"--from-file -  -", "", 2, nil, "both the list and a file"},
		{"--name piped/in.txt --dest-prefix p- -", "from a pipe", 0, []string{"p-piped/in.txt"}, ""},
		{"-", "x", 2, nil, "--name is missing"},
		{"--name x a.txt", "", 2, nil, "is for what comes from stdin"},
	} {
		got := pushContext(t.Context(), environ, c.stdin, append(strings.Fields(c.args), "--json", "--wait=received")...)
		var names []string
		for name := range got.outcomes(t) {
			names = append(names, name)
		}
		slices.Sort(names)
		if got.status != c.status || !slices.Equal(names, c.names) || !strings.Contains(got.stderr, c.words) {
			t.Errorf("%s: status %d, %q, stderr %q; want %d, %q, %q", c.args, got.status, names, got.stderr, c.status, c.names, c.words)
		}
	}
	if got := push(t, live.url, "*.txt", "--name", "ignored", "-"); got.status != 0 {
		t.Errorf("%+v", got)
	}
	wantContent(t, live.stored("a.txt"), "a.txt\n")
	if got := pushContext(t.Context(), environ, "from a pipe", "--name", "piped/in.txt", "--dest-prefix", "p-", "-"); got.status != 0 {
		t.Errorf("%+v", got)
	}
	wantContent(t, live.stored("p-piped/in.txt"), "from a pipe")
}
