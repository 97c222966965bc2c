package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"ferry/internal/oldclient"
	"ferry/proto"
)

// sendPlan is a checked command line: nothing of it is wrong in itself.
type sendPlan struct {
	to       proto.Destination
	version  sendVersion
	name     proto.ClientName // none: the identity's
	named    bool             // the user gave the name
	folder   string           // with the identity
	made     bool             // the folder is made if need be
	join     string
	files    []sendFile
	receipts receipts
}

// sendFile is a file and the name it is stored under.
type sendFile struct {
	path  string
	name  proto.FileName
	err   error  // why there is nothing to send, found while looking for files
	shown string // what the user calls it, if that is not path
}

func (f sendFile) title() string { return cmp.Or(f.shown, f.path) }

// planSend checks everything that can be known before anything is sent.
func (p *program) planSend(cmd *cobra.Command, s *sendSettings, paths []string) (sendPlan, error) {
	stray, use := sendFolderFlags, "is for a folder with transfer.info; with FILEs, --to's URL says it: ?%[1]s="
	if len(paths) == 0 {
		stray, use = sendFileFlags, "is for FILEs, and there is none; transfer.info says it otherwise"
	}
	if err := unwanted(cmd, stray, use); err != nil {
		return sendPlan{}, err
	}
	given := onCommandLine(cmd, sendV4Flags)
	if err := loadSettings(cmd, p.environ); err != nil {
		return sendPlan{}, err
	}
	if err := s.check(); err != nil {
		return sendPlan{}, err
	}
	if len(paths) == 0 {
		return s.planFolder()
	}
	plan, err := s.planFiles(paths, p)
	if err == nil && plan.version.bare && given != "" {
		err = fmt.Errorf("--%s is for version 4: %s has nothing of that kind", given, plan.version.title)
	}
	return plan, err
}

// unwanted finds a flag that has no place there. Variables and files may be for
// others: only the command line counts.
func unwanted(cmd *cobra.Command, flags []string, use string) error {
	if name := onCommandLine(cmd, flags); name != "" {
		return fmt.Errorf("--%[1]s "+use, name)
	}
	return nil
}

// onCommandLine returns the first of the flags that has been set, or "".
func onCommandLine(cmd *cobra.Command, flags []string) string {
	for _, name := range flags {
		if cmd.Flags().Changed(name) {
			return name
		}
	}
	return ""
}

// planFolder is for an old client's folder, the one we are in.
func (s *sendSettings) planFolder() (sendPlan, error) {
	t, err := oldclient.NewFolder(".", nil).Transfer()
	if errors.Is(err, fs.ErrNotExist) {
		return sendPlan{}, errors.New("no FILE to send, and no transfer.info in this folder that names one")
	}
	if err != nil {
		return sendPlan{}, err
	}
	query := url.Values{"dialect": {s.dialect}, "window": {strconv.Itoa(s.window)}}
	if s.slice != 0 {
		query.Set("slice", strconv.Itoa(s.slice))
	}
	plan := sendPlan{name: t.Name, named: true, folder: "."}
	if plan.to, err = proto.ParseDestination("v3://" + t.Address + "?" + query.Encode()); err != nil {
		return sendPlan{}, err
	}
	if plan.version, err = versionOf(plan.to); err != nil {
		return sendPlan{}, err
	}
	return plan, s.findFiles(&plan, []string{t.Path})
}

// planFiles is for files that the command line names.
func (s *sendSettings) planFiles(paths []string, p *program) (plan sendPlan, err error) {
	if s.to == "" {
		return sendPlan{}, errors.New("--to is missing: the server to send to, such as v4://127.0.0.1:1257")
	}
	plan = sendPlan{folder: s.identity, made: true}
	if plan.to, err = proto.ParseDestination(s.to); err != nil {
		return sendPlan{}, fmt.Errorf("--to: %w", err)
	}
	if plan.version, err = versionOf(plan.to); err != nil {
		return sendPlan{}, err
	}
	if err := s.planIdentity(&plan, p.environ); err != nil {
		return sendPlan{}, err
	}
	if err := s.findFiles(&plan, paths); err != nil {
		return sendPlan{}, err
	}
	if plan.version.bare {
		return plan, nil // variables for these may be for others
	}
	if plan.join, err = readJoin(s.join); err != nil {
		return sendPlan{}, err
	}
	plan.receipts = newReceipts(s.receipt, s.recursive || len(paths) > 1)
	if err := plan.receipts.check(plan.files); err != nil {
		return sendPlan{}, err
	}
	plan.to, err = p.identified(plan.to)
	return plan, err
}

// planIdentity finds who the client is, and where that is kept.
func (s *sendSettings) planIdentity(plan *sendPlan, environ []string) (err error) {
	name := s.name
	switch {
	case name != "":
		plan.named = true
	case !plan.version.bare:
		name, _ = os.Hostname() // where it is not to be had, a name is asked for
	}
	if name == "" && (s.identity == "" || !plan.version.bare) {
		return errors.New("--name is missing: who the client is at the server")
	}
	if name != "" {
		if plan.name, err = proto.ParseClientName(name); err != nil {
			return fmt.Errorf("--name: %w", err)
		}
	}
	if plan.folder == "" {
		plan.folder, err = identityFolder(environ, plan.version.scheme, plan.to, plan.name)
	}
	return err
}

// findFiles finds the files and the name of each, and two that have the same.
func (s *sendSettings) findFiles(plan *sendPlan, paths []string) error {
	if s.as != "" && len(paths) > 1 {
		return fmt.Errorf("--as %s is for one FILE, and there are %d", s.as, len(paths))
	}
	if s.recursive && s.as != "" {
		if top := underTop(s.as); top != "" {
			if _, err := plan.to.ParseName(path.Clean(top)); err != nil {
				return fmt.Errorf("--as %q: %w", s.as, err)
			}
		}
	}
	before := map[proto.FileName]string{}
	add := func(file, as string, err error) error {
		if err != nil { // there is nothing to give a name to
			plan.files = append(plan.files, sendFile{path: file, err: err})
			return nil //nolint:nilerr // it is told when the file's turn comes
		}
		name, badName := plan.to.ParseName(as)
		switch {
		case badName != nil && s.recursive: // one file of a tree does not keep the others
			plan.files = append(plan.files, sendFile{path: file, err: badName})
			return nil
		case badName != nil && as == s.as:
			return fmt.Errorf("--as %q: %w", as, badName)
		case badName != nil:
			return fmt.Errorf("%s: %w; --as gives it another", printable(file), badName)
		}
		if first, twice := before[name]; twice {
			return fmt.Errorf("%s and %s would both be stored as %s", printable(first), printable(file), name)
		}
		before[name] = file
		plan.files = append(plan.files, sendFile{path: file, name: name})
		return nil
	}
	for _, file := range paths {
		if info, err := os.Stat(file); err == nil && info.IsDir() && s.recursive && !plan.version.bare {
			if err := walk(file, s.as, add); err != nil {
				return err
			}
			continue
		}
		as := s.as
		if as == "" {
			as = filepath.Base(file)
		}
		if err := add(file, as, nil); err != nil {
			return err
		}
	}
	if len(plan.files) == 0 {
		return fmt.Errorf("there is no file in %s", printable(paths[0]))
	}
	return nil
}

// underTop is the name of a folder that is sent; none if it has none of its own.
func underTop(as string) string {
	if as == "." || as == ".." || as == string(filepath.Separator) {
		return ""
	}
	return as
}

// walk adds what is in a folder, under names that begin with the folder's own,
// or with as. What cannot be read is added with the reason.
func walk(root, as string, add func(file, as string, err error) error) error {
	if as == "" {
		as = filepath.Base(root)
	}
	as = underTop(as)
	// With the separator a root that is a link is followed.
	return filepath.WalkDir(root+string(filepath.Separator), func(file string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			return nil
		}
		below, relErr := filepath.Rel(root, file)
		if relErr != nil {
			return relErr
		}
		return add(file, path.Join(as, filepath.ToSlash(below)), err)
	})
}
