package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"ferry/internal/oldclient"
	"ferry/proto"
)

// sendSettings are the flags of ferry send.
type sendSettings struct {
	to, name, identity, as string
	dialect                string
	slice, window          int
	json                   bool
	retries                int
	timeout                time.Duration
	config                 string
}

// Flags that have a meaning in one way of use alone.
var (
	sendFileFlags   = []string{"to", "name", "identity"}
	sendFolderFlags = []string{"dialect", "slice", "window"}
)

func (s *sendSettings) register(flags *pflag.FlagSet) {
	flags.StringVar(&s.to, "to", "", "`URL` of the server, v3://HOST:PORT. "+
		"?window=N has N packets in flight and several files at once, for a server that copes, as Ferry's does; "+
		"?dialect=mainstream or per-slice, and &slice=N, for old servers that speak so")
	flags.StringVar(&s.name, "name", "", "`NAME` to be registered under at the server; the first to register it keeps it. Not needed with an --identity that has one")
	flags.StringVar(&s.identity, "identity", "", "`DIR` with the client's id and key, me.info and priv.key, made if there is none; "+
		"$XDG_STATE_HOME/ferry/identities/v3/HOST:PORT/NAME if not given, under ~/.local/state without that variable")
	flags.StringVar(&s.as, "as", "", "`NAME` to store the file under; its own if not given")
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
		Use:                   "send [flags] [--to v3://HOST:PORT --name NAME FILE...]",
		DisableFlagsInUseLine: true,
		Short:                 "Send files to a native server, without a gateway",
		Long: `Send files to a native server, from this machine and at once.

Without a FILE, the folder is an old client's: transfer.info names server, user
and file; me.info and priv.key hold the client's id and key, and are written
when it registers. Such a folder can be used by old clients and by Ferry in
turns.

With FILEs, --to names the server and --name the client. A client registers
once and is known by its id and key afterwards; see --identity for where they
are kept. Nobody without them can use the name.

Each FILE is stored under its own name, one after another in one connection, or
up to ` + strconv.Itoa(mostParallel) + ` at once to a server with a window. A file that is there is never
replaced, and version 3 cannot tell whether it has the same content.

On a terminal each file has a bar; otherwise nothing is printed but what went
wrong. --json prints for each file its name, size, sha256, cksum, state
(stored, exists or failed), attempts, sends, exit, seconds, and error.

` + exitCodes,
		Example: `  ferry send
  ferry send --to v3://files.example:1256 --name alice report.pdf
  ferry send --to 'v3://127.0.0.1:1256?window=64' --name alice --json *.tar.gz
  ferry send --to v3://127.0.0.1:1256 --name alice --as latest.log /var/log/syslog`,
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

// sendPlan is a checked command line: nothing of it is wrong in itself.
type sendPlan struct {
	to     proto.Destination
	name   proto.ClientName // none: the identity's
	folder string           // with the identity
	made   bool             // the folder is made if need be
	files  []sendFile
}

// sendFile is a file and the name it is stored under.
type sendFile struct {
	path string
	name proto.FileName
}

// planSend checks everything that can be known before anything is sent.
func (p *program) planSend(cmd *cobra.Command, s *sendSettings, paths []string) (sendPlan, error) {
	stray, use := sendFolderFlags, "is for a folder with transfer.info; with FILEs, --to's URL says it: ?%[1]s="
	if len(paths) == 0 {
		stray, use = sendFileFlags, "is for FILEs, and there is none; transfer.info says it otherwise"
	}
	for _, name := range stray { // given on the command line: variables may be for others
		if cmd.Flags().Changed(name) {
			return sendPlan{}, fmt.Errorf("--%[1]s "+use, name)
		}
	}
	if err := loadSettings(cmd, p.environ); err != nil {
		return sendPlan{}, err
	}
	if err := s.check(); err != nil {
		return sendPlan{}, err
	}
	if len(paths) == 0 {
		return s.planFolder()
	}
	return s.planFiles(paths, p.environ)
}

func (s *sendSettings) check() error {
	var errs []error
	if s.retries < 0 {
		errs = append(errs, fmt.Errorf("--retries %d: want 0 or more", s.retries))
	}
	if s.timeout < 0 {
		errs = append(errs, fmt.Errorf("--timeout %v: want 0, for none, or more", s.timeout))
	}
	return errors.Join(errs...)
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
	to, err := proto.ParseDestination("v3://" + t.Address + "?" + query.Encode())
	if err != nil {
		return sendPlan{}, err
	}
	files, err := s.parseFiles([]string{t.Path})
	return sendPlan{to: to, name: t.Name, folder: ".", files: files}, err
}

// planFiles is for files that the command line names.
func (s *sendSettings) planFiles(paths, environ []string) (sendPlan, error) {
	if s.to == "" {
		return sendPlan{}, errors.New("--to is missing: the server to send to, such as v3://127.0.0.1:1256")
	}
	to, err := proto.ParseDestination(s.to)
	if err != nil {
		return sendPlan{}, fmt.Errorf("--to: %w", err)
	}
	plan := sendPlan{to: to, folder: s.identity, made: true}
	if s.name == "" && s.identity == "" {
		return sendPlan{}, errors.New("--name is missing: who the client is at the server")
	}
	if s.name != "" {
		if plan.name, err = proto.ParseClientName(s.name); err != nil {
			return sendPlan{}, fmt.Errorf("--name: %w", err)
		}
	}
	if plan.folder == "" {
		if plan.folder, err = identityFolder(environ, to, plan.name); err != nil {
			return sendPlan{}, err
		}
	}
	plan.files, err = s.parseFiles(paths)
	return plan, err
}

// parseFiles finds the name of each file, and two that have the same.
func (s *sendSettings) parseFiles(paths []string) ([]sendFile, error) {
	if s.as != "" && len(paths) > 1 {
		return nil, fmt.Errorf("--as %s is for one FILE, and there are %d", s.as, len(paths))
	}
	before := map[string]string{}
	var files []sendFile
	for _, path := range paths {
		as := s.as
		if as == "" {
			as = filepath.Base(path)
		}
		name, err := proto.ParseFileName(as)
		switch {
		case err != nil && s.as != "":
			return nil, fmt.Errorf("--as %q: %w", as, err)
		case err != nil:
			return nil, fmt.Errorf("%s: %w; --as gives it another", printable(path), err)
		}
		if first, twice := before[as]; twice {
			return nil, fmt.Errorf("%s and %s would both be stored as %s", printable(first), printable(path), as)
		}
		before[as] = path
		files = append(files, sendFile{path, name})
	}
	return files, nil
}

// identityFolder is where a client's identity is kept by default: apart for
// each server, which gives out the ids.
func identityFolder(environ []string, to proto.Destination, name proto.ClientName) (string, error) {
	u, err := url.Parse(to.String())
	if err != nil {
		return "", fmt.Errorf("internal error: %w", err)
	}
	state := ""
	for _, kv := range environ {
		switch key, value, _ := strings.Cut(kv, "="); {
		case key == "XDG_STATE_HOME" && filepath.IsAbs(value): // one that is not is to be ignored
			state = value
		case key == "HOME" && value != "" && state == "":
			state = filepath.Join(value, ".local", "state")
		}
	}
	if state == "" {
		return "", errors.New("--identity is missing: neither XDG_STATE_HOME nor HOME says where the client's id and key could be kept")
	}
	return filepath.Join(state, "ferry", "identities", u.Scheme, u.Host, name.String()), nil
}

// runSend sends what the plan names and reports on each file.
func (p *program) runSend(ctx context.Context, s *sendSettings, plan sendPlan) (err error) {
	if s.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, s.timeout, errSendTimeout)
		defer cancel()
	}
	show := newSendDisplay(p.stdout, p.stderr, s.json, terminalWidth(p.stderr, p.environ))
	defer func() { err = errors.Join(err, show.close()) }()
	me, err := enterFolder(ctx, plan, show)
	if isUsage(err) {
		return err
	}
	if err != nil {
		return exitStatus(failAll(plan.files, err, show))
	}
	defer func() { err = errors.Join(err, me.leave()) }()
	client := proto.NewClient(proto.ClientConfig{To: plan.to, Name: me.name, Keyring: me})
	d := &sending{client: client, retries: s.retries, show: show}
	worst := d.all(ctx, plan.files, min(plan.to.Parallel(), mostParallel))
	return errors.Join(exitStatus(worst), client.Close())
}

func exitStatus(status int) error {
	if status == exitOK {
		return nil
	}
	return exitError(status)
}

// sendIdentity is a client's identity, held against other processes where two
// at once would harm.
type sendIdentity struct {
	*oldclient.Folder
	name  proto.ClientName
	leave func() error
}

// Load and Save mark their errors: sending again does not help against them.
func (i *sendIdentity) Load(ctx context.Context) (proto.Identity, bool, error) {
	id, ok, err := i.Folder.Load(ctx)
	return id, ok, identity(err)
}

// Save is [oldclient.Folder.Save].
func (i *sendIdentity) Save(ctx context.Context, id proto.Identity) error {
	return identity(i.Folder.Save(ctx, id))
}

// enterFolder opens the client's identity. Two processes must not register at
// once, and to a server that copes with one connection of a client, they must
// not send at once either: the second waits.
func enterFolder(ctx context.Context, plan sendPlan, show *sendDisplay) (_ *sendIdentity, err error) {
	if plan.made {
		if err := os.MkdirAll(plan.folder, 0o700); err != nil {
			return nil, identity(err)
		}
	}
	folder := oldclient.NewFolder(plan.folder, show.warn)
	unlock, err := folder.Lock(ctx, func() { show.warn("waiting for another ferry send of this client") })
	if err != nil {
		return nil, identity(err)
	}
	me := &sendIdentity{Folder: folder, name: plan.name, leave: unlock}
	defer func() {
		if err != nil {
			err = errors.Join(err, unlock())
		}
	}()
	known, registered, err := me.Load(ctx)
	switch {
	case err != nil:
		return nil, err
	case !registered:
		return me, me.checkNew(plan)
	}
	if err := me.adopt(known.Name, plan, show); err != nil {
		return nil, err
	}
	if plan.to.Parallel() > 1 {
		me.leave = func() error { return nil }
		return me, unlock()
	}
	return me, nil
}

// checkNew is for a client that is about to register: it must have a name, and
// be able to keep what it is given.
func (i *sendIdentity) checkNew(plan sendPlan) error {
	if i.name == (proto.ClientName{}) {
		return usagef("--name is missing: there is no identity in %s yet, so under which name to register?", plan.folder)
	}
	return identity(i.CheckWritable())
}

// adopt goes on as who is registered. In an old folder that is me.info's name,
// as for the old clients.
func (i *sendIdentity) adopt(known proto.ClientName, plan sendPlan, show *sendDisplay) error {
	if i.name != (proto.ClientName{}) && i.name != known {
		if plan.made {
			return usagef("--name %s: the identity in %s is %s's", i.name, plan.folder, known)
		}
		show.warn(fmt.Sprintf("me.info is %s's, and transfer.info says %s: going on as %[1]s", known, i.name))
	}
	i.name = known
	return nil
}
