package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"

	"ferry/proto"
)

// pushFinder finds the files that patterns name, and the name of each at the
// destination.
type pushFinder struct {
	prefix   string // of every name
	hidden   bool   // names that begin with a dot are wanted, too
	excluded excludes

	files  []sendFile
	found  int              // files, also those that were found before, are excluded, or cannot be sent
	places map[string]place // by the name that a file system may hold to be the same
	errs   []error          // what is there and cannot be sent
	empty  []string         // patterns that found nothing
}

// place is who has a name, as a file or as a folder.
type place struct {
	name, path string
	folder     bool
}

// errNames: two files would have the same name.
var errNames = errors.New("names that would be the same")

// find finds what the patterns name: all of it before anything is sent.
func (f *pushFinder) find(patterns []string) error {
	var wanted []string
	for _, p := range patterns {
		if out, ok := strings.CutPrefix(p, "!"); !ok {
			wanted = append(wanted, p)
		} else if err := f.excluded.add(filepath.ToSlash(out)); err != nil {
			return err
		}
	}
	f.places = map[string]place{}
	for _, p := range wanted {
		before := f.found
		if err := f.one(filepath.ToSlash(p)); err != nil {
			return err
		}
		if f.found == before {
			f.empty = append(f.empty, p)
		}
	}
	return nil
}

// one adds what a pattern names. What is there under that very name is meant,
// whatever characters it has.
func (f *pushFinder) one(pattern string) error {
	info, err := os.Stat(pattern)
	switch {
	case err == nil && info.IsDir():
		return f.folder(pattern)
	case err == nil:
		return f.add(pattern, path.Base(pattern))
	case !isWild(pattern) && errors.Is(err, fs.ErrNotExist):
		return nil
	case !isWild(pattern):
		f.fail(pattern, err)
		return nil
	}
	return f.glob(pattern)
}

// folder adds what is in a folder, each under its path from there, which begins
// with the folder's name.
func (f *pushFinder) folder(root string) error {
	top := underTop(path.Base(path.Clean(root)))
	return f.walk(root, func(parts []string, _ fs.DirEntry) (string, bool) {
		return path.Join(append([]string{top}, parts...)...), f.hidden || !isHidden(parts[len(parts)-1])
	})
}

// glob adds what matches a pattern, each under its path below the part of the
// pattern that comes before the first wildcard. Of a folder that matches, it
// is all that is in it.
func (f *pushFinder) glob(pattern string) error {
	g, err := newGlob(pattern)
	if err != nil {
		return err
	}
	if _, err := os.Stat(g.root); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	within := func(parts []string) bool { // a folder that matches
		for i := range parts {
			if g.matches(parts[:i], f.hidden) {
				return true
			}
		}
		return false
	}
	return f.walk(g.root, func(parts []string, d fs.DirEntry) (string, bool) {
		inside := within(parts) && (f.hidden || !isHidden(parts[len(parts)-1]))
		wanted := inside || g.matches(parts, f.hidden) || d.IsDir() && g.leads(parts, f.hidden)
		return path.Join(parts...), wanted
	})
}

// walk adds what is below root and wanted, under the name that wanted gives.
// Links to files are followed, links to folders are not, root itself is.
func (f *pushFinder) walk(root string, wanted func(parts []string, d fs.DirEntry) (as string, ok bool)) error {
	start := strings.TrimSuffix(root, "/") + "/" // with the separator a root that is a link is followed
	return filepath.WalkDir(start, func(file string, d fs.DirEntry, err error) error {
		below, relErr := filepath.Rel(root, file)
		if relErr != nil {
			return relErr
		}
		if below == "." || d == nil {
			if err != nil {
				f.fail(file, err)
			}
			return nil
		}
		shown := path.Join(path.Clean(root), filepath.ToSlash(below))
		as, ok := wanted(strings.Split(filepath.ToSlash(below), "/"), d)
		switch {
		case !ok || f.excluded.match(shown):
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		case err != nil:
			f.fail(shown, err)
			return nil
		case d.IsDir(), isFolderLink(file, d):
			return nil
		}
		return f.add(shown, as)
	})
}

func isFolderLink(file string, d fs.DirEntry) bool {
	if d.Type()&fs.ModeSymlink == 0 {
		return false
	}
	info, err := os.Stat(file)
	return err == nil && info.IsDir()
}

// add adds a file, unless it is excluded or was found already.
func (f *pushFinder) add(file, as string) error {
	if f.excluded.match(file) {
		f.found++
		return nil
	}
	name, err := f.name(file, as)
	if err != nil {
		return err
	}
	first, err := f.occupy(name.String(), file)
	switch {
	case err != nil:
		return err
	case !first:
		f.found++
		return nil
	}
	f.look(file)
	f.files = append(f.files, sendFile{path: file, name: name})
	return nil
}

// name is what a file is called at the destination, in Unicode's form NFC.
func (f *pushFinder) name(file, as string) (proto.FileName, error) {
	name, err := proto.ParseFileName(norm.NFC.String(f.prefix + as))
	if err != nil {
		return proto.FileName{}, fmt.Errorf("%s: as %s%s: %w", printable(file), f.prefix, printable(as), err)
	}
	return name, nil
}

// look finds what cannot be sent while nothing has been sent yet.
func (f *pushFinder) look(file string) {
	src, err := openSource(file)
	if err == nil {
		err = src.Close()
	}
	if err != nil {
		f.fail(file, err)
		return
	}
	f.found++
}

// fail notes why something that is meant cannot be sent.
func (f *pushFinder) fail(file string, err error) {
	f.found++
	f.errs = append(f.errs, fmt.Errorf("%s: %w", printable(file), pathless(err)))
}

// occupy notes that a file has a name, and first is false if that very file has
// it already. That another has it, or one that a file system may take for the
// same, is an error, as is a folder where a file is.
func (f *pushFinder) occupy(name, file string) (first bool, err error) {
	key := alike(name)
	if there, taken := f.places[key]; taken {
		switch {
		case there.folder:
			return false, fmt.Errorf("%w: %s would be stored as %s, which is a folder for %s", errNames, printable(file), name, printable(there.path))
		case path.Clean(there.path) == path.Clean(file):
			return false, nil
		case there.name == name:
			return false, fmt.Errorf("%w: %s and %s would both be stored as %s", errNames, printable(there.path), printable(file), name)
		}
		return false, fmt.Errorf("%w: %s would be stored as %s and %s as %s, which differ in upper and lower case alone",
			errNames, printable(there.path), there.name, printable(file), name)
	}
	f.places[key] = place{name, file, false}
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		there, taken := f.places[alike(dir)]
		if taken && !there.folder {
			return false, fmt.Errorf("%w: %s would be stored as %s, which is a folder for %s", errNames, printable(there.path), there.name, printable(file))
		}
		if taken {
			break
		}
		f.places[alike(dir)] = place{dir, file, true}
	}
	return true, nil
}

// alike is the same for names that file systems without upper and lower case
// take for one.
func alike(name string) string {
	return norm.NFC.String(strings.Map(func(r rune) rune {
		least := r
		for other := unicode.SimpleFold(r); other != r; other = unicode.SimpleFold(other) {
			least = min(least, other)
		}
		return least
	}, norm.NFC.String(name)))
}
