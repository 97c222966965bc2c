package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// What ferry push waits for, and what becomes of a pattern that finds nothing.
const (
	waitDelivered = "delivered"
	waitReceived  = "received"

	noFilesError  = "error"
	noFilesWarn   = "warn"
	noFilesIgnore = "ignore"
)

// maxParallel bounds --parallel: a gateway takes 256 uploads at once from all.
const maxParallel = 64

// pushSettings are the flags of ferry push.
type pushSettings struct {
	gatewayFlags
	wait, prefix, name string
	destination        string
	labels             []string
	noCILabels         bool
	fromFile, noFiles  string
	hidden, json       bool
	receipt            string
	parallel           int
	timeout, connect   time.Duration
}

func (s *pushSettings) register(flags *pflag.FlagSet) {
	flags.StringVar(&s.wait, "wait", waitDelivered, "`WHAT` to wait for: delivered, the destination holds the file, verified; or received, the gateway has it durably and will deliver it")
	flags.DurationVar(&s.timeout, "timeout", 30*time.Minute, "give up after this `DURATION`; 0 is no limit. Until then lost connections and restarts of the gateway are got over")
	flags.DurationVar(&s.connect, "connect-timeout", 30*time.Second, "give up after this `DURATION` if the gateway was not reached even once")
	flags.StringVar(&s.prefix, "dest-prefix", "", "`PREFIX` of every name, as it is: build-17/ for a folder")
	flags.StringVar(&s.destination, "destination", "", "`NAME` of the gateway's destination that the files are for; its first one, or the token's, if not given")
	flags.StringVar(&s.name, "name", "", "`NAME` for what comes from stdin, the PATTERN -")
	flags.StringVar(&s.fromFile, "from-file", "", "`LIST` with a PATTERN a line, or ended by NUL as \"find -print0\" does; - is stdin")
	flags.StringVar(&s.noFiles, "if-no-files", noFilesError, "`WHAT` a PATTERN that finds no file is: error (status 8, and nothing is sent), warn or ignore")
	flags.BoolVar(&s.hidden, "hidden", false, "find files and folders whose names begin with a dot, too")
	flags.StringArrayVar(&s.labels, "label", nil, "`KEY=VALUE` to mark the uploads with; can be repeated")
	flags.BoolVar(&s.noCILabels, "no-ci-labels", false, "do not mark the uploads with what GitHub Actions, GitLab CI, Jenkins or Buildkite say of the run: repository, commit, job, and the run's URL")
	flags.StringVar(&s.receipt, "receipt", "", "`DIR` to keep the destination's signed receipts in, each as NAME.receipt, for \"ferry verify\"")
	flags.IntVar(&s.parallel, "parallel", 4, "files that are sent at once, `N`")
	flags.BoolVar(&s.json, "json", false, "print lines of JSON on stdout: for each file one when the gateway has it, and one with \"done\":true at its end")
	s.gatewayFlags.register(flags)
}

func (p *program) pushCommand() *cobra.Command {
	s := &pushSettings{}
	cmd := &cobra.Command{
		Use:                   "push [flags] PATTERN...",
		DisableFlagsInUseLine: true,
		Short:                 "Send files to a gateway and wait until they are delivered",
		Long: `Send files to a gateway and wait until they are delivered. The exit status says
how that went. Running the same command again is safe: what is there already is
not sent again, and is success; a file of the same name with other content is
refused.

A PATTERN is one of these:

  FILE       stored under its own name, without the folders it is in
  FOLDER     all that is in it, under the path that begins with the folder's
             name: dist/a/b.txt for dist and x/dist, a/b.txt for .
  a wildcard *, ? and [a-z] in a part of a path, ** for any number of folders.
             Each file is stored under its path below the part before the first
             wildcard: a/b.txt for "dist/**". Of a folder that matches, it is all
             that is in it. Quote it, or the shell may put names in its place
  !PATTERN   leaves out what matches: a name at any depth if it has no slash
             ("!*.tmp"), else a path, and all that is below it ("!dist/tmp")
  -          what comes from stdin, under the name that --name gives

Names that begin with a dot are found with --hidden alone, unless the PATTERN
spells the dot out. Links to files are followed; links to folders that are found
are not, those that a PATTERN begins with are.

All files are found, and can be read, before the first is sent. Two files that
would have the same name, or names that differ in upper and lower case alone,
are an error then; names are compared and stored in Unicode's form NFC.

The gateway is asked for what it has before a file is sent. Each file is sent
with its SHA-256, which the gateway checks, and its answer is checked in turn.

On a terminal each file has a bar; otherwise there is a line for each when the
gateway has it, and when it is delivered. Lines of --json have file, name, id,
size, sha256, state (received, delivered or failed), sent (false: it was there
before), attempts, exit, done, seconds, receipt, and error.

` + pushExitCodes,
		Example: `  ferry push app.tar.gz
  ferry push --dest-prefix build-17/ 'dist/**/*.tar.gz' '!*-debug*'
  ferry push --gateway https://gw.example.org --label branch=main --receipt receipts dist
  tar c dist | ferry push --name dist.tar -
  git ls-files -z | ferry push --from-file - --wait=received --json`,
	}
	s.register(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := loadSettings(cmd, p.environ); err != nil {
			return err
		}
		if err := s.check(args, cmd.Flags().Changed("name") && onCommandLine(cmd, []string{"name"}) != ""); err != nil {
			return err
		}
		gateway, err := s.open()
		if err != nil {
			return err
		}
		defer gateway.close()
		return p.push(cmd.Context(), s, gateway, args)
	}
	return cmd
}

func (s *pushSettings) check(args []string, named bool) error {
	var errs []error
	want := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	stdin := slices.Contains(args, "-")
	want(len(args) > 0 || s.fromFile != "", "no PATTERN and no --from-file: which files?")
	want(slices.Contains([]string{waitDelivered, waitReceived}, s.wait), "--wait %q: want delivered or received", s.wait)
	want(slices.Contains([]string{noFilesError, noFilesWarn, noFilesIgnore}, s.noFiles), "--if-no-files %q: want error, warn or ignore", s.noFiles)
	want(s.timeout >= 0, "--timeout %v: want 0, for none, or more", s.timeout)
	want(s.connect > 0, "--connect-timeout %v: want more than nothing", s.connect)
	want(s.parallel > 0 && s.parallel <= maxParallel, "--parallel %d: want 1 to %d", s.parallel, maxParallel)
	want(s.receipt == "" || s.wait == waitDelivered, "--receipt %s: receipts come with the delivery, and --wait=%s does not wait for it", s.receipt, s.wait)
	want(!stdin || s.name != "", "--name is missing: what comes from stdin has none")
	want(stdin || !named, "--name %s is for what comes from stdin: give the PATTERN -", s.name)
	want(!stdin || s.fromFile != "-", "stdin cannot be both the list and a file")
	if err := errors.Join(errors.Join(errs...), checkLabels(s.labels)); err != nil {
		return usageError{err}
	}
	return nil
}

// push is ferry push with its command line read.
func (p *program) push(ctx context.Context, s *pushSettings, gateway *gatewayClient, args []string) (err error) {
	if s.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, s.timeout, errSendTimeout)
		defer cancel()
	}
	plan, err := p.planPush(ctx, s, args)
	defer plan.drop(&err)
	if err != nil || len(plan.files) == 0 {
		return err
	}
	p.started = true
	to := receipts{folder: s.receipt}
	if err := to.check(plan.files); err != nil {
		return usageError{err}
	}
	if err := to.prepare(); err != nil {
		return p.pushFailed(exitFailure, "%v", err)
	}
	labels := s.labels
	if !s.noCILabels {
		labels = withRoom(labels, ciLabels(p.environ))
	}
	show := newPushDisplay(p, s, plan.files, plan.size)
	if gateway.exposed() {
		show.warn("the token is sent over a network where others may read it: an https:// gateway keeps it from them")
	}
	run := &pushing{
		gateway: gateway, destination: s.destination, wait: s.wait, connect: s.connect, labels: labels, receipts: to,
		show: show, started: time.Now(), queue: make(chan *pushed, len(plan.files)),
	}
	worst := run.all(ctx, plan.files, s.parallel)
	return errors.Join(exitStatus(worst), show.close())
}

// pushFailed says what is wrong before anything was sent and returns the status to end
// with.
func (p *program) pushFailed(status int, format string, args ...any) error {
	fmt.Fprintf(p.stderr, "ferry push: "+format+"\n", args...)
	return exitError(status)
}
