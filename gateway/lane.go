package gateway

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"ferry/internal/identity"
	"ferry/proto"
)

// DefaultDestination is the name of a destination that was given none. Its key is
// in the data folder itself, where that of the only one was before there were more.
const DefaultDestination = "default"

// A Destination is a native server to deliver to.
type Destination struct {
	Name string            // as requests choose it; DefaultDestination if empty
	To   proto.Destination // required
	Join string            // the token to register with, if it wants one
	// Deliveries is how many run at once, never more than To.Parallel: 32 to a
	// destination that copes with many, else 4.
	Deliveries int
}

// IdentityFolder is where a gateway on a data folder keeps its key for the
// destination of a name.
func IdentityFolder(data, name string) string {
	if name == DefaultDestination {
		return data
	}
	return filepath.Join(data, "destinations", name)
}

var destinationName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// CheckDestinationName returns why a destination cannot have a name, or nil.
func CheckDestinationName(name string) error {
	if !destinationName.MatchString(name) {
		return fmt.Errorf("%.80q is no name of a destination: want 1 to 63 characters of a-z, 0-9, dot, underscore and hyphen, the first of them a letter or a digit", name)
	}
	return nil
}

// CheckDestinations returns why a gateway cannot have these, or nil.
func CheckDestinations(all []Destination) error {
	_, err := completed(all)
	return err
}

// completed are the destinations with what was left out.
func completed(given []Destination) ([]Destination, error) {
	if len(given) == 0 {
		return nil, errors.New("no destination is configured")
	}
	all := slices.Clone(given)
	names, addresses := map[string]bool{}, map[string]string{}
	for i := range all {
		d := &all[i]
		d.Name = cmp.Or(d.Name, DefaultDestination)
		if err := CheckDestinationName(d.Name); err != nil {
			return nil, err
		}
		if d.To == (proto.Destination{}) {
			return nil, fmt.Errorf("the destination %s has no URL", d.Name)
		}
		if names[d.Name] {
			return nil, fmt.Errorf("two destinations are called %s", d.Name)
		}
		// One server knows a gateway by one key.
		if other, ok := addresses[d.To.Address()]; ok {
			return nil, fmt.Errorf("the destinations %s and %s are the same server, %s", other, d.Name, d.To.Address())
		}
		names[d.Name], addresses[d.To.Address()] = true, d.Name
		usual := defaultDeliveries
		if d.To.Parallel() >= manyDeliveries {
			usual = manyDeliveries
		}
		d.Deliveries = min(cmp.Or(d.Deliveries, usual), d.To.Parallel())
		if d.Deliveries < 1 {
			return nil, fmt.Errorf("%d deliveries at once to %s: want at least 1", d.Deliveries, d.Name)
		}
	}
	return all, nil
}

// A lane is the way to one destination, with a sender, a key and workers of its
// own: nothing on it waits for what happens on another one.
type lane struct {
	Destination
	removed bool // it is configured no more; nothing is delivered there

	keys   *identity.File // nil if it was removed before there was one
	sender sender         // nil if it was removed

	names       naming // of files there
	breaker     *breaker
	bell        chan struct{} // a value for each worker that may find a job
	unreachable atomic.Bool   // the network has failed since the last delivery
	pausing     sync.Mutex    // held by whoever pauses or resumes
	paused      atomic.Bool   // as the database has it
	failing     atomic.Bool   // the database may have it so; changed where it is written to
}

// client is what the destination calls this gateway, as stored has it. What one
// destination says must not count for another one, whatever it calls the gateway.
func (l *lane) client() []byte {
	var id proto.ClientID
	if l.keys != nil {
		id = l.keys.Client()
	}
	if l.Name == DefaultDestination {
		return id[:]
	}
	return append(id[:], l.Name...)
}

// lanes are all that uploads may be on. The configured ones come first, in the order
// of the configuration.
type lanes struct {
	all    []*lane
	byName map[string]*lane
}

// first is where uploads go that name no destination.
func (l *lanes) first() *lane { return l.all[0] }

// configured are those that were not removed.
func (l *lanes) configured() []*lane {
	n := slices.IndexFunc(l.all, func(l *lane) bool { return l.removed })
	if n < 0 {
		n = len(l.all)
	}
	return l.all[:n]
}

func (l *lanes) close() error {
	var errs []error
	for _, one := range l.all {
		if one.sender != nil {
			errs = append(errs, one.sender.Close())
		}
		if one.keys != nil {
			errs = append(errs, one.keys.Close())
		}
	}
	return errors.Join(errs...)
}

// openLanes opens the way to each destination, and records which there are. What
// it has opened is in g.lanes also when it fails.
func (g *Gateway) openLanes(ctx context.Context, newSender func(Destination, proto.Keyring) sender) error {
	g.lanes.byName = map[string]*lane{}
	for _, d := range g.cfg.Destinations {
		l := g.lanes.add(&lane{Destination: d, names: namingFor(d.To.ParseName), bell: make(chan struct{}, d.Deliveries)})
		if err := l.openKeys(g.cfg.Data); err != nil {
			return err
		}
		l.sender = newSender(d, l.keys)
	}
	if err := g.noteCutOff(ctx); err != nil { // while it is known where they went
		return err
	}
	err := g.db.Update(ctx, func(ctx context.Context, tx *sql.Tx) error {
		for _, l := range g.lanes.configured() {
			if _, err := tx.ExecContext(ctx, `insert into destinations (name, url) values ($1, $2)
				on conflict (name) do update set url = excluded.url`, l.Name, l.To.String()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("record destinations: %w", err)
	}
	return g.recallLanes(ctx)
}

// openKeys opens the key for the destination, in a folder that outlives a crash.
func (l *lane) openKeys(data string) (err error) {
	folder := IdentityFolder(data, l.Name)
	if l.Name != DefaultDestination {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return fmt.Errorf("create the destination's folder: %w", err)
		}
		for _, parent := range []string{data, filepath.Dir(folder)} {
			if err := syncFolder(parent); err != nil {
				return fmt.Errorf("create the destination's folder: %w", err)
			}
		}
	}
	if l.keys, err = identity.Open(folder); err != nil {
		return fmt.Errorf("destination %s: %w", l.Name, err)
	}
	return nil
}

func syncFolder(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// recallLanes reads what was recorded of destinations, also of those that are
// configured no more.
func (g *Gateway) recallLanes(ctx context.Context) error {
	err := eachRow(ctx, g.db.Read(), "select name, url, paused, failing from destinations order by name", nil, func(rows *sql.Rows) error {
		var name, url string
		var paused, failing bool
		if err := rows.Scan(&name, &url, &paused, &failing); err != nil {
			return err
		}
		l := g.lanes.byName[name]
		if l == nil {
			l = g.lanes.add(&lane{Destination: Destination{Name: name}, removed: true})
			l.To, _ = proto.ParseDestination(url) // it is shown, if there is one, and nothing else
			// What the destination called this gateway is good to know, and no more.
			if keys, err := identity.Open(IdentityFolder(g.cfg.Data, name)); err == nil {
				l.keys = keys
			}
		}
		l.paused.Store(paused)
		l.failing.Store(failing)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read destinations: %w", err)
	}
	for _, l := range g.lanes.all[len(g.lanes.configured()):] {
		s, err := g.status(ctx, l)
		if err != nil {
			return err
		}
		if s.Queued > 0 {
			g.log.Warn("uploads wait for a destination that is not configured", "destination", l.Name, "uploads", s.Queued)
		}
	}
	return nil
}

// An outlet is what requests have to know of the destination that they choose.
type outlet struct {
	lane  *lane
	limit int64 // bytes of a file
	names naming
}

// choose returns the destination of a name, and for "" the first one that whoever
// asks may use. The error is a refusal, which is the same for one that there is not
// and for one that it may not use.
func (g *Gateway) choose(ctx context.Context, name string) (outlet, error) {
	c := callerOf(ctx)
	var names []string
	for _, l := range g.lanes.configured() {
		switch {
		case !c.uses(l.Name):
		case name == "", name == l.Name:
			return outlet{l, g.maxSize(l), l.names}, nil
		default:
			names = append(names, l.Name)
		}
	}
	switch {
	case len(names) == 0:
		return outlet{}, refusal(kindDestination, "The destination that the token is for is not configured. Nothing was kept. Ask the gateway's operator.")
	case len(names) == 1:
		return outlet{}, refusal(kindDestination, "There is no destination %.80q. Nothing was kept. Choose %s, or none, which is as good.", name, names[0])
	}
	return outlet{}, refusal(kindDestination, "There is no destination %.80q. Nothing was kept. Choose one of %s; without one it is %s.", name, strings.Join(names, ", "), names[0])
}

// block says in an upload that nobody delivers why that is not about to change.
func (l *lane) block(u *Upload) {
	if u.State != StateQueued && u.State != StateWaiting {
		return
	}
	switch {
	case l.removed:
		u.Blocked = new("the gateway has no destination " + l.Name + " any more: it is delivered when there is one again; or cancel it, and send it elsewhere")
	case l.paused.Load():
		u.Blocked = new("the destination " + l.Name + " is paused: the upload is delivered when it is resumed")
	default:
		l.blockUnreachable(u)
		return
	}
	u.Attempts.NextAt = nil
}

func (l *lane) blockUnreachable(u *Upload) {
	next, ok := l.breaker.unreachable()
	if !ok || u.Held {
		return
	}
	u.Blocked = new("the destination " + l.Name + " cannot be reached: one upload after another tries it, the next at " + next.Format("15:04:05") +
		" UTC, and this one is delivered when it can be")
	if at := u.Attempts.NextAt; at == nil || at.Before(next) {
		u.Attempts.NextAt = &next
	}
}

// add puts a lane behind all others.
func (l *lanes) add(one *lane) *lane {
	one.breaker = newBreaker()
	l.all = append(l.all, one)
	l.byName[one.Name] = one
	return one
}

// named returns the lane of a name that the database has.
func (l *lanes) named(name string) (*lane, error) {
	one := l.byName[name]
	if one == nil {
		return nil, fmt.Errorf("internal error: no destination %s is recorded", name)
	}
	return one, nil
}
