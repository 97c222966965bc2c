package main

import (
	"bytes"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestStatusAttempts shows attempts of which some are not kept, and does without them
// where the gateway has none.
func TestStatusAttempts(t *testing.T) {
	const id = "01K62Q3V7N5CW0M8DJ4RXEBZ9T"
	upload := `{"id":"` + id + `","name":"f","state":"waiting","attempts":{"count":30}}`
	began := time.Date(2026, 3, 14, 15, 9, 26, 0, time.Local)
	attempt := func(number int, more string) string {
		return fmt.Sprintf(`{"number":%d,"began_at":%q,%s,"destination":"v4://h"}`, number, began.Format(time.RFC3339Nano), more)
	}
	list := strings.Join([]string{
		attempt(1, `"ended_at":"`+began.Add(1234567*time.Microsecond).Format(time.RFC3339Nano)+`","outcome":"postponed","error":"one\u001b[2J","bytes":5242880,"resumed_from":1048576,"sends":1`),
		attempt(3, `"ended_at":"`+began.Add(100*time.Minute).Format(time.RFC3339Nano)+`","outcome":"interrupted","error":"three","bytes":null,"resumed_from":null,"sends":null`),
		attempt(30, `"ended_at":null,"outcome":null,"error":null,"bytes":0,"resumed_from":0,"sends":0`),
	}, ",")
	answers := map[string]string{"/uploads/" + id: upload, "/uploads/" + id + "/attempts": `{"count":31,"attempts":[` + list + `]}`}
	gateway := fakeGateway(t, func(w http.ResponseWriter, r *http.Request) {
		if answer := answers[r.URL.Path]; answer != "" {
			_, _ = w.Write([]byte(answer))
			return
		}
		says(http.StatusNotFound, `{"type":"/problems/not-found","title":"none","status":404}`)(w, r)
	})
	status := func(want int, args ...string) (string, string) {
		t.Helper()
		var stdout, stderr bytes.Buffer
		if got := run(t.Context(), append([]string{"status", "--gateway", gateway, id}, args...), nil, strings.NewReader(""), &stdout, &stderr); got != want {
			t.Errorf("status %d, want %d: %s", got, want, &stderr)
		}
		return stdout.String(), stderr.String()
	}
	const table = `ATTEMPT  BEGAN                TOOK     OUTCOME      SENT     ERROR
1        2026-03-14 15:09:26  1.23s    postponed    4.0 MiB  "one\x1b[2J"
2                                      not kept
3        2026-03-14 15:09:26  1h40m0s  interrupted           three
4-29                                   not kept
30       2026-03-14 15:09:26           running      0 B
31                                     not kept

`
	got, _ := status(exitOK)
	if got = regexp.MustCompile(" +\n").ReplaceAllString(got, "\n"); !strings.HasSuffix(got, "\n\n"+table) {
		t.Errorf("got:\n%s\nwant at the end:\n%s", got, table)
	}
	if got, _ := status(exitOK, "--json"); got != strings.TrimSuffix(upload, "}")+`,"attempt_list":[`+list+"]}\n" {
		t.Errorf("as JSON: %s", got)
	}

	delete(answers, "/uploads/"+id+"/attempts")
	if got, _ := status(exitOK); strings.Contains(got, "ATTEMPT") || !strings.Contains(got, "attempts  30\n") {
		t.Errorf("of a gateway that keeps none: %s", got)
	}
	if got, _ := status(exitOK, "--json"); got != upload+"\n" {
		t.Errorf("of a gateway that keeps none, as JSON: %s", got)
	}
	answers["/uploads/"+id+"/attempts"] = "[]"
	if _, said := status(exitRefused); !strings.Contains(said, "no list of attempts") {
		t.Errorf("of something else: %s", said)
	}
}
