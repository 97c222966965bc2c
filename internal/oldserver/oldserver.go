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

// ErrNoFiles: there is no table of files. The old programs made both at once,
// so that one of their databases is missing or damaged.
var ErrNoFiles = errors.New("no database with a table of files")

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
	name   string // its own, without what is above it
	copies string // of the databases
	dbs    []database
}

// database is a copy of one of the folder's.
type database struct {
	*sql.DB
	name     string
	original fs.FileInfo
}

// Open looks for the databases in dir itself, not in folders below it. It is
// [ErrNoDatabase] if there is none with clients. A file that cannot be read is
// an error: it might be one of them.
func Open(ctx context.Context, dir string) (_ *Folder, err error) {
	whole, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	f := &Folder{root: root, name: filepath.Base(whole)}
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
		if !e.Type().IsRegular() {
			continue
		}
		is, err := f.isDatabase(e.Name())
		if err != nil {
			return nil, fmt.Errorf("is it one of the databases? %w", err)
		}
		if !is {
			continue
		}
		if err := f.open(ctx, e.Name()); err != nil {
			return nil, err
		}
	}
	for _, db := range f.dbs {
		if t, err := db.find(ctx, clientsNames); err != nil || t.name != "" {
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

func (f *Folder) isDatabase(name string) (is bool, err error) {
	file, err := f.root.Open(name)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	head := make([]byte, len(magic))
	n, err := io.ReadFull(file, head)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return string(head[:n]) == magic, err
}

// open copies a database with what SQLite keeps beside it, and keeps it open if
// it has one of the tables: what clients sent may be databases, too.
func (f *Folder) open(ctx context.Context, name string) (err error) {
	for _, suffix := range []string{"", "-wal", "-journal"} {
		err := f.copy(name + suffix)
		if err != nil && (suffix == "" || !errors.Is(err, fs.ErrNotExist)) {
			return err
		}
	}
	original, err := f.root.Stat(name)
	if err != nil {
		return err
	}
	location := url.URL{Scheme: "file", OmitHost: true, Path: filepath.Join(f.copies, name)}
	db := database{name: name, original: original}
	if db.DB, err = sql.Open("sqlite3", location.String()); err != nil {
		return err
	}
	for _, names := range [][]string{clientsNames, filesNames} {
		t, err := db.find(ctx, names)
		if err != nil {
			return errors.Join(err, db.Close())
		}
		if t.name != "" {
			f.dbs = append(f.dbs, db)
			return nil
		}
	}
	return db.Close()
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

// What the tables are called.
var (
	clientsNames = []string{"clients", "client"}
	filesNames   = []string{"files", "file"}
)

// find returns the first table that has one of the names; its name is empty if
// there is none.
func (db database) find(ctx context.Context, names []string) (_ table, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", db.name, err)
		}
	}()
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

func strs(ctx context.Context, db database, query string, args ...any) (all []string, err error) {
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
	_, err = f.rows(ctx, clientsNames, func(t table) string {
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

// Files returns all rows of the table of files. It is [ErrNoFiles] if there is
// no such table.
func (f *Folder) Files(ctx context.Context) (all []File, err error) {
	found, err := f.rows(ctx, filesNames, func(t table) string {
		return strings.Join([]string{
			t.column("id", "uuid", "clientid"),
			t.column("filename", "name"),
			t.column("pathname", "path", "filepath"),
			t.column("verified", "isverified"),
		}, ", ")
	}, func(v []any) {
		all = append(all, File{Client: id(v[0]), Name: text(v[1]), Path: text(v[2]), Verified: truth(v[3])})
	})
	if err == nil && !found {
		err = fmt.Errorf("%w in %s: it is missing or damaged, since the old server made both tables at once", ErrNoFiles, f.root.Name())
	}
	return all, err
}

// rows reports whether there was such a table at all.
func (f *Folder) rows(ctx context.Context, names []string, columns func(table) string, add func([]any)) (found bool, err error) {
	for _, db := range f.dbs {
		t, err := db.find(ctx, names)
		if err != nil {
			return found, err
		}
		if t.name == "" {
			continue
		}
		found = true
		if err := scan(ctx, db, "select "+columns(t)+" from "+quote(t.name), add); err != nil {
			return found, fmt.Errorf("%s: table %s: %w", db.name, t.name, err)
		}
	}
	return found, nil
}

func scan(ctx context.Context, db database, query string, add func([]any)) (err error) {
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
// machine it ran; what is found is always below the folder, and none of the
// databases, else [ErrOutside].
func (f *Folder) OpenFile(kept string) (*os.File, error) {
	p := path.Clean("/" + strings.ReplaceAll(kept, `\`, "/"))[1:]
	cut := f.name // as if p followed it
	for p != "" {
		// In the folder itself lie port.info and more that nobody sent: a bare
		// name is a stored file's only where the path says that it was here.
		if (strings.Contains(p, "/") || cut == f.name) && f.isStored(p) {
			return f.root.Open(p)
		}
		// An absolute path of another machine: what follows may be below here.
		cut, p, _ = strings.Cut(p, "/")
	}
	return nil, ErrOutside
}

// isStored reports whether p may be opened: of anything but a file that might
// take for ever.
func (f *Folder) isStored(p string) bool {
	info, err := f.root.Stat(p)
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	for _, db := range f.dbs {
		if os.SameFile(info, db.original) {
			return false
		}
	}
	return true
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

// moment is the time that v says, or zero if that is none of a calendar with
// four digits for the year: JSON has no more.
func moment(v any) time.Time {
	t := parseMoment(v)
	if y := t.UTC().Year(); y < 1 || y > 9998 { // 9999 may be over elsewhere
		return time.Time{}
	}
	return t
}

// beyondSeconds is a number that counts milliseconds if it is a moment at all:
// as seconds it is in the year 5138.
const beyondSeconds = 100_000_000_000

func parseMoment(v any) time.Time {
	switch v := v.(type) {
	case time.Time:
		return v
	case int64:
		if v >= beyondSeconds {
			return time.UnixMilli(v)
		}
		return time.Unix(v, 0)
	case float64:
		if !(v > -beyondSeconds && v < beyondSeconds) { // NaN is none of both
			return time.Time{}
		}
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
