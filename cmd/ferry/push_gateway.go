package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"ferry/proto"
)

const (
	// defaultGateway is where ferry up and ferry gateway listen by default.
	defaultGateway = "http://127.0.0.1:8080"
	// maxAnswer is several times what the longest list of uploads takes.
	maxAnswer = 8 << 20
	// maxToken bounds a file with a token, in bytes.
	maxToken = 4 << 10

	connectLimit = 10 * time.Second
	// writeLimit bounds how long the gateway may take none of what is sent.
	writeLimit = time.Minute
	// answerLimit bounds how long the gateway may think about what it has got: it
	// makes files durable before it answers.
	answerLimit = 2 * time.Minute
)

// gatewayFlags say which gateway a command talks to, and as who.
type gatewayFlags struct {
	gateway, token, tokenFile string
	config                    string
}

func (f *gatewayFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.gateway, "gateway", defaultGateway, "`URL` of the gateway, with its base path if it has one")
	flags.StringVar(&f.token, "token", "", "`TOKEN` to show to the gateway. Others on this machine can see a command line (ps): FERRY_TOKEN or --token-file keep it from them")
	flags.StringVar(&f.tokenFile, "token-file", "", "`FILE` with the token")
	registerConfig(flags, &f.config)
}

// open returns the client of that gateway.
func (f *gatewayFlags) open() (*gatewayClient, error) {
	base, err := url.Parse(f.gateway)
	if err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Host == "" || base.RawQuery != "" || base.Fragment != "" {
		return nil, usagef("--gateway %q: want http://HOST:PORT or https://HOST, and a path if it is not at the top", withoutSecrets(f.gateway))
	}
	if base.User != nil {
		return nil, usagef("--gateway: there is a user or a password in the URL, and the gateway knows tokens: see --token-file")
	}
	token := f.token
	if f.tokenFile != "" {
		if token != "" {
			return nil, usagef("--token and --token-file both say who it is: give one")
		}
		b, err := readFileLimited(f.tokenFile, maxToken)
		if err != nil {
			return nil, usagef("--token-file: %w", err)
		}
		if token = strings.TrimSpace(string(b)); token == "" {
			return nil, usagef("--token-file: %s is empty", f.tokenFile)
		}
	}
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, usagef("the token has characters that no token has")
	}
	return newGatewayClient(base, token), nil
}

// gatewayClient talks to a gateway.
type gatewayClient struct {
	base  *url.URL
	token string
	http  *http.Client

	mu    sync.Mutex
	first string // destination, once it is known; guarded by mu
}

func newGatewayClient(base *url.URL, token string) *gatewayClient {
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           dialWithLimit,
		ForceAttemptHTTP2:     true,
		TLSHandshakeTimeout:   connectLimit,
		ResponseHeaderTimeout: answerLimit,
		ExpectContinueTimeout: time.Second, // for gateways behind a proxy that knows nothing of it
		IdleConnTimeout:       30 * time.Second,
		MaxIdleConnsPerHost:   maxParallel + waiters,
	}
	return &gatewayClient{base: base, token: token, http: &http.Client{
		Transport: transport,
		// A redirect would have the whole file sent again: whoever wrote the address
		// is told instead.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// exposed reports whether others in a network can read the token.
func (g *gatewayClient) exposed() bool {
	return g.token != "" && g.base.Scheme == "http" && !isLoopback(net.JoinHostPort(g.base.Hostname(), "0"))
}

func (g *gatewayClient) close() { g.http.CloseIdleConnections() }

func dialWithLimit(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: connectLimit}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return limitedConn{conn}, nil
}

// limitedConn ends a connection that takes nothing for too long. How long may be
// read is the client's to say.
type limitedConn struct{ net.Conn }

func (c limitedConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(writeLimit)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// A call is a request to the gateway.
type call struct {
	method string
	path   string // below the base, percent-encoded
	query  url.Values
	header http.Header
	length int64
	body   func() (io.ReadCloser, error) // nil for none
	limit  time.Duration                 // for all of it, unless it has a body
}

// remoteAnswer is what the gateway answered.
type remoteAnswer struct {
	status int
	header http.Header
	body   []byte
}

// do makes a call. An answer of 400 or more, or a redirect, is a *gatewayError.
func (g *gatewayClient) do(ctx context.Context, c call) (remoteAnswer, error) {
	if c.body == nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, cmp.Or(c.limit, answerLimit), errSilent)
		defer cancel()
	}
	req, err := g.request(ctx, c)
	if err != nil {
		return remoteAnswer{}, err
	}
	res, err := g.http.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return remoteAnswer{}, cause
		}
		return remoteAnswer{}, withoutURL(err)
	}
	slow := time.AfterFunc(answerLimit, func() { _ = res.Body.Close() })
	defer slow.Stop()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	err = errors.Join(err, res.Body.Close())
	switch {
	case err != nil && context.Cause(ctx) != nil:
		return remoteAnswer{}, context.Cause(ctx)
	case err != nil:
		return remoteAnswer{}, err
	case len(body) > maxAnswer:
		return remoteAnswer{}, &gatewayError{status: res.StatusCode, Title: fmt.Sprintf("its answer has more than %d bytes", maxAnswer)}
	}
	a := remoteAnswer{res.StatusCode, res.Header, body}
	if a.status >= 300 && a.status != http.StatusNotModified {
		return remoteAnswer{}, newGatewayError(a)
	}
	return a, nil
}

// errSilent: the gateway did not answer in time.
var errSilent = errors.New("no answer came in time")

func (g *gatewayClient) request(ctx context.Context, c call) (*http.Request, error) {
	u := *g.base
	u.RawPath = strings.TrimSuffix(u.EscapedPath(), "/") + c.path
	path, err := url.PathUnescape(u.RawPath)
	if err != nil {
		return nil, fmt.Errorf("internal error: %w", err)
	}
	u.Path, u.RawQuery = path, c.query.Encode()
	req, err := http.NewRequestWithContext(ctx, c.method, u.String(), http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("internal error: %w", err)
	}
	maps.Copy(req.Header, c.header)
	if c.body != nil {
		if req.Body, err = c.body(); err != nil {
			return nil, err
		}
		req.GetBody, req.ContentLength = c.body, c.length
		if c.length == 0 {
			req.Body, req.GetBody = http.NoBody, nil
		}
	}
	if g.token != "" {
		req.Header.Set("Authorization", "Bearer "+g.token)
	}
	req.Header.Set("User-Agent", "ferry/"+version().number)
	return req, nil
}

// withoutURL leaves away the address that a request was for, which may be long
// and is known.
func withoutURL(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// gatewayError is an answer that is not the one hoped for: a problem of RFC
// 9457, as far as it was one.
type gatewayError struct {
	status int
	after  time.Duration // how long it wants us to wait
	other  bool          // it is no gateway's, but a proxy's or another server's

	Type           string `json:"type"`
	Title          string `json:"title"`
	Detail         string `json:"detail"`
	RequestID      string `json:"request_id"`
	Retryable      *bool  `json:"retryable"`
	SHA256         string `json:"sha256"`
	ExistingSHA256 string `json:"existing_sha256"`
}

func newGatewayError(a remoteAnswer) *gatewayError {
	e := &gatewayError{}
	if strings.HasPrefix(a.header.Get("Content-Type"), "application/problem+json") {
		if err := json.Unmarshal(a.body, e); err != nil {
			e = &gatewayError{}
		}
	}
	e.status, e.after = a.status, retryAfter(a.header)
	e.other = e.Title == "" && a.header.Get("X-Request-Id") == ""
	if to := a.header.Get("Location"); to != "" && a.status < 400 {
		e.Title = "it says to go to " + printable(withoutSecrets(to))
	}
	return e
}

// Error is the problem in words, with what names it in the gateway's log.
func (e *gatewayError) Error() string {
	said := cmp.Or(e.Detail, e.Title, http.StatusText(e.status))
	if said = printable(said); e.RequestID != "" {
		return fmt.Sprintf("%s (%d, request %s)", said, e.status, printable(e.RequestID))
	}
	return fmt.Sprintf("%s (%d)", said, e.status)
}

// kind is the problem's name, without where it is explained.
func (e *gatewayError) kind() string { return e.Type[strings.LastIndex(e.Type, "/")+1:] }

// away reports whether a proxy answers that it cannot reach the gateway, or has none.
func (e *gatewayError) away() bool {
	return e.other && (e.status == http.StatusBadGateway || e.status == http.StatusServiceUnavailable || e.status == http.StatusGatewayTimeout)
}

// passes reports whether the same request may succeed later.
func (e *gatewayError) passes() bool {
	switch e.status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusRequestEntityTooLarge, http.StatusInsufficientStorage:
		return false
	}
	if e.Retryable != nil {
		return *e.Retryable
	}
	switch e.status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return e.kind() == "incomplete"
}

// retryAfter reads the header, in seconds or as a date.
func retryAfter(h http.Header) time.Duration {
	text := h.Get("Retry-After")
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}

// remoteUpload is what the client reads of an upload.
type remoteUpload struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Size     *int64 `json:"size"`
	State    string `json:"state"`
	SHA256   string `json:"sha256"`
	Error    string `json:"error"`
	Progress struct {
		Bytes      int64 `json:"bytes"`
		TotalBytes int64 `json:"total_bytes"`
	} `json:"progress"`
	Attempts struct {
		Count     int       `json:"count"`
		LastError string    `json:"last_error"`
		NextAt    time.Time `json:"next_at"`
	} `json:"attempts"`
	Destination     string            `json:"destination"`
	DestinationName string            `json:"destination_name"`
	Blocked         string            `json:"blocked"`
	Labels          map[string]string `json:"labels"`
	Receipt         string            `json:"receipt"`
	CreatedAt       time.Time         `json:"created_at"`
	UpdatedAt       time.Time         `json:"updated_at"`
	DeliveredAt     time.Time         `json:"delivered_at"`

	raw json.RawMessage // all that the gateway said
}

// over reports whether nothing will become of the upload by itself any more.
func (u *remoteUpload) over() bool {
	return u.State == remoteDelivered || u.State == remoteFailed || u.State == remoteCancelled
}

// The states of uploads that the client asks for.
const (
	remoteReceiving = "receiving"
	remoteDelivered = "delivered"
	remoteFailed    = "failed"
	remoteCancelled = "cancelled"
)

// upload makes a call that is answered with an upload.
func (g *gatewayClient) upload(ctx context.Context, c call) (u remoteUpload, a remoteAnswer, err error) {
	if a, err = g.do(ctx, c); err != nil || a.status == http.StatusNotModified || a.status == http.StatusNoContent {
		return u, a, err
	}
	if err := json.Unmarshal(a.body, &u); err != nil || u.ID == "" || u.State == "" {
		return u, a, errNoUpload(a.status)
	}
	u.raw = a.body
	return u, a, nil
}

// list returns uploads as the gateway has them.
func (g *gatewayClient) list(ctx context.Context, query url.Values) ([]remoteUpload, error) {
	a, err := g.do(ctx, call{method: http.MethodGet, path: "/uploads", query: query})
	if err != nil {
		return nil, err
	}
	var list struct {
		Uploads []json.RawMessage `json:"uploads"`
	}
	if err := json.Unmarshal(a.body, &list); err != nil {
		return nil, errNoUpload(a.status)
	}
	uploads := make([]remoteUpload, len(list.Uploads))
	for i, raw := range list.Uploads {
		if err := json.Unmarshal(raw, &uploads[i]); err != nil {
			return nil, errNoUpload(a.status)
		}
		uploads[i].raw = raw
	}
	return uploads, nil
}

// errNoUpload is for an answer that cannot be read.
func errNoUpload(status int) error {
	return &gatewayError{status: status, Title: "its answer is no upload and no list of them: is that a Ferry gateway?"}
}

// find returns the uploads of a name and content that the gateway knows for a
// destination, newest first; "" is the one where files go that name none.
func (g *gatewayClient) find(ctx context.Context, destination string, name proto.FileName, sha256 string) ([]remoteUpload, error) {
	query := url.Values{"sha256": {sha256}, "name": {name.String()}}
	if destination != "" {
		query.Set("destination", destination)
	}
	uploads, err := g.list(ctx, query)
	uploads = slices.DeleteFunc(uploads, func(u remoteUpload) bool { return u.SHA256 != sha256 || u.Name != name.String() })
	if err != nil || len(uploads) == 0 || uploads[0].DestinationName == "" { // gateways of before have one
		return uploads, err
	}
	if destination == "" {
		destination, err = g.firstDestination(ctx)
	}
	return slices.DeleteFunc(uploads, func(u remoteUpload) bool { return u.DestinationName != destination }), err
}

// firstDestination is the name of the destination where files go that name none. It
// asks once.
func (g *gatewayClient) firstDestination(ctx context.Context) (string, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.first != "" {
		return g.first, nil
	}
	a, err := g.do(ctx, call{method: http.MethodGet, path: "/destinations"})
	if err != nil {
		return "", err
	}
	var list struct {
		Destinations []struct {
			Name string `json:"name"`
		} `json:"destinations"`
	}
	if err := json.Unmarshal(a.body, &list); err != nil || len(list.Destinations) == 0 {
		return "", &gatewayError{status: a.status, Title: "its answer is no list of destinations: is that a Ferry gateway?"}
	}
	g.first = list.Destinations[0].Name
	return g.first, nil
}

// uploadPath is an upload's address.
func uploadPath(id string) string { return "/uploads/" + url.PathEscape(id) }
