package gateway

import (
	"database/sql"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

const (
	modeField  = "X-Ferry-Mode"
	mtimeField = "X-Ferry-Mtime"
)

// attributes are what a file was where it came from; zero values mean that
// nobody said.
type attributes struct {
	mode    fs.FileMode // permission bits
	modTime time.Time
}

// requestAttributes reads what the address or the header says of the request's
// files; the address goes before the header.
//
// Last-Modified in a request is representation metadata as RFC 9110, section
// 8.8.2, has it of an answer: programs that copy files between servers pass it
// on. It has whole seconds, so that X-Ferry-Mtime goes before it.
func requestAttributes(q url.Values, h http.Header) (at attributes, err error) {
	twice := repeated(q, "mode", "mtime")
	if twice == "" {
		twice = repeated(url.Values(h), modeField, mtimeField)
	}
	if twice != "" {
		return attributes{}, refusal(kindParameter, "%s is given more than once. Nothing was kept. Give it once.", twice)
	}
	mode := h.Get(modeField)
	if q.Has("mode") {
		mode = q.Get("mode")
	}
	if mode != "" || q.Has("mode") {
		if at.mode, err = parseMode(mode); err != nil {
			return attributes{}, err
		}
	}
	mtime := h.Get(mtimeField)
	if q.Has("mtime") {
		mtime = q.Get("mtime")
	}
	switch changed := h.Get("Last-Modified"); {
	case mtime != "" || q.Has("mtime"):
		at.modTime, err = parseMtime(mtime)
	case changed != "":
		if at.modTime, err = http.ParseTime(changed); err != nil || !canKeep(at.modTime) {
			err = refusal(kindParameter, "Last-Modified is %.60q; it is a time of the years %d to %d as in Sat, 14 Mar 2026 15:09:26 GMT. Nothing was kept.", changed, firstYear, lastYear)
		}
	}
	return at, err
}

// parseMode takes what chmod takes in digits: 644, 0644.
func parseMode(given string) (fs.FileMode, error) {
	mode, err := strconv.ParseUint(given, 8, 32)
	if err != nil || mode == 0 || mode > uint64(fs.ModePerm) {
		return 0, refusal(kindParameter, "The file's mode is %.40q; it is an octal number from 0001 to 0777, such as 0644. Nothing of this request was kept.", given)
	}
	return fs.FileMode(mode), nil
}

// The years whose nanoseconds since 1970 an int64 holds from end to end.
const firstYear, lastYear = 1678, 2261

func canKeep(t time.Time) bool { return t.UTC().Year() >= firstYear && t.UTC().Year() <= lastYear }

func parseMtime(given string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, given)
	if err != nil || !canKeep(t) {
		return time.Time{}, refusal(kindParameter, "The time at which the file was changed is %.60q; it is a time of the years %d to %d as RFC 3339 writes it, such as 2026-03-14T15:09:26Z. Nothing of this request was kept.",
			given, firstYear, lastYear)
	}
	return t.UTC(), nil
}

// row is how the database has them.
func (at attributes) row() (mode, modified sql.Null[int64]) {
	if at.mode != 0 {
		mode = sql.Null[int64]{V: int64(at.mode), Valid: true}
	}
	if !at.modTime.IsZero() {
		modified = sql.Null[int64]{V: at.modTime.UnixNano(), Valid: true}
	}
	return mode, modified
}

func attributesOf(mode, modified sql.Null[int64]) attributes {
	var at attributes
	if mode.Valid {
		at.mode = fs.FileMode(mode.V).Perm()
	}
	if modified.Valid {
		at.modTime = time.Unix(0, modified.V).UTC()
	}
	return at
}

// show adds them to an upload.
func (at attributes) show(u *Upload) {
	if at.mode != 0 {
		u.Mode = new(fmt.Sprintf("%04o", at.mode))
	}
	if !at.modTime.IsZero() {
		u.ModifiedAt = new(at.modTime)
	}
}
