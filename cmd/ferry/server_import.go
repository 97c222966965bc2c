package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"ferry/internal/oldserver"
	"ferry/proto"
	"ferry/server"
)

// errImport: something was left behind; each was named.
var errImport = errors.New("not everything could be taken over; the old folder is as it was, and the import can be run again")

// errImportStopped is no [errStopped], which is success: what comes after an
// import may be the end of the old folder.
var errImportStopped = errors.New("stopped by a signal before everything was taken over; the old folder is as it was, and the import goes on where it ended when it is run again")

func (p *program) serverImportCommand() *cobra.Command {
	var data, from, config string
	cmd := &cobra.Command{
		Use:   "import --from FOLDER [flags]",
		Short: "Take over an old server's clients and files",
		Long: `Take over what an old server of wire version 3 kept in FOLDER: the clients of
its databases, with their ids and keys, and the files it had verified. Its
clients reconnect to this server and find their files. Nothing is changed in
FOLDER. No server may run on DIR meanwhile; running the import again goes on
where it ended.

Each client and file that cannot be taken over is named, a line each with the
reason, and the exit status is 1 then. Files that the old server had not
verified are left out and do not count as that.`,
		Example: "  ferry server import --from ./old-server --data ./server",
		Args:    noArguments,
	}
	cmd.Flags().StringVar(&data, "data", serverData, "`DIR` of the server; it is created if need be")
	cmd.Flags().StringVar(&from, "from", "", "`FOLDER` of the old server (required)")
	registerConfig(cmd.Flags(), &config)
	cmd.DisableFlagsInUseLine = true
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := loadSettings(cmd, p.environ); err != nil {
			return err
		}
		switch {
		case from == "":
			return usagef("--from is missing: the folder of the old server")
		case data == "":
			return usagef("--data is missing: the folder of this server")
		}
		p.started = true
		return p.importFrom(cmd.Context(), from, data)
	}
	return cmd
}

func (p *program) importFrom(ctx context.Context, from, data string) (err error) {
	defer func() {
		if err != nil && ctx.Err() != nil {
			err = errImportStopped
		}
	}()
	old, err := oldserver.Open(ctx, from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, old.Close()) }()
	srv, err := server.Open(ctx, server.Config{Data: data, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, srv.Close()) }()
	i := importer{old: old, server: srv, report: p.stdout, clients: map[proto.ClientID]proto.Registration{}}
	if err := i.takeClients(ctx); err != nil {
		return err
	}
	if err := i.takeFiles(ctx); err != nil {
		return err
	}
	fmt.Fprintf(p.stdout, "%d clients and %d files taken over, %d files were here already, %d were never verified.\n",
		len(i.clients), i.stored, i.same, i.unverified)
	if i.left > 0 {
		return fmt.Errorf("%w: %d", errImport, i.left)
	}
	return nil
}

// importer carries an old server's folder over, row by row.
type importer struct {
	old     *oldserver.Folder
	server  *server.Server
	report  io.Writer
	clients map[proto.ClientID]proto.Registration // taken over

	stored, same, unverified, left int // files; left counts clients as well
}

// leave names what is not taken over.
func (i *importer) leave(what, name string, why error) {
	i.left++
	fmt.Fprintf(i.report, "%s %q is left out: %v\n", what, name, why)
}

func (i *importer) takeClients(ctx context.Context) error {
	all, err := i.old.Clients(ctx)
	if err != nil {
		return err
	}
	for _, c := range all {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		r, err := registration(c)
		if err == nil {
			err = i.server.ImportClient(ctx, r, c.LastSeen)
		}
		if err != nil && ctx.Err() != nil {
			return err
		}
		if err != nil {
			i.leave("client", c.Name, err)
			continue
		}
		i.clients[r.ID] = r
	}
	return nil
}

func registration(c oldserver.Client) (proto.Registration, error) {
	r := proto.Registration{PublicKey: c.PublicKey}
	if len(c.ID) != len(r.ID) {
		return r, fmt.Errorf("its id has %d bytes, want %d", len(c.ID), len(r.ID))
	}
	copy(r.ID[:], c.ID)
	if len(c.PublicKey) == 0 {
		return r, errors.New("it never sent a public key; it can register here anew")
	}
	var err error
	r.Name, err = proto.ParseClientName(c.Name)
	return r, err
}

func (i *importer) takeFiles(ctx context.Context) error {
	all, err := i.old.Files(ctx)
	if err != nil {
		return err
	}
	for _, f := range all {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !f.Verified {
			i.unverified++
			continue
		}
		switch err := i.takeFile(ctx, f); {
		case err != nil && ctx.Err() != nil:
			return err
		case err != nil:
			i.leave("file", f.Name, err)
		}
	}
	return nil
}

func (i *importer) takeFile(ctx context.Context, f oldserver.File) (err error) {
	var id proto.ClientID
	copy(id[:], f.Client)
	r, ok := i.clients[id]
	if !ok || len(f.Client) != len(id) {
		return errors.New("its client was not taken over")
	}
	name, err := proto.ParseFileName(f.Name)
	if err != nil {
		return err
	}
	src, err := i.old.OpenFile(f.Path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	at := time.Now()
	if info, err := src.Stat(); err == nil {
		at = info.ModTime()
	}
	stored, err := i.server.ImportFile(ctx, r, name, at, src)
	switch {
	case err != nil:
		return err
	case stored:
		i.stored++
	default:
		i.same++
	}
	return nil
}
