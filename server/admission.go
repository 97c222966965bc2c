package server

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"ferry/proto"
)

// Admission says who may register at a listener.
type Admission struct {
	// Open admits everybody whose name is not taken. Else a join token is
	// needed.
	Open bool
}

// What a client may be told about a registration.
var (
	errJoin = &proto.RefusedError{Why: proto.ErrUnauthorized,
		Words: "to register here takes a join token that is good, and for this name: ask the server's operator for one"}
	errReplace = &proto.RefusedError{Why: proto.ErrUnauthorized,
		Words: "the key to be replaced is not the client's: it has been replaced by another, or the client is shut out"}
)

// directory is what the sessions of connections from one address ask about
// clients.
type directory struct {
	*Server
	address string
	open    bool
	visit   *visit // of the connection that asks
}

var _ proto.Directory = directory{}

func (d directory) ByID(ctx context.Context, id proto.ClientID) (proto.Registration, error) {
	return d.catalog.byID(ctx, id)
}

func (d directory) Admits(ctx context.Context, name proto.ClientName, id proto.ClientID, token string) (proto.ClientID, error) {
	id, _, err := d.catalog.admits(ctx, d.catalog.db.Read(), name, id, token, d.open)
	return id, err
}

func (d directory) Register(ctx context.Context, r proto.Registration, token string) error {
	replaced, err := d.catalog.register(ctx, r, token, d.open)
	if err != nil {
		return err
	}
	message := "client registered"
	if replaced {
		message = "client registered again: its key was replaced"
		d.gate.cut(r.ID, nil, errReplaced) // whoever is there has the old key
	}
	d.log.Info(message, "client", r.Name.String(), "address", d.address)
	return nil
}

func (d directory) Replace(ctx context.Context, id proto.ClientID, old, fresh []byte) error {
	if err := d.catalog.replace(ctx, id, old, fresh); err != nil {
		return err
	}
	d.gate.cut(id, d.visit, errReplaced) // whoever else is there has the old key
	d.log.Info("client has another key", "client", d.nameOf(ctx, id), "address", d.address)
	return nil
}

// Seen does not fail: a visit that cannot be noted is no reason to turn a
// client away, who may have come for what a full disk still allows.
func (d directory) Seen(ctx context.Context, id proto.ClientID) error {
	if err := d.catalog.seen(ctx, id); err != nil {
		if unsaid, ok := d.unnoted.say(); ok {
			d.log.Warn("visit not noted", "client", d.nameOf(ctx, id), "address", d.address, "err", err, "more", unsaid)
		}
	}
	return nil
}

// nameOf is what the log calls a client: by its id only if there is no telling.
func (d directory) nameOf(ctx context.Context, id proto.ClientID) string {
	r, err := d.catalog.byID(ctx, id)
	if err != nil {
		return id.String()
	}
	return r.Name.String()
}

// querier is a pool of readers or a transaction.
type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// admits says under which id a client of that name may register, and whether
// that is by a token: one for its name takes the place of the client that has it.
func (c *catalog) admits(ctx context.Context, q querier, name proto.ClientName, id proto.ClientID, token string, open bool) (_ proto.ClientID, byToken bool, err error) {
	var only sql.NullString
	err = sql.ErrNoRows
	if token != "" {
		err = q.QueryRowContext(ctx, "select client from join_tokens where "+isGood+" and hash = $2",
			time.Now().UnixMilli(), tokenHash(token)).Scan(&only)
	}
	switch byToken = err == nil && (!only.Valid || only.String == name.String()); {
	case err != nil && !errors.Is(err, sql.ErrNoRows):
		return id, false, fmt.Errorf("look up join token: %w", err)
	case !byToken && !open:
		return id, false, errJoin
	}
	var there []byte
	err = q.QueryRowContext(ctx, "select id from clients where name = $1", name.String()).Scan(&there)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return id, byToken, nil
	case err != nil:
		return id, false, fmt.Errorf("look up client: %w", err)
	case !byToken || !only.Valid:
		return id, false, proto.ErrNameTaken
	}
	copy(id[:], there)
	return id, true, nil
}

// register records a client and uses its token, durably when it returns nil. It
// reports whether that replaced the key of one that was on record.
func (c *catalog) register(ctx context.Context, r proto.Registration, token string, open bool) (replaced bool, err error) {
	// Taken back below unless there is one client more.
	if c.clients.Add(1) > c.maxClients {
		c.clients.Add(-1)
		replaced, err = c.enter(ctx, r, token, open, false)
	} else if replaced, err = c.enter(ctx, r, token, open, true); err != nil || replaced {
		c.clients.Add(-1)
	}
	if err != nil {
		return false, fmt.Errorf("register: %w", err)
	}
	c.noted(r.ID, time.Now())
	return replaced, nil
}

// enter writes a registration down; one more client only if there may be more.
func (c *catalog) enter(ctx context.Context, r proto.Registration, token string, open, more bool) (replaced bool, err error) {
	err = c.db.Update(ctx, func(ctx context.Context, tx *sql.Tx) error {
		id, byToken, err := c.admits(ctx, tx, r.Name, r.ID, token, open)
		if err != nil {
			return err
		}
		if byToken {
			if err := useToken(ctx, tx, token); err != nil {
				return err
			}
		}
		replaced, err = enterClient(ctx, tx, r, id, byToken, more)
		return err
	})
	return replaced, err
}

func useToken(ctx context.Context, tx *sql.Tx, token string) error {
	hash := tokenHash(token)
	if _, err := tx.ExecContext(ctx, "update join_tokens set uses_left = uses_left - 1 where hash = $1", hash); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, "delete from join_tokens where hash = $1 and uses_left <= 0", hash)
	return err
}

// enterClient writes the row of a client that is admitted under an id.
func enterClient(ctx context.Context, tx *sql.Tx, r proto.Registration, id proto.ClientID, byToken, more bool) (replaced bool, err error) {
	if id != r.ID {
		return false, errJoin // somebody else registered under the name meanwhile
	}
	now := time.Now().UnixMilli()
	if byToken {
		done, err := tx.ExecContext(ctx, "update clients set public_key = $1, revoked_at = null, last_seen = $2 where id = $3 and name = $4",
			r.PublicKey, now, r.ID[:], r.Name.String())
		if err != nil {
			return false, err
		}
		if n, err := done.RowsAffected(); err != nil || n > 0 {
			return n > 0, err
		}
	}
	if !more {
		return false, errClients
	}
	done, err := tx.ExecContext(ctx, `insert into clients (id, name, public_key, registered_at, last_seen)
		values ($1, $2, $3, $4, $4) on conflict (name) do nothing`,
		r.ID[:], r.Name.String(), r.PublicKey, now)
	if err != nil {
		return false, err
	}
	if n, err := done.RowsAffected(); err != nil || n == 1 {
		return false, err
	}
	return false, proto.ErrNameTaken
}

// replace records another key of a client in place of old.
func (c *catalog) replace(ctx context.Context, id proto.ClientID, old, fresh []byte) error {
	return c.db.Update(ctx, func(ctx context.Context, tx *sql.Tx) error {
		done, err := tx.ExecContext(ctx, "update clients set public_key = $1 where id = $2 and public_key = $3 and revoked_at is null",
			fresh, id[:], old)
		if err != nil {
			return fmt.Errorf("replace key: %w", err)
		}
		n, err := done.RowsAffected()
		if err == nil && n == 0 {
			err = errReplace
		}
		return err
	})
}
