package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var performance = flag.Bool("performance", false, "have Lighthouse say how fast the page is: with nothing else running")

// TestPageLighthouse has Lighthouse look at pages for what does not depend on
// how busy the machine is.
func TestPageLighthouse(t *testing.T) {
	t.Parallel()
	pages := emptyAndFull(t)
	pages["about a problem"] = pages["30 uploads"] + "/problems/unauthorized"
	lighthouse(t, pages, map[string]any{"categories": []string{"accessibility", "best-practices"}, "looks": 1, "least": 100})
}

// TestPagePerformance has Lighthouse measure how fast the page is.
func TestPagePerformance(t *testing.T) {
	if !*performance {
		t.Skip("it measures time: make lighthouse runs it")
	}
	t.Log(lighthouse(t, emptyAndFull(t), map[string]any{"categories": []string{"performance"}, "looks": 5, "least": 95}))
}

// emptyAndFull are the pages of two gateways.
func emptyAndFull(t *testing.T) map[string]string {
	t.Helper()
	empty, full := up(t, t.TempDir()), up(t, t.TempDir())
	for i := range 30 {
		name := fmt.Sprintf("build-%02d/report.txt", i)
		u, err := post(t.Context(), full.http, name, strings.NewReader(name), int64(len(name)))
		if err != nil {
			t.Fatal(err)
		}
		waitDelivered(t, full.http, u.ID, time.Minute)
	}
	return map[string]string{"no uploads": empty.http, "30 uploads": full.http}
}

// lighthouse runs testdata/lighthouse.mjs on pages, and returns the scores.
func lighthouse(t *testing.T, pages map[string]string, given map[string]any) string {
	t.Helper()
	program, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatalf("%v; make deps installs it", err)
	}
	given["pages"], given["program"], given["profile"] = pages, program, t.TempDir()
	parameters, err := json.Marshal(given)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", filepath.Join("testdata", "lighthouse.mjs"), string(parameters))
	var scores, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &scores, &said
	if err := cmd.Run(); err != nil {
		t.Errorf("%v\n%s%s", err, scores.Bytes(), said.Bytes())
	}
	return scores.String()
}
