package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"ferry/internal/sqldb"
)

// problem is an answer that is not the one hoped for, as RFC 9457 has it.
type problem struct {
	// Names the kind of problem; it stays the same and can be tested for.
	Type string `json:"type" format:"uri-reference" example:"/problems/too-large"`
	// What kind of problem it is, in a few words.
	Title string `json:"title" example:"The file is too large"`
	// The answer's status code.
	Status int `json:"status" minimum:"400" maximum:"599" example:"413"`
	// What happened, what is kept, and what to do.
	Detail string `json:"detail" example:"The file has 600,000,000 bytes; at most 517,857,567 are taken in one file. Nothing was kept. Send it in parts."`
	// Whether the same request may succeed a little later with nothing changed.
	Retryable bool `json:"retryable"`
	// Names this request in the gateway's log, as X-Request-Id does.
	RequestID string `json:"request_id" example:"4TQ7LJ2XRVNSX6KDKQZPHGZB3M"`
	// Where the upload is that the problem is about, if it is kept.
	Upload string `json:"upload,omitempty" format:"uri-reference" example:"/uploads/01KKPXQ7M7C1WB0K8VQ0N4Y6TJ"`
	// The SHA-256 of what was sent, and of what has its name, where they differ.
	SHA256         string `json:"sha256,omitempty"`
	ExistingSHA256 string `json:"existing_sha256,omitempty"`
	// The file's size in bytes, where that is the problem and known.
	Size int64 `json:"size,omitempty" example:"600000000"`
	// The limit that was passed, in bytes or pieces, where there is one.
	Limit int64 `json:"limit,omitempty" example:"517857567"`
}

const problemType = "application/problem+json"

// A problemKind has a name that is part of the API.
type problemKind struct {
	name   string
	status int
	title  string
}

var (
	kindParameter   = problemKind{"parameter", http.StatusBadRequest, "A parameter has a value that is not allowed"}
	kindName        = problemKind{"name", http.StatusBadRequest, "The file needs a name that can be stored"}
	kindDestination = problemKind{"destination", http.StatusBadRequest, "There is no such destination"}
	kindLabel       = problemKind{"label", http.StatusBadRequest, "A label is not as labels are"}
	kindDigest      = problemKind{"digest", http.StatusBadRequest, "A digest cannot be read"}
	kindMismatch    = problemKind{"mismatch", http.StatusBadRequest, "What came is not what its digest is of"}
	kindBody        = problemKind{"body", http.StatusBadRequest, "The body cannot be read"}
	kindForm        = problemKind{"form", http.StatusBadRequest, "The form cannot be read"}
	kindKey         = problemKind{"idempotency-key", http.StatusBadRequest, "The Idempotency-Key cannot be read"}
	kindKeyRunning  = problemKind{"idempotency-key-running", http.StatusConflict, "The request is being answered"}
	kindKeyReused   = problemKind{"idempotency-key-reused", http.StatusUnprocessableEntity, "The Idempotency-Key is another request's"}
	kindNoFile      = problemKind{"no-file", http.StatusBadRequest, "The form has no file"}
	kindIncomplete  = problemKind{"incomplete", http.StatusBadRequest, "The request's body did not arrive whole"}
	kindOrigin      = problemKind{"origin", http.StatusForbidden, "Other sites must not use this gateway"}
	kindNotFound    = problemKind{"not-found", http.StatusNotFound, "There is nothing at this address"}
	kindNoReceipt   = problemKind{"no-receipt", http.StatusNotFound, "The upload has no receipt"}
	kindMethod      = problemKind{"method", http.StatusMethodNotAllowed, "The method is not possible at this address"}
	kindSlow        = problemKind{"slow", http.StatusRequestTimeout, "The request's body came too slowly"}
	kindState       = problemKind{"state", http.StatusConflict, "Not possible as the upload stands"}
	kindCancelled   = problemKind{"cancelled", http.StatusConflict, "The upload was cancelled"}
	kindConflict    = problemKind{"conflict", http.StatusConflict, "Another file has the name"}
	kindLength      = problemKind{"length", http.StatusLengthRequired, "The request does not say how long its body is"}
	kindTooLarge    = problemKind{"too-large", http.StatusRequestEntityTooLarge, "The file is too large"}
	kindTooMany     = problemKind{"too-many", http.StatusRequestEntityTooLarge, "The form has too much in it"}
	kindEncoding    = problemKind{"encoding", http.StatusUnsupportedMediaType, "The body is in a form that is not taken"}
	kindHost        = problemKind{"host", http.StatusMisdirectedRequest, "The gateway does not answer under this name"}
	kindUndelivered = problemKind{"undelivered", http.StatusFailedDependency, "The file was kept and cannot be delivered"}
	kindHeader      = problemKind{"header", http.StatusRequestHeaderFieldsTooLarge, "The request's header is too large"}
	kindInternal    = problemKind{"internal", http.StatusInternalServerError, "Internal error"}
	kindBusy        = problemKind{"busy", http.StatusServiceUnavailable, "The gateway is busy"}
	kindStopping    = problemKind{"stopping", http.StatusServiceUnavailable, "The gateway is being stopped"}
	kindNotReady    = problemKind{"not-ready", http.StatusServiceUnavailable, "The gateway cannot take uploads"}
	kindFull        = problemKind{"full", http.StatusInsufficientStorage, "The gateway has no room left"}
)

// A refusalError is an error that whoever asked is told as it is.
type refusalError struct {
	problemKind
	detail      string
	size, limit int64
	upload      string // its address
	sha256      string // of what was sent
	existing    string // of what is there
	retryAfter  int    // seconds
	err         error  // for the log
}

func (f *refusalError) Error() string { return f.title + ": " + f.detail }

func (f *refusalError) Unwrap() error { return f.err }

func refusal(k problemKind, format string, args ...any) *refusalError {
	return &refusalError{problemKind: k, detail: fmt.Sprintf(format, args...)}
}

// tooLargeRefusal says so with numbers; size is negative if it is not known.
func tooLargeRefusal(size, limit int64) *refusalError {
	f := &refusalError{problemKind: kindTooLarge, limit: limit}
	has := "The file has more bytes than are taken, " + grouped(limit) + " in one file."
	if size >= 0 {
		f.size = size
		has = fmt.Sprintf("The file has %s bytes; at most %s are taken in one file.", grouped(size), grouped(limit))
	}
	f.detail = has + " Nothing of this request was kept. Send it in parts."
	return f
}

// fullRefusal says so with numbers.
func fullRefusal(e *fullError) *refusalError {
	f := refusal(kindFull, "The file has %s bytes, and there is room for %s: what other uploads have declared is kept for them. Nothing of this request was kept; uploads accepted before are safe and go on. Try again when some have been delivered, or make room on the gateway's disk.",
		grouped(e.needs), grouped(e.has))
	f.size, f.limit = e.needs, e.has
	return f
}

// grouped writes a number as people read it: 517,857,567.
func grouped(n int64) string {
	digits := strconv.FormatInt(n, 10)
	var b strings.Builder
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return b.String()
}

// explain makes of an error what whoever asked may know of it.
func (a *httpAPI) explain(r *http.Request, err error) *refusalError {
	if f, ok := errors.AsType[*refusalError](err); ok {
		return f
	}
	if f, ok := errors.AsType[*refusalError](context.Cause(r.Context())); ok {
		return f // it was ended, whatever came of that
	}
	f := a.known(r, err)
	f.err = err
	return f
}

func (a *httpAPI) known(r *http.Request, err error) *refusalError {
	switch {
	case errors.Is(err, errNotFound):
		return refusal(kindNotFound, "There is no such upload. It may have been forgotten; GET /uploads lists those that there are.")
	case errors.Is(err, errNoDestination):
		return refusal(kindNotFound, "There is no such destination. GET /destinations lists those that there are.")
	case errors.Is(err, errDelivering):
		return refusal(kindState, "The upload is being delivered, and what is under way cannot be held. Nothing was changed. Cancel it, and retry it later: what the destination has durably is not sent again.")
	case errors.Is(err, errState):
		return refusal(kindState, "An upload can be tried again if it failed, was cancelled, waits, is held or is queued for a destination that cannot be reached, while its bytes are kept; it can be held and released while it is queued or waits. Nothing was changed. GET it to see how it stands; send the file again if it has to be delivered once more.")
	case errors.Is(err, errChanged):
		return refusal(kindPrecondition, "The upload has changed since it had the ETag that If-Match names. Nothing was changed. GET it to see how it stands.")
	case errors.Is(err, errWaiting):
		return &refusalError{problemKind: kindBusy, retryAfter: 1, limit: maxWaiting, detail: "As many requests wait for uploads as may. Nothing was changed. Try again in a moment, or ask without waiting."}
	case errors.Is(err, errSpoolFull):
		if full, ok := errors.AsType[*fullError](err); ok && full.needs > 0 {
			return fullRefusal(full)
		}
		return refusal(kindFull, "No room is left to keep what comes in. Nothing of this request was kept; uploads accepted before are safe and go on. Try again when some have been delivered, or make room on the gateway's disk.")
	case sqldb.IsFull(err):
		return refusal(kindFull, "No room is left on the gateway's disk, not even to record this. Nothing was changed; uploads accepted before are safe. Make room there, and try again.")
	case errors.Is(err, errInterrupted):
		return refusal(kindCancelled, "Somebody cancelled it while its bytes came in. Nothing of this request was kept. Send it again if that was a mistake.")
	case errors.Is(err, errTooManyFiles):
		return &refusalError{problemKind: kindTooMany, limit: maxFiles, detail: fmt.Sprintf("A form may have %s files at most. Nothing of this request was kept. Send the files in several requests.", grouped(maxFiles))}
	case errors.Is(err, errGivenBack):
		return refusal(kindStopping, "It had no time left to take the whole request. Nothing of this request was kept. Send it again when the gateway runs.")
	}
	return a.transport(r, err)
}

// transport judges errors that come of how the request was sent, and the rest.
func (a *httpAPI) transport(r *http.Request, err error) *refusalError {
	broken, fromBody := errors.AsType[*bodyError](err)
	switch {
	case fromBody && errors.Is(broken, os.ErrDeadlineExceeded):
		return refusal(kindSlow, "For %v, less came than %s bytes a second. Nothing of this request was kept. Send it again over a better connection.", a.stall, grouped(a.rate))
	case fromBody, errors.Is(err, errLength), errors.Is(err, io.ErrUnexpectedEOF), r.Context().Err() != nil && errors.Is(err, context.Canceled):
		return refusal(kindIncomplete, "It ended before it was complete, or breaks the rules of HTTP. Nothing of this request was kept. Send it again.")
	}
	return refusal(kindInternal, "The gateway met an error that it did not expect: its log has it, under the request_id. What was answered with success before is kept; whether this request was done is not known. Try it again.")
}

// fail answers with an error. The connection is closed if the body was not read
// to its end, or cut: then its sender can stop.
func (a *httpAPI) fail(x *exchange, r *http.Request, err error) {
	f := a.explain(r, err)
	x.err = err
	h := x.Header()
	for _, k := range []string{"Location", "Link", "ETag", "Last-Modified", "Content-Length", "Content-Disposition", "Vary", countField} {
		h.Del(k)
	}
	if x.body.wasInterrupted() {
		h.Set("Connection", "close")
	}
	if !x.body.ended {
		h.Set("Connection", "close")
		x.body.leave(a.leave, r.Header.Get("Expect") != "")
	}
	if c := challenge(f); c != "" {
		h.Set("WWW-Authenticate", c)
	}
	if f.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(f.retryAfter))
	}
	x.json(f.status, problemType, a.problemOf(x, f))
}

// problemOf is a refusal as it is answered.
func (a *httpAPI) problemOf(x *exchange, f *refusalError) problem {
	return problem{
		Type: a.front.address(problemsPath + f.name), Title: f.title, Status: f.status, Detail: f.detail,
		Retryable: f.retryable(), RequestID: x.id, Upload: a.front.address(f.upload), SHA256: f.sha256, ExistingSHA256: f.existing, Size: f.size, Limit: f.limit,
	}
}

// json writes an answer.
func (x *exchange) json(status int, mediaType string, value any) {
	h := x.Header()
	h.Set("Content-Type", mediaType)
	h.Set("Cache-Control", "no-store")
	b := encodeJSON(value)
	h.Set("Content-Length", strconv.Itoa(len(b))) // HEAD has it of a long answer, too
	x.WriteHeader(status)
	x.write(b)
}

func encodeJSON(value any) []byte {
	switch u := value.(type) {
	case Upload:
		return append(u.appendJSON(make([]byte, 0, 1<<10)), '\n')
	case *Upload:
		return append(u.appendJSON(make([]byte, 0, 1<<10)), '\n')
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		panic("internal error: " + err.Error()) // nothing here can fail to be JSON
	}
	return b.Bytes()
}

// write sends an answer's body. Whoever asked may be gone: there is nobody to
// tell but the log.
func (x *exchange) write(body []byte) {
	if _, err := x.Write(body); err != nil && x.err == nil {
		x.err = fmt.Errorf("write answer: %w", err)
	}
}
