// Command deps sees to it that what a task runs beside Go is installed:
// programs, from Debian's packages where that is possible, and the npm
// packages that tests and checks have pinned. It does nothing, quickly, where
// everything is there already.
//
//	go run ./tools/deps              what the tests and checks need
//	go run ./tools/deps bench        what make bench needs
//	go run ./tools/deps screenshots  what make screenshots needs beside the tests
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A thing is a file that a task needs, most often a program.
type thing struct {
	path    string // the name of a command, or where the file is
	debian  string // the packages that have it
	why     string
	service bool // Debian starts it with the machine once it is installed
}

// A need is all that one task needs.
type need struct {
	things []thing
	npm    []string // folders with a package-lock.json
}

var needs = map[string]need{
	"tests": {
		things: []thing{
			{path: "cc", debian: "gcc libc6-dev", why: "SQLite and the race detector are built with it"},
			{path: "curl", debian: "curl", why: "the quick start is run with it"},
			{path: "cksum", debian: "coreutils", why: "checksums are compared with it"},
			{path: "strace", debian: "strace", why: "the order of durability is read off system calls"},
			{path: "openssl", debian: "openssl", why: "keys are compared with it"},
			{path: "/usr/sbin/nginx", debian: "nginx-light", why: "the gateway is tested behind it", service: true},
			{path: "chromium", debian: "chromium", why: "the page is tested in it"},
			{path: "firefox-esr", debian: "firefox-esr", why: "the page is tested in it as well"},
			{path: "node", debian: "nodejs", why: "an independent peer and the browser test are written for it"},
			{path: "npm", debian: "npm", why: "the browser test and the API linter come from it"},
		},
		npm: []string{"tools/npm"},
	},
	"bench": {
		things: []thing{
			{path: "cc", debian: "gcc libc6-dev", why: "SQLite is built with it"},
			{path: "scp", debian: "openssh-client", why: "uploads are measured beside it"},
			{path: "/usr/sbin/sshd", debian: "openssh-server", why: "scp is measured against one of its own", service: true},
			{path: "rsync", debian: "rsync", why: "small files are measured beside it", service: true},
			{path: "/usr/sbin/nginx", debian: "nginx-light", why: "curl is measured against one of its own", service: true},
			{path: "curl", debian: "curl", why: "it sends to nginx"},
			{path: "openssl", debian: "openssl", why: "it makes nginx's certificate"},
		},
	},
	"screenshots": {
		things: []thing{
			{path: "/usr/share/fonts/opentype/inter/Inter-Regular.otf", debian: "fonts-inter", why: "the screenshots look the same everywhere with it"},
			{path: "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc", debian: "fonts-noto-cjk", why: "the pictures of the Japanese and the Chinese page have glyphs with it"},
		},
	},
}

// leastNode is the oldest Node.js that the pinned npm packages run on.
var leastNode = [2]int{20, 19}

func main() {
	tasks := os.Args[1:]
	if len(tasks) == 0 {
		tasks = []string{"tests"}
	}
	for _, task := range tasks {
		if err := satisfy(task); err != nil {
			fmt.Fprintln(os.Stderr, "deps:", err)
			os.Exit(1)
		}
	}
}

func satisfy(task string) error {
	n, known := needs[task]
	if !known {
		return fmt.Errorf("there is no task %q; there are %s", task, strings.Join(slices.Sorted(maps.Keys(needs)), ", "))
	}
	if err := installThings(n.things); err != nil {
		return err
	}
	if len(n.npm) == 0 {
		return nil
	}
	if err := checkNode(); err != nil {
		return err
	}
	for _, folder := range n.npm {
		if err := installPackages(folder); err != nil {
			return fmt.Errorf("%s: %w", folder, err)
		}
	}
	return nil
}

func missing(things []thing) []thing {
	return slices.DeleteFunc(slices.Clone(things), func(t thing) bool {
		if filepath.IsAbs(t.path) {
			_, err := os.Stat(t.path)
			return err == nil
		}
		_, err := exec.LookPath(t.path)
		return err == nil
	})
}

func installThings(things []thing) error {
	lacking := missing(things)
	if len(lacking) == 0 {
		return nil
	}
	var packages []string
	service := ""
	for _, t := range lacking {
		fmt.Fprintf(os.Stderr, "deps: %s is missing: %s\n", t.path, t.why)
		packages = append(packages, strings.Fields(t.debian)...)
		if t.service {
			service = t.debian
		}
	}
	install := "apt-get install --no-install-recommends " + strings.Join(packages, " ")
	if !mayInstall() {
		return fmt.Errorf("install what is missing and try again; on Debian, as root: %s", install)
	}
	if service != "" && startsServices() {
		return fmt.Errorf("%s would be started on this machine and at every boot: if you want that, or will disable it, run: %s", service, install)
	}
	for _, args := range [][]string{{"update"}, append([]string{"install", "-y", "--no-install-recommends"}, packages...)} {
		if err := show("", "apt-get", args...); err != nil {
			return fmt.Errorf("%s: %w", install, err)
		}
	}
	if still := missing(things); len(still) > 0 {
		return fmt.Errorf("%s is still missing after %s", still[0].path, install)
	}
	return nil
}

func mayInstall() bool {
	_, err := os.Stat("/etc/debian_version")
	return err == nil && os.Getuid() == 0
}

// startsServices reports whether installing a package may start what it
// serves. In a container nothing does: its images say so in policy-rc.d.
func startsServices() bool {
	_, systemd := os.Stat("/run/systemd/system")
	_, policy := os.Stat("/usr/sbin/policy-rc.d")
	return systemd == nil || policy != nil
}

var nodeVersion = regexp.MustCompile(`^v(\d+)\.(\d+)\.`)

func checkNode() error {
	out, err := exec.Command("node", "--version").Output()
	if err != nil {
		return fmt.Errorf("node --version: %w", err)
	}
	m := nodeVersion.FindStringSubmatch(string(out))
	if m == nil {
		return fmt.Errorf("node --version printed %q", out)
	}
	major, minor := number(m[1]), number(m[2])
	if slices.Compare([]int{major, minor}, leastNode[:]) < 0 {
		return fmt.Errorf("node is %s; the tests need %d.%d or newer: https://nodejs.org/en/download",
			strings.TrimSpace(string(out)), leastNode[0], leastNode[1])
	}
	return nil
}

func number(digits string) int {
	n, err := strconv.Atoi(digits)
	if err != nil {
		panic("internal error: " + err.Error()) // the pattern matches digits only
	}
	return n
}

// installPackages runs npm ci, unless it was run since the lock file changed.
func installPackages(folder string) error {
	lock, err := os.Stat(filepath.Join(folder, "package-lock.json"))
	if err != nil {
		return err
	}
	installed, err := os.Stat(filepath.Join(folder, "node_modules", ".package-lock.json"))
	if err == nil && !installed.ModTime().Before(lock.ModTime()) {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return show(folder, "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
}

// show runs a command with its output on stderr.
func show(dir, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return nil
}
