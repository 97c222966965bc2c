package gateway

import (
	"net/http"
	"net/url"
	"strings"

	"ferry/proto"
)

const uploadsPath = "/uploads/"

// putUpload takes a file in under the name that the address has.
//
//	@Summary		Send a file under its name
//	@ID				putUpload
//	@Tags			uploads
//	@Produce	json
//	@Description	Takes the body, whatever its type, as the file that the rest of the address names, and makes the same job of it as POST /uploads. Folders are written as they are: `/uploads/build-17/app.tar.gz`. A slash that is percent-encoded, as generated clients write it, is as good as one that is not.
//	@Description
//	@Description	`curl -T app.tar.gz http://127.0.0.1:8080/uploads/` has curl add the file's name. A body without a known length comes in chunks.
//	@Param			id				path	string		true	"The file's name, percent-encoded, as `name` of POST /uploads. It is called id as the other operations at this address take one."
//	@Param			label			query	[]string	false	"What is to be known of the file: key=value"	collectionFormat(multi)	maxItems(16)	example(build=17)
//	@Param			destination		query	string		false	"The name of the destination, as GET /destinations lists it; without it, the first one that the token may use"	maxLength(63)	example(default)
//	@Param			mode			query	string		false	"The file's permission bits in octal"	example(0644)
//	@Param			mtime			query	string		false	"When the file was changed last, as RFC 3339 writes times"	example(2026-03-14T15:09:26Z)
//	@Param			X-Ferry-Mode	header	string		false	"The same as mode, which goes before it"	example(0644)
//	@Param			X-Ferry-Mtime	header	string		false	"The same as mtime, which goes before it"	example(2026-03-14T15:09:26Z)
//	@Param			Repr-Digest			header	string	false	"What the body adds up to, as RFC 9530 has it: sha-256 or sha-512, others are ignored. Content-Digest is as good; each of these fields may stand in the header, or in the trailer if Trailer announces it. A form's is of the whole form. If it is another, nothing is kept."	example(sha-256=:y2Ry/HrB375HT0MPi5JhRFjGYN9wgiPl84SGUbpgZI8=:)
//	@Param			Idempotency-Key	header	string		false	"Names the request: sent again with the same key, it is done once and gets the first answer; where that was not 201 and it prefers to wait, or that was an error of the delivery, how the upload stands. 1 to 255 printable ASCII characters, in quotes."	example("build-18")
//	@Param			If-None-Match	header	string	false	"*: only if there is no file of that name yet, whatever its content: none that is queued, on its way or delivered, nor one that the gateway has delivered before. Without it, the same content is answered with the upload that there is. An ETag matches no file."	example(*)
//	@Param			Prefer			header	string		false	"wait=N: how many seconds the answer may wait for the delivery, 60 at most"	example(wait=30)
//	@Success		200	{object}	Upload	"It is there already under the same name: queued, on its way or delivered, and nothing was queued again"
//	@Header			200	{string}	Location	"The upload's address"
//	@Header			200	{string}	Preference-Applied	"The time that the answer could wait: wait=N"
//	@Success		201	{object}	Upload	"Delivered within the time that Prefer has"
//	@Header			201	{string}	Location	"The upload's address"
//	@Header			201	{string}	Preference-Applied	"The time that the answer could wait: wait=N"
//	@Success		202	{object}	Upload	"Durable; it will be delivered"
//	@Header			202	{string}	Location	"The upload's address"
//	@Header			202	{integer}	Retry-After	"When to ask how it stands, in seconds"
//	@Header			202	{string}	Preference-Applied	"The time that the answer waited: wait=N, if that was preferred"
//	@Failure		400	{object}	problem	"The name or a parameter cannot be read, or the body did not arrive whole"
//	@Failure		404	{object}	problem	"Somebody forgot the upload while Prefer had the answer wait"
//	@Failure		408	{object}	problem	"The body came too slowly"
//	@Failure		409	{object}	problem	"An upload of this name and other content is on its way or delivered; or somebody cancelled the upload while it came in, or while Prefer had the answer wait; or a request with the same Idempotency-Key is being answered"
//	@Header			409	{integer}	Retry-After	"When to send it again, in seconds, if another request has the key"
//	@Failure		411	{object}	problem	"Neither Content-Length nor Transfer-Encoding was sent"
//	@Failure		412	{object}	problem	"There is a file of that name, and If-None-Match is *; or the request has an If-Match"
//	@Failure		413	{object}	problem	"The destination does not take so large a file"
//	@Failure		415	{object}	problem	"The body is encoded in a way that is not taken"
//	@Failure		422	{object}	problem	"The Idempotency-Key was another request's"
//	@Failure		424	{object}	problem	"The file was kept and, within the time that Prefer has, its delivery failed for good"
//	@Failure		503	{object}	problem	"Too many uploads are coming in, or the gateway is being stopped"
//	@Header			503	{integer}	Retry-After	"When to try again, in seconds"
//	@Failure		507	{object}	problem	"No room is left to keep the file"
//	@Router			/uploads/{id} [put]
func (a *httpAPI) putUpload(x *exchange, r *http.Request) error {
	release, err := a.slot()
	if err != nil {
		return err
	}
	kept, err := a.takePut(x, r)
	release()
	if err != nil {
		return err
	}
	return a.answerKept(x, r, kept, false)
}

func (a *httpAPI) takePut(x *exchange, r *http.Request) ([]Upload, error) {
	if err := checkCoding(r); err != nil {
		return nil, err
	}
	if len(r.Header.Values("Content-Range")) > 0 { // RFC 9110, section 14.4: the rest would pass for the whole
		return nil, refusal(kindParameter, "It has a Content-Range, and only whole files are taken. Nothing was kept. Send the whole file without Content-Range; with curl leave out -C.")
	}
	if err := noMatch(r); err != nil {
		return nil, err
	}
	q, err := query(r)
	if err != nil {
		return nil, err
	}
	to, err := a.destination(r, q)
	if err != nil {
		return nil, err
	}
	name, err := pathName(r, q, to)
	if err != nil {
		return nil, err
	}
	return a.takeRaw(x, r, q, to, name)
}

// pathName is the name that the address's path has, percent-encoded, in one
// piece or in one a folder.
func pathName(r *http.Request, q url.Values, to outlet) (proto.FileName, error) {
	if q.Has("name") {
		return proto.FileName{}, refusal(kindName, "The address has a name both in its path and in its query. Nothing was kept. Give one: PUT to the name, or POST /uploads?name=.")
	}
	given, err := url.PathUnescape(strings.TrimPrefix(r.URL.EscapedPath(), uploadsPath))
	if err != nil {
		return proto.FileName{}, refusal(kindName, "The name in the address cannot be read: %v. Nothing was kept. Percent-encode it.", err)
	}
	if given == "" {
		return proto.FileName{}, refusal(kindName, "The address does not say what the file is called. Nothing was kept. Put the name at its end, percent-encoded: curl -T app.tar.gz 'http://%s/uploads/app.tar.gz'", r.Host)
	}
	return to.names.stored(given)
}
