// Package gateway takes files in over HTTP, keeps each durably as a job, and
// delivers it to a native server.
package gateway

import (
	"cmp"
	"context"
	crand "crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"ferry/internal/blob"
	"ferry/internal/datadir"
	"ferry/internal/sqldb"
	"ferry/proto"
)

// Config says what a Gateway works with; zero values mean the defaults stated.
type Config struct {
	Data string           // folder of its own; required
	Name proto.ClientName // under which it registers at each destination; required
	// Destinations are where uploads go, those that name none to the first; at
	// least one.
	Destinations []Destination
	Grace        time.Duration // what running requests and deliveries get at shutdown: 30 s
	Log          *slog.Logger  // nothing is logged if nil
	Version      string        // shown by /healthz
	MaxSize      int64         // bytes of the largest file that is taken; 0 is what the destination takes
	Silence      time.Duration // how long a body may be silent; 30 s if 0
	MinRate      int64         // bytes a second that a body has to come with in the long run; 1024 if 0
	Front        Front         // what stands between clients and the gateway
	// Rate is how many requests a second are answered of each token, and, of those
	// without a good one, of each address; 0 is all of them.
	Rate int
}

const (
	defaultDeliveries = 4
	// manyDeliveries keep a destination's group commits full with small files, and
	// let them pass large ones, of which the client sends a few at a time: a
	// worker costs memory only for what is sent.
	manyDeliveries = 32
	defaultGrace   = 30 * time.Second
	// defaultReserve is the room that uploads leave on the disk, so that what
	// happens to those that are kept can be recorded.
	defaultReserve = 8 << 20
	// controlReserve is held by a file for the same purpose, as others fill the disk
	// as well: some hundreds of changes, until the write-ahead log begins anew.
	controlReserve = 8 << 20

	headerTimeout = 10 * time.Second // for a request's header
	idleTimeout   = 2 * time.Minute  // between two requests of a connection
	maxHeader     = 64 << 10         // bytes of a request's header
	readyTimeout  = 2 * time.Second  // for the database to answer
)

// Gateway is one gateway on one data folder.
type Gateway struct {
	cfg     Config
	log     *slog.Logger
	dir     *datadir.Dir
	db      *sqldb.DB
	intakes *sqldb.Batch[*incoming]
	spool   *blob.Disk
	lanes   lanes
	clock   clock
	room    *room
	jitter  func() float64

	largeRoom largeRoom
	live      *live
	shared    shared
	door      *door
	ids       ids
	requests  sync.RWMutex // held for reading by each request that is answered
}

// ids makes ids that only grow.
type ids struct {
	mu      sync.Mutex
	entropy *ulid.MonotonicEntropy // guarded by mu
	last    uint64                 // milliseconds; guarded by mu
}

// clock is the time, and how to wait for it.
type clock struct {
	now   func() time.Time
	after func(time.Duration) (c <-chan time.Time, stop func())
	until func(time.Time) (c <-chan time.Time, stop func()) // at once if that is over
}

var systemClock = clock{
	now:   time.Now,
	after: startTimer,
	until: func(at time.Time) (<-chan time.Time, func()) { return startTimer(time.Until(at)) },
}

func startTimer(d time.Duration) (c <-chan time.Time, stop func()) {
	t := time.NewTimer(d)
	return t.C, func() { t.Stop() }
}

func (g *Gateway) now() time.Time { return g.clock.now().UTC().Truncate(time.Microsecond) }

// parts are what tests replace; zero values mean the real ones.
type parts struct {
	sender  func(Destination, proto.Keyring) sender
	clock   clock
	reserve int64
	jitter  func() float64
}

// Open locks the data folder, brings the database up to date, sweeps what a
// crash left behind, and makes every accepted job runnable.
func Open(ctx context.Context, cfg Config) (*Gateway, error) { return openWith(ctx, cfg, parts{}) }

func openWith(ctx context.Context, cfg Config, p parts) (_ *Gateway, err error) {
	switch {
	case cfg.Data == "":
		return nil, errors.New("no data folder is configured")
	case cfg.Name == proto.ClientName{}:
		return nil, errors.New("no name to register under is configured")
	}
	cfg.Grace = cmp.Or(cfg.Grace, defaultGrace)
	if cfg.Destinations, err = completed(cfg.Destinations); err != nil {
		return nil, err
	}
	if p.clock.now == nil {
		p.clock = systemClock
	}
	if p.jitter == nil {
		p.jitter = rand.Float64
	}
	if p.sender == nil {
		p.sender = func(d Destination, keys proto.Keyring) sender {
			return proto.NewClient(proto.ClientConfig{To: d.To, Name: cfg.Name, Keyring: keys, Join: d.Join})
		}
	}
	g := &Gateway{
		cfg: cfg, log: cmp.Or(cfg.Log, slog.New(slog.DiscardHandler)), clock: p.clock, jitter: p.jitter,
		room: &room{reserve: cmp.Or(p.reserve, defaultReserve)},
		live: newLive(), largeRoom: newLargeRoom(),
		ids: ids{entropy: ulid.Monotonic(crand.Reader, 0)},
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.Close())
		}
	}()
	if err := g.openParts(ctx, p); err != nil {
		return nil, err
	}
	return g, nil
}

func (g *Gateway) openParts(ctx context.Context, p parts) (err error) {
	if g.dir, err = datadir.Open(g.cfg.Data); err != nil {
		return err
	}
	if g.db, err = openStore(ctx, g.cfg.Data); err != nil {
		return err
	}
	g.intakes = sqldb.NewBatch(g.db, g.keepAll)
	if err := g.openLanes(ctx, p.sender); err != nil {
		return err
	}
	if g.door, err = newDoor(ctx, g.db, g.live, g.log); err != nil {
		return err
	}
	if g.spool, err = blob.Open(g.cfg.Data); err != nil {
		return fmt.Errorf("open spool: %w", err)
	}
	g.room.free = g.spool.Free
	return g.recover(ctx)
}

// Close releases the database and the data folder. Serve must have returned.
func (g *Gateway) Close() error {
	// The folder's lock goes last.
	errs := []error{g.lanes.close()}
	if g.db != nil {
		errs = append(errs, g.db.Close())
	}
	if g.spool != nil {
		errs = append(errs, g.spool.Close())
	}
	if g.dir != nil {
		errs = append(errs, g.dir.Close())
	}
	return errors.Join(errs...)
}

// What the handlers test for.
var (
	errNotFound    = errors.New("no such upload")
	errState       = errors.New("not possible in this state")
	errSpoolFull   = errors.New("no room left to keep the upload")
	errInterrupted = errors.New("the upload was cancelled while its bytes came in")
)

// Serve answers HTTP on ln and delivers, until ctx ends; then it stops
// accepting, lets what runs finish within Config.Grace, gives unfinished jobs
// back, and returns nil.
func (g *Gateway) Serve(ctx context.Context, ln net.Listener) error {
	claims, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	// What runs when ctx ends may go on until cut.
	running, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cut(nil)
	srv := &http.Server{
		Handler:           g.counted(g.Handler()),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		// OPTIONS * goes the way of everything else, past the check of its Host.
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(g.log.Handler(), slog.LevelDebug),
		BaseContext:                  func(net.Listener) context.Context { return running },
	}
	srv.RegisterOnShutdown(g.live.changes.stop)
	var workers sync.WaitGroup
	for _, l := range g.lanes.configured() {
		for range l.Deliveries {
			workers.Go(func() { g.work(claims, running, l) })
		}
	}
	looking, lookAway := context.WithCancel(running)
	var looks sync.WaitGroup
	looks.Go(func() { g.door.watch(looking) })
	defer looks.Wait()
	defer lookAway()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()

	var err error
	ended := false
	select {
	case <-ctx.Done():
	case err = <-served: // the listener broke
		ended = true
		stop(err)
	}
	grace := time.AfterFunc(g.cfg.Grace, func() { cut(errGivenBack) })
	defer grace.Stop()
	if srv.Shutdown(running) != nil {
		_ = srv.Close() // what is left has had its time
	}
	workers.Wait()
	cut(errGivenBack)
	if !ended {
		err = <-served
	}
	g.requests.Lock() // a handler whose connection was closed returns soon
	defer g.requests.Unlock()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve HTTP: %w", err)
}

// counted lets Serve wait for requests whose connection it has closed: the
// database must not be closed under them.
func (g *Gateway) counted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !g.requests.TryRLock() { // it has ended: nobody reads the answer
			panic(http.ErrAbortHandler)
		}
		defer g.requests.RUnlock()
		next.ServeHTTP(w, r)
	})
}

// ready returns why the gateway cannot take uploads just now, or nil.
func (g *Gateway) ready(ctx context.Context) error {
	if err := g.room.check(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	// The queue of the one that writes, too, has to be moving.
	err := g.db.Update(ctx, func(ctx context.Context, tx *sql.Tx) error {
		var one int
		return tx.QueryRowContext(ctx, "select 1 from uploads union all select 1 limit 1").Scan(&one)
	})
	if err != nil {
		return fmt.Errorf("database: %w", err)
	}
	return nil
}
