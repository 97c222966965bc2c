package gateway

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A part of a form: a file if filename is not nil.
type part struct {
	name     string
	filename *string
	content  string
	header   string // more of it, each line with its end
}

func file(filename, content string) part {
	return part{name: "file", filename: &filename, content: content}
}

func field(name, content string) part { return part{name: name, content: content} }

// browser writes a form as browsers do.
func browser(parts ...part) string {
	escape := strings.NewReplacer(`"`, "%22", "\r", "%0D", "\n", "%0A")
	var b strings.Builder
	for _, p := range parts {
		fmt.Fprintf(&b, "--X\r\nContent-Disposition: form-data; name=\"%s\"", escape.Replace(p.name))
		if p.filename != nil {
			fmt.Fprintf(&b, "; filename=\"%s\"\r\nContent-Type: application/octet-stream", escape.Replace(*p.filename))
		}
		fmt.Fprintf(&b, "\r\n%s\r\n%s\r\n", p.header, p.content)
	}
	return b.String() + "--X--\r\n"
}

const formType = "multipart/form-data; boundary=X"

func (s *testAPI) form(t testing.TB, body string, header ...string) answer {
	t.Helper()
	return s.ask(t, "POST", "/uploads", strings.NewReader(body), append(header, "Content-Type", formType)...)
}

func TestFormNames(t *testing.T) {
	forBoth(t, func(t *testing.T, s *testAPI) {
		for _, name := range goodNames {
			if got := s.form(t, browser(file(name, "hello"))).uploads(t, http.StatusAccepted); len(got) != 1 || got[0].Name != name || *got[0].SHA256 != sum([]byte("hello")) {
				t.Errorf("browser: got %+v, want one of name %q", got, name)
			}
			// Go's own writer and older curls escape with back-slashes.
			var b bytes.Buffer
			w := multipart.NewWriter(&b)
			if err := w.SetBoundary("X"); err != nil {
				t.Fatal(err)
			}
			p, err := w.CreateFormFile("file", name)
			if err == nil {
				_, err = io.WriteString(p, "hello")
			}
			if err != nil || w.Close() != nil {
				t.Fatal(err)
			}
			if got := s.form(t, b.String()).takenAll(t); len(got) != 1 || got[0].Name != name {
				t.Errorf("Go: got %+v, want one of name %q", got, name)
			}
			if got := s.form(t, browser(file("other", "hello"), field("name", name))).takenAll(t); got[0].Name != name {
				t.Errorf("field: got %q, want %q", got[0].Name, name)
			}
		}
		for name, reason := range badNames {
			for way, body := range map[string]string{
				"file":   browser(file(name, "hello")),
				"before": browser(field("name", name), file("good", "hello")),
				"after":  browser(file("good", "hello"), field("name", name)),
			} {
				if way == "file" && (strings.Contains(name, "\x00") || strings.Contains(name, "\x7f")) {
					continue // no header may have it
				}
				if p := s.form(t, body).problem(t, kindName); !strings.Contains(p.Detail, reason) {
					t.Errorf("%s %q: detail %q, want one with %q", way, name, p.Detail, reason)
				}
			}
		}
		// Go's parser would take a part of these away, or all but the last element.
		for _, name := range []string{`a\(b`, `a\b`, `C:\dir\a`, "dir/a", "a/", "../a"} {
			s.form(t, browser(file(name, "hello"))).problem(t, kindName)
		}
	})
}

func TestFormExtendedNames(t *testing.T) {
	s := newFakeAPI(t)
	for header, want := range map[string]string{
		`filename="x"; filename*=UTF-8''gr%C3%BC%C3%9Fe%2041`: "grüße 41",
		`filename*=UTF-8''%2522`:                              "%22", // decoded once
		`filename=token`:                                      "token",
		`filename="filename*"`:                                "filename*",
	} {
		body := "--X\r\nContent-Disposition: form-data; name=\"file\"; " + header + "\r\n\r\nhello\r\n--X--\r\n"
		if got := s.form(t, body).uploads(t, http.StatusAccepted); len(got) != 1 || got[0].Name != want {
			t.Errorf("%s: got %+v, want %q", header, got, want)
		}
	}
	s.form(t, "--X\r\nContent-Disposition: form-data; name=f; filename*=latin1''%E4\r\n\r\nhello\r\n--X--\r\n").problem(t, kindName)
}

func TestFormFields(t *testing.T) {
	fields := func(n int) []part { return slices.Repeat([]part{field("x", "y")}, n) }
	for name, c := range map[string]struct {
		parts []part
		want  []string // names, or
		kind  problemKind
	}{
		"one":                     {parts: []part{file("a", "1")}, want: []string{"a"}},
		"two":                     {parts: []part{file("a", "1"), file("b", "2")}, want: []string{"a", "b"}},
		"name before":             {parts: []part{field("name", "n"), file("a", "1")}, want: []string{"n"}},
		"name after":              {parts: []part{file("a", "1"), field("name", "n")}, want: []string{"n"}},
		"others around":           {parts: []part{field("x", ""), file("a", "1"), field("y", "\r\n--"), field("name", "n"), field("z", "z")}, want: []string{"n"}},
		"no file chosen":          {parts: []part{file("", ""), file("a", "1"), file("", "")}, want: []string{"a"}},
		"empty file":              {parts: []part{file("a", "")}, want: []string{"a"}},
		"empty among others":      {parts: []part{file("a", ""), file("b", "2"), file("c", "")}, want: []string{"a", "b", "c"}},
		"binary":                  {parts: []part{{name: "f", filename: new("a"), content: "1", header: "Content-Transfer-Encoding: binary\r\n"}}, want: []string{"a"}},
		"fields of others":        {parts: []part{field("resumableFilename", "b"), field("timezone", "UTC"), field("submit", "Send"), file("a", "1")}, want: []string{"a"}},
		"any field":               {parts: []part{{name: "name", filename: new("a"), content: "1"}}, want: []string{"a"}},
		"as many fields as can":   {parts: append(fields(maxFields), file("a", "1")), want: []string{"a"}},
		"as large a field as can": {parts: []part{field("x", strings.Repeat("x", maxField)), file("a", "1")}, want: []string{"a"}},

		"nothing":               {kind: kindNoFile},
		"no file":               {parts: []part{field("file", "content")}, kind: kindNoFile},
		"only not chosen":       {parts: []part{file("", "")}, kind: kindNoFile},
		"content, no name":      {parts: []part{file("", "1")}, kind: kindName},
		"two names":             {parts: []part{field("name", "n"), file("a", "1"), field("name", "m")}, kind: kindName},
		"name before two":       {parts: []part{field("name", "n"), file("a", "1"), file("b", "2")}, kind: kindName},
		"name between two":      {parts: []part{file("a", "1"), field("name", "n"), file("b", "2")}, kind: kindName},
		"name after two":        {parts: []part{file("a", "1"), file("b", "2"), field("name", "n")}, kind: kindName},
		"second is bad":         {parts: []part{file("a", "1"), file("..", "2")}, kind: kindName},
		"base64":                {parts: []part{{name: "f", filename: new("a"), content: "MQ==", header: "Content-Transfer-Encoding: base64\r\n"}}, kind: kindEncoding},
		"quoted-printable":      {parts: []part{{name: "f", filename: new("a"), content: "=31", header: "Content-Transfer-Encoding: quoted-printable\r\n"}}, kind: kindEncoding},
		"misspelt":              {parts: []part{file("a", "1"), field("destnatoin", "prod")}, kind: kindUnknown},
		"misspelt, in capitals": {parts: []part{field("Label", "build=17"), file("a", "1")}, kind: kindUnknown},
		"too many fields":       {parts: append(fields(maxFields+1), file("a", "1")), kind: kindTooMany},
		"too many unchosen":     {parts: slices.Repeat([]part{file("", "")}, maxFields+1), kind: kindTooMany},
		"too large a field":     {parts: []part{file("a", "1"), field("x", strings.Repeat("x", maxField+1))}, kind: kindTooMany},
		"too large a header":    {parts: []part{{name: strings.Repeat("x", maxBetween), filename: new("a"), content: "1"}}, kind: kindForm},
		"too many headers":      {parts: []part{{name: "f", filename: new("a"), content: "1", header: strings.Repeat("A: b\r\n", 10_000)}}, kind: kindForm},
	} {
		t.Run(name, func(t *testing.T) {
			s := newFakeAPI(t)
			a := s.form(t, browser(c.parts...))
			if c.want == nil {
				a.problem(t, c.kind)
				if got := s.names(); len(got) > 0 {
					t.Errorf("kept %q, want nothing", got)
				}
				return
			}
			var got []string
			uploads := a.uploads(t, http.StatusAccepted)
			for _, u := range uploads {
				got = append(got, u.Name)
			}
			if !slices.Equal(got, c.want) || !slices.Equal(s.names(), c.want) {
				t.Errorf("got %q, kept %q, want %q", got, s.names(), c.want)
			}
			if got, want := a.Header.Get("Location"), "/uploads/"+uploads[0].ID.String(); got != want {
				t.Errorf("Location is %q, want %q", got, want)
			}
		})
	}
}

func TestFormNameInAddress(t *testing.T) {
	s := newFakeAPI(t)
	post := func(parts ...part) answer {
		return s.ask(t, "POST", "/uploads?name=n", strings.NewReader(browser(parts...)), "Content-Type", formType)
	}
	if got := post(file("a", "1")).uploads(t, http.StatusAccepted); got[0].Name != "n" {
		t.Errorf("got %q, want n", got[0].Name)
	}
	post(file("a", "1"), file("b", "2")).problem(t, kindName)
	post(file("a", "1"), field("name", "m")).problem(t, kindName)
}

func TestFormManyFiles(t *testing.T) {
	forBoth(t, func(t *testing.T, s *testAPI) {
		var parts []part
		for i := range maxFiles + 1 {
			parts = append(parts, file(fmt.Sprint(i), fmt.Sprint(i)))
		}
		if got := s.form(t, browser(parts[1:]...)).uploads(t, http.StatusAccepted); len(got) != maxFiles || got[0].Name != "1" {
			t.Errorf("got %d uploads, want %d", len(got), maxFiles)
		}
		if p := s.form(t, browser(parts...)).problem(t, kindTooMany); p.Limit != maxFiles {
			t.Errorf("limit %d, want %d", p.Limit, maxFiles)
		}
	})
}

// TestFormContent sends what looks like a boundary and is none.
func TestFormContent(t *testing.T) {
	forBoth(t, func(t *testing.T, s *testAPI) {
		large := strings.Repeat("0123456789abcdef", 20_000)
		contents := []string{"", "\r\n", "\r\n--", "\r\n--Y", "--X", "--", "\r", "\n--X\n", "\r\n--X0", "\r\n-X--", large, large + "\r\n", "\r\n--\r\n--XX" + large}
		var parts []part
		for i, c := range contents {
			if strings.HasPrefix(c, "--X") {
				c = "." + c // at the start of a part it is a boundary to most readers
			}
			contents[i] = c
			parts = append(parts, file(fmt.Sprint(i), c))
		}
		for i, u := range s.form(t, browser(parts...)).uploads(t, http.StatusAccepted) {
			if *u.Size != int64(len(contents[i])) || *u.SHA256 != sum([]byte(contents[i])) {
				t.Errorf("%.20q: got %d bytes, want %d", contents[i], *u.Size, len(contents[i]))
			}
		}
	})
}

func TestMalformedForms(t *testing.T) {
	whole := browser(file("a", "hello"), field("x", "y"))
	s := newFakeAPI(t)
	for name, body := range map[string]string{
		"empty":               "",
		"other boundary":      strings.ReplaceAll(whole, "--X", "--Y"),
		"large preamble":      strings.Repeat("junk\r\n", 4000) + whole,
		"long line before":    strings.Repeat("j", 8000) + "\r\n" + whole,
		"large epilogue":      whole + strings.Repeat("junk\r\n", 4000),
		"no disposition":      "--X\r\n\r\nhello\r\n--X--\r\n",
		"attachment":          "--X\r\nContent-Disposition: attachment; filename=a\r\n\r\nhello\r\n--X--\r\n",
		"bad disposition":     "--X\r\nContent-Disposition: form-data; filename=\"a\r\n\r\nhello\r\n--X--\r\n",
		"two filenames":       "--X\r\nContent-Disposition: form-data; filename=a; filename=b\r\n\r\nhello\r\n--X--\r\n",
		"header without end":  "--X\r\nContent-Disposition: form-data; filename=a",
		"line without colon":  "--X\r\nnonsense\r\n\r\nhello\r\n--X--\r\n",
		"junk after boundary": "--X junk\r\nContent-Disposition: form-data; filename=a\r\n\r\nhello\r\n--X--\r\n",
	} {
		a := s.form(t, body)
		if a.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: answer %d %s, want 400", name, a.StatusCode, a.body)
		}
	}
	// Every cut of a form is an error, down to its last boundary's dashes.
	for n := range len(whole) - len("\r\n") {
		if a := s.form(t, whole[:n]); a.StatusCode != http.StatusBadRequest {
			t.Errorf("%q: answer %d %s, want 400", whole[:n], a.StatusCode, a.body)
		}
	}
	if got := s.names(); len(got) > 0 {
		t.Errorf("kept %q, want nothing", got)
	}
	for _, body := range []string{whole, whole[:len(whole)-2], "preamble\r\n" + whole, whole + "epilogue"} {
		s.form(t, body).uploads(t, http.StatusAccepted)
	}
}

// TestFormTooLarge stops reading at the limit.
func TestFormTooLarge(t *testing.T) {
	s := newFakeAPI(t, func(_ *httpAPI, c *fakeCore) { c.limit = 1000 })
	s.form(t, browser(file("a", strings.Repeat("x", 1000)), file("b", strings.Repeat("x", 1000)))).uploads(t, http.StatusAccepted)
	a := s.form(t, browser(file("c", "small"), file("d", strings.Repeat("x", 1001)), file("e", strings.Repeat("x", 10<<20))))
	if p := a.problem(t, kindTooLarge); p.Limit != 1000 || !strings.Contains(p.Detail, "1,000") || !a.Close {
		t.Errorf("problem %+v, connection closed: %v", p, a.Close)
	}
	if got, want := s.names(), []string{"a", "b"}; !slices.Equal(got, want) {
		t.Errorf("kept %q, want %q", got, want)
	}
	s.core.mu.Lock()
	defer s.core.mu.Unlock()
	if got, want := s.core.lost, []string{"c"}; !slices.Equal(got, want) {
		t.Errorf("dropped %q, want %q", got, want)
	}
}

// TestFormOfBrowser is answered with the page, if no script sent it.
func TestFormOfBrowser(t *testing.T) {
	s := newFakeAPI(t)
	a := s.form(t, browser(file("a", "1")), "Origin", s.url, "Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "navigate", "Accept", "text/html,*/*;q=0.8")
	if a.StatusCode != http.StatusSeeOther || a.Header.Get("Location") != "/#sent" {
		t.Errorf("answer %d, Location %q; want 303 and /#sent", a.StatusCode, a.Header.Get("Location"))
	}
	s.form(t, browser(file("b", "1")), "Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "cors", "Accept", "*/*").uploads(t, http.StatusAccepted)
	if got, want := s.names(), []string{"a", "b"}; !slices.Equal(got, want) {
		t.Errorf("kept %q, want %q", got, want)
	}
}

// curl runs curl and returns status, body and what it prints with -v.
func curl(t testing.TB, args ...string) (answer, trace string) {
	t.Helper()
	return curlFrom(t, nil, args...)
}

// curlFrom is curl that reads stdin.
func curlFrom(t testing.TB, stdin io.Reader, args ...string) (answer, trace string) {
	t.Helper()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is not installed: make deps")
	}
	ctx, cancel := context.WithTimeout(t.Context(), testPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "curl", append([]string{"--verbose", "--silent", "--show-error"}, args...)...)
	var out, verbose bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &verbose
	if err := cmd.Run(); err != nil {
		t.Errorf("curl %q: %v\n%s", args, err, verbose.Bytes())
	}
	return out.String(), verbose.String()
}

// TestCurl sends names as curl escapes them.
func TestCurl(t *testing.T) {
	s := newFakeAPI(t)
	path := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(path, bytes.Repeat([]byte("x"), 200_000), 0o600); err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, name := range goodNames {
		quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name)
		for _, args := range [][]string{
			{"-F", fmt.Sprintf(`file=@"%s";filename="%s"`, path, quoted)},
			{"--form-escape", "-F", fmt.Sprintf(`file=@"%s";filename="%s"`, path, quoted)},
			{"-F", "name=" + "x", "-F", "file=@" + path},
		} {
			if len(args) == 4 {
				args[1] = "name=" + quotedField(name)
			}
			out, _ := curl(t, append(args, s.url+"/uploads")...)
			if !strings.Contains(out, `"uploads"`) {
				t.Errorf("curl %q: %s", args, out)
			}
			want = append(want, name)
		}
	}
	if got := s.names(); !slices.Equal(got, want) {
		t.Errorf("kept %q, want %q", got, want)
	}
}

// quotedField is a field's value as curl's -F wants it.
func quotedField(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// raw sends bytes as they are and returns the connection.
func (s *testAPI) raw(t testing.TB, request string) net.Conn {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	return conn
}
