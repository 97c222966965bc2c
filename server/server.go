// Package server takes files from native clients and stores each, verified and
// durable, as a file of its own.
package server

import (
	"context"
	"log/slog"
	"net"
	"time"

	"ferry/proto"
)

// Config says what a Server works with; zero values mean the defaults stated.
type Config struct {
	Data  string        // folder of its own; required
	Log   *slog.Logger  // nothing is logged if nil
	Grace time.Duration // what running transfers get at shutdown: 30 s
}

// Server is one native server on one data folder.
type Server struct{}

// Open locks the data folder, brings the database up to date and sweeps what a
// crash left behind.
func Open(ctx context.Context, cfg Config) (*Server, error) { panic("not built") }

// Serve takes connections from ln, which speak what accept does, until ctx
// ends; then it stops accepting, lets what runs finish within Config.Grace,
// and returns nil.
func (s *Server) Serve(ctx context.Context, ln net.Listener, accept proto.Accept) error {
	panic("not built")
}

// Close releases the database and the data folder. Serve must have returned.
func (s *Server) Close() error { panic("not built") }
