package gateway

import (
	"cmp"
	"context"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/oklog/ulid/v2"

	"ferry/api"
	"ferry/proto"
)

const (
	// stall and minRate are the patience with a body's sender: 30 seconds of
	// silence, and at least so many bytes a second in the long run.
	stall   = 30 * time.Second
	minRate = 1 << 10
	// maxRequests bounds the uploads that come in at once; each holds buffers
	// and at least one file descriptor.
	maxRequests = 256
)

// uploads is what the handlers need of a Gateway beside receive.
type uploads interface {
	get(ctx context.Context, id ulid.ULID) (Upload, error)
	list(ctx context.Context, f filter, limit int) ([]Upload, error)
	await(ctx context.Context, id ulid.ULID, most time.Duration, done func(Upload) bool) (Upload, error)
	moved(ctx context.Context, id ulid.ULID, most time.Duration, done func(Upload) bool) (Upload, error)
	remove(ctx context.Context, id ulid.ULID) (u Upload, gone bool, err error)
	cancel(ctx context.Context, id ulid.ULID) (Upload, error)
	retry(ctx context.Context, id ulid.ULID) (Upload, error)
	hold(ctx context.Context, id ulid.ULID) (Upload, error)
	release(ctx context.Context, id ulid.ULID) (Upload, error)
	attempts(ctx context.Context, id ulid.ULID) (attemptList, error)
	receipt(ctx context.Context, id ulid.ULID) (u Upload, envelope []byte, err error)
	choose(ctx context.Context, name string) (outlet, error)
	known(ctx context.Context, to outlet, name proto.FileName, sum [32]byte) (Upload, bool, error)
	unused(ctx context.Context, to outlet, name proto.FileName) error
	answered(ctx context.Context, k *keyed) (bool, error)
	settled(ctx context.Context, k *keyed, status int, kept []Upload) error
	changedAfter(ctx context.Context, after int64, limit int) (all []change, upTo int64, err error)
	lastChange(ctx context.Context, after int64) (last int64, missed bool, err error)
	active(ctx context.Context, known int64) ([]change, error)
	destinations(ctx context.Context) ([]DestinationStatus, error)
	destination(ctx context.Context, name string) (DestinationStatus, error)
	pause(ctx context.Context, name string) (DestinationStatus, error)
	resume(ctx context.Context, name string) (DestinationStatus, error)
	nextChanges() (changed, stopped <-chan struct{})
	ready(ctx context.Context) error
}

// receiver is what the handlers need of a reception.
type receiver interface {
	to(outlet)
	add(name proto.FileName, declared int64, body io.Reader) (int, error)
	rename(i int, name proto.FileName)
	sha256(i int) [32]byte
	label(labels map[string]string)
	describe(at attributes)
	ifVacant()
	commit() ([]Upload, error)
	fresh() bool
	abort()
}

var (
	_ uploads  = (*Gateway)(nil)
	_ receiver = (*reception)(nil)
)

// httpAPI answers HTTP.
type httpAPI struct {
	core    uploads
	door    *door // nil lets everybody in
	front   Front
	pace    *pace
	receive func(context.Context) receiver
	version string
	log     *slog.Logger

	stall time.Duration
	rate  int64
	leave time.Duration
	slots chan struct{} // holds a value for each upload that comes in

	static      map[string]static // the page's files, by their path
	description static
	problems    map[string]static // by the names of their kinds
	running     *sync.Map         // the keys of requests that are being answered
	streams     chan struct{}     // has a value for each request that is answered with events
}

// Handler is the HTTP half alone. It streams what it receives, keeps a deadline
// on every read and write, and answers every error as a problem of RFC 9457.
func (g *Gateway) Handler() http.Handler {
	a := g.httpAPI()
	return a.around(a.routes())
}

func (g *Gateway) httpAPI() *httpAPI {
	receive := func(ctx context.Context) receiver { return g.receiveOnce(ctx) }
	a := newHTTPAPI(g, receive)
	a.version, a.log, a.door = g.cfg.Version, g.log, g.door
	a.front, a.pace = g.cfg.Front, newPace(g.cfg.Rate)
	a.stall, a.rate = cmp.Or(g.cfg.Silence, stall), cmp.Or(g.cfg.MinRate, minRate)
	a.description = newStatic("openapi.yaml", a.front.describe(api.OpenAPI))
	return a
}

func newHTTPAPI(core uploads, receive func(context.Context) receiver) *httpAPI {
	return &httpAPI{
		core: core, receive: receive, log: slog.New(slog.DiscardHandler),
		stall: stall, rate: minRate, leave: leaveTimeout, slots: make(chan struct{}, maxRequests),
		static: staticFiles(), description: newStatic("openapi.yaml", api.OpenAPI), problems: newProblemPages(), running: &sync.Map{}, streams: make(chan struct{}, maxStreams),
	}
}

// A handler decodes, calls one method, and encodes; it returns what went wrong.
type handler func(x *exchange, r *http.Request) error

func (a *httpAPI) routes() *chi.Mux {
	m := chi.NewRouter()
	m.NotFound(a.serve(notFound))
	m.MethodNotAllowed(a.serve(methodNotAllowed(m)))

	m.Post("/uploads", a.serve(taking(sendParameters, a.once(a.postUploads))))
	m.Post(uploadsPath, a.serve(taking(sendParameters, a.once(a.postUploads)))) // as people write it who know PUT
	a.get(m, "/uploads", taking(listParameters, a.listUploads))
	a.get(m, "/uploads/{id}", taking(showParameters, a.getUpload))
	m.Put(uploadsPath+"{id}", a.serve(taking(putParameters, a.once(a.putUpload))))
	m.Put(uploadsPath+"*", a.serve(taking(putParameters, a.once(a.putUpload)))) // a name with folders, or none
	m.Delete("/uploads/{id}", a.serve(taking(nil, a.ifMatch(a.deleteUpload))))
	m.Post("/uploads/{id}/cancel", a.serve(taking(nil, a.ifMatch(a.cancelUpload))))
	m.Post("/uploads/{id}/retry", a.serve(taking(nil, a.ifMatch(a.retryUpload))))
	m.Post("/uploads/{id}/hold", a.serve(taking(nil, a.ifMatch(a.holdUpload))))
	m.Post("/uploads/{id}/release", a.serve(taking(nil, a.ifMatch(a.releaseUpload))))
	m.Post(bulkPath, a.serve(taking(nil, a.bulkUploads)))
	a.get(m, "/uploads/{id}"+attemptsPath, taking(nil, a.getAttempts))
	a.get(m, "/uploads/{id}"+receiptPath, taking(nil, a.getReceipt))
	a.get(m, "/uploads/{id}/events", taking(nil, a.getUploadEvents))
	a.get(m, eventsPath, taking(nil, a.getEvents))
	a.get(m, destinationsPath, taking(nil, a.getDestinations))
	a.get(m, destinationsPath+"/{name}", taking(nil, a.getDestination))
	m.Post(destinationsPath+"/{name}/pause", a.serve(taking(nil, a.pauseDestination)))
	m.Post(destinationsPath+"/{name}/resume", a.serve(taking(nil, a.resumeDestination)))
	a.get(m, "/healthz", a.health)
	a.get(m, "/readyz", a.readiness)
	a.get(m, problemsIndex, a.getProblems)
	a.get(m, problemsPath+"{name}", a.getProblem)
	a.get(m, "/openapi.yaml", a.getDescription)
	a.get(m, "/", a.getPage)
	a.get(m, docsPath, a.getDocs)
	for path, f := range a.static {
		if path != "/" && path != docsPath {
			a.get(m, path, f.serve)
		}
	}
	return m
}

// get routes HEAD as well.
func (a *httpAPI) get(m *chi.Mux, pattern string, h handler) {
	m.Get(pattern, a.serve(h))
	m.Head(pattern, a.serve(h))
}

func (a *httpAPI) serve(h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		x, ok := w.(*exchange)
		if !ok {
			panic("internal error: a handler is used outside of around")
		}
		if err := h(x, r); err != nil {
			a.fail(x, r, err)
		}
	}
}

// slashless are addresses that people write with a slash at the end as well, whose
// pages have links that lead elsewhere then.
var slashless = []string{docsPath, problemsIndex, "/uploads", destinationsPath, eventsPath}

// elsewhere is where what a request asks for is, if that is not where it asks; else
// "". That is the same for everybody.
func (a *httpAPI) elsewhere(r *http.Request) string {
	if a.front.isAtBase(r) {
		return "/"
	}
	path, slash := strings.CutSuffix(r.URL.Path, "/")
	if !slash || !isSafe(r.Method) || !slices.Contains(slashless, path) {
		return ""
	}
	if r.URL.RawQuery != "" {
		path += "?" + r.URL.RawQuery
	}
	return path
}

func notFound(*exchange, *http.Request) error {
	return refusal(kindNotFound, "Nothing has this address. The page is at /, the API is described at /docs.")
}

// methodNotAllowed says which methods are, as RFC 9110 wants. OPTIONS asks for that
// alone.
func methodNotAllowed(m *chi.Mux) handler {
	return func(x *exchange, r *http.Request) error {
		path := r.URL.RawPath
		if path == "" {
			path = r.URL.Path
		}
		var allowed []string
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodPost, http.MethodDelete} {
			if m.Match(chi.NewRouteContext(), method, path) {
				allowed = append(allowed, method)
			}
		}
		x.Header().Set("Allow", strings.Join(append(allowed, http.MethodOptions), ", "))
		if r.Method == http.MethodOptions {
			x.Header().Set("Cache-Control", "no-store")
			x.WriteHeader(http.StatusNoContent)
			return nil
		}
		return refusal(kindMethod, "%.20s is not possible here, but %s. Nothing was done. The API is described at /docs.", r.Method, strings.Join(allowed, ", "))
	}
}
