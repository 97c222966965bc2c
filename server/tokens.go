package server

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"os"
	"strings"
	"time"

	"ferry/proto"
)

// What an operator may be told about tokens and clients.
var (
	ErrNoToken    = errors.New("no such join token")
	ErrManyTokens = errors.New("more than one join token begins like that: give more of its id")
)

// tokenPrefix tells what it is wherever it turns up.
const tokenPrefix = "ferry-join-"

// tokenBytes is how much of a token is random: nobody guesses it, so that a plain
// hash of it is enough to keep.
const tokenBytes = 20

// tokenID is how much of a token's hash is shown, in hexadecimal digits.
const tokenID = 12

// TokenOptions say what a join token is good for.
type TokenOptions struct {
	Uses    int           // how many clients may join with it; 1 if 0
	Expires time.Duration // after which it is good for nothing; 0 if it is good for ever
	// Client is the name of the only client that may join with it; any if "". If
	// that client is registered, its key is replaced, and it is let in again if it
	// was revoked.
	Client string
}

// TokenInfo is a join token that is good.
type TokenInfo struct {
	ID        string // the beginning of its hash
	Client    string // "" if it is good for any
	Uses      int    // left
	CreatedAt time.Time
	ExpiresAt time.Time // zero if it does not expire
}

// CreateToken makes a join token and returns it. Only its hash is kept. It is good
// at once when it returns, also for a server that runs on the folder in another
// process. A folder that no server has worked on is prepared for one.
func CreateToken(ctx context.Context, data string, o TokenOptions) (token string, err error) {
	if err := os.MkdirAll(data, 0o700); err != nil {
		return "", fmt.Errorf("create data folder: %w", err)
	}
	c, err := openBeside(ctx, data)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	return c.createToken(ctx, o)
}

// CreateToken makes a join token and returns it. Only its hash is kept.
func (s *Server) CreateToken(ctx context.Context, o TokenOptions) (string, error) {
	return s.catalog.createToken(ctx, o)
}

func (c *catalog) createToken(ctx context.Context, o TokenOptions) (string, error) {
	if o.Uses < 0 || o.Expires < 0 {
		return "", fmt.Errorf("join token: %d uses within %v make no sense", o.Uses, o.Expires)
	}
	var client any
	if o.Client != "" {
		name, err := proto.ParseClientName(o.Client)
		if err != nil {
			return "", fmt.Errorf("join token: %w", err)
		}
		client = name.String()
	}
	secret := make([]byte, tokenBytes)
	_, _ = rand.Read(secret) // never fails
	token := tokenPrefix + strings.ToLower(base32.StdEncoding.EncodeToString(secret))
	now := time.Now()
	var expires any
	if o.Expires > 0 {
		expires = now.Add(o.Expires).UnixMilli()
	}
	err := c.db.Update(ctx, func(ctx context.Context, tx *sql.Tx) error {
		// Those that are good for nothing go, so that they do not add up.
		if _, err := tx.ExecContext(ctx, "delete from join_tokens where expires_at <= $1", now.UnixMilli()); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `insert into join_tokens (hash, client, uses_left, created_at, expires_at)
			values ($1, $2, $3, $4, $5)`, tokenHash(token), client, max(o.Uses, 1), now.UnixMilli(), expires)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("join token: %w", err)
	}
	return token, nil
}

func tokenHash(token string) []byte {
	sum := sha256.Sum256([]byte(token))
	return sum[:]
}

// isGood is the condition of a row in join_tokens; $1 is the time.
const isGood = "uses_left > 0 and (expires_at is null or expires_at > $1)"

// Tokens yields the join tokens that are good, the oldest first, also of a server
// that runs. After an error it ends.
func Tokens(ctx context.Context, data string) iter.Seq2[TokenInfo, error] {
	return func(yield func(TokenInfo, error) bool) {
		i, err := Inspect(data)
		if err != nil {
			yield(TokenInfo{}, err)
			return
		}
		// As many as there are: operators make them by hand.
		all, err := query(ctx, i, scanToken, `select hash, coalesce(client, ''), uses_left, created_at, coalesce(expires_at, 0)
			from join_tokens where `+isGood+" order by created_at, hash", time.Now().UnixMilli())
		if err != nil {
			yield(TokenInfo{}, err)
			return
		}
		for _, t := range all {
			if !yield(t, nil) {
				return
			}
		}
	}
}

func scanToken(rows *sql.Rows) (t TokenInfo, err error) {
	var hash []byte
	var created, expires int64
	err = rows.Scan(&hash, &t.Client, &t.Uses, &created, &expires)
	t.ID = hex.EncodeToString(hash)[:min(tokenID, 2*len(hash))]
	t.CreatedAt = time.UnixMilli(created).UTC()
	if expires != 0 {
		t.ExpiresAt = time.UnixMilli(expires).UTC()
	}
	return t, err
}

// RevokeToken makes a join token good for nothing, also while a server runs. id is
// the one that Tokens yields, or as much of its beginning as no other has. The
// error may be ErrNoToken or ErrManyTokens.
func RevokeToken(ctx context.Context, data, id string) error {
	return withCatalog(ctx, data, func(c *catalog) error { return c.revokeToken(ctx, id) })
}

func (c *catalog) revokeToken(ctx context.Context, id string) error {
	digits := strings.ToUpper(id)
	if id == "" || len(id) > 2*sha256.Size || strings.Trim(digits, "0123456789ABCDEF") != "" {
		return fmt.Errorf("%w: %q is no beginning of an id", ErrNoToken, id)
	}
	return c.db.Update(ctx, func(ctx context.Context, tx *sql.Tx) error {
		done, err := tx.ExecContext(ctx, "delete from join_tokens where substr(hex(hash), 1, $1) = $2", len(digits), digits)
		if err != nil {
			return fmt.Errorf("revoke join token: %w", err)
		}
		switch n, err := done.RowsAffected(); {
		case err != nil:
			return err
		case n == 0:
			return ErrNoToken
		case n > 1:
			return ErrManyTokens // and nothing is kept of it
		}
		return nil
	})
}

// RevokeClient shuts a client out: no session of it is accepted any more, and a
// server that runs, in whatever process, ends those there are within 2 seconds.
// Its files stay, and its name stays taken. [proto.ErrUnknownClient] means that
// there is no such client.
func RevokeClient(ctx context.Context, data, name string) error {
	return withCatalog(ctx, data, func(c *catalog) error { return c.revoke(ctx, name, true) })
}

// RestoreClient lets a client in again, with the key it had.
func RestoreClient(ctx context.Context, data, name string) error {
	return withCatalog(ctx, data, func(c *catalog) error { return c.revoke(ctx, name, false) })
}

// RevokeClient is the function of that name, in the process of the server.
func (s *Server) RevokeClient(ctx context.Context, name string) error {
	if err := s.catalog.revoke(ctx, name, true); err != nil {
		return err
	}
	s.log.Info("client revoked", "client", name)
	return s.cutRevoked(ctx)
}

// RestoreClient is the function of that name, in the process of the server.
func (s *Server) RestoreClient(ctx context.Context, name string) error {
	if err := s.catalog.revoke(ctx, name, false); err != nil {
		return err
	}
	s.log.Info("client restored", "client", name)
	return nil
}

func (c *catalog) revoke(ctx context.Context, name string, out bool) error {
	var at any
	if out {
		at = time.Now().UnixMilli()
	}
	return c.db.Update(ctx, func(ctx context.Context, tx *sql.Tx) error {
		done, err := tx.ExecContext(ctx, "update clients set revoked_at = $1 where name = $2", at, name)
		if err != nil {
			return fmt.Errorf("revoke client: %w", err)
		}
		n, err := done.RowsAffected()
		if err == nil && n == 0 {
			err = fmt.Errorf("%w: %q", proto.ErrUnknownClient, name)
		}
		if err != nil || !out {
			return err
		}
		// One made before would let the client in again.
		if _, err := tx.ExecContext(ctx, "delete from join_tokens where client = $1", name); err != nil {
			return fmt.Errorf("revoke client's tokens: %w", err)
		}
		return nil
	})
}

// withCatalog opens the catalog of a folder that a server has worked on, and may
// be working on: each waits for the other's commits. If that one is older, it
// refuses, as the catalog would have to be changed under it.
func withCatalog(ctx context.Context, data string, fn func(*catalog) error) (err error) {
	if _, err := Inspect(data); err != nil {
		return err
	}
	c, err := openBeside(ctx, data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	return fn(c)
}
