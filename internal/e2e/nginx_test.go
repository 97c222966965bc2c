package e2e_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const nginxProgram = "/usr/sbin/nginx"

const nginxConfig = `daemon off;
pid %[1]s/pid;
error_log %[1]s/error.log;
worker_processes 1;
%[4]s
events {}
http {
  access_log off;
  client_body_temp_path %[1]s/body;
  proxy_temp_path %[1]s/proxy;
  fastcgi_temp_path %[1]s/fastcgi;
  uwsgi_temp_path %[1]s/uwsgi;
  scgi_temp_path %[1]s/scgi;
  client_max_body_size 0;
  server {
    listen unix:%[1]s/front.sock;
    location /ferry/ {
      proxy_pass %[2]s;
      proxy_http_version %[5]s;
      proxy_request_buffering %[3]s;
      proxy_buffering %[3]s;
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto https;
      proxy_set_header X-Forwarded-Host $http_host;
    }
  }
}
`

// startNginx has a real nginx pass /ferry/ on to upstream in a version of HTTP/1,
// and returns the unix socket at which it listens.
func startNginx(t *testing.T, upstream, buffering, version string) (socket string) {
	t.Helper()
	if _, err := os.Stat(nginxProgram); err != nil {
		t.Skipf("SKIPPED: nothing is tested behind a proxy, %s is missing: go run ./tools/deps installs it", nginxProgram)
	}
	dir, err := os.MkdirTemp("", "ferry-nginx") // a socket's name must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	user := ""
	if os.Getuid() == 0 {
		user = "user root;" // its workers reach what it has made
	}
	config := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, nginxConfig, dir, upstream, buffering, user, version), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(nginxProgram, "-c", config, "-p", dir, "-e", filepath.Join(dir, "start.log"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(dir, "error.log"))
			t.Logf("nginx: %s", log)
		}
	})
	socket = filepath.Join(dir, "front.sock")
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			_ = conn.Close()
			return socket
		}
		if time.Now().After(deadline) {
			t.Fatalf("nginx does not listen: %v", err)
		}
	}
}

// TestBehindNginx has curl and a browser's requests reach a gateway by way of a
// real nginx at a sub-path, with and without its buffers, and with the sub-path
// passed on and taken away.
func TestBehindNginx(t *testing.T) {
	server := start(t, "server", "--data", t.TempDir(), "--listen", "none", "--v3-listen", "127.0.0.1:0")
	for _, buffering := range []string{"on", "off"} {
		for _, slash := range []string{"", "/"} {
			t.Run(fmt.Sprintf("buffering-%s-upstream%s", buffering, slash), func(t *testing.T) {
				behindNginx(t, server.native, buffering, slash)
			})
		}
	}
}

func behindNginx(t *testing.T, server, buffering, slash string) {
	data := t.TempDir()
	name := "large-" + buffering + strings.Repeat("x", len(slash)) + ".bin"
	token := makeToken(t, data, "ci", "upload")
	gw := start(t, "gateway", "--data", data, "--name", "nginx-"+name, "--to", "v3://"+server+"?window=64", "--http", "127.0.0.1:0",
		"--behind-proxy", "--trusted-proxy", "127.0.0.1", "--base-path", "/ferry")
	at := strings.TrimSuffix(gw.http, "/ferry")
	socket := startNginx(t, at+slash, buffering, "1.1")

	path := filepath.Join(t.TempDir(), "large.bin")
	writeFile(t, path, 7, 20<<20)
	header := "Authorization: Bearer " + token
	curl := func(more ...string) (string, error) {
		out, err := exec.CommandContext(t.Context(), "curl", append([]string{"--silent", "--show-error", "--fail-with-body", "--max-time", "60",
			"--unix-socket", socket, "--header", header}, more...)...).CombinedOutput()
		return string(out), err
	}
	const site = "http://files.example.org/ferry"
	head := filepath.Join(t.TempDir(), "head")
	out, err := curl("--data-binary", "@"+path, "--dump-header", head, site+"/uploads?name="+name)
	if err != nil {
		t.Fatalf("curl: %v: %s", err, out)
	}
	var sent upload
	if err := json.Unmarshal([]byte(out), &sent); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	answered, err := os.ReadFile(head)
	if err != nil {
		t.Fatal(err)
	}
	if want := "Location: /ferry/uploads/" + sent.ID + "\r\n"; !strings.Contains(string(answered), want) {
		t.Errorf("the header is %q, want %q in it", answered, want)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(content)
	for deadline := time.Now().Add(60 * time.Second); sent.State != "delivered"; time.Sleep(50 * time.Millisecond) {
		out, err := curl(site + "/uploads/" + sent.ID)
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("%v: %s, want it delivered", err, out)
		}
		if err := json.Unmarshal([]byte(out), &sent); err != nil {
			t.Fatal(err)
		}
	}
	if !strings.Contains(out, hex.EncodeToString(sum[:])) {
		t.Errorf("answered %s, want the digest of what was sent", out)
	}
	if out, err := curl("-F", "file=@"+path+";filename=form-"+name, "--header", "Origin: https://files.example.org", site+"/uploads"); err != nil {
		t.Errorf("a form of the page's own: %v: %s", err, out)
	}
	// A small one: of one that it still sends, nginx answers 502 itself.
	small := filepath.Join(t.TempDir(), "small.bin")
	writeFile(t, small, 8, 1000)
	if out, err := curl("-F", "file=@"+small+";filename=evil-"+name, "--header", "Origin: https://evil.example.org", site+"/uploads"); err == nil || !strings.Contains(out, "/ferry/problems/origin") {
		t.Errorf("a form of another site's: %v: %s, want it refused", err, out)
	}
	header = "X-None: at all"
	if out, err := curl(site + "/uploads"); err == nil || !strings.Contains(out, `"status":401`) {
		t.Errorf("without a token: %v: %s, want 401", err, out)
	}
	checkPageBelow(t, socket, site)
}

// checkPageBelow fetches the page and all that it refers to.
func checkPageBelow(t *testing.T, socket, site string) {
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	defer client.CloseIdleConnections()
	fetch := func(path string) string {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, site+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Errorf("GET %s: %d (%v), want 200", path, res.StatusCode, err)
		}
		return string(body)
	}
	page := fetch("/")
	found := 0
	for _, attribute := range []string{`href="`, `src="`} {
		for _, rest := range strings.Split(page, attribute)[1:] {
			link, _, _ := strings.Cut(rest, `"`)
			if link == "uploads" || strings.HasPrefix(link, "#") { // needs a token, or is on the page
				continue
			}
			found++
			fetch("/" + link)
		}
	}
	if found < 3 {
		t.Errorf("the page refers to %d things, want some", found)
	}
	if !strings.Contains(fetch("/openapi.yaml"), "url: /ferry\n") {
		t.Error("the description does not say where the server is")
	}
}

func makeToken(t *testing.T, data, name, scope string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), ferryBinary, "token", "create", name, "--scope", scope, "--data", data).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}
