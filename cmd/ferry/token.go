package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"ferry/gateway"
)

func (p *program) tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make, list and revoke the tokens that a gateway lets in",
		Long: `Make, list and revoke the tokens that a gateway lets in. All work on the
gateway's data folder, also while the gateway runs. As soon as there is one,
nobody is let in without, not even after the last was revoked.

They are another thing than the join tokens of "ferry server token", with which
a gateway itself registers at a server.`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			return usagef("want a command: create, list or revoke")
		},
	}
	cmd.AddCommand(p.bearerCreateCommand(), p.bearerListCommand(), p.bearerRevokeCommand())
	return cmd
}

// bearerFlags say what a new token is good for.
type bearerFlags struct {
	scope   string
	expires lifetime
	maxSize size
	to      string

	scopes []gateway.Scope // that scope comes to
}

func (b *bearerFlags) register(flags *pflag.FlagSet) {
	b.expires = lifetime(90 * day)
	flags.StringVar(&b.scope, "scope", "", "what it allows (required), `SCOPES` with commas between them: upload is to send files, and to see and cancel those sent under the token's name; "+
		"read is to see all; admin is everything, such as to retry and to forget")
	flags.Var(&b.expires, "expires", "how long it is good, a `DURATION` such as 12h or 90d; 0 is until it is revoked")
	flags.Var(&b.maxSize, "max-size", "largest file that may be sent with it, a `SIZE`; 0 is what the destination takes")
	flags.StringVar(&b.to, "destination", "", "`NAME` of the only destination that it is good for, to send there and to see what others send there; all if not given")
}

func (b *bearerFlags) check() (err error) {
	if b.scope == "" {
		return errors.New("--scope is missing: upload, read or admin, or several with commas between them")
	}
	if b.scopes, err = gateway.ParseScopes(b.scope); err != nil {
		return fmt.Errorf("--scope: %w", err)
	}
	if b.to != "" {
		if err := gateway.CheckDestinationName(b.to); err != nil {
			return fmt.Errorf("--destination: %w", err)
		}
	}
	return nil
}

func (p *program) bearerCreateCommand() *cobra.Command {
	b := &bearerFlags{}
	cmd := &cobra.Command{
		Use:   "create NAME --scope SCOPES --data DIR [flags]",
		Short: "Print a new token, once",
		Long: `Make a token and print it. It cannot be shown again: the gateway keeps its
SHA-256 alone. NAME says who has it, in lists and in the gateway's log. What is
sent with it belongs to NAME: a later token of that name sees it, too.

A program shows it as "Authorization: Bearer TOKEN"; ferry push and the like do
so with what is in FERRY_TOKEN, or in the file that --token-file names.`,
		Example: `  ferry token create ci --scope upload --data ./gateway
  ferry token create dashboard --scope read --expires 0 --data ./gateway
  ferry token create partner --scope upload --expires 30d --max-size 2GiB --data ./gateway`,
	}
	b.register(cmd.Flags())
	return p.operateOn("gateway", "", cmd, []string{"NAME"}, b.check, func(ctx context.Context, o *operatorFlags, args []string) error {
		_, fresh := os.Stat(filepath.Join(o.data, "gateway.db"))
		token, err := gateway.CreateToken(ctx, o.data, gateway.TokenOptions{
			Name: args[0], Scopes: b.scopes, Expires: time.Duration(b.expires), MaxSize: int64(b.maxSize), Destination: b.to,
		})
		if errors.Is(err, gateway.ErrTokenName) {
			return usageError{err}
		}
		if err != nil {
			return err
		}
		if errors.Is(fresh, fs.ErrNotExist) {
			fmt.Fprintf(p.stderr, "No gateway has worked on %s yet: the token is for the one that will.\n", printable(o.data))
		}
		expires := expiry(time.Now(), time.Duration(b.expires))
		if o.json {
			return newTable(p.stdout, true, "").add(struct {
				Token       string          `json:"token"`
				Name        string          `json:"name"`
				Scopes      []gateway.Scope `json:"scopes"`
				MaxSize     int64           `json:"max_size,omitempty"`
				Destination string          `json:"destination,omitempty"`
				ExpiresAt   time.Time       `json:"expires_at,omitzero"`
			}{token, args[0], b.scopes, int64(b.maxSize), b.to, expires}, "")
		}
		until := "it is revoked"
		if !expires.IsZero() {
			until = stamp(expires)
		}
		fmt.Fprintf(p.stderr, "A token of %s, good until %s; it is not shown again:\n", printable(args[0]), until)
		_, err = fmt.Fprintln(p.stdout, token)
		return err
	})
}

func (p *program) bearerListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list --data DIR [flags]",
		Short:   "List the tokens that are good",
		Example: "  ferry token list --data ./gateway\n  ferry token list --data ./gateway --json",
	}
	return p.operateOn("gateway", "", cmd, nil, nil, func(ctx context.Context, o *operatorFlags, _ []string) error {
		t := newTable(p.stdout, o.json, "NAME\tSCOPES\tMAX SIZE\tDESTINATION\tMADE\tEXPIRES")
		for token, err := range gateway.Tokens(ctx, o.data) {
			if err != nil {
				return errors.Join(err, t.end())
			}
			value := struct {
				Name        string          `json:"name"`
				Scopes      []gateway.Scope `json:"scopes"`
				MaxSize     int64           `json:"max_size,omitempty"`
				Destination string          `json:"destination,omitempty"`
				CreatedAt   time.Time       `json:"created_at"`
				ExpiresAt   time.Time       `json:"expires_at,omitzero"`
			}{token.Name, token.Scopes, token.MaxSize, token.Destination, token.CreatedAt, token.ExpiresAt}
			most, expires := "any", "never"
			if token.MaxSize > 0 {
				most = new(size(token.MaxSize)).String()
			}
			if !token.ExpiresAt.IsZero() {
				expires = stamp(token.ExpiresAt)
			}
			var scopes []string
			for _, s := range token.Scopes {
				scopes = append(scopes, string(s))
			}
			if err := t.add(value, "%s\t%s\t%s\t%s\t%s\t%s", printable(token.Name), strings.Join(scopes, ","), most, cmp.Or(token.Destination, "any"), stamp(token.CreatedAt), expires); err != nil {
				return err
			}
		}
		return t.end()
	})
}

func (p *program) bearerRevokeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "revoke NAME --data DIR [flags]",
		Short: "Make a token good for nothing",
		Long: `Make the token of that name good for nothing. A gateway that runs ends what goes
on under it within a second, in the middle of an upload as well; what it has
accepted before is kept and delivered.`,
		Example: "  ferry token revoke ci --data ./gateway",
	}
	return p.operateOn("gateway", "", cmd, []string{"NAME"}, nil, func(ctx context.Context, o *operatorFlags, args []string) error {
		if err := gateway.RevokeToken(ctx, o.data, args[0]); err != nil {
			return err
		}
		return p.done(o, struct {
			Revoked string `json:"revoked"`
		}{args[0]}, "The token of %s is good for nothing any more.\n", printable(args[0]))
	})
}

const day = 24 * time.Hour

// lifetime is a flag's duration that may be in days, too.
type lifetime time.Duration

var _ pflag.Value = (*lifetime)(nil)

func (l *lifetime) String() string {
	d := time.Duration(*l)
	switch {
	case d == 0:
		return "0"
	case d%day == 0:
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	return d.String()
}

func (l *lifetime) Set(text string) error {
	d, err := time.ParseDuration(text)
	if digits, ok := strings.CutSuffix(text, "d"); ok {
		var days uint64
		days, err = strconv.ParseUint(digits, 10, 16)
		d = time.Duration(days) * day // 16 bits of days are 179 years: a duration has 292
	}
	switch {
	case err != nil:
		return err
	case d < 0 || d > math.MaxUint16*day:
		return errors.New("out of range")
	}
	*l = lifetime(d)
	return nil
}

func (l *lifetime) Type() string { return "duration" }
