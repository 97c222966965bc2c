package main

import (
	"os"
	"runtime"
	"sync"
)

// leaveHalf leaves half of the processors to the other end of the connection, which
// is on this machine, too. With all of them at both ends, the bytes of a file go
// from one processor's cache to the other's, and each end wakes its threads on
// the other's processors: see docs/decisions/0012-half-the-processors.md. What
// the environment says in GOMAXPROCS holds instead.
var leaveHalf = sync.OnceFunc(func() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(max(1, runtime.GOMAXPROCS(0)/2))
	}
})
