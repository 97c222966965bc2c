package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	_ "github.com/mattn/go-sqlite3" // the driver that openDatabase names
)

// filledBody is what each upload has that fill makes.
const filledBody = "one of very many\n"

// A filled gateway is one whose table has uploads that never came in: they are
// copies of one that did.
type filled struct {
	native *nativeServer
	data   string
	files  int // that fill has made

	cmd *exec.Cmd // while it runs
	api string
}

// newFilled runs a gateway until it has delivered the upload to be copied.
func newFilled(ctx context.Context, native *nativeServer, data string) (f *filled, err error) {
	f = &filled{native: native, data: data}
	if err := f.start(ctx); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.stop()) }()
	return f, f.post(ctx, "template", filledBody, "wait=60")
}

func (f *filled) start(ctx context.Context) (err error) {
	f.cmd, f.api, err = f.native.startGatewayTo(ctx, f.data)
	return err
}

func (f *filled) stop() error { return end(f.cmd) }

// openDatabase opens the gateway's database beside it.
func (f *filled) openDatabase(ctx context.Context, options string) (*sql.DB, error) {
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(f.data, "gateway.db")+"?_busy_timeout=60000&"+options)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	return db, db.PingContext(ctx)
}

// fill copies the upload n times while the gateway is stopped: as delivered, or
// as queued, each with its job.
func (f *filled) fill(ctx context.Context, n int, queued bool) (err error) {
	db, err := f.openDatabase(ctx, "_synchronous=OFF&_cache_size=-500000&_txlock=immediate")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit there is nothing to roll back
	begun := time.Now().Add(-time.Duration(n) * time.Millisecond).UnixMilli()
	statements := []string{
		fmt.Sprintf(`create temp table copies as with recursive c(i) as (select 0 union all select i + 1 from c where i < %d - 1)
			select i, %d + i as ms, unhex(printf('%%012x', %d + i) || hex(randomblob(10))) as id,
			printf('build-%%d/file-%%d.tar.gz', (%d + i) / 1000, %d + i) as name from c`, n, begun, begun, f.files, f.files),
	}
	override := map[string]string{
		"id": "c.id", "name": "c.name", "created_at": "c.ms * 1000", "updated_at": "c.ms * 1000",
		"changed": "(select max(changed) from uploads) + 1 + c.i", "labels": `printf('{"build":"%d"}', c.i / 1000)`,
	}
	if queued {
		maps.Copy(override, map[string]string{
			"state": "'queued'", "body": "'row'", "attempts": "0", "destination": "null", "delivered_at": "null", "receipt": "null",
			"body_row": "(select coalesce(max(row), 0) from contents) + 1 + c.i",
		})
	} else {
		override["sha256"], override["delivered_at"] = "randomblob(32)", "c.ms * 1000"
	}
	copying, err := copyStatement(ctx, tx, "uploads", override)
	if err != nil {
		return err
	}
	statements = append(statements, copying,
		`insert into labels (key, value, upload) select 'build', cast(i / 1000 as text), id from copies order by 1, 2, 3`)
	if queued {
		statements = append(statements,
			fmt.Sprintf(`insert into contents (row, upload, content) select u.body_row, u.id, cast('%s' as blob) from copies c join uploads u on u.id = c.id order by 1`, filledBody),
			`insert into jobs (upload, name, parked, due_at, fence) select id, name, 0, ms * 1000, 0 from copies order by id`)
	} else {
		noted, err := copyStatement(ctx, tx, "stored", map[string]string{"name": "c.name", "sha256": "x.sha256"})
		if err != nil {
			return err
		}
		statements = append(statements, strings.Replace(noted, "copies c", "copies c join uploads x on x.id = c.id", 1))
	}
	for _, statement := range append(statements, "drop table copies") {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", strings.Fields(statement)[2], err)
		}
	}
	f.files += n
	if err := tx.Commit(); err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, "pragma wal_checkpoint(truncate)")
	return err
}

// copyStatement copies the upload's row in a table for each of the copies, with
// other values in some columns.
func copyStatement(ctx context.Context, tx *sql.Tx, table string, override map[string]string) (string, error) {
	rows, err := tx.QueryContext(ctx, "select name from pragma_table_info($1)", table)
	if err != nil {
		return "", err
	}
	defer rows.Close() //nolint:errcheck // only read
	var columns, values []string
	for rows.Next() {
		var column string
		if err := rows.Scan(&column); err != nil {
			return "", err
		}
		value, other := override[column]
		if !other {
			value = "u." + column
		}
		columns, values = append(columns, column), append(values, value)
	}
	return fmt.Sprintf("insert into %[1]s (%[2]s) select %[3]s from copies c, %[1]s u where u.name = 'template' order by c.i",
		table, strings.Join(columns, ", "), strings.Join(values, ", ")), rows.Err()
}
