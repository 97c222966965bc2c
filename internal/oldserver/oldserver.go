// Package oldserver reads the folder of an old server of wire version 3: its
// SQLite databases and the files it stored. It changes nothing there: the
// databases are copied before SQLite sees them, since it would finish a
// transaction that was interrupted.
//
// The old programs agreed on what they kept and not on how they called it, nor
// on one database or two. Tables and columns are found by their names without
// regard to case, blanks and underscores.
package oldserver

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	_ "github.com/mattn/go-sqlite3" // the databases are SQLite's
)

// ErrNoDatabase: there is no SQLite database with a table of clients.
var ErrNoDatabase = errors.New("no database of an old server")

// ErrOutside: a file's path on record leads out of the folder, or nowhere.
var ErrOutside = errors.New("its path on record is not in the folder")

// Client is a row of the old table of clients.
type Client struct {
	ID        []byte // as it was kept; 16 bytes if it is of any use
	Name      string
	PublicKey []byte    // SubjectPublicKeyInfo in DER; empty if the client never sent one
	LastSeen  time.Time // zero if it cannot be read
}

// File is a row of the old table of files.
type File struct {
	Client   []byte // the id of the client
	Name     string
	Path     string // as it was kept: relative to the program's folder, or absolute
	Verified bool
}

// Folder is an old server's folder.
type Folder struct {
	root   *os.Root
	copies string // of the databases
	dbs    []*sql.DB
}

// Open looks for the databases in dir itself, not in folders below it. It is
// [ErrNoDatabase] if there is none with clients.
func Open(ctx context.Context, dir string) (_ *Folder, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	f := &Folder{root: root}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if f.copies, err = os.MkdirTemp("", "ferry-import-"); err != nil {
		return nil, err
	}
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() || !f.isDatabase(e.Name()) {
			continue
		}
		if err := f.open(e.Name()); err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name(), err)
		}
	}
	for _, db := range f.dbs {
		if t, err := findTable(ctx, db, "clients", "client"); err != nil || t.name != "" {
			return f, err
		}
	}
	return nil, fmt.Errorf("%w in %s: looked for a SQLite file with a table named clients", ErrNoDatabase, dir)
}

// Close removes the copies.
func (f *Folder) Close() error {
	var errs []error
	for _, db := range f.dbs {
		errs = append(errs, db.Close())
	}
	if f.copies != "" {
		errs = append(errs, os.RemoveAll(f.copies))
	}
	return errors.Join(append(errs, f.root.Close())...)
}

// magic is how a SQLite database begins: https://sqlite.org/fileformat.html
const magic = "SQLite format 3\x00"

func (f *Folder) isDatabase(name string) bool {
	file, err := f.root.Open(name)
	if err != nil {
		return false
	}
	defer func() { _ = file.Close() }()
	head := make([]byte, len(magic))
	_, err = io.ReadFull(file, head)
	return err == nil && string(head) == magic
}

// open copies a database with what SQLite keeps beside it.
func (f *Folder) open(name string) error {
	for _, suffix := range []string{"", "-wal", "-journal"} {
		err := f.copy(name + suffix)
		if err != nil && (suffix == "" || !errors.Is(err, fs.ErrNotExist)) {
			return err
		}
	}
	location := url.URL{Scheme: "file", OmitHost: true, Path: filepath.Join(f.copies, name)}
	db, err := sql.Open("sqlite3", location.String())
	if err != nil {
		return err
	}
	f.dbs = append(f.dbs, db)
	return nil
}

func (f *Folder) copy(name string) (err error) {
	from, err := f.root.Open(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	to, err := os.OpenFile(filepath.Join(f.copies, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Close())
}

// table is one of the old tables: names as they are, by what they are without
// case, blanks and underscores.
type table struct {
	name    string
	columns map[string]string
}

func plain(name string) string {
	return strings.ToLower(strings.NewReplacer(" ", "", "_", "", "-", "").Replace(name))
}

// findTable returns the first table that has one of the names; its name is
// empty if there is none.
func findTable(ctx context.Context, db *sql.DB, names ...string) (table, error) {
	all, err := strs(ctx, db, "select name from sqlite_master where type = 'table' order by name")
	if err != nil {
		return table{}, err
	}
	for _, want := range names {
		for _, name := range all {
			if plain(name) != want {
				continue
			}
			columns, err := strs(ctx, db, "select name from pragma_table_info($1)", name)
			t := table{name: name, columns: map[string]string{}}
			for _, c := range columns {
				t.columns[plain(c)] = c
			}
			return t, err
		}
	}
	return table{}, nil
}

// column returns the quoted name of the first column there is of those, and an
// expression for nothing if there is none.
func (t table) column(names ...string) string {
	for _, n := range names {
		if c, ok := t.columns[n]; ok {
			return quote(c)
		}
	}
	return "null"
}

func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

func strs(ctx context.Context, db *sql.DB, query string, args ...any) (all []string, err error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, rows.Err()
}

// Clients returns all rows of the table of clients.
func (f *Folder) Clients(ctx context.Context) (all []Client, err error) {
	err = f.rows(ctx, []string{"clients", "client"}, func(t table) string {
		return strings.Join([]string{
			t.column("id", "uuid", "clientid"),
			t.column("name", "username", "clientname"),
			t.column("publickey", "pubkey", "key"),
			t.column("lastseen", "lastseentime", "lastactive"),
		}, ", ")
	}, func(v []any) {
		all = append(all, Client{ID: id(v[0]), Name: text(v[1]), PublicKey: blob(v[2]), LastSeen: moment(v[3])})
	})
	return all, err
}

// Files returns all rows of the table of files; there may be none.
func (f *Folder) Files(ctx context.Context) (all []File, err error) {
	err = f.rows(ctx, []string{"files", "file"}, func(t table) string {
		return strings.Join([]string{
			t.column("id", "uuid", "clientid"),
			t.column("filename", "name"),
			t.column("pathname", "path", "filepath"),
			t.column("verified", "isverified"),
		}, ", ")
	}, func(v []any) {
		all = append(all, File{Client: id(v[0]), Name: text(v[1]), Path: text(v[2]), Verified: truth(v[3])})
	})
	return all, err
}

func (f *Folder) rows(ctx context.Context, names []string, columns func(table) string, add func([]any)) error {
	for _, db := range f.dbs {
		t, err := findTable(ctx, db, names...)
		if err != nil {
			return err
		}
		if t.name == "" {
			continue
		}
		if err := scan(ctx, db, "select "+columns(t)+" from "+quote(t.name), add); err != nil {
			return fmt.Errorf("table %s: %w", t.name, err)
		}
	}
	return nil
}

func scan(ctx context.Context, db *sql.DB, query string, add func([]any)) (err error) {
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		v := make([]any, 4)
		if err := rows.Scan(&v[0], &v[1], &v[2], &v[3]); err != nil {
			return err
		}
		add(v)
	}
	return rows.Err()
}

// OpenFile opens a stored file. Its path is taken as the old program kept it,
// with slashes or back-slashes, relative to its folder or absolute on whatever
// machine it ran; what is found is always below the folder, else [ErrOutside].
func (f *Folder) OpenFile(kept string) (*os.File, error) {
	p := path.Clean("/" + strings.ReplaceAll(kept, `\`, "/"))[1:]
	for p != "" {
		if info, err := f.root.Stat(p); err == nil && info.Mode().IsRegular() { // to open anything else might take for ever
			return f.root.Open(p)
		}
		// An absolute path of another machine: what follows may be below here.
		_, p, _ = strings.Cut(p, "/")
	}
	return nil, ErrOutside
}

// The old programs bound values as they liked; these take what was seen.

func text(v any) string {
	s := string(blob(v))
	return strings.TrimRight(s, "\x00")
}

func blob(v any) []byte {
	switch v := v.(type) {
	case []byte:
		return v
	case string:
		return []byte(v)
	}
	return nil
}

// id is 16 raw bytes, or their 32 hexadecimal digits.
func id(v any) []byte {
	b := blob(v)
	digits := strings.ReplaceAll(string(b), "-", "")
	if raw, err := hex.DecodeString(digits); err == nil && len(raw) == 16 {
		return raw
	}
	return b
}

func truth(v any) bool {
	switch v := v.(type) {
	case int64:
		return v != 0
	case bool:
		return v
	}
	yes, err := strconv.ParseBool(strings.TrimSpace(text(v)))
	return err == nil && yes
}

// layouts are how moments were written: Python's str(datetime), ISO 8601,
// ctime, and day first.
var layouts = []string{
	"2006-01-02 15:04:05.999999", time.RFC3339Nano, "2006-01-02T15:04:05.999999",
	time.ANSIC, "02/01/2006 15:04:05", "02/01/06 15:04:05",
}

func moment(v any) time.Time {
	switch v := v.(type) {
	case time.Time:
		return v
	case int64:
		return time.Unix(v, 0)
	case float64:
		return time.UnixMicro(int64(v * 1e6))
	}
	s := strings.TrimSpace(text(v))
	for _, l := range layouts {
		if t, err := time.ParseInLocation(l, s, time.Local); err == nil {
			return t
		}
	}
	return time.Time{}
}
