package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"ferry/proto"
	"ferry/server"
)

// serverSettings are the flags of the native server.
type serverSettings struct {
	listen   string
	anywhere bool
	limits   limitFlags
}

func (s *serverSettings) register(flags *pflag.FlagSet) {
	flags.StringVar(&s.listen, "v3-listen", "127.0.0.1:1256", "`ADDRESS` to take wire version 3 at; port 0 takes any that is free")
	flags.BoolVar(&s.anywhere, "v3-anywhere", false, "allow --v3-listen to be reached from other machines. "+
		"Version 3 does not prove who the server is, shows client ids in clear, and can be recorded and replayed: "+
		"only in a network where you trust every machine")
	s.limits.register(flags)
}

func (s *serverSettings) check() error {
	if err := checkAddress("v3-listen", s.listen); err != nil {
		return err
	}
	if !isLoopback(s.listen) && !s.anywhere {
		return fmt.Errorf("--v3-listen %s can be reached from other machines, and wire version 3 is not safe there: "+
			"it does not prove who the server is, shows client ids in clear, and can be recorded and replayed. "+
			"Listen on 127.0.0.1, or say --v3-anywhere if you trust every machine in that network", s.listen)
	}
	return s.limits.check()
}

// config is the server's, on a folder.
func (s *serverSettings) config(data string, c *common, log *slog.Logger) server.Config {
	return server.Config{Data: data, Log: log, Grace: c.grace, Limits: s.limits.limits()}
}

func (p *program) serverCommand() *cobra.Command {
	c, s := &common{}, &serverSettings{}
	cmd := &cobra.Command{
		Use:   "server --data DIR [flags]",
		Short: "Run the native server alone",
		Long: `Run the native server: it takes files over wire version 3 and stores each,
verified and complete, as DIR/files/CLIENT/NAME. A file that is there is never
replaced. When it is ready it prints its address.`,
		Example: `  ferry server --data /var/lib/ferry/server
  ferry server --data ./server --v3-listen 127.0.0.1:0
  FERRY_DATA=./server ferry server --log-format json`,
	}
	c.register(cmd.Flags(), "", "`DIR` for the stored files and the catalog (required)")
	s.register(cmd.Flags())
	cmd.AddCommand(p.serverClientsCommand(), p.serverFilesCommand(), p.serverVerifyCommand(), p.serverImportCommand())
	return p.service(cmd, c, s.check, func(ctx context.Context, log *slog.Logger) error {
		return p.runServer(ctx, c, s, log)
	})
}

func (p *program) runServer(ctx context.Context, c *common, s *serverSettings, log *slog.Logger) (err error) {
	srv, err := server.Open(ctx, s.config(c.data, c, log))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, srv.Close()) }()
	ln, err := listen(ctx, "v3-listen", s.listen)
	if err != nil {
		return err
	}
	fmt.Fprintf(p.stdout, `Ferry's native server is ready.

  address        v3://%s
  stored files   %s

Deliver to it from this machine:

  ferry gateway --data ferry-gateway --to 'v3://%s?window=64'

`, ln.Addr(), storedFiles(c.data, "CLIENT"), local(ln.Addr()))
	return serveParts(ctx, serverPart(srv, ln))
}

func serverPart(srv *server.Server, ln net.Listener) part {
	return part{"server", func(ctx context.Context) error { return srv.Serve(ctx, ln, proto.AcceptV3) }}
}
