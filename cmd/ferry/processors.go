package main

import (
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"ferry/server"
)

// halve has this process use one of two processors until restore is called, and its threads not
// interrupt each other. While a large file goes from a process to another one on the same machine,
// each of which has as much work with it, that takes a sixth less time: what one has in its caches, the
// other does not drive out. With more processors each finds some of its own, and where GOMAXPROCS is set
// they are left as they are.
func halve() (restore func()) {
	if runtime.GOMAXPROCS(0) != 2 || os.Getenv("GOMAXPROCS") != "" {
		return func() {}
	}
	runtime.GOMAXPROCS(1)
	hurry := unhurried()
	return func() {
		hurry()
		runtime.SetDefaultGOMAXPROCS()
	}
}

// unhurried has no thread of this process interrupt a running one when it wakes (SCHED_BATCH in
// sched(7)), until restore is called. Threads that have another policy than the usual one keep it, and so
// do all where that may not be set. Threads that begin meanwhile have the policy of those that begin them.
func unhurried() (restore func()) {
	if !eachThread(unix.SCHED_NORMAL, unix.SCHED_BATCH) {
		return func() {}
	}
	return func() {
		// A thread that begins now may have the old policy, if it is not listed yet.
		for range 3 {
			if !eachThread(unix.SCHED_BATCH, unix.SCHED_NORMAL) {
				return
			}
		}
	}
}

// eachThread has the threads that have one policy have another one, and changes nothing else of them.
// It reports whether there was one.
func eachThread(from, to uint32) (changed bool) {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return false
	}
	for _, thread := range threads {
		id, err := strconv.Atoi(thread.Name())
		if err != nil {
			continue
		}
		has, err := unix.SchedGetAttr(id, 0)
		if err != nil || has.Policy != from {
			continue
		}
		wants := *has // how nice it is, and the like
		wants.Policy = to
		changed = unix.SchedSetAttr(id, &wants, 0) == nil || changed
	}
	return changed
}

// even reports whether the server has as much work with the files as this process, and on this
// machine. It halves its processors then, too.
func (p sendPlan) even() bool {
	if p.version.bare || !isLoopback(p.to.Address()) || len(p.files) != 1 {
		return false
	}
	info, err := os.Stat(p.files[0].path)
	return err == nil && info.Size() >= server.HalveFrom
}
