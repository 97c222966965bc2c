package gateway

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"ferry/internal/identity"
	"ferry/proto"
)

const (
	firstDelay = time.Second
	maxDelay   = 5 * time.Minute
	// operatorDelay is for what changes only when somebody changes it.
	operatorDelay = time.Minute
	// maxAfter bounds how long a destination can have a gateway wait: it may know
	// better in an hour.
	maxAfter = time.Hour
	// maxWords bounds an error's text in the database.
	maxWords = 500
)

// An attempt is what the outcome of a delivery depends on beside its error.
type attempt struct {
	name      string
	failures  int  // in a row, before this attempt
	matched   bool // the destination may have been told that all is well: it may hold the file
	cancelled bool // somebody asked for that
}

// outcome is how an attempt ended.
type outcome struct {
	kind      kind
	failure   string        // in words: why it cannot succeed, if it failed
	lastError string        // in words: what went wrong, if anything did
	delay     time.Duration // until the next attempt
	failures  int           // in a row
	network   bool          // nothing but the network was at fault
	theirs    bool          // the destination, or the way to it, was at fault
	notStored bool          // the destination said that it did not keep what had been sent
}

type kind int

const (
	delivered kind = iota
	failed
	cancelled
	postponed
	givenBack
	exists // delivered or failed: what is known of the name at the destination decides
	lost   // somebody else has the job
)

func (o outcome) final() bool {
	return o.kind == delivered || o.kind == failed || o.kind == cancelled
}

// answered reports whether the destination has had something to say: then it can be
// reached.
func (o outcome) answered(err error) bool {
	_, told := errors.AsType[*proto.RefusedError](err)
	return o.kind == delivered || o.kind == exists || told || o.theirs && !o.network
}

func (o outcome) state() State {
	switch o.kind {
	case delivered:
		return StateDelivered
	case failed:
		return StateFailed
	case cancelled:
		return StateCancelled
	case postponed:
		return StateWaiting
	case givenBack, exists, lost:
	}
	return StateQueued
}

// judge decides what follows from the end of an attempt. jitter is in [0, 1).
func judge(a attempt, err error, jitter float64) outcome {
	switch {
	case err == nil:
		return outcome{kind: delivered}
	case errors.Is(err, errLeaseLost):
		return outcome{kind: lost}
	case errors.Is(err, proto.ErrExists):
		return outcome{kind: exists}
	}
	o := outcome{lastError: words(a, err), notStored: a.matched && proto.NotStored(err)}
	switch {
	case a.cancelled || errors.Is(err, errCancelled):
		o.kind, o.lastError = cancelled, ""
		if a.matched && !o.notStored {
			o.lastError = mayBeStored
		}
	case errors.Is(err, errGivenBack):
		o.kind, o.failures, o.lastError = givenBack, a.failures, ""
	case proto.Permanent(err):
		o.kind, o.failure = failed, o.lastError
	default:
		o.kind, o.failures, o.network = postponed, a.failures+1, isNetwork(err)
		o.theirs = !isOurs(err) && !errors.Is(err, errInternal)
		o.delay = max(backOff(o.failures, jitter), leastDelay(err))
	}
	return o
}

// isAny reports whether err is one of these.
func isAny(err error, these ...error) bool {
	return slices.ContainsFunc(these, func(e error) bool { return errors.Is(err, e) })
}

// leastDelay is what the destination, or the kind of error, wants waited for.
func leastDelay(err error) (d time.Duration) {
	if after, ok := proto.RetryAfter(err); ok {
		d = min(after, maxAfter)
	}
	if isAny(err, proto.ErrNameTaken, proto.ErrUnauthorized, proto.ErrRevoked, proto.ErrPin, identity.ErrUnusable) {
		d = max(d, operatorDelay)
	}
	return d
}

// existing decides what it means that the destination has a file of the name.
func existing(a attempt, f storedFile, known bool, sum [32]byte) outcome {
	switch {
	case known && f.sha256 == sum:
		return outcome{kind: delivered}
	case a.cancelled:
		return outcome{kind: cancelled}
	}
	why := fmt.Sprintf("the destination has a file named %q already, and it is not known here what is in it. "+
		"Nothing was replaced: send this one under another name", a.name)
	if known {
		why = fmt.Sprintf("the destination has another file named %q already: its SHA-256 is %s, this one's is %s. "+
			"Nothing was replaced: send this one under another name", a.name, hex.EncodeToString(f.sha256[:]), hex.EncodeToString(sum[:]))
	}
	return outcome{kind: failed, failure: why, lastError: why}
}

// backOff is how long to wait after so many failures in a row: a second, then
// twice as long each time, up to five minutes; a fifth more or less, so that
// what failed together does not come back together. It never gives up: what
// may succeed is tried until it does or somebody cancels it.
func backOff(failures int, jitter float64) time.Duration {
	d := maxDelay
	if n := failures - 1; n < 16 { // far beyond the doubling that matters
		d = min(firstDelay<<max(n, 0), maxDelay)
	}
	return time.Duration((0.8 + 0.4*jitter) * float64(d))
}

// isNetwork reports whether err is none that the destination, or this gateway,
// decided on. A destination that is shutting down is about to be out of reach.
func isNetwork(err error) bool {
	return errors.Is(err, proto.ErrStopping) || !isOurs(err) &&
		!isAny(err, proto.ErrRefused, proto.ErrNameTaken, proto.ErrUnknownClient, proto.ErrUnauthorized, proto.ErrRevoked,
			proto.ErrPin, proto.ErrChecksum, proto.ErrProtocol, identity.ErrUnusable)
}

// isOurs reports whether err is about this machine's files: its text may have
// a path in it that is nobody's business.
func isOurs(err error) bool {
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		return true
	}
	_, ok := errors.AsType[*os.LinkError](err)
	return ok
}

// words says for people who may see no more than the upload what went wrong
// and what to do.
func words(a attempt, err error) string {
	s := reason(err)
	if a.matched && !proto.NotStored(err) {
		s += ". All had been sent before that, so the destination may hold the file; the next attempt finds out"
	}
	return s
}

func reason(err error) string {
	switch {
	case errors.Is(err, proto.ErrSource):
		return "the bytes kept here could not be read, or are not those that came in any more: send the file again"
	case errors.Is(err, proto.ErrTooLarge):
		return "the file is larger than the destination takes" + said(err) + ": split it"
	case errors.Is(err, proto.ErrName):
		return "the destination cannot take a file of that name" + said(err) + ": send it under another one"
	case errors.Is(err, proto.ErrChecksum):
		return "the destination's checksum differed from ours each time the file was sent"
	}
	if s := operatorReason(err); s != "" {
		return s
	}
	if errors.Is(err, proto.ErrRefused) {
		return refusalReason(err)
	}
	if isOurs(err) {
		return "the gateway could not use its own files: see its log"
	}
	return told(err)
}

// operatorReason is for what somebody has to do something about, "" for what
// may pass by itself.
func operatorReason(err error) string {
	switch {
	case errors.Is(err, proto.ErrNameTaken):
		return "another client is registered at the destination under this gateway's name: " +
			"its operator has to give the gateway another name, or its old identity back, or a join token for that name"
	case errors.Is(err, proto.ErrRevoked):
		return "the destination's operator has revoked this gateway, and alone can take that back"
	case errors.Is(err, proto.ErrUnauthorized):
		s := "the destination does not let this gateway in: " + told(err)
		if !strings.Contains(s, "--join") { // or it says so itself
			s += ". If its key there is another one by now, a join token lets it in again: ferry server token create there, --join here"
		}
		return s
	case errors.Is(err, proto.ErrPin), errors.Is(err, identity.ErrUnusable):
		return told(err)
	}
	return ""
}

// refusalReason is for what the destination did not want.
func refusalReason(err error) string {
	var s string
	switch {
	case errors.Is(err, proto.ErrQuota):
		s = "the destination keeps no more for this gateway until there is room in its quota"
	case errors.Is(err, proto.ErrNoRoom):
		s = "the destination's disk is full: its operator has to make room"
	case errors.Is(err, proto.ErrBusy):
		s = "the destination has too much to do just now"
	case errors.Is(err, proto.ErrStopping):
		s = "the destination is shutting down"
	case said(err) != "":
		s = "the destination refused"
	default:
		return "the destination refused, without a reason: it may be out of room"
	}
	return s + said(err)
}

// said is what the destination said of its refusal, in brackets; "" if nothing.
func said(err error) string {
	if e, ok := errors.AsType[*proto.RefusedError](err); ok && e.Words != "" {
		return " (" + clip(e.Words) + ")"
	}
	return ""
}

// told is an error's text without the file and the destination before it:
// whoever reads it sees both beside it.
func told(err error) string {
	if inner := errors.Unwrap(err); inner != nil && strings.HasPrefix(err.Error(), "send ") {
		err = inner
	}
	return clip(err.Error())
}

// clip bounds a text that others have a part in.
func clip(s string) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) <= maxWords {
		return s
	}
	s = s[:maxWords]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s + " ..."
}
