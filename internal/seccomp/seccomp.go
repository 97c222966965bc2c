// Package seccomp says whether system calls are filtered.
package seccomp

import (
	"bytes"
	"os"
)

// Filtered reports whether a filter decides on this process's system calls (seccomp(2)), or whether that
// cannot be known. A filter may end a process for one that it does not expect.
func Filtered() bool {
	status, err := os.ReadFile("/proc/self/status")
	return err != nil || bytes.Contains(status, []byte("\nSeccomp:\t2\n"))
}
