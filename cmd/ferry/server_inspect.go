package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"ferry/proto"
	"ferry/server"
)

// errVerify: some stored files are not what is on record; each was named.
var errVerify = errors.New("not everything that is stored is what is on record")

// inspection is what the subcommands that read a server's data have in common.
type inspection struct {
	data   string
	client string
	json   bool
	config string
}

// inspect completes a subcommand that reads a server's data folder, also while
// a server works on it.
func (p *program) inspect(cmd *cobra.Command, byClient bool, run func(ctx context.Context, i *server.Inspector, in *inspection) error) *cobra.Command {
	in := &inspection{}
	flags := cmd.Flags()
	flags.StringVar(&in.data, "data", serverData, "`DIR` of the server")
	flags.BoolVar(&in.json, "json", false, "print a line of JSON for each instead of a table")
	registerConfig(flags, &in.config)
	if byClient {
		flags.StringVar(&in.client, "client", "", "only what the client `NAME` has stored")
	}
	cmd.Args = noArguments
	cmd.DisableFlagsInUseLine = true
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := loadSettings(cmd, p.environ); err != nil {
			return err
		}
		if in.data == "" {
			return usagef("--data is missing: the folder of the server")
		}
		p.started = true
		i, err := server.Inspect(in.data)
		if err != nil {
			return err
		}
		return run(cmd.Context(), i, in)
	}
	return cmd
}

func noArguments(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("unexpected argument %q", args[0])
	}
	return nil
}

// table prints rows as columns, or values as lines of JSON.
type table struct {
	columns *tabwriter.Writer
	lines   *json.Encoder // nil unless JSON is wanted
}

func newTable(w io.Writer, asJSON bool, heads string) *table {
	t := &table{columns: tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	if asJSON {
		t.lines = json.NewEncoder(w)
		t.lines.SetEscapeHTML(false)
		return t
	}
	fmt.Fprintln(t.columns, heads)
	return t
}

func (t *table) add(value any, row string, cells ...any) error {
	if t.lines != nil {
		return t.lines.Encode(value)
	}
	_, err := fmt.Fprintf(t.columns, row+"\n", cells...)
	return err
}

func (t *table) end() error { return t.columns.Flush() }

func (p *program) serverClientsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "clients [flags]",
		Short:   "List the clients that have registered, revoke and restore them",
		Example: "  ferry server clients list\n  ferry server clients --data ./server --json\n  ferry server clients revoke build-7",
	}
	cmd.AddCommand(p.clientsListCommand(), p.clientsRevokeCommand(), p.clientsRestoreCommand())
	return p.listClients(cmd)
}

// clientsListCommand is the same in the words of "ferry server token list".
func (p *program) clientsListCommand() *cobra.Command {
	return p.listClients(&cobra.Command{
		Use:     "list [flags]",
		Short:   "List the clients that have registered, as \"ferry server clients\" does",
		Example: "  ferry server clients list\n  ferry server clients list --data ./server --json",
	})
}

// listClients has a command list them.
func (p *program) listClients(cmd *cobra.Command) *cobra.Command {
	return p.inspect(cmd, false, func(ctx context.Context, i *server.Inspector, in *inspection) error {
		t := newTable(p.stdout, in.json, "NAME\tID\tFILES\tBYTES\tREGISTERED\tLAST SEEN\tREVOKED")
		for c, err := range i.Clients(ctx) {
			if err != nil {
				return errors.Join(err, t.end())
			}
			value := struct {
				Name         string    `json:"name"`
				ID           string    `json:"id"`
				Files        int64     `json:"files"`
				Bytes        int64     `json:"bytes"`
				RegisteredAt time.Time `json:"registered_at"`
				LastSeen     time.Time `json:"last_seen"`
				RevokedAt    time.Time `json:"revoked_at,omitzero"`
			}{c.Name, c.ID.String(), c.Files, c.Bytes, c.RegisteredAt, c.LastSeen, c.RevokedAt}
			revoked := ""
			if !c.RevokedAt.IsZero() {
				revoked = stamp(c.RevokedAt)
			}
			if err := t.add(value, "%s\t%s\t%d\t%d\t%s\t%s\t%s", printable(c.Name), c.ID, c.Files, c.Bytes, stamp(c.RegisteredAt), stamp(c.LastSeen), revoked); err != nil {
				return err
			}
		}
		return t.end()
	})
}

func (p *program) serverFilesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "files [flags]",
		Short:   "List the files that are stored",
		Example: "  ferry server files --client build-7\n  ferry server files --data ./server --json",
	}
	return p.inspect(cmd, true, func(ctx context.Context, i *server.Inspector, in *inspection) error {
		t := newTable(p.stdout, in.json, "CLIENT\tSIZE\tCKSUM\tSHA-256\tSTORED\tNAME")
		for f, err := range i.Files(ctx, in.client) {
			if err != nil {
				return errors.Join(err, t.end())
			}
			sum := hex.EncodeToString(f.Sum.SHA256[:])
			value := struct {
				Client   string    `json:"client"`
				Name     string    `json:"name"`
				Size     int64     `json:"size"`
				Cksum    uint32    `json:"cksum"`
				SHA256   string    `json:"sha256"`
				StoredAt time.Time `json:"stored_at"`
			}{f.Client, f.Name, f.Sum.Size, f.Sum.Cksum, sum, f.StoredAt}
			if err := t.add(value, "%s\t%d\t%d\t%s\t%s\t%s", printable(f.Client), f.Sum.Size, f.Sum.Cksum, sum, stamp(f.StoredAt), printable(f.Name)); err != nil {
				return err
			}
		}
		return t.end()
	})
}

func (p *program) serverVerifyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify [flags]",
		Short: "Compare every stored file with the catalog",
		Long: `Read every stored file and compare its size, cksum and SHA-256 with the
catalog. What differs or is missing is named, a line each; so is what is on disk
and not on record. Nothing is changed. The exit status is 1 if there is
anything to name, else 0.`,
		Example: "  ferry server verify\n  ferry server verify --data ./server --client build-7 --json",
	}
	return p.inspect(cmd, true, p.verify)
}

func (p *program) verify(ctx context.Context, i *server.Inspector, in *inspection) error {
	t := newTable(p.stdout, in.json, "CLIENT\tNAME\tPROBLEM")
	checked, problems := 0, 0
	for c, err := range i.Verify(ctx, in.client) {
		if err != nil {
			return errors.Join(err, t.end())
		}
		checked++
		if c.Problem == nil {
			continue
		}
		problems++
		value := struct {
			Client  string `json:"client"`
			Name    string `json:"name"`
			Problem string `json:"problem"`
		}{c.Client, c.Name, problem(c)}
		if err := t.add(value, "%s\t%s\t%s", printable(c.Client), printable(c.Name), value.Problem); err != nil {
			return err
		}
	}
	if problems > 0 {
		return errors.Join(fmt.Errorf("%w: %d of %d files", errVerify, problems, checked), t.end())
	}
	if in.json {
		return nil
	}
	_, err := fmt.Fprintf(p.stdout, "%d files are what is on record.\n", checked)
	return err
}

// problem says what Verify found, with the figures where they tell something.
func problem(c server.Check) string {
	if !errors.Is(c.Problem, server.ErrDiffers) {
		return c.Problem.Error()
	}
	if c.Got == (proto.Sum{}) {
		return fmt.Sprintf("%v: it is not a regular file", c.Problem)
	}
	return fmt.Sprintf("%v: %d bytes, cksum %d, SHA-256 %x; on record %d bytes, cksum %d, SHA-256 %x", c.Problem,
		c.Got.Size, c.Got.Cksum, c.Got.SHA256, c.Want.Size, c.Want.Cksum, c.Want.SHA256)
}

func stamp(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }
