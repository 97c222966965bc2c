package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"ferry/proto"
)

// sendSettings are the flags of ferry send.
type sendSettings struct {
	to, name, identity, as string
	join, receipt          string
	recursive              bool
	dialect                string
	slice, window          int
	json                   bool
	retries                int
	timeout                time.Duration
	config                 string
}

// Flags that have a meaning in one way of use alone.
var (
	sendFileFlags   = []string{"to", "name", "identity", "join", "receipt", "recursive"}
	sendFolderFlags = []string{"dialect", "slice", "window"}
	sendV4Flags     = []string{"join", "receipt", "recursive"}
)

func (s *sendSettings) register(flags *pflag.FlagSet) {
	flags.StringVar(&s.to, "to", "", "`URL` of the server, v4://HOST:PORT?pin=sha256:...; without a pin, as \"ferry trust\" has remembered it. "+
		"v3://HOST:PORT is for wire version 3: ?window=N has N packets in flight and several files at once, for a server that copes, as Ferry's does; "+
		"?dialect=mainstream or per-slice, and &slice=N, for old servers that speak so")
	flags.StringVar(&s.name, "name", "", "`NAME` of the client at the server; this host's if not given. In version 3 the first to register a name keeps it, and it has to be given. Not needed with an --identity that has one")
	registerJoin(flags, &s.join)
	flags.StringVar(&s.identity, "identity", "", "`DIR` with the client's id and private key, made if there is none; "+
		"$XDG_STATE_HOME/ferry/identities/v4/HOST:PORT/NAME if not given (v3 for that version), under ~/.local/state without that variable")
	flags.StringVar(&s.as, "as", "", "`NAME` to store the file under; its own if not given. In version 4 it may have folders, build-17/app.tar.gz")
	flags.BoolVarP(&s.recursive, "recursive", "r", false, "send what is in folders, each file under its path from there: out/a/b.txt for \"-r x/out\", a/b.txt for \"-r .\", and NAME/a/b.txt with --as NAME. "+
		"Links to files are followed, links to folders are not. A file whose name cannot be sent fails by itself")
	flags.StringVar(&s.receipt, "receipt", "", "`FILE` to write the server's signed receipt to, for \"ferry verify\"; - is stdout. With several files or -r, or if it is a folder, each receipt is NAME.receipt in it")
	flags.StringVar(&s.dialect, "dialect", "seed", "`DIALECT` of transfer.info's server: seed, mainstream or per-slice")
	flags.IntVar(&s.slice, "slice", 0, "bytes in a packet for transfer.info's server, `N`; the dialect's own if 0")
	flags.IntVar(&s.window, "window", 1, "packets in flight to transfer.info's server, `N`; more than 1 only for a server that copes, as Ferry's does")
	flags.BoolVar(&s.json, "json", false, "print a line of JSON for each file, on stdout")
	flags.IntVar(&s.retries, "retries", 3, "tries after a first that the network failed, `N`, with growing pauses between them")
	flags.DurationVar(&s.timeout, "timeout", 0, "give up after this `DURATION`, such as 10m; 0 is no limit, and a server that is silent for 30s counts as gone anyhow")
	registerConfig(flags, &s.config)
}

func (p *program) sendCommand() *cobra.Command {
	s := &sendSettings{}
	cmd := &cobra.Command{
		Use:                   "send [flags] [--to v4://HOST:PORT FILE...]",
		DisableFlagsInUseLine: true,
		Short:                 "Send files to a native server, without a gateway",
		Long: `Send files to a native server, from this machine and at once.

With FILEs, --to names the server and --name the client. A client registers
once, with a --join token of the server's operator, and is known by its id and
key afterwards; see --identity for where they are kept. Nobody without them can
use the name. The server is known by its key: the URL says which (?pin=), or
"ferry trust" has remembered it.

Each FILE is stored under its own name, small ones hundreds at once. What was
interrupted, by a lost connection or by kill -9, goes on where it was when the
same command is run again. A file that is there is never replaced: the same
content is success, other content is refused.

Without a FILE, the folder is that of an old client, of wire version 3:
transfer.info names server, user and file; me.info and priv.key hold the
client's id and key, and are written when it registers. Such a folder can be
used by old clients and by Ferry in turns.

On a terminal each file has a bar; otherwise nothing is printed but what went
wrong. --json prints for each file its name, size, sha256, cksum, state
(stored, exists or failed), attempts, sends (0: it was there already), exit,
seconds, receipt, and error.

` + sendExitCodes,
		Example: `  ferry send --to 'v4://files.example.org:1257?pin=sha256:1c5f...' --join @token report.pdf
  ferry send --to v4://files.example.org --as build-17/app.tar.gz --receipt app.receipt app.tar.gz
  ferry send --to v4://files.example.org --json -r dist
  ferry send --to v3://127.0.0.1:1256 --name alice report.pdf
  ferry send`,
	}
	s.register(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		plan, err := p.planSend(cmd, s, args)
		if err != nil {
			return usageError{err}
		}
		p.started = true
		return p.runSend(cmd.Context(), s, plan)
	}
	return cmd
}

func (s *sendSettings) check() error {
	var errs []error
	if s.retries < 0 {
		errs = append(errs, fmt.Errorf("--retries %d: want 0 or more", s.retries))
	}
	if s.timeout < 0 {
		errs = append(errs, fmt.Errorf("--timeout %v: want 0, for none, or more", s.timeout))
	}
	if s.json && s.receipt == "-" {
		errs = append(errs, errors.New("--json and --receipt - are both for stdout: want one there"))
	}
	return errors.Join(errs...)
}

// runSend sends what the plan names and reports on each file.
func (p *program) runSend(ctx context.Context, s *sendSettings, plan sendPlan) (err error) {
	if s.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, s.timeout, errSendTimeout)
		defer cancel()
	}
	show := newSendDisplay(p.stdout, p.stderr, s.json, terminalWidth(p.stderr, p.environ))
	show.total = len(plan.files)
	defer func() { err = errors.Join(err, show.close()) }()
	me, err := plan.version.enter(ctx, plan, show)
	if isUsage(err) {
		return err
	}
	if err == nil {
		defer func() { err = errors.Join(err, me.leave()) }()
		err = plan.receipts.prepare()
	}
	if err != nil {
		return exitStatus(failAll(plan.files, err, show))
	}
	kept := sums("")
	if !plan.version.bare {
		kept = sums(filepath.Join(plan.folder, "sums"))
		kept.sweep(time.Now())
	}
	if plan.even(ctx) {
		defer halve()()
	}
	client := proto.NewClient(proto.ClientConfig{To: plan.to, Name: me.name, Keyring: me, Join: plan.join})
	d := &sending{client: client, retries: s.retries, show: show, receipts: plan.receipts, sums: kept, folders: s.aboutFolders(plan)}
	worst := d.all(ctx, plan.files, min(plan.to.Parallel(), plan.version.atOnce))
	return errors.Join(exitStatus(worst), client.Close())
}

// aboutFolders is what there is to say of a folder that was not sent, behind that
// it is one.
func (s *sendSettings) aboutFolders(plan sendPlan) string {
	switch {
	case plan.version.bare:
		return ""
	case s.recursive: // any other has been walked
		return "; links to folders are not followed"
	}
	return "; -r sends what is in it"
}

func exitStatus(status int) error {
	if status == exitOK {
		return nil
	}
	return exitError(status)
}
