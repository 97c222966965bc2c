// Command ferry takes files in over HTTP, carries them over an encrypted TCP
// protocol, and stores them with a native server. ferry help says how.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Exit statuses; ferry help states them.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
)

func main() {
	ctx := stopOnSignal(context.Background(), os.Exit)
	os.Exit(run(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}

// run is main with everything it touches as parameters.
func run(ctx context.Context, args, environ []string, stdin io.Reader, stdout, stderr io.Writer) int {
	p := &program{environ: environ, stdin: stdin, stdout: stdout, stderr: stderr}
	root := p.command()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if status, ok := errors.AsType[exitError](err); ok {
		return int(status)
	}
	switch {
	case err == nil:
		return exitOK
	case p.started && !isUsage(err):
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			err = context.Cause(ctx)
		}
		fmt.Fprintf(stderr, "%s: %v\n", cmd.CommandPath(), err)
		return exitFailure
	}
	fmt.Fprintf(stderr, "%s: %v\n%q explains how it is used.\n", cmd.CommandPath(), err, cmd.CommandPath()+" --help")
	return exitUsage
}

// usageError is a mistake in how the program was called.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func isUsage(err error) bool {
	_, ok := errors.AsType[usageError](err)
	return ok
}

// program is what the subcommands share.
type program struct {
	environ        []string
	stdin          io.Reader
	stdout, stderr io.Writer
	started        bool // a subcommand got past the command line: cobra's own errors come before
}

func (p *program) command() *cobra.Command {
	root := &cobra.Command{
		Use:   "ferry",
		Short: "Take files in over HTTP, deliver them over an encrypted protocol, store them safely",
		Long: `Ferry takes files in over HTTP, carries them over an encrypted TCP protocol,
and stores them with a native server.

  ferry up        everything in one process, on this machine alone: begin here
  ferry server    the native server alone, and what its operator does
  ferry gateway   the HTTP side alone, delivering to a server elsewhere
  ferry token     make the tokens that a gateway lets in
  ferry push      send files to a gateway and wait until they are delivered
  ferry status    show the uploads of a gateway; watch, cancel and retry are for
                  them, too
  ferry send      send files to a native server at once, without a gateway
  ferry trust     remember which key a server has
  ferry verify    check a receipt, and the file that it is for
  ferry key       give a client another key

Every flag of these can also be given as a variable (--log-level is
FERRY_LOG_LEVEL) or in a file (--config FILE, a line "log-level = debug" each).
A flag wins over a variable, a variable over the file.

Exit status: 0 when all went well; for the commands that serve that is also a
stop by SIGTERM or an interrupt. 1 when something failed, or a signal cut the
work short, of those that serve the second one.
2 when the command line, a variable or the file is wrong. ferry push, send,
trust, verify, key and others have more: "ferry help exit-codes" lists them.`,
		Example:       "  ferry up\n  curl -F file=@app.tar.gz http://127.0.0.1:8080/uploads",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	root.SetFlagErrorFunc(flagError)
	root.SetUsageTemplate(usageTemplate)
	root.AddCommand(p.upCommand(), p.serverCommand(), p.gatewayCommand(), p.tokenCommand(),
		p.pushCommand(), p.statusCommand(), p.watchCommand(), p.cancelCommand(), p.retryCommand(),
		p.sendCommand(), p.trustCommand(), p.verifyCommand(), p.keyCommand(), p.versionCommand(), exitCodesTopic())
	return root
}

// flagError says which flag was probably meant, or what its value looks like.
func flagError(cmd *cobra.Command, err error) error {
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok && unknown.GetSpecifiedShortnames() == "" {
		name := unknown.GetSpecifiedName()
		return usagef("unknown flag --%s; did you mean --%s?", name, nearest(name, flagNames(cmd)))
	}
	if invalid, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		return usagef("--%s %q: %s", invalid.GetFlag().Name, invalid.GetValue(), wanted(invalid.GetFlag()))
	}
	return usageError{err}
}

// wanted says what a flag's value looks like.
func wanted(f *pflag.Flag) string {
	switch f.Value.Type() {
	case "int", "int64":
		return "want a whole number"
	case "duration":
		return "want a duration such as 30s or 2m"
	case "bool":
		return "want true or false"
	case "size":
		return "want a number of bytes such as 1048576 or 512MiB"
	}
	return "not a value for it"
}

func flagNames(cmd *cobra.Command) []string {
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	return names
}

// usageTemplate is cobra's, with the examples first and without what Ferry
// does not use.
const usageTemplate = `{{if .HasExample}}Examples:
{{.Example}}

{{end}}Usage:
  {{if .Runnable}}{{.UseLine}}{{else}}{{.CommandPath}} COMMAND [flags]{{end}}{{if .HasAvailableSubCommands}}

Commands:{{range .Commands}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}}  {{.Short}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsagesWrapped 100 | trimTrailingWhitespaces}}{{end}}
`

// variable is the environment's name for a flag.
func variable(flag string) string {
	return variablePrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

const variablePrefix = "FERRY_"
