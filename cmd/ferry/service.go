package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// errStopped ends the program's context when a signal asks it to stop.
var errStopped = errors.New("stopped by a signal")

// stopOnSignal returns a context that ends, with errStopped as its cause, at
// the first SIGTERM or interrupt. The second one calls exit at once. Its
// goroutine lives as long as the program.
func stopOnSignal(ctx context.Context, exit func(status int)) context.Context {
	ctx, stop := context.WithCancelCause(ctx)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		stop(fmt.Errorf("%w: %v", errStopped, <-signals))
		<-signals
		exit(exitFailure)
	}()
	return ctx
}

// common is what the subcommands that serve have in common.
type common struct {
	data      string
	grace     time.Duration
	logFormat string
	logLevel  string
	config    string
}

func (c *common) register(flags *pflag.FlagSet, data, dataUsage string) {
	flags.StringVar(&c.data, "data", data, dataUsage)
	flags.DurationVar(&c.grace, "grace", 30*time.Second,
		"how long what runs may go on after SIGTERM or an interrupt before it is cut short: a `DURATION` such as 90s or 2m. Nothing that was accepted is lost by a cut")
	flags.StringVar(&c.logFormat, "log-format", "text", "`FORM` of the log on stderr: text or json")
	flags.StringVar(&c.logLevel, "log-level", "info", "least `LEVEL` that is logged: debug, info, warn or error")
	registerConfig(flags, &c.config)
}

func (c *common) check() error {
	var errs []error
	if c.data == "" {
		errs = append(errs, errors.New("--data is missing: the folder to keep everything in"))
	}
	if c.grace <= 0 {
		errs = append(errs, fmt.Errorf("--grace %v: it must be more than nothing", c.grace))
	}
	_, err := c.logger(io.Discard)
	return errors.Join(append(errs, err)...)
}

// logger returns the program's log.
func (c *common) logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	switch c.logLevel {
	case "debug":
		level = slog.LevelDebug
	case "info":
		level = slog.LevelInfo
	case "warn":
		level = slog.LevelWarn
	case "error":
		level = slog.LevelError
	default:
		return nil, fmt.Errorf("--log-level %q: want debug, info, warn or error", c.logLevel)
	}
	options := &slog.HandlerOptions{Level: level}
	switch c.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return nil, fmt.Errorf("--log-format %q: want text or json", c.logFormat)
}

// service completes a subcommand that serves until a signal: settings are
// loaded and checked before run is called.
func (p *program) service(cmd *cobra.Command, c *common, check func() error, run func(ctx context.Context, log *slog.Logger) error) *cobra.Command {
	cmd.Args = noArguments
	cmd.DisableFlagsInUseLine = true
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := loadSettings(cmd, p.environ); err != nil {
			return err
		}
		if err := errors.Join(c.check(), check()); err != nil {
			return usageError{err}
		}
		log, err := c.logger(p.stderr)
		if err != nil {
			return usageError{err}
		}
		p.started = true
		return p.runUntilStopped(cmd.Context(), log, run)
	}
	return cmd
}

func (p *program) runUntilStopped(ctx context.Context, log *slog.Logger, run func(ctx context.Context, log *slog.Logger) error) error {
	said := context.AfterFunc(ctx, func() {
		log.Info("stopping: what runs may finish, a second signal ends it at once", "cause", context.Cause(ctx))
	})
	defer said()
	err := run(ctx, log)
	if ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, errStopped)) {
		return nil // a signal came before everything was open
	}
	return err
}

// part is a half of Ferry that serves until its context ends.
type part struct {
	name  string
	serve func(ctx context.Context) error
}

// serveParts runs the parts until ctx ends or one of them does. Then it stops
// them one after another, in their order: the next one still serves while the
// one before it finishes what runs.
func serveParts(ctx context.Context, parts ...part) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	type running struct {
		stop context.CancelCauseFunc
		done chan error
	}
	var all []running
	for _, p := range parts {
		own, stop := context.WithCancelCause(context.WithoutCancel(ctx))
		done := make(chan error, 1)
		go func() {
			err := p.serve(own)
			if err != nil {
				err = fmt.Errorf("%s: %w", p.name, err)
			} else if own.Err() == nil {
				err = fmt.Errorf("internal error: %s ended by itself", p.name)
			}
			end(err)
			done <- err
		}()
		all = append(all, running{stop, done})
	}
	<-ctx.Done()
	var errs []error
	for _, r := range all {
		r.stop(context.Cause(ctx))
		errs = append(errs, <-r.done)
	}
	return errors.Join(errs...)
}
