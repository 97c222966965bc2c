package gateway

import (
	"context"
	"database/sql"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/oklog/ulid/v2"

	"ferry/internal/datadir"
	"ferry/internal/sqldb"
)

// databaseFile is the database, in the data folder.
const databaseFile = "gateway.db"

//go:embed migrations/*.sql
var migrationFiles embed.FS

// Where an upload's bytes are: uploads.body.
const (
	bodyRow  = "row"
	bodyFile = "file"
	bodyGone = "gone"
)

// openStore opens the database of a folder that this process has for itself.
func openStore(ctx context.Context, data string) (*sqldb.DB, error) {
	return openDatabase(ctx, data, sqldb.Options{Reserved: controlReserve})
}

// openBeside opens the database of a folder that a gateway may be working on.
func openBeside(ctx context.Context, data string) (*sqldb.DB, error) {
	alone := func() (leave func() error, err error) { return datadir.Borrow(data) }
	return openDatabase(ctx, data, sqldb.Options{Reserved: controlReserve, Alone: alone})
}

func openDatabase(ctx context.Context, data string, o sqldb.Options) (*sqldb.DB, error) {
	path := filepath.Join(data, databaseFile)
	// SQLite gives its other files the mode of this one.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create database: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("create database: %w", err)
	}
	steps, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return nil, err
	}
	return sqldb.OpenWith(ctx, path, steps, o)
}

const selectUploads = `select u.id, u.name, u.size, u.sha256, u.cksum, u.state, u.attempts, u.packets,
	u.last_error, u.error, u.destination, u.created_at, u.updated_at, u.delivered_at, u.receipt is not null, u.labels, u.mode, u.modified, j.due_at, coalesce(j.held, 0), u.changed, u.lane
	from uploads u left join jobs j on j.upload = u.id `

const selectOne = selectUploads + "where u.id = $1"

// querier is a transaction, or the pool of readers.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// load reads one upload as the database knows it, or returns errNotFound.
func (g *Gateway) load(ctx context.Context, q querier, id ulid.ULID) (Upload, error) {
	u, err := g.scan(q.QueryRowContext(ctx, selectOne, id))
	if errors.Is(err, sql.ErrNoRows) {
		return Upload{}, errNotFound
	}
	if err != nil {
		return Upload{}, fmt.Errorf("read upload: %w", err)
	}
	return u, nil
}

func (g *Gateway) scan(row interface{ Scan(...any) error }) (Upload, error) {
	var (
		u                  Upload
		size, packets      int64
		sum                []byte
		cksum              uint32
		created, updated   int64
		delivered, due     sql.Null[int64]
		mode, modified     sql.Null[int64]
		lastError, failure sql.Null[string]
		destination        sql.Null[string]
		labels             sql.Null[string]
		receipt            bool
	)
	if err := row.Scan(&u.ID, &u.Name, &size, &sum, &cksum, &u.State, &u.Attempts.Count, &packets,
		&lastError, &failure, &destination, &created, &updated, &delivered, &receipt, &labels, &mode, &modified, &due, &u.Held, &u.Change, &u.DestinationName); err != nil {
		return Upload{}, err
	}
	digits := hex.EncodeToString(sum)
	u.Size, u.SHA256, u.Cksum = &size, &digits, &cksum
	u.Progress = Progress{TotalBytes: size, TotalPackets: packets}
	if u.State == StateDelivered {
		u.Progress.Bytes, u.Progress.Packets = size, packets
	}
	if lastError.Valid {
		u.Attempts.LastError = &lastError.V
	}
	if failure.Valid && u.State == StateFailed {
		u.Error = &failure.V
	}
	if u.State == StateWaiting && due.Valid && !u.Held {
		u.Attempts.NextAt = new(fromMicro(due.V))
	}
	l, err := g.lanes.named(u.DestinationName)
	if err != nil {
		return Upload{}, err
	}
	u.Destination = l.To.String()
	if destination.Valid {
		u.Destination = destination.V
	}
	l.block(&u)
	u.CreatedAt, u.UpdatedAt = fromMicro(created), fromMicro(updated)
	attributesOf(mode, modified).show(&u)
	if delivered.Valid {
		u.DeliveredAt = new(fromMicro(delivered.V))
	}
	if u.Labels, err = decodeLabels(labels); err != nil {
		return Upload{}, err
	}
	if receipt {
		u.Receipt = new(g.cfg.Front.address(u.address() + receiptPath))
	}
	return u, nil
}

func fromMicro(us int64) time.Time { return time.UnixMicro(us).UTC() }

// get returns one upload, live progress included, or errNotFound.
func (g *Gateway) get(ctx context.Context, id ulid.ULID) (Upload, error) {
	// What is live is looked at first: an upload that goes from memory to the
	// database meanwhile is in one of them at least.
	in, d := g.live.incoming(id), g.live.delivery(id)
	u, err := g.load(ctx, g.db.Lookups(), id)
	switch {
	case errors.Is(err, errNotFound) && in != nil:
		return in.upload(), nil
	case err != nil:
		return Upload{}, err
	}
	if d != nil {
		d.show(&u)
	}
	return u, nil
}

// taken is what there is of a name at a destination.
type taken struct{ queued, delivered bool }

var selectTaken = newPerRow("with given (i, lane, name, url) as (values ", "(?, ?, ?, ?)", `)
	select i, queued, delivered from (select i,
		exists (select 1 from jobs where lane = given.lane and name = given.name and parked = 0) as queued,
		exists (select 1 from uploads where name = given.name and destination = given.url and state = 'delivered') as delivered
		from given) as found where queued or delivered`)

// lookFor returns for each file what there is of its name. There is one writer, so that it stays
// so. One statement that looks and inserts would have SQLite copy each page before it writes
// to it.
func lookFor(ctx context.Context, tx *sql.Tx, files []*incoming) ([]taken, error) {
	args := make([]any, 0, len(files)*selectTaken.columns)
	for i, in := range files {
		l := in.from.lane()
		args = append(args, int64(i), l.Name, in.named().String(), l.To.String())
	}
	found := make([]taken, len(files))
	for statement, args := range selectTaken.statements(args) {
		err := eachRow(ctx, tx, statement, args, func(rows *sql.Rows) error {
			var i int
			var t taken
			if err := rows.Scan(&i, &t.queued, &t.delivered); err != nil {
				return err
			}
			found[i] = t
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("look for the same name: %w", err)
		}
	}
	return found, nil
}

// "or fail": whoever calls takes back the transaction, or the savepoint, if one fails, so that SQLite
// need not keep the pages as they were before the statement: the foreign key of uploads
// is deferred. Those of contents it keeps nevertheless, as what is given for a row's number might be no integer.
var (
	insertUploads = newPerRow(`insert or fail into uploads (id, lane, name, size, sha256, cksum, state, body, body_row, labels, token, mode, modified,
		created_at, updated_at, changed) values `, "(?, ?, ?, ?, ?, ?, 'queued', ?, ?, ?, ?, ?, ?, ?, ?, ?)", "")
	insertContents = newPerRow("insert or fail into contents (row, upload, content) values ", "(?, ?, ?)", "")
)

// driverValue is a value, or nil, as drivers know it: database/sql need not find out how to make one of it.
func driverValue[T any](v sql.Null[T]) any {
	if !v.Valid {
		return nil
	}
	return v.V
}

// insert records uploads and their jobs, with the bodies that are small. parked says that their
// jobs wait behind others of their names.
func (g *Gateway) insert(ctx context.Context, tx *sql.Tx, files []*incoming, parked bool, now time.Time) error {
	if len(files) == 0 {
		return nil
	}
	var changed, row int64
	if err := tx.QueryRowContext(ctx, "select "+nextChange+", (select coalesce(max(row), 0) + 1 from contents)").Scan(&changed, &row); err != nil {
		return fmt.Errorf("record upload: %w", err)
	}
	uploads := make([]any, 0, len(files)*insertUploads.columns)
	contents := make([]any, 0, len(files)*insertContents.columns)
	jobs := make([]any, 0, len(files)*insertJobs.columns)
	for _, in := range files {
		name, l := in.named().String(), in.from.lane()
		mode, modified := in.from.described().row()
		labels, err := keepLabels(ctx, tx, in.id, in.from.labelled())
		if err != nil {
			return err
		}
		id, body, bodyAt := in.id[:], bodyFile, any(nil)
		if !in.spooled {
			content := in.small
			if content == nil {
				content = []byte{} // nil would be NULL
			}
			contents = append(contents, row, id, content)
			body, bodyAt = bodyRow, row
			row++
		}
		uploads = append(uploads, id, l.Name, name, in.sum.Size, in.sum.SHA256[:], int64(in.sum.Cksum), body, bodyAt, driverValue(labels), driverValue(in.from.sender),
			driverValue(mode), driverValue(modified), in.created.UnixMicro(), now.UnixMicro(), changed)
		changed++
		jobs = append(jobs, id, l.Name, name, parked, now.UnixMicro())
	}
	if err := insertUploads.exec(ctx, tx, uploads); err != nil {
		return fmt.Errorf("record upload: %w", err)
	}
	if err := insertContents.exec(ctx, tx, contents); err != nil {
		return fmt.Errorf("keep body: %w", err)
	}
	if err := insertJobs.exec(ctx, tx, jobs); err != nil {
		return fmt.Errorf("record job: %w", err)
	}
	return nil
}

// body returns the bytes of a small upload.
func (g *Gateway) body(ctx context.Context, id ulid.ULID) ([]byte, error) {
	var content []byte
	err := g.db.Read().QueryRowContext(ctx, "select c.content from uploads u join contents c on c.row = u.body_row and c.upload = u.id where u.id = $1", id).Scan(&content)
	return content, err
}

// dropBody gives back the room of an upload's bytes in the database. A file is
// removed after the commit: see dropFile.
func dropBody(ctx context.Context, tx *sql.Tx, id ulid.ULID) error {
	if _, err := tx.ExecContext(ctx, "delete from contents where row = (select body_row from uploads where id = $1) and upload = $2", id, id); err != nil {
		return fmt.Errorf("drop body: %w", err)
	}
	return nil
}

// dropFile removes a file of the spool that no row refers to any more. What a
// crash prevents the next sweep does.
func (g *Gateway) dropFile(id ulid.ULID) {
	if err := g.spool.Remove(spoolFolder, id.String()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		g.log.Error("a file of the spool stays until the next start", "upload", id.String(), "err", err)
	}
}

// A storedFile is what is known of a name at the destination.
type storedFile struct {
	sha256    [32]byte // zeros if it cannot be known
	confirmed bool
}

// lookUp returns what the destination holds under a name, as far as is known.
func lookUp(ctx context.Context, tx *sql.Tx, client []byte, name string) (f storedFile, ok bool, err error) {
	var sum []byte
	err = tx.QueryRowContext(ctx, "select sha256, confirmed from stored where client = $1 and name = $2", client, name).
		Scan(&sum, &f.confirmed)
	if errors.Is(err, sql.ErrNoRows) {
		return storedFile{}, false, nil
	}
	if err != nil {
		return storedFile{}, false, fmt.Errorf("look up what is stored: %w", err)
	}
	copy(f.sha256[:], sum)
	return f, true, nil
}

// note records what the destination holds, or may hold, under a name.
func note(ctx context.Context, tx *sql.Tx, client []byte, name string, f storedFile, now time.Time) error {
	_, err := tx.ExecContext(ctx, `insert into stored (client, name, sha256, confirmed, noted_at) values ($1, $2, $3, $4, $5)
		on conflict (client, name) do update set sha256 = excluded.sha256, confirmed = excluded.confirmed, noted_at = excluded.noted_at`,
		client, name, f.sha256[:], f.confirmed, now.UnixMicro())
	if err != nil {
		return fmt.Errorf("note what is stored: %w", err)
	}
	return nil
}

// unnote takes back that the destination may hold a file.
func unnote(ctx context.Context, tx *sql.Tx, client []byte, name string) error {
	if _, err := tx.ExecContext(ctx, "delete from stored where client = $1 and name = $2 and confirmed = 0", client, name); err != nil {
		return fmt.Errorf("take back a note: %w", err)
	}
	return nil
}
