package e2e_test

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestKeyedOverCuts has curl send requests with an Idempotency-Key that are cut, by
// the client and by a kill of the gateway, and 20 at once with the same one: each is
// done once, and whoever sends it again reads the same answer.
func TestKeyedOverCuts(t *testing.T) {
	args := []string{"gateway", "--data", t.TempDir(), "--name", "keyed", "--to", "v3://" + nobody(t), "--http", "127.0.0.1:0"}
	gw := start(t, args...)
	small, large := filepath.Join(t.TempDir(), "small"), filepath.Join(t.TempDir(), "large")
	writeFile(t, small, 1, 3000)
	writeFile(t, large, 2, 4<<20)
	key := func(k string) []string { return []string{"--header", `Idempotency-Key: "` + k + `"`} }
	// again sends a request until it is not being answered elsewhere any more.
	again := func(k, file, name string) curled {
		t.Helper()
		for deadline := time.Now().Add(readyLimit); ; time.Sleep(50 * time.Millisecond) {
			a := curl(t, append(key(k), "--upload-file", file, gw.http+"/uploads/"+name)...)
			if a.status != 409 || !strings.Contains(a.body, "/problems/idempotency-key-running") || time.Now().After(deadline) {
				return a
			}
		}
	}
	called := func(name string) int {
		t.Helper()
		var list struct{ Uploads []upload }
		a := curl(t, gw.http+"/uploads?name="+name)
		if err := json.Unmarshal([]byte(a.body), &list); err != nil {
			t.Fatalf("%v: %d %s", err, a.status, a.body)
		}
		return len(list.Uploads)
	}

	cut := exec.CommandContext(t.Context(), "curl", append(key("cut"), "--silent", "--max-time", "1", "--limit-rate", "1M", "--upload-file", large, gw.http+"/uploads/cut")...)
	if out, err := cut.CombinedOutput(); err == nil {
		t.Fatalf("it was not cut: %s", out)
	}
	first := again("cut", large, "cut")
	u := first.upload(t, 202)
	gw.kill()
	gw = start(t, args...)
	if a := again("cut", large, "cut"); a != first {
		t.Errorf("after a kill: %d %s, want again %s", a.status, a.body, first.body)
	}
	if a := again("cut", small, "cut"); a.status != 422 {
		t.Errorf("another body: %d %s, want 422", a.status, a.body)
	}
	if n := called("cut"); n != 1 {
		t.Errorf("%d uploads, want 1", n)
	}
	curl(t, gw.http+"/uploads/"+u.ID).upload(t, 200)

	// Killed at some moment of a request: whether it was done, nobody knows.
	for i := range 5 {
		name := fmt.Sprint("killed-", i)
		cmd := exec.CommandContext(t.Context(), "curl", append(key(name), "--silent", "--upload-file", small, gw.http+"/uploads/"+name)...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(i) * 5 * time.Millisecond)
		gw.kill()
		_ = cmd.Wait()
		gw = start(t, args...)
		first := again(name, small, name)
		first.upload(t, 202)
		if a := again(name, small, name); a != first || called(name) != 1 {
			t.Errorf("%s: %d uploads; answered %s, and then %s", name, called(name), first.body, a.body)
		}
	}

	var all sync.WaitGroup
	answers := make([]string, 20)
	for i := range answers {
		all.Go(func() {
			for {
				out, err := exec.CommandContext(t.Context(), "curl", append(key("many"), "--silent", "--upload-file", large, gw.http+"/uploads/many")...).CombinedOutput()
				if answers[i] = string(out); err != nil || !strings.Contains(answers[i], "idempotency-key-running") {
					return
				}
			}
		})
	}
	all.Wait()
	for _, a := range answers {
		if a != answers[0] || !strings.Contains(a, `"state":"queued"`) {
			t.Errorf("answered %s, want all the same: %s", a, answers[0])
		}
	}
	if n := called("many"); n != 1 {
		t.Errorf("%d uploads, want 1", n)
	}
}
