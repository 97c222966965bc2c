package gateway

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io/fs"
	"maps"
	"mime"
	"net/http"
	"path"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"ferry/web"
)

// mediaTypes are those of the page's files: what the system knows of extensions
// differs from one to the next.
var mediaTypes = map[string]string{
	".css":  "text/css; charset=utf-8",
	".html": "text/html; charset=utf-8",
	".ico":  "image/x-icon",
	".js":   "text/javascript; charset=utf-8",
	".png":  "image/png",
	".svg":  "image/svg+xml",
	".txt":  "text/plain; charset=utf-8",
	".yaml": "application/yaml",
}

// A static is content that is small and does not change, such as a file that is
// part of the program.
type static struct {
	content   []byte
	mediaType string
	etag      string
	saveAs    string        // the name for who keeps it; "" if it is to be shown
	zipped    func() []byte // by gzip; nil if it is not to be
	forever   bool          // whether its address says which version it is
	policy    string        // what a browser lets a page use; "" if it is none
}

// linked is where index.html names another file of the page.
var linked = regexp.MustCompile(`((?:href|src)=")([a-z0-9-]+\.(?:css|js|svg)")`)

// staticFiles are the files of the pages by the paths of their URLs; a folder's
// index.html has that of the folder. The page finds what belongs to it in a
// folder that is named after what is in it, so that browsers may keep that.
func staticFiles() map[string]static {
	files := map[string]static{}
	sum := sha256.New()
	err := fs.WalkDir(web.Files(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := fs.ReadFile(web.Files(), name)
		at := "/" + name
		if path.Base(name) == "index.html" {
			at = path.Dir(at)
		}
		files[at] = newStatic(name, content)
		fmt.Fprintf(sum, "%s %s\n", name, files[at].etag)
		return err
	})
	if err != nil {
		panic("internal error: " + err.Error()) // the files are embedded
	}
	version := "v-" + base64.RawURLEncoding.EncodeToString(sum.Sum(nil)[:9])
	for at, f := range maps.Clone(files) {
		if at != "/" && !strings.HasPrefix(at, "/docs") {
			f.forever = true
			files["/"+version+at] = f
		}
	}
	files["/"] = newStatic("index.html", linked.ReplaceAll(files["/"].content, []byte("${1}"+version+"/${2}")))
	return files
}

func newStatic(name string, content []byte) static {
	mediaType, ok := mediaTypes[path.Ext(name)]
	if !ok {
		mediaType = "application/octet-stream"
	}
	f := static{content: content, mediaType: mediaType, etag: entityTag(content), policy: contentPolicy}
	if mediaType != mediaTypes[".png"] {
		f.zipped = sync.OnceValue(func() []byte { return gzipped(content) })
	}
	return f
}

func gzipped(content []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(content); err != nil {
		panic("internal error: " + err.Error()) // a buffer takes everything
	}
	if err := w.Close(); err != nil {
		panic("internal error: " + err.Error())
	}
	return b.Bytes()
}

// takesGzip reports whether a client says that it can read gzip, as RFC 9110, section
// 12.5.3, has it: by name, or, where that is not given, by *.
func takesGzip(fields []string) bool {
	others := false
	for _, field := range fields {
		for part := range strings.SplitSeq(field, ",") {
			coding, q, ok := weighted(part)
			switch {
			case !ok:
			case coding == "gzip", coding == "x-gzip":
				return q > 0
			case coding == "*":
				others = q > 0
			}
		}
	}
	return others
}

// weighted reads what a client can take and how much it wants that, q, which is 1 if
// it does not say: a part of Accept or Accept-Encoding.
func weighted(part string) (what string, q float64, ok bool) {
	what, params, err := mime.ParseMediaType(part)
	if err != nil {
		return "", 0, false
	}
	given, ok := params["q"]
	if !ok {
		return what, 1, true
	}
	q, err = strconv.ParseFloat(given, 64)
	return what, q, err == nil && q >= 0 && q <= 1
}

func entityTag(content []byte) string {
	sum := sha256.Sum256(content)
	return `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`
}

// serve lets browsers keep the file and ask each time whether it is still the
// one, unless its address says so. There are no ranges: nothing here is large.
func (f static) serve(x *exchange, r *http.Request) error {
	h := x.Header()
	if f.policy != "" {
		securePage(h, f.policy)
	}
	h.Set("ETag", f.etag)
	zip := f.zipped != nil && takesGzip(r.Header.Values("Accept-Encoding"))
	if f.zipped != nil {
		h.Set("Vary", "Accept-Encoding")
	}
	if zip {
		h.Set("ETag", "W/"+f.etag) // the same content in other bytes
	}
	if f.forever {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	} else {
		h.Set("Cache-Control", "no-cache")
	}
	if f.matches(r.Header.Values("If-None-Match")) {
		x.WriteHeader(http.StatusNotModified)
		return nil
	}
	if zip {
		h.Set("Content-Encoding", "gzip")
		f.content = f.zipped()
	}
	h.Set("Content-Type", f.mediaType)
	if f.saveAs != "" {
		h.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": f.saveAs}))
	}
	h.Set("Content-Length", strconv.Itoa(len(f.content)))
	x.write(f.content)
	return nil
}

// matches compares as RFC 9110, section 13.1.2, wants it.
func (f static) matches(fields []string) bool {
	for _, field := range fields {
		for tag := range strings.SplitSeq(field, ",") {
			tag = strings.TrimSpace(tag)
			if tag == "*" || strings.TrimPrefix(tag, "W/") == f.etag {
				return true
			}
		}
	}
	return false
}

// getPage is the page.
//
//	@Summary	The page
//	@ID			getPage
//	@Tags		service
//	@Produce	html
//	@Success	200	{string}	string	"The page, on which files can be sent and followed"
//	@Header		200	{string}	ETag	"Its version"
//	@Success	304	"It is the one that If-None-Match names"
//	@Header		304	{string}	ETag	"Its version"
//	@Router		/ [get]
func (a *httpAPI) getPage(x *exchange, r *http.Request) error { return a.static["/"].serve(x, r) }

// docsPath is the page about the API.
const docsPath = "/docs"

// docsPolicy is contentPolicy for what Swagger UI does: it has pictures in its
// style sheet and makes markup of strings, of the description's alone, which it
// cleans before. No script is run but those that the gateway serves.
const docsPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; " +
	"connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"

// getDocs is the description of the API to be read and tried by people.
//
//	@Summary	This description as a page
//	@ID			getDocs
//	@Tags		service
//	@Produce	html
//	@Success	200	{string}	string	"A page that shows /openapi.yaml, and sends requests"
//	@Header		200	{string}	ETag	"Its version"
//	@Success	304	"It is the one that If-None-Match names"
//	@Header		304	{string}	ETag	"Its version"
//	@Router		/docs [get]
func (a *httpAPI) getDocs(x *exchange, r *http.Request) error {
	page := a.static[docsPath]
	page.policy = docsPolicy
	return page.serve(x, r)
}

// getDescription is the description of the API.
//
//	@Summary	This description
//	@ID			getDescription
//	@Tags		service
//	@Produce	application/yaml
//	@Success	200	{string}	string	"OpenAPI 3.1"
//	@Header		200	{string}	ETag	"Its version"
//	@Success	304	"It is the one that If-None-Match names"
//	@Header		304	{string}	ETag	"Its version"
//	@Router		/openapi.yaml [get]
func (a *httpAPI) getDescription(x *exchange, r *http.Request) error {
	return a.description.serve(x, r)
}
