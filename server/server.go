// Package server takes files from native clients and stores each, verified and
// durable, as a file of its own.
//
// A file is staged, verified by its client, published as
// <data>/files/<client>/<name>, recorded in <data>/catalog.db, and only then
// acknowledged. The published file is the truth and the catalog describes it:
// a file that was published and not recorded, because of a crash between the
// two or a full disk, is recorded when its name is met again or at the next
// start. Its client was told nothing, asks again, and hears that the name
// exists. Published files are never replaced and never removed.
package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"ferry/internal/blob"
	"ferry/internal/datadir"
)

// Config says what a Server works with; zero values mean the defaults stated.
type Config struct {
	Data   string        // folder of its own; required
	Log    *slog.Logger  // nothing is logged if nil
	Grace  time.Duration // what running transfers get at shutdown: 30 s
	Limits Limits
	// Halve, if not nil, has the process use half of its processors until restore is called. It is
	// called while one file comes, of HalveFrom bytes at least, from a client of version 4 on this machine that
	// sums it up as it sends it, and no other file is received.
	Halve func() (restore func())
}

// Server is one native server on one data folder.
type Server struct {
	log    *slog.Logger
	grace  time.Duration
	limits Limits

	dir     *datadir.Dir
	disk    *blob.Disk
	catalog *catalog
	gate    *gate

	halves   halves
	holdings *holdings
	arrivals chan *arrival // files that have come, for commitAll
	adopting chan struct{} // of one element: who holds it reads a file to record it

	quit    context.CancelFunc // ends what watch began; nil if it did not
	running sync.WaitGroup     // commitAll, and what watch began

	strangers burst // lines about connections whose client did not become known
	crowded   burst // lines about connections over a limit
	broken    burst // lines about an accept that failed
	unnoted   burst // lines about visits that could not be noted
	refused   burst // lines about requests that a session refused by itself
	unwatched burst // lines about what the watch could not do
}

// Open locks the data folder, brings the database up to date and sweeps what a
// crash left behind. The sweep empties staging, but for what transfers go on
// with, and records files that were published without; it reads those once. What an operator put into a client's
// folder is recorded likewise. Files that are on record and missing are
// logged.
func Open(ctx context.Context, cfg Config) (*Server, error) {
	if cfg.Data == "" {
		return nil, errors.New("server: no data folder given")
	}
	s := &Server{
		log:       cfg.Log,
		grace:     cmp.Or(cfg.Grace, 30*time.Second),
		limits:    cfg.Limits.withDefaults(),
		halves:    halves{halve: cfg.Halve},
		arrivals:  make(chan *arrival, maxGroup),
		adopting:  make(chan struct{}, 1),
		strangers: burst{lines: 10, span: 10 * time.Second},
		crowded:   burst{lines: 1, span: 10 * time.Second},
		broken:    burst{lines: 1, span: 10 * time.Second},
		unnoted:   burst{lines: 1, span: time.Minute},
		refused:   burst{lines: 20, span: 10 * time.Second},
		unwatched: burst{lines: 1, span: time.Minute},
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.gate, s.holdings = newGate(s.limits), newHoldings(s.limits)
	if err := s.open(ctx, cfg.Data); err != nil {
		return nil, errors.Join(fmt.Errorf("open server: %w", err), s.Close())
	}
	return s, nil
}

func (s *Server) open(ctx context.Context, data string) (err error) {
	if s.dir, err = datadir.Open(data); err != nil {
		return err
	}
	if s.disk, err = blob.Open(data); err != nil {
		return err
	}
	s.disk.Archive = true
	if s.catalog, err = openCatalog(ctx, data, s.limits.Clients); err != nil {
		return err
	}
	if err := s.sweep(ctx); err != nil {
		return err
	}
	watching, quit := context.WithCancel(context.WithoutCancel(ctx))
	s.quit = quit
	s.running.Go(s.commitAll)
	s.watch(watching)
	return nil
}

// Close releases the database and the data folder. Serve must have returned.
func (s *Server) Close() error {
	var errs []error
	if s.quit != nil {
		s.quit()
		close(s.arrivals)
		s.running.Wait()
	}
	if s.catalog != nil {
		errs = append(errs, s.catalog.close())
	}
	if s.disk != nil {
		errs = append(errs, s.disk.Close())
	}
	if s.dir != nil { // last: what is locked is in order
		errs = append(errs, s.dir.Close())
	}
	return errors.Join(errs...)
}
