package gateway

import (
	"context"
	"database/sql"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/oklog/ulid/v2"
)

// kindPrecondition says that an upload, or what there is under a name, is not as
// If-Match or If-None-Match has it.
var kindPrecondition = problemKind{"precondition", http.StatusPreconditionFailed, "A condition of the request is not met"}

// errChanged: the upload is not as the request's If-Match has it.
var errChanged = errors.New("the upload is not as If-Match has it")

// ifMatch has a handler that changes an upload do so only if that is as If-Match has
// it (RFC 9110, section 13.1.1): when it is looked at here, progress included, and
// in its state and attempts still when it is changed. If-None-Match is looked at
// here alone.
func (a *httpAPI) ifMatch(next handler) handler {
	return func(x *exchange, r *http.Request) error {
		given, unwanted := elements(r.Header, "If-Match"), elements(r.Header, "If-None-Match")
		if len(given) == 0 && len(unwanted) == 0 {
			return next(x, r)
		}
		id, err := uploadID(r)
		if err != nil {
			return err
		}
		u, err := a.core.get(r.Context(), id)
		if err != nil {
			return err
		}
		tag := uploadTag(&u, encodeJSON(u))
		for _, g := range unwanted {
			if g == "*" || strings.TrimPrefix(g, "W/") == tag {
				return refusal(kindPrecondition, "The upload is what If-None-Match says that it must not be. Nothing was changed. Send it without.")
			}
		}
		if len(given) == 0 {
			return next(x, r)
		}
		for _, g := range given {
			switch g {
			case "*":
				return next(x, r)
			case tag: // a weak one, W/..., is another
				return next(x, r.WithContext(context.WithValue(r.Context(), stateKey{}, u.stateTag())))
			}
		}
		return errChanged
	}
}

// stateKey is that of the stateTag that an upload must have to be changed.
type stateKey struct{}

// asExpected returns errChanged if an upload is in another state than the request
// wants it to be in.
func asExpected(ctx context.Context, u *Upload) error {
	if want, ok := ctx.Value(stateKey{}).(string); ok && u.stateTag() != want {
		return errChanged
	}
	return nil
}

// expected is asExpected for an upload that was not loaded yet.
func (g *Gateway) expected(ctx context.Context, tx *sql.Tx, id ulid.ULID) error {
	if ctx.Value(stateKey{}) == nil {
		return nil
	}
	u, err := g.load(ctx, tx, id)
	if err != nil {
		return err
	}
	return asExpected(ctx, &u)
}

// noMatch refuses If-Match where a file is sent: there is nothing under its name that
// could be replaced.
func noMatch(r *http.Request) error {
	if strings.Join(r.Header.Values("If-Match"), "") == "" {
		return nil
	}
	return refusal(kindPrecondition, "A file is never put in the place of another, so that there is nothing that If-Match could mean. Nothing of this request was kept. Send it without.")
}

// onlyNew reports whether a file is to be taken only if there is none under its name
// (RFC 9110, section 13.1.2). ETags in If-None-Match are no files': none matches.
func onlyNew(r *http.Request) bool {
	return slices.Contains(elements(r.Header, "If-None-Match"), "*")
}
