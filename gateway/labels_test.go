package gateway

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLabelsAreKeptAndShown(t *testing.T) {
	forBoth(t, func(t *testing.T, s *testAPI) {
		want := map[string]string{"build": "17", "ci/run-url_1.x": "https://a/?b=c", "empty": "", "where": "東京 🚢 <&>"}
		q := url.Values{"name": {"a"}}
		for key, value := range want {
			q.Add("label", key+"="+value)
		}
		q.Add("label", "build=17") // again
		u := s.ask(t, "POST", "/uploads?"+q.Encode(), strings.NewReader("x")).upload(t, http.StatusAccepted)
		if d := cmp.Diff(want, u.Labels); d != "" {
			t.Errorf("answer (-want +got):\n%s", d)
		}
		u = s.ask(t, "GET", "/uploads/"+u.ID.String(), nil).upload(t, http.StatusOK)
		if d := cmp.Diff(want, u.Labels); d != "" {
			t.Errorf("GET (-want +got):\n%s", d)
		}
	})
}

func TestFormLabels(t *testing.T) {
	forBoth(t, func(t *testing.T, s *testAPI) {
		form := browser(field("label", "a=1"), file("x", "1"), field("label", "b=2"), file("y", "2"), field("label", "a=1"))
		for _, u := range s.ask(t, "POST", "/uploads?label=c=3", strings.NewReader(form), "Content-Type", "multipart/form-data; boundary=X").uploads(t, http.StatusAccepted) {
			if d := cmp.Diff(map[string]string{"a": "1", "b": "2", "c": "3"}, u.Labels); d != "" {
				t.Errorf("%s (-want +got):\n%s", u.Name, d)
			}
		}
		form = browser(field("label", "c=4"), file("x", "1"))
		s.ask(t, "POST", "/uploads?label=c=3", strings.NewReader(form), "Content-Type", "multipart/form-data; boundary=X").problem(t, kindLabel)
	})
}

func TestLabelLimits(t *testing.T) {
	forBoth(t, func(t *testing.T, s *testAPI) {
		post := func(labels ...string) answer {
			return s.ask(t, "POST", "/uploads?"+url.Values{"name": {"a"}, "label": labels}.Encode(), strings.NewReader("x"))
		}
		most := []string{strings.Repeat("k", maxLabelKey) + "=" + strings.Repeat("é", maxLabelValue)}
		for i := range maxLabels - 1 {
			most = append(most, strconv.Itoa(i)+"=")
		}
		if u := post(most...).upload(t, http.StatusAccepted); len(u.Labels) != maxLabels {
			t.Errorf("%d labels, want %d", len(u.Labels), maxLabels)
		}
		for name, labels := range map[string][]string{
			"one more":     append(most, "more="),
			"no value":     {"a"},
			"empty":        {""},
			"no key":       {"=1"},
			"long key":     {strings.Repeat("k", maxLabelKey+1) + "="},
			"upper case":   {"A=1"},
			"blank":        {"a b=1"},
			"long value":   {"a=" + strings.Repeat("é", maxLabelValue+1)},
			"control":      {"a=1\n2"},
			"bad UTF-8":    {"a=\xff"},
			"text flow":    {"a=\u202e"},
			"two values":   {"a=1", "a=2"},
			"one of a few": {"a=1", "B=2"},
		} {
			if p := post(labels...).problem(t, kindLabel); !strings.Contains(p.Detail, "Nothing of this request was kept") {
				t.Errorf("%s: %s", name, p.Detail)
			}
		}
		if got := s.ask(t, "GET", "/uploads", nil).uploads(t, http.StatusOK); len(got) != 1 {
			t.Errorf("%d uploads are kept, want the one that was taken", len(got))
		}
	})
}

// TestLabelsGo leaves nothing of an upload that is forgotten.
func TestLabelsGo(t *testing.T) {
	c := openCore(t, t.TempDir(), newRemote())
	r := c.receive(t.Context())
	defer r.abort()
	r.label(map[string]string{"a": "1", "b": "2"})
	if _, err := r.add(fileName(t, "x"), 1, strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	u, err := r.commit()
	if err != nil {
		t.Fatal(err)
	}
	count := func() (n int) {
		if err := c.db.Read().QueryRow("select count(*) from labels").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if got := count(); got != 2 {
		t.Fatalf("%d labels are recorded, want 2", got)
	}
	for range 2 { // cancelled, then forgotten
		if _, _, err := c.remove(t.Context(), u[0].ID); err != nil {
			t.Fatal(err)
		}
	}
	if got := count(); got != 0 {
		t.Errorf("%d labels are left, want none", got)
	}
}
