package e2e_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// destinationStatus is what a gateway says of a destination.
type destinationStatus struct {
	Name       string     `json:"name"`
	URL        string     `json:"url"`
	State      string     `json:"state"`
	Paused     bool       `json:"paused"`
	Queued     int        `json:"queued"`
	Delivering int        `json:"delivering"`
	LastError  *string    `json:"last_error"`
	NextAt     *time.Time `json:"next_at"`
}

// awaitDestination waits until it stands with a destination as it should.
func awaitDestination(t *testing.T, base, name string, done func(destinationStatus) bool) {
	t.Helper()
	var s destinationStatus
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if err := getJSON(t.Context(), base+"/destinations/"+name, &s); err != nil {
			t.Fatal(err)
		}
		if done(s) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("it stands with %s as %+v", name, s)
		}
	}
}

// TestTwoDestinations has a gateway deliver to two servers. While one is away, the
// other one gets its files; a pause outlives a kill of the gateway; and what waits for a
// destination finds it at another address.
func TestTwoDestinations(t *testing.T) {
	t.Parallel()
	one, two := startV4(t, t.TempDir()), startV4(t, t.TempDir())
	data, folder := t.TempDir(), t.TempDir()
	args := func(more ...string) []string {
		return append([]string{"gateway", "--data", data, "--http", "127.0.0.1:0", "--name", "ci", "--deliveries", "two=2",
			"--to", "one=" + one.url(one.v4), "--to", "two=" + two.url(two.v4)}, more...)
	}
	gateway := start(t, args("--join", "one="+one.token(), "--join", "two="+two.token())...).tap()
	const wait, asIs = "wait=60", "respond-async"
	send := func(to, name, prefer string) curled {
		t.Helper()
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
		return curl(t, "-T", path, "-H", "Prefer: "+prefer, gateway.http+"/uploads/"+name+"?destination="+to)
	}
	wantStored := func(s *serverV4, name string) {
		t.Helper()
		if b, err := os.ReadFile(s.stored("ci", name)); err != nil || string(b) != name {
			t.Errorf("stored %q, %v; want %q", b, err, name)
		}
	}
	for _, c := range []struct {
		to string
		at *serverV4
	}{{"one", one}, {"two", two}} {
		send(c.to, "a.txt", wait).upload(t, http.StatusCreated)
		wantStored(c.at, "a.txt")
	}
	if got := send("three", "a.txt", asIs); got.status != http.StatusBadRequest || !strings.Contains(got.body, "one, two") {
		t.Errorf("to a third: %d %s", got.status, got.body)
	}

	two.kill()
	waits := send("two", "b.txt", asIs).upload(t, http.StatusAccepted)
	awaitDestination(t, gateway.http, "two", func(s destinationStatus) bool {
		return s.State == "failing" && s.LastError != nil && s.Queued == 1
	})
	send("one", "b.txt", wait).upload(t, http.StatusCreated)
	wantStored(one, "b.txt")

	order := func(path string) {
		t.Helper()
		if got := curl(t, "-X", "POST", gateway.http+path); got.status != http.StatusOK {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		}
	}
	order("/destinations/one/pause")
	held := send("one", "c.txt", asIs).upload(t, http.StatusAccepted)
	gateway.kill()
	two.again()
	gateway = start(t, args()...)
	waitDelivered(t, gateway.http, waits.ID, time.Minute)
	wantStored(two, "b.txt")
	awaitDestination(t, gateway.http, "one", func(s destinationStatus) bool { return s.Paused && s.State == "paused" && s.Queued == 1 })
	if got := curl(t, gateway.http+"/uploads/"+held.ID); !strings.Contains(got.body, `"state":"queued"`) || !strings.Contains(got.body, "the destination one is paused") {
		t.Errorf("what waits for the one that is paused: %s", got.body)
	}
	order("/destinations/one/resume")
	waitDelivered(t, gateway.http, held.ID, time.Minute)
	wantStored(one, "c.txt")

	// One has it, under this name and with this content, and the other one has not.
	for _, to := range []string{"one", "two"} {
		if r := ferry(t, folder, "push", "--gateway", gateway.http, "--destination", to, filepath.Join(folder, "c.txt")); r.status != 0 {
			t.Errorf("ferry push --destination %s: %+v", to, r)
		}
	}
	wantStored(two, "c.txt")
	if r := ferry(t, folder, "push", "--gateway", gateway.http, filepath.Join(folder, "c.txt")); r.status != 0 || !r.says("nothing was sent") {
		t.Errorf("ferry push to the first: %+v", r)
	}
}
