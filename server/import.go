package server

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"time"

	"ferry/internal/blob"
	"ferry/proto"
)

// ErrClientConflict: another client is on record under that id or name.
var ErrClientConflict = errors.New("another client has that id or name")

// ImportClient records a client that another server of version 3 knew, so that it
// can reconnect here: a key that it could not do that with is an error. If it is on record already, nothing changes. The error is
// [ErrClientConflict] if its id or its name is somebody else's.
func (s *Server) ImportClient(ctx context.Context, r proto.Registration, lastSeen time.Time) error {
	if err := proto.CheckKeyV3(r.PublicKey); err != nil {
		return err
	}
	there, _, err := s.catalog.client(ctx, "select id, name, public_key, revoked_at from clients where id = $1", r.ID[:])
	if err == nil {
		if there.Name == r.Name && string(there.PublicKey) == string(r.PublicKey) {
			return nil
		}
		return ErrClientConflict
	}
	if !errors.Is(err, proto.ErrUnknownClient) {
		return err
	}
	if _, err := s.catalog.register(ctx, r, "", true); err != nil {
		if errors.Is(err, proto.ErrNameTaken) {
			return ErrClientConflict
		}
		return err
	}
	if lastSeen.IsZero() {
		return nil
	}
	return s.catalog.db.Update(ctx, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "update clients set last_seen = $1 where id = $2", lastSeen.UnixMilli(), r.ID[:])
		return err
	})
}

// ImportFile stores what another server had stored for a client that is on
// record. When it returns nil, the file is durable; stored is false if it was
// here already, with the same content. Other content under the name is
// [proto.ErrExists], and stays.
func (s *Server) ImportFile(ctx context.Context, r proto.Registration, name proto.FileName, at time.Time, src io.Reader) (stored bool, err error) {
	staged, err := s.disk.Stage()
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, staged.Discard()) }()
	sum, err := proto.SumOf(ctx, io.TeeReader(src, staged))
	if err != nil {
		return false, err
	}
	err = staged.Publish(r.Name.String(), name.String())
	if errors.Is(err, blob.ErrExists) {
		return false, s.sameAs(ctx, r, name, sum)
	}
	if err != nil {
		return false, err
	}
	return true, s.catalog.record(ctx, row{client: r.ID, as: proto.Stored{Name: name, Sum: sum, At: at}})
}

// sameAs is nil if the published file adds up to sum.
func (s *Server) sameAs(ctx context.Context, r proto.Registration, name proto.FileName, sum proto.Sum) error {
	if err := s.adopt(ctx, r, name); err != nil {
		return err
	}
	info, err := s.disk.Stat(r.Name.String(), name.String())
	if err != nil {
		return err
	}
	there, err := s.sumPublished(ctx, r, name, info)
	if err != nil {
		return err
	}
	if there != sum {
		return proto.ErrExists
	}
	return nil
}
