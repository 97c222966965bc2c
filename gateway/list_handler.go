package gateway

import (
	"bufio"
	"encoding/base64"
	"encoding/csv"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"ferry/proto"
)

const (
	defaultPage = 100
	maxPage     = 500

	// countField tells without the list, as after HEAD, whether there is something in it.
	countField = "X-Ferry-Count"

	jsonType = "application/json"
	lineType = "application/x-ndjson"
	csvType  = "text/csv"
)

var cursorEncoding = base64.RawURLEncoding

// uploadList answers more than one upload.
type uploadList struct {
	Uploads []Upload `json:"uploads"`
}

// listUploads lists uploads.
//
//	@Summary		List uploads
//	@ID				listUploads
//	@Tags			uploads
//	@Produce		json
//	@Description	Newest first, those that are coming in included; with name, in the order of the names. Follow `Link` for more: nothing is missed and nothing comes twice, whatever comes in meanwhile. An upload is in the list if every filter lets it through.
//	@Description
//	@Description	With `Accept: application/x-ndjson` or `text/csv` and without limit, the answer has everything, however much it is.
//	@Param			state		query	[]string	false	"Uploads in this state; of several, in one of them"	collectionFormat(multi)	enums(receiving,queued,delivering,waiting,delivered,failed,cancelled)
//	@Param			name		query	string	false	"Uploads whose name begins so"	minLength(1)	maxLength(1024)	example(build-17/)
//	@Param			label		query	[]string	false	"Uploads with this label, key=value; of several, with all of them"	collectionFormat(multi)	maxItems(16)	example(build=17)
//	@Param			destination	query	string	false	"Uploads for the destination with this name or this URL, as an upload has them"
//	@Param			sha256		query	string	false	"Uploads with this SHA-256, in hexadecimal digits"	minLength(64)	maxLength(64)
//	@Param			since		query	string	false	"Uploads that began then or later, in the form of RFC 3339"	example(2026-03-14T00:00:00Z)
//	@Param			until		query	string	false	"Uploads that began earlier, in the form of RFC 3339"	example(2026-03-15T00:00:00Z)
//	@Param			limit		query	integer	false	"How many"	minimum(1)	maximum(500)	default(100)
//	@Param			cursor		query	string	false	"Where to go on, from a Link"
//	@Param			before		query	string	false	"Start after (older than) the upload with this id; not together with name"	example(01K62Q3V7N5CW0M8DJ4RXEBZ9T)
//	@Success		200	{object}	uploadList	"The uploads"
//	@Header			200	{string}	Link	"The next page, with rel=\"next\", if there are more"
//	@Header			200	{integer}	X-Ferry-Count	"How many uploads the answer has, where it is not everything"
//	@Header			200	{string}	Vary	"Accept"
//	@Failure		400	{object}	problem	"A parameter has a value that is not allowed, or there is none of its name"
//	@Router			/uploads [get]
func (a *httpAPI) listUploads(x *exchange, r *http.Request) error {
	q, err := query(r)
	if err != nil {
		return err
	}
	f, err := parseFilter(q)
	if err != nil {
		return err
	}
	limit, err := pageLimit(q)
	if err != nil {
		return err
	}
	x.Header().Set("Vary", "Accept")
	mediaType := preferred(r.Header.Values("Accept"))
	if mediaType != jsonType && !q.Has("limit") {
		return a.streamUploads(x, r, f, mediaType)
	}
	page, err := a.core.list(r.Context(), f, limit+1) // one more tells whether there are more
	if err != nil {
		return err
	}
	if len(page) > limit {
		page = page[:limit]
		next := url.Values{}
		for _, key := range []string{"state", "name", "label", "destination", "sha256", "since", "until"} {
			if q.Has(key) {
				next[key] = q[key]
			}
		}
		next.Set("limit", strconv.Itoa(limit))
		next.Set("cursor", f.positionOf(&page[limit-1]).encode())
		x.Header().Set("Link", fmt.Sprintf(`</uploads?%s>; rel="next"`, next.Encode()))
	}
	x.Header().Set(countField, strconv.Itoa(len(page)))
	if mediaType == jsonType {
		if page == nil {
			page = []Upload{}
		}
		x.json(http.StatusOK, jsonType, uploadList{page})
		return nil
	}
	return a.writeRows(x, r, mediaType, func(write func([]Upload) error) error { return write(page) })
}

// streamUploads answers everything that a filter lets through, a page at a time.
func (a *httpAPI) streamUploads(x *exchange, r *http.Request, f filter, mediaType string) error {
	// What cannot be read is a problem as long as nothing was answered.
	page, err := a.core.list(r.Context(), f, maxPage)
	if err != nil {
		return err
	}
	return a.writeRows(x, r, mediaType, func(write func([]Upload) error) error {
		for len(page) > 0 {
			if err := write(page); err != nil {
				return err
			}
			if len(page) < maxPage {
				return nil
			}
			f.after = f.positionOf(&page[len(page)-1])
			if page, err = a.core.list(r.Context(), f, maxPage); err != nil {
				return err
			}
		}
		return nil
	})
}

// writeRows answers with the rows that each hands to its function. If that goes
// wrong in the middle, the connection ends: half a list must not look like a
// whole one.
func (a *httpAPI) writeRows(x *exchange, r *http.Request, mediaType string, each func(write func([]Upload) error) error) error {
	h := x.Header()
	h.Set("Content-Type", mediaType)
	if mediaType == csvType {
		h.Set("Content-Type", csvType+"; charset=utf-8; header=present")
	}
	h.Set("Cache-Control", "no-store")
	x.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	buffer := bufio.NewWriterSize(x, 32<<10)
	write := lines(buffer)
	if mediaType == csvType {
		write = table(buffer)
	}
	err := write(nil)
	if err == nil {
		err = each(write)
	}
	if err == nil {
		err = buffer.Flush()
	}
	if err != nil {
		x.err = fmt.Errorf("write list: %w", err)
		panic(http.ErrAbortHandler)
	}
	return nil
}

// lines writes an upload a line.
func lines(w io.Writer) func([]Upload) error {
	return func(page []Upload) error {
		for _, u := range page {
			if _, err := w.Write(encodeJSON(u)); err != nil {
				return err
			}
		}
		return nil
	}
}

var csvColumns = []string{"id", "name", "size", "state", "sha256", "cksum", "destination", "attempts", "created_at", "updated_at", "delivered_at", "error", "last_error", "labels", "destination_name"}

// table writes RFC 4180, the names of the columns first.
func table(w io.Writer) func([]Upload) error {
	rows := csv.NewWriter(w)
	rows.UseCRLF = true
	begun := false
	return func(page []Upload) error {
		if !begun {
			begun = true
			if err := rows.Write(csvColumns); err != nil {
				return err
			}
		}
		for i := range page {
			if err := rows.Write(csvRow(&page[i])); err != nil {
				return err
			}
		}
		rows.Flush()
		return rows.Error()
	}
}

func csvRow(u *Upload) []string {
	at := func(t time.Time) string { return t.Format(time.RFC3339Nano) }
	row := []string{u.ID.String(), u.Name, "", string(u.State), "", "", u.Destination, strconv.Itoa(u.Attempts.Count),
		at(u.CreatedAt), at(u.UpdatedAt), "", "", "", encodeLabels(u.Labels), u.DestinationName}
	if u.Size != nil {
		row[2] = strconv.FormatInt(*u.Size, 10)
	}
	if u.SHA256 != nil {
		row[4] = *u.SHA256
	}
	if u.Cksum != nil {
		row[5] = strconv.FormatUint(uint64(*u.Cksum), 10)
	}
	if u.DeliveredAt != nil {
		row[10] = at(*u.DeliveredAt)
	}
	if u.Error != nil {
		row[11] = *u.Error
	}
	if u.Attempts.LastError != nil {
		row[12] = *u.Attempts.LastError
	}
	for i, cell := range row {
		row[i] = harmless(cell)
	}
	return row
}

// harmless keeps a spreadsheet from taking a cell for a formula.
// https://owasp.org/www-community/attacks/CSV_Injection
func harmless(cell string) string {
	for _, start := range []string{"=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"} {
		if strings.HasPrefix(cell, start) {
			return "'" + cell
		}
	}
	return cell
}

// preferred is the type of a list that Accept names with the greatest weight;
// JSON if it names none of them.
func preferred(accept []string) string {
	best, weight := jsonType, 0.0
	for _, field := range accept {
		for part := range strings.SplitSeq(field, ",") {
			mediaType, q, ok := weighted(part)
			switch mediaType {
			case "*/*", "application/*":
				mediaType = jsonType
			case "text/*":
				mediaType = csvType
			}
			if ok && q > weight && slices.Contains([]string{jsonType, lineType, csvType}, mediaType) {
				best, weight = mediaType, q
			}
		}
	}
	return best
}

func pageLimit(q url.Values) (int, error) {
	if !q.Has("limit") {
		return defaultPage, nil
	}
	limit, err := strconv.Atoi(q.Get("limit"))
	if err != nil || limit < 1 || limit > maxPage {
		return 0, refusal(kindParameter, "limit is %.40q; it is a whole number from 1 to %d.", q.Get("limit"), maxPage)
	}
	return limit, nil
}

// parseFilter reads a list's address.
func parseFilter(q url.Values) (f filter, err error) {
	if key := repeated(q, "name", "destination", "sha256", "since", "until", "limit", "cursor", "before"); key != "" {
		return filter{}, refusal(kindParameter, "%s is given more than once. Give it once.", key)
	}
	f.prefix, f.destination = q.Get("name"), q.Get("destination")
	switch {
	case q.Has("name") && (f.prefix == "" || len(f.prefix) > proto.MaxFileName || strings.ToValidUTF8(f.prefix, "") != f.prefix):
		return filter{}, refusal(kindParameter, "name is %.40q; it is how a name begins, 1 to %s bytes of UTF-8. Leave it out to list all.", f.prefix, grouped(proto.MaxFileName))
	case q.Has("destination") && f.destination == "":
		return filter{}, refusal(kindParameter, "destination is empty; it is the name or the URL of a destination. Leave it out to list all.")
	}
	for _, given := range q["state"] {
		if !slices.Contains(allStates, State(given)) {
			return filter{}, refusal(kindParameter, "state is %.40q; it is one of %s.", given, strings.Trim(fmt.Sprint(allStates), "[]"))
		}
		f.states = append(f.states, State(given))
	}
	if f.labels, err = parseLabels(q); err != nil {
		return filter{}, err
	}
	if q.Has("sha256") {
		if f.sha256, err = hex.DecodeString(q.Get("sha256")); err != nil || len(f.sha256) != 32 {
			return filter{}, refusal(kindParameter, "sha256 is %.80q; it has 64 hexadecimal digits.", q.Get("sha256"))
		}
	}
	for key, at := range map[string]*time.Time{"since": &f.since, "until": &f.until} {
		if !q.Has(key) {
			continue
		}
		if *at, err = time.Parse(time.RFC3339Nano, q.Get(key)); err != nil {
			return filter{}, refusal(kindParameter, "%s is %.40q; it is a time such as 2026-03-14T15:09:26Z, in which + is written as %%2B.", key, q.Get(key))
		}
		if at.IsZero() { // which would be none
			*at = at.Add(time.Nanosecond)
		}
	}
	return f, f.begin(q)
}

// begin reads where a list goes on.
func (f *filter) begin(q url.Values) error {
	if q.Has("cursor") {
		p, ok := parsePosition(q.Get("cursor"))
		if !ok || q.Has("before") || f.byName() != (p.name != "") || !strings.HasPrefix(p.name, f.prefix) {
			return refusal(kindParameter, "cursor is %.40q; it comes from the Link of the page before, with the same filters, and goes without before.", q.Get("cursor"))
		}
		f.after = p
	}
	if q.Has("before") {
		id, err := ulid.ParseStrict(q.Get("before"))
		if err != nil {
			return refusal(kindParameter, "before is %.40q; it is the id of an upload, such as the last one of the page before.", q.Get("before"))
		}
		if f.byName() {
			return refusal(kindParameter, "before goes without name, which orders a list by names. Follow the Link of the page before.")
		}
		f.after = position{id: id}
	}
	return nil
}

var allStates = []State{StateReceiving, StateQueued, StateDelivering, StateWaiting, StateDelivered, StateFailed, StateCancelled}
