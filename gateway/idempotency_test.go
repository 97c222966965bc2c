package gateway

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ferry/proto"
)

// keyedPut is a PUT with a key.
func (s *testAPI) keyedPut(t testing.TB, key, path, body string, header ...string) answer {
	t.Helper()
	return s.ask(t, "PUT", path, strings.NewReader(body), append([]string{"Idempotency-Key", key}, header...)...)
}

// wantSame wants two answers to be one.
func wantSame(t testing.TB, first, again answer) {
	t.Helper()
	if first.StatusCode != again.StatusCode || !bytes.Equal(first.body, again.body) {
		t.Errorf("answer %d %s, want again %d %s", again.StatusCode, again.body, first.StatusCode, first.body)
	}
	for _, name := range []string{"Location", "Retry-After", "Repr-Digest", "X-Checksum-Sha256", "Content-Type"} {
		if a, b := first.Header.Get(name), again.Header.Get(name); a != b {
			t.Errorf("%s: %q, want again %q", name, b, a)
		}
	}
}

// TestKeyedAgain gets the first answer again, whatever has become of the upload,
// and after a restart.
func TestKeyedAgain(t *testing.T) {
	dir, r := t.TempDir(), newRemote()
	c := openCore(t, dir, r)
	s := newTestAPI(t, c.httpAPI())
	put := func() answer { return s.keyedPut(t, `"build 17"`, "/uploads/a?label=x=1", "content") }
	first := put()
	u := first.upload(t, http.StatusAccepted)
	wantSame(t, first, put())
	s.ask(t, "DELETE", "/uploads/"+u.ID.String(), nil).upload(t, http.StatusOK)
	wantSame(t, first, put())
	if a := s.ask(t, "DELETE", "/uploads/"+u.ID.String(), nil); a.StatusCode != http.StatusNoContent {
		t.Fatalf("forget: %d", a.StatusCode)
	}
	wantSame(t, first, put())
	c.shut()

	c = openCore(t, dir, r)
	s = newTestAPI(t, c.httpAPI())
	wantSame(t, first, put())
	if got := s.ask(t, "GET", "/uploads", nil).uploads(t, http.StatusOK); len(got) != 0 {
		t.Errorf("%d uploads were made again", len(got))
	}
	c.time.advance(keyLife + time.Second)
	if again := put().upload(t, http.StatusAccepted); again.ID == u.ID {
		t.Error("the answer is kept for ever")
	}
}

// TestKeyedOtherRequest refuses other requests under the key, and keeps nothing of
// them.
func TestKeyedOtherRequest(t *testing.T) {
	s := newRealAPI(t)
	s.keyedPut(t, "k1", "/uploads/a?label=x=1", "content").upload(t, http.StatusAccepted)
	for what, ask := range map[string]func() answer{
		"content": func() answer { return s.keyedPut(t, "k1", "/uploads/a?label=x=1", "Content") },
		"name":    func() answer { return s.keyedPut(t, "k1", "/uploads/b?label=x=1", "content") },
		"label":   func() answer { return s.keyedPut(t, "k1", "/uploads/a?label=x=2", "content") },
		"mode":    func() answer { return s.keyedPut(t, "k1", "/uploads/a?label=x=1", "content", "X-Ferry-Mode", "0600") },
		"mtime": func() answer {
			return s.keyedPut(t, "k1", "/uploads/a?label=x=1", "content", "X-Ferry-Mtime", "2026-03-14T15:09:26Z")
		},
		"method": func() answer {
			return s.ask(t, "POST", "/uploads?name=a&label=x=1", strings.NewReader("content"), "Idempotency-Key", "k1")
		},
	} {
		t.Run(what, func(t *testing.T) { ask().problem(t, kindKeyReused) })
	}
	if got := s.ask(t, "GET", "/uploads", nil).uploads(t, http.StatusOK); len(got) != 1 {
		t.Errorf("%d uploads, want the first alone", len(got))
	}
}

// TestKeyedAfterRefusal: what was refused has not used the key up.
func TestKeyedAfterRefusal(t *testing.T) {
	s := newRealAPI(t)
	s.keyedPut(t, "k", "/uploads/a", "content", "X-Checksum-Sha256", sum([]byte("other"))).problem(t, kindMismatch)
	s.keyedPut(t, "k", "/uploads/a", "content", "X-Checksum-Sha256", sum([]byte("content"))).upload(t, http.StatusAccepted)
}

// TestKeyedRerun: the first answer may have been that it was there already.
func TestKeyedRerun(t *testing.T) {
	s := newRealAPI(t)
	u := s.ask(t, "PUT", "/uploads/a", strings.NewReader("content")).upload(t, http.StatusAccepted)
	first := s.keyedPut(t, "k", "/uploads/a", "content")
	if again := first.upload(t, http.StatusOK); again.ID != u.ID {
		t.Errorf("upload %s, want %s", again.ID, u.ID)
	}
	wantSame(t, first, s.keyedPut(t, "k", "/uploads/a", "content"))
}

// TestKeyedWhileRunning sends a request again whose first body is still coming in.
func TestKeyedWhileRunning(t *testing.T) {
	s := newRealAPI(t)
	body, more := io.Pipe()
	done := make(chan answer)
	go func() { done <- s.ask(t, "PUT", "/uploads/a", body, "Idempotency-Key", "k") }()
	if _, err := more.Write([]byte("con")); err != nil {
		t.Fatal(err)
	}
	for len(s.ask(t, "GET", "/uploads?state=receiving", nil).uploads(t, http.StatusOK)) == 0 {
		time.Sleep(time.Millisecond)
	}
	a := s.keyedPut(t, "k", "/uploads/a", "content")
	if a.problem(t, kindKeyRunning); a.Header.Get("Retry-After") != "1" {
		t.Errorf("Retry-After %q", a.Header.Get("Retry-After"))
	}
	if _, err := more.Write([]byte("tent")); err != nil {
		t.Fatal(err)
	}
	if err := more.Close(); err != nil {
		t.Fatal(err)
	}
	first := soon(t, done)
	first.upload(t, http.StatusAccepted)
	wantSame(t, first, s.keyedPut(t, "k", "/uploads/a", "content"))
}

// TestKeyedForm has curl send a form twice, with another boundary each time.
func TestKeyedForm(t *testing.T) {
	s := newRealAPI(t)
	for i := range 3 {
		if err := os.WriteFile(filepath.Join(t.TempDir(), "x"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		second := []string{"two", "two", "other"}[i]
		out, err := exec.CommandContext(t.Context(), "curl", "-sS", "-w", " %{http_code}", "-H", `Idempotency-Key: "k"`,
			"-F", "file=one;filename=one.txt", "-F", "file="+second+";filename=two.txt", s.url+"/uploads").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		want := []string{" 202", " 202", " 422"}[i]
		if !strings.HasSuffix(string(out), want) {
			t.Errorf("request %d: %s, want%s", i, out, want)
		}
	}
	if got := s.ask(t, "GET", "/uploads", nil).uploads(t, http.StatusOK); len(got) != 2 {
		t.Errorf("%d uploads, want two", len(got))
	}
}

// TestKeyedWaits gives the answer again that had waited for the delivery.
func TestKeyedWaits(t *testing.T) {
	c := openCore(t, t.TempDir(), newRemote())
	s := newTestAPI(t, c.httpAPI())
	c.deliverAll()
	first := s.keyedPut(t, "k", "/uploads/a", "content", "Prefer", "wait=20")
	if u := first.upload(t, http.StatusCreated); u.State != StateDelivered {
		t.Errorf("it is %s", u.State)
	}
	wantSame(t, first, s.keyedPut(t, "k", "/uploads/a", "content", "Prefer", "wait=20"))
}

// TestKeyedUndelivered gets the error again of a delivery that had failed, and after a
// restart, until the upload is retried.
func TestKeyedUndelivered(t *testing.T) {
	dir, r := t.TempDir(), newRemote()
	r.expect("a", fails(proto.ErrTooLarge))
	c := openCore(t, dir, r)
	s := newTestAPI(t, c.httpAPI())
	c.deliverAll()
	put := func(header ...string) answer { return s.keyedPut(t, "k", "/uploads/a", "content", header...) }
	first := put("Prefer", "wait=20").problem(t, kindUndelivered)
	wantAgain := func(header ...string) {
		t.Helper()
		if again := put(header...).problem(t, kindUndelivered); again.Upload != first.Upload || again.Detail != first.Detail {
			t.Errorf("again %+v, want %+v", again, first)
		}
	}
	wantAgain("Prefer", "wait=20")
	wantAgain()
	wantAgain("Expect", "100-continue", "X-Checksum-Sha256", sum([]byte("content")))
	c.shut()

	c = openCore(t, dir, r)
	s = newTestAPI(t, c.httpAPI())
	wantAgain("Prefer", "wait=20")
	wantAgain()
	s.ask(t, "POST", first.Upload+"/retry", nil).upload(t, http.StatusAccepted)
	if u := put().upload(t, http.StatusAccepted); u.address() != first.Upload {
		t.Errorf("upload %s, want %s", u.address(), first.Upload)
	}
	c.deliverAll()
	delivered := put("Prefer", "wait=20")
	if u := delivered.upload(t, http.StatusCreated); u.address() != first.Upload || u.State != StateDelivered {
		t.Errorf("%s is %s", u.address(), u.State)
	}
	wantSame(t, delivered, put())
	if got := s.ask(t, "GET", "/uploads", nil).uploads(t, http.StatusOK); len(got) != 1 {
		t.Errorf("%d uploads, want one", len(got))
	}
}

// TestKeyedUndeliveredForm gets the error of one of a form's files again.
func TestKeyedUndeliveredForm(t *testing.T) {
	r := newRemote()
	r.expect("b", fails(proto.ErrTooLarge))
	c := openCore(t, t.TempDir(), r)
	s := newTestAPI(t, c.httpAPI())
	c.deliverAll()
	send := func() answer {
		return s.form(t, browser(file("a", "one"), file("b", "two")), "Idempotency-Key", "k", "Prefer", "wait=20")
	}
	first := send().problem(t, kindUndelivered)
	if again := send().problem(t, kindUndelivered); again.Upload != first.Upload {
		t.Errorf("again %s, want %s", again.Upload, first.Upload)
	}
	s.ask(t, "POST", first.Upload+"/retry", nil).upload(t, http.StatusAccepted)
	if got := send().uploads(t, http.StatusCreated); len(got) != 2 {
		t.Errorf("%d uploads, want two", len(got))
	}
}

// TestKeyedEndedWhileWaiting gets the error again of an upload that somebody cancelled,
// or forgot, while its answer waited for it.
func TestKeyedEndedWhileWaiting(t *testing.T) {
	for want, ends := range map[problemKind]int{kindCancelled: 1, kindNotFound: 2} {
		t.Run(want.name, func(t *testing.T) {
			dir := t.TempDir()
			c := openCore(t, dir, newRemote())
			s := newTestAPI(t, c.httpAPI())
			put := func(header ...string) answer { return s.keyedPut(t, "k", "/uploads/a", "content", header...) }
			done := make(chan answer, 1)
			go func() { done <- put("Prefer", "wait=20") }()
			c.waiters(1)
			id := s.ask(t, "GET", "/uploads", nil).uploads(t, http.StatusOK)[0].ID
			if ends == 1 {
				s.ask(t, "DELETE", "/uploads/"+id.String(), nil).upload(t, http.StatusOK)
			} else {
				// In one step: a request that waits must not see it cancelled.
				if err := c.db.Update(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
					_, err := forget(ctx, tx, id)
					return err
				}); err != nil {
					t.Fatal(err)
				}
				c.live.changes.tell(id)
			}
			first := soon(t, done).problem(t, want)
			c.shut()

			s = newTestAPI(t, openCore(t, dir, newRemote()).httpAPI())
			for _, again := range []answer{put("Prefer", "wait=20"), put()} {
				if again := again.problem(t, want); again.Detail != first.Detail {
					t.Errorf("again %q, want %q", again.Detail, first.Detail)
				}
			}
		})
	}
}

// TestKeyedWaitsAgain: a request whose answer did not wait long enough, or was lost,
// waits when it is sent again.
func TestKeyedWaitsAgain(t *testing.T) {
	r := newRemote()
	c := openCore(t, t.TempDir(), r)
	s := newTestAPI(t, c.httpAPI())
	r.expect("failed", fails(proto.ErrTooLarge))
	for _, name := range []string{"a", "failed"} {
		put := func(wait string) answer { return s.keyedPut(t, name, "/uploads/"+name, "content", "Prefer", wait) }
		put("wait=0").upload(t, http.StatusAccepted)
		put("wait=0").upload(t, http.StatusAccepted)
	}
	c.deliverAll()
	first := s.keyedPut(t, "a", "/uploads/a", "content", "Prefer", "wait=20")
	if u := first.upload(t, http.StatusCreated); u.State != StateDelivered {
		t.Errorf("it is %s", u.State)
	}
	wantSame(t, first, s.keyedPut(t, "a", "/uploads/a", "content"))
	s.keyedPut(t, "failed", "/uploads/failed", "content", "Prefer", "wait=20").problem(t, kindUndelivered)
	s.keyedPut(t, "failed", "/uploads/failed", "content").problem(t, kindUndelivered)
}

// TestKeyedPutOfAForm: a body that is kept as it is, whatever its type, is no list.
func TestKeyedPutOfAForm(t *testing.T) {
	s := newRealAPI(t)
	put := func() answer {
		return s.keyedPut(t, "k", "/uploads/a", "content", "Content-Type", "multipart/form-data; boundary=x")
	}
	wantSame(t, put(), put())
}

// TestKeyedBeforeBody answers again before the body comes, if its digest says what
// it would be.
func TestKeyedBeforeBody(t *testing.T) {
	s := newRealAPI(t)
	const content = "content"
	digest := sum([]byte(content))
	s.keyedPut(t, "k", "/uploads/a", content).upload(t, http.StatusAccepted)
	path := filepath.Join(t.TempDir(), "a")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"k": "202 0", "other": "200 7" /* to be recorded */, "new": "202 7"} {
		name := map[bool]string{true: "b", false: "a"}[key == "new"]
		out, err := exec.CommandContext(t.Context(), "curl", "-sS", "-o", filepath.Join(t.TempDir(), "out"), "-w", "%{http_code} %{size_upload}",
			"-H", "Idempotency-Key: "+key, "-H", "Expect: 100-continue", "-H", "X-Checksum-Sha256: "+digest, "-T", path, s.url+"/uploads/"+name).CombinedOutput()
		if err != nil || string(out) != want {
			t.Errorf("key %s: %s, %v; want %s", key, out, err, want)
		}
	}
}

// TestKeyedByToken: a key is one token's.
func TestKeyedByToken(t *testing.T) {
	s := newGuarded(t)
	one, other := s.token(t, "one", ScopeUpload), s.token(t, "other", ScopeUpload)
	put := func(token string) answer {
		return s.ask(t, "PUT", "/uploads/"+token[len(token)-6:], strings.NewReader("x"), "Authorization", token, "Idempotency-Key", "k")
	}
	first := put(one)
	first.upload(t, http.StatusAccepted)
	put(other).upload(t, http.StatusAccepted)
	wantSame(t, first, put(one))
}

// TestKeysAreSwept: old answers go as new ones come.
func TestKeysAreSwept(t *testing.T) {
	c := openCore(t, t.TempDir(), newRemote())
	s := newTestAPI(t, c.httpAPI())
	count := func() (n int) {
		if err := c.db.Read().QueryRow("select count(*) from answered").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for i := range 3 * keySweep {
		s.keyedPut(t, fmt.Sprint(i), fmt.Sprintf("/uploads/%d", i), "x").upload(t, http.StatusAccepted)
	}
	c.time.advance(keyLife + time.Second)
	for i := range 4 {
		s.keyedPut(t, fmt.Sprint("new", i), fmt.Sprintf("/uploads/new%d", i), "x").upload(t, http.StatusAccepted)
	}
	if got := count(); got != 4 {
		t.Errorf("%d answers are kept, want 4", got)
	}
}

func TestParseKey(t *testing.T) {
	for field, want := range map[string]string{
		`"a"`: "a", `a`: "a", ` "a b" `: "a b", `"a\"b\\c"`: `a"b\c`, "8e03978e-40d5-43dd-bc93-6894a57f9324": "8e03978e-40d5-43dd-bc93-6894a57f9324",
		`"` + strings.Repeat("k", maxKey) + `"`: strings.Repeat("k", maxKey), `a=b/c:d`: "a=b/c:d",
	} {
		if got, ok := parseKey(field); !ok || got != want {
			t.Errorf("%s: %q, %v; want %q", field, got, ok, want)
		}
	}
	for _, field := range []string{"", `""`, `"`, `"a`, `a"`, "a b", "a,b", `"a", "b"`, "a;b", `"a\b"`, `"a\"`, "é", "a\x7f", "\"a\tb\"", strings.Repeat("k", maxKey+1)} {
		if got, ok := parseKey(field); ok {
			t.Errorf("%q is taken for %q", field, got)
		}
	}
	s := newRealAPI(t)
	s.keyedPut(t, `"`, "/uploads/a", "x").problem(t, kindKey)
	s.keyedPut(t, "a", "/uploads/a", "x", "Idempotency-Key", "b").problem(t, kindKey)
	if d := cmp.Diff(0, len(s.ask(t, "GET", "/uploads", nil).uploads(t, http.StatusOK))); d != "" {
		t.Error(d)
	}
}
