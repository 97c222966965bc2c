package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// ciVariables are what the CI systems of docs/ci.md set, by the heading, and
// labels that ferry push makes of them.
var ciVariables = map[string]struct{ set, labels []string }{
	"GitHub Actions": {
		[]string{"GITHUB_ACTIONS=true", "GITHUB_REPOSITORY=octo/app", "GITHUB_SHA=4f0c2a1", "GITHUB_JOB=build", "GITHUB_SERVER_URL=https://github.com", "GITHUB_RUN_ID=17"},
		[]string{"ci=github", "ci-repository=octo/app", "ci-commit=4f0c2a1", "ci-job=build", "ci-run=https://github.com/octo/app/actions/runs/17"},
	},
	"GitLab CI": {
		[]string{"GITLAB_CI=true", "CI_PROJECT_PATH=group/app", "CI_COMMIT_SHA=4f0c2a1", "CI_JOB_NAME=publish", "CI_JOB_URL=https://gitlab.com/group/app/-/jobs/5", "CI_PIPELINE_ID=18"},
		[]string{"ci=gitlab", "ci-repository=group/app", "ci-run=https://gitlab.com/group/app/-/jobs/5"},
	},
	"Jenkins": {
		[]string{"JENKINS_URL=https://jenkins.test/", "JOB_NAME=app", "BUILD_NUMBER=19", "BUILD_URL=https://jenkins.test/job/app/19/", "GIT_URL=https://me:secret@git.test/app.git", "GIT_COMMIT=4f0c2a1"},
		[]string{"ci=jenkins", "ci-repository=https://git.test/app.git", "ci-run=https://jenkins.test/job/app/19/"},
	},
	"Buildkite": {
		[]string{"BUILDKITE=true", "BUILDKITE_BUILD_NUMBER=20", "BUILDKITE_COMMIT=4f0c2a1", "BUILDKITE_STEP_KEY=publish", "BUILDKITE_BUILD_URL=https://buildkite.com/o/app/builds/20"},
		[]string{"ci=buildkite", "ci-job=publish", "ci-run=https://buildkite.com/o/app/builds/20"},
	},
}

// A recipe is a shell script of docs/ci.md.
type recipe struct{ heading, script string }

var (
	recipeBlock = regexp.MustCompile("(?ms)^```(sh|yaml|groovy)\n(.*?)^```$")
	yamlScript  = regexp.MustCompile(`(?m)^( *)(?:- )?(?:run: |command: |- )\|\n((?:(?: +\S.*)?\n)+)`)
	groovySh    = regexp.MustCompile(`(?s)sh '''(.*?)'''`)
)

// recipes are the shell parts of docs/ci.md, in their order.
func recipes(t *testing.T) (all []recipe) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "ci.md"))
	if err != nil {
		t.Fatal(err)
	}
	for section := range strings.SplitSeq(string(text), "\n## ") {
		heading, _, _ := strings.Cut(section, "\n")
		for _, block := range recipeBlock.FindAllStringSubmatch(section, -1) {
			before := len(all)
			switch block[1] {
			case "sh":
				all = append(all, recipe{heading, block[2]})
			case "groovy":
				for _, m := range groovySh.FindAllStringSubmatch(block[2], -1) {
					all = append(all, recipe{heading, m[1]})
				}
			case "yaml":
				for _, m := range yamlScript.FindAllStringSubmatch(block[2], -1) {
					var script strings.Builder
					for line := range strings.Lines(m[2]) {
						if indent := len(line) - len(strings.TrimLeft(line, " ")); indent <= len(m[1]) {
							break // the next key
						}
						script.WriteString(line)
					}
					all = append(all, recipe{heading, script.String()})
				}
			}
			if len(all) == before {
				t.Fatalf("no shell in the %s of %q", block[1], heading)
			}
		}
	}
	return all
}

// TestCIRecipes runs the shell parts of docs/ci.md, each twice, with the variables
// of the CI system and a token, and finds what they have sent, and its labels.
func TestCIRecipes(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	p := up(t, data).tap()
	made := ferry(t, "", "token", "create", "ci", "--scope", "upload", "--data", filepath.Join(data, "gateway"))
	reads := ferry(t, "", "token", "create", "reader", "--scope", "read", "--data", filepath.Join(data, "gateway"))
	if made.status != 0 || reads.status != 0 {
		t.Fatalf("tokens: %+v, %+v", made, reads)
	}
	work := t.TempDir()
	writeFile(t, filepath.Join(work, "dist", "app.tar.gz"), 1, 300_000)
	writeFile(t, filepath.Join(work, "dist", "doc", "manual.txt"), 2, 300)
	environ := append(withoutCI(os.Environ()), "PATH="+filepath.Dir(ferryBinary)+":"+os.Getenv("PATH"),
		"FERRY_GATEWAY="+p.http, "FERRY_TOKEN="+strings.TrimSpace(made.stdout))
	seen := map[string]bool{}
	for _, r := range recipes(t) {
		seen[r.heading] = true
		for i := range 2 {
			cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", r.script)
			cmd.Dir, cmd.Env = work, append(slices.Clone(environ), ciVariables[r.heading].set...)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s, run %d: %v\n%s\n%s", r.heading, i+1, err, r.script, out)
			}
		}
	}
	for heading, ci := range ciVariables {
		if !seen[heading] {
			t.Errorf("docs/ci.md has no recipe for %s", heading)
		}
		var query strings.Builder
		query.WriteString("/uploads?state=delivered")
		for _, l := range ci.labels {
			query.WriteString("&label=" + strings.NewReplacer("=", "%3D", "/", "%2F", ":", "%3A").Replace(l))
		}
		if got := listAs(t, p.http+query.String(), strings.TrimSpace(reads.stdout)); len(got) != 2 {
			t.Errorf("%s: %d uploads have the labels %q, want the two files once", heading, len(got), ci.labels)
		}
	}
	for _, name := range []string{"octo/app/17/app.tar.gz", "group/app/18/doc/manual.txt", "app/19/dist/app.tar.gz", "build-20/dist/doc/manual.txt", "later/dist/app.tar.gz", "by-curl/app.tar.gz"} {
		source := filepath.Join(work, "dist", "app.tar.gz")
		if strings.HasSuffix(name, ".txt") {
			source = filepath.Join(work, "dist", "doc", "manual.txt")
		}
		wantSame(t, source, filepath.Join(storedFolder(t, filepath.Join(data, "server")), filepath.FromSlash(name)))
	}
	pin := ferry(t, "", "server", "fingerprint", "--data", filepath.Join(data, "server"))
	receipt := filepath.Join(work, "receipts", "group", "app", "18", "app.tar.gz.receipt")
	if r := ferry(t, "", "verify", receipt, filepath.Join(work, "dist", "app.tar.gz"), "--pin", strings.TrimSpace(pin.stdout)); r.status != 0 {
		t.Errorf("verify the receipt: %+v", r)
	}
}

// withoutCI leaves out what makes of the test's own run one of a CI system's.
func withoutCI(environ []string) []string {
	return slices.DeleteFunc(withoutFerryVariables(environ), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return slices.Contains([]string{"GITHUB_ACTIONS", "GITLAB_CI", "BUILDKITE", "JENKINS_URL"}, name)
	})
}

// listAs lists uploads with a token.
func listAs(t *testing.T, url, token string) []upload {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var list struct{ Uploads []upload }
	if err := json.NewDecoder(res.Body).Decode(&list); err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s, %v", url, res.Status, err)
	}
	return list.Uploads
}

// pushCommand is ferry push as a pipeline runs it.
func pushCommand(ctx context.Context, gateway string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, ferryBinary, append([]string{"push", "--gateway", gateway}, args...)...)
	cmd.Env = withoutCI(os.Environ())
	return cmd
}

// closedAddress is one that nobody listens at, until the test does.
func closedAddress(t *testing.T) string {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// TestPushThroughRestarts kills the gateway, time after time, while ferry push
// sends files and waits for them: it succeeds, and each file is there once.
func TestPushThroughRestarts(t *testing.T) {
	t.Parallel()
	server := startV4(t, t.TempDir())
	data, address := t.TempDir(), closedAddress(t)
	token := server.token()
	gateway := func() *process {
		return start(t, "gateway", "--data", data, "--http", address, "--to", server.url(server.v4), "--join", token, "--name", "ci")
	}
	g := gateway()
	dir := filepath.Join(t.TempDir(), "dist")
	const files = 20
	for i := range files {
		writeFile(t, filepath.Join(dir, fmt.Sprintf("%02d.bin", i)), uint64(i), int64(1+i*700_000))
	}
	cmd := pushCommand(t.Context(), g.http, "--timeout", "3m", "--json", dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	var lines bytes.Buffer
	go func() { defer close(ended); _, _ = io.Copy(&lines, out) }()
	kills := 0
	for running := true; running; {
		select {
		case <-ended:
			running = false
		case <-time.After(200 * time.Millisecond):
			if kills < 5 {
				kills++
				g.kill()
				g = gateway()
			}
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s%s", err, lines.Bytes(), stderr.Bytes())
	}
	t.Logf("the gateway was killed %d times\n%s", kills, stderr.Bytes())
	if kills == 0 {
		t.Error("it was over before the gateway was killed even once")
	}
	done := map[string]int{}
	for line := range strings.Lines(lines.String()) {
		var o struct {
			Name, State string
			Done        bool
		}
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if o.Done && o.State == "delivered" {
			done[o.Name]++
		}
	}
	want := map[string]string{}
	for i := range files {
		name := fmt.Sprintf("dist/%02d.bin", i)
		if done[name] != 1 {
			t.Errorf("%s ended %d times as delivered", name, done[name])
		}
		sum, err := sha256OfFile(filepath.Join(dir, fmt.Sprintf("%02d.bin", i)))
		if err != nil {
			t.Fatal(err)
		}
		want["ci/"+name] = sum
	}
	wantAllStored(t, server.data, want)
	if got := uploads(t, g.http); len(got) != files {
		t.Errorf("the gateway has %d uploads, want %d", len(got), files)
	}
}

// TestPushThroughCuts has connections cut in the middle of files and of answers,
// so that some files have come although nobody said so: ferry push succeeds, and
// each file is there once.
func TestPushThroughCuts(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	p := up(t, data).tap()
	between := newRelay(t, strings.TrimPrefix(p.http, "http://"))
	between.cuts.Store(20)
	dir := filepath.Join(t.TempDir(), "dist")
	const files = 20
	want := map[string]string{}
	for i := range files {
		path := filepath.Join(dir, fmt.Sprintf("%02d.bin", i))
		writeFile(t, path, uint64(i), int64(i*150_000))
		sum, err := sha256OfFile(path)
		if err != nil {
			t.Fatal(err)
		}
		want[fmt.Sprintf("local/dist/%02d.bin", i)] = sum
	}
	out, err := pushCommand(t.Context(), "http://"+between.address(), "--timeout", "3m", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if left := between.cuts.Load(); left > 0 {
		t.Errorf("%d cuts are left\n%s", left, out)
	}
	if !strings.Contains(string(out), "trying again") || !strings.Contains(string(out), "20 of 20 files received by the gateway, 20 delivered") {
		t.Errorf("it says\n%s", out)
	}
	wantAllStored(t, filepath.Join(data, "server"), want)
	if got := uploads(t, p.http); len(got) != files {
		t.Errorf("the gateway has %d uploads, want %d", len(got), files)
	}
}

// TestPushParallelReruns runs the same command many times at once: there is one
// job, and every one of them succeeds.
func TestPushParallelReruns(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	p := up(t, data).tap()
	path := filepath.Join(t.TempDir(), "app.tar.gz")
	writeFile(t, path, 1, 300_000)
	const reruns, atOnce = 200, 40 // processes; the others wait for the two processors anyway
	turns := make(chan struct{}, atOnce)
	var all sync.WaitGroup
	for i := range reruns {
		turns <- struct{}{}
		all.Go(func() {
			defer func() { <-turns }()
			if out, err := pushCommand(t.Context(), p.http, path).CombinedOutput(); err != nil {
				t.Errorf("rerun %d: %v\n%s", i, err, out)
			}
		})
	}
	all.Wait()
	if got := uploads(t, p.http); len(got) != 1 || got[0].State != "delivered" {
		t.Errorf("there are %d uploads, want one that is delivered: %+v", len(got), got)
	}
}

// TestPushRerunSendsNothing counts what a rerun sends: its questions alone.
func TestPushRerunSendsNothing(t *testing.T) {
	t.Parallel()
	p := up(t, t.TempDir()).tap()
	between := newRelay(t, strings.TrimPrefix(p.http, "http://"))
	gateway := "http://" + between.address()
	dir := filepath.Join(t.TempDir(), "dist")
	for i := range 5 {
		writeFile(t, filepath.Join(dir, fmt.Sprint(i)), uint64(i), 1_000_000)
	}
	for _, run := range []string{"first", "second"} {
		before := between.sent.Load()
		out, err := pushCommand(t.Context(), gateway, dir).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", run, err, out)
		}
		sent := between.sent.Load() - before
		t.Logf("the %s run sent %d bytes", run, sent)
		if run == "first" && sent < 5_000_000 || run == "second" && sent > 100_000 {
			t.Errorf("the %s run sent %d bytes", run, sent)
		}
	}
}
