// Package gateway takes files in over HTTP, keeps each durably as a job, and
// delivers it to a native server.
package gateway

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/oklog/ulid/v2"

	"ferry/proto"
)

// Config says what a Gateway works with; zero values mean the defaults stated.
type Config struct {
	Data    string            // folder of its own; required
	To      proto.Destination // required
	Name    proto.ClientName  // under which it registers at the destination; required
	Workers int               // deliveries at once: 4, and never more than To.Parallel
	Grace   time.Duration     // what running requests and deliveries get at shutdown: 30 s
	Log     *slog.Logger      // nothing is logged if nil
	Version string            // shown by /healthz
}

// Gateway is one gateway on one data folder.
type Gateway struct{}

// Open locks the data folder, brings the database up to date, sweeps what a
// crash left behind, and makes every accepted job runnable.
func Open(ctx context.Context, cfg Config) (*Gateway, error) { panic("not built") }

// Serve answers HTTP on ln and delivers, until ctx ends; then it stops
// accepting, lets what runs finish within Config.Grace, gives unfinished jobs
// back, and returns nil.
func (g *Gateway) Serve(ctx context.Context, ln net.Listener) error { panic("not built") }

// Close releases the database and the data folder. Serve must have returned.
func (g *Gateway) Close() error { panic("not built") }

// What the handlers test for.
var (
	errNotFound    = errors.New("no such upload")
	errState       = errors.New("not possible in this state")
	errSpoolFull   = errors.New("no room left to keep the upload")
	errInterrupted = errors.New("the upload was cancelled while its bytes came in")
)

// A reception takes in the files of one request: all of them become jobs, or
// none. Exactly one of commit and abort ends it; abort after commit does
// nothing. It is used by one goroutine.
type reception struct{}

// receive starts taking in a request's files. Ending ctx ends them.
func (g *Gateway) receive(ctx context.Context) *reception { panic("not built") }

// add keeps the bytes of body, hashing while it writes, and shows the file as
// receiving meanwhile. declared is the length the sender announced, -1 if it
// did not; more or fewer bytes are an error. It returns the index of the file.
// Errors: proto.ErrTooLarge as soon as it is known, errSpoolFull,
// errInterrupted, or body's.
func (r *reception) add(name proto.FileName, declared int64, body io.Reader) (int, error) {
	panic("not built")
}

// rename gives file i another name, before commit.
func (r *reception) rename(i int, name proto.FileName) { panic("not built") }

// commit makes every added file and its job durable, in one transaction, and
// returns them in the order in which they were added.
func (r *reception) commit() ([]Upload, error) { panic("not built") }

// abort drops what was added.
func (r *reception) abort() { panic("not built") }

// get returns one upload, live progress included, or errNotFound.
func (g *Gateway) get(ctx context.Context, id ulid.ULID) (Upload, error) { panic("not built") }

// list returns up to limit uploads, newest first, those receiving included,
// starting after (older than) the given id; the zero id starts at the newest.
func (g *Gateway) list(ctx context.Context, before ulid.ULID, limit int) ([]Upload, error) {
	panic("not built")
}

// remove cancels an upload that is not final, or forgets one that is. It
// returns what the upload is now; gone is true if it was forgotten. Cancelling
// one that is being delivered waits, up to a few seconds, for the worker to
// let go, so that what is returned is what really happened: it may have been
// delivered.
func (g *Gateway) remove(ctx context.Context, id ulid.ULID) (u Upload, gone bool, err error) {
	panic("not built")
}

// retry queues a failed, cancelled or waiting upload again, at once. It
// returns errState for any other, and for one whose bytes are gone.
func (g *Gateway) retry(ctx context.Context, id ulid.ULID) (Upload, error) { panic("not built") }

// ready returns why the gateway cannot take uploads just now, or nil.
func (g *Gateway) ready(ctx context.Context) error { panic("not built") }
