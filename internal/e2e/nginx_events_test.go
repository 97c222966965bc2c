package e2e_test

import (
	"bufio"
	"encoding/json"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestEventsBehindNginx has curl follow events by way of a real nginx at a
// sub-path, with and without its buffers: they come while the answer goes on,
// and whoever was cut off hears what was missed. By itself it holds back what
// comes in HTTP/1.0, which it speaks to the gateway unless told otherwise.
func TestEventsBehindNginx(t *testing.T) {
	server := start(t, "server", "--data", t.TempDir(), "--listen", "none", "--v3-listen", "127.0.0.1:0")
	for _, c := range []struct{ buffering, version string }{{"on", "1.0"}, {"on", "1.1"}, {"off", "1.1"}} {
		name := "buffering-" + c.buffering + "-" + c.version
		t.Run(name, func(t *testing.T) {
			gw := start(t, "gateway", "--data", t.TempDir(), "--name", name, "--to", "v3://"+server.native+"?window=64",
				"--http", "127.0.0.1:0", "--trusted-proxy", "127.0.0.1", "--base-path", "/ferry")
			socket := startNginx(t, strings.TrimSuffix(gw.http, "/ferry"), c.buffering, c.version)
			const events = "http://localhost/ferry/events"

			all := follow(t, socket, events)
			if e := all.next(); e.name != "ready" {
				t.Fatalf("the first event is %+v, want ready", e)
			}
			first := sendSmall(t, gw.http, "first.txt")
			last := all.untilDelivered(first)
			all.stop()

			missed := sendSmall(t, gw.http, "missed.txt")
			waitDelivered(t, gw.http, missed.ID, time.Minute)
			again := follow(t, socket, events, "--header", "Last-Event-ID: "+last)
			if e := again.untilDelivered(missed); e == last {
				t.Errorf("the event has the id %s, which another one had", e)
			}
			later := sendSmall(t, gw.http, "later.txt")
			again.untilDelivered(later)
			again.stop()

			one := follow(t, socket, "http://localhost/ferry/uploads/"+later.ID+"/events")
			one.untilDelivered(later)
			if e, more := one.line(); more {
				t.Errorf("after the last event comes %q, want the end", e)
			}
		})
	}
}

func sendSmall(t *testing.T, base, name string) upload {
	t.Helper()
	u, err := post(t.Context(), base, name, strings.NewReader(name), int64(len(name)))
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// An event as curl shows it.
type event struct{ name, id, data string }

// A follower is a curl that is answered with events.
type follower struct {
	t     *testing.T
	lines chan string // closed at the end of the answer
	stop  func()
}

func follow(t *testing.T, socket, url string, more ...string) *follower {
	t.Helper()
	cmd := exec.Command("curl", append([]string{"--silent", "--show-error", "--no-buffer", "--fail", "--unix-socket", socket, url}, more...)...)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f := &follower{t: t, lines: make(chan string, 10_000), stop: func() { _ = cmd.Process.Kill() }}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer close(f.lines)
		for in := bufio.NewScanner(stdout); in.Scan(); {
			f.lines <- in.Text()
		}
		_, _ = io.Copy(io.Discard, stdout)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		f.stop()
		<-ended
	})
	return f
}

// line waits for the next line; at the end of the answer there is none.
func (f *follower) line() (line string, more bool) {
	f.t.Helper()
	select {
	case line, more = <-f.lines:
		return line, more
	case <-time.After(30 * time.Second):
		f.t.Fatal("no event comes")
		return "", false
	}
}

func (f *follower) next() (e event) {
	f.t.Helper()
	for {
		line, more := f.line()
		if !more {
			f.t.Fatal("the answer ends, want an event")
		}
		key, value, _ := strings.Cut(line, ": ")
		switch {
		case key == "event":
			e.name = value
		case key == "id":
			e.id = value
		case key == "data":
			e.data = value
		case line == "" && e != event{}:
			return e
		}
	}
}

// untilDelivered wants events of this upload alone until one says that it is
// delivered, and returns the id of that.
func (f *follower) untilDelivered(want upload) (id string) {
	f.t.Helper()
	for {
		e := f.next()
		var u upload
		if err := json.Unmarshal([]byte(e.data), &u); err != nil {
			f.t.Fatalf("%+v: %v", e, err)
		}
		if u.ID != want.ID {
			f.t.Fatalf("heard %+v, want events of %s alone", e, want.Name)
		}
		if e.name == "upload" && u.State == "delivered" {
			return e.id
		}
	}
}
