package gateway

import (
	"bufio"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"slices"
	"strings"
	"sync"

	"ferry/proto"
)

const (
	// maxBetween bounds what stands between the bodies of two parts: a boundary
	// and the header of a part; and what stands before the first and after the
	// last. A file name takes 765 bytes at most, percent-encoded.
	maxBetween = 16 << 10
	// maxFields bounds the parts that are not files, and maxField each of them.
	maxFields = 100
	maxField  = 64 << 10
	// maxBoundary is RFC 2046's, section 5.1.1.
	maxBoundary = 70

	formBuffer = 64 << 10
)

var (
	errBetween = &refusalError{problemKind: kindForm, limit: maxBetween, detail: "The header of a part, or what stands before, between or after the parts, is longer than " +
		grouped(maxBetween) + " bytes. Nothing of this request was kept."}
	errFormEnd = refusal(kindForm, "It ends before its last boundary. Nothing of this request was kept. Send it again.")
	errNoFile  = refusal(kindNoFile, "No part of it is a file: a file's part has a filename. Nothing was kept. With curl: -F file=@app.tar.gz")
	errNames   = refusal(kindName, "The request gives one name for several files, or several names. Nothing of this request was kept. Leave the field `name` out, or send one file with one name.")
)

// formBuffers make few large reads of a form's many small ones.
var formBuffers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, formBuffer) }}

// form reads multipart/form-data, one part at a time.
type form struct {
	body   *body
	src    *metered
	parts  *multipart.Reader
	in     receiver
	to     outlet
	choose func(name string) (outlet, error) // what a field `destination` says
	name   *proto.FileName                   // for the only file, once it is known
	labels map[string]string
	at     attributes
	said   []string // of the fields that may come once
	files  int
	fields int
}

// readForm hands a form's files to f.in, in their order. f.name is for the only
// file, nil if the request's address has none; a field `name`, wherever it
// stands, is as good. So is a field `destination` that comes first. f.labels and f.at are the request's; fields `label` add to
// them, and fields `mode` and `mtime` go before it.
func readForm(b *body, boundary string, f *form) error {
	if boundary == "" || len(boundary) > maxBoundary {
		return refusal(kindForm, "Its Content-Type has no boundary of 1 to %d characters. Nothing was kept. Let the HTTP library make that field: it must fit the body.", maxBoundary)
	}
	buffer, _ := formBuffers.Get().(*bufio.Reader)
	buffer.Reset(b)
	defer func() {
		buffer.Reset(nil)
		formBuffers.Put(buffer)
	}()
	f.body, f.src = b, &metered{r: buffer, after: "\r\n"}
	f.parts = multipart.NewReader(f.src, boundary)
	for {
		p, err := f.next()
		if err != nil {
			return err
		}
		if p == nil {
			return f.end()
		}
		if err := f.part(p); err != nil {
			return err
		}
	}
}

// next returns the next part, nil after the last.
func (f *form) next() (*multipart.Part, error) {
	f.src.meter(maxBetween)
	defer f.src.unmeter()
	// NextPart would decode quoted-printable and so change a file's bytes.
	p, err := f.parts.NextRawPart()
	switch {
	case err == nil:
		return p, nil
	case errors.Is(err, io.EOF): // the last boundary was read: the end of src is another error
		return nil, nil
	}
	return nil, f.malformed(err)
}

// malformed says what an error of the multipart reader means: its own are the
// form's fault, others came from below.
func (f *form) malformed(err error) error {
	if f.body.err != nil && !f.body.ended {
		return f.body.err
	}
	if r, ok := errors.AsType[*refusalError](err); ok {
		return r
	}
	bad := refusal(kindForm, "Its parts are not separated by the boundary that Content-Type states, or their headers cannot be read. Nothing of this request was kept.")
	bad.err = err
	return bad
}

// part takes one part, to its end.
func (f *form) part(p *multipart.Part) error {
	switch strings.ToLower(p.Header.Get("Content-Transfer-Encoding")) {
	case "", "7bit", "8bit", "binary":
	default:
		return refusal(kindEncoding, "A part has a Content-Transfer-Encoding, and parts are kept as they come. Nothing of this request was kept. Send it as binary.")
	}
	d, err := parseDisposition(p.Header.Get("Content-Disposition"))
	if err != nil {
		return err
	}
	if d.isFile {
		return f.file(p, d.filename)
	}
	return f.field(p, d.name)
}

func (f *form) file(p *multipart.Part, filename string) error {
	if filename == "" {
		// A browser sends such a part for an input in which no file was chosen.
		_, err := io.ReadFull(p, make([]byte, 1))
		if errors.Is(err, io.EOF) {
			return f.countField()
		}
		if err != nil {
			return f.malformed(err)
		}
	}
	name, err := f.to.names.file(filename)
	if err != nil {
		return err
	}
	if f.name != nil {
		if f.files > 0 {
			return errNames
		}
		name = *f.name
	}
	if f.files++; f.files > maxFiles {
		return errTooManyFiles
	}
	_, err = f.in.add(name, -1, formFile{p, f.body})
	return err
}

// formFile is the body of a file's part.
type formFile struct {
	*multipart.Part
	body *body
}

// Interrupt ends a Read that waits.
func (f formFile) Interrupt() { f.body.Interrupt() }

// field takes a part that is no file. It means something if it is called as one of
// sendParameters is; what else a form has is its own affair, but not what looks like
// one of them.
func (f *form) field(p *multipart.Part, name string) error {
	if err := f.countField(); err != nil {
		return err
	}
	value, err := io.ReadAll(io.LimitReader(p, maxField+1))
	switch {
	case err != nil:
		return f.malformed(err)
	case len(value) > maxField:
		return &refusalError{problemKind: kindTooMany, limit: maxField, detail: "A field that is not a file may have " + grouped(maxField) +
			" bytes. Nothing of this request was kept. A file's part has a filename; with curl: -F file=@app.tar.gz"}
	case name == "label":
		if err := addLabel(f.labels, string(value)); err != nil {
			return err
		}
		f.in.label(f.labels)
		return nil
	case slices.Contains(f.said, name):
		return refusal(kindParameter, "The form has more than one field %s. Nothing of this request was kept. Give it once.", name)
	case name == "destination":
		f.said = append(f.said, name)
		return f.destination(string(value))
	case name == "mode" || name == "mtime":
		f.said = append(f.said, name)
		return f.attribute(name, string(value))
	case name != "name":
		return checkField(name)
	case f.name != nil || f.files > 1:
		return errNames
	}
	given, err := f.to.names.stored(string(value))
	if err != nil {
		return err
	}
	f.name = &given
	if f.files == 1 {
		f.in.rename(0, given)
	}
	return nil
}

func checkField(name string) error {
	if near := misspelt(name, sendParameters); near != "" {
		return refusal(kindUnknown, "The form has a field %.60q; perhaps %s was meant. Nothing of this request was kept. Correct it, or leave it out.", name, near)
	}
	return nil
}

// destination takes where the form goes, which has to be known before its files
// and their names are.
func (f *form) destination(name string) (err error) {
	if f.files > 0 || f.name != nil {
		return refusal(kindForm, "The field `destination` comes after a file or a name, which depend on it. Nothing of this request was kept. Write it before them, or into the address.")
	}
	if f.to, err = f.choose(name); err == nil {
		f.in.to(f.to)
	}
	return err
}

// attribute takes what the field mode or mtime says of all files of the form.
func (f *form) attribute(name, value string) (err error) {
	if name == "mode" {
		f.at.mode, err = parseMode(value)
	} else {
		f.at.modTime, err = parseMtime(value)
	}
	f.in.describe(f.at)
	return err
}

func (f *form) countField() error {
	if f.fields++; f.fields > maxFields {
		return &refusalError{problemKind: kindTooMany, limit: maxFields, detail: "A form may have " + grouped(maxFields) +
			" fields that are not files. Nothing of this request was kept."}
	}
	return nil
}

// end wants a file, and nothing much after the last part.
func (f *form) end() error {
	f.src.meter(maxBetween)
	if _, err := io.Copy(io.Discard, f.src); !errors.Is(err, errFormEnd) {
		return f.malformed(err)
	}
	if f.files == 0 {
		return errNoFile
	}
	return nil
}

// disposition is what a part's Content-Disposition says.
type disposition struct {
	name     string
	isFile   bool
	filename string
}

// whatwg undoes what browsers and curl do to a file name in a form, which is
// all they do: a name with %41 in it stands for itself.
// https://html.spec.whatwg.org/multipage/form-control-infrastructure.html#multipart-form-data
var whatwg = strings.NewReplacer("%22", `"`, "%0D", "\r", "%0A", "\n")

// parseDisposition reads the filename as it is: Part.FileName would cut it at
// its last slash, and so store files under names that nobody gave.
func parseDisposition(v string) (disposition, error) {
	kind, params, err := mime.ParseMediaType(v)
	if err != nil || kind != "form-data" {
		return disposition{}, refusal(kindForm, "A part has no Content-Disposition of the form form-data; name=\"file\"; filename=\"app.tar.gz\". Nothing of this request was kept.")
	}
	d := disposition{name: params["name"]}
	d.filename, d.isFile = params["filename"]
	extended := strings.Contains(strings.ToLower(v), "filename*")
	switch {
	case !d.isFile && extended: // it could not be decoded
		return disposition{}, refusal(kindName, "A part's filename* is not in UTF-8, percent-encoded. Nothing of this request was kept. Write it as filename*=UTF-8''app.tar.gz, or as filename.")
	case d.isFile && hasLiteralBackslash(v):
		d.filename = `\` // Go's parser drops some of them; as they came, no name with one is taken
	case d.isFile && !extended:
		d.filename = whatwg.Replace(d.filename)
	}
	return d, nil
}

// hasLiteralBackslash reports whether v has a back-slash that escapes neither a
// quotation mark nor another one: browsers and curl write them as they are.
func hasLiteralBackslash(v string) bool {
	for i := 0; i < len(v); i++ {
		if v[i] != '\\' {
			continue
		}
		if i++; i == len(v) || v[i] != '"' && v[i] != '\\' {
			return true
		}
	}
	return false
}

// metered is a reader that can be told how much may be read. Its end is
// errFormEnd after a last line break, which a form may lack: the multipart
// reader returns io.EOF both after the last boundary and for a form that ends
// within the header of a part.
type metered struct {
	r     io.Reader
	on    bool
	left  int
	after string // what is still to be read after the end of r
}

func (m *metered) meter(most int) { m.on, m.left = true, most }

func (m *metered) unmeter() { m.on = false }

func (m *metered) Read(p []byte) (int, error) {
	if m.on {
		if m.left == 0 {
			return 0, errBetween
		}
		p = p[:min(len(p), m.left)]
	}
	n, err := m.r.Read(p)
	m.left -= n
	if !errors.Is(err, io.EOF) || n > 0 {
		return n, err
	}
	if n = copy(p, m.after); n > 0 {
		m.after = m.after[n:]
		return n, nil
	}
	return 0, errFormEnd
}
