package gateway

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/oklog/ulid/v2"
)

// An arm is a part of a list that is found by walking one index, in the order of the list.
type arm struct {
	by    walked
	lane  string // the part of the index, if it is by laneAndState
	state State
}

// walked is what the index of an arm begins with.
type walked int

const (
	primaryKey walked = iota
	nameOf
	sha256Of
	labelOf
	senderOf
	deliveredTo // the URL; only what is delivered has one
	laneAndState
)

// maxArms bounds the arms of a list, for each of which SQLite needs some 7 KB for as long as a connection keeps the
// statement prepared. It merges 500 at most.
const maxArms = 60

// arms are the parts that a list is merged from. Here alone is it chosen which condition drives
// them. There are none if no row can be in the list.
func (f *filter) arms(to *lanes) []arm {
	anyState := len(f.states) == 0
	switch {
	case len(f.stored()) == 0, len(f.onLanes(to)) == 0 && !f.toURL(to):
		return nil
	case f.byName():
		return []arm{{by: nameOf}}
	case f.sha256 != nil:
		return []arm{{by: sha256Of}}
	case len(f.labels) > 0:
		return []arm{{by: labelOf}}
	case f.sender.Valid && anyState && f.destination == "":
		return []arm{{by: senderOf}}
	case anyState && f.destination == "" && f.lane == "":
		return []arm{{by: primaryKey}}
	}
	arms := f.laneArms(to)
	switch {
	case len(arms) <= maxArms:
		return arms
	case f.sender.Valid:
		return []arm{{by: senderOf}}
	}
	return []arm{{by: primaryKey}}
}

// stored are the states of the filter that rows have, all of them if it names none.
func (f *filter) stored() (states []State) {
	for _, s := range []State{StateQueued, StateDelivering, StateWaiting, StateDelivered, StateFailed, StateCancelled} {
		if len(f.states) == 0 || slices.Contains(f.states, s) {
			states = append(states, s)
		}
	}
	return states
}

// laneArms are an arm for each lane and state that the list has. Of those for a URL, what is
// delivered is found by where that was.
func (f *filter) laneArms(to *lanes) (arms []arm) {
	states := f.stored()
	if f.toURL(to) {
		if i := slices.Index(states, StateDelivered); i >= 0 {
			arms = append(arms, arm{by: deliveredTo})
			states = slices.Delete(states, i, i+1)
		}
	}
	for _, name := range f.onLanes(to) {
		for _, s := range states {
			arms = append(arms, arm{laneAndState, name, s})
		}
	}
	return arms
}

// toURL reports whether the filter's destination is a URL, or at least no name.
func (f *filter) toURL(to *lanes) bool { return f.destination != "" && to.byName[f.destination] == nil }

// onLanes are the names of the lanes that the list is of, apart from what was delivered to a URL.
func (f *filter) onLanes(to *lanes) (names []string) {
	for _, l := range to.all {
		if (f.lane == "" || f.lane == l.Name) && (f.destination == "" || f.destination == l.Name || f.destination == l.To.String()) {
			names = append(names, l.Name)
		}
	}
	return names
}

// query is the statement for a page of rows; "" if there can be none. Each arm
// walks one index in the order of the list; the conditions that do not drive it
// are written so that no index fits them. So a page costs no more
// than what of that index has to be passed over.
func (f *filter) query(to *lanes, limit int) (statement string, args []any) {
	q := &listQuery{filter: f, lanes: to}
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
	lanes      *lanes
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
	switch a.by {
	case primaryKey:
	case nameOf:
		q.nameRange()
	case sha256Of:
		q.where("u.sha256 = ?", q.sha256)
	case labelOf:
		id, from = "l.upload", "labels l join uploads u on u.id = l.upload"
		q.where("l.key = ? and l.value = ?", labels[0], q.labels[labels[0]])
		labels = labels[1:]
	case senderOf:
		q.where("u.token = ?", q.sender.V)
	case deliveredTo:
		q.where("u.destination = ?", q.destination)
	case laneAndState:
		q.where("u.lane = ? and u.state = ?", a.lane, a.state)
	}
	for _, key := range labels {
		q.where("exists (select 1 from labels where key = ? and value = ? and upload = u.id)", key, q.labels[key])
	}
	q.others(a.by)
	q.times(id)
	columns := strings.Replace(selectUploads, "u.id, u.name,", id+" as id, u.name as name,", 1)
	statement := strings.Replace(columns, "uploads u ", from+" ", 1)
	if len(q.conditions) > 0 {
		statement += "where " + strings.Join(q.conditions, " and ")
	}
	return statement
}

// others adds the conditions that are not met by what an arm walks.
func (q *listQuery) others(by walked) {
	if q.sha256 != nil && by != sha256Of {
		q.where("hex(u.sha256) = hex(?)", q.sha256)
	}
	if q.sender.Valid && by != senderOf {
		q.where("u.token || '' = ?", q.sender.V)
	}
	if q.lane != "" && by != laneAndState {
		q.where("u.lane || '' = ?", q.lane)
	}
	if by == laneAndState || by == deliveredTo {
		return
	}
	if len(q.states) > 0 {
		states := q.stored()
		q.where("u.state || '' in ("+oneEach(states)+")", anys(states)...)
	}
	names := q.onLanes(q.lanes)
	switch on := "u.lane || '' in (" + oneEach(names) + ")"; {
	case q.destination == "":
	case !q.toURL(q.lanes):
		q.where(on, anys(names)...)
	case len(names) == 0:
		q.where("u.destination || '' = ?", q.destination)
	default:
		q.where("(u.destination || '' = ? or u.destination is null and "+on+")", append([]any{q.destination}, anys(names)...)...)
	}
}

// oneEach has a ? for each of the values.
func oneEach[T any](values []T) string {
	return strings.TrimSuffix(strings.Repeat("?, ", len(values)), ", ")
}

func anys[T any](values []T) (all []any) {
	for _, v := range values {
		all = append(all, v)
	}
	return all
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
