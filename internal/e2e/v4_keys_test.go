package e2e_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestKeysRefused wants whoever keeps a private key, the server, the gateway
// and ferry send, to make its file for its owner alone, and not to start with
// one that others can read.
func TestKeysRefused(t *testing.T) {
	root := t.TempDir()
	serverData, gatewayData, home := filepath.Join(root, "server"), filepath.Join(root, "gateway"), filepath.Join(root, "home")
	file := filepath.Join(root, "file")
	writeFile(t, file, 1, 1000)

	server := &serverV4{data: serverData, args: []string{"server", "--data", serverData, "--listen", "127.0.0.1:0"}}
	server.process = start(t, server.args...) // makes its own identity
	g := server.startGatewayV4(gatewayData, server.v4, "ci")
	send := []string{"send", "--to", server.url(server.v4), "--join", server.token(), "--name", "sender", file}
	if r := ferry(t, home, send...); r.status != 0 {
		t.Fatalf("ferry send: %+v", r)
	}
	u, err := post(t.Context(), g.http, "file", content(1, 10), 10)
	if err != nil {
		t.Fatal(err)
	}
	deliveredSoon(t, g.http, u.ID, time.Minute)
	pin := server.pin
	g.stop()

	t.Run("ferry send", func(t *testing.T) {
		wantRefused(t, identityIn(t, home), func() (int, string) {
			r := ferry(t, home, send...)
			return r.status, r.stderr
		})
	})
	t.Run("gateway", func(t *testing.T) {
		wantRefused(t, identityIn(t, gatewayData), func() (int, string) { return startBriefly(t, g.args) })
	})
	t.Run("server", func(t *testing.T) {
		server.stop()
		wantRefused(t, filepath.Join(serverData, identityFile), func() (int, string) { return startBriefly(t, server.args) })
		server.again()
		if server.pin != pin {
			t.Errorf("the server is known by %s after a restart, and was by %s", server.pin, pin)
		}
	})
}

// identityIn is the only file under a folder that keeps a client's identity.
func identityIn(t *testing.T, root string) (found string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "identity" && !d.IsDir() {
			if found != "" {
				err = errors.New("there are two identities")
			}
			found = path
		}
		return err
	})
	if err != nil || found == "" {
		t.Fatalf("identity under %s: %q, %v", root, found, err)
	}
	return found
}

// startBriefly starts what serves, or is refused to, and says what it ends
// with: 0 if it started.
func startBriefly(t *testing.T, args []string) (int, string) {
	t.Helper()
	cmd := command(t, "", args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var some [1]byte
	if n, _ := stdout.Read(some[:]); n > 0 { // it is ready: stop it
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return 0, stderr.String()
	}
	if _, exited := errors.AsType[*exec.ExitError](cmd.Wait()); !exited {
		t.Fatalf("%q ended without a word", args)
	}
	return cmd.ProcessState.ExitCode(), stderr.String()
}

// wantRefused wants a key file to be its owner's, and a start to fail, with the
// way out, for as long as it is not.
func wantRefused(t *testing.T, path string, try func() (status int, said string)) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%s: %v, mode %v; want 0600", path, err, info.Mode())
	}
	secret, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o620, 0o602, 0o644} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		status, said := try()
		if status != 1 || !hasAll(said, []string{"make it 0600"}) {
			t.Errorf("with mode %v: status %d, %s; want 1, and 0600 as the way out", mode, status, said)
		}
		if strings.Contains(said, string(secret[len(secret)/2:len(secret)/2+40])) {
			t.Errorf("with mode %v: the key is shown", mode)
		}
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if status, said := try(); status != 0 {
		t.Errorf("with mode 0600 again: status %d, %s", status, said)
	}
}
