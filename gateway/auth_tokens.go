package gateway

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base32"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"ferry/internal/sqldb"
)

// What an operator may be told about tokens.
var (
	ErrNoToken    = errors.New("no such token")
	ErrTokenTaken = errors.New("there is a good token of that name: revoke it first, or take another name")
	ErrTokenName  = errors.New("a token's name has 1 to 64 printable characters and no space at its ends")
	ErrNoGateway  = errors.New("no gateway has worked on this folder")
)

const (
	// tokenPrefix tells what it is wherever it turns up.
	tokenPrefix = "ferry-token-"
	// tokenBytes is how much of a token is random. Nobody guesses 256 bits, however
	// fast a hash can be tried: a plain SHA-256 is enough to keep, where a password
	// would need a slow one.
	tokenBytes   = 32
	maxTokenName = 64
)

// Scope is something that a token allows.
type Scope string

// The scopes. Admin is everything.
const (
	ScopeUpload Scope = "upload" // send files, see and cancel those that were sent under the token's name
	ScopeRead   Scope = "read"   // see all uploads
	ScopeAdmin  Scope = "admin"  // everything, such as to retry and to forget
)

// ParseScopes reads scopes with commas between them.
func ParseScopes(s string) ([]Scope, error) {
	var scopes []Scope
	for part := range strings.SplitSeq(s, ",") {
		scope := Scope(strings.TrimSpace(part))
		switch scope {
		case ScopeUpload, ScopeRead, ScopeAdmin:
		default:
			return nil, fmt.Errorf("scope %q: want upload, read or admin, or several with commas between them", scope)
		}
		if !slices.Contains(scopes, scope) {
			scopes = append(scopes, scope)
		}
	}
	return scopes, nil
}

func joinScopes(scopes []Scope) string {
	var words []string
	for _, s := range []Scope{ScopeUpload, ScopeRead, ScopeAdmin} {
		if slices.Contains(scopes, s) {
			words = append(words, string(s))
		}
	}
	return strings.Join(words, ",")
}

// TokenOptions say what a token is good for.
type TokenOptions struct {
	// Name is under whose name files are sent with it. A later token of the same
	// name sees what was sent with this one.
	Name    string
	Scopes  []Scope       // at least one
	Expires time.Duration // after which it is good for nothing; 0 if it is good until it is revoked
	MaxSize int64         // bytes of the largest file that may be sent with it; 0 if only the destination sets a limit
	// Destination is the name of the only one that it is good for; all if empty.
	Destination string
}

// TokenInfo is a token that is good.
type TokenInfo struct {
	Name        string
	Scopes      []Scope
	CreatedAt   time.Time
	ExpiresAt   time.Time // zero if it does not expire
	MaxSize     int64     // 0 if it sets no limit
	Destination string    // "" if it is good for all
}

// CreateToken makes a token and returns it. Only its hash is kept. It is good at
// once when it returns, also for a gateway that runs on the folder in another
// process, which lets nobody in without a token from then on. A folder that no
// gateway has worked on is prepared for one. The error may be ErrTokenTaken or
// ErrTokenName.
func CreateToken(ctx context.Context, data string, o TokenOptions) (token string, err error) {
	if err := checkToken(o); err != nil {
		return "", err
	}
	if err := os.MkdirAll(data, 0o700); err != nil {
		return "", fmt.Errorf("create data folder: %w", err)
	}
	db, err := openBeside(ctx, data)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	secret := make([]byte, tokenBytes)
	_, _ = rand.Read(secret) // never fails
	token = tokenPrefix + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(secret))
	now := time.Now()
	err = db.Update(ctx, func(ctx context.Context, tx *sql.Tx) error { return insertToken(ctx, tx, token, o, now) })
	if err != nil {
		return "", fmt.Errorf("token %s: %w", o.Name, err)
	}
	return token, nil
}

func checkToken(o TokenOptions) error {
	if o.Name == "" || utf8.RuneCountInString(o.Name) > maxTokenName || !utf8.ValidString(o.Name) ||
		strings.TrimSpace(o.Name) != o.Name || strings.ContainsFunc(o.Name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fmt.Errorf("%w: %q", ErrTokenName, o.Name)
	}
	if joinScopes(o.Scopes) == "" || o.Expires < 0 || o.MaxSize < 0 {
		return fmt.Errorf("token %s: scopes %v, within %v, up to %d bytes: makes no sense", o.Name, o.Scopes, o.Expires, o.MaxSize)
	}
	if o.Destination != "" {
		return CheckDestinationName(o.Destination)
	}
	return nil
}

func insertToken(ctx context.Context, tx *sql.Tx, token string, o TokenOptions, now time.Time) error {
	// One that has expired leaves its name to the next.
	if _, err := tx.ExecContext(ctx, "update tokens set revoked_at = $1 where name = $2 and revoked_at is null and expires_at <= $1",
		now.UnixMicro(), o.Name); err != nil {
		return err
	}
	var expires, size sql.Null[int64]
	if o.Expires > 0 {
		expires = sql.Null[int64]{V: now.Add(o.Expires).UnixMicro(), Valid: true}
	}
	if o.MaxSize > 0 {
		size = sql.Null[int64]{V: o.MaxSize, Valid: true}
	}
	_, err := tx.ExecContext(ctx, "insert into tokens (hash, name, scopes, max_size, created_at, expires_at, lane) values ($1, $2, $3, $4, $5, $6, $7)",
		tokenHash(token), o.Name, joinScopes(o.Scopes), size, now.UnixMicro(), expires, orNull(o.Destination))
	if sqldb.IsUnique(err) {
		return ErrTokenTaken
	}
	return err
}

func tokenHash(token string) []byte {
	sum := sha256.Sum256([]byte(token))
	return sum[:]
}

// selectGood finds tokens that are good; $1 is the time.
const selectGood = `select name, scopes, coalesce(max_size, 0), created_at, coalesce(expires_at, 0), coalesce(lane, '')
	from tokens where revoked_at is null and (expires_at is null or expires_at > $1)`

func scanToken(row interface{ Scan(...any) error }) (t TokenInfo, err error) {
	var scopes string
	var created, expires int64
	if err := row.Scan(&t.Name, &scopes, &t.MaxSize, &created, &expires, &t.Destination); err != nil {
		return TokenInfo{}, err
	}
	t.CreatedAt = fromMicro(created)
	if expires != 0 {
		t.ExpiresAt = fromMicro(expires)
	}
	t.Scopes, err = ParseScopes(scopes)
	return t, err
}

// Tokens yields the tokens that are good, by their names, also of a gateway that
// runs. After an error it ends, which may be ErrNoGateway.
func Tokens(ctx context.Context, data string) iter.Seq2[TokenInfo, error] {
	return func(yield func(TokenInfo, error) bool) {
		all, err := listTokens(ctx, data)
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

// listTokens holds as many as there are: operators make them by hand.
func listTokens(ctx context.Context, data string) (all []TokenInfo, err error) {
	err = withStore(ctx, data, func(db *sqldb.DB) (err error) {
		rows, err := db.Read().QueryContext(ctx, selectGood+" order by name", time.Now().UnixMicro())
		if err != nil {
			return fmt.Errorf("list tokens: %w", err)
		}
		defer func() { err = errors.Join(err, rows.Close()) }()
		for rows.Next() {
			t, err := scanToken(rows)
			if err != nil {
				return fmt.Errorf("list tokens: %w", err)
			}
			all = append(all, t)
		}
		return rows.Err()
	})
	return all, err
}

// RevokeToken makes the token of a name good for nothing. A gateway that runs on
// the folder, in whatever process, ends what goes on under it within a second. The
// error may be ErrNoToken or ErrNoGateway.
func RevokeToken(ctx context.Context, data, name string) error {
	return withStore(ctx, data, func(db *sqldb.DB) error {
		now := time.Now().UnixMicro()
		return db.Update(ctx, func(ctx context.Context, tx *sql.Tx) error {
			// The row stays: a gateway that had a token is never open again.
			done, err := tx.ExecContext(ctx, "update tokens set revoked_at = $1 where name = $2 and revoked_at is null", now, name)
			if err != nil {
				return fmt.Errorf("revoke token: %w", err)
			}
			n, err := done.RowsAffected()
			if err == nil && n == 0 {
				err = fmt.Errorf("%w: %q", ErrNoToken, name)
			}
			return err
		})
	})
}

// withStore opens the database of a folder that a gateway has worked on, and may
// be working on: each waits for the other's commits. If that one is older, it
// refuses, as the database would have to be changed under it.
func withStore(ctx context.Context, data string, fn func(*sqldb.DB) error) (err error) {
	if _, err := os.Stat(filepath.Join(data, databaseFile)); err != nil {
		return fmt.Errorf("%w: %w", ErrNoGateway, err)
	}
	db, err := openBeside(ctx, data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return fn(db)
}
