package gateway

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestRerun sends the same again, and something else under its name, in each
// state.
func TestRerun(t *testing.T) {
	for size, body := range map[string]string{"small": "hello", "large": content(7, 2*smallBody)} {
		t.Run(size, func(t *testing.T) {
			dir := t.TempDir()
			r := newRemote()
			hold := newGate()
			r.expect("f", hold.then((*sending).deliver))
			c := openCore(t, dir, r)
			s := newTestAPI(t, c.httpAPI())
			first := s.ask(t, "PUT", "/uploads/f?label=n=1", strings.NewReader(body)).upload(t, http.StatusAccepted)
			check := func() {
				t.Helper()
				a := s.ask(t, "POST", "/uploads?name=f&label=n=2", strings.NewReader(body))
				if u := a.upload(t, http.StatusOK); u.ID != first.ID || u.Labels["n"] != "1" || a.Header.Get("Location") != first.address() || a.Header.Get("Retry-After") != "" {
					t.Errorf("the same again is %+v", u)
				}
				other := body[1:]
				p := s.ask(t, "PUT", "/uploads/f", strings.NewReader(other)).problem(t, kindConflict)
				if p.SHA256 != sum([]byte(other)) || p.ExistingSHA256 != *first.SHA256 || p.Upload != first.address() {
					t.Errorf("other content is %+v", p)
				}
			}
			check()
			c.deliverAll()
			hold.await(t)
			check()
			close(hold.open)
			c.await(first.ID, StateDelivered)
			check()
			if l := s.ask(t, "GET", "/uploads", nil).uploads(t, http.StatusOK); len(l) != 1 {
				t.Errorf("%d uploads, want 1", len(l))
			}
			waitSpool(t, c, dir)
		})
	}
}

// TestRerunOfWhatDoesNotCount wants a new job after a failure and a cancellation.
func TestRerunOfWhatDoesNotCount(t *testing.T) {
	s := newRealAPI(t)
	first := s.ask(t, "PUT", "/uploads/f", strings.NewReader("1")).upload(t, http.StatusAccepted)
	s.ask(t, "DELETE", first.address(), nil).upload(t, http.StatusOK)
	second := s.ask(t, "PUT", "/uploads/f", strings.NewReader("1")).upload(t, http.StatusAccepted)
	if second.ID == first.ID {
		t.Error("a cancelled upload is taken for the same")
	}
	s.ask(t, "DELETE", second.address(), nil).upload(t, http.StatusOK)
	s.ask(t, "PUT", "/uploads/f", strings.NewReader("2")).upload(t, http.StatusAccepted)
}

// TestRerunOfForm takes of a form what is not there yet, or nothing.
func TestRerunOfForm(t *testing.T) {
	s := newRealAPI(t)
	first := s.form(t, browser(file("a", "1"), file("b", "2"))).uploads(t, http.StatusAccepted)
	again := s.form(t, browser(file("b", "2"), file("a", "1"))).uploads(t, http.StatusOK)
	if again[0].ID != first[1].ID || again[1].ID != first[0].ID {
		t.Errorf("the same again is %+v", again)
	}
	more := s.form(t, browser(file("a", "1"), file("c", "3"), file("c", "3"))).uploads(t, http.StatusAccepted)
	if more[0].ID != first[0].ID || more[1].ID == first[1].ID || more[1].ID != more[2].ID {
		t.Errorf("with another file it is %+v", more)
	}
	s.form(t, browser(file("d", "4"), file("a", "2"))).problem(t, kindConflict)
	p := s.form(t, browser(file("e", "4"), file("e", "5"))).problem(t, kindConflict)
	if p.Upload != "" || p.SHA256 != sum([]byte("5")) || p.ExistingSHA256 != sum([]byte("4")) || !strings.Contains(p.Detail, "two files") {
		t.Errorf("of a form that contradicts itself: %+v", p)
	}
	s.form(t, browser(file("e", "4"), file("e", "5")), "If-None-Match", "*").problem(t, kindConflict)
	if l := s.ask(t, "GET", "/uploads", nil).uploads(t, http.StatusOK); len(l) != 3 {
		t.Errorf("%d uploads, want 3", len(l))
	}
	twice := s.form(t, browser(file("g", "6"), file("g", "6")), "If-None-Match", "*").uploads(t, http.StatusAccepted)
	if twice[0].ID != twice[1].ID {
		t.Errorf("the same file twice, if it is new, is %+v", twice)
	}
}

// TestRerunsAtOnce sends the same 200 times at once, and wants one job.
func TestRerunsAtOnce(t *testing.T) {
	s := newRealAPI(t)
	var mu sync.Mutex
	status := map[int]int{}
	ids := map[string]bool{}
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			path := "/uploads/f"
			if i%2 == 0 {
				path += "?label=n=" + fmt.Sprint(i)
			}
			a := s.ask(t, "PUT", path, strings.NewReader("the same"))
			mu.Lock()
			defer mu.Unlock()
			status[a.StatusCode]++
			ids[a.Header.Get("Location")] = true
		})
	}
	all.Wait()
	if status[http.StatusAccepted] != 1 || status[http.StatusOK] != 199 || len(ids) != 1 {
		t.Errorf("answers %v, uploads %v; want one new one", status, ids)
	}
	if l := s.ask(t, "GET", "/uploads", nil).uploads(t, http.StatusOK); len(l) != 1 {
		t.Errorf("%d uploads, want 1", len(l))
	}
}

// TestRerunIsToldFirst wants the answer before the body, where its sender waits
// for that.
func TestRerunIsToldFirst(t *testing.T) {
	s := newRealAPI(t)
	body := content(9, 3*smallBody)
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"-T", path, "-H", "Expect: 100-continue", "-H", "X-Checksum-Sha256: " + sum([]byte(body)), s.url + "/uploads/"}
	if _, trace := curl(t, args...); !strings.Contains(trace, "202 Accepted") || !strings.Contains(trace, "100 Continue") {
		t.Errorf("curl: %s", trace)
	}
	if _, trace := curl(t, args...); !strings.Contains(trace, "200 OK") || strings.Contains(trace, "100 Continue") {
		t.Errorf("curl again: %s", trace)
	}
	conn := s.raw(t, "PUT /uploads/f HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 9\r\nX-Checksum-Sha256: "+sum([]byte("other"))+"\r\n\r\n")
	buffered := bufio.NewReader(conn)
	read(t, buffered).problem(t, kindConflict)
	wantClosed(t, conn)
}

// TestRerunPlan wants the look for the same upload to cost the same however many
// of its name have failed or were delivered elsewhere.
func TestRerunPlan(t *testing.T) {
	g := openCore(t, t.TempDir(), newRemote())
	plan := planOf(t, g, selectSame, "default", "f", "f", "v3://h")
	for _, index := range []string{"jobs_first_of_name (lane=? AND name=?)", "jobs_parked (lane=? AND name=?)", "uploads_delivered_by_name (name=? AND destination=?)"} {
		if !strings.Contains(plan, index) {
			t.Errorf("plan %s, want %s in it", plan, index)
		}
	}
}

// TestIntakesTogether has requests wait for the writer at the same time, so that it records
// them together: each is answered as if it had come alone.
func TestIntakesTogether(t *testing.T) {
	c := openCore(t, t.TempDir(), newRemote())
	s := newTestAPI(t, c.httpAPI())
	delivered := s.ask(t, "PUT", "/uploads/there", strings.NewReader("there")).upload(t, http.StatusAccepted)
	release := c.holdWriter()
	var all sync.WaitGroup
	const n = 40
	large := strings.Repeat("x", 2*smallBody)
	var same, either [n]answer
	var fresh, again, spooled, refused [n]answer
	for i := range n {
		put := func(to *answer, address, body string) {
			all.Go(func() { *to = s.ask(t, "PUT", "/uploads/"+address, strings.NewReader(body)) })
		}
		put(&fresh[i], fmt.Sprintf("fresh-%d?label=n=%d", i, i), fmt.Sprint(i))
		put(&spooled[i], fmt.Sprintf("spooled-%d", i), large)
		put(&same[i], "same", "same")
		put(&either[i], "either", fmt.Sprint(i%2))
		put(&again[i], "there", "there")
		put(&refused[i], "there", "else")
	}
	time.Sleep(50 * time.Millisecond) // for them to wait; those that come later are right as well
	release()
	all.Wait()
	made := map[string]int{}
	for i := range n {
		u := fresh[i].upload(t, http.StatusAccepted)
		if u.Name != fmt.Sprintf("fresh-%d", i) || u.Labels["n"] != fmt.Sprint(i) || *u.SHA256 != sum(fmt.Append(nil, i)) {
			t.Errorf("fresh %d is %+v", i, u)
		}
		if got := s.ask(t, "GET", u.address(), nil).upload(t, http.StatusOK); *got.SHA256 != *u.SHA256 || got.Labels["n"] != u.Labels["n"] {
			t.Errorf("fresh %d is kept as %+v", i, got)
		}
		if b, err := c.body(t.Context(), u.ID); err != nil || string(b) != fmt.Sprint(i) {
			t.Errorf("the body of fresh %d is %q, %v", i, b, err)
		}
		if u := spooled[i].upload(t, http.StatusAccepted); *u.SHA256 != sum([]byte(large)) {
			t.Errorf("spooled %d is %+v", i, u)
		}
		if u := again[i].upload(t, http.StatusOK); u.ID != delivered.ID {
			t.Errorf("again %d is %+v", i, u)
		}
		refused[i].problem(t, kindConflict)
		for name, a := range map[string]answer{"same": same[i], "either": either[i]} {
			switch a.StatusCode {
			case http.StatusAccepted:
				made[name]++
			case http.StatusOK:
			default:
				if p := a.problem(t, kindConflict); name == "same" {
					t.Errorf("the same at once: %+v", p)
				}
				made[name+" refused"]++
			}
		}
	}
	if made["same"] != 1 || made["either"] != 1 || made["either refused"] != n/2 {
		t.Errorf("of the same names there were %v", made)
	}
	changes := map[int64]bool{}
	for _, u := range s.ask(t, "GET", "/uploads?limit=500", nil).uploads(t, http.StatusOK) {
		loaded, err := c.load(t.Context(), c.db.Read(), u.ID)
		if err != nil || changes[loaded.Change] {
			t.Errorf("%s has change %d as another one has, or %v", u.Name, loaded.Change, err)
		}
		changes[loaded.Change] = true
	}
	if want := 2*n + 3; len(changes) != want {
		t.Errorf("%d uploads, want %d", len(changes), want)
	}
}

// TestOnlyNew sends files that must be the first of their names.
func TestOnlyNew(t *testing.T) {
	s := newRealAPI(t)
	put := func(name, body string, fields ...string) answer {
		return s.ask(t, "PUT", "/uploads/"+name, strings.NewReader(body), append(fields, "If-None-Match", "*")...)
	}
	first := put("f", "1").upload(t, http.StatusAccepted)
	for _, body := range []string{"1", "2"} {
		p := put("f", body).problem(t, kindPrecondition)
		if p.Upload != first.address() || p.ExistingSHA256 != *first.SHA256 {
			t.Errorf("%q again: %+v, want it to name %s", body, p, first.address())
		}
		s.ask(t, "POST", "/uploads?name=f", strings.NewReader(body), "If-None-Match", `"x", *`).problem(t, kindPrecondition)
	}
	s.ask(t, "PUT", "/uploads/f", strings.NewReader("1"), "If-None-Match", `"x"`).upload(t, http.StatusOK)

	// Of a form all or none.
	form := browser(file("e", "1"), file("f", "1"))
	post := func(form string) answer { return s.form(t, form, "If-None-Match", "*") }
	post(form).problem(t, kindPrecondition)
	if l := s.ask(t, "GET", "/uploads", nil).uploads(t, http.StatusOK); len(l) != 1 {
		t.Errorf("%d uploads, want 1", len(l))
	}
	post(browser(file("e", "1"), file("g", "1"))).uploads(t, http.StatusAccepted)

	// What was cancelled has not been there. With a key, what is sent again is its own first.
	s.ask(t, "DELETE", first.address(), nil).upload(t, http.StatusOK)
	second := put("f", "2", "Idempotency-Key", `"k"`).upload(t, http.StatusAccepted)
	if again := put("f", "2", "Idempotency-Key", `"k"`).upload(t, http.StatusAccepted); again.ID != second.ID {
		t.Errorf("again with its key: %s, want %s", again.ID, second.ID)
	}
	put("f", "2", "Idempotency-Key", `"l"`).problem(t, kindPrecondition)
}

// TestOnlyNewAtOnce has one of many files be the first of its name.
func TestOnlyNewAtOnce(t *testing.T) {
	s := newRealAPI(t)
	var mu sync.Mutex
	status := map[int]int{}
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			a := s.ask(t, "PUT", "/uploads/f", strings.NewReader("the same"), "If-None-Match", "*")
			mu.Lock()
			defer mu.Unlock()
			status[a.StatusCode]++
		})
	}
	all.Wait()
	if status[http.StatusAccepted] != 1 || status[http.StatusPreconditionFailed] != 99 {
		t.Errorf("answers %v, want one 202", status)
	}
}

// TestOnlyNewWhereItWasForgotten has a file be not the first where the destination has it.
func TestOnlyNewWhereItWasForgotten(t *testing.T) {
	c := openCore(t, t.TempDir(), newRemote())
	s := newTestAPI(t, c.httpAPI())
	u := c.take("f", "1")
	c.deliverAll()
	c.await(u.ID, StateDelivered)
	if a := s.ask(t, "DELETE", u.address(), nil); a.StatusCode != http.StatusNoContent {
		t.Fatalf("forget: %d %s", a.StatusCode, a.body)
	}
	if p := s.ask(t, "PUT", "/uploads/f", strings.NewReader("1"), "If-None-Match", "*").problem(t, kindPrecondition); p.Upload != "" {
		t.Errorf("it names an upload: %+v", p)
	}
	s.ask(t, "PUT", "/uploads/f", strings.NewReader("1")).upload(t, http.StatusAccepted)
}
