package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
)

const (
	// checkpointPages is how many pages are written to the log, more or less, before what is in it
	// is copied to the database.
	checkpointPages = 1000
	// restartPages is how long the log gets, in pages, before the writer begins it anew. That
	// is less than walKeep.
	restartPages = 3400
	// lastResortPages is when the writer copies the log by itself, before it goes on.
	lastResortPages = 8000
	// checkpointCommits is how many commits there are between two copies, at most: what a commit takes is
	// known of those before it alone.
	checkpointCommits = 64
)

// A checkpointer copies what is in the write-ahead log to the database, beside the writer, which
// would have to wait for it. The log is begun anew by whoever writes to it when all of it is copied, which it
// never is while others write; so the writer, who has been asked to, copies what has come meanwhile.
type checkpointer struct {
	pool *sql.DB
	conn *sql.Conn

	due     chan int      // commits since the last time; of one element; closed at the end
	restart chan struct{} // of one element: the writer is to copy the rest
	ended   chan struct{}

	every   atomic.Int64 // commits from one copy to the next
	commits int          // since the last one; the writer's
}

// newCheckpointer takes over from the writer.
func newCheckpointer(ctx context.Context, path string, writer *sql.Conn) (*checkpointer, error) {
	pool, err := connect(path, "deferred", false, 1)
	if err != nil {
		return nil, err
	}
	conn, err := pool.Conn(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open database: %w", err), pool.Close())
	}
	if _, err := writer.ExecContext(ctx, fmt.Sprintf("pragma wal_autocheckpoint = %d", lastResortPages)); err != nil {
		return nil, errors.Join(fmt.Errorf("open database: %w", err), conn.Close(), pool.Close())
	}
	c := &checkpointer{pool: pool, conn: conn, due: make(chan int, 1), restart: make(chan struct{}, 1), ended: make(chan struct{})}
	c.every.Store(checkpointCommits / 8)
	go c.loop()
	return c, nil
}

// committed counts a commit of the writer's.
func (c *checkpointer) committed() {
	if c.commits++; int64(c.commits) < c.every.Load() {
		return
	}
	select {
	case c.due <- c.commits:
		c.commits = 0
	default: // it is busy with the last one
	}
}

// loop copies when that is due. What goes wrong, as on a full disk, does so again next time, and in the
// end with the writer, which goes on without as well: the log has it all.
func (c *checkpointer) loop() {
	defer close(c.ended)
	before := 0
	for commits := range c.due {
		pages, err := checkpoint(c.conn)
		if err != nil {
			continue
		}
		grown := pages - before
		if grown <= 0 { // it was begun anew
			grown = pages
		}
		before = pages
		c.every.Store(int64(min(max(1, commits*checkpointPages/max(1, grown)), checkpointCommits)))
		if pages >= restartPages {
			select {
			case c.restart <- struct{}{}:
			default:
			}
		}
	}
}

// checkpoint copies what can be copied without waiting for anybody, and returns how many pages the log
// had.
func checkpoint(conn *sql.Conn) (pages int, err error) {
	var busy, copied int
	err = conn.QueryRowContext(context.Background(), "pragma wal_checkpoint(passive)").Scan(&busy, &pages, &copied)
	return pages, err
}

// close ends it. Nobody calls committed any more.
func (c *checkpointer) close() error {
	close(c.due)
	<-c.ended
	return errors.Join(c.conn.Close(), c.pool.Close())
}
