package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// fewUploads are as many as the lists that are measured have, so that both
// tables answer the same.
const fewUploads = 200

// benchQueued has a gateway deliver small files of which a million wait, and of
// which few more than those wait.
func benchQueued(ctx context.Context, dir, binary string, o options) (err error) {
	native, err := startNative(ctx, binary, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, native.stop()) }()
	few, err := newFilled(ctx, native, filepath.Join(dir, "few"))
	if err != nil {
		return err
	}
	many, err := newFilled(ctx, native, filepath.Join(dir, "many"))
	if err != nil {
		return err
	}
	if err := many.fill(ctx, o.rows, true); err != nil {
		return err
	}
	starts := map[*filled][]time.Duration{}
	drain := func(f *filled) func(ctx context.Context, name string) (cost, error) {
		return func(ctx context.Context, _ string) (cost, error) {
			if err := f.fill(ctx, o.files+o.files/4, true); err != nil {
				return cost{}, err
			}
			begun := time.Now()
			if err := f.start(ctx); err != nil {
				return cost{}, err
			}
			starts[f] = append(starts[f], time.Since(begun))
			took, err := f.drain(ctx, o.files)
			return took, errors.Join(err, f.stop())
		}
	}
	contestants := []contestant{
		{name: fmt.Sprintf("ferry gateway, %d queued", o.rows), short: "many", deliver: drain(many)},
		{name: fmt.Sprintf("ferry gateway, %d queued", o.files+o.files/4), short: "few", deliver: drain(few)},
	}
	costs, err := turns(ctx, o.rounds, contestants)
	if err != nil {
		return err
	}
	report(fmt.Sprintf("%d small files claimed and delivered", o.files), contestants, costs, float64(o.files), "files")
	fmt.Printf("Until it listens: %.2f s with many, %.2f s with few.\n\n", medianOf(starts[many]).Seconds(), medianOf(starts[few]).Seconds())
	return nil
}

// drain waits until some have been delivered, and measures until so many more
// have been.
func (f *filled) drain(ctx context.Context, files int) (took cost, err error) {
	db, err := f.openDatabase(ctx, "mode=ro")
	if err != nil {
		return cost{}, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	pids := []int{f.cmd.Process.Pid, f.native.cmd.Process.Pid}
	base, err := delivered(ctx, db, 0)
	if err != nil {
		return cost{}, err
	}
	first, err := delivered(ctx, db, base+files/10)
	begun, before := time.Now(), cpusOf(pids)
	if err != nil {
		return cost{}, err
	}
	last, err := delivered(ctx, db, first+files)
	took = cost{wall: time.Since(begun), cpu: cpusOf(pids) - before}
	share := float64(files) / float64(last-first)
	return cost{wall: time.Duration(share * float64(took.wall)), cpu: time.Duration(share * float64(took.cpu))}, err
}

// delivered waits until so many uploads are, and returns how many.
func delivered(ctx context.Context, db *sql.DB, least int) (n int, err error) {
	for {
		err := db.QueryRowContext(ctx, "select count(*) from uploads where lane = 'default' and state = 'delivered'").Scan(&n)
		if err != nil || n >= least {
			return n, err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// A request is one that is timed. build makes the one of a number.
type request struct {
	name  string
	build func(f *filled, number int) (*http.Request, error)
	want  int
}

// benchFinished asks a gateway with a million finished uploads, and one with few.
func benchFinished(ctx context.Context, dir, binary string, o options) (err error) {
	native, err := startNative(ctx, binary, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, native.stop()) }()
	tables := make([]*filled, 2)
	for i, rows := range []int{o.rows, fewUploads} {
		if tables[i], err = newFilled(ctx, native, filepath.Join(dir, fmt.Sprintf("rows-%d", rows))); err != nil {
			return err
		}
		if err := tables[i].fill(ctx, rows, false); err != nil {
			return err
		}
		if err := tables[i].start(ctx); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, tables[i].stop()) }()
	}
	samples := map[*filled]*sample{}
	for _, f := range tables {
		if samples[f], err = f.sample(ctx); err != nil {
			return err
		}
	}
	requests := finishedRequests(samples)
	took := make([][2][]time.Duration, len(requests))
	const each = 20
	for round := range o.rounds + 1 {
		for i, r := range requests {
			for j, f := range tables {
				for n := range each {
					d, err := r.time(ctx, f, round*each+n)
					if err != nil {
						return fmt.Errorf("%s: %w", r.name, err)
					}
					if round > 0 {
						took[i][j] = append(took[i][j], d)
					}
				}
				if err := f.quiet(ctx); err != nil {
					return err
				}
			}
		}
	}
	fmt.Printf("Requests one after another; medians of %d, %d at a time in turn.\n\n", o.rounds*each, each)
	fmt.Printf("| request | %d finished, ms | %d finished, ms | ratio |\n|---|---|---|---|\n", o.rows, fewUploads)
	for i, r := range requests {
		many, few := medianOf(took[i][0]), medianOf(took[i][1])
		fmt.Printf("| %s | %.2f | %.2f | %.2f |\n", r.name, many.Seconds()*1e3, few.Seconds()*1e3, many.Seconds()/few.Seconds())
	}
	fmt.Println()
	return nil
}

// time sends a request and reads its answer.
func (r request) time(ctx context.Context, f *filled, i int) (time.Duration, error) {
	req, err := r.build(f, i)
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	res, err := http.DefaultClient.Do(req.WithContext(ctx))
	if err != nil {
		return 0, err
	}
	body, err := io.ReadAll(res.Body)
	took := time.Since(begun)
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return 0, err
	}
	if res.StatusCode != r.want {
		return 0, fmt.Errorf("%s: %s", res.Status, tail(body))
	}
	return took, nil
}

// A sample is what requests ask for that differs from table to table.
type sample struct {
	ids, sums []string // of uploads in the middle
	until     string   // a time there
	next      string   // the page after those
}

var nextLink = regexp.MustCompile(`<([^>]*)>; rel="next"`)

// sample takes uploads from the middle of the table.
func (f *filled) sample(ctx context.Context) (s *sample, err error) {
	db, err := f.openDatabase(ctx, "mode=ro")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var middle int64
	if err := db.QueryRowContext(ctx, "select (min(created_at) + max(created_at)) / 2 from uploads where name <> 'template'").Scan(&middle); err != nil {
		return nil, err
	}
	s = &sample{until: url.QueryEscape(time.UnixMicro(middle).UTC().Format(time.RFC3339Nano))}
	var list struct{ Uploads []struct{ ID, SHA256 string } }
	header, err := f.get(ctx, "/uploads?limit=50&until="+s.until, &list)
	if err != nil {
		return nil, err
	}
	for _, u := range list.Uploads {
		s.ids, s.sums = append(s.ids, u.ID), append(s.sums, u.SHA256)
	}
	link := nextLink.FindStringSubmatch(header.Get("Link"))
	if link == nil {
		return nil, errors.New("the list until the middle has no second page")
	}
	s.next = link[1]
	return s, nil
}

func (f *filled) get(ctx context.Context, path string, into any) (http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.api+path, nil)
	if err != nil {
		return nil, err
	}
	return doHeader(req, http.StatusOK, into)
}

// quiet waits until nothing is on its way any more.
func (f *filled) quiet(ctx context.Context) error {
	for {
		var list struct{ Uploads []upload }
		if _, err := f.get(ctx, "/uploads?limit=1&state=queued&state=delivering&state=waiting", &list); err != nil || len(list.Uploads) == 0 {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// post sends a file of that content.
func (f *filled) post(ctx context.Context, name, content, prefer string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, f.api+"/uploads?name="+name, strings.NewReader(content))
	if err != nil {
		return err
	}
	req.Header.Set("Prefer", prefer)
	var u upload
	if err := do(req, http.StatusCreated, &u); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// finishedRequests are what a table of finished uploads is asked for.
func finishedRequests(samples map[*filled]*sample) []request {
	asks := func(name, method string, path func(s *sample, i int) string) request {
		return request{name, func(f *filled, i int) (*http.Request, error) {
			return http.NewRequest(method, f.api+path(samples[f], i), nil)
		}, http.StatusOK}
	}
	list := func(name, query string) request {
		return asks("GET /uploads?"+name, http.MethodGet, func(*sample, int) string { return "/uploads?limit=50&" + query })
	}
	one := func(all []string, i int) string { return all[i%len(all)] }
	body := strings.Repeat("x", intakeSize)
	return []request{
		{"POST /uploads, 4 KiB", func(f *filled, i int) (*http.Request, error) {
			return http.NewRequest(http.MethodPost, fmt.Sprintf("%s/uploads?name=new-%d", f.api, i), strings.NewReader(body))
		}, http.StatusAccepted},
		{"the same again", func(f *filled, i int) (*http.Request, error) {
			return http.NewRequest(http.MethodPost, fmt.Sprintf("%s/uploads?name=new-%d", f.api, i), strings.NewReader(body))
		}, http.StatusOK},
		asks("GET /uploads/{id}", http.MethodGet, func(s *sample, i int) string { return "/uploads/" + one(s.ids, i) }),
		list("", ""),
		asks("its page in the middle, by the cursor", http.MethodGet, func(s *sample, _ int) string { return s.next }),
		list("state=delivered", "state=delivered"),
		list("state=failed, of which there is none", "state=failed"),
		list("destination=", "destination=default"),
		list("label=", "label=build%3D0"),
		list("label=, of which there is none", "label=build%3Dnone"),
		list("name=", "name=build-0%2F"),
		list("name=, of which there is none", "name=none"),
		asks("GET /uploads?until=", http.MethodGet, func(s *sample, _ int) string { return "/uploads?limit=50&until=" + s.until }),
		asks("GET /uploads?since=&until=&state=", http.MethodGet, func(s *sample, _ int) string {
			return "/uploads?limit=50&state=delivered&since=2020-01-01T00:00:00Z&until=" + s.until
		}),
		asks("HEAD /uploads?sha256=", http.MethodHead, func(s *sample, i int) string { return "/uploads?sha256=" + one(s.sums, i) }),
		list("sha256=, of which there is none", "sha256="+strings.Repeat("0", 64)),
	}
}
