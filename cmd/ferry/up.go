package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"

	"github.com/spf13/cobra"

	"ferry/gateway"
	"ferry/server"
)

func (p *program) upCommand() *cobra.Command {
	c, g, s := &common{}, &gatewaySettings{}, &serverSettings{}
	cmd := &cobra.Command{
		Use:   "up [flags]",
		Short: "Run everything in one process, on this machine alone",
		Long: `Run the native server and a gateway that delivers to it, in one process.
Nothing has to be configured. When it is ready it prints where it listens and
a curl line to copy; a file sent with it lies in
DATA/server/files/NAME/ a moment later.

The server keeps its data in DATA/server, the gateway in DATA/gateway. On
SIGTERM or an interrupt the gateway stops first, then the server; each has the
time that --grace allows.`,
		Example: `  ferry up
  ferry up --data /tmp/try --http 127.0.0.1:0 --v3-listen 127.0.0.1:0
  curl -F file=@app.tar.gz http://127.0.0.1:8080/uploads`,
	}
	c.register(cmd.Flags(), "./ferry-data", "`DIR` to keep everything in")
	g.register(cmd.Flags(), "local", "`NAME` under which the gateway registers at the server, and so of the folder that its files are stored in")
	s.register(cmd.Flags())
	check := func() error { return errors.Join(g.check(), s.check()) }
	return p.service(cmd, c, check, func(ctx context.Context, log *slog.Logger) error {
		return p.runUp(ctx, c, g, s, log)
	})
}

// runUp opens the server, then the gateway that needs the server's address,
// and closes them the other way round.
func (p *program) runUp(ctx context.Context, c *common, g *gatewaySettings, s *serverSettings, log *slog.Logger) (err error) {
	serverData := filepath.Join(c.data, "server")
	srv, err := server.Open(ctx, s.config(serverData, c, log.With("part", "server")))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, srv.Close()) }()
	native, err := listen(ctx, "v3-listen", s.listen)
	if err != nil {
		return err
	}
	defer closeListener(native, &err)

	to := "v3://" + local(native.Addr()) + "?window=64"
	cfg, err := g.config(filepath.Join(c.data, "gateway"), to, c, log.With("part", "gateway"))
	if err != nil {
		return err
	}
	gw, err := gateway.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, gw.Close()) }()
	web, err := listen(ctx, "http", g.http)
	if err != nil {
		return err
	}
	defer closeListener(web, &err)

	fmt.Fprintf(p.stdout, `Ferry is ready.

  page and API    http://%s
  native server   v3://%s
  data folder     %s
  stored files    %s

Send a file:

  curl -F file=@FILE http://%s/uploads

`, web.Addr(), native.Addr(), absolute(c.data), storedFiles(serverData, g.name), web.Addr())
	return serveParts(ctx, gatewayPart(gw, web), serverPart(srv, native))
}

// closeListener closes what Serve has closed already, unless it never ran.
func closeListener(ln net.Listener, err *error) {
	if e := ln.Close(); e != nil && !errors.Is(e, net.ErrClosed) {
		*err = errors.Join(*err, e)
	}
}

// storedFiles is where a server on a data folder stores a client's files.
func storedFiles(data, client string) string {
	return filepath.Join(absolute(data), "files", client) + string(filepath.Separator)
}

// absolute is path from the root, for people who are elsewhere.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}
