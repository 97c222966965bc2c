package gateway

import (
	"errors"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/go-chi/chi/v5"
	"github.com/oklog/ulid/v2"

	"ferry/proto"
)

// postUploads takes files in.
//
//	@Summary		Send files
//	@ID				postUploads
//	@Tags			uploads
//	@Produce	json
//	@Description	Takes one file as the body itself, or one or many as a form. The answer comes once all of them are durable and will be delivered; if it is an error, none was kept.
//	@Description
//	@Description	`curl --data-binary @app.tar.gz 'http://127.0.0.1:8080/uploads?name=app.tar.gz'`
//	@Description
//	@Description	`curl -F file=@app.tar.gz http://127.0.0.1:8080/uploads`
//	@Description
//	@Description	A file that is larger than the destination can take is refused before its body is read: send `Expect: 100-continue` to be told before sending it. A body must not stay silent for 30 seconds.
//	@Description
//	@Description	A form that a browser sends by itself, without a script, is answered with 303 to the page.
//	@Param			name				query	string	false	"The file's name, 1 to 1,024 bytes of UTF-8. A destination v4://... takes folders, as in build-17/app.tar.gz, and the name is brought to Unicode's form NFC; each part has 1 to 255 bytes, is not . or .., and has no back-slash and no control character. A destination v3://... takes one such part. This name goes before every other name that the request has."	maxLength(1024)	example(build-17/notes.txt)
//	@Param			label				query	[]string	false	"What is to be known of the files: key=value. The key has 1 to 63 characters of a-z, 0-9, dot, underscore, slash and hyphen, the value up to 256 printable characters. A form's field label is as good."	collectionFormat(multi)	maxItems(16)	example(build=17)
//	@Param			destination			query	string	false	"The name of the destination, as GET /destinations lists it; without it, the first one that the token may use. A form's field destination is as good, before its files."	maxLength(63)	example(default)
//	@Param			Content-Disposition	header	string	false	"The name of a raw body in `filename`, or in `filename*` of RFC 8187, if the query has none. It has no folders."	example(attachment; filename="app.tar.gz")
//	@Param			mode				query	string	false	"The permission bits of all files of the request, in octal. A form's field mode is as good."	example(0644)
//	@Param			mtime				query	string	false	"When the files were changed last, as RFC 3339 writes times. A form's field mtime is as good."	example(2026-03-14T15:09:26Z)
//	@Param			X-Ferry-Mode		header	string	false	"The same as mode, which goes before it"	example(0644)
//	@Param			X-Ferry-Mtime		header	string	false	"The same as mtime, which goes before it"	example(2026-03-14T15:09:26Z)
//	@Param			Repr-Digest			header	string	false	"What the body adds up to, as RFC 9530 has it: sha-256 or sha-512, others are ignored. Content-Digest is as good; each of these fields may stand in the header, or in the trailer if Trailer announces it. A form's is of the whole form. If it is another, nothing is kept."	example(sha-256=:y2Ry/HrB375HT0MPi5JhRFjGYN9wgiPl84SGUbpgZI8=:)
//	@Param			Idempotency-Key		header	string	false	"Names the request: sent again with the same key, it is done once and gets the first answer; where that was not 201 and it prefers to wait, or that was an error of the delivery, how the upload stands. 1 to 255 printable ASCII characters, in quotes."	example("build-17")
//	@Param			If-None-Match	header	string	false	"*: only if there is no file of any of the names yet, whatever its content: none that is queued, on its way or delivered, nor one that the gateway has delivered before. Without it, the same content is answered with the upload that there is. An ETag matches no file."	example(*)
//	@Param			Prefer				header	string	false	"wait=N: how many seconds the answer may wait for the delivery, 60 at most"	example(wait=30)
//	@Success		200	{object}	Upload	"All of it is there already under the same names: queued, on its way or delivered, and nothing was queued again. A form is answered with a list."
//	@Header			200	{string}	Location	"The upload's address; of several, the first's"
//	@Header			200	{string}	Preference-Applied	"The time that the answer could wait: wait=N"
//	@Success		201	{object}	Upload	"Delivered within the time that Prefer has. A form is answered with a list."
//	@Header			201	{string}	Location	"The upload's address; of several, the first's"
//	@Header			201	{string}	Preference-Applied	"The time that the answer could wait: wait=N"
//	@Success		202	{object}	Upload	"Durable; it will be delivered. A form is answered with a list."
//	@Header			202	{string}	Location	"The upload's address; of several, the first's"
//	@Header			202	{integer}	Retry-After	"When to ask how it stands, in seconds"
//	@Header			202	{string}	Preference-Applied	"The time that the answer waited: wait=N, if that was preferred"
//	@Success		303	"The form came from a page without a script"
//	@Header			303	{string}	Location	"The page"
//	@Failure		400	{object}	problem	"The name, the form or the query cannot be read, or the body did not arrive whole"
//	@Failure		408	{object}	problem	"The body came too slowly"
//	@Failure		404	{object}	problem	"Somebody forgot the upload while Prefer had the answer wait"
//	@Failure		409	{object}	problem	"An upload of this name and other content is on its way or delivered; or the form has two files of one name and different content; or somebody cancelled the upload while it came in, or while Prefer had the answer wait; or a request with the same Idempotency-Key is being answered"
//	@Header			409	{integer}	Retry-After	"When to send it again, in seconds, if another request has the key"
//	@Failure		411	{object}	problem	"Neither Content-Length nor Transfer-Encoding was sent"
//	@Failure		412	{object}	problem	"There is a file of one of the names, and If-None-Match is *; or the request has an If-Match"
//	@Failure		413	{object}	problem	"The destination does not take so large a file, or the form has too much in it"
//	@Failure		415	{object}	problem	"The body is encoded in a way that is not taken"
//	@Failure		422	{object}	problem	"The Idempotency-Key was another request's"
//	@Failure		424	{object}	problem	"The file was kept and, within the time that Prefer has, its delivery failed for good"
//	@Failure		503	{object}	problem	"Too many uploads are coming in, or the gateway is being stopped"
//	@Header			503	{integer}	Retry-After	"When to try again, in seconds"
//	@Failure		507	{object}	problem	"No room is left to keep the file"
//	@Router			/uploads [post]
func (a *httpAPI) postUploads(x *exchange, r *http.Request) error {
	kept, form, err := a.takeIn(x, r)
	if err != nil {
		return err
	}
	if form && isNavigation(r) {
		x.Header().Set("Location", "/#sent") // which the page says something of
		x.Header().Set("Cache-Control", "no-store")
		x.WriteHeader(http.StatusSeeOther)
		return nil
	}
	return a.answerKept(x, r, kept, form)
}

// takeIn makes a request's files durable.
func (a *httpAPI) takeIn(x *exchange, r *http.Request) (kept []Upload, form bool, err error) {
	release, err := a.slot()
	if err != nil {
		return nil, false, err
	}
	defer release()
	if err := checkCoding(r); err != nil {
		return nil, false, err
	}
	if err := noMatch(r); err != nil {
		return nil, false, err
	}
	mediaType, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case strings.HasPrefix(mediaType, "multipart/") && mediaType != "multipart/form-data":
		return nil, false, refusal(kindEncoding, "Of the multipart types only multipart/form-data is taken, this is %.60s. Nothing was kept. Send a form, or a single file as application/octet-stream.", mediaType)
	case mediaType == "multipart/form-data" && err != nil:
		return nil, false, refusal(kindForm, "Its Content-Type cannot be read: %v. Nothing was kept.", err)
	case mediaType == "multipart/form-data":
		kept, err = a.takeForm(x, r, params["boundary"])
		return kept, true, err
	}
	q, err := query(r)
	if err != nil {
		return nil, false, err
	}
	to, err := a.destination(r, q)
	if err != nil {
		return nil, false, err
	}
	name, err := rawName(r, q, to)
	if err != nil {
		return nil, false, err
	}
	kept, err = a.takeRaw(x, r, q, to, name)
	return kept, false, err
}

// slot admits one more upload, until release.
func (a *httpAPI) slot() (release func(), err error) {
	select {
	case a.slots <- struct{}{}:
		return func() { <-a.slots }, nil
	default:
		f := refusal(kindBusy, "%d uploads come in at once, which is the limit. Nothing of this request was kept. Try again in a moment.", cap(a.slots))
		f.retryAfter = 1
		return nil, f
	}
}

// takeRaw takes the file that the body is.
func (a *httpAPI) takeRaw(x *exchange, r *http.Request, q url.Values, to outlet, name proto.FileName) ([]Upload, error) {
	if r.ContentLength > to.limit {
		return nil, tooLargeRefusal(r.ContentLength, to.limit)
	}
	labels, err := parseLabels(q)
	if err != nil {
		return nil, err
	}
	at, err := requestAttributes(q, r.Header)
	if err != nil {
		return nil, err
	}
	in := a.receive(r.Context())
	defer in.abort()
	in.to(to)
	in.label(labels)
	in.describe(at)
	if onlyNew(r) {
		in.ifVacant()
		if keyedOf(r.Context()) == nil { // else it may have been answered before
			if err := a.core.unused(r.Context(), to, name); err != nil {
				return nil, err
			}
		}
	}
	d, err := newDigests(r, true)
	if err != nil {
		return nil, err
	}
	if sum, ok := d.announcedSHA256(); ok && r.Header.Get("Expect") != "" && keyedOf(r.Context()) == nil { // nothing of the body has come yet
		if u, ok, err := a.core.known(r.Context(), to, name, sum); ok || err != nil {
			x.again = ok
			return []Upload{u}, err
		}
	}
	x.body.also = d.writer()
	i, err := in.add(name, r.ContentLength, r.Body)
	if err != nil {
		return nil, err
	}
	sum := in.sha256(i)
	if err := d.check(sum[:]); err != nil {
		return nil, err
	}
	return commit(x, in)
}

func (a *httpAPI) takeForm(x *exchange, r *http.Request, boundary string) ([]Upload, error) {
	q, err := query(r)
	if err != nil {
		return nil, err
	}
	to, err := a.destination(r, q)
	if err != nil {
		return nil, err
	}
	name, err := queryName(q, to)
	if err != nil {
		return nil, err
	}
	labels, err := parseLabels(q)
	if err != nil {
		return nil, err
	}
	at, err := requestAttributes(q, r.Header)
	if err != nil {
		return nil, err
	}
	in := a.receive(r.Context())
	defer in.abort()
	in.to(to)
	in.label(labels)
	in.describe(at)
	if onlyNew(r) {
		in.ifVacant()
	}
	d, err := newDigests(r, false)
	if err != nil {
		return nil, err
	}
	if _, late := r.Trailer[sha256Checksum]; late || len(r.Header.Values(sha256Checksum)) > 0 {
		return nil, refusal(kindDigest, "X-Checksum-Sha256 is of a file, and a form has files in it. Nothing was kept. Send the file as the body itself, or Repr-Digest with the digest of the whole form.")
	}
	x.body.also = d.writer()
	if err := readForm(&x.body, boundary, &form{to: to, choose: a.chooser(r, q), name: name, labels: labels, at: at, in: in}); err != nil {
		return nil, err
	}
	if err := d.check(nil); err != nil {
		return nil, err
	}
	return commit(x, in)
}

// commit makes jobs of what has come.
func commit(x *exchange, in receiver) ([]Upload, error) {
	kept, err := in.commit()
	x.again = !in.fresh()
	return kept, err
}

// isNavigation reports whether a browser sent the form by itself, and shows
// what it is answered.
func isNavigation(r *http.Request) bool {
	return r.Header.Get("Sec-Fetch-Mode") == "navigate" && strings.Contains(r.Header.Get("Accept"), "text/html")
}

// checkCoding wants a body that is what it says, of a length that was said or
// that ends by itself.
func checkCoding(r *http.Request) error {
	if coding := r.Header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		return refusal(kindEncoding, "Its Content-Encoding is %.60s, and bodies are kept as they come. Nothing was kept. Send the file itself without Content-Encoding; a compressed file is a file like any other.", coding)
	}
	if r.ContentLength == 0 && len(r.Header.Values("Content-Length")) == 0 && len(r.TransferEncoding) == 0 {
		return refusal(kindLength, "Without Content-Length or Transfer-Encoding it cannot be told from a request whose body was forgotten. Nothing was kept. Send Content-Length: 0 for an empty file; with curl use --data-binary @FILE or -F file=@FILE.")
	}
	return nil
}

// rawName is the name of the file that the body is.
func rawName(r *http.Request, q url.Values, to outlet) (proto.FileName, error) {
	name, err := queryName(q, to)
	if err != nil {
		return proto.FileName{}, err
	}
	if name != nil {
		return *name, nil
	}
	disposition := r.Header.Get("Content-Disposition")
	if disposition == "" {
		return proto.FileName{}, missingName(r)
	}
	_, params, err := mime.ParseMediaType(disposition)
	if err != nil {
		return proto.FileName{}, refusal(kindName, `Content-Disposition cannot be read: %v. Nothing was kept. Write it as attachment; filename="app.tar.gz", or put ?name=app.tar.gz into the address.`, err)
	}
	given, ok := params["filename"]
	if !ok {
		return proto.FileName{}, missingName(r)
	}
	return to.names.file(given)
}

func missingName(r *http.Request) error {
	return refusal(kindName, "The request does not say what the file is called. Nothing was kept. Put the name into the address, percent-encoded: curl --data-binary @app.tar.gz 'http://%s/uploads?name=app.tar.gz'", r.Host)
}

// queryName is the name that the address gives, nil if it gives none.
func queryName(q url.Values, to outlet) (*proto.FileName, error) {
	if !q.Has("name") {
		return nil, nil //nolint:nilnil // there is none
	}
	if len(q["name"]) > 1 {
		return nil, refusal(kindName, "The address has more than one name. Nothing was kept. Give one.")
	}
	name, err := to.names.stored(q.Get("name"))
	return &name, err
}

// destination is where the request's files go, as far as its address says.
func (a *httpAPI) destination(r *http.Request, q url.Values) (outlet, error) {
	switch {
	case !q.Has("destination"):
		return a.core.choose(r.Context(), "")
	case len(q["destination"]) > 1 || q.Get("destination") == "":
		return outlet{}, refusal(kindParameter, "destination is empty, or given more than once. Nothing was kept. Give the name of one, or leave it out for the first.")
	}
	return a.core.choose(r.Context(), q.Get("destination"))
}

// chooser takes what a form says of where it goes, which must not contradict its
// address.
func (a *httpAPI) chooser(r *http.Request, q url.Values) func(name string) (outlet, error) {
	given := q.Get("destination")
	return func(name string) (outlet, error) {
		if name == "" || given != "" && given != name {
			return outlet{}, refusal(kindParameter, "The field `destination` is empty, or is another than that of the address. Nothing was kept. Give the name of one.")
		}
		given = name
		return a.core.choose(r.Context(), name)
	}
}

// query is the address's, which must not have parts that cannot be read: what
// was meant by them would be lost without a word.
func query(r *http.Request) (url.Values, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, refusal(kindParameter, "The address's query cannot be read: %v. Nothing was done. Percent-encode what is not a letter or a digit: %% is %%25, ; is %%3B.", err)
	}
	return q, nil
}

// uploadID is the id in the address; what is none names no upload.
func uploadID(r *http.Request) (ulid.ULID, error) {
	id, err := ulid.ParseStrict(chi.URLParam(r, "id"))
	if err != nil {
		return ulid.ULID{}, errNotFound
	}
	return id, nil
}

// deleteUpload cancels or forgets an upload.
//
//	@Summary		Cancel or forget an upload
//	@ID				deleteUpload
//	@Tags			uploads
//	@Produce	json
//	@Description	Cancels an upload that is under way and answers what it is then: it may have been delivered meanwhile. Forgets one that is delivered, failed or cancelled; what the destination holds stays there.
//	@Param			id	path		string	true	"The upload's id"
//	@Param			If-Match	header	string	false	"The ETag that the upload must still have: else nothing is changed"
//	@Param			If-None-Match	header	string	false	"An ETag that the upload must not have: else nothing is changed"
//	@Success		200	{object}	Upload	"No longer under way: cancelled, or delivered meanwhile"
//	@Success		204	"Forgotten"
//	@Failure		400	{object}	problem	"The address has a parameter: there are none"
//	@Failure		404	{object}	problem	"There is no such upload"
//	@Failure		412	{object}	problem	"It is not any more as If-Match has it, or is what If-None-Match has"
//	@Router			/uploads/{id} [delete]
func (a *httpAPI) deleteUpload(x *exchange, r *http.Request) error {
	id, err := uploadID(r)
	if err != nil {
		return err
	}
	u, gone, err := a.core.remove(r.Context(), id)
	if err != nil {
		return err
	}
	if gone {
		x.Header().Set("Cache-Control", "no-store")
		x.WriteHeader(http.StatusNoContent)
		return nil
	}
	x.represent(http.StatusOK, u, u.SHA256)
	return nil
}

// retryUpload queues an upload again.
//
//	@Summary		Try again now
//	@ID				retryUpload
//	@Tags			uploads
//	@Produce	json
//	@Description	Queues an upload that failed, was cancelled or waits for its next attempt, at once. One that is queued for a destination that cannot be reached is tried at once.
//	@Param			id	path		string	true	"The upload's id"
//	@Param			If-Match	header	string	false	"The ETag that the upload must still have: else nothing is changed"
//	@Param			If-None-Match	header	string	false	"An ETag that the upload must not have: else nothing is changed"
//	@Success		202	{object}	Upload	"Queued"
//	@Header			202	{integer}	Retry-After	"When to ask how it stands, in seconds"
//	@Failure		400	{object}	problem	"The address has a parameter: there are none"
//	@Failure		404	{object}	problem	"There is no such upload"
//	@Failure		412	{object}	problem	"It is not any more as If-Match has it, or is what If-None-Match has"
//	@Failure		409	{object}	problem	"It is under way or delivered, or its bytes are gone"
//	@Router			/uploads/{id}/retry [post]
func (a *httpAPI) retryUpload(x *exchange, r *http.Request) error {
	id, err := uploadID(r)
	if err != nil {
		return err
	}
	u, err := a.core.retry(r.Context(), id)
	if err != nil {
		return err
	}
	x.Header().Set("Retry-After", acceptedAgain)
	x.represent(http.StatusAccepted, u, u.SHA256)
	return nil
}

// health says that the process answers.
type health struct {
	Status  string `json:"status" enums:"ok"`
	Version string `json:"version" example:"v1.0.0"` // of the program
}

// health answers as long as the process is alive.
//
//	@Summary	Is the process alive?
//	@ID			health
//	@Tags		service
//	@Produce	json
//	@Success	200	{object}	health	"It is"
//	@Router		/healthz [get]
func (a *httpAPI) health(x *exchange, _ *http.Request) error {
	x.json(http.StatusOK, "application/json", health{Status: "ok", Version: a.version})
	return nil
}

// readiness says that uploads are taken.
type readiness struct {
	Status string `json:"status" enums:"ready"`
}

// readiness answers whether uploads are taken.
//
//	@Summary	Are uploads taken?
//	@ID			readiness
//	@Tags		service
//	@Produce	json
//	@Success	200	{object}	readiness	"They are"
//	@Failure	503	{object}	problem		"They are not"
//	@Router		/readyz [get]
func (a *httpAPI) readiness(x *exchange, r *http.Request) error {
	err := a.core.ready(r.Context())
	if err == nil {
		x.json(http.StatusOK, "application/json", readiness{Status: "ready"})
		return nil
	}
	f := refusal(kindNotReady, "Its database does not answer as it should; the log says more. Uploads accepted before are kept.")
	if errors.Is(err, errSpoolFull) {
		f.detail = "No room is left to keep what comes in. Uploads accepted before are safe and go on. Make room on the gateway's disk."
	}
	f.err = err
	return f
}
