package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"ferry/gateway"
	"ferry/proto"
)

// gatewaySettings are the flags of the gateway.
type gatewaySettings struct {
	http    string
	name    string
	workers int
	maxSize size
	rate    int
}

func (g *gatewaySettings) register(flags *pflag.FlagSet, name, nameUsage string) {
	flags.StringVar(&g.http, "http", "127.0.0.1:8080", "`ADDRESS` of the page and the API, on loopback; port 0 takes any that is free")
	flags.StringVar(&g.name, "name", name, nameUsage)
	flags.Var(&g.maxSize, "max-size", "largest file that is taken, a `SIZE`; 0 is what the destination takes")
	flags.IntVar(&g.rate, "rate", 0, "requests a second that are answered with one token, or without one from one address, `N`; 0 is 1000 where others than those on this machine come in, else all")
	flags.IntVar(&g.workers, "workers", 0, "deliveries at once to a destination, `N`; 0 is what suits it: 32 in version 4, 4 in version 3, and one at a time where that has no window")
}

func (g *gatewaySettings) check() error {
	var errs []error
	if g.rate < 0 {
		errs = append(errs, fmt.Errorf("--rate %d: want 0, for what suits the address, or more", g.rate))
	}
	if g.workers < 0 {
		errs = append(errs, fmt.Errorf("--workers %d: want 0, for what suits the destination, or more", g.workers))
	}
	if _, err := proto.ParseClientName(g.name); err != nil {
		errs = append(errs, fmt.Errorf("--name: %w", err))
	}
	return errors.Join(errs...)
}

// checkLoopback wants an address that no other machine reaches.
func (g *gatewaySettings) checkLoopback() error {
	if err := checkAddress("http", g.http); err != nil {
		return err
	}
	if err := gateway.CheckListen(g.http); err != nil {
		return fmt.Errorf("--http %s: %w", g.http, err)
	}
	return nil
}

// config is the gateway's, on a folder and to destinations.
func (g *gatewaySettings) config(data string, to []gateway.Destination, c *common, log *slog.Logger) (gateway.Config, error) {
	name, err := proto.ParseClientName(g.name)
	if err != nil {
		return gateway.Config{}, err
	}
	return gateway.Config{
		Data: data, Name: name, Destinations: to,
		MaxSize: int64(g.maxSize), Rate: g.rate, Grace: c.grace, Log: log, Version: version().number,
	}, nil
}

func (p *program) gatewayCommand() *cobra.Command {
	c, g, f, e := &common{}, &gatewaySettings{}, &destinationFlags{}, &entrance{}
	cmd := &cobra.Command{
		Use:   "gateway --data DIR --to v4://HOST:PORT [flags]",
		Short: "Run the HTTP side alone",
		Long: `Run the gateway: it takes files over HTTP, keeps each until it is delivered,
and delivers it to the native server that --to names. When it is ready it
prints its address.

At the server it is a client, which registers once, with a --join token of the
server's operator, and is known by the key in DIR/identity afterwards; by one in
DIR/destinations/NAME at a destination that has a name. Destinations do not wait
for each other. A request says with ?destination=NAME where its files go.

On loopback it lets everybody in until "ferry token create" has made a first
token, and only those with one from then on. On any other address it needs a
token to start, and TLS: its own, or that of a proxy in front.`,
		Example: `  ferry gateway --data ./gateway --to 'v4://files.example.org:1257?pin=sha256:1c5f...' --join @token
  ferry gateway --data ./gateway --to v4://files.example.org --name build-7
  ferry gateway --data ./gateway --to prod=v4://files.example.org --to test=v4://test.example.org --join test=@token
  ferry gateway --data ./gateway --to 'v3://127.0.0.1:1256?window=64'
  curl -F file=@app.tar.gz http://127.0.0.1:8080/uploads`,
	}
	c.register(cmd.Flags(), "", "`DIR` for the uploads on their way and the gateway's identity (required)")
	g.register(cmd.Flags(), "", "`NAME` of the gateway at the server, and so of the folder that its files are stored in; this host's if not given")
	f.register(cmd.Flags())
	e.register(cmd.Flags())
	var to []gateway.Destination
	check := func() (err error) {
		if g.name == "" {
			g.name, _ = os.Hostname() // where it is not to be had, check asks for a name
		}
		to, err = f.read(p, g.workers)
		return errors.Join(err, g.check(), e.check(g.http))
	}
	return p.service(cmd, c, check, func(ctx context.Context, log *slog.Logger) error {
		return p.runGateway(ctx, c, g, to, e, log)
	})
}

func (p *program) runGateway(ctx context.Context, c *common, g *gatewaySettings, to []gateway.Destination, e *entrance, log *slog.Logger) (err error) {
	cfg, err := g.config(c.data, to, c, log)
	if err != nil {
		return err
	}
	cfg.Front, cfg.Silence, cfg.MinRate = e.front, e.silence, int64(e.minRate)
	if cfg.Rate == 0 && e.isOpenToOthers(g.http) {
		cfg.Rate = othersRate
	}
	gw, err := gateway.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, gw.Close()) }()
	if err := e.checkTokens(ctx, gw, c.data, g.http); err != nil {
		return err
	}
	ln, err := e.listen(ctx, g.http, log)
	if err != nil {
		return err
	}
	fmt.Fprintf(p.stdout, `Ferry's gateway is ready.

  page and API   %s
%s  data folder    %s

Send a file:

  %s

`, e.url(ln.Addr()), deliversTo(to, cfg.Name), absolute(c.data), e.curl(ln.Addr()))
	return serveParts(ctx, gatewayPart(gw, ln))
}

// deliversTo is a line for each destination.
func deliversTo(to []gateway.Destination, name proto.ClientName) string {
	var b strings.Builder
	for _, d := range to {
		fmt.Fprintf(&b, "  delivers to    %s as %s", d.To, name)
		if len(to) > 1 {
			fmt.Fprintf(&b, ", for destination=%s", d.Name)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func gatewayPart(gw *gateway.Gateway, ln net.Listener) part {
	return part{"gateway", func(ctx context.Context) error { return gw.Serve(ctx, ln) }}
}
