package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"ferry/gateway"
	"ferry/internal/datadir"
	"ferry/internal/identity"
	"ferry/proto"
)

// rotateSettings are the flags of ferry key rotate.
type rotateSettings struct {
	to, name, identity, data, destination string
	config                                string
}

func (p *program) keyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Give a client another key",
		Args:  noArguments,
		RunE: func(*cobra.Command, []string) error {
			return usagef("want a command: rotate")
		},
	}
	cmd.AddCommand(p.keyRotateCommand())
	return cmd
}

func (p *program) keyRotateCommand() *cobra.Command {
	s := &rotateSettings{}
	cmd := &cobra.Command{
		Use:                   "rotate --to v4://HOST:PORT [flags]",
		DisableFlagsInUseLine: true,
		Short:                 "Replace a client's key at its server and here",
		Long: `Make a new key, have the server put it in the place of the client's old one,
and keep it. The client stays who it is; whoever has a copy of the old key can
do nothing with it any more. If it is cut short at any point, the client is
known by whichever key the server has, and can rotate again.

The client is that of "ferry send" with the same --to, --name and --identity;
with --data, that of a gateway, which must not run meanwhile; of one with several
destinations, the one for --destination. The exit statuses
are those of "ferry send".`,
		Example: `  ferry key rotate --to v4://files.example.org
  ferry key rotate --to 'v4://files.example.org?pin=sha256:1c5f...' --name build-7
  ferry key rotate --to v4://files.example.org --data /var/lib/ferry-gateway`,
		Args: noArguments,
	}
	cmd.Flags().StringVar(&s.to, "to", "", "`URL` of the server, v4://HOST:PORT?pin=sha256:... (required); without a pin, as \"ferry trust\" has remembered it")
	cmd.Flags().StringVar(&s.name, "name", "", "`NAME` of the client; this host's if not given")
	cmd.Flags().StringVar(&s.identity, "identity", "", "`DIR` with the client's id and key; "+
		"$XDG_STATE_HOME/ferry/identities/v4/HOST:PORT/NAME if not given, under ~/.local/state without that variable")
	cmd.Flags().StringVar(&s.data, "data", "", "`DIR` of a gateway, instead of --name and --identity")
	cmd.Flags().StringVar(&s.destination, "destination", gateway.DefaultDestination, "with --data, `NAME` of the gateway's destination; that without a name if not given")
	registerConfig(cmd.Flags(), &s.config)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ofGateway, sender := onCommandLine(cmd, []string{"data", "destination"}), onCommandLine(cmd, []string{"name", "identity"})
		if ofGateway != "" && sender != "" {
			return usagef("--%s is for a gateway, --%s for ferry send: want one of the two", ofGateway, sender)
		}
		if err := loadSettings(cmd, p.environ); err != nil {
			return err
		}
		if sender != "" {
			s.data = "" // the environment's is for another command
		}
		if ofGateway == "destination" && s.data == "" {
			return usagef("--destination is of a gateway: want its --data, too")
		}
		to, folder, err := s.read(p)
		if err != nil {
			return usageError{err}
		}
		p.started = true
		return p.rotate(cmd.Context(), to, folder, s.data)
	}
	return cmd
}

// read returns the server and the folder of the identity.
func (s *rotateSettings) read(p *program) (to proto.Destination, folder string, err error) {
	if s.to == "" {
		return to, "", errors.New("--to is missing: the server that knows the client, such as v4://127.0.0.1:1257")
	}
	if to, err = proto.ParseDestination(s.to); err != nil {
		return to, "", fmt.Errorf("--to: %w", err)
	}
	version, err := versionOf(to)
	if err != nil {
		return to, "", err
	}
	if version.bare {
		return to, "", fmt.Errorf("--to %s: a client's key can be replaced in version 4 alone", to)
	}
	if s.data != "" {
		folder = gateway.IdentityFolder(s.data, s.destination)
		if err := gateway.CheckDestinationName(s.destination); err != nil {
			return to, "", fmt.Errorf("--destination: %w", err)
		}
	} else {
		send := sendSettings{name: s.name, identity: s.identity}
		plan := sendPlan{to: to, version: version, folder: s.identity}
		if err := send.planIdentity(&plan, p.environ); err != nil {
			return to, "", err
		}
		folder = plan.folder
	}
	to, err = p.identified(to)
	return to, folder, err
}

// rotate replaces the key that is kept in a folder: that of a gateway on data, or, if
// that is empty, of ferry send.
func (p *program) rotate(ctx context.Context, to proto.Destination, folder, data string) (err error) {
	if _, err := os.Stat(folder); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no client's identity in %s", folder)
	}
	leave, err := p.hold(ctx, folder, data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, leave()) }()
	file, err := identity.Open(folder)
	if err != nil {
		return fmt.Errorf("in %s: %w", folder, err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	id, ok, err := file.Load(ctx)
	if err != nil {
		return fmt.Errorf("in %s: %w", folder, err)
	}
	if !ok {
		return fmt.Errorf("there is no client's identity in %s: none has registered from there", folder)
	}
	client := proto.NewClient(proto.ClientConfig{To: to, Name: id.Name, Keyring: file})
	defer func() { err = errors.Join(err, client.Close()) }()
	if err := client.Rotate(ctx); err != nil {
		f := explain(inner(err), !unreached(err))
		fmt.Fprintf(p.stderr, "ferry key rotate: the key was not replaced: %s\n", f.words)
		return exitError(f.exit)
	}
	_, err = fmt.Fprintf(p.stdout, "%s has another key at %s from now on.\n", printable(id.Name.String()), to.Address())
	return err
}

// hold keeps other processes from the folder, or from the gateway's data, meanwhile.
func (p *program) hold(ctx context.Context, folder, data string) (leave func() error, err error) {
	if data == "" {
		return lockFolder(ctx, folder, func() { fmt.Fprintln(p.stderr, "ferry key rotate: waiting for another ferry of this client") })
	}
	dir, err := datadir.Open(data)
	if err != nil {
		return nil, err
	}
	return dir.Close, nil
}
