package e2e_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"ferry/internal/smalldisk"
)

// curled is what curl was answered.
type curled struct {
	status int
	body   string
}

// curl runs curl and wants an answer, whatever it is.
func curl(t testing.TB, args ...string) curled {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "curl", append([]string{"--silent", "--show-error", "--max-time", "60", "--write-out", "\n%{http_code}"}, args...)...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("curl %s: %v: %s", strings.Join(args, " "), err, stderr.String())
	}
	end := bytes.LastIndexByte(out, '\n')
	status, err := strconv.Atoi(string(out[end+1:]))
	if err != nil {
		t.Fatal(err)
	}
	return curled{status, string(out[:end])}
}

// upload wants an answer of a status and returns the upload that it has.
func (c curled) upload(t testing.TB, status int) (u upload) {
	t.Helper()
	if c.status != status {
		t.Fatalf("answered %d %s, want %d", c.status, c.body, status)
	}
	if err := json.Unmarshal([]byte(c.body), &u); err != nil {
		t.Fatalf("%v: %s", err, c.body)
	}
	return u
}

// nobody is an address of this machine where nobody listens.
func nobody(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	return ln.Addr().String()
}

// TestControlOnFullDisk has a gateway's disk filled by uploads, and by others to
// the last byte: what was taken in can be controlled all the same, however often,
// and after a start on the full disk; uploads are refused until there is room.
func TestControlOnFullDisk(t *testing.T) {
	disk := smalldisk.Mount(t, "64m")
	data := filepath.Join(disk, "gateway")
	args := []string{"gateway", "--data", data, "--name", "full", "--to", "v3://" + nobody(t), "--http", "127.0.0.1:0"}
	gw := start(t, args...)
	var ids []string
	for i := range 80 {
		u, err := post(t.Context(), gw.http, fmt.Sprint("small ", i), content(uint64(i), 3000), 3000)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, u.ID)
	}
	large := filepath.Join(t.TempDir(), "large")
	writeFile(t, large, 1, 8_000_000)
	sent := 0
	for ; ; sent++ {
		answer := curl(t, "--upload-file", large, gw.http+fmt.Sprint("/uploads/large-", sent))
		if answer.status == 507 && strings.Contains(answer.body, "/problems/full") {
			break
		}
		answer.upload(t, 202)
	}
	if sent < 2 {
		t.Fatalf("%d large files fit", sent)
	}
	controlled(t, gw.http, ids[:4], "filled by uploads")

	reserve := filepath.Join(data, "gateway.db-reserve")
	if _, err := os.Stat(reserve); err != nil {
		t.Errorf("uploads have used the reserve: %v", err)
	}
	ballast := filepath.Join(disk, "ballast")
	fill(t, ballast)
	small := filepath.Join(t.TempDir(), "small")
	writeFile(t, small, 2, 3000)
	refused := func(when string) {
		t.Helper()
		if a := curl(t, "--upload-file", small, gw.http+"/uploads/refused"); a.status != 507 || !strings.Contains(a.body, "/problems/full") {
			t.Errorf("%s: an upload is answered %d %s, want 507", when, a.status, a.body)
		}
		if a := curl(t, gw.http+"/readyz"); a.status != 503 {
			t.Errorf("%s: /readyz is answered %d, want 503", when, a.status)
		}
	}
	refused("full")
	controlled(t, gw.http, ids[4:8], "full")
	// More changes than the reserve has room for, were each to stay in the log.
	for round := range 25 {
		for _, action := range []string{"hold", "release"} {
			bulk(t, gw.http, action, ids[20:], 200, fmt.Sprint("full, round ", round))
		}
	}
	refused("after many changes")
	// All that the reserve has is taken as well, but for what the changes have used.
	fill(t, filepath.Join(disk, "more"))
	controlled(t, gw.http, ids[8:12], "fuller")

	gw.stop()
	gw = start(t, args...)
	refused("started again")
	controlled(t, gw.http, ids[12:16], "started again")
	gw.kill()
	gw = start(t, args...)
	controlled(t, gw.http, ids[16:20], "after a kill")

	if err := errors.Join(os.Remove(ballast), os.Remove(filepath.Join(disk, "more"))); err != nil {
		t.Fatal(err)
	}
	curl(t, "--upload-file", small, gw.http+"/uploads/refused").upload(t, 202)
	bulk(t, gw.http, "delete", ids[20:], 200, "with room")
	for deadline := time.Now().Add(readyLimit); ; time.Sleep(50 * time.Millisecond) {
		_, err := os.Stat(reserve)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || time.Now().After(deadline) {
			t.Fatalf("the reserve is not there again: %v", err)
		}
	}
}

// controlled does with uploads that cannot be delivered all that can be done with
// some.
func controlled(t *testing.T, base string, ids []string, when string) {
	t.Helper()
	for _, id := range ids {
		at := base + "/uploads/" + id
		for _, step := range []struct {
			args   []string
			status int
			states []string
		}{
			{[]string{"-X", "POST", at + "/hold"}, 200, []string{"queued", "waiting"}},
			{[]string{"-X", "POST", at + "/release"}, 200, []string{"queued"}},
			{[]string{"-X", "POST", at + "/cancel"}, 200, []string{"cancelled"}},
			{[]string{"-X", "POST", at + "/retry"}, 202, []string{"queued"}},
			{[]string{"-X", "DELETE", at}, 200, []string{"cancelled"}},
		} {
			a := curl(t, step.args...)
			for a.status == 409 && strings.HasSuffix(step.args[2], "/hold") { // just now somebody dials
				time.Sleep(10 * time.Millisecond)
				a = curl(t, step.args...)
			}
			if a.status != step.status {
				t.Fatalf("%s: curl %s: %d %s, want %d", when, step.args, a.status, a.body, step.status)
			}
			if u := a.upload(t, step.status); !slices.Contains(step.states, u.State) {
				t.Errorf("%s: curl %s: it is %s, want %s", when, step.args, u.State, step.states)
			}
		}
	}
	for _, id := range ids[:len(ids)/2] {
		if a := curl(t, "-X", "DELETE", base+"/uploads/"+id); a.status != 204 {
			t.Errorf("%s: to forget one is answered %d %s, want 204", when, a.status, a.body)
		}
	}
	bulk(t, base, "delete", ids[len(ids)/2:], 204, when)
}

// bulk does one thing with many, and wants the same status of each, but of those
// that are just being tried.
func bulk(t *testing.T, base, action string, ids []string, status int, when string) {
	t.Helper()
	order, err := json.Marshal(map[string]any{"action": action, "ids": ids})
	if err != nil {
		t.Fatal(err)
	}
	a := curl(t, "-H", "Content-Type: application/json", "--data-binary", string(order), base+"/uploads/bulk")
	var answer struct {
		Results []struct {
			ID      string
			Status  int
			Problem json.RawMessage
		}
	}
	if err := json.Unmarshal([]byte(a.body), &answer); err != nil || a.status != 200 || len(answer.Results) != len(ids) {
		t.Fatalf("%s: bulk %s: %d %.300s, %v", when, action, a.status, a.body, err)
	}
	for _, r := range answer.Results {
		if r.Status != status && r.Status != 409 {
			t.Fatalf("%s: bulk %s of %s: %d %s, want %d", when, action, r.ID, r.Status, r.Problem, status)
		}
	}
}
