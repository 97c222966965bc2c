package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"ferry/proto"
	"ferry/server"
)

// TestHalve takes one of two processors and gives it back, and leaves alone what is not two or was
// said by the user.
func TestHalve(t *testing.T) {
	runtime.SetDefaultGOMAXPROCS()
	usual := runtime.GOMAXPROCS(0)
	t.Cleanup(runtime.SetDefaultGOMAXPROCS)
	for _, test := range []struct {
		said              string
		have, while, then int
	}{
		{"", 1, 1, 1},
		{"", 2, 1, usual},
		{"", 3, 3, 3},
		{"", 8, 8, 8},
		{"2", 2, 2, 2},
	} {
		t.Setenv("GOMAXPROCS", test.said)
		runtime.GOMAXPROCS(test.have)
		restore := halve()
		while, calm := runtime.GOMAXPROCS(0), policies(t)[unix.SCHED_BATCH] > 0
		restore()
		if then := runtime.GOMAXPROCS(0); while != test.while || then != test.then || calm != (test.have != test.while) {
			t.Errorf("%+v: %d, then %d; unhurried meanwhile: %v", test, while, then, calm)
		}
	}
}

// policies counts the threads of this process by how they are scheduled.
func policies(t *testing.T) map[uint32]int {
	t.Helper()
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	n := map[uint32]int{}
	for _, thread := range threads {
		id, err := strconv.Atoi(thread.Name())
		if err != nil {
			t.Fatal(err)
		}
		if a, err := unix.SchedGetAttr(id, 0); err == nil { // it may have ended
			n[a.Policy]++
		}
	}
	return n
}

// TestUnhurried changes how threads are scheduled, and nothing else of them; one that was told otherwise
// stays as it is, and one that is nice.
func TestUnhurried(t *testing.T) {
	if n := policies(t); n[unix.SCHED_NORMAL] == 0 || n[unix.SCHED_BATCH] != 0 {
		t.Skipf("SKIPPED: the threads of the test are scheduled by other policies than usual: %v", n)
	}
	const nice = 3
	told, go1, go2 := make(chan error), make(chan struct{}), make(chan struct{})
	ask := func() (unix.SchedAttr, error) {
		a, err := unix.SchedGetAttr(0, 0)
		if err != nil {
			return unix.SchedAttr{}, err
		}
		return *a, nil
	}
	// Each ends with its goroutine, as that stays locked to it.
	idle, kind := make(chan unix.SchedAttr, 2), make(chan unix.SchedAttr, 2)
	as := func(attr unix.SchedAttr, answers chan<- unix.SchedAttr) {
		runtime.LockOSThread()
		attr.Size = unix.SizeofSchedAttr
		told <- unix.SchedSetAttr(0, &attr, 0)
		for _, next := range []chan struct{}{go1, go2} {
			<-next
			a, err := ask()
			if err != nil {
				t.Error(err)
			}
			answers <- a
		}
	}
	go as(unix.SchedAttr{Policy: unix.SCHED_IDLE}, idle)
	go as(unix.SchedAttr{Policy: unix.SCHED_NORMAL, Nice: nice}, kind)
	for range 2 {
		if err := <-told; err != nil {
			t.Fatal(err)
		}
	}

	restore := unhurried()
	if n := policies(t); n[unix.SCHED_NORMAL] != 0 || n[unix.SCHED_BATCH] == 0 || n[unix.SCHED_IDLE] != 1 {
		t.Errorf("while unhurried, threads by policy: %v", n)
	}
	close(go1)
	if a, b := <-idle, <-kind; a.Policy != unix.SCHED_IDLE || b.Policy != unix.SCHED_BATCH || b.Nice != nice {
		t.Errorf("while unhurried: %+v and %+v", a, b)
	}
	restore()
	if n := policies(t); n[unix.SCHED_BATCH] != 0 || n[unix.SCHED_IDLE] != 1 {
		t.Errorf("afterwards, threads by policy: %v", n)
	}
	close(go2)
	if a, b := <-idle, <-kind; a.Policy != unix.SCHED_IDLE || b.Policy != unix.SCHED_NORMAL || b.Nice != nice {
		t.Errorf("afterwards: %+v and %+v", a, b)
	}
}

// TestEven knows for which files a server halves its processors as well.
func TestEven(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, size int64) sendFile {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
		return sendFile{path: path}
	}
	large, small := file("large", server.HalveFrom), file("small", server.HalveFrom-1)
	for _, test := range []struct {
		to    string
		files []sendFile
		want  bool
	}{
		{"v4://127.0.0.1:1257", []sendFile{large}, true},
		{"v4://[::1]:1257", []sendFile{large}, true},
		{"v4://localhost:1257", []sendFile{large}, true},
		{"v4://files.example.org:1257", []sendFile{large}, false},
		{"v3://127.0.0.1:1256", []sendFile{large}, false},
		{"v4://127.0.0.1:1257", []sendFile{small}, false},
		{"v4://127.0.0.1:1257", []sendFile{large, large}, false},
		{"v4://127.0.0.1:1257", []sendFile{{path: filepath.Join(dir, "none")}}, false},
		{"v4://127.0.0.1:1257", nil, false},
	} {
		to, err := proto.ParseDestination(test.to)
		if err != nil {
			t.Fatal(err)
		}
		version, err := versionOf(to)
		if err != nil {
			t.Fatal(err)
		}
		if got := (sendPlan{to: to, version: version, files: test.files}).even(); got != test.want {
			t.Errorf("%d files to %s: %v", len(test.files), test.to, got)
		}
	}
}
