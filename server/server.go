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
	"sync/atomic"
	"time"

	"ferry/internal/blob"
	"ferry/internal/datadir"
	"ferry/proto"
)

// Config says what a Server works with; zero values mean the defaults stated.
type Config struct {
	Data   string        // folder of its own; required
	Log    *slog.Logger  // nothing is logged if nil
	Grace  time.Duration // what running transfers get at shutdown: 30 s
	Limits Limits
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

	staged   atomic.Int64  // bytes in staging
	adopting chan struct{} // of one element: who holds it reads a file to record it

	strangers burst // lines about connections whose client did not become known
	crowded   burst // lines about connections over a limit
	broken    burst // lines about an accept that failed
	unnoted   burst // lines about visits that could not be noted
	refused   burst // lines about requests that a session refused by itself
}

// Open locks the data folder, brings the database up to date and sweeps what a
// crash left behind. The sweep empties staging and records files that were
// published without; it reads those once. What an operator put into a client's
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
		adopting:  make(chan struct{}, 1),
		strangers: burst{lines: 10, span: 10 * time.Second},
		crowded:   burst{lines: 1, span: 10 * time.Second},
		broken:    burst{lines: 1, span: 10 * time.Second},
		unnoted:   burst{lines: 1, span: time.Minute},
		refused:   burst{lines: 20, span: 10 * time.Second},
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.gate = newGate(s.limits)
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
	if s.catalog, err = openCatalog(ctx, data, s.limits.Clients); err != nil {
		return err
	}
	return s.sweep(ctx)
}

// Close releases the database and the data folder. Serve must have returned.
func (s *Server) Close() error {
	var errs []error
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

// directory is what the sessions of connections from one address ask about
// clients.
type directory struct {
	*Server
	address string
}

var _ proto.Directory = directory{}

func (d directory) ByID(ctx context.Context, id proto.ClientID) (proto.Registration, error) {
	return d.catalog.byID(ctx, id)
}

func (d directory) Admits(ctx context.Context, name proto.ClientName, id proto.ClientID, _ string) (proto.ClientID, error) {
	_, err := d.catalog.byName(ctx, name.String())
	switch {
	case errors.Is(err, proto.ErrUnknownClient):
		return id, nil
	case err == nil:
		err = proto.ErrNameTaken
	}
	return id, err
}

func (d directory) Replace(context.Context, proto.ClientID, []byte, []byte) error {
	return proto.ErrUnsupported
}

func (d directory) Register(ctx context.Context, r proto.Registration, _ string) error {
	if err := d.catalog.register(ctx, r); err != nil {
		return err
	}
	d.log.Info("client registered", "client", r.Name.String(), "address", d.address)
	return nil
}

// Seen does not fail: a visit that cannot be noted is no reason to turn a
// client away, who may have come for what a full disk still allows.
func (d directory) Seen(ctx context.Context, id proto.ClientID) error {
	if err := d.catalog.seen(ctx, id); err != nil {
		if unsaid, ok := d.unnoted.say(); ok {
			d.log.Warn("visit not noted", "client", id.String(), "address", d.address, "err", err, "more", unsaid)
		}
	}
	return nil
}
