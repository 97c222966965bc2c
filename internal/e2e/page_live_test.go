package e2e_test

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestPageTabs follows uploads in several tabs.
func TestPageTabs(t *testing.T) {
	t.Parallel()
	inBrowsers(t, pageTabs)
}

func pageTabs(t *testing.T, browser string) {
	browseIn(t, browser, "tabs", up(t, t.TempDir()), nil, nil)
}

// TestPageRestart kills the gateway while the page sends, and starts it again.
func TestPageRestart(t *testing.T) {
	t.Parallel()
	inBrowsers(t, pageRestart)
}

func pageRestart(t *testing.T, browser string) {
	data, dir := t.TempDir(), t.TempDir()
	files := map[string][]byte{"there.txt": []byte("there\n"), "cut.bin": randomBytes(48 << 20), "later.txt": []byte("later\n")}
	for name, content := range files {
		write(t, filepath.Join(dir, name), content)
	}
	p := up(t, data)
	again := []string{"up", "--data", data, "--http", strings.TrimPrefix(p.http, "http://"), "--listen", "127.0.0.1:0"}
	browseIn(t, browser, "restart", p, map[string]any{"dir": dir}, map[string]func(){
		"freeze": func() {
			if err := syscall.Kill(p.pid(), syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
		},
		"kill":  func() { p.kill() },
		"start": func() { p = start(t, again...) },
	})
	wantStored(t, data, files)
}
