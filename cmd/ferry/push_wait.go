package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

const (
	// waiters is how many deliveries are waited for at once. When more are on
	// their way, they take turns.
	waiters = 16
	// longPoll is how long the gateway is asked to hold an answer back while
	// nothing has changed, shortPoll when others wait for their turn.
	longPoll  = 30 * time.Second
	shortPoll = time.Second
	// pollEvery is the pace with a gateway that gives no ETags and so answers at
	// once, unless it says another one; leastPoll is that of uploads that change
	// all the time.
	pollEvery = time.Second
	leastPoll = 200 * time.Millisecond
)

// look asks how the delivery stands, once, and reports whether it is over.
func (f *pushed) look(ctx context.Context) (over bool) {
	wait := longPoll
	if len(f.queue) > 0 {
		wait = shortPoll
	}
	var u remoteUpload
	var pause time.Duration
	if why := f.persist(ctx, func() (err error) {
		u, pause, err = f.gateway.poll(ctx, f.o.ID, &f.etag, wait)
		if said, ok := errors.AsType[*gatewayError](err); ok && said.status == http.StatusNotFound && !said.other {
			return errForgotten
		}
		return err
	}); why != nil {
		f.interrupted(*why)
		return true
	}
	if u.ID == "" { // as before
		return f.rest(ctx, pause)
	}
	switch u.State {
	case remoteDelivered:
		f.delivered(ctx)
		return true
	case remoteFailed:
		f.fail(failure{exit: exitUndelivered, words: "the delivery failed: " + printable(u.Error)})
		return true
	case remoteCancelled:
		f.fail(failure{exit: exitUndelivered, words: "not delivered: somebody cancelled the upload"})
		return true
	}
	f.bar.delivering(u)
	return f.rest(ctx, pause)
}

// rest waits before the next look.
func (f *pushed) rest(ctx context.Context, pause time.Duration) (over bool) {
	if err := sleep(ctx, pause); err != nil {
		f.interrupted(explainGateway(err))
		return true
	}
	return false
}

// interrupted is for a file that the gateway has, and whose end was not seen.
func (f *pushed) interrupted(why failure) {
	if why.retry || why.exit == exitTimeout {
		f.fail(failure{exit: exitTimeout, words: "not delivered in time; the gateway has it and goes on: \"ferry watch " + f.o.ID + "\" waits for it"})
		return
	}
	f.fail(why)
}

// poll asks for an upload, and the gateway to hold its answer back until it is
// another than etag's, but not for longer than wait. The upload is the zero
// value if it is as before. pause is how long to wait before the next poll.
func (g *gatewayClient) poll(ctx context.Context, id string, etag *string, wait time.Duration) (u remoteUpload, pause time.Duration, err error) {
	c := call{
		method: http.MethodGet, path: uploadPath(id), limit: wait + answerLimit,
		query: url.Values{"wait": {strconv.Itoa(int(wait / time.Second))}}, header: http.Header{},
	}
	if *etag != "" {
		c.header.Set("If-None-Match", *etag)
	}
	u, a, err := g.upload(ctx, c)
	if err != nil {
		return remoteUpload{}, 0, err
	}
	if *etag = a.header.Get("ETag"); *etag != "" {
		return u, leastPoll, nil
	}
	return u, cmp.Or(retryAfter(a.header), pollEvery), nil
}

// delivered keeps the receipt of a file that the destination has.
func (f *pushed) delivered(ctx context.Context) {
	f.o.State, f.o.Exit = stateDelivered, exitOK
	if f.receipts == (receipts{}) {
		return
	}
	var envelope []byte
	why := f.persist(ctx, func() error {
		a, err := f.gateway.do(ctx, call{method: http.MethodGet, path: uploadPath(f.o.ID) + "/receipt"})
		envelope = a.body
		return err
	})
	var err error
	if why != nil {
		err = fmt.Errorf("%w: %s", errReceipt, why.words)
	} else {
		f.o.Receipt, err = f.receipts.keep(f.file.name, envelope, nil)
	}
	if err != nil {
		f.o.Exit, f.o.Error = exitFailure, "it is delivered, and "+err.Error()
	}
}
