package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"ferry/proto"
	"ferry/server"
)

func (p *program) serverTokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make, list and revoke the tokens that clients join with",
		Args:  noArguments,
		RunE: func(*cobra.Command, []string) error {
			return usagef("want a command: create, list or revoke")
		},
	}
	cmd.AddCommand(p.tokenCreateCommand(), p.tokenListCommand(), p.tokenRevokeCommand())
	return cmd
}

// tokenFlags say what a new token is good for.
type tokenFlags struct {
	uses    int
	expires time.Duration
	client  string
}

func (t *tokenFlags) register(flags *pflag.FlagSet) {
	flags.IntVar(&t.uses, "uses", 1, "how many clients may join with it, `N`")
	flags.DurationVar(&t.expires, "expires", 24*time.Hour, "how long it is good, a `DURATION` such as 30m or 168h; 0 is until it is used or revoked")
	flags.StringVar(&t.client, "client", "", "only for the client `NAME`. If one of that name has registered, whoever joins with the token is that client from then on, with its files, and the old key is no good any more")
}

func (t *tokenFlags) check() error {
	var errs []error
	if t.uses < 1 {
		errs = append(errs, fmt.Errorf("--uses %d: want at least 1", t.uses))
	}
	if t.expires < 0 {
		errs = append(errs, fmt.Errorf("--expires %v: want 0, for never, or more", t.expires))
	}
	if t.client != "" {
		if _, err := proto.ParseClientName(t.client); err != nil {
			errs = append(errs, fmt.Errorf("--client: %w", err))
		}
		if t.uses > 1 {
			errs = append(errs, fmt.Errorf("--uses %d: a token for one client is good once", t.uses))
		}
	}
	return errors.Join(errs...)
}

// words say what the token is good for.
func (t *tokenFlags) words(now time.Time) string {
	s := "good once"
	if t.uses > 1 {
		s = fmt.Sprintf("good for %d clients", t.uses)
	}
	if t.client != "" {
		s += fmt.Sprintf(", for %s alone", printable(t.client))
	}
	if t.expires == 0 {
		return s + ", until it is used or revoked"
	}
	return s + ", until " + stamp(now.Add(t.expires))
}

func (p *program) tokenCreateCommand() *cobra.Command {
	t := &tokenFlags{}
	cmd := &cobra.Command{
		Use:   "create [flags]",
		Short: "Print a new join token, once",
		Long: `Make a join token, with which a client can register at the server, and print it.
It cannot be shown again: the server keeps its SHA-256 alone. The server may
run meanwhile, and may be started later.

The client gives it with --join, or in FERRY_JOIN, the first time it comes.`,
		Example: `  ferry server token create
  ferry server token create --uses 20 --expires 1h
  ferry server token create --client build-7 --data ./server`,
	}
	t.register(cmd.Flags())
	return p.operate(cmd, nil, t.check, func(ctx context.Context, o *operatorFlags, _ []string) error {
		_, fresh := os.Stat(filepath.Join(o.data, "catalog.db"))
		token, err := server.CreateToken(ctx, o.data, server.TokenOptions{Uses: t.uses, Expires: t.expires, Client: t.client})
		if err != nil {
			return err
		}
		if errors.Is(fresh, fs.ErrNotExist) {
			fmt.Fprintf(p.stderr, "No server has worked on %s yet: the token is for the one that will.\n", printable(o.data))
		}
		now := time.Now()
		if o.json {
			return newTable(p.stdout, true, "").add(struct {
				Token     string    `json:"token"`
				Uses      int       `json:"uses"`
				Client    string    `json:"client,omitempty"`
				ExpiresAt time.Time `json:"expires_at,omitzero"`
			}{token, t.uses, t.client, expiry(now, t.expires)}, "")
		}
		fmt.Fprintf(p.stderr, "A join token, %s; it is not shown again:\n", t.words(now))
		_, err = fmt.Fprintln(p.stdout, token)
		return err
	})
}

// expiry is when something ends; zero if it does not.
func expiry(now time.Time, after time.Duration) time.Time {
	if after == 0 {
		return time.Time{}
	}
	return now.Add(after).UTC().Truncate(time.Second)
}

func (p *program) tokenListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list [flags]",
		Short:   "List the join tokens that are good",
		Example: "  ferry server token list\n  ferry server token list --data ./server --json",
	}
	return p.operate(cmd, nil, nil, func(ctx context.Context, o *operatorFlags, _ []string) error {
		t := newTable(p.stdout, o.json, "ID\tUSES LEFT\tCLIENT\tMADE\tEXPIRES")
		for token, err := range server.Tokens(ctx, o.data) {
			if err != nil {
				return errors.Join(err, t.end())
			}
			value := struct {
				ID        string    `json:"id"`
				UsesLeft  int       `json:"uses_left"`
				Client    string    `json:"client,omitempty"`
				CreatedAt time.Time `json:"created_at"`
				ExpiresAt time.Time `json:"expires_at,omitzero"`
			}{token.ID, token.Uses, token.Client, token.CreatedAt, token.ExpiresAt}
			client, expires := "any", "never"
			if token.Client != "" {
				client = token.Client
			}
			if !token.ExpiresAt.IsZero() {
				expires = stamp(token.ExpiresAt)
			}
			if err := t.add(value, "%s\t%d\t%s\t%s\t%s", token.ID, token.Uses, client, stamp(token.CreatedAt), expires); err != nil {
				return err
			}
		}
		return t.end()
	})
}

func (p *program) tokenRevokeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "revoke ID [flags]",
		Short: "Make a join token good for nothing",
		Long: `Revoke a join token. ID is the one that "ferry server token list" shows, or as
much of its beginning as no other has. Clients that have joined with it stay.`,
		Example: "  ferry server token revoke 3f9a2c\n  ferry server token revoke 3f9a2c --data ./server",
	}
	return p.operate(cmd, []string{"ID"}, nil, func(ctx context.Context, o *operatorFlags, args []string) error {
		if err := server.RevokeToken(ctx, o.data, args[0]); err != nil {
			return err
		}
		return p.done(o, struct {
			Revoked string `json:"revoked"`
		}{args[0]}, "The token %s is good for nothing any more.\n", args[0])
	})
}
