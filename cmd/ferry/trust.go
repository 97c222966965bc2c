package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"ferry/proto"
)

// trustTimeout bounds the wait for a server to show its key.
const trustTimeout = 20 * time.Second

// trustSettings are the flags of ferry trust.
type trustSettings struct {
	pin    string
	forget bool
	config string
}

func (p *program) trustCommand() *cobra.Command {
	s := &trustSettings{}
	cmd := &cobra.Command{
		Use:                   "trust HOST:PORT [flags]",
		DisableFlagsInUseLine: true,
		Short:                 "Remember which key a server has",
		Long: `Show the fingerprint of the server at HOST:PORT and, after a yes, remember it:
from then on "ferry send" and "ferry gateway" find it without ?pin= in their
URL. Compare it with what "ferry server fingerprint" prints there before you
say yes: whoever answers at that address could show a key.

A server that shows another key than the remembered one is refused, here and
everywhere. If its operator has changed the key, --forget it and trust it anew.

With --pin, or ?pin= in a URL, nothing is asked: the server is remembered if it
has that key. What is remembered is in $XDG_STATE_HOME/ferry/known_servers, under
~/.local/state without that variable. The exit status is 7 for a server with
another key, 10 for one that cannot be reached.`,
		Example: `  ferry trust files.example.org:1257
  ferry trust files.example.org --pin sha256:1c5f...
  ferry trust --forget files.example.org:1257`,
	}
	cmd.Flags().StringVar(&s.pin, "pin", "", "`FINGERPRINT` that the server must have, sha256:...; it is remembered without a question")
	cmd.Flags().BoolVar(&s.forget, "forget", false, "forget what is remembered of the server")
	registerConfig(cmd.Flags(), &s.config)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := loadSettings(cmd, p.environ); err != nil {
			return err
		}
		if len(args) != 1 {
			return usagef("want one server, HOST:PORT, and there are %d", len(args))
		}
		to, err := nativeServer(args[0])
		if err != nil {
			return usageError{err}
		}
		pin, err := s.expected(to, cmd.Flags().Changed("pin"))
		if err != nil {
			return usageError{err}
		}
		known, err := openKnown(p.environ)
		if err != nil {
			return usageError{err}
		}
		p.started = true
		switch {
		case s.forget:
			return p.forget(cmd.Context(), known, to.Address())
		case pin != (proto.Pin{}):
			return p.trustPin(cmd.Context(), known, to.Address(), pin)
		}
		return p.trustAsked(cmd.Context(), known, to.Address())
	}
	return cmd
}

// nativeServer reads HOST:PORT or HOST, also as a URL.
func nativeServer(s string) (proto.Destination, error) {
	if !strings.Contains(s, "://") {
		s = "v4://" + s
	}
	to, err := proto.ParseDestination(s)
	if err != nil {
		return proto.Destination{}, err
	}
	if !strings.HasPrefix(to.String(), "v4://") {
		return proto.Destination{}, fmt.Errorf("%s: only servers of wire version 4 have a key to be known by", s)
	}
	return to, nil
}

// expected is the pin that the server must have, by --pin or by its URL; zeros
// if neither says. given says that there is a --pin: an empty one is none, and
// must not become a question.
func (s *trustSettings) expected(to proto.Destination, given bool) (proto.Pin, error) {
	if to.Identified() && to.Pin() == (proto.Pin{}) {
		return proto.Pin{}, errors.New("with ca= the server is known by its certificate, and there is no key to remember: want HOST:PORT")
	}
	if !given {
		return to.Pin(), nil
	}
	pin, err := proto.ParsePin(s.pin)
	switch {
	case err != nil:
		return pin, fmt.Errorf("--pin: %w", err)
	case pin == (proto.Pin{}):
		return pin, fmt.Errorf("--pin: %s: zeros are none", pin)
	case to.Pin() != (proto.Pin{}) && to.Pin() != pin:
		return pin, fmt.Errorf("--pin says %s, and the URL %s: want one", pin, to.Pin())
	}
	return pin, nil
}

func (p *program) forget(ctx context.Context, known knownServers, address string) error {
	was, err := known.forget(ctx, address)
	if err != nil {
		return err
	}
	if !was {
		return fmt.Errorf("%s is not among the known servers, in %s", address, known.path)
	}
	_, err = fmt.Fprintf(p.stdout, "%s is forgotten.\n", address)
	return err
}

// serverPin asks the server for its key.
func (p *program) serverPin(ctx context.Context, address string) (proto.Pin, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, trustTimeout, fmt.Errorf("no answer within %v", trustTimeout))
	defer cancel()
	pin, err := proto.ServerPin(ctx, address)
	switch {
	case unreached(err):
		fmt.Fprintf(p.stderr, "ferry trust: the server cannot be reached: %v\n", err)
		return proto.Pin{}, exitError(exitUnreachable)
	case err != nil:
		return proto.Pin{}, err
	}
	return pin, nil
}

// trustPin remembers a server if it has the key that the user knows.
func (p *program) trustPin(ctx context.Context, known knownServers, address string, pin proto.Pin) error {
	seen, err := p.serverPin(ctx, address)
	if err != nil {
		return err
	}
	if seen != pin {
		fmt.Fprintf(p.stderr, `ferry trust: %s is not that server, and nothing was remembered.

  wanted         %s
  it shows       %s

`, address, pin, seen)
		return exitError(exitUnauthorized)
	}
	if done, err := p.already(known, address, seen); done || err != nil {
		return err
	}
	return p.remember(ctx, known, knownServer{address, seen})
}

// trustAsked shows a server's key and remembers it if the user says so.
func (p *program) trustAsked(ctx context.Context, known knownServers, address string) error {
	seen, err := p.serverPin(ctx, address)
	if err != nil {
		return err
	}
	if done, err := p.already(known, address, seen); done || err != nil {
		return err
	}
	if !isTerminal(p.stdin) {
		return usagef("%s shows %s, and there is nobody to ask whether that is right: stdin is no terminal. "+
			"Compare it with what \"ferry server fingerprint\" prints at the server, and say --pin %[2]s", address, seen)
	}
	fmt.Fprintf(p.stdout, `The server at %s shows the key

  %s

It is the right one if "ferry server fingerprint" prints the same there.
`, address, seen)
	fmt.Fprint(p.stderr, "Trust it from now on? [y/N] ")
	switch yes, err := ask(ctx, p.stdin); {
	case err != nil:
		return err
	case !yes:
		return errors.New("nothing was remembered")
	}
	return p.remember(ctx, known, knownServer{address, seen})
}

// already deals with a server that is known: by that key, or by another.
func (p *program) already(known knownServers, address string, seen proto.Pin) (done bool, err error) {
	pin, ok, err := known.pin(address)
	switch {
	case err != nil || !ok:
		return false, err
	case pin == seen:
		_, err := fmt.Fprintf(p.stdout, "%s is known already, by %s.\n", address, seen)
		return true, err
	}
	fmt.Fprintf(p.stderr, `ferry trust: THE SERVER %s HAS ANOTHER KEY than it was known by.

  known by       %s
  it shows       %s

Somebody may be answering in its place. Nothing was changed, and nothing is
sent there. If its operator says that the key was changed, and "ferry server
fingerprint" prints the second one:

  ferry trust --forget %[1]s
  ferry trust %[1]s

`, address, pin, seen)
	return true, exitError(exitUnauthorized)
}

func (p *program) remember(ctx context.Context, known knownServers, s knownServer) error {
	if err := known.remember(ctx, s); err != nil {
		return err
	}
	_, err := fmt.Fprintf(p.stdout, "%s is known from now on, by %s.\n", s.address, s.pin)
	return err
}

// ask reads an answer to a question, which is no unless it says yes. When ctx
// ends first, the goroutine that reads stays behind: nothing can wake it, and
// the program is about to end.
func ask(ctx context.Context, from io.Reader) (yes bool, err error) {
	answer := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(io.LimitReader(from, 100)).ReadString('\n') // none is a no
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case <-ctx.Done():
		return false, context.Cause(ctx)
	case line := <-answer:
		return line == "y" || line == "yes", nil
	}
}

// isTerminal reports whether somebody sits at the other end.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
