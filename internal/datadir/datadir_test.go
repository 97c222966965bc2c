package datadir_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ferry/internal/datadir"
)

// TestMain lets the test binary be the other process: it locks the folder that
// it is given and waits to be killed.
func TestMain(m *testing.M) {
	dir := os.Getenv("DATADIR_TEST_HOLD")
	if dir == "" {
		os.Exit(m.Run())
	}
	if _, err := datadir.Open(dir); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("held")
	select {}
}

func TestOneProcessAtATime(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "there", "yet")
	other := exec.Command(os.Args[0])
	other.Env = append(os.Environ(), "DATADIR_TEST_HOLD="+dir)
	out, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Wait() }()
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "held\n" {
		t.Fatalf("the other process said %q, %v", line, err)
	}

	_, err = datadir.Open(dir)
	if !errors.Is(err, datadir.ErrLocked) || !strings.Contains(err.Error(), fmt.Sprintf("process %d:", other.Process.Pid)) {
		t.Errorf("while it is held: %v, want ErrLocked that names process %d", err, other.Process.Pid)
	}
	if err := other.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = other.Wait()
	d, err := datadir.Open(dir)
	if err != nil {
		t.Fatalf("after kill -9 of the holder: %v", err)
	}
	if info, err := os.Stat(d.Path()); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v; want 0700", info.Mode().Perm(), err)
	}
	if _, err := datadir.Open(dir); !errors.Is(err, datadir.ErrLocked) {
		t.Errorf("a second time in one process: %v, want ErrLocked", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := datadir.Open(dir)
	if err != nil {
		t.Fatalf("after Close: %v", err)
	}
	_ = again.Close()
}
