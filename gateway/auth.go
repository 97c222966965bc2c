package gateway

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
)

// maxBearer bounds what is hashed of a request.
const maxBearer = 512

// A caller is whose token a request showed. A nil *caller is anybody at an open
// gateway, who may do everything.
type caller struct {
	TokenInfo
	hash []byte
}

func (c *caller) may(s Scope) bool {
	return c == nil || slices.Contains(c.Scopes, s) || slices.Contains(c.Scopes, ScopeAdmin)
}

// sees reports whether it may see what was sent under a name.
func (c *caller) sees(sender sql.Null[string]) bool {
	return c.may(ScopeRead) || sender == c.sender()
}

// only is the name of the destination that it is for, "" if it is for all.
func (c *caller) only() string {
	if c == nil {
		return ""
	}
	return c.Destination
}

// uses reports whether it may use the destination of a name.
func (c *caller) uses(name string) bool { return c.only() == "" || c.only() == name }

// seesAll reports whether it sees every upload.
func (c *caller) seesAll() bool { return c.may(ScopeRead) && c.only() == "" }

// sender is under which name it sends.
func (c *caller) sender() sql.Null[string] {
	if c == nil {
		return sql.Null[string]{}
	}
	return sql.Null[string]{V: c.Name, Valid: true}
}

// tooLarge returns the refusal of a file that has more bytes than the token
// allows, or nil.
func (c *caller) tooLarge(size int64) error {
	if c == nil || c.MaxSize == 0 || size <= c.MaxSize {
		return nil
	}
	return &refusalError{problemKind: kindTooLarge, limit: c.MaxSize, detail: "The file has more bytes than the token that was shown allows, " +
		grouped(c.MaxSize) + " in one file. Nothing of this request was kept. Send it in parts, or ask the gateway's operator for another token."}
}

type callerKey struct{}

// callerOf returns who is behind a request's context, nil if it was not asked.
func callerOf(ctx context.Context) *caller {
	c, _ := ctx.Value(callerKey{}).(*caller)
	return c
}

// The kinds of problems with tokens.
var (
	kindUnauthorized = problemKind{"unauthorized", http.StatusUnauthorized, "The request needs a token that is good"}
	kindForbidden    = problemKind{"forbidden", http.StatusForbidden, "The token does not allow that"}
)

var (
	// errTokenEnded ends requests whose token was revoked or expired meanwhile.
	errTokenEnded = refusal(kindUnauthorized, "The token was revoked or has expired while the request was under way. What was not complete by then was not kept. Ask the gateway's operator for another one.")
	errNoBearer   = refusal(kindUnauthorized, "The gateway wants a token, and the request shows none. Nothing was done. Send Authorization: Bearer TOKEN; the gateway's operator makes tokens with ferry token create.")
	errBadBearer  = refusal(kindUnauthorized, "The token that the request shows is not good: it is none of this gateway's, was revoked, or has expired. Nothing was done. Ask the gateway's operator for another one.")
)

// forbidden says which scope the token lacks.
func forbidden(lacks Scope) error {
	return refusal(kindForbidden, "The token lacks the scope %s. Nothing was done. Ask the gateway's operator for a token that has it.", lacks)
}

// challenge is the WWW-Authenticate of RFC 6750 that belongs to a refusal, "" if
// none does.
func challenge(f *refusalError) string {
	switch {
	case f == errNoBearer:
		return `Bearer realm="ferry"`
	case f.name == kindUnauthorized.name:
		return `Bearer realm="ferry", error="invalid_token"`
	case f.name == kindForbidden.name:
		return `Bearer realm="ferry", error="insufficient_scope"`
	}
	return ""
}

// admit finds out who is behind a request and whether they may do what it asks
// for. The request that it returns ends when its token does; leave must be
// called.
func (a *httpAPI) admit(x *exchange, r *http.Request) (_ *http.Request, leave func(), err error) {
	leave = func() {}
	if a.isPublic(r) {
		return r, leave, nil
	}
	if !a.door.isClosed() {
		// Whoever shows a token knows of the first one before the door does, and
		// would not find again what was sent without it.
		if len(r.Header.Values("Authorization")) == 0 {
			return r, leave, nil
		}
		if err := a.door.look(r.Context()); err != nil || !a.door.isClosed() {
			return r, leave, err
		}
	}
	token, err := bearer(r)
	if err != nil {
		return r, leave, err
	}
	c, err := a.door.find(r.Context(), tokenHash(token))
	if err != nil {
		return r, leave, err
	}
	x.token = c.Name
	ctx, end := context.WithCancelCause(context.WithValue(r.Context(), callerKey{}, c))
	out := a.door.enter(c, end)
	stop := context.AfterFunc(ctx, x.body.Interrupt)
	leave = func() {
		out()
		stop()
		end(nil)
	}
	return r.WithContext(ctx), leave, a.permit(ctx, r, c)
}

// bearer is the token that a request shows.
func bearer(r *http.Request) (string, error) {
	fields := r.Header.Values("Authorization")
	if len(fields) == 0 {
		return "", errNoBearer
	}
	scheme, token, _ := strings.Cut(fields[0], " ")
	token = strings.TrimSpace(token)
	if len(fields) > 1 || !strings.EqualFold(scheme, "Bearer") || token == "" || len(token) > maxBearer {
		return "", errBadBearer
	}
	return token, nil
}

// isPublic reports whether a request is for what tells nothing of anybody's
// uploads.
func (a *httpAPI) isPublic(r *http.Request) bool {
	if !isSafe(r.Method) && r.Method != http.MethodOptions {
		return false
	}
	switch path := r.URL.Path; path {
	case "/", "/healthz", "/readyz", "/openapi.yaml":
		return true
	default:
		_, file := a.static[path]
		return file || path == problemsIndex || strings.HasPrefix(path, problemsPath)
	}
}

// permit returns why a token's owner may not do what a request asks for, or nil.
// What is not known here needs admin.
func (a *httpAPI) permit(ctx context.Context, r *http.Request, c *caller) error {
	upload, one := strings.CutPrefix(r.URL.Path, uploadsPath)
	id, _, _ := strings.Cut(upload, "/")
	one = one && upload != ""
	safe := isSafe(r.Method)
	switch {
	case r.Method == http.MethodOptions: // the answer is the same whatever there is
		return nil
	case c.may(ScopeAdmin), safe && c.may(ScopeRead):
		if one && r.Method != http.MethodPut && r.URL.Path != bulkPath {
			return a.door.within(ctx, id, c)
		}
		return nil
	case safe && one && c.may(ScopeUpload):
		return a.door.owned(ctx, id, c)
	case safe && (r.URL.Path == "/uploads" || r.URL.Path == eventsPath) && c.may(ScopeUpload): // its own
		return nil
	case safe && (r.URL.Path == destinationsPath || strings.HasPrefix(r.URL.Path, destinationsPath+"/")): // those it may use
		return nil
	case safe:
		return forbidden(ScopeRead)
	case r.Method == http.MethodPost && (r.URL.Path == "/uploads" || r.URL.Path == uploadsPath), r.Method == http.MethodPut:
		if !c.may(ScopeUpload) {
			return forbidden(ScopeUpload)
		}
		return nil
	case (r.Method == http.MethodDelete || r.Method == http.MethodPost && strings.HasSuffix(upload, "/cancel")) && one && c.may(ScopeUpload):
		err := a.door.owned(ctx, id, c)
		if errors.Is(err, errNotFound) && c.may(ScopeRead) && a.door.within(ctx, id, c) == nil { // who sees it anyway
			return forbidden(ScopeAdmin)
		}
		return err
	}
	return forbidden(ScopeAdmin)
}

// find returns whose token has a hash, if it is good.
func (d *door) find(ctx context.Context, hash []byte) (*caller, error) {
	// Finding it by its hash says nothing of the token by the time it takes: whoever
	// tries tokens does not choose their hashes.
	t, err := scanToken(d.db.Lookups().QueryRowContext(ctx, selectGood+" and hash = $2", time.Now().UnixMicro(), hash))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, errBadBearer
	}
	if err != nil {
		return nil, fmt.Errorf("look up token: %w", err)
	}
	return &caller{t, hash}, nil
}

// owned returns errNotFound unless the upload was sent under the token's name, to a
// destination that the token is for.
func (d *door) owned(ctx context.Context, text string, c *caller) error {
	sender, lane, err := d.origin(ctx, text)
	if err == nil && (sender != c.sender() || !c.uses(lane)) {
		return errNotFound
	}
	return err
}

// within returns errNotFound unless the upload is for a destination that the token is
// for. Of a token for all it asks nothing.
func (d *door) within(ctx context.Context, text string, c *caller) error {
	if c.only() == "" {
		return nil
	}
	_, lane, err := d.origin(ctx, text)
	if err == nil && !c.uses(lane) {
		return errNotFound
	}
	return err
}

// origin is the name of the token that an upload was sent with, and that of its
// destination.
func (d *door) origin(ctx context.Context, text string) (sender sql.Null[string], lane string, err error) {
	id, err := ulid.ParseStrict(text)
	if err != nil {
		return sender, "", errNotFound
	}
	if in := d.live.incoming(id); in != nil {
		return in.from.sender, in.from.lane().Name, nil
	}
	err = d.db.Lookups().QueryRowContext(ctx, "select token, lane from uploads where id = $1", id).Scan(&sender, &lane)
	if errors.Is(err, sql.ErrNoRows) {
		return sender, "", errNotFound
	}
	if err != nil {
		return sender, "", fmt.Errorf("read upload's token: %w", err)
	}
	return sender, lane, nil
}
