package proto

import (
	"errors"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"ferry/proto/v4"
)

// reasons are what a client may be told, in the order in which an error is asked
// whether it is one, and when it may come again unless the error says so. Zero
// is: when somebody has changed something.
var reasons = []struct {
	err    error
	reason v4.Reason
	after  time.Duration
}{
	{ErrName, v4.ReasonName, 0},
	{ErrTooLarge, v4.ReasonTooLarge, 0},
	{ErrRevoked, v4.ReasonRevoked, 0},
	{ErrUnauthorized, v4.ReasonUnauthorized, 0},
	{ErrStopping, v4.ReasonStopping, 2 * time.Second},
	{ErrQuota, v4.ReasonQuota, time.Minute},
	{ErrNoRoom, v4.ReasonNoRoom, 30 * time.Second},
	{ErrBusy, v4.ReasonBusy, time.Second},
	{ErrProtocol, v4.ReasonViolation, 0},
}

// whyV4 is the error that a reason stands for, or nil.
func whyV4(reason v4.Reason) error {
	for _, r := range reasons {
		if r.reason == reason {
			return r.err
		}
	}
	return nil
}

// internalAfter is when to come again if something is wrong with the server.
const internalAfter = 5 * time.Second

// refusedV4 is what a client is told of an error: which one of this package's it
// is, and no text but that of a [RefusedError], or of a violation.
func refusedV4(err error) v4.Refused {
	m := v4.Refused{Reason: v4.ReasonInternal}
	after, said := internalAfter, ""
	for _, r := range reasons {
		if errors.Is(err, r.err) {
			m.Reason, after, said = r.reason, r.after, r.err.Error()+": "
			break
		}
	}
	if e, ok := errors.AsType[*ExistsError](err); ok {
		m.Reason, after = v4.ReasonExists, 0
		m.Exists = differsV4(e.Sum)
	}
	switch e, ok := errors.AsType[*RefusedError](err); {
	case ok:
		m.Words = e.Words
		if _, behind, twice := strings.Cut(e.Words, said); twice && said != "" { // the reason says so already
			m.Words = behind
		}
		if e.After > 0 {
			after = e.After
		}
	case m.Reason == v4.ReasonViolation:
		m.Words = err.Error()
	}
	m.After = uint32(min(after.Milliseconds(), math.MaxUint32)) //nolint:gosec // not negative
	m.Words = cutWords(m.Words)
	return m
}

// cutWords cuts between two characters what is too long.
func cutWords(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= v4.MaxWords {
		return s
	}
	n := v4.MaxWords
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// endsSession reports whether a client that is told of err knows that the session
// has ended.
func endsSession(err error) bool {
	switch refusedV4(err).Reason {
	case v4.ReasonViolation, v4.ReasonUnauthorized, v4.ReasonRevoked, v4.ReasonStopping:
		return true
	}
	return false
}

func differsV4(sum Sum) v4.Differs {
	return v4.Differs{Size: sum.Size, Sum: v4.Sum{Cksum: sum.Cksum, SHA256: sum.SHA256}}
}
