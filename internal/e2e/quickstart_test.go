package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestQuickStart sends files with curl, raw and as a form, and looks at what
// the native server stored, for the sizes at which something changes in the
// wire versions and the names that files have.
func TestQuickStart(t *testing.T) {
	data := t.TempDir()
	ferry := up(t, data)
	src := t.TempDir()

	cases := []struct {
		name string
		size int64
	}{
		{"empty", 0},
		{"one", 1},
		{"below a slice of plaintext", 7901},
		{"a slice of plaintext", 7902},
		{"8192.bin", 8192},
		{"an empty last packet.bin", 63200}, // its ciphertext is 8 x 7902 bytes
		{"1MiB.bin", 1 << 20},
		{"app.tar.gz", 300_000},
		{"the largest small.bin", 65_536},
		{"the smallest large.bin", 65_537},
		{"build-17/of a folder/app.tar.gz", 65_538},
		{"grüße aus 東京 🚢.txt", 12},
		{"  blanks  around  ", 13},
		{`quote " percent %41 plus + & = ;.txt`, 14},
		{strings.Repeat("n", 255), 15},
		{strings.Repeat("é", 127) + "n", 70_000},
	}
	for i, c := range cases {
		for _, way := range []string{"raw", "form"} {
			t.Run(fmt.Sprintf("%s/%d/%.20s", way, c.size, c.name), func(t *testing.T) {
				name := c.name
				if way == "form" { // the same name twice would be one file
					name = name[:len(name)-1] + "F"
				}
				// The file on the sender's side has a plain name: curl is told the other.
				path := filepath.Join(src, fmt.Sprintf("%d-%s", i, way))
				writeFile(t, path, uint64(i), c.size)
				sent := curlUpload(t, ferry.http, way, path, name)
				checkStored(t, ferry, data, sent, path, name)
			})
		}
	}
}

// TestLargestOfVersion3 sends 500 MB, close below what wire version 3 can carry.
func TestLargestOfVersion3(t *testing.T) {
	data := t.TempDir()
	ferry := start(t, "up", "--data", data, "--http", "127.0.0.1:0", "--listen", "none", "--v3-listen", "127.0.0.1:0")
	path := filepath.Join(t.TempDir(), "large.iso")
	writeFile(t, path, 500, 500_000_000)
	sent := curlUpload(t, ferry.http, "raw", path, "large.iso")
	checkStored(t, ferry, data, sent, path, "large.iso")
}

// curlUpload sends a file as the quick start does and returns the answered upload.
func curlUpload(t *testing.T, base, way, path, name string) upload {
	t.Helper()
	head := filepath.Join(t.TempDir(), "head")
	args := []string{"--silent", "--show-error", "--fail-with-body", "--max-time", "120", "--dump-header", head}
	switch way {
	case "raw":
		args = append(args, "--data-binary", "@"+path, base+"/uploads?name="+url.QueryEscape(name))
	case "form":
		quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name)
		file, to := fmt.Sprintf(`file=@"%s";filename="%s"`, path, quoted), base+"/uploads"
		if strings.Contains(name, "/") { // a filename has no folders
			file, to = fmt.Sprintf(`file=@"%s"`, path), to+"?name="+url.QueryEscape(name)
		}
		args = append(args, "-F", file, to)
	}
	out, err := exec.CommandContext(t.Context(), "curl", args...).Output()
	if err != nil {
		t.Fatalf("curl: %v: %s", err, out)
	}
	var u upload
	if way == "form" {
		var many struct{ Uploads []upload }
		if err := json.Unmarshal(out, &many); err != nil || len(many.Uploads) != 1 {
			t.Fatalf("answer %s, %v; want one upload", out, err)
		}
		u = many.Uploads[0]
	} else if err := json.Unmarshal(out, &u); err != nil {
		t.Fatalf("answer %s: %v", out, err)
	}
	h, err := os.ReadFile(head)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(h), "202 Accepted") || !strings.Contains(string(h), "Location: /uploads/"+u.ID) {
		t.Errorf("answer's head:\n%s\nwant 202 Accepted and Location: /uploads/%s", h, u.ID)
	}
	return u
}

// checkStored waits for the delivery and compares the stored file, the upload
// and the sums that sha256sum and cksum print.
func checkStored(t *testing.T, ferry *process, data string, sent upload, path, name string) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	got := waitDelivered(t, ferry.http, sent.ID, time.Minute)
	type facts struct {
		Name   string
		Size   int64
		SHA256 string
		Cksum  string
	}
	want := facts{name, info.Size(), fields(t, "sha256sum", path)[0], fields(t, "cksum", path)[0]}
	if d := cmp.Diff(want, facts{got.Name, *got.Size, got.SHA256, strconv.FormatUint(uint64(got.Cksum), 10)}); d != "" {
		t.Errorf("the delivered upload differs (-want +got):\n%s", d)
	}
	if got.Progress.Bytes != info.Size() || got.Progress.TotalBytes != info.Size() || got.Progress.Packets != got.Progress.TotalPackets {
		t.Errorf("progress of a delivered upload: %+v, want all of %d bytes", got.Progress, info.Size())
	}
	stored := filepath.Join(storedFolder(t, filepath.Join(data, "server")), name)
	if out, err := exec.CommandContext(t.Context(), "cmp", path, stored).CombinedOutput(); err != nil {
		t.Errorf("cmp sent stored: %v: %s", err, out)
	}
}

func fields(t *testing.T, command, path string) []string {
	t.Helper()
	in, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	cmd := exec.CommandContext(t.Context(), command)
	cmd.Stdin = in
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(command, err)
	}
	return strings.Fields(string(out))
}
