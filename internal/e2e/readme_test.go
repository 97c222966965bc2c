package e2e_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var shellBlock = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")

// TestReadme runs every shell block of the README, in order, as a new user
// would: what serves in a terminal of its own, make run first, the others
// beside it. Ports and the data folder are those of the test: settings say so to
// make run, and the text of the other blocks is changed accordingly.
func TestReadme(t *testing.T) {
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, m := range shellBlock.FindAllStringSubmatch(string(readme), -1) {
		blocks = append(blocks, m[1])
	}
	if len(blocks) < 5 || blocks[0] != "make run\n" {
		t.Fatalf("the README has %d shell blocks, the first %q; want at least 5, make run first", len(blocks), blocks[:min(1, len(blocks))])
	}

	work, data := t.TempDir(), filepath.Join(t.TempDir(), "ferry-data")
	ferry := makeRun(t, root, data)
	writeFile(t, filepath.Join(work, "app.tar.gz"), 1, 300_000)
	writeFile(t, filepath.Join(work, "notes.txt"), 2, 300)
	for _, entry := range []string{"go.mod", "go.sum", "cmd", "gateway", "server", "proto", "internal", "api", "web"} {
		if err := os.Symlink(filepath.Join(root, entry), filepath.Join(work, entry)); err != nil {
			t.Fatal(err)
		}
	}
	here := []string{
		"http://127.0.0.1:8080", ferry.http,
		"v4://127.0.0.1:1257", "v4://" + ferry.v4,
		"ferry-data/", data + "/",
	}
	environ := append(withoutFerryVariables(os.Environ()), "XDG_STATE_HOME="+t.TempDir())
	var gateways []*process
	for i, block := range blocks[1:] {
		if strings.Contains(block, "ls ") { // a person is slower than a test
			waitAllDelivered(t, ferry.http)
		}
		if serves.MatchString(block) {
			// Ports that are free take the place of the README's.
			free := strings.NewReplacer("--listen 127.0.0.1:1258", "--listen 127.0.0.1:0", "--http 127.0.0.1:8081", "--http 127.0.0.1:0")
			cmd := exec.Command("bash", "-euo", "pipefail", "-c", "exec "+strings.NewReplacer(here...).Replace(free.Replace(block)))
			cmd.Dir, cmd.Env = work, environ
			p := startCommand(t, cmd)
			if p.http != "" {
				here, gateways = append(here, "http://127.0.0.1:8081", p.http), append(gateways, p)
			} else {
				here = append(here, "127.0.0.1:1258", p.v4)
			}
			continue
		}
		cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", strings.NewReplacer(here...).Replace(block))
		cmd.Dir, cmd.Env = work, environ
		out, err := cmd.CombinedOutput()
		t.Logf("%s\n%s", block, out)
		if err != nil {
			t.Fatalf("block %d: %v", i+2, err)
		}
		if strings.Contains(block, "ls ") && !strings.Contains(string(out), "app.tar.gz\nnotes.txt") {
			t.Errorf("block %d does not list what was sent", i+2)
		}
	}
	if len(gateways) != 1 {
		t.Fatalf("%d gateways were started beside make run, want 1", len(gateways))
	}
	waitAllDelivered(t, gateways[0].http)
	for _, folder := range []string{
		filepath.Join(data, "server", "files", "local"), filepath.Join(data, "server", "files", "build-7"),
		storedFolder(t, filepath.Join(work, "ferry-files")),
	} {
		wantSame(t, filepath.Join(work, "app.tar.gz"), filepath.Join(folder, "app.tar.gz"))
	}
}

// serves matches the blocks of what runs until it is stopped.
var serves = regexp.MustCompile(`^\./ferry (server|gateway) --`)

// makeRun is the README's first command, with settings from the environment.
func makeRun(t *testing.T, root, data string) *process {
	t.Helper()
	cmd := exec.Command("make", "run")
	cmd.Dir = root
	cmd.Env = append(withoutFerryVariables(os.Environ()),
		"FERRY_DATA="+data, "FERRY_HTTP=127.0.0.1:0", "FERRY_LISTEN=127.0.0.1:0")
	return startCommand(t, cmd)
}

// waitAllDelivered waits until the gateway has nothing left to deliver.
func waitAllDelivered(t *testing.T, base string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		var list struct{ Uploads []upload }
		if err := getJSON(t.Context(), base+"/uploads", &list); err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(list.Uploads, func(u upload) bool { return u.State != "delivered" }) {
			return
		}
	}
	t.Fatal("not everything was delivered")
}
