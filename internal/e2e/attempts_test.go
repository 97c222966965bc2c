package e2e_test

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"
)

// TestAttempts has an upload tried in vain, then cut off by the end of its gateway, and
// then delivered: curl is told so.
func TestAttempts(t *testing.T) {
	t.Parallel()
	srv := startV4(t, t.TempDir())
	between := newRelay(t, srv.v4)
	between.cut.Store(true)
	gw := srv.startGatewayV4(t.TempDir(), between.address(), "studio")
	const name, size = "interview.wav", 64_000_000
	content := t.TempDir() + "/" + name
	writeFile(t, content, 1, size)
	u := curl(t, "-T", content, gw.http+"/uploads/").upload(t, http.StatusAccepted)
	waitFor(t, gw.http, u.ID, func(u upload) bool { return u.State == "waiting" })
	between.slow.Store(true)
	if got := curl(t, "-X", "POST", gw.http+"/uploads/"+u.ID+"/retry"); got.status >= http.StatusBadRequest {
		waitFor(t, gw.http, u.ID, func(u upload) bool { return u.State == "delivering" }) // it has begun by itself
	}
	waitFor(t, gw.http, u.ID, func(u upload) bool { return u.Progress.Bytes > 8<<20 })
	if running := attemptsOf(t, gw.http, u.ID); running[len(running)-1].Outcome != "" || running[len(running)-1].Bytes == 0 {
		t.Errorf("the last one is %+v, want it to run", running[len(running)-1])
	}
	gw.kill()
	between.cut.Store(false)
	gw.again()
	waitDelivered(t, gw.http, u.ID, time.Minute)
	wantSame(t, content, srv.stored("studio", name))

	all := attemptsOf(t, gw.http, u.ID)
	for i, a := range all {
		switch left := len(all) - 1 - i; {
		case a.Number != i+1 || a.Destination != srv.url(between.address()) || a.EndedAt.Before(a.BeganAt):
			t.Errorf("the %dth is %+v", i+1, a)
		case left > 1 && (a.Outcome != "postponed" || a.Error == "" || a.Bytes != 0):
			t.Errorf("%+v, want it postponed", a)
		case left == 1 && (a.Outcome != "interrupted" || a.Error == "" || a.Bytes != 0):
			t.Errorf("%+v, want it interrupted", a)
		case left == 0 && (a.Outcome != "delivered" || a.Error != "" || a.Bytes != size || a.ResumedFrom < 4<<20 || a.Sends != 1):
			t.Errorf("%+v, want it delivered from where it was cut off on", a)
		}
	}
	if len(all) < 3 {
		t.Errorf("%d attempts, want 3 or more", len(all))
	}
	if got := curl(t, "-X", "DELETE", gw.http+"/uploads/"+u.ID); got.status != http.StatusNoContent {
		t.Errorf("to forget it: %d %s", got.status, got.body)
	}
	if got := curl(t, gw.http+"/uploads/"+u.ID+"/attempts"); got.status != http.StatusNotFound {
		t.Errorf("of what is forgotten: %d %s", got.status, got.body)
	}
}

type attempt struct {
	Number      int       `json:"number"`
	BeganAt     time.Time `json:"began_at"`
	EndedAt     time.Time `json:"ended_at"`
	Outcome     string    `json:"outcome"`
	Error       string    `json:"error"`
	Bytes       int64     `json:"bytes"`
	ResumedFrom int64     `json:"resumed_from"`
	Sends       int       `json:"sends"`
	Destination string    `json:"destination"`
}

// attemptsOf are an upload's attempts, all of which are listed.
func attemptsOf(t *testing.T, base, id string) []attempt {
	t.Helper()
	var list struct {
		Count    int       `json:"count"`
		Attempts []attempt `json:"attempts"`
	}
	got := curl(t, base+"/uploads/"+id+"/attempts")
	if err := json.Unmarshal([]byte(got.body), &list); err != nil || got.status != http.StatusOK || len(list.Attempts) == 0 || len(list.Attempts) != list.Count {
		t.Fatalf("answered %d %s, %v", got.status, got.body, err)
	}
	return list.Attempts
}
