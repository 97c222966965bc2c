package main

import (
	"bytes"
	"fmt"
	"io"
	"time"
)

// terminal is where a command writes lines, and below them the bars of what is
// on its way, drawn anew each time. Whoever has it guards it.
type terminal struct {
	stdout, stderr io.Writer
	width          func() int // of the terminal; nil if stderr is none
	drawn          int        // lines of bars above the cursor
	failed         error      // the first error of stdout
}

// write puts text above the bars and draws these anew.
func (t *terminal) write(to io.Writer, text []byte, bars func(width int) []string) {
	var out bytes.Buffer
	if t.drawn > 0 {
		fmt.Fprintf(&out, "\r\x1b[%dA\x1b[J", t.drawn)
		t.drawn = 0
	}
	if to == t.stderr {
		out.Write(text)
	} else {
		if out.Len() > 0 {
			_, _ = t.stderr.Write(out.Bytes())
			out.Reset()
		}
		if _, err := to.Write(text); err != nil && t.failed == nil {
			t.failed = err
		}
	}
	if t.width != nil {
		lines := bars(t.width())
		for _, line := range lines {
			out.WriteString(line + "\n")
		}
		t.drawn = len(lines)
	}
	if out.Len() > 0 {
		_, _ = t.stderr.Write(out.Bytes()) // there is no other place to say that it failed
	}
}

// repeat calls draw every so often, in a goroutine, until end is called.
func repeat(every time.Duration, draw func()) (end func()) {
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				draw()
			}
		}
	}()
	return func() {
		close(stop)
		<-stopped
	}
}
