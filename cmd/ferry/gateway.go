package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"

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
}

func (g *gatewaySettings) register(flags *pflag.FlagSet, name, nameUsage string) {
	flags.StringVar(&g.http, "http", "127.0.0.1:8080", "`ADDRESS` of the page and the API, on loopback; port 0 takes any that is free")
	flags.StringVar(&g.name, "name", name, nameUsage)
	flags.IntVar(&g.workers, "workers", 4, "deliveries at once, `N`; a destination without a window takes one at a time")
}

func (g *gatewaySettings) check() error {
	var errs []error
	if err := checkAddress("http", g.http); err != nil {
		errs = append(errs, err)
	} else if err := gateway.CheckListen(g.http); err != nil {
		errs = append(errs, fmt.Errorf("--http %s: %w", g.http, err))
	}
	if g.workers < 1 {
		errs = append(errs, fmt.Errorf("--workers %d: want at least 1", g.workers))
	}
	if _, err := proto.ParseClientName(g.name); err != nil {
		errs = append(errs, fmt.Errorf("--name: %w", err))
	}
	return errors.Join(errs...)
}

// config is the gateway's, on a folder and to a destination.
func (g *gatewaySettings) config(data, to string, c *common, log *slog.Logger) (gateway.Config, error) {
	destination, err := proto.ParseDestination(to)
	if err != nil {
		return gateway.Config{}, err
	}
	name, err := proto.ParseClientName(g.name)
	if err != nil {
		return gateway.Config{}, err
	}
	return gateway.Config{
		Data: data, To: destination, Name: name,
		Workers: g.workers, Grace: c.grace, Log: log, Version: version().number,
	}, nil
}

func (p *program) gatewayCommand() *cobra.Command {
	c, g := &common{}, &gatewaySettings{}
	var to string
	cmd := &cobra.Command{
		Use:   "gateway --data DIR --to v3://HOST:PORT [flags]",
		Short: "Run the HTTP side alone",
		Long: `Run the gateway: it takes files over HTTP, keeps each until it is delivered,
and delivers it to the native server that --to names. When it is ready it
prints its address.`,
		Example: `  ferry gateway --data ./gateway --to v3://127.0.0.1:1256
  ferry gateway --data ./gateway --to 'v3://127.0.0.1:1256?window=64' --name build-7
  curl -F file=@app.tar.gz http://127.0.0.1:8080/uploads`,
	}
	c.register(cmd.Flags(), "", "`DIR` for the uploads on their way and the gateway's identity (required)")
	g.register(cmd.Flags(), "", "`NAME` to register under at the server; this host's if not given. The first to register a name keeps it")
	cmd.Flags().StringVar(&to, "to", "", "`URL` of the server to deliver to, v3://HOST:PORT (required). "+
		"?window=N has N packets in flight and several files at once, for a server that copes, as Ferry's does; "+
		"?dialect=mainstream or per-slice, and &slice=N, for old servers that speak so")
	check := func() error {
		if to == "" {
			return errors.New("--to is missing: the server to deliver to, such as v3://127.0.0.1:1256")
		}
		if g.name == "" {
			g.name, _ = os.Hostname() // where it is not to be had, check asks for a name
		}
		_, err := proto.ParseDestination(to)
		if err != nil {
			err = fmt.Errorf("--to: %w", err)
		}
		return errors.Join(err, g.check())
	}
	return p.service(cmd, c, check, func(ctx context.Context, log *slog.Logger) error {
		return p.runGateway(ctx, c, g, to, log)
	})
}

func (p *program) runGateway(ctx context.Context, c *common, g *gatewaySettings, to string, log *slog.Logger) (err error) {
	cfg, err := g.config(c.data, to, c, log)
	if err != nil {
		return err
	}
	gw, err := gateway.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, gw.Close()) }()
	ln, err := listen(ctx, "http", g.http)
	if err != nil {
		return err
	}
	fmt.Fprintf(p.stdout, `Ferry's gateway is ready.

  page and API   http://%s
  delivers to    %s as %s
  data folder    %s

Send a file:

  curl -F file=@FILE http://%s/uploads

`, ln.Addr(), cfg.To, cfg.Name, absolute(c.data), ln.Addr())
	return serveParts(ctx, gatewayPart(gw, ln))
}

func gatewayPart(gw *gateway.Gateway, ln net.Listener) part {
	return part{"gateway", func(ctx context.Context) error { return gw.Serve(ctx, ln) }}
}
