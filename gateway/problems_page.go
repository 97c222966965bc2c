package gateway

import (
	"bytes"
	"html/template"
	"net/http"

	"github.com/go-chi/chi/v5"
)

// problemsPath is where the pages about the kinds of problems are; a kind's
// name follows.
const (
	problemsPath  = problemsIndex + "/"
	problemsIndex = "/problems"
)

// retryable reports whether the same request may succeed a little later with
// nothing changed. That is so for exactly the status codes after which clients
// such as curl --retry try again by themselves.
func (k problemKind) retryable() bool {
	switch k.status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// A problemPage says of a kind of problem what people ask.
type problemPage struct {
	problemKind
	means, kept, do string
}

const (
	nothingKept    = "Nothing of the request was kept."
	nothingChanged = "Nothing was changed."
)

// problemPages are about all kinds of problems, by their status.
var problemPages = []problemPage{
	{kindParameter, "A parameter of the address or of a header field cannot be read, or has a value outside of what is allowed.", nothingChanged,
		"Correct the parameter that the detail names. Percent-encode what is not a letter or a digit."},
	{kindUnknown, "The address has a parameter that there is not, or a form a field that is nearly one of those that there are.", nothingKept,
		"Correct the parameter that the detail names, or leave it out. If it is one of a newer Ferry, the gateway is too old for it."},
	{kindName, "The file has no name, more than one, or one that the destination cannot store.", nothingKept,
		"Send it under another name, with ?name= in the address."},
	{kindDestination, "The request names a destination that the gateway does not have, or that is not the token's.", nothingKept,
		"Choose one of those that the detail names; GET /destinations lists them."},
	{kindLabel, "A label is not written as key=value, has characters that are not taken, or there are too many.", nothingKept,
		"Correct the label that the detail names."},
	{kindDigest, "A field that says what the body adds up to is not written as such fields are.", nothingKept,
		"Write Repr-Digest and Content-Digest as sha-256=:BASE64:, Content-MD5 in base64 and X-Checksum-Sha256 in hexadecimal digits."},
	{kindMismatch, "The bytes that came do not add up to the digest that the request states: they changed on their way, or before.", "Nothing of the request was kept: what came was dropped.",
		"Send the file again. If that does not help, compute the digest anew, and look for what changes bodies between here and there."},
	{kindBody, "The JSON of the request is not as the description has it.", nothingChanged, "Correct it as the detail says."},
	{kindForm, "The body is no multipart/form-data, or not the form that its Content-Type states.", nothingKept,
		"Let a library write the form and its Content-Type, or send the file as the body itself."},
	{kindKey, "The request's Idempotency-Key is empty, too long, given twice, or has characters that it must not have.", nothingKept,
		"Send one of 1 to 255 printable ASCII characters, in quotes."},
	{kindKeyRunning, "Another request with the same Idempotency-Key has not been answered yet.", "Nothing of this request was kept; the other one goes on.",
		"Wait until the other has its answer; the same request is answered in the same way then."},
	{kindKeyReused, "An earlier request had the same Idempotency-Key and another address, method or body.", "Nothing of this request was kept; what the earlier one made stays.",
		"Send each request with a key of its own, and the same key only to repeat the same request."},
	{kindNoFile, "No part of the form is a file: a file's part has a filename.", nothingKept,
		"Send the file in a part with a filename. With curl: -F file=@app.tar.gz"},
	{kindIncomplete, "The body ended before it was complete, or breaks the rules of HTTP.", nothingKept,
		"Send the file again. If that does not help, look for what cuts the connection between here and there."},
	{kindOrigin, "A browser says that a page of another site is behind the request.", nothingChanged,
		"Use the gateway's own page, or a program that is not a browser."},
	{kindUnauthorized, "The gateway lets nobody in without a token, and the request shows none, or one that is unknown, was revoked or has expired.", nothingKept,
		"Send Authorization: Bearer TOKEN. The gateway's operator makes tokens with ferry token create."},
	{kindForbidden, "The token is good and lacks the scope that the request needs: upload, read or admin.", nothingChanged,
		"Ask the gateway's operator for a token with the scope that the detail names."},
	{kindNotFound, "The address is none of the API's, or names an upload or a destination that does not exist, or not any more.", nothingChanged,
		"Look at the address. GET /uploads lists the uploads that there are."},
	{kindNoReceipt, "The upload is not delivered yet, or the destination gives no receipts.", nothingChanged,
		"GET the upload: its receipt is null until there is one."},
	{kindMethod, "The address exists and knows other methods.", nothingChanged,
		"Use a method that the answer's Allow names."},
	{kindSlow, "The body's sender was silent for too long, or sent less than it must in the long run.", nothingKept,
		"Send it again, over a better connection."},
	{kindState, "The upload's state does not allow what was asked for, or its bytes are gone.", nothingChanged,
		"GET the upload to see how it stands. Send the file again if it has to be delivered once more."},
	{kindCancelled, "Somebody cancelled the upload while the request was under way.", "Nothing will be delivered. The detail says whether bytes are kept.",
		"Send the file again if that was a mistake."},
	{kindConflict, "An upload of the same name and other content is queued, on its way or delivered; or a form has two files of one name and different content.", nothingKept,
		"Send the file under another name. The problem's upload says where the other one is, unless both are of one form."},
	{kindLength, "The request has neither Content-Length nor Transfer-Encoding, so that an empty file cannot be told from a forgotten one.", nothingKept,
		"Send Content-Length: 0 for an empty file. With curl use --data-binary or -F."},
	{kindPrecondition, "The request's If-Match names an ETag that the upload does not have any more; or a file was to be the first of its name, If-None-Match: *, and is not.", nothingChanged,
		"GET the upload to see how it stands, and decide anew; send the file under another name. Files are sent without If-Match: none is ever replaced."},
	{kindTooLarge, "The file has more bytes than the destination, the gateway or the token takes in one file.", nothingKept,
		"Send the file in parts."},
	{kindTooMany, "The form has more files or fields than one request may have.", nothingKept,
		"Send the files in several requests."},
	{kindEncoding, "The body is compressed, or a multipart of another kind. Bodies are kept as they come.", nothingKept,
		"Send the file itself, without Content-Encoding."},
	{kindHost, "The request's Host is a name that others could have pointed here.", nothingChanged,
		"Use http://localhost or http://127.0.0.1 with the gateway's port."},
	{kindPace, "More requests came with the token, or without one from the address, than the gateway answers in a second.", nothingKept,
		"Send it again after the time that Retry-After states. Follow events or wait for changes instead of asking again and again; POST /uploads/bulk does the same with many uploads."},
	{kindUndelivered, "The request asked to wait for the delivery, and the delivery failed for good.",
		"The upload is kept as failed, with its bytes. The problem's upload says where it is.",
		"GET the upload: its error says why. Correct that and retry it there, or send the file anew as the error advises."},
	{kindHeader, "The request's address and header together are too large.", nothingChanged,
		"Send fewer or shorter fields. Cookies of other programs on the same host may be among them."},
	{kindInternal, "The gateway met an error that it did not expect. Its log has it, under the problem's request_id.",
		"What was answered with success before is kept. Whether this request was done is not known.",
		"Try again. Tell the gateway's operator the request_id."},
	{kindBusy, "The gateway does as much at once as it may.", nothingKept,
		"Try again after the time that Retry-After states."},
	{kindStopping, "The gateway is being stopped and had no time left for the request.", "Nothing of the request was kept; what was accepted before is.",
		"Send it again when the gateway runs."},
	{kindNotReady, "The gateway's database or disk does not work as it should.", "Uploads accepted before are kept.",
		"Try again. If it lasts, the gateway's operator finds the reason in its log."},
	{kindFull, "No room is left on the gateway's disk for what comes in.", "Nothing of the request was kept; uploads accepted before are safe and go on.",
		"Make room on the gateway's disk, or wait until uploads have been delivered, and send it again."},
}

var problemTemplate = template.Must(template.New("").Parse(`{{define "head"}}<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{.Title}} - Ferry</title>
<link rel="icon" href="{{.Root}}icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="{{.Root}}style.css">
</head>
<body>
<main>
<h1>{{.Title}}</h1>
{{end}}{{define "page"}}{{template "head" .}}<p>{{.Means}}</p>
<dl>
<dt>Type</dt><dd><code>{{.Type}}</code></dd>
<dt>Status</dt><dd>{{.Status}}</dd>
<dt>What is kept</dt><dd>{{.Kept}}</dd>
<dt>What to do</dt><dd>{{.Do}}</dd>
<dt>Retryable</dt><dd>{{if .Retryable}}Yes: the same request may succeed a little later.{{else}}No: the same request would be answered in the same way.{{end}}</dd>
</dl>
<p><a href="../problems">All kinds of problems</a></p>
</main>
</body>
</html>
{{end}}{{define "index"}}{{template "head" .}}<p>Every answer with a status of 400 or more is one of these. Its type names the page here.</p>
<ul>
{{range .Kinds}}<li><a href="problems/{{.Name}}">{{.Title}}</a> ({{.Status}}{{if .Retryable}}, retryable{{end}})</li>
{{end}}</ul>
</main>
</body>
</html>
{{end}}`))

// shownProblem is a kind of problem as the templates have it.
type shownProblem struct {
	Name, Type, Title, Means, Kept, Do string
	Status                             int
	Retryable                          bool
}

// Root leads from a kind's page to where the gateway's addresses begin.
func (shownProblem) Root() string { return "../" }

// shownProblems is the index.
type shownProblems struct{ Kinds []shownProblem }

func (shownProblems) Title() string { return "Problems" }
func (shownProblems) Root() string  { return "" }

// newProblemPages makes the pages, by the names of the kinds; "" is the index.
func newProblemPages() map[string]static {
	pages := map[string]static{}
	var all []shownProblem
	for _, p := range problemPages {
		shown := shownProblem{p.name, problemsPath + p.name, p.title, p.means, p.kept, p.do, p.status, p.retryable()}
		pages[p.name] = newPage("page", shown)
		all = append(all, shown)
	}
	pages[""] = newPage("index", shownProblems{all})
	return pages
}

func newPage(name string, data any) static {
	var b bytes.Buffer
	if err := problemTemplate.ExecuteTemplate(&b, name, data); err != nil {
		panic("internal error: " + err.Error()) // templates and data are constant
	}
	return newStatic(name+".html", b.Bytes())
}

// getProblems lists the kinds of problems.
//
//	@Summary	Kinds of problems
//	@ID			getProblems
//	@Tags		service
//	@Produce	html
//	@Success	200	{string}	string	"A page with all kinds of problems"
//	@Header		200	{string}	ETag	"Its version"
//	@Success	304	"It is the one that If-None-Match names"
//	@Header		304	{string}	ETag	"Its version"
//	@Router		/problems [get]
func (a *httpAPI) getProblems(x *exchange, r *http.Request) error {
	return a.problems[""].serve(x, r)
}

// getProblem explains a kind of problem.
//
//	@Summary		A kind of problem
//	@ID				getProblem
//	@Tags			service
//	@Produce		html
//	@Description	Where the type of a problem leads to: what it means, what is kept, what to do, and whether the same request may succeed later.
//	@Param			name	path		string	true	"The kind's name, as in a problem's type"
//	@Success		200	{string}	string	"A page about it"
//	@Header			200	{string}	ETag	"Its version"
//	@Success		304	"It is the one that If-None-Match names"
//	@Header			304	{string}	ETag	"Its version"
//	@Failure		404	{object}	problem	"There is no such kind"
//	@Router			/problems/{name} [get]
func (a *httpAPI) getProblem(x *exchange, r *http.Request) error {
	page, ok := a.problems[chi.URLParam(r, "name")]
	if !ok {
		return refusal(kindNotFound, "There is no such kind of problem. /problems lists all.")
	}
	return page.serve(x, r)
}
