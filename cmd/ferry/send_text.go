package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// clock is a duration as 0:07, 12:34 or 1:02:03.
func clock(d time.Duration) string {
	s := int64(d.Round(time.Second) / time.Second)
	if s < 3600 {
		return fmt.Sprintf("%d:%02d", s/60, s%60)
	}
	return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
}

// bytesInWords is a size for people.
func bytesInWords(n int64) string {
	const unit = 1024
	if n < unit {
		return strconv.FormatInt(n, 10) + " B"
	}
	v, i := float64(n)/unit, 0
	for ; v >= 999.95 && i < 5; i++ {
		v /= unit
	}
	return fmt.Sprintf("%.1f %ciB", v, "KMGTPE"[i])
}

// printable is a path as a terminal may show it: quoted if it contains what
// would move the cursor, or show what follows in another order.
func printable(path string) string {
	if strings.ContainsFunc(path, func(r rune) bool {
		return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == unicode.ReplacementChar
	}) {
		return strconv.Quote(path)
	}
	return path
}

// cells is the most that s takes on a terminal: beyond the scripts that are
// narrow for sure, a rune counts as wide.
func cells(s string) int {
	n := 0
	for _, r := range s {
		n += runeCells(r)
	}
	return n
}

func runeCells(r rune) int {
	const firstWide = 0x1100
	if r >= firstWide {
		return 2
	}
	return 1
}

// shorten cuts s to most cells, with an ellipsis for what is gone.
func shorten(s string, most int) string {
	if cells(s) <= most {
		return s
	}
	used := runeCells('…')
	for i, r := range s {
		if used += runeCells(r); used > most {
			if most < runeCells('…') {
				return ""
			}
			return s[:i] + "…"
		}
	}
	return s
}
