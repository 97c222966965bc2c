package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// maxList bounds a list of patterns, in bytes.
const maxList = 64 << 20

// pushPlan is what will be sent.
type pushPlan struct {
	files []sendFile
	size  int64
	spool string // where stdin's content is meanwhile; none if empty
}

// drop removes what was kept of stdin.
func (plan *pushPlan) drop(err *error) {
	if plan.spool != "" {
		*err = errors.Join(*err, os.Remove(plan.spool))
	}
}

// planPush finds all files before anything is sent. Whatever there is to say of
// those that cannot be has been said.
func (p *program) planPush(ctx context.Context, s *pushSettings, args []string) (plan pushPlan, err error) {
	patterns, err := p.patterns(s.fromFile, args)
	if err != nil {
		return plan, usageError{err}
	}
	f := &pushFinder{prefix: s.prefix, hidden: s.hidden}
	if err := f.find(slices.DeleteFunc(slices.Clone(patterns), func(a string) bool { return a == "-" })); err != nil {
		return plan, usageError{err}
	}
	if len(f.errs) > 0 {
		return plan, p.pushFailed(exitNoFile, "%v\nferry push: nothing was sent", errors.Join(f.errs...))
	}
	if err := p.noFiles(s.noFiles, f, slices.Contains(patterns, "-")); err != nil {
		return plan, err
	}
	plan.files = f.files
	if slices.Contains(patterns, "-") {
		if err := p.spoolStdin(ctx, s, f, &plan); err != nil {
			return plan, err
		}
	}
	for _, file := range plan.files {
		info, err := os.Stat(file.path)
		if err != nil {
			return plan, p.pushFailed(exitNoFile, "%s: %v\nferry push: nothing was sent", printable(file.path), pathless(err))
		}
		plan.size += info.Size()
	}
	return plan, nil
}

// noFiles deals with patterns that found nothing, and with a list that has none.
func (p *program) noFiles(what string, f *pushFinder, stdin bool) error {
	var words []string
	for _, pattern := range f.empty {
		words = append(words, fmt.Sprintf("no file for %q", pattern))
	}
	if len(f.files) == 0 && len(words) == 0 && !stdin {
		words = append(words, "no file to send")
	}
	if len(words) == 0 || what == noFilesIgnore {
		return nil
	}
	if what == noFilesWarn {
		fmt.Fprintf(p.stderr, "ferry push: %s\n", strings.Join(words, "\nferry push: "))
		return nil
	}
	return p.pushFailed(exitNoFile, "%s\nferry push: nothing was sent; --if-no-files says what else that may be", strings.Join(words, "\nferry push: "))
}

// patterns are those of the command line, and of the list after them.
func (p *program) patterns(list string, args []string) (_ []string, err error) {
	if list == "" {
		return args, nil
	}
	from := p.stdin
	if list != "-" {
		f, err := os.Open(list)
		if err != nil {
			return nil, fmt.Errorf("--from-file: %w", err)
		}
		defer f.Close() //nolint:errcheck // only read
		from = f
	}
	b, err := io.ReadAll(io.LimitReader(from, maxList+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("--from-file: %w", err)
	case len(b) > maxList:
		return nil, fmt.Errorf("--from-file %s: more than %d bytes", list, maxList)
	}
	b = bytes.TrimPrefix(b, []byte("\ufeff")) // the mark that some editors begin a file with
	end := "\n"
	if bytes.IndexByte(b, 0) >= 0 {
		end = "\x00"
	}
	all := slices.Clone(args)
	for line := range strings.SplitSeq(string(b), end) {
		if end == "\n" {
			line = strings.TrimSuffix(line, "\r")
		}
		if line == "-" {
			return nil, fmt.Errorf("--from-file %s: stdin, the PATTERN -, belongs on the command line", list)
		}
		if line != "" {
			all = append(all, line)
		}
	}
	return all, nil
}

// spoolStdin keeps what comes from stdin until it is sent: its digest goes
// before it, and it may have to be sent twice.
func (p *program) spoolStdin(ctx context.Context, s *pushSettings, f *pushFinder, plan *pushPlan) error {
	name, err := f.name("-", s.name)
	if err != nil {
		return usageError{fmt.Errorf("--name: %w", err)}
	}
	if _, err := f.occupy(name.String(), "-"); err != nil {
		return usageError{err}
	}
	spool, err := os.CreateTemp("", "ferry-push-*")
	if err != nil {
		return p.pushFailed(exitFailure, "no place to keep what comes from stdin: %v", err)
	}
	plan.spool = spool.Name()
	copied := make(chan error, 1)
	go func() { // which a pipe that nobody writes to would keep for ever
		_, err := io.Copy(spool, p.stdin)
		copied <- errors.Join(err, spool.Close())
	}()
	select {
	case err = <-copied:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	switch {
	case errors.Is(err, errSendTimeout):
		return p.pushFailed(exitTimeout, "--timeout has passed before stdin ended; nothing was sent")
	case err != nil:
		return p.pushFailed(exitFailure, "stdin: %v; nothing was sent", err)
	}
	plan.files = append(plan.files, sendFile{path: plan.spool, name: name, shown: "-"})
	return nil
}
