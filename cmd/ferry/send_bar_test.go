package main

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ferry/proto"
)

func TestBarLine(t *testing.T) {
	now := time.Unix(1000, 0)
	sending := proto.Progress{Phase: proto.PhaseSending, Bytes: 3 << 20, TotalBytes: 12 << 20, Send: 1}
	again := sending
	again.Send = 2
	for _, c := range []struct {
		name  string
		bar   sendBar
		width int
		want  string
	}{
		{"connecting", sendBar{label: "a.bin", now: proto.Progress{Phase: proto.PhaseConnecting}}, 80, "a.bin  connecting"},
		{"keying", sendBar{label: "a.bin", now: proto.Progress{Phase: proto.PhaseKeying}}, 80, "a.bin  connecting"},
		{"just begun", sendBar{label: "a.bin", now: sending, since: now}, 80,
			"a.bin  [##########------------------------------]   25%  3.0 MiB of 12.0 MiB"},
		{"with speed", sendBar{label: "a.bin", now: sending, since: now.Add(-3 * time.Second)}, 80,
			"a.bin  [#####----------------]   25%  3.0 MiB of 12.0 MiB  1.0 MiB/s  0:09 left"},
		{"no room for a bar", sendBar{label: "a.bin", now: sending, since: now.Add(-3 * time.Second)}, 60,
			"a.bin   25%  3.0 MiB of 12.0 MiB  1.0 MiB/s  0:09 left"},
		{"no room for half of it", sendBar{label: "a.bin", now: sending, since: now}, 24, "a.bin   25%  3.0 MiB …"},
		{"long name", sendBar{label: strings.Repeat("n", 100), now: proto.Progress{Phase: proto.PhaseVerifying}}, 60,
			strings.Repeat("n", 17) + "…  verifying"},
		{"second send", sendBar{label: "a.bin", now: again, since: now}, 120,
			"a.bin  [##########------------------------------]   25%  3.0 MiB of 12.0 MiB  checksums differed: send 2 of 4"},
		{"waiting", sendBar{label: "a.bin", now: sending, retryAt: now.Add(2400 * time.Millisecond)}, 80,
			"a.bin  the connection failed; trying again in 2 s"},
		{"empty", sendBar{label: "a.bin", now: proto.Progress{Phase: proto.PhaseSending}, since: now}, 40, "a.bin  [------------]    0%  0 B of 0 B"},
		{"all", sendBar{label: "a.bin", now: proto.Progress{Phase: proto.PhaseSending, Bytes: 10, TotalBytes: 10}, since: now}, 42, "a.bin  [############]  100%  10 B of 10 B"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.bar.line(c.width, now); got != c.want {
				t.Errorf("got\n%q, want\n%q", got, c.want)
			}
		})
	}
}

// FuzzBarLine wants every line to leave the terminal's last cell free: a line
// that wraps would leave remains behind.
func FuzzBarLine(f *testing.F) {
	f.Add("a.bin", 80, int64(3), int64(12), 1500)
	f.Add("文件.bin", 7, int64(0), int64(0), 0)
	f.Fuzz(func(t *testing.T, label string, width int, bytes, total int64, ms int) {
		now := time.Unix(1e6, 0)
		for _, phase := range []proto.Phase{proto.PhaseConnecting, proto.PhaseSending, proto.PhaseVerifying} {
			b := sendBar{label: printable(label), since: now.Add(-time.Duration(max(ms, 0)) * time.Millisecond),
				now: proto.Progress{Phase: phase, Bytes: max(0, min(bytes, total)), TotalBytes: max(total, 0), Send: 1}}
			if got := b.line(width, now); cells(got) > max(width-1, 0) || strings.ContainsAny(got, "\n\r\x1b") {
				t.Fatalf("%q takes %d cells of %d", got, cells(got), width)
			}
		}
	})
}

func TestBytesInWords(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1_048_575: "1.0 MiB", 1 << 20: "1.0 MiB", 300_000_000: "286.1 MiB", 1<<63 - 1: "8.0 EiB",
	} {
		if got := bytesInWords(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
}

func TestClock(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0:00", 61 * time.Second: "1:01", 3599600 * time.Millisecond: "1:00:00", 100 * time.Hour: "100:00:00"} {
		if got := clock(d); got != want {
			t.Errorf("%v: got %s, want %s", d, got, want)
		}
	}
}

func TestPrintable(t *testing.T) {
	for path, want := range map[string]string{"a b/é": "a b/é", "a\x1b[2J": `"a\x1b[2J"`, "a\nb": `"a\nb"`, "a\u202eb": `"a\u202eb"`, "\xff": `"\xff"`} {
		if got := printable(path); got != want {
			t.Errorf("%q: got %s, want %s", path, got, want)
		}
	}
}

// TestDisplayOnTerminal wants messages above the bars, and bars taken away
// before anything else is written.
func TestDisplayOnTerminal(t *testing.T) {
	var screen bytes.Buffer
	d := &sendDisplay{terminal: terminal{stdout: &screen, stderr: &screen, width: func() int { return 40 }}, json: true}
	one, two := d.begin("one", 5), d.begin("two", 5)
	d.warn("something")
	cksum := uint32(1)
	one.end(outcome{File: "one", Name: "one", Size: 5, Cksum: &cksum, SHA256: "00", State: stateStored, Attempts: 1, Sends: 1, Seconds: 0.25})
	two.end(outcome{File: "two", Name: "two", State: stateExists, Exit: exitRefused, Error: "it is there", Attempts: 1})
	if err := d.close(); err != nil {
		t.Fatal(err)
	}
	const up1, up2 = "\r\x1b[1A\x1b[J", "\r\x1b[2A\x1b[J"
	want := "ferry send: something\none  connecting\ntwo  connecting\n" +
		up2 + "one: stored, 5 B in 0.2 s\ntwo  connecting\n" +
		up1 + `{"file":"one","name":"one","size":5,"sha256":"00","cksum":1,"state":"stored","attempts":1,"sends":1,"exit":0,"seconds":0.25}` + "\ntwo  connecting\n" +
		up1 + "ferry send: two: it is there\n" +
		`{"file":"two","name":"two","size":0,"state":"exists","attempts":1,"sends":0,"exit":3,"error":"it is there","seconds":0}` + "\n"
	if got := screen.String(); got != want {
		t.Errorf("got\n%q, want\n%q", got, want)
	}
}

// TestDisplayInPipe wants nothing but errors on stderr.
func TestDisplayInPipe(t *testing.T) {
	var stdout, stderr bytes.Buffer
	d := newSendDisplay(&stdout, &stderr, false, nil)
	one, two := d.begin("one", 5), d.begin("two", 5)
	one.progress(proto.Progress{Phase: proto.PhaseSending})
	two.wait(time.Second)
	one.end(outcome{State: stateStored})
	two.end(outcome{State: stateFailed, Error: "no"})
	if err := d.close(); err != nil || stdout.String() != "" || stderr.String() != "ferry send: two: no\n" {
		t.Errorf("%v; stdout %q, stderr %q", err, stdout.String(), stderr.String())
	}
}

// TestDisplayOfMany wants few lines on the terminal however many files there
// are: those that fail, the bars of the oldest, and how many are stored.
func TestDisplayOfMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var screen bytes.Buffer
		d := &sendDisplay{terminal: terminal{stdout: &screen, stderr: &screen, width: func() int { return 80 }}, total: 1000}
		var bars []*sendBar
		for i := range 100 {
			bars = append(bars, d.begin(fmt.Sprintf("file %d", i), 1<<20))
		}
		if got := d.lines(80, time.Now()); len(got) != 1 || got[0] != "0 of 1000 files stored, 0 B" {
			t.Errorf("at first: %q", got)
		}
		time.Sleep(2 * time.Second)
		for _, b := range bars[:90] {
			b.end(outcome{State: stateStored, Size: 1 << 20, Sends: 1})
		}
		bars[90].end(outcome{State: stateFailed, Error: "no"})
		want := []string{
			"file 91  connecting", "file 92  connecting", "file 93  connecting", "file 94  connecting", "file 95  connecting",
			"file 96  connecting", "file 97  connecting", "file 98  connecting",
			"90 of 1000 files stored, 90.0 MiB, 1 not stored  45 files/s  45.0 MiB/s",
		}
		if got := d.lines(80, time.Now()); !slices.Equal(got, want) {
			t.Errorf("got\n%q, want\n%q", got, want)
		}
		if err := d.close(); err != nil {
			t.Fatal(err)
		}
		if got := screen.String(); strings.Contains(got, ": stored") || !strings.Contains(got, "ferry send: file 90: no\n") ||
			!strings.HasSuffix(got, want[8]+"\n") {
			t.Errorf("the screen got %q", got)
		}
	})
}

// TestDisplayOfSome wants a bar for eight of them.
func TestDisplayOfSome(t *testing.T) {
	d := &sendDisplay{terminal: terminal{width: func() int { return 80 }}, total: 12}
	for i := range 12 {
		d.begin(fmt.Sprintf("file %d", i), 1)
	}
	got := d.lines(80, time.Now())
	if len(got) != mostBars+1 || got[0] != "file 0  connecting" || got[mostBars] != "and 4 more on their way" {
		t.Errorf("got %q", got)
	}
}

type brokenPipe struct{}

var errBroken = errors.New("broken pipe")

func (brokenPipe) Write([]byte) (int, error) { return 0, errBroken }

// TestDisplayReportsLostLines: who reads --json must not take fewer lines for
// the whole.
func TestDisplayReportsLostLines(t *testing.T) {
	d := newSendDisplay(brokenPipe{}, &bytes.Buffer{}, true, nil)
	d.begin("one", 5).end(outcome{State: stateStored})
	if err := d.close(); !errors.Is(err, errBroken) {
		t.Errorf("got %v, want %v", err, errBroken)
	}
}
