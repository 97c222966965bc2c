package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ferry/proto"
)

// redrawEvery is how often bars are drawn.
const redrawEvery = 100 * time.Millisecond

// sendDisplay is what ferry send shows: bars on a terminal while files are on
// their way, and what became of each. It is safe for concurrent use.
type sendDisplay struct {
	terminal // its drawn and failed are guarded by mu
	json     bool
	total    int    // files there are; set before the first begins
	stop     func() // ends drawing; nil without a terminal

	mu      sync.Mutex
	bars    map[*sendBar]struct{} // guarded by mu: the files on their way
	begun   int                   // guarded by mu: files so far
	done    int                   // guarded by mu: files that are stored
	faulty  int                   // guarded by mu: files that are not
	bytes   int64                 // guarded by mu: of those that are stored
	started time.Time             // guarded by mu: when the first file began
	common  string                // guarded by mu: what was said of one file and holds for others
	unsaid  int                   // guarded by mu: for how many
}

// Of files on their way, mostBars have a bar at a time. With more than
// mostLines files in all, those that are stored are counted in one line instead
// of having a line each.
const (
	mostBars  = 8
	mostLines = 40
)

// newSendDisplay returns a display; close must follow.
func newSendDisplay(stdout, stderr io.Writer, json bool, width func() int) *sendDisplay {
	d := &sendDisplay{terminal: terminal{stdout: stdout, stderr: stderr, width: width}, json: json}
	if width != nil {
		d.stop = repeat(redrawEvery, d.redraw)
	}
	return d
}

func (d *sendDisplay) redraw() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.write(d.stderr, nil)
}

// close takes the bars away and returns the first error of stdout: lines that
// a program waits for were lost then.
func (d *sendDisplay) close() error {
	if d.stop != nil {
		d.stop()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.bars)
	var text []byte
	if d.unsaid > 0 {
		text = fmt.Appendf(text, "ferry send: the same goes for %d more files\n", d.unsaid)
	}
	if d.width != nil && d.many() && d.begun > 0 {
		text = fmt.Appendf(text, "%s\n", d.overview(time.Now()))
	}
	d.total = 0 // it has had its last line
	d.write(d.stderr, text)
	return d.failed
}

// many reports whether stored files are counted rather than named.
func (d *sendDisplay) many() bool { return d.total > mostLines }

// lines are the bars, those of the files that have been on their way longest,
// and what there is to say about the others; d.mu is held.
func (d *sendDisplay) lines(width int, now time.Time) []string {
	var lines []string
	oldest := slices.SortedFunc(maps.Keys(d.bars), func(a, b *sendBar) int { return cmp.Compare(a.number, b.number) })
	for _, b := range oldest[:min(len(oldest), mostBars)] {
		if d.many() && now.Sub(b.begun) < time.Second { // most are gone before they could be read
			continue
		}
		lines = append(lines, b.line(width, now))
	}
	switch more := len(oldest) - mostBars; {
	case d.many() && d.begun > 0:
		lines = append(lines, shorten(d.overview(now), max(width-1, 0)))
	case more > 0:
		lines = append(lines, shorten(fmt.Sprintf("and %d more on their way", more), max(width-1, 0)))
	}
	return lines
}

// overview counts the files; d.mu is held.
func (d *sendDisplay) overview(now time.Time) string {
	s := fmt.Sprintf("%d of %d files stored, %s", d.done, d.total, bytesInWords(d.bytes))
	if d.faulty > 0 {
		s += fmt.Sprintf(", %d not stored", d.faulty)
	}
	if spent := now.Sub(d.started); spent >= time.Second {
		s += fmt.Sprintf("  %.0f files/s  %s/s", float64(d.done)/spent.Seconds(), bytesInWords(int64(float64(d.bytes)/spent.Seconds())))
	}
	return s
}

// write puts text above the bars and draws these anew; d.mu is held.
func (d *sendDisplay) write(to io.Writer, text []byte) {
	d.terminal.write(to, text, func(width int) []string { return d.lines(width, time.Now()) })
}

// warn says what the user ought to know.
func (d *sendDisplay) warn(message string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.write(d.stderr, fmt.Appendf(nil, "ferry send: %s\n", message))
}

// waiting says why nothing happens.
func (d *sendDisplay) waiting() { d.warn("waiting for another ferry send of this client") }

// print puts a line on stdout.
func (d *sendDisplay) print(line []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.write(d.stdout, line)
}

// begin shows that a file is on its way.
func (d *sendDisplay) begin(label string, size int64) *sendBar {
	b := &sendBar{display: d, label: label, begun: time.Now(), now: proto.Progress{Phase: proto.PhaseConnecting, TotalBytes: size}}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.begun++; d.begun == 1 {
		d.bars, d.started = map[*sendBar]struct{}{}, b.begun
	}
	b.number = d.begun
	d.bars[b] = struct{}{}
	return b
}

// sendBar is a file on its way. Its fields are guarded by display.mu.
type sendBar struct {
	display *sendDisplay
	label   string
	number  int // in the order in which the files began
	begun   time.Time
	now     proto.Progress
	since   time.Time // when the send that runs began
	retryAt time.Time // zero unless it waits for the next try
}

// progress notes how far the file has come.
func (b *sendBar) progress(p proto.Progress) {
	if b.display.width == nil {
		return
	}
	b.display.mu.Lock()
	defer b.display.mu.Unlock()
	if p.Phase == proto.PhaseSending && (b.now.Phase != p.Phase || b.now.Send != p.Send) {
		b.since = time.Now()
	}
	b.now, b.retryAt = p, time.Time{}
}

// wait notes that the next try begins after pause.
func (b *sendBar) wait(pause time.Duration) {
	b.display.mu.Lock()
	defer b.display.mu.Unlock()
	b.retryAt = time.Now().Add(pause)
}

// end takes the bar away and says what became of the file.
func (b *sendBar) end(o outcome) {
	d := b.display
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.bars, b)
	if o.State == stateStored {
		d.done++
		d.bytes += o.Size
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
		d.write(d.stderr, fmt.Appendf(nil, "ferry send: %s: %s\n", b.label, o.Error))
	case d.width == nil || d.many():
	case o.Sends == 0:
		d.write(d.stderr, fmt.Appendf(nil, "%s: stored already, %s\n", b.label, bytesInWords(o.Size)))
	default:
		d.write(d.stderr, fmt.Appendf(nil, "%s: stored, %s in %.1f s\n", b.label, bytesInWords(o.Size), o.Seconds))
	}
	d.writeJSON(o)
}

// record says what became of a file with --json alone.
func (d *sendDisplay) record(o outcome) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.writeJSON(o)
}

// writeJSON is for --json; d.mu is held.
func (d *sendDisplay) writeJSON(o outcome) {
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

// line draws the bar, one cell short of the terminal's width: some terminals
// begin a new line behind the last one.
func (b *sendBar) line(width int, now time.Time) string {
	const gap = "  "
	width = max(width-1, 0)
	status := b.status(now)
	label := shorten(b.label, min(width, max(16, width/3)))
	room := width - cells(label) - cells(status) - len("  []  ")
	const least, most = 10, 40
	if b.now.Phase == proto.PhaseSending && b.retryAt.IsZero() && room >= least {
		room = min(room, most)
		done := int(b.fraction() * float64(room))
		status = "[" + strings.Repeat("#", done) + strings.Repeat("-", room-done) + "]" + gap + status
	}
	return shorten(label+gap+status, width)
}

func (b *sendBar) status(now time.Time) string {
	switch {
	case !b.retryAt.IsZero():
		return fmt.Sprintf("the connection failed; trying again in %d s", max(0, int(b.retryAt.Sub(now).Round(time.Second)/time.Second)))
	case b.now.Phase == proto.PhaseVerifying:
		return "verifying"
	case b.now.Phase != proto.PhaseSending:
		return "connecting"
	}
	s := fmt.Sprintf("%3d%%  %s of %s", int(b.fraction()*100), bytesInWords(b.now.Bytes), bytesInWords(b.now.TotalBytes))
	if spent := now.Sub(b.since); spent >= time.Second && b.now.Bytes > 0 {
		speed := float64(b.now.Bytes) / spent.Seconds()
		left := time.Duration(float64(b.now.TotalBytes-b.now.Bytes) / speed * float64(time.Second))
		s += fmt.Sprintf("  %s/s  %s left", bytesInWords(int64(speed)), clock(left))
	}
	if b.now.Send > 1 {
		s += fmt.Sprintf("  checksums differed: send %d of 4", b.now.Send)
	}
	return s
}

// fraction is how much has been acknowledged, from 0 to 1.
func (b *sendBar) fraction() float64 {
	if b.now.TotalBytes == 0 {
		return 0
	}
	return min(1, float64(b.now.Bytes)/float64(b.now.TotalBytes))
}

// terminalWidth returns what tells a terminal's width, or nil if w is none, or
// one that cannot move its cursor.
func terminalWidth(w io.Writer, environ []string) func() int {
	f, ok := w.(*os.File)
	if !ok || slices.Contains(environ, "TERM=dumb") {
		return nil
	}
	if !isTerminal(f) {
		return nil
	}
	return func() int {
		const usual = 80
		size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
		if err != nil || size.Col == 0 {
			return usual
		}
		return int(size.Col)
	}
}
