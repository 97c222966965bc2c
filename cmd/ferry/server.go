package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"ferry/proto"
	"ferry/server"
)

// serverData is where a server keeps its data unless told otherwise.
const serverData = "/var/lib/ferry"

// off is an address that says not to listen; so is "".
const off = "none"

// serverSettings are the flags of the native server.
type serverSettings struct {
	listen, v3 string // addresses; "" is none
	anywhere   bool
	open       bool
	identity   identityFlags
	limits     limitFlags
}

func (s *serverSettings) register(flags *pflag.FlagSet, listen string) {
	flags.StringVar(&s.listen, "listen", listen, "`ADDRESS` to take files at, in wire version 4; port 0 takes any that is free, none is not to listen")
	flags.BoolVar(&s.open, "open-registration", false, "let clients register at --listen without a join token. "+
		"Whoever can reach it can then store files here, up to the limits, under any client name that is free")
	s.identity.register(flags)
	flags.StringVar(&s.v3, "v3-listen", "", "`ADDRESS` to take wire version 3 at as well, for programs that speak nothing else, such as 127.0.0.1:1256; not to listen if not given")
	flags.BoolVar(&s.anywhere, "v3-anywhere", false, "allow --v3-listen to be reached from other machines. "+
		"In version 3 whoever can change what passes can read every file and change it unnoticed, ids and names pass in clear, "+
		"and anybody who reaches the address can register a name and store files: only in a network where you trust every machine")
	s.limits.register(flags)
}

func (s *serverSettings) check() error {
	for _, address := range []*string{&s.listen, &s.v3} {
		if *address == off {
			*address = ""
		}
	}
	var errs []error
	if s.listen == "" && s.v3 == "" {
		errs = append(errs, errors.New("neither --listen nor --v3-listen has an address: nobody could reach the server"))
	}
	if s.listen != "" {
		errs = append(errs, checkAddress("listen", s.listen))
	}
	if s.v3 != "" {
		errs = append(errs, s.checkV3())
	}
	return errors.Join(append(errs, s.identity.check(), s.limits.check())...)
}

func (s *serverSettings) checkV3() error {
	if err := checkAddress("v3-listen", s.v3); err != nil {
		return err
	}
	if !isLoopback(s.v3) && !s.anywhere {
		return fmt.Errorf("--v3-listen %s can be reached from other machines, and wire version 3 is not safe there: "+
			"whoever can change what passes can read every file and change it unnoticed, ids and names pass in clear, "+
			"and anybody who reaches the address can register a name and store files. "+
			"Listen on 127.0.0.1, or say --v3-anywhere if you trust every machine in that network", s.v3)
	}
	return nil
}

// config is the server's, on a folder.
func (s *serverSettings) config(data string, c *common, log *slog.Logger) server.Config {
	return server.Config{Data: data, Log: log, Grace: c.grace, Limits: s.limits.limits()}
}

func (p *program) serverCommand() *cobra.Command {
	c, s := &common{}, &serverSettings{}
	cmd := &cobra.Command{
		Use:   "server [flags]",
		Short: "Run the native server alone",
		Long: `Run the native server: it takes files over wire version 4 and stores each,
verified and complete, as DIR/files/CLIENT/NAME. A file that is there is never
replaced. When it is ready it prints its address, its fingerprint, and what to
say next.

Clients know the server by its fingerprint, that of the key in DIR/identity.pem,
which is made at the first start: keep a copy. The server knows clients by a
key of theirs; a new one needs a join token ("ferry server token create").`,
		Example: `  ferry server
  ferry server --data ./server --listen 127.0.0.1:1257
  FERRY_DATA=./server ferry server --log-format json`,
	}
	c.register(cmd.Flags(), serverData, "`DIR` for the stored files, the catalog and the server's key")
	s.register(cmd.Flags(), ":1257")
	cmd.AddCommand(p.serverFingerprintCommand(), p.serverTokenCommand(),
		p.serverClientsCommand(), p.serverFilesCommand(), p.serverVerifyCommand(), p.serverImportCommand())
	return p.service(cmd, c, s.check, func(ctx context.Context, log *slog.Logger) error {
		return p.runServer(ctx, c, s, log)
	})
}

func (p *program) runServer(ctx context.Context, c *common, s *serverSettings, log *slog.Logger) (err error) {
	cfg := s.config(c.data, c, log)
	cfg.Halve = halve // under "ferry up", the gateway has other things to do meanwhile
	srv, err := server.Open(ctx, cfg)
	if err != nil {
		return elsewhere(err)
	}
	defer func() { err = errors.Join(err, srv.Close()) }()
	native, err := s.openNative(ctx, c.data)
	if err != nil {
		return err
	}
	defer native.close(&err)
	p.announceServer(c.data, native)
	return serveParts(ctx, native.parts(srv)...)
}

// elsewhere says what to do about a folder that is not ours to write to.
func elsewhere(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w; --data chooses another folder", err)
	}
	return err
}

// announceServer says where the server is and what to do next.
func (p *program) announceServer(data string, n *native) {
	fmt.Fprintf(p.stdout, "Ferry's native server is ready.\n\n")
	if n.v4 != nil {
		fmt.Fprintf(p.stdout, "  address        v4://%s\n  fingerprint    %s\n", n.v4.Addr(), n.identity.Pin())
	}
	switch {
	case n.v3 != nil && n.v4 != nil:
		fmt.Fprintf(p.stdout, "  version 3      v3://%s\n", n.v3.Addr())
	case n.v3 != nil:
		fmt.Fprintf(p.stdout, "  address        v3://%s\n", n.v3.Addr())
	}
	fmt.Fprintf(p.stdout, "  stored files   %s\n\n", storedFiles(data, "CLIENT"))
	if n.v4 == nil {
		fmt.Fprintf(p.stdout, "Deliver to it from this machine:\n\n  ferry gateway --data ferry-gateway --to 'v3://%s?window=64'\n\n", local(n.v3.Addr()))
		return
	}
	to := fmt.Sprintf("'v4://%s?pin=%s'", public(n.v4.Addr()), n.identity.Pin())
	fmt.Fprintf(p.stdout, `Make a token for a client, good once and for a day; then deliver with it:

  ferry server token create%s
  ferry send --to %s --join TOKEN FILE
  ferry gateway --data ferry-gateway --to %s --join TOKEN

`, dataFlag(data), to, to)
}

// dataFlag is what names a server's folder to its other commands.
func dataFlag(data string) string {
	if data == serverData {
		return ""
	}
	return " --data " + shellWord(absolute(data))
}

// shellWord is s as a shell reads it back.
func shellWord(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+:@%,=") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// native is what a native server listens at.
type native struct {
	v4, v3   net.Listener // nil where it is off
	identity proto.ServerIdentity
	open     bool
}

// openNative loads who the server is and begins to listen.
func (s *serverSettings) openNative(ctx context.Context, data string) (n *native, err error) {
	n = &native{open: s.open}
	defer func() {
		if err != nil {
			n.close(&err)
		}
	}()
	if s.listen != "" {
		if n.identity, err = s.identity.load(data); err != nil {
			return n, err
		}
		if n.v4, err = listen(ctx, "listen", s.listen); err != nil {
			return n, err
		}
		if err = notePin(data, n.identity.Pin()); err != nil {
			return n, fmt.Errorf("note the server's fingerprint: %w", err)
		}
	}
	if s.v3 != "" {
		if n.v3, err = listen(ctx, "v3-listen", s.v3); err != nil {
			return n, err
		}
	}
	return n, nil
}

// close closes what Serve has closed already, unless it never ran.
func (n *native) close(err *error) {
	for _, ln := range []net.Listener{n.v4, n.v3} {
		if ln != nil {
			closeListener(ln, err)
		}
	}
}

// parts serve at each of them.
func (n *native) parts(srv *server.Server) []part {
	var all []part
	if n.v4 != nil {
		all = append(all, part{"server", func(ctx context.Context) error {
			return srv.Serve(ctx, n.v4, proto.AcceptV4(n.identity), server.Admission{Open: n.open})
		}})
	}
	if n.v3 != nil {
		all = append(all, part{"server, version 3", func(ctx context.Context) error {
			return srv.Serve(ctx, n.v3, proto.AcceptV3, server.Admission{Open: true})
		}})
	}
	return all
}
