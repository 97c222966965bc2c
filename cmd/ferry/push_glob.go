package main

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// A glob is a pattern of paths: * and ? and [a-z] within a part of a path, and
// ** for any number of folders, none included.
type glob struct {
	text string
	root string   // the folder that it begins in
	rest []string // what is below it, from the first part with a wildcard
}

const anyFolders = "**"

// newGlob reads a pattern with "/" between its parts.
func newGlob(text string) (glob, error) {
	g := glob{text: text, root: "."}
	if strings.HasPrefix(text, "/") {
		g.root = "/"
	}
	for part := range strings.SplitSeq(text, "/") {
		if part == "" || part == "." {
			continue
		}
		if _, err := path.Match(part, ""); err != nil {
			return glob{}, fmt.Errorf("%s: the pattern's part %q cannot be read: want *, ?, [a-z], ** or \\ before what is meant as it is", printable(text), part)
		}
		if len(g.rest) == 0 && !isWild(part) {
			g.root = path.Join(g.root, part)
			continue
		}
		g.rest = append(g.rest, part)
	}
	return g, nil
}

// isWild reports whether a pattern is more than a path.
func isWild(pattern string) bool { return strings.ContainsAny(pattern, `*?[`) }

// matches reports whether the parts of a path below the root are the pattern's.
// Without hidden, a wildcard does not stand for a dot at a name's beginning.
func (g glob) matches(parts []string, hidden bool) bool {
	return matchParts(g.rest, parts, hidden, false)
}

// leads reports whether something below those parts may match.
func (g glob) leads(parts []string, hidden bool) bool { return matchParts(g.rest, parts, hidden, true) }

// matchParts matches pattern and parts; with beginning, parts may be the
// beginning of what matches.
func matchParts(pattern, parts []string, hidden, beginning bool) bool {
	if len(parts) == 0 && beginning {
		return true
	}
	if len(pattern) == 0 {
		return len(parts) == 0
	}
	if pattern[0] == anyFolders {
		return matchParts(pattern[1:], parts, hidden, beginning) ||
			len(parts) > 0 && (hidden || !isHidden(parts[0])) && matchParts(pattern, parts[1:], hidden, beginning)
	}
	return len(parts) > 0 && matchPart(pattern[0], parts[0], hidden) && matchParts(pattern[1:], parts[1:], hidden, beginning)
}

func matchPart(pattern, name string, hidden bool) bool {
	if isHidden(name) && !hidden && !strings.HasPrefix(pattern, ".") {
		return false
	}
	ok, _ := path.Match(pattern, name) // newGlob has found it well formed
	return ok
}

// isHidden reports whether a name is one that shells leave out.
func isHidden(name string) bool {
	return strings.HasPrefix(name, ".") && name != "." && name != ".."
}

// excludes are the parts of the patterns that begin with !.
type excludes [][]string

// add reads a pattern without its !.
func (e *excludes) add(text string) error {
	text = path.Clean(text)
	if _, err := newGlob(text); err != nil {
		return err
	}
	*e = append(*e, strings.Split(strings.TrimPrefix(text, "/"), "/"))
	return nil
}

// match reports whether a path, or a folder that it is in, is excluded. A
// pattern of one part is for names at any depth, others are for whole paths.
func (e excludes) match(file string) bool {
	parts := strings.Split(strings.TrimPrefix(path.Clean(file), "/"), "/")
	return slices.ContainsFunc(e, func(pattern []string) bool {
		for i := range parts {
			if len(pattern) == 1 && matchPart(pattern[0], parts[i], true) || len(pattern) > 1 && matchParts(pattern, parts[:i+1], true, false) {
				return true
			}
		}
		return false
	})
}
