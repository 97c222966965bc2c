package gateway

import (
	"fmt"
	"sync"
	"time"
)

// room is what of the disk uploads may fill: what is declared of those that come in
// is promised to them, and a reserve is left, since what happens to those that are
// kept has to be recorded, however full the spool is. It is safe for concurrent use.
type room struct {
	free    func() (int64, error) // bytes of the disk
	reserve int64

	mu       sync.Mutex
	promised int64     // bytes that were declared and are not written yet; guarded by mu
	looked   time.Time // when free was asked; guarded by mu
	found    int64     // what it said; guarded by mu
}

const (
	// plenty is what has to be left, beside the reserve and all promises, for promise not to look at
	// the disk again within plentyFor, in which hardly any disk is given so much. What is written is
	// checked as it comes, all the same.
	plenty    = 1 << 30
	plentyFor = 20 * time.Millisecond
)

// fullError says how much there would have to be.
type fullError struct {
	needs int64 // bytes; 0 if that is not known
	has   int64 // bytes that are neither promised nor reserved
}

func (e *fullError) Error() string {
	return fmt.Sprintf("%v: %d bytes are left, %d are needed", errSpoolFull, e.has, e.needs)
}

func (e *fullError) Unwrap() error { return errSpoolFull }

// A promise is room for one body.
type promise struct {
	of   *room
	left int64 // bytes; guarded by of.mu
}

// promise returns room for so many bytes, or a *fullError. end must be called.
func (r *room) promise(size int64) (*promise, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	free, err := r.recent(size)
	if err != nil {
		return nil, err
	}
	if has := free - r.promised - r.reserve; has < size || has < 0 {
		return nil, &fullError{size, max(has, 0)}
	}
	r.promised += size
	return &promise{r, size}, nil
}

// recent is what is free, or was a moment ago, if there was plenty then. mu is held.
func (r *room) recent(size int64) (int64, error) {
	if r.found-r.promised-r.reserve-size >= plenty && time.Since(r.looked) < plentyFor {
		return r.found, nil
	}
	return r.look()
}

// look asks the disk. mu is held.
func (r *room) look() (int64, error) {
	now := time.Now()
	free, err := r.free()
	if err != nil {
		return 0, err
	}
	r.looked, r.found = now, free
	return free, nil
}

// wrote says that n bytes of the body are on the disk.
func (p *promise) wrote(n int64) {
	p.of.mu.Lock()
	defer p.of.mu.Unlock()
	n = min(n, p.left)
	p.left -= n
	p.of.promised -= n
}

// end gives back what was not written.
func (p *promise) end() { p.wrote(1<<63 - 1) }

// check returns a *fullError if what comes in must not go on: into the reserve, or,
// without a promise, into what others were promised.
func (p *promise) check() error {
	p.of.mu.Lock()
	defer p.of.mu.Unlock()
	free, err := p.of.look()
	if err != nil {
		return err
	}
	if p.left == 0 {
		free -= p.of.promised
	}
	if free < p.of.reserve {
		return &fullError{}
	}
	return nil
}

// check returns errSpoolFull if there is no room for anything. It looks at the disk.
func (r *room) check() error {
	r.mu.Lock()
	r.looked = time.Time{}
	r.mu.Unlock()
	p, err := r.promise(0)
	if err == nil {
		p.end()
	}
	return err
}
