package gateway

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"ferry/proto"
)

// TestNaming has each destination take its names, in the form it takes them in.
func TestNaming(t *testing.T) {
	long := strings.Repeat("n", proto.MaxClientName)
	decomposed := strings.Repeat("e\u0301", proto.MaxClientName/3)
	for _, c := range []struct {
		to, given, stored, file string // "" if it is refused
	}{
		{"v3://h", "a", "a", "a"},
		{"v3://h", "a/b", "", ""},
		{"v3://h", "e\u0301", "e\u0301", "e\u0301"},
		{"v3://h", long, long, long},
		{"v3://h", "..", "", ""},
		{"v4://h", "a", "a", "a"},
		{"v4://h", "a/b", "a/b", ""},
		{"v4://h", "e\u0301/\u212b", "é/\u00c5", ""},
		{"v4://h", "e\u0301", "é", "é"},
		{"v4://h", decomposed, strings.Repeat("é", proto.MaxClientName/3), strings.Repeat("é", proto.MaxClientName/3)},
		{"v4://h", long + "/" + long, long + "/" + long, ""},
		{"v4://h", long + "n", "", ""},
		{"v4://h", strings.Repeat(long+"/", 4) + "n", "", ""},
		{"v4://h", "a/../b", "", ""},
		{"v4://h", "/a", "", ""},
		{"v4://h", "a/", "", ""},
		{"v4://h", `a\b`, "", ""},
		{"v4://h", "\xff", "", ""},
		{"v4://h", "", "", ""},
	} {
		n := namingFor(destination(t, c.to).ParseName)
		for way, parse := range map[string]struct {
			from func(string) (proto.FileName, error)
			want string
		}{"stored": {n.stored, c.stored}, "file": {n.file, c.file}} {
			got, err := parse.from(c.given)
			if got.String() != parse.want || (err != nil) != (parse.want == "") || err != nil && !errors.Is(err, proto.ErrName) {
				t.Errorf("%s, %s: %.20q is %.20q, %v; want %.20q", c.to, way, c.given, got, err, parse.want)
			}
		}
	}
}

// TestFolders sends names with folders to a destination that has them.
func TestFolders(t *testing.T) {
	s := newRealAPITo(t, "v4://127.0.0.1:1")
	const given, want = "build 17/e\u0301/app.tar.gz", "build 17/é/app.tar.gz"
	for way, a := range map[string]answer{
		"query":            s.ask(t, "POST", "/uploads?name="+url.QueryEscape(given), strings.NewReader("x")),
		"field before":     s.form(t, browser(field("name", given), file("x", "x"))),
		"field after":      s.form(t, browser(file("x", "x"), field("name", given))),
		"query and a form": s.ask(t, "POST", "/uploads?name="+url.QueryEscape(given), strings.NewReader(browser(file("x", "x"))), "Content-Type", formType),
	} {
		var got []Upload
		if way == "query" {
			got = []Upload{a.taken(t)}
		} else {
			got = a.takenAll(t)
		}
		if len(got) != 1 || got[0].Name != want {
			t.Errorf("%s: %+v, want one of name %q", way, got, want)
		}
	}
	for way, c := range map[string]struct {
		answer
		says string
	}{
		"filename of a form": {s.form(t, browser(file("dir/a", "x"))), "?name="},
		"filename of a body": {s.ask(t, "POST", "/uploads", strings.NewReader("x"), "Content-Disposition", `attachment; filename="dir/a"`), "?name="},
		"parent":             {s.ask(t, "POST", "/uploads?name=../a", strings.NewReader("x")), `part ".."`},
		"empty part":         {s.ask(t, "POST", "/uploads?name=a//b", strings.NewReader("x")), "is empty"},
		"back-slash":         {s.ask(t, "POST", `/uploads?name=a%5Cb`, strings.NewReader("x")), "back-slash"},
	} {
		p := c.problem(t, kindName)
		for _, says := range []string{c.says, "1 to 1,024 bytes", "/ between folders"} {
			if !strings.Contains(p.Detail, says) {
				t.Errorf("%s: %q does not say %q", way, p.Detail, says)
			}
		}
	}
	p := newRealAPI(t).ask(t, "POST", "/uploads?name=a/b", strings.NewReader("x")).problem(t, kindName)
	for _, says := range []string{"has no folders", "1 to 255 bytes", "without slashes"} {
		if !strings.Contains(p.Detail, says) {
			t.Errorf("version 3: %q does not say %q", p.Detail, says)
		}
	}
}
