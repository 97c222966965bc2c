package gateway

import (
	"maps"
	"slices"
	"sync"

	"github.com/oklog/ulid/v2"

	"ferry/proto"
)

// live is what happens just now and is kept in memory alone: the files that
// come in and the deliveries that run. It is safe for concurrent use.
type live struct {
	mu        sync.Mutex
	receiving map[ulid.ULID]*incoming // guarded by mu
	running   map[ulid.ULID]*delivery // guarded by mu

	changes *changes
}

func newLive() *live {
	return &live{receiving: map[ulid.ULID]*incoming{}, running: map[ulid.ULID]*delivery{}, changes: newChanges()}
}

func (l *live) incoming(id ulid.ULID) *incoming {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.receiving[id]
}

func (l *live) delivery(id ulid.ULID) *delivery {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.running[id]
}

// all returns every file that comes in and every delivery.
func (l *live) all() ([]*incoming, map[ulid.ULID]*delivery) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Values(l.receiving)), maps.Clone(l.running)
}

// idle reports whether there is none of them.
func (l *live) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.receiving) == 0 && len(l.running) == 0
}

func (l *live) show(in *incoming) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.receiving[in.id] = in
}

func (l *live) hide(files ...*incoming) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, in := range files {
		delete(l.receiving, in.id)
		l.changes.tell(in.id)
	}
}

// hideAll hides every file of a reception.
func (l *live) hideAll(r *reception) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, in := range l.receiving {
		if in.from == r {
			delete(l.receiving, id)
			l.changes.tell(id)
		}
	}
}

// run adds a delivery. The one that it replaces has lost its lease.
func (l *live) run(d *delivery) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d.replaced = l.running[d.id]
	l.running[d.id] = d
}

// takeBack removes a delivery that was claimed and is not made. The one that it replaced is
// there again, unless that has ended.
func (l *live) takeBack(d *delivery) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.running, d.id)
	if d.replaced != nil && !d.replaced.ended {
		l.running[d.id] = d.replaced
	}
}

// end removes a delivery, unless another one has taken its place.
func (l *live) end(d *delivery) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d.ended = true
	if l.running[d.id] == d {
		delete(l.running, d.id)
	}
}

// progressed notes how far the delivery is. It is called for each packet. begun tells
// that this is the first of the file's bytes.
func (d *delivery) progressed(p proto.Progress) (begun bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.progress = p
	begun = !d.sent && p.Phase == proto.PhaseSending
	d.sent = d.sent || begun
	return begun
}

// packets is how many the whole file has, 0 if that is not known yet.
func (d *delivery) packets() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.progress.TotalPackets
}

// show adds to a row how far its delivery is.
func (d *delivery) show(u *Upload) {
	if u.State != StateDelivering || u.Attempts.Count != int(d.fence) {
		return
	}
	d.mu.Lock()
	p := d.progress
	d.mu.Unlock()
	u.Phase = &p.Phase
	u.Progress = Progress{Bytes: p.Bytes, TotalBytes: *u.Size, Packets: p.Packets, TotalPackets: max(p.TotalPackets, u.Progress.TotalPackets)}
}
