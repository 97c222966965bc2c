package blob

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// fewest is from how many fsyncs on one of the whole filesystem is cheaper. It
	// has to wait for what others are writing, too.
	fewest = 8
	// smallFile is what still counts as one of many: a larger file is synced by
	// itself, so that others do not wait for all of it.
	smallFile = 1 << 20
	// maxPlaces is how many folders a group keeps open, beside those of the name
	// that is being given.
	maxPlaces = 256
)

// ErrNotDurable: the file has its name, but may lose it with the power. Nobody
// may be told that it is there.
var ErrNotDurable = errors.New("published, and not known to be durable")

// A Publication is a staged file and the name that it is to have.
type Publication struct {
	File         *Staged
	Folder, Name string
}

// PublishAll is Staged.Publish for many files at once, for little more than the
// cost of one: their bytes become durable together, and so do their names. The
// errors are those of each; none touches the others.
func (d *Disk) PublishAll(all []Publication) []error {
	errs := make([]error, len(all))
	for i, p := range all {
		if errs[i] = checkName(p.Folder, p.Name); errs[i] == nil {
			errs[i] = p.File.settle()
		}
	}
	d.syncFiles(all, errs)
	d.giveNames(all, errs)
	for i, p := range all {
		if errs[i] == nil || errors.Is(errs[i], ErrNotDurable) {
			errs[i] = errors.Join(errs[i], p.File.published())
		}
	}
	return errs
}

// syncFiles makes the bytes of all files durable that have no error yet.
func (d *Disk) syncFiles(all []Publication, errs []error) {
	var small []int
	for i, p := range all {
		switch {
		case errs[i] != nil || p.File.durable:
		case p.File.size <= smallFile:
			small = append(small, i)
		default:
			errs[i] = p.File.Sync()
		}
	}
	if len(small) >= fewest && d.syncAll() == nil {
		for _, i := range small {
			all[i].File.durable = true
		}
		return
	}
	// One by one each learns what is wrong with itself.
	for _, i := range small {
		errs[i] = all[i].File.Sync()
	}
}

// syncAll makes everything on the filesystem durable. Linux reports what could
// not be written since the last time, whosever it was.
func (d *Disk) syncAll() error {
	_, err := again(func() (int, error) { return 0, unix.Syncfs(d.stagingFD()) })
	return err
}

// giveNames renames all files that have no error yet, and makes their names
// durable. Others do so at the same time, but not while folders are made.
func (d *Disk) giveNames(all []Publication, errs []error) {
	var these, rest []int
	for i := range all {
		if errs[i] == nil {
			these = append(these, i)
		}
	}
	d.publishing.RLock()
	rest = d.giveThese(all, errs, these, false)
	d.publishing.RUnlock()
	if len(rest) == 0 {
		return
	}
	d.publishing.Lock()
	defer d.publishing.Unlock()
	d.giveThese(all, errs, rest, true)
}

// giveThese is giveNames for some of the files, in their order. Unless it may make
// folders, it ends with the first file that needs one, and returns what is left.
func (d *Disk) giveThese(all []Publication, errs []error, these []int, makes bool) (rest []int) {
	p := newPlaces(d, makes)
	var named []int
	for n, i := range these {
		if errs[i] = p.give(all[i]); errs[i] == nil {
			named = append(named, i)
		} else if errors.Is(errs[i], errNoFolder) {
			errs[i] = nil
			rest = these[n:]
			break
		}
	}
	err := errors.Join(p.sync(), p.close())
	if err == nil {
		return rest
	}
	for _, i := range named {
		errs[i] = fmt.Errorf("%w: %w", ErrNotDurable, err)
	}
	return rest
}

// published lets go of a file that has its name.
func (s *Staged) published() error {
	file := s.file
	s.file = nil
	s.release()
	return errors.Join(s.leaveDirect(), file.Close(), s.keep.forget(), s.keep.end())
}

// errNoFolder: a folder has to be made first.
var errNoFolder = errors.New("no such folder")

// places are the folders that files are given names in. The caller holds
// Disk.publishing until what it did is durable, for itself if it makes folders.
type places struct {
	disk  *Disk
	makes bool
	open  map[string]*os.File // by path; "" holds all folders
	dirty map[string]struct{} // of those open, which have got a name
	many  bool                // others have as well, and are closed
	made  bool                // some of them were made
}

func newPlaces(d *Disk, makes bool) *places {
	return &places{disk: d, makes: makes, open: map[string]*os.File{}, dirty: map[string]struct{}{}}
}

// give gives a file its name.
func (p *places) give(pub Publication) error {
	path, base := split(pub.Folder + "/" + pub.Name)
	at, err := p.folder(path)
	if err != nil {
		return fmt.Errorf("folder: %w", err)
	}
	d, staged := p.disk, pub.File.name
	err = unix.Renameat2(d.stagingFD(), staged, int(at.Fd()), base, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		err = d.link(staged, at, base)
	}
	switch {
	case err == nil:
		p.dirty[path] = struct{}{}
		return nil
	case !errors.Is(err, unix.EEXIST):
		return fmt.Errorf("publish: %w", err)
	}
	if info, err := lstat(at, base); err == nil && info.IsDir() {
		return ErrIsFolder
	}
	return ErrExists
}

// folder opens a folder for files to be put in, and makes what is not there.
func (p *places) folder(path string) (*os.File, error) {
	if f, ok := p.open[path]; ok {
		return f, nil
	}
	if len(p.open) >= maxPlaces {
		if err := p.rest(); err != nil {
			return nil, err
		}
	}
	at, where := p.disk.files, ""
	for part := range strings.SplitSeq(path, "/") {
		next := strings.TrimPrefix(where+"/"+part, "/")
		f, ok := p.open[next]
		if !ok {
			var err error
			if f, err = p.openOrMake(at, where, part); err != nil {
				return nil, err
			}
			p.open[next] = f
		}
		at, where = f, next
	}
	return at, nil
}

func (p *places) openOrMake(at *os.File, where, part string) (*os.File, error) {
	f, err := openFolder(at, part)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	if !p.makes {
		return nil, errNoFolder
	}
	if err := unix.Mkdirat(int(at.Fd()), part, folderMode); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, &fs.PathError{Op: "mkdir", Path: part, Err: err}
	}
	p.made = true
	p.dirty[where] = struct{}{}
	return openFolder(at, part)
}

// rest closes all folders that are open; what they owe is paid by sync.
func (p *places) rest() error {
	p.many = p.many || len(p.dirty) > 0
	clear(p.dirty)
	err := p.close()
	clear(p.open)
	return err
}

// sync makes durable what has changed in the folders.
func (p *places) sync() error {
	d := p.disk
	if len(p.dirty) == 0 && !p.many {
		return nil
	}
	lost := p.many || d.owed // something changed in folders that are not open
	if p.made {
		d.owed = true
	}
	var err error
	if lost || len(p.dirty) >= fewest {
		err = d.syncAll()
	}
	if !lost && (err != nil || len(p.dirty) < fewest) {
		err = p.syncEach()
	}
	if err == nil && p.makes {
		d.owed = false
	}
	return err
}

func (p *places) syncEach() error {
	for path := range p.dirty {
		f := p.open[path]
		if path == "" {
			f = p.disk.files
		}
		if err := f.Sync(); err != nil {
			return err
		}
	}
	return nil
}

func (p *places) close() error {
	var errs []error
	for _, f := range p.open {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// link is for filesystems that cannot rename without replacing. A crash between
// the two steps leaves the file with two names; Sweep takes the staged one away
// without emptying the file.
func (d *Disk) link(staged string, folder *os.File, name string) error {
	if err := unix.Linkat(d.stagingFD(), staged, int(folder.Fd()), name, 0); err != nil {
		return err
	}
	return unix.Unlinkat(d.stagingFD(), staged, 0)
}
