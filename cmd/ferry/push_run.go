package main

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// expectAbove is the size from which a file is sent only after the gateway has
// said that it takes it.
const expectAbove = 1 << 20

// pushing is one call of ferry push.
type pushing struct {
	gateway     *gatewayClient
	destination string // "" for the one that the gateway chooses
	wait        string
	connect     time.Duration
	labels      []string
	receipts    receipts
	show        *pushDisplay
	started     time.Time

	reached atomic.Bool             // the gateway has answered something
	doom    atomic.Pointer[failure] // what no other file would escape either
	queue   chan *pushed            // files that wait for their delivery; has room for all
}

// pushOutcome is what became of a file: a line of --json.
type pushOutcome struct {
	File     string  `json:"file"` // as the user named it
	Name     string  `json:"name"`
	ID       string  `json:"id,omitempty"` // of the upload, once the gateway has the file
	Size     int64   `json:"size"`
	SHA256   string  `json:"sha256,omitempty"`
	State    string  `json:"state"`
	Sent     bool    `json:"sent"` // false if it was there already
	Attempts int     `json:"attempts"`
	Exit     int     `json:"exit"`
	Done     bool    `json:"done"` // nothing more follows about this file
	Receipt  string  `json:"receipt,omitempty"`
	Error    string  `json:"error,omitempty"`
	Seconds  float64 `json:"seconds"`

	common bool // it is not the file that is at fault
}

// The states of an outcome, beside stateFailed.
const (
	stateReceived  = "received"
	stateDelivered = "delivered"
)

// all sends the files, a few at once, waits for them, and returns the highest
// exit status.
func (p *pushing) all(ctx context.Context, files []sendFile, atOnce int) int {
	var sending, waiting, left sync.WaitGroup
	results := make(chan int, len(files))
	end := func(f *pushed) {
		f.end()
		results <- f.o.Exit
		left.Done()
	}
	for range min(waiters, len(files)) {
		waiting.Go(func() {
			for f := range p.queue {
				if f.look(ctx) {
					end(f)
				} else {
					p.queue <- f
				}
			}
		})
	}
	left.Add(len(files))
	turns := make(chan struct{}, atOnce)
	for _, file := range files {
		turns <- struct{}{}
		sending.Go(func() {
			defer func() { <-turns }()
			if f := p.begin(file); f.receive(ctx) && p.wait == waitDelivered {
				p.queue <- f
			} else {
				end(f)
			}
		})
	}
	sending.Wait()
	left.Wait()
	close(p.queue)
	waiting.Wait()
	worst := exitOK
	for range files {
		worst = max(worst, <-results)
	}
	return worst
}

// pushed is a file on its way.
type pushed struct {
	*pushing
	file  sendFile
	bar   *pushBar
	o     pushOutcome
	begun time.Time
	etag  string // of the upload as it was last seen
}

func (p *pushing) begin(file sendFile) *pushed {
	return &pushed{
		pushing: p, file: file, begun: time.Now(), bar: p.show.begin(printable(file.title())),
		o: pushOutcome{File: file.title(), Name: file.name.String(), State: stateFailed},
	}
}

func (f *pushed) end() {
	f.o.Seconds = time.Since(f.begun).Seconds()
	f.bar.end(f.o)
}

// fail notes why the file did not come to where it was to, and returns false.
func (f *pushed) fail(why failure) bool {
	f.o.State, f.o.Exit, f.o.Error, f.o.common = stateFailed, why.exit, why.words, why.common
	if why.common {
		f.doom.CompareAndSwap(nil, &why)
	}
	return false
}

// persist tries until that succeeds or fails for good, or until the time is
// over. Then the failure is of exitTimeout and has what the gateway refused last,
// or it has retry set if the gateway cannot be reached.
func (f *pushed) persist(ctx context.Context, try func() error) *failure {
	refused := "" // at the last try
	for tries := 1; ; tries++ {
		err := try()
		if said, answered := errors.AsType[*gatewayError](err); err == nil || answered && !said.away() {
			f.reached.Store(true)
		}
		if err == nil {
			f.show.fine()
			return nil
		}
		why := explainGateway(err)
		if !why.retry {
			if why.exit == exitTimeout {
				why.words += refused
			}
			return &why
		}
		refused = ""
		if why.exit == exitRefused {
			refused = "; before that, " + why.words
		}
		pause := pauseBefore(tries, why.after)
		if !f.reached.Load() {
			left := time.Until(f.started.Add(f.connect))
			if left <= 0 {
				return &why
			}
			pause = min(pause, left)
		}
		f.show.troubled(why.words)
		f.bar.pause(time.Now().Add(pause))
		if err := sleep(ctx, pause); err != nil {
			end := explainGateway(err)
			switch {
			case end.exit != exitTimeout:
				return &end
			case refused != "":
				end.words += refused
				return &end
			}
			why.words += ", until --timeout had passed"
			return &why
		}
	}
}

// receive brings the file to the gateway, and reports whether it is there.
func (f *pushed) receive(ctx context.Context) bool {
	if doom := f.doom.Load(); doom != nil {
		return f.fail(*doom)
	}
	src, err := openSource(f.file.path)
	if err != nil {
		return f.fail(failure{exit: exitNoFile, words: pathless(err).Error()})
	}
	defer src.Close() //nolint:errcheck // only read
	f.o.Size = src.info.Size()
	f.bar.resize(f.o.Size)
	sum, err := src.sum(ctx)
	if err != nil {
		return f.fail(explainGateway(err))
	}
	f.o.SHA256 = hex.EncodeToString(sum.SHA256[:])
	var u remoteUpload
	if why := f.persist(ctx, func() (err error) {
		u, err = f.attempt(ctx, src, sum.SHA256[:])
		return err
	}); why != nil {
		if why.exit == exitTimeout {
			why.words = strings.Replace(why.words, "not in time", "not received by the gateway in time", 1)
		}
		return f.fail(*why)
	}
	if u.SHA256 != f.o.SHA256 {
		return f.fail(explainGateway(fmt.Errorf("%w: it says %s, and the file has %s", errSumDiffers, printable(u.SHA256), f.o.SHA256)))
	}
	f.o.ID, f.o.State, f.o.Seconds = u.ID, stateReceived, time.Since(f.begun).Seconds()
	f.bar.receivedFile(&f.o)
	return true
}

// attempt finds the file at the gateway, or sends it.
func (f *pushed) attempt(ctx context.Context, src *source, sum []byte) (remoteUpload, error) {
	same, err := f.gateway.find(ctx, f.destination, f.file.name, f.o.SHA256)
	if err != nil {
		return remoteUpload{}, err
	}
	for _, u := range same {
		if u.State != remoteFailed && u.State != remoteCancelled && u.State != remoteReceiving {
			return u, nil
		}
	}
	f.o.Attempts++
	f.bar.enter(phaseSending)
	u, a, err := f.gateway.upload(ctx, f.put(src, sum))
	if changed := src.unchanged(); changed != nil {
		return remoteUpload{}, changed // whatever was answered, it is not the file
	}
	if err != nil {
		return remoteUpload{}, err
	}
	f.o.Sent = f.o.Sent || a.status != http.StatusOK
	if u.State == remoteFailed || u.State == remoteCancelled { // the gateway has it from before
		u, _, err = f.gateway.upload(ctx, call{method: http.MethodPost, path: uploadPath(u.ID) + "/retry"})
	}
	return u, err
}

// put is the call that sends the file.
func (f *pushed) put(src *source, sum []byte) call {
	header := http.Header{
		"Repr-Digest":  {"sha-256=:" + base64.StdEncoding.EncodeToString(sum) + ":"},
		"Content-Type": {"application/octet-stream"},
	}
	if f.o.Size > expectAbove {
		header.Set("Expect", "100-continue")
	}
	query := url.Values{"name": {f.o.Name}, "label": f.labels}
	if f.destination != "" {
		query.Set("destination", f.destination)
	}
	return call{
		method: http.MethodPost, path: "/uploads", header: header,
		query:  query,
		length: f.o.Size,
		body: func() (io.ReadCloser, error) {
			f.bar.bytes.Store(0)
			r, err := src.open()
			return countedBody{io.LimitReader(r, f.o.Size), &f.bar.bytes}, err
		},
	}
}

// countedBody counts what was read.
type countedBody struct {
	io.Reader
	bytes *atomic.Int64
}

func (b countedBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	b.bytes.Add(int64(n))
	return n, err
}

// Close leaves the file open.
func (countedBody) Close() error { return nil }
