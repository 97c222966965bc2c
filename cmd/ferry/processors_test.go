package main

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"ferry/internal/seccomp"
	"ferry/proto"
	"ferry/server"
)

// TestHalve takes one of two processors and gives it back, and leaves alone what is not two or was
// said by the user.
func TestHalve(t *testing.T) {
	found := runtime.GOMAXPROCS(0)
	runtime.SetDefaultGOMAXPROCS()
	usual := runtime.GOMAXPROCS(0)
	t.Cleanup(func() { runtime.GOMAXPROCS(found) })
	if os.Getenv("GOMAXPROCS") == "" {
		t.Cleanup(runtime.SetDefaultGOMAXPROCS)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	calms := policyOf(0) == unix.SCHED_NORMAL && !seccomp.Filtered()
	halved := 2
	if hasTwo() {
		halved = 1
	} else {
		t.Log("SKIPPED in part: this machine has not two processors, of which one is taken")
	}
	for _, test := range []struct {
		said              string
		have, while, then int
	}{
		{"", 1, 1, 1},
		{"", 2, halved, usual},
		{"", 3, 3, 3},
		{"", 8, 8, 8},
		{"2", 2, 2, 2},
	} {
		t.Setenv("GOMAXPROCS", test.said)
		runtime.GOMAXPROCS(test.have)
		restore := halve()
		while, calm := runtime.GOMAXPROCS(0), policyOf(0) == unix.SCHED_BATCH
		restore()
		if want := calms && while != test.have; calm != want && calms {
			t.Errorf("%+v: unhurried meanwhile: %v, want %v", test, calm, want)
		}
		if test.while == test.have {
			test.then = test.have
		}
		if then := runtime.GOMAXPROCS(0); while != test.while || then != test.then {
			t.Errorf("%+v: %d, then %d", test, while, then)
		}
	}
}

// thread runs what it is told on a thread of its own, which ends with the test.
func thread(t *testing.T) (do func(func())) {
	orders, done := make(chan func()), make(chan struct{})
	t.Cleanup(func() { close(orders) })
	go func() {
		runtime.LockOSThread() // and never unlocks it
		for order := range orders {
			order()
			done <- struct{}{}
		}
	}()
	return func(order func()) {
		orders <- order
		<-done
	}
}

// TestUnhurried changes how threads are scheduled, and nothing else of them; one that was told otherwise
// stays as it is, and one that is nice.
func TestUnhurried(t *testing.T) {
	if seccomp.Filtered() {
		t.Skip("SKIPPED: system calls are filtered here, so that nothing is done")
	}
	const nice = 3
	type attributes struct {
		policy uint32
		nice   int32
		slice  uint64
	}
	var doers []func(func())
	own, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	begun := []attributes{
		{policy: unix.SCHED_NORMAL, nice: own.Nice}, {policy: unix.SCHED_NORMAL, nice: min(own.Nice+nice, 19)},
		{policy: unix.SCHED_BATCH, nice: own.Nice}, {policy: unix.SCHED_IDLE, nice: own.Nice},
	}
	ask := func(i int) (a attributes) {
		doers[i](func() {
			got, err := unix.SchedGetAttr(0, 0)
			if err != nil {
				t.Error(err)
				return
			}
			a = attributes{got.Policy, got.Nice, got.Runtime}
		})
		return a
	}
	for i, a := range begun {
		do := thread(t)
		doers = append(doers, do)
		var err error
		do(func() {
			err = unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: a.policy, Nice: a.nice}, 0)
		})
		if err != nil {
			t.Skipf("SKIPPED: a thread cannot be scheduled as %+v here: %v", a, err)
		}
		begun[i] = ask(i)
	}

	restore := unhurried()
	for i, was := range begun {
		want := was
		if was.policy == unix.SCHED_NORMAL {
			want.policy = unix.SCHED_BATCH
		}
		if got := ask(i); got != want {
			t.Errorf("while unhurried, %+v is %+v, want %+v", was, got, want)
		}
	}
	restore()
	for i, was := range begun {
		if got := ask(i); got != was {
			t.Errorf("afterwards, %+v is %+v", was, got)
		}
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
		{"v4://192.0.2.1:1257", []sendFile{large}, false},
		{"v4://name.invalid:1257", []sendFile{large}, false},
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
		if got := (sendPlan{to: to, version: version, files: test.files}).even(t.Context()); got != test.want {
			t.Errorf("%d files to %s: %v", len(test.files), test.to, got)
		}
	}
}
