package server

import "ferry/proto"

// DirectoryOf is what the sessions of an open listener ask.
func DirectoryOf(s *Server) proto.Directory { return directory{s, "192.0.2.1:1", true, nil} }

// Expire is what the server does by itself once an hour.
func Expire(s *Server) error { return s.expire(nil) }
