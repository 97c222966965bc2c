package server

import (
	"net"

	"ferry/proto"
)

// DirectoryOf is what the sessions of an open listener ask.
func DirectoryOf(s *Server) proto.Directory { return directory{s, "192.0.2.1:1", true, nil} }

// Expire is what the server does by itself once an hour.
func Expire(s *Server) error { return s.expire(nil) }

// Even reports whether a server works as much for an offer as its client at that connection.
func Even(o proto.Offer, conn net.Conn) bool { return even(o, conn) }
