package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"ferry/proto"
)

const fakeID = "01K62Q3V7N5CW0M8DJ4RXEBZ9T"

// takes is a gateway that takes a file and then has it in a state.
func takes(state, more string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		_, _ = io.Copy(sum, r.Body)
		now := state
		if r.Method != http.MethodGet {
			now = "queued"
			w.WriteHeader(http.StatusAccepted)
		}
		fmt.Fprintf(w, `{"id":%q,"name":"a.bin","state":%q,"sha256":"%x"%s}`, fakeID, now, sum.Sum(nil), more)
	}
}

// proxySays answers as proxies do by themselves.
func proxySays(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "<html>"+http.StatusText(status)+"</html>")
	}
}

// busyThenSilent refuses the first time that a file is sent, and does not answer
// the second.
func busyThenSilent() http.HandlerFunc {
	var calls atomic.Int32
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if calls.Add(1) == 1 {
			says(503, `{"title":"Too many"}`)(w, r)
			return
		}
		<-r.Context().Done()
	}
}

// TestPushFileGone has a file go away once others are sent: they are delivered,
// and nothing says that they were not.
func TestPushFileGone(t *testing.T) {
	first, second := makeFile(t, "a.bin", "a"), makeFile(t, "b.bin", "b")
	url := fakeGateway(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			if err := os.Remove(second); err != nil {
				t.Error(err)
			}
		}
		takes("delivered", "")(w, r)
	})
	got := push(t, url, "--json", "--parallel", "1", first, second)
	all := got.outcomes(t)
	if a, b := all["a.bin"], all["b.bin"]; got.status != exitNoFile || a.State != "delivered" || b.State != "failed" || b.Exit != exitNoFile {
		t.Errorf("status %d, %+v; want %d, a.bin delivered, b.bin failed", got.status, all, exitNoFile)
	}
	if strings.Contains(got.stderr, "nothing was sent") || !strings.Contains(pushExitCodes, "the others are sent nevertheless") {
		t.Errorf("stderr %q, help %q", got.stderr, pushExitCodes)
	}
}

// manyLabels are flags that give so many labels.
func manyLabels(n int) (args []string) {
	for i := range n {
		args = append(args, "--label", fmt.Sprintf("k%d=v", i))
	}
	return args
}

// TestPushExitCodes has each status that ferry help exit-codes lists for ferry
// push come about, with its words on stderr and in --json.
func TestPushExitCodes(t *testing.T) {
	live := startGateway(t)
	nowhere, err := proto.ParseDestination("v4://" + closedPort(t) + "?ca=system")
	if err != nil {
		t.Fatal(err)
	}
	stuck := startGatewayTo(t, nowhere, "")
	file := makeFile(t, "a.bin", strings.Repeat("a", 20_000))
	other := makeFile(t, "a.bin", "another content")
	folder := filepath.Dir(makeFile(t, "x", "x"))
	changing := makeFile(t, "a.bin", "as it was")
	const conflict = `{"type":"/problems/conflict","title":"Other content","status":409,"sha256":"aaaa","existing_sha256":"bbbb"}`
	fake := func(h http.HandlerFunc) []string { return []string{"--gateway", fakeGateway(t, h)} }
	seen := map[int]bool{}
	for _, c := range []struct {
		name  string
		args  []string
		want  int
		state string // "" is no line
		words string
	}{
		{"delivered", []string{file}, 0, "delivered", ""},
		{"delivered before", []string{file}, 0, "delivered", ""},
		{"received", []string{"--wait=received", "--gateway", stuck.url, file}, 0, "received", ""},
		{"no room for receipts", []string{"--receipt", file, file}, 1, "", "the receipt could not be kept"},
		{"no such flag", []string{"--gatewai", live.url, file}, 2, "", "did you mean --gateway?"},
		{"same names", []string{file, other}, 2, "", "would both be stored as a.bin"},
		{"bad name", []string{"--dest-prefix", "../", file}, 2, "", `its part ".."`},
		{"no label", []string{"--label", "A=b", file}, 2, "", `--label: "A=b" is not a label. Write it as key=value`},
		{"a label's value", []string{"--label", "a=b\nc", file}, 2, "", "The value of the label a cannot be kept."},
		{"a label with two values", []string{"--label", "a=b", "--label", "a=c", file}, 2, "", "The label a is given with two values."},
		{"too many labels", append(manyLabels(17), file), 2, "", "An upload has 16 labels at most."},
		{"as many labels as there may be", append(manyLabels(16), "--label", "k1=v", file), 0, "delivered", ""},
		{"bad label of a file that is not known", append(append(fake(says(400, `{"title":"asked"}`)), "--label", "A=b"), file), 2, "", "is not a label"},
		{"other content", append(fake(says(409, conflict)), file), 3, "failed", "SHA-256 bbbb; this one has aaaa. Send it under another name (--dest-prefix"},
		{"refused", append(fake(says(400, `{"title":"The label is not good","request_id":"R7"}`)), file), 3, "failed", "refused: The label is not good (400, request R7)"},
		{"elsewhere", append(fake(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://gw.example.org/uploads", http.StatusPermanentRedirect)
		}), file), 3, "failed", "go to https://gw.example.org/uploads"},
		{"always busy", append(fake(says(503, `{"title":"Too many"}`)), "--timeout", "100ms", file), 4, "failed", "not received by the gateway in time: --timeout has passed; before that, the gateway refused: Too many (503)"},
		{"never ready", append(fake(says(503, `{"title":"Not ready","retryable":true}`)), "--timeout", "100ms", file), 4, "failed", "--timeout has passed; before that, the gateway refused: Not ready (503)"},
		{"too many requests", append(fake(says(429, `{"title":"Slower"}`)), "--timeout", "100ms", file), 4, "failed", "the gateway refused: Slower (429)"},
		{"busy, then silent", append(fake(busyThenSilent()), "--timeout", "3s", file), 4, "failed", "--timeout has passed; before that, the gateway refused: Too many (503)"},
		{"busy for good", append(fake(says(503, `{"title":"Never","retryable":false}`)), file), 3, "failed", "refused: Never (503)"},
		{"delivery takes too long", []string{"--gateway", stuck.url, "--timeout", "300ms", file}, 4, "failed", `"ferry watch 01`},
		{"sending takes too long", append(fake(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // else nobody notices that the client is gone
			<-r.Context().Done()
		}), "--timeout", "100ms", file), 4, "failed", "--timeout has passed"},
		{"cut off while it waits", append(fake(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet {
				panic(http.ErrAbortHandler)
			}
			takes("queued", "")(w, r)
		}), "--timeout", "300ms", file), 4, "failed", "the gateway has it and goes on"},
		{"delivery failed", append(fake(takes("failed", `,"error":"no such client"`)), file), 5, "failed", "the delivery failed: no such client, upload " + fakeID},
		{"cancelled", append(fake(takes("cancelled", "")), file), 5, "failed", "somebody cancelled"},
		{"forgotten", append(fake(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet {
				says(404, `{"type":"/problems/not-found","title":"No such upload"}`)(w, r)
				return
			}
			takes("queued", "")(w, r)
		}), file), 5, "failed", "somebody cancelled and forgot it, or forgot it after its end; run the command again, upload " + fakeID},
		{"the gateway has something else", append(fake(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusAccepted)
			_, _ = w.Write([]byte(`{"id":"` + fakeID + `","state":"queued","sha256":"cccc"}`))
		}), file), 6, "failed", "it says cccc"},
		{"the file changed", append(fake(func(w http.ResponseWriter, r *http.Request) {
			if err := os.WriteFile(changing, []byte("longer than it was"), 0o600); err != nil {
				t.Error(err)
			}
			takes("queued", "")(w, r)
		}), changing), 6, "failed", "the file changed"},
		{"digest refused", append(fake(says(400, `{"type":"/problems/mismatch","title":"It differs"}`)), file), 6, "failed", "It differs"},
		{"no token", append(fake(says(401, `{"title":"Who are you?"}`)), file), 7, "failed", "Who are you?"},
		{"not allowed", append(fake(says(403, `{"title":"Not you"}`)), file), 7, "failed", "Not you"},
		{"no file", []string{filepath.Join(folder, "none")}, 8, "", "no file for "},
		{"an empty pattern", []string{""}, 8, "", `no file for ""`},
		{"nothing matches", []string{filepath.Join(folder, "*.none")}, 8, "", "no file for "},
		{"not a file", []string{"/dev/null"}, 8, "", "not a regular file"},
		{"too large", append(fake(says(413, `{"title":"Too large","retryable":true}`)), file), 9, "failed", "Too large"},
		{"gateway full", append(fake(says(507, `{"title":"No room","retryable":true}`)), file), 9, "failed", "No room"},
		{"always cut off", append(fake(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), "--timeout", "300ms", file), 10, "failed", "until --timeout had passed"},
		{"nobody behind the proxy", append(fake(proxySays(502)), "--connect-timeout", "50ms", file), 10, "failed", "cannot be reached through the proxy in front of it: Bad Gateway (502)"},
		{"none behind it for long", append(fake(proxySays(503)), "--timeout", "100ms", file), 10, "failed", "until --timeout had passed"},
		{"the proxy takes less", append(fake(proxySays(413)), file), 9, "failed", "a proxy in front of the gateway, or another server, refused: Request Entity Too Large (413)"},
		{"nobody listens", []string{"--gateway", "http://" + closedPort(t), "--connect-timeout", "50ms", file}, 10, "failed", "the gateway cannot be reached"},
	} {
		t.Run(c.name, func(t *testing.T) {
			seen[c.want] = true
			got := push(t, live.url, append([]string{"--json"}, c.args...)...)
			if got.status != c.want || !strings.Contains(got.stderr, c.words) {
				t.Errorf("status %d, want %d; stderr %q, want %q in it", got.status, c.want, got.stderr, c.words)
			}
			all := got.outcomes(t)
			if c.state == "" {
				if len(all) > 0 {
					t.Errorf("stdout %q, want nothing", got.stdout)
				}
				return
			}
			for _, o := range all {
				if o.State != c.state || o.Exit != c.want || c.words != "" && (o.Error == "" || !strings.Contains(got.stderr, o.Error)) {
					t.Errorf("%+v, want %s with exit %d", o, c.state, c.want)
				}
			}
			if len(all) != 1 {
				t.Errorf("stdout %q, want one file", got.stdout)
			}
		})
	}
	for status := range 11 {
		if !seen[status] || !strings.Contains(pushExitCodes, "\n"+strings.Repeat(" ", 4-len(strconv.Itoa(status)))+strconv.Itoa(status)+"  ") {
			t.Errorf("status %d: has a row %v, and ought to be in the help", status, seen[status])
		}
	}
	wantContent(t, live.stored("a.bin"), strings.Repeat("a", 20_000))
}

// TestPushStopped ends the program's context as a signal does, while it waits
// for the delivery: the id is said.
func TestPushStopped(t *testing.T) {
	ctx, stop := context.WithCancelCause(t.Context())
	url := fakeGateway(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			stop(errStopped)
		}
		takes("queued", "")(w, r)
	})
	got := pushContext(ctx, []string{"FERRY_GATEWAY=" + url}, "", makeFile(t, "a", "a"))
	if got.status != exitFailure || !strings.Contains(got.stderr, "stopped by a signal") || !strings.Contains(got.stderr, fakeID) {
		t.Errorf("status %d, stderr %q; want %d and the id", got.status, got.stderr, exitFailure)
	}
}
