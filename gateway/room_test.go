package gateway

import (
	"errors"
	"testing"
	"time"
)

// TestRoomLooksAgain: where there is plenty, many promises come with one look at the disk, and not for long;
// where there is less, each comes with its own.
func TestRoomLooksAgain(t *testing.T) {
	looks, free := 0, int64(3*plenty)
	r := &room{reserve: plenty / 2, free: func() (int64, error) { looks++; return free, nil }}
	promised := func(size int64, want int, when string) {
		t.Helper()
		if _, err := r.promise(size); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		if looks != want {
			t.Errorf("%s: %d looks, want %d", when, looks, want)
		}
	}
	r.looked = time.Now().Add(time.Hour) // so that the test may be slow
	r.found = free
	for range 3 {
		promised(plenty/4, 0, "while there is plenty")
	}
	promised(plenty, 1, "what leaves less than plenty")
	r.looked = time.Now().Add(-plentyFor)
	promised(1, 2, "later")
	free = r.promised + r.reserve
	r.looked = time.Now().Add(time.Hour)
	if _, err := r.promise(1); !errors.Is(err, errSpoolFull) {
		t.Errorf("a full disk: %v", err)
	}
	if looks != 3 {
		t.Errorf("of a full disk: %d looks, want 3", looks)
	}
}
