package gateway

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/oklog/ulid/v2"
)

// A filter says which uploads a list has, and from where on. The zero value is
// all of them. Lists are in the order of the ids, newest first; with a prefix,
// in that of the names, and of one name the oldest first.
type filter struct {
	states      []State
	prefix      string            // of the name
	labels      map[string]string // all of them
	destination string            // its name, or its URL
	sha256      []byte            // nil for any
	since       time.Time         // created then or later
	until       time.Time         // created before
	sender      sql.Null[string]  // the name of the token it was sent with
	lane        string            // the destination's name, for a token of one; "" for any
	after       position
}

// position is that of an upload in a list; the zero value is before the first.
type position struct {
	id   ulid.ULID
	name string // only where the order is that of the names
}

func (f *filter) byName() bool { return f.prefix != "" }

func (f *filter) positionOf(u *Upload) position {
	if f.byName() {
		return position{u.ID, u.Name}
	}
	return position{id: u.ID}
}

// compare is negative if a comes before b.
func (f *filter) compare(a, b position) int {
	if f.byName() {
		return cmp.Or(cmp.Compare(a.name, b.name), a.id.Compare(b.id))
	}
	return b.id.Compare(a.id)
}

// has reports whether an upload is in the list, at or after its position.
func (f *filter) has(u *Upload) bool {
	if len(f.states) > 0 && !slices.Contains(f.states, u.State) || !strings.HasPrefix(u.Name, f.prefix) {
		return false
	}
	for key, value := range f.labels {
		if had, ok := u.Labels[key]; !ok || had != value {
			return false
		}
	}
	return (f.destination == "" || u.Destination == f.destination || u.DestinationName == f.destination) &&
		(f.lane == "" || u.DestinationName == f.lane) &&
		(f.sha256 == nil || u.SHA256 != nil && *u.SHA256 == hex.EncodeToString(f.sha256)) &&
		!u.CreatedAt.Before(f.since) && (f.until.IsZero() || u.CreatedAt.Before(f.until)) &&
		(f.after == position{} || f.compare(f.after, f.positionOf(u)) < 0)
}

// list returns up to limit of the uploads that a filter lets through, those
// receiving included.
func (g *Gateway) list(ctx context.Context, f filter, limit int) ([]Upload, error) {
	c := callerOf(ctx)
	if !c.may(ScopeRead) {
		f.sender = c.sender()
	}
	f.lane = c.only()
	incoming, running := g.live.all() // first, as in get
	var coming []Upload
	for _, in := range incoming {
		if u := in.upload(); (!f.sender.Valid || in.from.sender == f.sender) && f.has(&u) {
			coming = append(coming, u)
		}
	}
	page, err := g.loadPage(ctx, f, limit)
	if err != nil {
		return nil, err
	}
	for i := range page {
		if d := running[page[i].ID]; d != nil {
			d.show(&page[i])
		}
	}
	if len(coming) == 0 {
		return page, nil
	}
	// The row wins if an upload is in both: it comes first, and sorting keeps that.
	both := append(page, coming...)
	slices.SortStableFunc(both, func(a, b Upload) int { return f.compare(f.positionOf(&a), f.positionOf(&b)) })
	both = slices.CompactFunc(both, func(a, b Upload) bool { return a.ID == b.ID })
	return both[:min(limit, len(both))], nil
}

func (g *Gateway) loadPage(ctx context.Context, f filter, limit int) (page []Upload, err error) {
	statement, args := f.query(&g.lanes, limit)
	if statement == "" {
		return nil, nil
	}
	rows, err := g.db.Read().QueryContext(ctx, statement, args...) //nolint:gosec // what a request says is in args alone
	if err != nil {
		return nil, fmt.Errorf("list uploads: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		u, err := g.scan(rows)
		if err != nil {
			return nil, fmt.Errorf("list uploads: %w", err)
		}
		page = append(page, u)
	}
	return page, rows.Err()
}

// encode writes a position for a list's address.
func (p position) encode() string {
	return cursorEncoding.EncodeToString(append(p.id.Bytes(), p.name...))
}

// parsePosition reads what encode wrote.
func parsePosition(s string) (p position, ok bool) {
	b, err := cursorEncoding.DecodeString(s)
	if err != nil || len(b) < len(p.id) || !utf8.Valid(b[len(p.id):]) {
		return position{}, false
	}
	copy(p.id[:], b)
	p.name = string(b[len(p.id):])
	return p, !bytes.Equal(p.id[:], make([]byte, len(p.id)))
}
