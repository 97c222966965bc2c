package gateway

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"

	"github.com/oklog/ulid/v2"
)

const bytesGone = "its bytes are not in the spool any more: send the file again"

// recover finishes what a process before this one could not: files that nobody
// refers to are removed, uploads whose file is gone fail, and every job is
// runnable.
func (g *Gateway) recover(ctx context.Context) error {
	wanted, err := g.spooled(ctx)
	if err != nil {
		return err
	}
	removed, err := g.spool.Sweep(func(folder, name string) bool {
		id, err := ulid.ParseStrict(name)
		size, ok := wanted[id]
		if err != nil || folder != spoolFolder || !ok || !g.intact(id, size) {
			return false
		}
		delete(wanted, id) // found
		return true
	})
	if err != nil {
		return fmt.Errorf("sweep the spool: %w", err)
	}
	if removed > 0 {
		g.log.Info("swept what was left behind", "files", removed)
	}
	return g.db.Update(ctx, func(ctx context.Context, tx *sql.Tx) error {
		for id := range wanted {
			if err := g.bereave(ctx, tx, id); err != nil {
				return err
			}
		}
		if err := restoreJobs(ctx, tx, g.now()); err != nil {
			return fmt.Errorf("restore jobs: %w", err)
		}
		return nil
	})
}

// spooled returns the uploads whose bytes are a file, with its size.
func (g *Gateway) spooled(ctx context.Context) (_ map[ulid.ULID]int64, err error) {
	rows, err := g.db.Read().QueryContext(ctx, "select id, size from uploads where body = 'file'")
	if err != nil {
		return nil, fmt.Errorf("read spooled uploads: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	files := map[ulid.ULID]int64{}
	for rows.Next() {
		var id ulid.ULID
		var size int64
		if err := rows.Scan(&id, &size); err != nil {
			return nil, fmt.Errorf("read spooled uploads: %w", err)
		}
		files[id] = size
	}
	return files, rows.Err()
}

// intact reports whether a file has the size that was recorded.
func (g *Gateway) intact(id ulid.ULID, size int64) bool {
	info, err := g.spool.Stat(spoolFolder, id.String())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return true // it is there, and delivering it will tell
	}
	return err == nil && info.Size() == size
}

// bereave fails an upload that has lost its bytes.
func (g *Gateway) bereave(ctx context.Context, tx *sql.Tx, id ulid.ULID) error {
	u, err := g.load(ctx, tx, id)
	if err != nil {
		return err
	}
	g.log.Error("an upload has lost its file in the spool", "upload", id.String(), "state", u.State)
	now := g.now()
	if _, err := tx.ExecContext(ctx, "delete from jobs where upload = $1", id); err != nil {
		return err
	}
	if err := unpark(ctx, tx, u.DestinationName, u.Name); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `update uploads set body = 'gone', updated_at = $1, changed = `+nextChange+`,
		state = case when state = 'cancelled' then state else 'failed' end,
		error = case when state = 'cancelled' then error else $2 end where id = $3`, now.UnixMicro(), bytesGone, id)
	return err
}
