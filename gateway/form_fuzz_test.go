package gateway

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"ferry/proto"
)

// collected is a receiver that keeps what comes in memory.
type collected struct {
	names    []string
	contents []string
}

func (c *collected) add(name proto.FileName, _ int64, body io.Reader) (int, error) {
	b, err := io.ReadAll(body)
	if err != nil {
		return 0, err
	}
	c.names, c.contents = append(c.names, name.String()), append(c.contents, string(b))
	return len(c.names) - 1, nil
}

func (c *collected) rename(i int, name proto.FileName) { c.names[i] = name.String() }

func (c *collected) sha256(int) [32]byte { return [32]byte{} }

func (c *collected) to(outlet) {}

func (c *collected) label(map[string]string) {}

func (c *collected) describe(attributes) {}

func (c *collected) ifVacant() {}

func (c *collected) commit() ([]Upload, error) { return nil, nil }

func (c *collected) fresh() bool { return true }

func (c *collected) abort() {}

// patient has deadlines that never pass.
type patient struct{ http.ResponseWriter }

func (patient) SetReadDeadline(time.Time) error { return nil }

// plain are the names of a destination without folders.
func plain() naming {
	to, err := proto.ParseDestination("v3://127.0.0.1")
	if err != nil {
		panic(err)
	}
	return namingFor(to.ParseName)
}

func collect(content []byte) (*collected, error) {
	c := &collected{}
	b := &body{
		src: io.NopCloser(bytes.NewReader(content)), control: http.NewResponseController(patient{}),
		stall: time.Hour, left: time.Hour, rate: 1,
	}
	return c, readForm(b, "X", &form{to: outlet{names: plain()}, labels: map[string]string{}, in: c})
}

// FuzzForm reads anything as a form: what is taken has names that can be stored
// and no more bytes than came, and can be written and read again.
func FuzzForm(f *testing.F) {
	f.Add([]byte(browser(file("a", "hello"), field("x", "y"))))
	f.Add([]byte(browser(field("name", "n"), file("", ""), file("a\"%22", "\r\n--"))))
	f.Add([]byte("--X\nContent-Disposition: form-data; filename*=UTF-8''%41\n\n1\n--X--"))
	f.Fuzz(func(t *testing.T, form []byte) {
		c, err := collect(form)
		if err != nil {
			return
		}
		if len(c.names) == 0 {
			t.Fatal("taken without a file")
		}
		total := 0
		var again []part
		for i, name := range c.names {
			if _, err := plain().stored(name); err != nil {
				t.Errorf("taken under a name that cannot be stored: %v", err)
			}
			total += len(c.contents[i])
			again = append(again, file(name, c.contents[i]))
		}
		if total > len(form) {
			t.Errorf("%d bytes taken of %d", total, len(form))
		}
		if written := browser(again...); strings.Count("\r\n"+written, "\r\n--X") == len(again)+1 && !strings.Contains(strings.Join(c.names, ""), "%") {
			checkForm(t, written, c)
		}
	})
}

func checkForm(t *testing.T, form string, want *collected) {
	t.Helper()
	got, err := collect([]byte(form))
	if err != nil {
		t.Fatalf("%q: %v", form, err)
	}
	for i, name := range want.names {
		if got.names[i] != name || got.contents[i] != want.contents[i] {
			t.Errorf("%q: got %q and %q, want %q and %q", form, got.names[i], got.contents[i], name, want.contents[i])
		}
	}
}

// FuzzFormName sends a file under a name as browsers do: it is taken under that
// very name, or refused if the name cannot be stored.
func FuzzFormName(f *testing.F) {
	for _, name := range goodNames {
		f.Add(name)
	}
	for name := range badNames {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if strings.Contains(name, "%22") || strings.Contains(name, "%0D") || strings.Contains(name, "%0A") {
			t.Skip("browsers write two names in the same way")
		}
		c, err := collect([]byte(browser(file(name, "hello"))))
		if _, bad := plain().stored(name); bad != nil {
			if err == nil {
				t.Errorf("%q was taken as %q", name, c.names)
			}
			return
		}
		if err != nil || c.names[0] != name {
			t.Errorf("%q was taken as %q, %v", name, c.names, err)
		}
	})
}
