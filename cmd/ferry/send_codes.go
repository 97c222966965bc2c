package main

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"ferry/proto"
)

// Exit statuses of the commands that move files; exitCodes states them.
const (
	exitRefused      = 3
	exitTimeout      = 4
	exitUndelivered  = 5
	exitIntegrity    = 6
	exitUnauthorized = 7
	exitNoFile       = 8
	exitNoRoom       = 9
	exitUnreachable  = 10
)

// exitCodes is what ferry help exit-codes says.
const exitCodes = sendExitCodes + "\n\n" + pushExitCodes + "\n\n" + otherExitCodes

const sendExitCodes = `ferry send ends with one of these statuses:

   0  stored: the server holds every file, verified
   1  something else failed on this machine, such as reading or keeping the
      client's identity, or a receipt; or a signal cut the work short
   2  the command line, a variable, a file of settings or transfer.info is
      wrong, or nothing says which key the server has; nothing was sent. With
      -r, a file has a name that cannot be sent; the others were
   3  refused: a file of that name with other content is at the destination
      already; nothing was changed there. Version 3 cannot tell whether it is
      other content
   4  timed out: --timeout ended before the file was delivered
   5  not delivered: the connection was lost, the server was busy or shutting
      down, or it refused the file or answered what it must not, and trying
      again did not help
   6  integrity: the checksums of all four sends differed, or the file changed
      while it was sent; nothing was stored
   7  not authorised: the server wants a join token, or another one; the client
      was revoked, has another key than the registered one, or its name is
      another client's; or the server has another key than the one it is known
      by, and nothing was sent to it
   8  no file: it is not there, cannot be read, or is not a regular file
   9  no room: the file is larger than the destination can take, the client has
      stored as much as it may, or the server's disk is full
  10  unreachable: no connection to the server could be made

With several files it is the highest that one of them came to. --json says for
each file which it was.`

const pushExitCodes = `ferry push ends with one of these statuses:

   0  delivered: the destination holds every file, verified; with
      --wait=received, the gateway has every file durably. Also if it was so
      before
   1  something else failed on this machine, such as keeping a receipt; or a
      signal cut the work short
   2  the command line, a variable or a file of settings is wrong, two files
      would have the same name, or a name cannot be stored; nothing was sent
   3  refused by the gateway: it has a file of that name with other content, or
      says otherwise why it does not take the file
   4  timed out: --timeout ended before the file was delivered, also if all that
      time the gateway was too busy or not ready. It goes on with what it has:
      the ids are printed
   5  not delivered: the gateway has the file and could not deliver it, or
      somebody cancelled it, or made the gateway forget it
   6  integrity: the file changed while it was sent, or what the gateway got has
      another digest
   7  not authorised: the gateway wants a token, or another one; or its
      certificate is not for its address
   8  no file: a PATTERN found none, or what it found cannot be read; nothing was
      sent. If a file goes away, or cannot be read any more, once files are
      sent, the others are sent nevertheless
   9  no room: the file is larger than the gateway or the destination takes, or
      the gateway's disk is full or a quota used up
  10  unreachable: no connection to the gateway could be made, nor by a proxy in
      front of it, or none held until the gateway had the file

With several files it is the highest that one of them came to. --json says for
each file which it was.`

const otherExitCodes = `ferry watch ends as ferry push does. ferry status, cancel and retry end with 3
if the gateway refuses, as for an upload that there is not or that is delivered
already, and with 7 and 10 as ferry push does.

ferry verify ends with 6 if the receipt or the file is not what it ought to be,
and with 8 if one of them cannot be read. ferry trust and ferry key end with 7
for a server with another key, and with 10 for one that cannot be reached.

The commands that serve end with 0 after SIGTERM or an interrupt. They, and all
others, end with 0 when all went well; with 1 when something failed or a signal
cut the work short; with 2 when the command line, a variable or the file of
settings is wrong.`

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
	errFolder      = errors.New("it is a folder")
)

// failure is why a file was not stored, for whoever sent it.
type failure struct {
	exit  int
	words string
	retry bool          // another attempt may succeed
	after time.Duration // how long the server wants us to wait before it
	// common says that it would be the same for every file.
	common bool
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
	case is(errIdentity), is(errReceipt):
		return failure{exit: exitFailure, words: err.Error()}
	case is(proto.ErrExists):
		return failure{exit: exitRefused, words: "a file of that name is there already; nothing was changed"}
	case is(proto.ErrTooLarge):
		return failure{exit: exitNoRoom, words: err.Error()}
	case is(proto.ErrName):
		if _, said := errors.AsType[*proto.RefusedError](err); said { // only the server could know
			return failure{exit: exitUndelivered, words: err.Error()}
		}
		return failure{exit: exitUsage, words: err.Error()}
	case is(proto.ErrChecksum):
		return failure{exit: exitIntegrity, words: "nothing was stored: the server's checksum differed each time the file was sent"}
	case is(errFileChanged):
		return failure{exit: exitIntegrity, words: "nothing was stored: the file changed while it was sent; send it again once nothing writes to it"}
	case is(proto.ErrSource):
		return failure{exit: exitNoFile, words: "nothing was stored: " + err.Error()}
	case is(proto.ErrNameTaken):
		return failure{exit: exitUnauthorized, words: err.Error() + "; register under another name, or use the identity that has this one", common: true}
	case is(proto.ErrPin):
		return failure{exit: exitUnauthorized, words: err.Error(), common: true}
	case is(proto.ErrRefused), is(proto.ErrUnauthorized), is(proto.ErrRevoked):
		return explainRefusal(err)
	case is(proto.ErrProtocol):
		return failure{exit: exitUndelivered, words: err.Error() + "; is that the right port, and its version and dialect?"}
	case !connected:
		return failure{exit: exitUnreachable, words: "the server cannot be reached: " + err.Error(), retry: true, common: true}
	}
	return failure{exit: exitUndelivered, words: "not delivered: " + err.Error(), retry: true}
}

// explainRefusal is for a server that said no, in version 4 with a reason.
func explainRefusal(err error) failure {
	is := func(target error) bool { return errors.Is(err, target) }
	after, said := proto.RetryAfter(err)
	f := failure{exit: exitUndelivered, words: err.Error(), retry: said && after <= longestPause, after: after}
	switch {
	case is(proto.ErrRevoked), is(proto.ErrUnauthorized):
		f.exit, f.common = exitUnauthorized, true
	case is(proto.ErrQuota), is(proto.ErrNoRoom):
		f.exit = exitNoRoom
	case is(proto.ErrBusy), is(proto.ErrStopping):
		f.retry = after <= longestPause
	default:
		if _, told := errors.AsType[*proto.RefusedError](err); !told {
			f.words = "the server refused the file, and version 3 has no words for why: its log may tell"
		}
	}
	if said && after > longestPause {
		f.words += fmt.Sprintf("; it says to try again in %v", after.Round(time.Second))
	}
	return f
}

// otherContent is for a name that is taken by something else.
func otherContent(there, ours proto.Sum) failure {
	return failure{exit: exitRefused, words: fmt.Sprintf("a file of that name with other content is there already, and nothing was changed: "+
		"%d bytes, SHA-256 %x; this one has %d bytes, SHA-256 %x", there.Size, there.SHA256, ours.Size, ours.SHA256)}
}

// unreached reports whether err is that of a connection that could not be made.
func unreached(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}

// identityError marks an error of the files that keep who the client is.
func identityError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", errIdentity, err)
}
