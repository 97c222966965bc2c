// Command deps sees to it that what the tests run beside Go is installed:
// programs, from Debian's packages where that is possible, and the npm
// packages that tests and checks have pinned. It does nothing, quickly, where
// everything is there already.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// program is one that the tests run.
type program struct {
	command string
	debian  string // the package that has it
	why     string
}

var programs = []program{
	{"cc", "gcc libc6-dev", "SQLite and the race detector are built with it"},
	{"curl", "curl", "the quick start is run with it"},
	{"cksum", "coreutils", "checksums are compared with it"},
	{"ssh", "openssh-client", "uploads are measured beside scp"},
	{"strace", "strace", "the order of durability is read off system calls"},
	{"openssl", "openssl", "keys are compared with it"},
	{"chromium", "chromium", "the page is tested in it"},
	{"node", "nodejs", "an independent peer and the browser test are written for it"},
	{"npm", "npm", "the browser test and the API linter come from it"},
}

// leastNode is the oldest Node.js that the pinned npm packages run on.
var leastNode = [2]int{20, 19}

// npmFolders have a package-lock.json.
var npmFolders = []string{"tools/npm"}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "deps:", err)
		os.Exit(1)
	}
}

func run() error {
	if err := installPrograms(); err != nil {
		return err
	}
	if err := checkNode(); err != nil {
		return err
	}
	for _, folder := range npmFolders {
		if err := installPackages(folder); err != nil {
			return fmt.Errorf("%s: %w", folder, err)
		}
	}
	return nil
}

func missing() []program {
	return slices.DeleteFunc(slices.Clone(programs), func(p program) bool {
		_, err := exec.LookPath(p.command)
		return err == nil
	})
}

func installPrograms() error {
	lacking := missing()
	if len(lacking) == 0 {
		return nil
	}
	var packages []string
	for _, p := range lacking {
		fmt.Fprintf(os.Stderr, "deps: %s is missing: %s\n", p.command, p.why)
		packages = append(packages, strings.Fields(p.debian)...)
	}
	install := "apt-get install --no-install-recommends " + strings.Join(packages, " ")
	_, notDebian := os.Stat("/etc/debian_version")
	if notDebian != nil || os.Getuid() != 0 {
		return fmt.Errorf("install what is missing and try again; on Debian, as root: %s", install)
	}
	for _, args := range [][]string{{"update"}, append([]string{"install", "-y", "--no-install-recommends"}, packages...)} {
		if err := show("", "apt-get", args...); err != nil {
			return fmt.Errorf("%s: %w", install, err)
		}
	}
	if still := missing(); len(still) > 0 {
		return fmt.Errorf("%s is still missing after %s", still[0].command, install)
	}
	return nil
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
		return fmt.Errorf("Node.js is %s; the tests need %d.%d or newer: https://nodejs.org/en/download",
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
