package e2e_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSlowBodies sends bodies with less than the minimum rate, by curl and byte by
// byte, to the gateway itself and through nginx with its buffers off: each is cut
// with 408, nothing of it is kept, and the same file is taken at a proper pace.
// With its buffers on, nginx waits in the gateway's place.
func TestSlowBodies(t *testing.T) {
	gw := start(t, "gateway", "--data", t.TempDir(), "--name", "slow", "--to", "v3://"+nobody(t), "--http", "127.0.0.1:0",
		"--base-path", "/ferry", "--idle-timeout", "2s", "--min-rate", "1MiB")
	at := strings.TrimSuffix(gw.http, "/ferry")
	address := strings.TrimPrefix(at, "http://")
	proxy := startNginx(t, at, "off", "1.1")
	file := filepath.Join(t.TempDir(), "file")
	writeFile(t, file, 1, 1<<20)
	bySocket := []string{"--unix-socket", proxy}
	t.Run("slow", func(t *testing.T) {
		for name, args := range map[string][]string{
			"raw":     {"--upload-file", file, at + "/ferry/uploads/raw"},
			"chunked": {"--upload-file", file, "--header", "Transfer-Encoding: chunked", at + "/ferry/uploads/chunked"},
			"form":    {"-F", "file=@" + file, at + "/ferry/uploads"},
		} {
			for way, how := range map[string][]string{"directly": nil, "nginx": bySocket} {
				t.Run(name+" "+way, func(t *testing.T) {
					t.Parallel()
					args := append(append([]string{"--limit-rate", "64K"}, how...), args...)
					if a := curl(t, args...); a.status != 408 || !strings.Contains(a.body, "/problems/slow") || !strings.Contains(a.body, `"retryable":true`) {
						t.Errorf("curl %s: %d %s, want 408", args, a.status, a.body)
					}
				})
			}
		}
		t.Run("byte by byte directly", func(t *testing.T) { t.Parallel(); dribble(t, "tcp", address, "/ferry/uploads/a") })
		t.Run("byte by byte nginx", func(t *testing.T) { t.Parallel(); dribble(t, "unix", proxy, "/ferry/uploads/b") })
		t.Run("again by curl itself", func(t *testing.T) {
			t.Parallel()
			out, _ := exec.CommandContext(t.Context(), "curl", "--silent", "--show-error", "--fail-with-body", "--max-time", "60", "--retry", "1", "--retry-delay", "1",
				"--limit-rate", "64K", "--upload-file", file, at+"/ferry/uploads/again").CombinedOutput()
			if n := strings.Count(string(out), "/problems/slow"); n != 2 {
				t.Errorf("curl --retry 1 was told %d times that it is slow, want twice: %s", n, out)
			}
		})
	})
	if a := curl(t, at+"/ferry/uploads"); a.status != 200 || !strings.Contains(a.body, `"uploads":[]`) {
		t.Errorf("kept are %s", a.body)
	}
	curl(t, "--retry", "5", "--upload-file", file, at+"/ferry/uploads/directly").upload(t, 202)
	curl(t, append(bySocket, "--retry", "5", "--upload-file", file, at+"/ferry/uploads/nginx")...).upload(t, 202)
}

// dribble sends a byte at a time, often enough never to be silent, and wants to be
// told that this is too slow.
func dribble(t *testing.T, network, address, path string) {
	t.Helper()
	conn, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "PUT %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n", path); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for range tick.C {
			if _, err := io.WriteString(conn, "x"); err != nil {
				return
			}
		}
	}()
	err = conn.SetReadDeadline(time.Now().Add(readyLimit))
	res, err2 := http.ReadResponse(bufio.NewReader(conn), nil)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err := errors.Join(err, res.Body.Close(), conn.Close()); err != nil || res.StatusCode != http.StatusRequestTimeout {
		t.Errorf("a drip is answered %d %s, %v; want 408", res.StatusCode, body, err)
	}
	<-ended
}
