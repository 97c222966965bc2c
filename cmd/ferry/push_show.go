package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"
)

// sayEvery is how often a run of many files says how far it is where there is
// no terminal.
const sayEvery = 10 * time.Second

// pushDisplay is what ferry push shows: on a terminal a bar for each file and
// a line for all; elsewhere a line when the gateway has a file and when it is
// delivered. It is safe for concurrent use.
type pushDisplay struct {
	terminal // its drawn and failed are guarded by mu
	json     bool
	total    int
	size     int64 // of all files
	goal     string
	started  time.Time
	stop     func()

	mu       sync.Mutex
	bars     map[*pushBar]struct{} // guarded by mu: the files on their way
	begun    int                   // guarded by mu
	received int                   // guarded by mu: files that the gateway has
	done     int                   // guarded by mu: files that came to where they were to
	already  int                   // guarded by mu: those of done that were there before
	faulty   int                   // guarded by mu
	sent     int64                 // guarded by mu: bytes that the gateway has taken in this run
	common   string                // guarded by mu: what was said of one file and holds for others
	unsaid   int                   // guarded by mu: for how many
	trouble  string                // guarded by mu: what the connection fails from, as far as it was said
	said     time.Time             // guarded by mu: when there was an overview
}

// newPushDisplay returns a display; close must follow. The goal is delivered or
// received.
func newPushDisplay(p *program, s *pushSettings, files []sendFile, size int64) *pushDisplay {
	d := &pushDisplay{
		terminal: terminal{stdout: p.stdout, stderr: p.stderr, width: terminalWidth(p.stderr, p.environ)},
		json:     s.json, total: len(files), size: size, goal: s.wait,
		bars: map[*pushBar]struct{}{}, started: time.Now(), said: time.Now(),
	}
	d.stop = repeat(redrawEvery, d.redraw)
	return d
}

func (d *pushDisplay) redraw() {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	switch {
	case d.width != nil:
		d.write(d.stderr, nil)
	case d.many() && now.Sub(d.said) >= sayEvery:
		d.said = now
		d.write(d.stderr, []byte(d.overview(now)+"\n"))
	}
}

// close takes the bars away, says what all came to, and returns the first error
// of stdout.
func (d *pushDisplay) close() error {
	d.stop()
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.bars)
	var text []byte
	if d.unsaid > 0 {
		text = fmt.Appendf(text, "ferry push: the same goes for %d more files\n", d.unsaid)
	}
	text = fmt.Appendf(text, "%s\n", d.overview(time.Now()))
	d.total = 0 // it has had its last line
	d.write(d.stderr, text)
	return d.failed
}

func (d *pushDisplay) many() bool { return d.total > mostLines }

// write puts text above the bars and draws these anew; d.mu is held.
func (d *pushDisplay) write(to io.Writer, text []byte) {
	d.terminal.write(to, text, func(width int) []string { return d.lines(width, time.Now()) })
}

// lines are the bars of the files that have been on their way longest, and one
// for all; d.mu is held.
func (d *pushDisplay) lines(width int, now time.Time) []string {
	var lines []string
	oldest := slices.SortedFunc(maps.Keys(d.bars), func(a, b *pushBar) int { return cmp.Compare(a.number, b.number) })
	for _, b := range oldest[:min(len(oldest), mostBars)] {
		lines = append(lines, b.line(width, now))
	}
	if more := len(oldest) - mostBars; more > 0 {
		lines = append(lines, shorten(fmt.Sprintf("and %d more on their way", more), max(width-1, 0)))
	}
	if d.total > 0 {
		lines = append(lines, shorten(d.overview(now), max(width-1, 0)))
	}
	return lines
}

// overview counts the files; d.mu is held.
func (d *pushDisplay) overview(now time.Time) string {
	sent := d.sent
	for b := range d.bars {
		if b.phase == phaseSending {
			sent += b.bytes.Load()
		}
	}
	s := fmt.Sprintf("%d of %d files ", d.done, d.total)
	if d.goal == waitDelivered {
		s = fmt.Sprintf("%d of %d files received by the gateway, %d delivered", d.received, d.total, d.done)
	} else {
		s += "received by the gateway"
	}
	if d.already > 0 {
		s += fmt.Sprintf(" (%d of them before)", d.already)
	}
	if d.faulty > 0 {
		s += fmt.Sprintf(", %d failed", d.faulty)
	}
	spent := now.Sub(d.started)
	return s + fmt.Sprintf(", %s of %s sent in %s", bytesInWords(sent), bytesInWords(d.size), clock(spent))
}

// warn says what the user ought to know.
func (d *pushDisplay) warn(message string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.write(d.stderr, fmt.Appendf(nil, "ferry push: %s\n", message))
}

// troubled says once why nothing goes on; fine has it said again next time.
func (d *pushDisplay) troubled(words string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.trouble != words {
		d.trouble = words
		d.write(d.stderr, fmt.Appendf(nil, "ferry push: %s; trying again\n", words))
	}
}

func (d *pushDisplay) fine() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.trouble = ""
}

// begin shows that a file is on its way.
func (d *pushDisplay) begin(label string) *pushBar {
	b := &pushBar{display: d, label: label}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.begun++
	b.number = d.begun
	d.bars[b] = struct{}{}
	return b
}

// receivedFile says that the gateway has a file.
func (b *pushBar) receivedFile(o *pushOutcome) {
	d := b.display
	d.mu.Lock()
	defer d.mu.Unlock()
	d.received++
	if o.Sent {
		d.sent += o.Size
	}
	b.phase = phaseQueued
	if d.goal != waitDelivered { // that is the end, and said there
		return
	}
	if !d.quiet() && o.Sent {
		d.write(d.stderr, fmt.Appendf(nil, "%s: received by the gateway, %s in %.1f s, upload %s\n", b.label, bytesInWords(o.Size), o.Seconds, o.ID))
	}
	line := *o
	line.State = stateReceived
	d.writeJSON(line)
}

// quiet reports whether what goes well is not named; d.mu is held.
func (d *pushDisplay) quiet() bool { return d.many() || d.json && d.width == nil }

// end takes the bar away and says what became of the file.
func (b *pushBar) end(o pushOutcome) {
	d := b.display
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.bars, b)
	if o.Exit == exitOK {
		d.done++
		if !o.Sent {
			d.already++
		}
	} else {
		d.faulty++
	}
	switch {
	case o.common && o.Error == d.common:
		d.unsaid++
	case o.Error != "":
		if o.common {
			d.common = o.Error
		}
		upload := ""
		if o.ID != "" {
			upload = ", upload " + o.ID
		}
		d.write(d.stderr, fmt.Appendf(nil, "ferry push: %s: %s%s\n", b.label, o.Error, upload))
	case d.quiet():
	case !o.Sent:
		d.write(d.stderr, fmt.Appendf(nil, "%s: %s, nothing was sent: it was there already, upload %s\n", b.label, o.words(), o.ID))
	default:
		d.write(d.stderr, fmt.Appendf(nil, "%s: %s, %s in %.1f s, upload %s\n", b.label, o.words(), bytesInWords(o.Size), o.Seconds, o.ID))
	}
	o.Done = true
	d.writeJSON(o)
}

func (o *pushOutcome) words() string {
	if o.State == stateReceived {
		return "received by the gateway"
	}
	return o.State
}

// writeJSON is for --json; d.mu is held.
func (d *pushDisplay) writeJSON(o pushOutcome) {
	if !d.json {
		return
	}
	var line bytes.Buffer
	e := json.NewEncoder(&line)
	e.SetEscapeHTML(false)
	if err := e.Encode(o); err != nil {
		d.failed = errors.Join(d.failed, fmt.Errorf("internal error: %w", err))
		return
	}
	d.write(d.stdout, line.Bytes())
}
