package gateway

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
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

// An arm is the part of a list with one state, or any, and one way to be for
// a destination, or any.
type arm struct {
	state       State
	destination destinationIs
	lane        string // the destination's name, unless it is any or thisDestination
}

type destinationIs int

const (
	anyDestination   destinationIs = iota
	thisDestination                // it was delivered there
	nextDestination                // it was not delivered yet, and would be there
	namedDestination               // it is for the one of that name, delivered or not
)

// arms are the parts that a list is merged from, each in its order. There are
// none if no row can be in it.
func (f *filter) arms(to *lanes) (arms []arm) {
	states := slices.DeleteFunc(slices.Clone(f.states), func(s State) bool { return s == StateReceiving })
	slices.Sort(states)
	states = slices.Compact(states)
	if len(f.states) == 0 {
		states = []State{""}
	}
	for _, a := range f.ways(to) {
		of := states
		if a.destination == nextDestination && !f.byName() && f.sha256 == nil && len(f.labels) == 0 {
			of = undelivered(states)
		}
		for _, a.state = range of {
			arms = append(arms, a)
		}
	}
	return arms
}

// undelivered are those of the states, of which "" is any, in which an upload can be before a
// destination has it. They are named one by one where nothing else chooses the index: each has its part of one.
func undelivered(states []State) []State {
	all := []State{StateQueued, StateDelivering, StateWaiting, StateFailed, StateCancelled}
	return slices.DeleteFunc(all, func(s State) bool { return !slices.Contains(states, s) && !slices.Contains(states, "") })
}

// ways are the ways to be for the filter's destination.
func (f *filter) ways(to *lanes) []arm {
	if f.destination == "" {
		return []arm{{}}
	}
	if to.byName[f.destination] != nil {
		return []arm{{destination: namedDestination, lane: f.destination}}
	}
	ways := []arm{{destination: thisDestination}}
	for _, l := range to.all {
		if l.To.String() == f.destination {
			ways = append(ways, arm{destination: nextDestination, lane: l.Name})
		}
	}
	return ways
}

// query is the statement for a page of rows; "" if there can be none. Each arm
// walks one index in the order of the list, which the filter chooses; the other
// conditions are written so that no index fits them. So a page costs no more
// than what of that index has to be passed over.
func (f *filter) query(to *lanes, limit int) (statement string, args []any) {
	q := &listQuery{filter: f}
	var parts []string
	for _, a := range f.arms(to) {
		parts = append(parts, q.arm(a))
	}
	if len(parts) == 0 {
		return "", nil
	}
	order := " order by id desc"
	if f.byName() {
		order = " order by name, id"
	}
	return strings.Join(parts, " union all ") + order + " limit " + q.arg(limit), q.args
}

// listQuery is a statement that is being written.
type listQuery struct {
	*filter
	args       []any
	conditions []string
}

// arg adds an argument and returns the parameter for it.
func (q *listQuery) arg(value any) string {
	q.args = append(q.args, value)
	return fmt.Sprintf("$%d", len(q.args))
}

// where adds a condition; each ? in it is the next of the values.
func (q *listQuery) where(condition string, values ...any) {
	for _, v := range values {
		condition = strings.Replace(condition, "?", q.arg(v), 1)
	}
	q.conditions = append(q.conditions, condition)
}

// arm writes one of the parts. What drives it comes first.
func (q *listQuery) arm(a arm) string {
	q.conditions = nil
	id, from, labels := "u.id", "uploads u", slices.Sorted(maps.Keys(q.labels))
	state, sum, destination := "u.state || '' = ?", "hex(u.sha256) = hex(?)", "u.destination || '' = ?"
	sender, lane := "u.token || '' = ?", "u.lane || '' = ?"
	switch {
	case q.byName():
		q.nameRange()
	case q.sha256 != nil:
		sum = "u.sha256 = ?"
	case len(labels) > 0:
		id, from = "l.upload", "labels l join uploads u on u.id = l.upload"
		q.where("l.key = ? and l.value = ?", labels[0], q.labels[labels[0]])
		labels = labels[1:]
	case a.state != "":
		state = "u.state = ?"
	case a.destination == namedDestination, a.destination == anyDestination && !q.sender.Valid:
		lane = "u.lane = ?"
	case a.destination == anyDestination:
		sender = "u.token = ?"
	default:
		destination = "u.destination = ?"
	}
	if q.sha256 != nil {
		q.where(sum, q.sha256)
	}
	for _, key := range labels {
		q.where("exists (select 1 from labels where key = ? and value = ? and upload = u.id)", key, q.labels[key])
	}
	if a.state != "" {
		q.where(state, a.state)
	}
	if q.sender.Valid {
		q.where(sender, q.sender.V)
	}
	switch a.destination {
	case thisDestination:
		q.where(destination, q.destination)
	case nextDestination:
		q.where("u.destination is null and u.lane || '' = ?", a.lane)
	case namedDestination:
		q.where(lane, a.lane)
	case anyDestination:
	}
	if q.lane != "" && q.lane != a.lane {
		q.where(lane, q.lane)
	}
	q.times(id)
	columns := strings.Replace(selectUploads, "u.id, u.name,", id+" as id, u.name as name,", 1)
	statement := strings.Replace(columns, "uploads u ", from+" ", 1)
	if len(q.conditions) > 0 {
		statement += "where " + strings.Join(q.conditions, " and ")
	}
	return statement
}

// nameRange bounds the names, and goes on after the position.
func (q *listQuery) nameRange() {
	if q.after == (position{}) {
		q.where("u.name >= ?", q.prefix)
	} else {
		q.where("(u.name, u.id) > (?, ?)", q.after.name, q.after.id)
	}
	if end := prefixEnd(q.prefix); end != "" {
		q.where("u.name < ?", end)
	}
}

// times bounds when uploads were created, and goes on after the position. Ids
// begin with that time.
func (q *listQuery) times(id string) {
	if !q.since.IsZero() {
		q.where("u.created_at >= ?", q.since.UnixMicro())
	}
	if !q.until.IsZero() {
		q.where("u.created_at < ?", q.until.UnixMicro())
	}
	if q.byName() {
		return
	}
	if low := firstOf(q.since); !q.since.IsZero() {
		q.where(id+" >= ?", low)
	}
	end := q.after.id
	if !q.until.IsZero() {
		if until := firstOf(q.until.Add(time.Millisecond)); end.IsZero() || until.Compare(end) < 0 {
			end = until
		}
	}
	if !end.IsZero() {
		q.where(id+" < ?", end)
	}
}

// firstOf is the least id of a millisecond.
func firstOf(t time.Time) (id ulid.ULID) {
	ms := min(max(t.UnixMilli(), 0), int64(ulid.MaxTime())-1)
	if err := id.SetTime(uint64(ms)); err != nil {
		panic("internal error: " + err.Error()) // it is within bounds
	}
	return id
}

// prefixEnd is the least string that is greater than all with a prefix, "" if
// there is none.
func prefixEnd(prefix string) string {
	for prefix != "" {
		r, size := utf8.DecodeLastRuneInString(prefix)
		prefix = prefix[:len(prefix)-size]
		switch r++; {
		case r > utf8.MaxRune:
			continue
		case !utf8.ValidRune(r): // a surrogate
			r = 0xe000
		}
		return prefix + string(r)
	}
	return ""
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
