package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"

	"ferry/proto"
)

// errSumDiffers: the gateway has something else than was sent.
var errSumDiffers = errors.New("the gateway's SHA-256 is not the file's")

// errForgotten: the gateway had an upload, and has it no more.
var errForgotten = errors.New("the gateway does not know the upload any more: somebody cancelled and forgot it, or forgot it after its end; run the command again")

// explainGateway turns an error of a call to the gateway into a failure.
func explainGateway(err error) failure {
	is := func(target error) bool { return errors.Is(err, target) }
	if said, ok := errors.AsType[*gatewayError](err); ok {
		return explainAnswer(said)
	}
	_, forged := errors.AsType[*tls.CertificateVerificationError](err)
	switch {
	case is(errSendTimeout):
		return failure{exit: exitTimeout, words: "not in time: --timeout has passed"}
	case is(errStopped):
		return failure{exit: exitFailure, words: errStopped.Error()}
	case is(errForgotten):
		return failure{exit: exitUndelivered, words: err.Error()}
	case is(errReceipt):
		return failure{exit: exitFailure, words: err.Error()}
	case is(errFileChanged):
		return failure{exit: exitIntegrity, words: "nothing was kept: the file changed while it was sent; send it again once nothing writes to it"}
	case is(errSumDiffers):
		return failure{exit: exitIntegrity, words: err.Error()}
	case is(proto.ErrSource):
		return failure{exit: exitNoFile, words: "nothing was kept: " + err.Error()}
	case forged:
		return failure{exit: exitUnauthorized, words: "the gateway is not the one that its address says: " + err.Error(), common: true}
	case unreached(err):
		return failure{exit: exitUnreachable, words: "the gateway cannot be reached: " + err.Error(), retry: true, common: true}
	}
	return failure{exit: exitUnreachable, words: "the connection to the gateway failed: " + err.Error(), retry: true}
}

// explainAnswer is for what the gateway answered.
func explainAnswer(e *gatewayError) failure {
	f := failure{exit: exitRefused, words: "the gateway refused: " + e.Error(), retry: e.passes(), after: e.after}
	if e.other && e.status >= 400 {
		f.words = "a proxy in front of the gateway, or another server, refused: " + e.Error()
	}
	switch {
	case e.away():
		f.exit, f.common, f.words = exitUnreachable, true, "the gateway cannot be reached through the proxy in front of it: "+e.Error()
	case e.status == http.StatusUnauthorized, e.status == http.StatusForbidden:
		f.exit, f.common = exitUnauthorized, true
	case e.status == http.StatusRequestEntityTooLarge, e.status == http.StatusInsufficientStorage:
		f.exit = exitNoRoom
	case e.status == http.StatusConflict && e.ExistingSHA256 != "":
		f.words = fmt.Sprintf("the gateway has a file of that name with other content, and nothing was changed: SHA-256 %s; this one has %s. "+
			"Send it under another name (--dest-prefix, or --name for stdin), or cancel and forget that upload first if it is not delivered yet",
			printable(e.ExistingSHA256), printable(e.SHA256))
	case e.status == http.StatusBadRequest && e.kind() == "mismatch":
		f.exit = exitIntegrity
	case e.status < 400, e.status == http.StatusMethodNotAllowed, e.status == http.StatusMisdirectedRequest:
		f.common = true
	}
	return f
}
