package gateway

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"

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
const selectSame = `select u.id, u.sha256 from jobs j join uploads u on u.id = j.upload where j.name = $1
	union all select id, sha256 from uploads where name = $2 and destination = $3 and state = 'delivered'`

// earlier returns the upload of a name that counts, if there is one, preferably
// one of the same content; errors are a refusal if it is another.
func (g *Gateway) earlier(ctx context.Context, q querier, name string, sum [32]byte) (u Upload, ok bool, err error) {
	id, existing, ok, err := g.earlierID(ctx, q, name, sum)
	if err != nil || !ok {
		return Upload{}, false, err
	}
	if existing != sum {
		return Upload{}, false, contentConflict(name, id, sum, existing)
	}
	if u, err = g.load(ctx, q, id); err != nil {
		return Upload{}, false, err
	}
	if d := g.live.delivery(id); d != nil {
		d.show(&u)
	}
	return u, true, nil
}

func (g *Gateway) earlierID(ctx context.Context, q querier, name string, sum [32]byte) (id ulid.ULID, existing [32]byte, ok bool, err error) {
	rows, err := q.QueryContext(ctx, selectSame, name, name, g.cfg.To.String())
	if err != nil {
		return ulid.ULID{}, [32]byte{}, false, fmt.Errorf("look for the same upload: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() && existing != sum {
		var b []byte
		if err := rows.Scan(&id, &b); err != nil {
			return ulid.ULID{}, [32]byte{}, false, fmt.Errorf("look for the same upload: %w", err)
		}
		copy(existing[:], b)
		ok = true
	}
	return id, existing, ok, rows.Err()
}

func contentConflict(name string, id ulid.ULID, sum, existing [32]byte) error {
	f := refusal(kindConflict, "The upload %s has the name %.200q and other content: its SHA-256 is %x, and that of what was sent is %x. Nothing of this request was kept. Send the file under another name, or cancel and forget that upload first if it is not delivered yet.",
		id, name, existing, sum)
	f.upload = (&Upload{ID: id}).address()
	f.sha256, f.existing = hex.EncodeToString(sum[:]), hex.EncodeToString(existing[:])
	return f
}

// known returns the upload that a file with this name and content would be
// answered with, if there is one.
func (g *Gateway) known(ctx context.Context, name proto.FileName, sum [32]byte) (Upload, bool, error) {
	return g.earlier(ctx, g.db.Read(), name.String(), sum)
}

// keep records a file and its job, or finds the upload that is there already.
func (r *reception) keep(ctx context.Context, tx *sql.Tx, in *incoming) (Upload, error) {
	now := r.g.now()
	in.again = false // the transaction may have broken off before
	made, err := r.g.insert(ctx, tx, in, now)
	if err != nil {
		return Upload{}, err
	}
	if made {
		return in.queued(r.g.cfg.To, now), nil
	}
	u, ok, err := r.g.earlier(ctx, tx, in.named().String(), in.sum.SHA256)
	if err == nil && !ok {
		err = errors.New("internal error: what prevents the upload is not there")
	}
	in.again = err == nil
	return u, err
}
