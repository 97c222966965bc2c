package gateway

import (
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// A request with an Idempotency-Key is done once: whoever sends it again gets the
// first answer (draft-ietf-httpapi-idempotency-key-header-07). The answer is
// recorded in the transaction that makes the jobs; requests that made none may be
// sent again under their key. What is not the end of the matter is answered as it
// stands: a delivery that had failed, and one that is to be waited for.

const (
	idempotencyKey = "Idempotency-Key"
	maxKey         = 255 // bytes

	// keyLife is how long an answer is kept at least.
	keyLife = 48 * time.Hour
	// keySweep is how many old answers go when a new one is recorded.
	keySweep = 8
)

// keyed is a request with a key.
type keyed struct {
	sender  string
	key     string
	request [sha256.Size]byte // the method and the address
	list    bool              // it is answered with a list
	again   keptAnswer        // what it was answered with before, if errAnswered says so
}

// keptAnswer is an answer to a request whose files were kept.
type keptAnswer struct {
	status   int
	location string
	body     []byte // JSON
	file     *string
}

// errAnswered: the request was answered before.
var errAnswered = errors.New("the request was answered before")

type keyedRequest struct{}

// keyedOf is the request that a context belongs to, nil if it has no key.
func keyedOf(ctx context.Context) *keyed {
	k, _ := ctx.Value(keyedRequest{}).(*keyed)
	return k
}

// once has h done once for each key.
func (a *httpAPI) once(h handler) handler {
	return func(x *exchange, r *http.Request) error {
		k, err := newKeyed(r)
		if err != nil {
			return err
		}
		if k == nil {
			return h(x, r)
		}
		id := k.sender + "\x00" + k.key
		if _, running := a.running.LoadOrStore(id, true); running {
			f := refusal(kindKeyRunning, "A request with this Idempotency-Key is being answered. Nothing of this one was kept. Send it again when that has ended.")
			f.retryAfter = 1
			return f
		}
		defer a.running.Delete(id)
		switch found, err := a.core.answered(r.Context(), k); {
		case err != nil:
			return err
		case found && r.Header.Get("Expect") != "" && announces(r, k.again.file): // nothing of the body has come yet
			return a.answerAgain(x, r, k)
		}
		err = h(x, r.WithContext(context.WithValue(r.Context(), keyedRequest{}, k)))
		if errors.Is(err, errAnswered) {
			return a.answerAgain(x, r, k)
		}
		return err
	}
}

// announces reports whether a request states this digest of its body.
func announces(r *http.Request, file *string) bool {
	if file == nil {
		return false
	}
	d, err := newDigests(r, true)
	if err != nil {
		return false
	}
	sum, ok := d.announcedSHA256()
	return ok && hex.EncodeToString(sum[:]) == *file
}

// answerAgain answers as a request was answered before. If its uploads had not all been
// delivered then, and it wants to wait for that or was answered with why it cannot be,
// it is answered as they stand: they may have been retried.
func (a *httpAPI) answerAgain(x *exchange, r *http.Request, k *keyed) error {
	before := k.again
	failed := before.status >= http.StatusBadRequest
	if _, waits := preferredWait(r); failed || waits && before.status != http.StatusCreated {
		kept, err := k.kept()
		if err != nil {
			return err
		}
		x.again = before.status == http.StatusOK
		return a.answerSettled(x, r.WithContext(context.WithValue(r.Context(), keyedRequest{}, k)), kept, k.list)
	}
	h := x.Header()
	h.Set("Location", before.location)
	if before.status == http.StatusAccepted {
		h.Set("Retry-After", acceptedAgain)
	}
	x.representJSON(before.status, before.body, before.file)
	return nil
}

// kept are the uploads that a request was answered with before, as they were then.
func (k *keyed) kept() ([]Upload, error) {
	list := uploadList{make([]Upload, 1)}
	var value any = &list
	if !k.list {
		value = &list.Uploads[0]
	}
	if err := json.Unmarshal(k.again.body, value); err != nil {
		return nil, fmt.Errorf("read the request's answer: %w", err)
	}
	return list.Uploads, nil
}

// newKeyed is a request's key, nil if it has none.
func newKeyed(r *http.Request) (*keyed, error) {
	fields := r.Header.Values(idempotencyKey)
	if len(fields) == 0 {
		return nil, nil //nolint:nilnil // there is none
	}
	key, ok := parseKey(fields[0])
	if len(fields) > 1 || !ok {
		return nil, refusal(kindKey, `The Idempotency-Key cannot be read. Nothing of this request was kept. Send one, of 1 to %d printable ASCII characters, in quotes: "0f9c2c1e-build-17".`, maxKey)
	}
	q, err := query(r)
	if err != nil {
		return nil, err
	}
	only := callerOf(r.Context()).only() // which is where the request goes if it does not say
	if only != "" {
		only = " " + only
	}
	mediaType, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return &keyed{
		sender: callerOf(r.Context()).sender().V, key: key, list: r.Method == http.MethodPost && mediaType == "multipart/form-data",
		request: sha256.Sum256([]byte(r.Method + " " + r.URL.EscapedPath() + "?" + q.Encode() + only)),
	}, nil
}

// parseKey reads a string of RFC 9651, or a word without the quotes, as many send
// it.
func parseKey(field string) (key string, ok bool) {
	field = strings.Trim(field, " \t")
	quoted := strings.HasPrefix(field, `"`)
	if quoted {
		if len(field) < 2 || !strings.HasSuffix(field, `"`) {
			return "", false
		}
		field = field[1 : len(field)-1]
	}
	var b strings.Builder
	for i := 0; i < len(field); i++ {
		c := field[i]
		switch {
		case c < ' ' || c > '~', !quoted && strings.IndexByte(` ",;\`, c) >= 0, quoted && c == '"':
			return "", false
		case quoted && c == '\\':
			if i++; i == len(field) || field[i] != '"' && field[i] != '\\' {
				return "", false
			}
			c = field[i]
		}
		b.WriteByte(c)
	}
	return b.String(), b.Len() > 0 && b.Len() <= maxKey
}

// answered reports whether a request was answered before, as far as that can be
// said without its body: k.again is the answer then. It is a refusal if the key
// was another request's.
func (g *Gateway) answered(ctx context.Context, k *keyed) (bool, error) {
	_, found, err := g.findAnswer(ctx, g.db.Lookups(), k)
	return found, err
}

func (g *Gateway) findAnswer(ctx context.Context, q querier, k *keyed) (content []byte, found bool, err error) {
	var request []byte
	var file sql.Null[string]
	err = q.QueryRowContext(ctx, `select request, content, file, status, location, body from answered
		where sender = $1 and key = $2 and created_at > $3`, k.sender, k.key, g.now().Add(-keyLife).UnixMicro()).
		Scan(&request, &content, &file, &k.again.status, &k.again.location, &k.again.body)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, false, nil
	case err != nil:
		return nil, false, fmt.Errorf("look for the request's answer: %w", err)
	case string(request) != string(k.request[:]):
		return nil, false, keyReused("It was sent to another address, or with another method.")
	}
	if file.Valid {
		k.again.file = &file.V
	}
	return content, true, nil
}

func keyReused(how string) error {
	return refusal(kindKeyReused, "Another request was sent with this Idempotency-Key. %s Nothing of this request was kept. Send it with a key of its own.", how)
}

// replay returns errAnswered if a request was answered before, whose files have
// come again, and a refusal if what has come is something else.
func (r *reception) replay(ctx context.Context, tx *sql.Tx, k *keyed) error {
	content, found, err := r.g.findAnswer(ctx, tx, k)
	if err != nil || !found {
		return err
	}
	if sum := r.content(); string(content) != string(sum[:]) {
		return keyReused("It had something else in its body.")
	}
	return errAnswered
}

// remember records what a request will be answered with.
func (r *reception) remember(ctx context.Context, tx *sql.Tx, k *keyed, kept []Upload) error {
	status := http.StatusOK
	for _, in := range r.files {
		if !in.again {
			status = http.StatusAccepted
		}
	}
	now, content := r.g.now(), r.content()
	if _, err := tx.ExecContext(ctx, `delete from answered where (sender, key) in
		(select sender, key from answered where created_at < $1 order by created_at limit $2)`, now.Add(-keyLife).UnixMicro(), keySweep); err != nil {
		return fmt.Errorf("forget old answers: %w", err)
	}
	value, file := k.represented(kept)
	_, err := tx.ExecContext(ctx, `insert or replace into answered (sender, key, request, content, file, status, location, body, created_at)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		k.sender, k.key, k.request[:], content[:], file, status, kept[0].address(), encodeJSON(value), now.UnixMicro())
	if err != nil {
		return fmt.Errorf("record answer: %w", err)
	}
	return nil
}

// represented is what a request is answered with.
func (k *keyed) represented(kept []Upload) (value any, file *string) {
	if k.list {
		return uploadList{kept}, nil
	}
	return kept[0], kept[0].SHA256
}

// settled has a request answered in future as it was when it had waited for the
// delivery. An error's status says only that there was one.
func (g *Gateway) settled(ctx context.Context, k *keyed, status int, kept []Upload) error {
	value, _ := k.represented(kept)
	return g.db.Update(ctx, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "update answered set status = $1, body = $2 where sender = $3 and key = $4",
			status, encodeJSON(value), k.sender, k.key)
		return err
	})
}

// content is what a request's body had in it, whatever form that took.
func (r *reception) content() [sha256.Size]byte {
	h := sha256.New()
	put := func(s string) { fmt.Fprintf(h, "%d:%s,", len(s), s) }
	for _, in := range r.files {
		put(in.named().String())
		put(string(in.sum.SHA256[:]))
	}
	put(encodeLabels(r.labelled()))
	if l := r.lane(); l.Name != DefaultDestination { // which answers kept before there were others have not
		put(l.Name)
	}
	var u Upload
	r.described().show(&u)
	put(*cmp.Or(u.Mode, new("")))
	if u.ModifiedAt != nil {
		put(strconv.FormatInt(u.ModifiedAt.UnixMicro(), 10))
	}
	return [sha256.Size]byte(h.Sum(nil))
}
