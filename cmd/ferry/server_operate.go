package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"ferry/server"
)

// operatorFlags are those of the commands with which an operator changes what a
// server has on record, also while it runs.
type operatorFlags struct {
	data   string
	json   bool
	config string
}

// operate completes such a command. args says how many arguments it takes and
// what they are; check may be nil.
func (p *program) operate(cmd *cobra.Command, args []string, check func() error, run func(ctx context.Context, o *operatorFlags, args []string) error) *cobra.Command {
	return p.operateOn("server", serverData, cmd, args, check, run)
}

// operateOn completes a command that works on the data folder of a server or a
// gateway.
func (p *program) operateOn(whose, data string, cmd *cobra.Command, args []string, check func() error, run func(ctx context.Context, o *operatorFlags, args []string) error) *cobra.Command {
	o := &operatorFlags{}
	flags := cmd.Flags()
	usage := "`DIR` of the " + whose
	if data == "" {
		usage += " (required)"
	}
	flags.StringVar(&o.data, "data", data, usage)
	flags.BoolVar(&o.json, "json", false, "print JSON")
	registerConfig(flags, &o.config)
	cmd.DisableFlagsInUseLine = true
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		if err := loadSettings(cmd, p.environ); err != nil {
			return err
		}
		if o.data == "" {
			return usagef("--data is missing: the folder of the %s", whose)
		}
		if len(given) != len(args) {
			if len(args) == 0 {
				return usagef("unexpected argument %q", given[0])
			}
			return usagef("want one %s, and there are %d", args[0], len(given))
		}
		if check != nil {
			if err := check(); err != nil {
				return usageError{err}
			}
		}
		p.started = true
		return elsewhere(run(cmd.Context(), o, given))
	}
	return cmd
}

// done reports what was changed.
func (p *program) done(o *operatorFlags, value any, format string, args ...any) error {
	if o.json {
		return newTable(p.stdout, true, "").add(value, "")
	}
	_, err := fmt.Fprintf(p.stdout, format, args...)
	return err
}

func (p *program) clientsRevokeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "revoke NAME [flags]",
		Short: "Shut a client out",
		Long: `Shut a client out: a server that runs cuts its connections within 2 seconds, and
nobody is let in as that client from then on. Its files stay as they are, and
its name stays taken, until "ferry server clients restore" lets it in again.`,
		Example: "  ferry server clients revoke build-7\n  ferry server clients revoke build-7 --data ./server",
	}
	return p.operate(cmd, []string{"NAME"}, nil, func(ctx context.Context, o *operatorFlags, args []string) error {
		if err := server.RevokeClient(ctx, o.data, args[0]); err != nil {
			return err
		}
		return p.done(o, struct {
			Revoked string `json:"revoked"`
		}{args[0]}, "%s is shut out: its connections end within 2 seconds, its files stay.\n", printable(args[0]))
	})
}

func (p *program) clientsRestoreCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "restore NAME [flags]",
		Short:   "Let a client that was revoked in again",
		Long:    "Let a client that was revoked in again, with the key that it had.",
		Example: "  ferry server clients restore build-7\n  ferry server clients restore build-7 --data ./server",
	}
	return p.operate(cmd, []string{"NAME"}, nil, func(ctx context.Context, o *operatorFlags, args []string) error {
		if err := server.RestoreClient(ctx, o.data, args[0]); err != nil {
			return err
		}
		return p.done(o, struct {
			Restored string `json:"restored"`
		}{args[0]}, "%s is let in again, with the key that it had.\n", printable(args[0]))
	})
}
