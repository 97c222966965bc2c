package proto

import (
	"fmt"
	"runtime"
	"strings"
)

// caught makes an error of a panic, in what a conversation's own goroutines do with
// what the other end says: one conversation's trouble must not be that of all. The goroutine
// that the conversation belongs to is its owner's to guard. It is deferred; the error
// says where the panic was.
func caught(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("internal error: %v (%s)", p, panickedAt())
	}
}

// panickedAt is the place of the panic that is being recovered, FILE:LINE.
func panickedAt() string {
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(0, pcs)])
	for within := false; ; {
		f, more := frames.Next()
		switch {
		case f.Function == "runtime.gopanic":
			within = true
		case within && !strings.HasPrefix(f.Function, "runtime."):
			return fmt.Sprintf("%s:%d", f.File[strings.LastIndexByte(f.File, '/')+1:], f.Line)
		}
		if !more {
			return "somewhere"
		}
	}
}
