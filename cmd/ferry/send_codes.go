package main

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"ferry/proto"
)

// Exit statuses of the commands that move files; exitCodes states them.
const (
	exitExists      = 3
	exitTimeout     = 4
	exitUndelivered = 5
	exitIntegrity   = 6
	exitNameTaken   = 7
	exitNoFile      = 8
	exitNoRoom      = 9
	exitUnreachable = 10
)

// exitCodes is what ferry help exit-codes says.
const exitCodes = `ferry send ends with one of these statuses:

   0  stored: the server holds every file, verified
   1  something else failed on this machine, such as reading or keeping the
      client's identity; or a signal cut the work short
   2  the command line, a variable, a file of settings or transfer.info is
      wrong; nothing was sent
   3  refused: a file of that name is at the destination already; nothing was
      changed there
   4  timed out: --timeout ended before the file was delivered
   5  not delivered: the connection was lost, or the server refused the file or
      answered what it must not, and trying again did not help
   6  integrity: the checksums of all four sends differed, or the file changed
      while it was sent; nothing was stored
   7  not authorised: another client is registered under the name
   8  no file: it is not there, cannot be read, or is not a regular file
   9  no room: the file is larger than the destination can take
  10  unreachable: no connection to the server could be made

With several files it is the highest that one of them came to. --json says for
each file which it was.

The commands that serve, and all others, end with 0 when all went well, also
after SIGTERM or an interrupt; with 1 when something failed; with 2 when the
command line, a variable or the file of settings is wrong.`

// exitCodesTopic is a page of help and no command.
func exitCodesTopic() *cobra.Command {
	return &cobra.Command{Use: "exit-codes", Short: "What each exit status means", Long: exitCodes}
}

// exitError ends the program with a status of its own. What there was to say
// has been said.
type exitError int

func (e exitError) Error() string { return "exit status " + strconv.Itoa(int(e)) }

// What ends a send beside the errors of proto.
var (
	errSendTimeout = errors.New("--timeout has passed")
	errFileChanged = errors.New("it changed while it was sent")
	errIdentity    = errors.New("the client's identity")
)

// failure is why a file was not stored, for whoever sent it.
type failure struct {
	exit  int
	words string
	retry bool // another attempt may succeed
}

// explain turns an error of a send into a failure. An error that is none of
// those known here is the network's; connected says that the server had been
// reached by then.
func explain(err error, connected bool) failure {
	is := func(target error) bool { return errors.Is(err, target) }
	switch {
	case is(errSendTimeout):
		return failure{exit: exitTimeout, words: "not delivered in time: --timeout has passed"}
	case is(errStopped):
		return failure{exit: exitFailure, words: "not delivered: " + errStopped.Error()}
	case is(errIdentity):
		return failure{exit: exitFailure, words: err.Error()}
	case is(proto.ErrExists):
		return failure{exit: exitExists, words: "a file of that name is there already; nothing was changed"}
	case is(proto.ErrTooLarge):
		return failure{exit: exitNoRoom, words: err.Error()}
	case is(proto.ErrName):
		return failure{exit: exitUsage, words: err.Error()}
	case is(proto.ErrChecksum):
		return failure{exit: exitIntegrity, words: "nothing was stored: the server's checksum differed each time the file was sent"}
	case is(errFileChanged):
		return failure{exit: exitIntegrity, words: "nothing was stored: the file changed while it was sent; send it again once nothing writes to it"}
	case is(proto.ErrSource):
		return failure{exit: exitNoFile, words: "nothing was stored: " + err.Error()}
	case is(proto.ErrNameTaken):
		return failure{exit: exitNameTaken, words: err.Error() + "; register under another name, or use the identity that has this one"}
	case is(proto.ErrRefused):
		return failure{exit: exitUndelivered, words: "the server refused the file, and version 3 has no words for why: its log may tell"}
	case is(proto.ErrProtocol):
		return failure{exit: exitUndelivered, words: err.Error() + "; is that the right port, and its dialect?"}
	case !connected:
		return failure{exit: exitUnreachable, words: "the server cannot be reached: " + err.Error(), retry: true}
	}
	return failure{exit: exitUndelivered, words: "not delivered: " + err.Error(), retry: true}
}

// identity marks an error of the files that keep who the client is.
func identity(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", errIdentity, err)
}
