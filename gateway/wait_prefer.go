package gateway

import (
	"errors"
	"iter"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// acceptedAgain is after how many seconds it makes sense to ask how an upload
// stands that was just queued.
const acceptedAgain = "1"

// preferredWait is how long a request wants to wait for the delivery, as RFC
// 7240 has it: Prefer: wait=10. A longer time than is possible is the longest
// that is; what cannot be read is not preferred.
func preferredWait(r *http.Request) (seconds int, ok bool) {
	for _, field := range r.Header.Values("Prefer") {
		for preference := range unquoted(field, ',') {
			for word := range unquoted(preference, ';') { // the rest are its parameters
				preference = word
				break
			}
			name, value, _ := strings.Cut(preference, "=")
			if !strings.EqualFold(strings.TrimSpace(name), "wait") {
				continue
			}
			// The first of several counts.
			n, err := strconv.ParseUint(strings.Trim(strings.TrimSpace(value), `"`), 10, 63)
			if err != nil && !errors.Is(err, strconv.ErrRange) {
				return 0, false
			}
			return int(min(n, uint64(maxWait/time.Second))), true
		}
	}
	return 0, false
}

// unquoted are the parts of a header field that a separator is between, but for those
// separators that stand in a quoted string of RFC 9110, section 5.6.4.
func unquoted(field string, separator byte) iter.Seq[string] {
	return func(yield func(string) bool) {
		begin, quoted := 0, false
		for i := 0; i < len(field); i++ {
			switch c := field[i]; {
			case c == '"':
				quoted = !quoted
			case quoted && c == '\\':
				i++
			case !quoted && c == separator:
				if !yield(field[begin:i]) {
					return
				}
				begin = i + 1
			}
		}
		yield(field[begin:])
	}
}

// answerKept answers a request whose files are durable, and waits for their
// delivery if that is preferred. list tells whether the answer is a list.
func (a *httpAPI) answerKept(x *exchange, r *http.Request, kept []Upload, list bool) error {
	if _, ok := preferredWait(r); ok {
		return a.answerSettled(x, r, kept, list)
	}
	x.answerKept(false, kept, list)
	return nil
}

// answerSettled is answerKept for a request that wants to know what became of its files,
// without waiting if it does not prefer to.
func (a *httpAPI) answerSettled(x *exchange, r *http.Request, kept []Upload, list bool) error {
	seconds, preferred := preferredWait(r)
	// What the body's sender had of patience is of the body alone.
	_ = x.control.SetReadDeadline(time.Time{})
	waited, all, err := a.settled(r, kept, time.Duration(seconds)*time.Second)
	status := http.StatusCreated
	if err != nil {
		status = a.explain(r, err).status
	}
	if k := keyedOf(r.Context()); k != nil && (err != nil || all && !x.again) {
		err = errors.Join(err, a.core.settled(r.Context(), k, status, kept))
	}
	if err != nil {
		return err
	}
	if waited && preferred {
		x.Header().Set("Preference-Applied", "wait="+strconv.Itoa(seconds))
	}
	x.answerKept(all, kept, list)
	return nil
}

// answerKept answers that files are kept, and whether all of them are delivered.
func (x *exchange) answerKept(delivered bool, kept []Upload, list bool) {
	status := http.StatusAccepted
	switch {
	case x.again:
		status = http.StatusOK
	case delivered:
		status = http.StatusCreated
	}
	h := x.Header()
	h["Location"] = []string{kept[0].address()}
	if status == http.StatusAccepted {
		h["Retry-After"] = soonAgain
	}
	if list {
		x.represent(status, uploadList{kept}, nil)
		return
	}
	x.represent(status, &kept[0], kept[0].SHA256)
}

// settled brings kept up to date as its uploads become final, within a time. all
// tells whether all are delivered; the error says which is not, and never will
// be. waited is false if nobody could wait: they are durable all the same.
func (a *httpAPI) settled(r *http.Request, kept []Upload, most time.Duration) (waited, all bool, err error) {
	end := time.Now().Add(most)
	all = true
	for i := range kept {
		u, err := a.core.await(r.Context(), kept[i].ID, max(time.Until(end), 0), func(u Upload) bool { return u.isFinal() })
		switch {
		case errors.Is(err, errNotFound):
			again := ""
			if keyedOf(r.Context()) != nil {
				again = " with another Idempotency-Key"
			}
			return true, false, refusal(kindNotFound, "The upload %s was kept, and somebody has cancelled or forgotten it since. Send the file again%s if that was a mistake.", kept[i].ID, again)
		case err != nil: // too many wait, or whoever asked is gone
			return i > 0, false, nil //nolint:nilerr // it is kept, and that is the answer
		}
		kept[i] = u
		if err := notDelivered(u); err != nil {
			return true, false, err
		}
		all = all && u.State == StateDelivered
	}
	return true, all, nil
}

// notDelivered says why an upload will not be delivered, nil if it was or may be.
func notDelivered(u Upload) error {
	var f *refusalError
	switch u.State {
	case StateFailed:
		f = refusal(kindUndelivered, "%s. The upload %s is kept as failed.", strings.TrimSuffix(*u.Error, "."), u.ID)
	case StateCancelled:
		f = refusal(kindCancelled, "Somebody cancelled the upload %s before it was delivered. Its bytes are kept until it is forgotten: POST %s/retry delivers it after all.", u.ID, u.address())
	case StateReceiving, StateQueued, StateDelivering, StateWaiting, StateDelivered:
		return nil
	}
	f.upload = u.address()
	return f
}
