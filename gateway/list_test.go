package gateway

import (
	"context"
	"database/sql"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"pgregory.net/rapid"
)

// listed is an upload as a table of a test has it.
type listed struct {
	Upload
	sender sql.Null[string]
}

// fill records uploads of every kind, some of them made in the same moment.
func (c *core) fill(n int) (all []listed) {
	c.t.Helper()
	begin := time.Date(2026, 3, 14, 15, 0, 0, 0, time.UTC)
	names := []string{"a", "a/b", "a/c", "a0", "ab", "b%", "b_", "é", "é/x", "ź", "日本", "\U0010ffff"}
	states := []State{StateQueued, StateDelivering, StateWaiting, StateDelivered, StateFailed, StateCancelled}
	elsewhere := sql.Null[string]{V: "v3://elsewhere:1", Valid: true}
	here := sql.Null[string]{V: c.lanes.first().To.String(), Valid: true}
	others := c.lanes.all[1:]
	entropy := ulid.Monotonic(strings.NewReader(strings.Repeat("0123456789", 10_000)), 0)
	err := c.db.Update(c.t.Context(), func(ctx context.Context, tx *sql.Tx) error {
		for i := range n {
			at := begin.Add(time.Duration(i/3) * 700 * time.Microsecond)
			u := listed{Upload: Upload{
				Name: names[i*7%len(names)], State: states[i*5%len(states)], CreatedAt: at, Labels: map[string]string{},
				SHA256: new(strings.Repeat(fmt.Sprintf("%02x", i%4), 32)),
			}}
			var err error
			if u.ID, err = ulid.New(uint64(at.UnixMilli()), entropy); err != nil {
				return err
			}
			if i%2 == 0 {
				u.Labels["build"] = fmt.Sprint(i % 3)
			}
			if i%5 == 0 {
				u.Labels["os"] = "linux"
			}
			var to sql.Null[string]
			if u.State == StateDelivered {
				to = []sql.Null[string]{here, elsewhere}[i/2%2]
			}
			u.Destination, u.DestinationName = here.V, DefaultDestination
			if i%7 == 0 {
				other := others[i/7%len(others)]
				u.Destination, u.DestinationName = other.To.String(), other.Name
			}
			if to.Valid {
				u.Destination = to.V
			}
			u.sender = []sql.Null[string]{{}, {V: "ci", Valid: true}, {V: "other", Valid: true}, {}}[i%4]
			sum, err := hex.DecodeString(*u.SHA256)
			if err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, `insert into uploads (id, name, size, sha256, cksum, state, body, destination, created_at, updated_at, labels, token, lane)
				values ($1, $2, 0, $3, 0, $4, 'gone', $5, $6, $7, $8, $9, $10)`,
				u.ID, u.Name, sum, u.State, to, at.UnixMicro(), at.UnixMicro(), encodeLabels(u.Labels), u.sender, u.DestinationName); err != nil {
				return err
			}
			for key, value := range u.Labels {
				if _, err := tx.ExecContext(ctx, "insert into labels (key, value, upload) values ($1, $2, $3)", key, value, u.ID); err != nil {
					return err
				}
			}
			all = append(all, u)
		}
		return nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return all
}

// drawFilter draws any filter on what fill makes.
func drawFilter(t *rapid.T, c *core, all []listed) (f filter) {
	on := func(what string) bool { return rapid.IntRange(0, 3).Draw(t, what) == 0 }
	f.states = rapid.SliceOfN(rapid.SampledFrom(allStates), 0, 3).Draw(t, "states")
	if on("name") {
		f.prefix = rapid.SampledFrom([]string{"a", "a/", "b%", "b_", "é", "日", "none", "\U0010ffff"}).Draw(t, "prefix")
	}
	if on("labels") {
		f.labels = rapid.SampledFrom([]map[string]string{{"build": "0"}, {"os": "linux"}, {"build": "1", "os": "linux"}, {"build": "9"}}).Draw(t, "label")
	}
	if on("destination") {
		f.destination = rapid.SampledFrom([]string{c.lanes.first().To.String(), DefaultDestination, "other", c.lanes.all[1].To.String(), "v3://elsewhere:1", "v3://nowhere:1"}).Draw(t, "to")
	}
	if on("sum") {
		f.sha256 = slices.Repeat([]byte{byte(rapid.IntRange(0, 4).Draw(t, "digest"))}, 32)
	}
	at := func(what string) time.Time {
		u := rapid.SampledFrom(all).Draw(t, what)
		return u.CreatedAt.Add(time.Duration(rapid.IntRange(-1, 1).Draw(t, what+" beside")) * time.Microsecond)
	}
	if on("since") {
		f.since = at("first")
	}
	if on("until") {
		f.until = at("last")
	}
	if on("only") {
		f.lane = rapid.SampledFrom([]string{DefaultDestination, "other", "none"}).Draw(t, "lane")
	}
	if on("sender") {
		f.sender = sql.Null[string]{V: rapid.SampledFrom([]string{"ci", "other", "nobody"}).Draw(t, "token"), Valid: true}
	}
	return f
}

// TestListIsWhatTheFilterHas follows lists from page to page: together the pages
// have what passes the filter, in order, each upload once.
func TestListIsWhatTheFilterHas(t *testing.T) {
	c := openCore(t, t.TempDir(), newRemote(), andOther)
	all := c.fill(300)
	rapid.Check(t, func(t *rapid.T) {
		f := drawFilter(t, c, all)
		c.wantPages(t, f, all, rapid.SampledFrom([]int{1, 2, 7, 50, 500}).Draw(t, "limit"), func() {})
	})
}

// wantPages follows a list to its end, and wants what passes the filter, in order, each
// upload once. Between two pages it calls meanwhile.
func (c *core) wantPages(t rapid.TB, f filter, all []listed, limit int, meanwhile func()) {
	t.Helper()
	passing := slices.DeleteFunc(slices.Clone(all), func(u listed) bool {
		return !f.has(&u.Upload) || f.sender.Valid && u.sender != f.sender
	})
	slices.SortFunc(passing, func(a, b listed) int { return f.compare(f.positionOf(&a.Upload), f.positionOf(&b.Upload)) })
	var got, want []string
	for _, u := range passing {
		want = append(want, u.ID.String())
	}
	for {
		page, err := c.loadPage(context.Background(), f, limit)
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range page {
			got = append(got, u.ID.String())
		}
		if len(page) < limit {
			break
		}
		p, ok := parsePosition(f.positionOf(&page[limit-1]).encode())
		if !ok {
			t.Fatalf("position %v is not read again", f.positionOf(&page[limit-1]))
		}
		f.after = p
		meanwhile()
	}
	if !slices.Equal(got, want) {
		t.Fatalf("%+v: pages of %d have\n%q, want\n%q", f, limit, got, want)
	}
}

// TestListOverLanes follows lists by state and by destination while uploads come in for
// each destination in turn.
func TestListOverLanes(t *testing.T) {
	c := openCore(t, t.TempDir(), newRemote(), andOther, func(cfg *Config, _ *parts) {
		cfg.Destinations = append(cfg.Destinations, Destination{Name: "third", To: to(t, "v3://third:1")[0].To})
	})
	var all []listed
	come := func() {
		n := len(all)
		u := c.takeFor([]string{"other", DefaultDestination, "third"}[n%3], fmt.Sprint(n), "x")
		if n%5 == 0 {
			u = c.cancel(u.ID)
		}
		all = append(all, listed{Upload: u})
	}
	for range 30 {
		come()
	}
	for _, f := range []filter{
		{states: []State{StateQueued}}, {states: []State{StateCancelled, StateQueued}}, {states: []State{StateQueued, StateFailed}, lane: "third"},
		{lane: "other"}, {destination: "other"}, {destination: "v4://other:1"}, {destination: "v4://other:1", states: []State{StateQueued, StateDelivered}},
	} {
		for _, limit := range []int{2, 7} {
			c.wantPages(t, f, all, limit, come)
		}
	}
}

// manyLanes adds lanes until there are so many.
func (c *core) manyLanes(n int) {
	for i := len(c.lanes.all); i < n; i++ {
		c.lanes.add(&lane{Destination: Destination{Name: fmt.Sprintf("lane-%03d", i), To: c.lanes.all[1].To}, removed: true})
	}
}

// TestListOfManyLanes: lists have the same where SQLite can still merge a part for each
// lane and state, and where there are too many for that.
func TestListOfManyLanes(t *testing.T) {
	few, many := maxArms/6, maxArms/6+1
	for _, n := range []int{few, many, 600} {
		c := openCore(t, t.TempDir(), newRemote(), andOther)
		c.manyLanes(n)
		all := c.fill(700)
		states := slices.DeleteFunc(slices.Clone(allStates), func(s State) bool { return s == StateReceiving })
		token := sql.Null[string]{V: "ci", Valid: true}
		for _, f := range []filter{
			{states: states},
			{states: states, sender: token},
			{states: states[1:], destination: c.lanes.all[1].To.String()},
			{destination: c.lanes.all[1].To.String()},
			{states: states[2:4], since: all[300].CreatedAt},
			{states: states, lane: c.lanes.all[n-1].Name},
			{states: []State{StateFailed}},
		} {
			c.wantPages(t, f, all, 50, func() {})
			if arms := f.arms(&c.lanes); len(arms) > maxArms {
				t.Errorf("%+v has %d arms", f, len(arms))
			}
		}
		f := filter{states: states}
		if got, want := f.arms(&c.lanes), []arm{{by: primaryKey}}; slices.Equal(got, want) != (n > few) {
			t.Errorf("of %d lanes, %d arms, the first %+v", n, len(got), got[0])
		}
		f.sender = token
		if got, want := f.arms(&c.lanes), []arm{{by: senderOf}}; slices.Equal(got, want) != (n > few) {
			t.Errorf("of %d lanes and one sender, %d arms, the first %+v", n, len(got), got[0])
		}
	}
}

// TestListIndexes names the index that each kind of list walks, in all of its parts.
func TestListIndexes(t *testing.T) {
	c := openCore(t, t.TempDir(), newRemote(), andOther)
	const (
		laneIndex  = "SEARCH u USING INDEX uploads_by_lane (lane=? AND state=?"
		tokenIndex = "SEARCH u USING INDEX uploads_by_token (token=?"
		urlIndex   = "SEARCH u USING INDEX uploads_by_destination (destination=?"
	)
	token := sql.Null[string]{V: "ci", Valid: true}
	failed := []State{StateFailed}
	for name, k := range map[string]struct {
		f    filter
		want map[string]int // how many arms walk it
	}{
		"nothing":                    {filter{}, map[string]int{"SCAN u": 1}},
		"state":                      {filter{states: []State{StateFailed, StateQueued, StateFailed}}, map[string]int{laneIndex: 4}},
		"state, sender":              {filter{states: failed, sender: token}, map[string]int{laneIndex: 2}},
		"destination's name":         {filter{destination: "other"}, map[string]int{laneIndex: 6}},
		"destination's name, state":  {filter{destination: "other", states: failed}, map[string]int{laneIndex: 1}},
		"destination's name, sender": {filter{destination: "other", sender: token}, map[string]int{laneIndex: 6}},
		"URL":                        {filter{destination: "v4://other:1"}, map[string]int{laneIndex: 5, urlIndex: 1}},
		"URL, state":                 {filter{destination: "v4://other:1", states: failed}, map[string]int{laneIndex: 1}},
		"URL, delivered":             {filter{destination: "v4://other:1", states: []State{StateDelivered}}, map[string]int{urlIndex: 1}},
		"URL of none":                {filter{destination: "v4://elsewhere:1"}, map[string]int{urlIndex: 1}},
		"token's lane":               {filter{lane: "other"}, map[string]int{laneIndex: 6}},
		"token's lane, state":        {filter{lane: "other", states: failed}, map[string]int{laneIndex: 1}},
		"token's lane, sender":       {filter{lane: "other", sender: token}, map[string]int{tokenIndex: 1}},
		"token's lane, another name": {filter{lane: "other", destination: DefaultDestination}, nil},
		"sender":                     {filter{sender: token}, map[string]int{tokenIndex: 1}},
		"name, state, sender":        {filter{prefix: "a", states: failed, sender: token}, map[string]int{"SEARCH u USING INDEX uploads_by_name (": 1}},
		"sha256, state, destination": {filter{sha256: make([]byte, 32), states: failed, destination: "v4://other:1"}, map[string]int{"SEARCH u USING INDEX uploads_by_sha256 (sha256=?": 1}},
		"label, two states":          {filter{labels: map[string]string{"a": "1"}, states: []State{StateQueued, StateFailed}}, map[string]int{"SEARCH l USING PRIMARY KEY (key=? AND value=?": 1}},
		"receiving":                  {filter{states: []State{StateReceiving}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 { // the second time after a position
				statement, args := k.f.query(&c.lanes, 100)
				got := map[string]int{}
				if statement != "" {
					for _, step := range plan(t, c, statement, args) {
						for index := range k.want {
							if strings.HasPrefix(step, index) {
								got[index]++
							}
						}
						if strings.Contains(step, "TEMP B-TREE") {
							t.Errorf("it is sorted: %s", step)
						}
					}
				}
				if len(got)+len(k.want) > 0 && !maps.Equal(got, k.want) || (statement == "") != (k.want == nil) {
					t.Errorf("arms that walk indexes: %v, want %v, in\n%s", got, k.want, statement)
				}
				k.f.after = position{id: ulid.Make()}
				if k.f.byName() {
					k.f.after.name = "a/x"
				}
				if k.want["SCAN u"] > 0 {
					k.want = map[string]int{"SEARCH u USING PRIMARY KEY (id<?)": 1}
				}
			}
		})
	}
}

// TestListPlans: no combination of filters reads uploads one after another that
// no index has found, or sorts.
func TestListPlans(t *testing.T) {
	c := openCore(t, t.TempDir(), newRemote(), andOther)
	c.fill(300)
	is := func(i, bit int) bool { return i>>bit&1 == 1 }
	for i := range 1 << 12 {
		var f filter
		if is(i, 0) {
			f.states = []State{StateQueued}
		}
		if is(i, 1) {
			f.states = append(f.states, StateFailed, StateReceiving)
		}
		if is(i, 2) {
			f.prefix = "a/"
		}
		if is(i, 3) {
			f.labels = map[string]string{"build": "1", "os": "linux"}
		}
		if is(i, 4) {
			f.destination = c.lanes.first().To.String()
			if is(i, 10) {
				f.destination = DefaultDestination
			}
		}
		if is(i, 11) {
			f.lane = "other"
		}
		if is(i, 5) {
			f.sha256 = make([]byte, 32)
		}
		if is(i, 6) {
			f.since = time.Unix(1_700_000_000, 0)
		}
		if is(i, 7) {
			f.until = time.Unix(1_800_000_000, 0)
		}
		if is(i, 8) {
			f.sender = sql.Null[string]{V: "ci", Valid: true}
		}
		if is(i, 9) {
			f.after = position{id: ulid.Make()}
			if f.byName() {
				f.after.name = "a/x"
			}
		}
		statement, args := f.query(&c.lanes, 100)
		if statement == "" { // for another destination than the only one that may be seen
			continue
		}
		for _, step := range plan(t, c, statement, args) {
			whole := f.destination == "" && f.lane == "" && len(f.states) == 0 && !f.byName() && f.sha256 == nil && f.labels == nil && !f.sender.Valid &&
				f.since.IsZero() && f.until.IsZero() && f.after == position{}
			if strings.Contains(step, "TEMP B-TREE") || strings.HasPrefix(step, "SCAN ") && !whole {
				t.Errorf("%+v: %s, in\n%s", f, step, statement)
			}
		}
	}
}

// plan is how SQLite goes about a statement.
func plan(t *testing.T, c *core, statement string, args []any) (steps []string) {
	t.Helper()
	rows, err := c.db.Read().QueryContext(t.Context(), "explain query plan "+statement, args...)
	if err != nil {
		t.Fatalf("%v in\n%s", err, statement)
	}
	defer rows.Close()
	for rows.Next() {
		var id, parent, unused int
		var step string
		if err := rows.Scan(&id, &parent, &unused, &step); err != nil {
			t.Fatal(err)
		}
		steps = append(steps, step)
	}
	if err := rows.Err(); err != nil || len(steps) == 0 {
		t.Fatalf("plan of %d steps, %v", len(steps), err)
	}
	return steps
}

// TestListStaysWhileMoreComeIn follows the Links while each page is answered and
// others come in.
func TestListStaysWhileMoreComeIn(t *testing.T) {
	for _, query := range []string{"limit=3", "limit=3&name=in-", "limit=3&label=a=1", "limit=3&state=queued&state=waiting"} {
		t.Run(query, func(t *testing.T) {
			s := newRealAPI(t)
			send := func(name string) {
				t.Helper()
				s.ask(t, "PUT", "/uploads/"+name+"?label=a=1", strings.NewReader(name)).upload(t, http.StatusAccepted)
			}
			const before = 10
			for i := range before {
				send(fmt.Sprintf("in-%02d-before", i))
			}
			seen := map[string]int{}
			for path, pages := "/uploads?"+query, 0; path != ""; pages++ {
				a := s.ask(t, "GET", path, nil)
				for _, u := range a.uploads(t, http.StatusOK) {
					seen[u.Name]++
				}
				path = next(a)
				if pages < 4 {
					send(fmt.Sprintf("in-%02d-meanwhile", pages))
				}
			}
			for i := range before {
				if name := fmt.Sprintf("in-%02d-before", i); seen[name] != 1 {
					t.Errorf("%s came %d times, want once", name, seen[name])
				}
			}
			for name, times := range seen {
				if times != 1 {
					t.Errorf("%s came %d times", name, times)
				}
			}
		})
	}
}

// TestListCursorOfAnotherName: a cursor lets nothing out that the filter does not.
func TestListCursorOfAnotherName(t *testing.T) {
	s := newRealAPI(t)
	for _, name := range []string{"a1", "a2", "b1", "zzz1"} {
		s.ask(t, "PUT", "/uploads/"+name, strings.NewReader(name)).upload(t, http.StatusAccepted)
	}
	path := next(s.ask(t, "GET", "/uploads?limit=1&name=a", nil))
	if got := s.ask(t, "GET", path, nil).uploads(t, http.StatusOK); len(got) != 1 || got[0].Name != "a2" {
		t.Errorf("%s has %+v, want a2", path, got)
	}
	s.ask(t, "GET", strings.Replace(path, "name=a", "name=zzz", 1), nil).problem(t, kindParameter)
}

// next is where an answer says that its list goes on.
func next(a answer) string {
	_, rest, _ := strings.Cut(a.Header.Get("Link"), "<")
	path, _, _ := strings.Cut(rest, `>; rel="next"`)
	return path
}

// TestListHas asks with each of the filters.
func TestListHas(t *testing.T) {
	forBoth(t, func(t *testing.T, s *testAPI) {
		s.ask(t, "PUT", "/uploads/one.txt?label=build=17&label=os=linux", strings.NewReader("1")).upload(t, http.StatusAccepted)
		u := s.ask(t, "PUT", "/uploads/two.txt?label=build=17", strings.NewReader("2")).upload(t, http.StatusAccepted)
		for query, want := range map[string]string{
			"":                                              "two.txt one.txt",
			"state=queued":                                  "two.txt one.txt",
			"state=failed&state=queued":                     "two.txt one.txt",
			"state=delivered":                               "",
			"name=t":                                        "two.txt",
			"name=o&state=queued":                           "one.txt",
			"name=o&label=os=linux":                         "one.txt",
			"label=build=17":                                "two.txt one.txt",
			"label=build=17&label=os=linux":                 "one.txt",
			"label=build=18":                                "",
			"sha256=" + sum([]byte("2")):                    "two.txt",
			"sha256=" + sum([]byte("3")):                    "",
			"since=2001-02-03T04:05:06Z":                    "two.txt one.txt",
			"since=2101-02-03T04:05:06%2B01:00":             "",
			"until=2101-02-03T04:05:06.789Z":                "two.txt one.txt",
			"until=2001-02-03T04:05:06Z":                    "",
			"until=0001-01-01T00:00:00Z":                    "",
			"since=0001-01-01T00:00:00Z":                    "two.txt one.txt",
			"destination=v3://elsewhere.test:1":             "",
			"before=" + u.ID.String():                       "one.txt",
			"destination=" + url.QueryEscape(u.Destination): "two.txt one.txt",
		} {
			var names []string
			for _, u := range s.ask(t, "GET", "/uploads?"+query, nil).uploads(t, http.StatusOK) {
				names = append(names, u.Name)
			}
			if got := strings.Join(names, " "); got != want {
				t.Errorf("GET /uploads?%s has %q, want %q", query, got, want)
			}
		}
		for _, path := range []string{"/uploads", "/uploads?sha256=" + sum([]byte("2"))} {
			if a := s.ask(t, "HEAD", path, nil); a.StatusCode != http.StatusOK || len(a.body) != 0 || a.Header.Get("Content-Length") == "" {
				t.Errorf("HEAD %s: %d with %d bytes and Content-Length %q", path, a.StatusCode, len(a.body), a.Header.Get("Content-Length"))
			}
		}
	})
}

func TestListRefuses(t *testing.T) {
	s := newFakeAPI(t)
	good := position{id: ulid.Make(), name: "a"}.encode()
	for _, query := range []string{
		"state=done", "state=", "name=", "name=%ff", "name=" + strings.Repeat("n", 1025), "name=a&name=b", "limit=1&limit=2",
		"destination=", "sha256=", "sha256=00", "sha256=" + strings.Repeat("g", 64), "since=yesterday", "until=2026-03-14", "since=",
		"cursor=", "cursor=!", "cursor=AAAA", "cursor=" + good, "name=a&before=" + ulid.Make().String(), "name=a&cursor=" + position{id: ulid.Make()}.encode(),
		"cursor=" + good + "&name=a&before=" + ulid.Make().String(), "cursor=" + position{name: "a"}.encode() + "&name=a", "name=b&cursor=" + good, "name=ab&cursor=" + good,
	} {
		s.ask(t, "GET", "/uploads?"+query, nil).problem(t, kindParameter)
	}
	for _, query := range []string{"label=a", "label=A=1", "label=a=1&label=a=2"} {
		s.ask(t, "GET", "/uploads?"+query, nil).problem(t, kindLabel)
	}
	s.ask(t, "GET", "/uploads?name=a&cursor="+good, nil).uploads(t, http.StatusOK)
}

// TestListFormats reads lists as lines of JSON and as CSV, of more than one page
// of the database.
func TestListFormats(t *testing.T) {
	s := newFakeAPI(t)
	const n = 1234
	for i := range n {
		s.core.kept = append(s.core.kept, Upload{ID: ulid.Make(), Name: fmt.Sprintf("%04d, \"x\"\n", i), State: StateQueued, Labels: map[string]string{}})
	}
	a := s.ask(t, "GET", "/uploads?name=0", nil, "Accept", "application/x-ndjson")
	var names []string
	for line := range strings.Lines(string(a.body)) {
		var u Upload
		if err := json.Unmarshal([]byte(line), &u); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		names = append(names, u.Name)
	}
	if len(names) != 1000 || !slices.IsSorted(names) || a.Header.Get("Content-Type") != "application/x-ndjson" {
		t.Errorf("%d lines of %s, want the 1000 that begin so", len(names), a.Header.Get("Content-Type"))
	}
	a = s.ask(t, "GET", "/uploads", nil, "Accept", "text/csv")
	rows, err := csv.NewReader(strings.NewReader(string(a.body))).ReadAll()
	if err != nil || len(rows) != n+1 || !slices.Equal(rows[0], csvColumns) || rows[n][1] != "0000, \"x\"\n" {
		t.Errorf("%d rows, the last %q, %v; want %d and the names of the columns", len(rows), rows[len(rows)-1], err, n)
	}
	if got := a.Header.Get("Content-Type"); got != "text/csv; charset=utf-8; header=present" {
		t.Errorf("Content-Type %q", got)
	}
	a = s.ask(t, "GET", "/uploads?limit=2", nil, "Accept", "text/csv")
	if rows, err = csv.NewReader(strings.NewReader(string(a.body))).ReadAll(); len(rows) != 3 || err != nil || next(a) == "" {
		t.Errorf("%q and Link %q; want a head, two rows, and more", rows, a.Header.Get("Link"))
	}
	for accept, want := range map[string]string{
		"": jsonType, "*/*": jsonType, "text/html, */*;q=0.1": jsonType, "text/csv;q=0.5, application/x-ndjson": lineType,
		"application/json, text/csv": jsonType, "text/csv;q=0.9, application/*;q=0.8": csvType, "text/*": csvType, "text/html, text/*;q=0.5": csvType, "text/csv;q=0": jsonType, "text/csv;q=x": jsonType, ";;;": jsonType,
	} {
		if got := preferred([]string{accept}); got != want {
			t.Errorf("Accept: %s gets %s, want %s", accept, got, want)
		}
	}
}

// TestListCells: no cell is a formula to a spreadsheet.
func TestListCells(t *testing.T) {
	for _, name := range []string{"=1+1", "+1", "-1", "@x", "\t=1", "＝1"} {
		if row := csvRow(&Upload{Name: name}); row[1] != "'"+name {
			t.Errorf("the name %q is written as %q", name, row[1])
		}
	}
}

// TestListBreaksOff: half a list is not taken for a whole one.
func TestListBreaksOff(t *testing.T) {
	s := newFakeAPI(t)
	s.core.mu.Lock()
	for range maxPage + 1 {
		s.core.kept = append(s.core.kept, Upload{ID: ulid.Make(), Name: "a", State: StateQueued, Labels: map[string]string{}})
	}
	s.core.lists = 1
	s.core.mu.Unlock()
	out, err := exec.CommandContext(t.Context(), "curl", "-sS", "-H", "Accept: application/x-ndjson", s.url+"/uploads").CombinedOutput()
	if err == nil {
		t.Errorf("curl takes it for whole: %.300s", out)
	}
}

// TestPrefixEnd compares the range of names with what begins so.
func TestPrefixEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		letters := rapid.StringOfN(rapid.RuneFrom([]rune{'a', 'b', 'z', 0x7f, 0x80, 0x7ff, 0xd7ff, 0xe000, 0xffff, 0x10000, 0x10ffff}), 1, 4, -1)
		prefix, name := letters.Draw(t, "prefix"), letters.Draw(t, "name")
		end := prefixEnd(prefix)
		within := name >= prefix && (end == "" || name < end)
		if within != strings.HasPrefix(name, prefix) {
			t.Fatalf("%q is within %q to %q: %v", name, prefix, end, within)
		}
	})
}
