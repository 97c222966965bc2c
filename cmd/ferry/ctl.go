package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/oklog/ulid/v2"
	"github.com/spf13/cobra"
)

// remote is what the commands that look at a gateway's uploads share.
type remote struct {
	gatewayFlags
	json bool
}

// remoteCommand completes one of them.
func (p *program) remoteCommand(cmd *cobra.Command, r *remote, run func(ctx context.Context, g *gatewayClient, ids []string) error) *cobra.Command {
	cmd.DisableFlagsInUseLine = true
	r.register(cmd.Flags())
	cmd.Flags().BoolVar(&r.json, "json", false, "print a line of JSON for each upload, as the gateway has it")
	cmd.RunE = func(cmd *cobra.Command, ids []string) error {
		if err := loadSettings(cmd, p.environ); err != nil {
			return err
		}
		for _, id := range ids {
			if _, err := ulid.ParseStrict(id); err != nil {
				return usagef("%q is no id of an upload: want 26 letters and digits, as \"ferry status\" and \"ferry push\" print them", id)
			}
		}
		g, err := r.open()
		if err != nil {
			return err
		}
		defer g.close()
		p.started = true
		return run(cmd.Context(), g, ids)
	}
	return cmd
}

// remoteFailed says what became of a call, and returns the status to end with.
func (p *program) remoteFailed(cmd, what string, err error) error {
	f := explainGateway(err)
	if what != "" {
		what += ": "
	}
	fmt.Fprintf(p.stderr, "ferry %s: %s%s\n", cmd, what, f.words)
	return exitError(f.exit)
}

// each calls act for each id and returns the highest status of all.
func each(ids []string, act func(id string) error) error {
	worst := exitOK
	for _, id := range ids {
		err := act(id)
		status, ok := errors.AsType[exitError](err)
		if err != nil && !ok {
			return err
		}
		worst = max(worst, int(status))
	}
	return exitStatus(worst)
}

func (p *program) cancelCommand() *cobra.Command {
	r := &remote{}
	cmd := &cobra.Command{
		Use:   "cancel [flags] ID...",
		Short: "Stop uploads that are on their way",
		Long: `Stop uploads that are on their way, and say what became of each: it may have been
delivered meanwhile. One that is delivered, failed or cancelled stays as it is;
if it is not cancelled then, the status is 3.`,
		Example: "  ferry cancel 01K62Q3V7N5CW0M8DJ4RXEBZ9T",
		Args:    cobra.MinimumNArgs(1),
	}
	return p.remoteCommand(cmd, r, func(ctx context.Context, g *gatewayClient, ids []string) error {
		return each(ids, func(id string) error { return p.cancelUpload(ctx, g, r, id) })
	})
}

// cancelUpload says what became of an upload, which may be its delivery.
func (p *program) cancelUpload(ctx context.Context, g *gatewayClient, r *remote, id string) error {
	u, _, err := g.upload(ctx, call{method: http.MethodPost, path: uploadPath(id) + "/cancel"})
	if err != nil {
		return p.remoteFailed("cancel", id, err)
	}
	if err := p.printUpload(r, u); err != nil || u.State == remoteCancelled {
		return err
	}
	fmt.Fprintf(p.stderr, "ferry cancel: %s: too late, it is %s\n", id, printable(u.State))
	return exitError(exitRefused)
}

func (p *program) retryCommand() *cobra.Command {
	r := &remote{}
	cmd := &cobra.Command{
		Use:   "retry [flags] ID...",
		Short: "Deliver uploads again that failed, or wait, now",
		Long: `Deliver uploads again, at once, that failed, were cancelled, are held, or wait for
their next attempt. The gateway refuses that for others, and where it has not kept the
bytes: the status is 3 then.`,
		Example: "  ferry retry 01K62Q3V7N5CW0M8DJ4RXEBZ9T\n  ferry retry ID && ferry watch ID",
		Args:    cobra.MinimumNArgs(1),
	}
	return p.remoteCommand(cmd, r, func(ctx context.Context, g *gatewayClient, ids []string) error {
		return each(ids, func(id string) error {
			u, _, err := g.upload(ctx, call{method: http.MethodPost, path: uploadPath(id) + "/retry"})
			if err != nil {
				return p.remoteFailed("retry", id, err)
			}
			return p.printUpload(r, u)
		})
	})
}

// printUpload says briefly how an upload stands, or prints it as it came.
func (p *program) printUpload(r *remote, u remoteUpload) error {
	if r.json {
		return p.printJSON(u.raw)
	}
	_, err := fmt.Fprintln(p.stdout, uploadLine(u))
	return err
}
