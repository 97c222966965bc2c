package main

import (
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"

	"github.com/spf13/cobra"

	"ferry/gateway"
	"ferry/internal/identity"
	"ferry/proto"
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

The gateway registers at the server by itself. Other clients can join: see
"ferry server token create --data DATA/server".

The server keeps its data in DATA/server, the gateway in DATA/gateway. On
SIGTERM or an interrupt the gateway stops first, then the server; each has the
time that --grace allows.`,
		Example: `  ferry up
  ferry up --data /tmp/try --http 127.0.0.1:0 --listen 127.0.0.1:0
  curl -F file=@app.tar.gz http://127.0.0.1:8080/uploads`,
	}
	c.register(cmd.Flags(), "./ferry-data", "`DIR` to keep everything in")
	g.register(cmd.Flags(), "local", "`NAME` under which the gateway registers at the server, and so of the folder that its files are stored in")
	s.register(cmd.Flags(), "127.0.0.1:1257")
	check := func() error { return errors.Join(g.check(), g.checkLoopback(), s.check()) }
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
	native, err := s.openNative(ctx, serverData)
	if err != nil {
		return err
	}
	defer native.close(&err)

	to, err := native.destination()
	if err != nil {
		return err
	}
	gatewayData := filepath.Join(c.data, "gateway")
	cfg, err := g.config(gatewayData, []gateway.Destination{{To: to, Deliveries: g.workers}}, c, log.With("part", "gateway"))
	if err != nil {
		return err
	}
	if native.v4 != nil && !known(ctx, serverData, gatewayData, cfg.Name) {
		join := &cfg.Destinations[0].Join
		if *join, err = srv.CreateToken(ctx, server.TokenOptions{Uses: 1, Client: g.name}); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, dropToken(ctx, serverData, *join)) }()
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

	fmt.Fprintf(p.stdout, "Ferry is ready.\n\n  page and API    http://%s\n", web.Addr())
	if native.v4 != nil {
		fmt.Fprintf(p.stdout, "  native server   v4://%s\n  fingerprint     %s\n", native.v4.Addr(), native.identity.Pin())
	}
	if native.v3 != nil {
		fmt.Fprintf(p.stdout, "  version 3       v3://%s\n", native.v3.Addr())
	}
	fmt.Fprintf(p.stdout, `  data folder     %s
  stored files    %s

Send a file:

  curl -F file=@FILE http://%s/uploads

`, absolute(c.data), storedFiles(serverData, g.name), web.Addr())
	return serveParts(ctx, append([]part{gatewayPart(gw, web)}, native.parts(srv)...)...)
}

// destination is the server as the gateway beside it reaches it.
func (n *native) destination() (proto.Destination, error) {
	if n.v4 == nil {
		return proto.ParseDestination("v3://" + local(n.v3.Addr()) + "?window=64")
	}
	return proto.ParseDestination("v4://" + local(n.v4.Addr()) + "?pin=" + n.identity.Pin().String())
}

// known reports whether the server can know the gateway in version 4. An identity
// of version 3 has too short a key: it registers anew and stays the same client.
// Whatever is wrong with the identity, the gateway will say.
func known(ctx context.Context, serverData, gatewayData string, name proto.ClientName) bool {
	file, err := identity.Open(gatewayData)
	if err != nil {
		return false
	}
	id, ok, err := file.Load(ctx)
	if errors.Join(err, file.Close()) != nil || !ok || id.Name != name || !longKey(id.PrivateKey) {
		return false
	}
	i, err := server.Inspect(serverData)
	if err != nil {
		return false
	}
	for c, err := range i.Clients(ctx) {
		if err == nil && c.ID == id.ID {
			return true
		}
	}
	return false
}

// dropToken revokes a token unless it was used: nobody has kept it.
func dropToken(ctx context.Context, serverData, token string) error {
	id := fmt.Sprintf("%x", sha256.Sum256([]byte(token)))
	if err := server.RevokeToken(context.WithoutCancel(ctx), serverData, id); !errors.Is(err, server.ErrNoToken) {
		return err
	}
	return nil
}

// longKey reports whether version 4 takes the key, in PKCS#8.
func longKey(der []byte) bool {
	const least = 3072
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return false
	}
	private, ok := key.(*rsa.PrivateKey)
	return ok && private.N.BitLen() >= least
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
