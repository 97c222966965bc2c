package gateway

import (
	"errors"
	"testing"
	"time"
)

// TestRoomLooksAgain: where there is plenty, many promises come with one look at the disk, and not for long;
// where there is less, each comes with its own, and check always does.
func TestRoomLooksAgain(t *testing.T) {
	looks, free := 0, int64(4*plenty)
	r := &room{reserve: plenty / 2, free: func() (int64, error) { looks++; return free, nil }}
	seen := func(ago time.Duration) { r.looked, r.found = time.Now().Add(-ago), free }
	promised := func(size int64, want int, when string) {
		t.Helper()
		p, err := r.promise(size)
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		p.end()
		if looks != want {
			t.Errorf("%s: %d looks, want %d", when, looks, want)
		}
	}
	seen(-time.Hour) // so that the test may be slow
	for range 3 {
		promised(plenty/4, 0, "while there is plenty")
	}
	promised(3*plenty, 1, "what leaves less than plenty")
	seen(plentyFor)
	promised(1, 2, "later")
	seen(-time.Hour)
	if err := r.check(); err != nil || looks != 3 {
		t.Errorf("check: %d looks, want 3: %v", looks, err)
	}
	seen(-time.Hour)
	p, err := r.promise(1)
	if err != nil {
		t.Fatal(err)
	}
	free = r.reserve - 1
	if err := p.check(); !errors.Is(err, errSpoolFull) || looks != 4 {
		t.Errorf("check of a promise, of a full disk: %d looks, want 4: %v", looks, err)
	}
	if _, err := r.promise(0); !errors.Is(err, errSpoolFull) {
		t.Errorf("a promise after it: %v", err)
	}
}
