package gateway

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/oklog/ulid/v2"

	"ferry/proto"
)

// What is sent again under its name is not delivered again: a pipeline that runs
// anew finds the upload that it has made before. Uploads that failed or were
// cancelled do not count, nor do those that another destination got.

// receiveOnce is receive for files of which those that are there already are not
// taken in again: commit returns the uploads that there are. Another content
// under the name of an upload that is on its way or delivered is an error.
func (g *Gateway) receiveOnce(ctx context.Context) *reception {
	r := g.receive(ctx)
	r.once = true
	return r
}

// selectSame are the uploads of a name that count.
const selectSame = `select u.id, u.sha256, u.token from jobs j join uploads u on u.id = j.upload where j.lane = $1 and j.name = $2 and j.parked = 0
	union all select u.id, u.sha256, u.token from jobs j join uploads u on u.id = j.upload where j.lane = $1 and j.name = $2 and j.parked = 1
	union all select id, sha256, token from uploads where name = $3 and destination = $4 and state = 'delivered'`

// errTheirs: there is such an upload, of another sender, of which this one may not
// learn more.
var errTheirs = errors.New("the upload is another sender's")

// earlier returns the upload of a name that counts on a lane, if there is one, preferably
// one of the same content; errors are a refusal if it is another, and errTheirs.
func (g *Gateway) earlier(ctx context.Context, q querier, l *lane, from *caller, name string, sum [32]byte) (u Upload, ok bool, err error) {
	e, ok, err := g.find(ctx, q, l, from, name, sum)
	if err != nil || !ok {
		return Upload{}, false, err
	}
	switch {
	case e.sum != sum && !from.sees(e.sender):
		return Upload{}, false, hiddenConflict(name)
	case e.sum != sum:
		return Upload{}, false, contentConflict(name, e.id, sum, e.sum)
	case !from.sees(e.sender):
		return Upload{}, false, errTheirs
	}
	if u, err = g.load(ctx, q, e.id); err != nil {
		return Upload{}, false, err
	}
	if d := g.live.delivery(e.id); d != nil {
		d.show(&u)
	}
	return u, true, nil
}

// namesake is an upload under a name.
type namesake struct {
	id     ulid.ULID
	sum    [32]byte
	sender sql.Null[string]
}

// find returns an upload of a name that counts on a lane: one of that content if there is
// one, and of those one that the sender may see.
func (g *Gateway) find(ctx context.Context, q querier, l *lane, from *caller, name string, sum [32]byte) (best namesake, ok bool, err error) {
	rows, err := q.QueryContext(ctx, selectSame, l.Name, name, name, l.To.String())
	if err != nil {
		return namesake{}, false, fmt.Errorf("look for the same upload: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() && (!ok || best.sum != sum || !from.sees(best.sender)) {
		var e namesake
		var b []byte
		if err := rows.Scan(&e.id, &b, &e.sender); err != nil {
			return namesake{}, false, fmt.Errorf("look for the same upload: %w", err)
		}
		copy(e.sum[:], b)
		if !ok || e.sum == sum {
			best, ok = e, true
		}
	}
	return best, ok, rows.Err()
}

// hiddenConflict tells nothing of the upload that has the name.
func hiddenConflict(name string) error {
	return refusal(kindConflict, "Another upload has the name %.200q, and other content. Nothing of this request was kept. Send the file under another name.", name)
}

func contentConflict(name string, id ulid.ULID, sum, existing [32]byte) error {
	f := conflict(sum, existing, "The upload %s has the name %.200q and other content: its SHA-256 is %x, and that of what was sent is %x. Nothing of this request was kept. Send the file under another name, or cancel and forget that upload first if it is not delivered yet.",
		id, name, existing, sum)
	f.upload = (&Upload{ID: id}).address()
	return f
}

// conflict is a refusal that has both digests.
func conflict(sum, existing [32]byte, format string, args ...any) *refusalError {
	f := refusal(kindConflict, format, args...)
	f.sha256, f.existing = hex.EncodeToString(sum[:]), hex.EncodeToString(existing[:])
	return f
}

// agree returns a refusal if two files of the request have one name and different content.
func (r *reception) agree() error {
	if !r.once {
		return nil
	}
	sums := map[proto.FileName][32]byte{}
	for _, in := range r.files {
		name, sum := in.named(), in.sum.SHA256
		if before, ok := sums[name]; ok && before != sum {
			return conflict(sum, before, "The form has two files of the name %.200q and different content: the SHA-256 of one is %x, and that of the other is %x. Nothing of this request was kept. Give each file a name of its own.",
				name.String(), before, sum)
		}
		sums[name] = sum
	}
	return nil
}

// repeats reports whether the request had a file of the same name before.
func (r *reception) repeats(in *incoming) bool {
	first := slices.IndexFunc(r.files, func(other *incoming) bool { return other.named() == in.named() })
	return first >= 0 && r.files[first] != in
}

// known returns the upload that a file with this name and content would be
// answered with there, if there is one. To whoever may not see it nothing is known
// before the content has come.
func (g *Gateway) known(ctx context.Context, to outlet, name proto.FileName, sum [32]byte) (Upload, bool, error) {
	from := callerOf(ctx)
	e, ok, err := g.find(ctx, g.db.Lookups(), to.lane, from, name.String(), sum)
	if err != nil || !ok || !from.sees(e.sender) {
		return Upload{}, false, err
	}
	return g.earlier(ctx, g.db.Lookups(), to.lane, from, name.String(), sum)
}

// vacant returns a refusal if there is an upload of a name that counts on a lane, or if
// the destination is known to have that name from one that was forgotten.
func (g *Gateway) vacant(ctx context.Context, tx *sql.Tx, l *lane, from *caller, name string) error {
	switch e, ok, err := g.find(ctx, tx, l, from, name, [32]byte{}); {
	case err != nil:
		return err
	case ok:
		return occupied(name, e, from)
	}
	f, ok, err := lookUp(ctx, tx, l.client(), name)
	if err == nil && ok && f.confirmed {
		err = refusal(kindPrecondition, "The destination has a file of the name %.200q already, and If-None-Match: * says that there must be none. Nothing of this request was kept. Send the file under another name.", name)
	}
	return err
}

// occupied is the refusal of a file that must be the first of its name.
func occupied(name string, e namesake, from *caller) error {
	f := refusal(kindPrecondition, "There is an upload of the name %.200q already, and If-None-Match: * says that there must be none. Nothing of this request was kept. Send the file under another name, or without If-None-Match: the same content is not delivered twice.", name)
	if from.sees(e.sender) {
		f.upload, f.existing = (&Upload{ID: e.id}).address(), hex.EncodeToString(e.sum[:])
	}
	return f
}

// unused is vacant as far as it can be said before the content has come, to whoever may
// see what there is.
func (g *Gateway) unused(ctx context.Context, to outlet, name proto.FileName) error {
	from := callerOf(ctx)
	e, ok, err := g.find(ctx, g.db.Lookups(), to.lane, from, name.String(), [32]byte{})
	if err != nil || !ok || !from.sees(e.sender) {
		return err
	}
	return occupied(name.String(), e, from)
}

// keep records a file and its job, or finds the upload that is there already. One
// of another sender, with the same content, does not count for whoever may not
// see it: what has come is delivered beside it, which the destination takes for
// the same file.
func (r *reception) keep(ctx context.Context, tx *sql.Tx, in *incoming) (Upload, error) {
	now := r.g.now()
	in.again = false // the transaction may have broken off before
	if r.onlyNew && (!r.once || !r.repeats(in)) {
		if err := r.g.vacant(ctx, tx, r.lane(), r.from, in.named().String()); err != nil {
			return Upload{}, err
		}
	}
	found, err := lookFor(ctx, tx, []*incoming{in})
	if err != nil {
		return Upload{}, err
	}
	if there := found[0]; r.once && there != (taken{}) {
		u, ok, err := r.g.earlier(ctx, tx, r.lane(), r.from, in.named().String(), in.sum.SHA256)
		if err == nil && !ok {
			err = errors.New("internal error: what prevents the upload is not there")
		}
		if !errors.Is(err, errTheirs) {
			in.again = err == nil
			return u, err
		}
	}
	return in.queued(now), r.g.insert(ctx, tx, []*incoming{in}, found[0].queued, now)
}

// keepAll is keep for files of different requests, by few statements. A file that is refused
// says so itself; an error is that of all.
func (g *Gateway) keepAll(ctx context.Context, tx *sql.Tx, files []*incoming) error {
	found, err := lookFor(ctx, tx, files)
	if err != nil {
		return err
	}
	type way struct {
		lane *lane
		name proto.FileName
	}
	names := map[way]bool{}
	now := g.now()
	var fresh, others []*incoming
	for i, in := range files {
		to := way{in.from.lane(), in.named()}
		if found[i] != (taken{}) || names[to] || in.from.onlyNew {
			others = append(others, in)
			continue
		}
		names[to] = true
		fresh = append(fresh, in)
		in.again, in.refused, in.kept = false, nil, in.queued(now)
	}
	if err := g.insert(ctx, tx, fresh, false, now); err != nil {
		return err
	}
	for _, in := range others {
		in.kept, in.refused = in.from.keep(ctx, tx, in)
		if in.refused != nil && !isRefusal(in.refused) {
			return in.refused
		}
	}
	return nil
}

// isRefusal reports whether an error is one of whoever asked, and so of nobody else's.
func isRefusal(err error) bool {
	_, ok := errors.AsType[*refusalError](err)
	return ok
}
