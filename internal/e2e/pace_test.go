package e2e_test

import (
	"os/exec"
	"strings"
	"testing"
)

// TestRate has curl ask a gateway with --rate more often than it answers.
func TestRate(t *testing.T) {
	gw := start(t, "gateway", "--data", t.TempDir(), "--name", "rate", "--to", "v3://"+nobody(t), "--http", "127.0.0.1:0", "--rate", "1")
	args := []string{"--silent", "--show-error", "--max-time", "60", "--write-out", "%{http_code} %header{retry-after}\n"}
	for range 60 {
		args = append(args, "--output", "/dev/null", gw.http+"/uploads")
	}
	out, err := exec.CommandContext(t.Context(), "curl", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	answered, early := strings.Count(string(out), "200 \n"), strings.Count(string(out), "429 1\n")
	if answered < 10 || early == 0 || answered+early != 60 {
		t.Errorf("%d answered, %d told to come again in a second; want 10 or more, and the others: %s", answered, early, out)
	}
}
