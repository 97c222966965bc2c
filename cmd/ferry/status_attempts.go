package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// remoteAttempts are what the client reads of an upload's attempts.
type remoteAttempts struct {
	Count    int             `json:"count"`
	Attempts []remoteAttempt `json:"attempts"`

	raw json.RawMessage // the list as the gateway has it
}

type remoteAttempt struct {
	Number      int       `json:"number"`
	BeganAt     time.Time `json:"began_at"`
	EndedAt     time.Time `json:"ended_at"`
	Outcome     string    `json:"outcome"`
	Error       string    `json:"error"`
	Bytes       *int64    `json:"bytes"`
	ResumedFrom *int64    `json:"resumed_from"`
}

// attempts returns how the delivery of an upload was tried. A gateway that does not
// keep that has none.
func (g *gatewayClient) attempts(ctx context.Context, id string) (all remoteAttempts, err error) {
	a, err := g.do(ctx, call{method: http.MethodGet, path: uploadPath(id) + "/attempts"})
	if e, ok := errors.AsType[*gatewayError](err); ok && e.status == http.StatusNotFound {
		return remoteAttempts{}, nil
	}
	if err != nil {
		return remoteAttempts{}, err
	}
	raw := struct {
		Attempts json.RawMessage `json:"attempts"`
	}{}
	if err := errors.Join(json.Unmarshal(a.body, &all), json.Unmarshal(a.body, &raw)); err != nil {
		return remoteAttempts{}, &gatewayError{status: a.status, Title: "its answer is no list of attempts: is that a Ferry gateway?"}
	}
	all.raw = raw.Attempts
	return all, nil
}

// withAttempts is what the gateway said of an upload, with the list of its attempts
// at the end.
func withAttempts(upload, list json.RawMessage) json.RawMessage {
	object, ok := bytes.CutSuffix(bytes.TrimSpace(upload), []byte("}"))
	if !ok || len(list) == 0 {
		return upload
	}
	return fmt.Appendf(nil, `%s,"attempt_list":%s}`, object, list)
}

// printAttempts prints a table of them.
func (p *program) printAttempts(all remoteAttempts) error {
	t := newTable(p.stdout, false, "ATTEMPT\tBEGAN\tTOOK\tOUTCOME\tSENT\tERROR")
	next := 1
	missing := func(to int) error {
		if to < next {
			return nil
		}
		return t.add(nil, "%s\t\t\tnot kept\t\t", numbers(next, to))
	}
	for _, a := range all.Attempts {
		if err := missing(a.Number - 1); err != nil {
			return err
		}
		next = a.Number + 1
		if err := t.add(nil, "%d\t%s\t%s\t%s\t%s\t%s", a.Number, stamp(a.BeganAt), a.took(), a.outcome(), a.sent(), printable(a.Error)); err != nil {
			return err
		}
	}
	if err := missing(all.Count); err != nil {
		return err
	}
	return t.end()
}

func numbers(from, to int) string {
	if from == to {
		return fmt.Sprint(from)
	}
	return fmt.Sprintf("%d-%d", from, to)
}

func (a *remoteAttempt) outcome() string {
	if a.Outcome == "" {
		return "running"
	}
	return printable(a.Outcome)
}

// took is how long it was, nothing while it runs.
func (a *remoteAttempt) took() string {
	if a.EndedAt.IsZero() {
		return ""
	}
	d := max(0, a.EndedAt.Sub(a.BeganAt))
	if d < 10*time.Second {
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// sent is how much went over in it, nothing if nobody knows.
func (a *remoteAttempt) sent() string {
	if a.Bytes == nil || a.ResumedFrom == nil {
		return ""
	}
	return bytesInWords(max(0, *a.Bytes-*a.ResumedFrom))
}
