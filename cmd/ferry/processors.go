package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"ferry/internal/seccomp"
	"ferry/server"
)

// halve has this process use one of two processors until restore is called, and its threads not
// interrupt others. While a large file goes from a process to another one on the same machine,
// each of which has as much work with it, that takes an eighth to a sixth less time: what one has in its
// caches, the other does not drive out. With more processors each finds some of its own, and where GOMAXPROCS
// is set they are left as they are.
func halve() (restore func()) {
	if !hasTwo() || runtime.GOMAXPROCS(0) != 2 || os.Getenv("GOMAXPROCS") != "" {
		return func() {}
	}
	runtime.GOMAXPROCS(1)
	asBefore := unhurried()
	return func() {
		asBefore()
		runtime.SetDefaultGOMAXPROCS()
	}
}

// hasTwo reports whether the machine has two processors, and this process both. A share of the time of
// more than two is another thing.
func hasTwo() bool {
	online, err := os.ReadFile("/sys/devices/system/cpu/online")
	return err == nil && string(bytes.TrimSpace(online)) == "0-1" && runtime.NumCPU() == 2
}

// unhurried has no thread of this process interrupt a running one when it wakes (SCHED_BATCH in
// sched(7)), until restore is called. Threads that have another policy than the usual one keep it. Where
// system calls are filtered, nothing is done: the filter may end a process for asking. Threads that
// begin meanwhile have the policy of those that begin them.
func unhurried() (restore func()) {
	if seccomp.Filtered() {
		return func() {}
	}
	tasks, err := os.Open("/proc/self/task") // open until the end: there may be no descriptor left then
	if err != nil {
		return func() {}
	}
	before := threadsOf(tasks, unix.SCHED_BATCH)
	// A thread that begins now may have the old policy, if it is not listed yet.
	for range 3 {
		setPolicy(threadsOf(tasks, unix.SCHED_NORMAL), unix.SCHED_BATCH)
	}
	return func() {
		for range 3 {
			ours := slices.DeleteFunc(threadsOf(tasks, unix.SCHED_BATCH), func(id int) bool { return slices.Contains(before, id) })
			setPolicy(ours, unix.SCHED_NORMAL)
		}
		_ = tasks.Close()
	}
}

// threadsOf are the threads, of those listed in a folder of /proc, that have the policy.
func threadsOf(tasks *os.File, policy uintptr) (ids []int) {
	if _, err := tasks.Seek(0, 0); err != nil {
		return nil
	}
	names, _ := tasks.Readdirnames(-1) // those that there are, if there are any
	for _, name := range names {
		if id, err := strconv.Atoi(name); err == nil && policyOf(id) == policy {
			ids = append(ids, id)
		}
	}
	return ids
}

// policyOf is how a thread is scheduled; of one that has ended, no policy that there is.
func policyOf(id int) uintptr {
	policy, _, _ := unix.RawSyscall(unix.SYS_SCHED_GETSCHEDULER, uintptr(id), 0, 0)
	return policy
}

// setPolicy changes how threads are scheduled, as far as that is allowed, and not how nice they are.
func setPolicy(ids []int, policy uintptr) {
	var priority int32 // what neither policy has
	for _, id := range ids {
		//nolint:gosec // as sched_setscheduler(2) wants it
		_, _, _ = unix.RawSyscall(unix.SYS_SCHED_SETSCHEDULER, uintptr(id), policy, uintptr(unsafe.Pointer(&priority)))
	}
}

// even reports whether a server has as much work with the files as this process, and on this
// machine. One that does not share its process with a gateway halves its processors then, too.
func (p sendPlan) even(ctx context.Context) bool {
	if p.version.bare || len(p.files) != 1 {
		return false
	}
	info, err := os.Stat(p.files[0].path)
	if err != nil || info.Size() < server.HalveFrom {
		return false
	}
	dialer := net.Dialer{Timeout: time.Second}
	conn, err := dialer.DialContext(ctx, "udp", p.to.Address()) // which sends nothing there, and shows the addresses
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	return server.SameMachine(conn)
}
