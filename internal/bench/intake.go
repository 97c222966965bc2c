package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"ferry/gateway"
	"ferry/proto"
)

const (
	intakeClients = 64
	intakeSize    = 4 << 10
)

// benchIntake sends small files by many clients at once, to handlers that are all in
// this process, and so all pay for the clients: once for those of net/http, which cost more
// than a handler that does nothing, and once for as cheap ones as there can be.
func benchIntake(ctx context.Context, dir, binary string, o options) (err error) {
	native, err := startNative(ctx, binary, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, native.stop()) }()
	for _, kind := range []struct {
		name, prefix string
		connect      func(ctx context.Context, address string, body []byte) (client, error)
	}{
		{"clients of net/http", "http-", newHTTPClient},
		{"clients that only write and read bytes", "bytes-", newPoster},
	} {
		var contestants []contestant
		for _, c := range []struct {
			name, short string
			start       func(ctx context.Context, dir string) (*handler, error) // the folder is fresh
		}{
			{"ferry gateway, each durable, its destination paused", "ferry", func(ctx context.Context, dir string) (*handler, error) {
				h, err := startGateway(ctx, dir, native)
				if err != nil {
					return nil, err
				}
				if err := pause(ctx, h.address); err != nil {
					return nil, errors.Join(err, h.stop())
				}
				return h, nil
			}},
			{"the same, while it delivers them", "ferry with deliveries", func(ctx context.Context, dir string) (*handler, error) {
				return startGateway(ctx, dir, native)
			}},
			{"a handler that reads and drops", "dropping", func(context.Context, string) (*handler, error) {
				return startHandler(http.HandlerFunc(drop))
			}},
			{"a handler that writes a file each: fsync, rename, fsync of the folder", "a file each", func(_ context.Context, dir string) (*handler, error) {
				filing, err := newFiling(dir)
				if err != nil {
					return nil, err
				}
				return startHandler(filing)
			}},
		} {
			contestants = append(contestants, contestant{name: c.name, short: c.short, deliver: func(ctx context.Context, name string) (took cost, err error) {
				folder := filepath.Join(dir, strings.ReplaceAll(kind.prefix+c.short+"-"+name, " ", "-"))
				h, err := c.start(ctx, folder)
				if err != nil {
					return cost{}, err
				}
				defer func() { err = errors.Join(err, h.stop()) }()
				return postMany(ctx, func(ctx context.Context, body []byte) (client, error) {
					return kind.connect(ctx, h.address, body)
				}, kind.prefix+name, o.files)
			}})
		}
		costs, err := turns(ctx, o.rounds, contestants)
		if err != nil {
			return err
		}
		report(fmt.Sprintf("%d POST of %d bytes by %d %s", o.files, intakeSize, intakeClients, kind.name), contestants, costs, float64(o.files), "requests")
	}
	return nil
}

// postMany sends files by many clients at once, each on a connection of its own,
// with names not used before.
func postMany(ctx context.Context, connect func(ctx context.Context, body []byte) (client, error), prefix string, files int) (cost, error) {
	body := make([]byte, intakeSize)
	if _, err := rand.Read(body); err != nil {
		return cost{}, err
	}
	clients := make([]client, intakeClients)
	for i := range clients {
		c, err := connect(ctx, body)
		if err != nil {
			return cost{}, err
		}
		defer c.close()
		clients[i] = c
	}
	var next atomic.Int64
	failed := make(chan error, len(clients))
	begun, before := time.Now(), cpuOf(os.Getpid())
	var all sync.WaitGroup
	for _, c := range clients {
		all.Go(func() {
			for i := next.Add(1); i <= int64(files); i = next.Add(1) {
				if err := c.post(ctx, fmt.Sprintf("%s-%d", prefix, i)); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	all.Wait()
	took := cost{wall: time.Since(begun), cpu: cpuOf(os.Getpid()) - before}
	select {
	case err := <-failed:
		return cost{}, err
	default:
		return took, nil
	}
}

// A client sends a body again and again, by one goroutine.
type client interface {
	// post sends it as a file and reads the answer.
	post(ctx context.Context, name string) error
	close()
}

// An httpClient is one of net/http, with a connection of its own.
type httpClient struct {
	transport *http.Transport
	address   string
	body      []byte
}

func newHTTPClient(_ context.Context, address string, body []byte) (client, error) {
	return &httpClient{new(http.Transport), address, body}, nil
}

func (c *httpClient) post(ctx context.Context, name string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+c.address+"/uploads?name="+name, bytes.NewReader(c.body))
	if err != nil {
		return err
	}
	res, err := c.transport.RoundTrip(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, res.Body)
	if err = errors.Join(err, res.Body.Close()); err != nil {
		return err
	}
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("POST %s: %s", name, res.Status)
	}
	return nil
}

func (c *httpClient) close() { c.transport.CloseIdleConnections() }

// A poster is a client that costs less than one of net/http, which takes much of what is
// measured.
type poster struct {
	conn    net.Conn
	answers *bufio.Reader
	address string
	body    []byte
	request bytes.Buffer
}

func newPoster(ctx context.Context, address string, body []byte) (client, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &poster{conn: conn, answers: bufio.NewReader(conn), address: address, body: body}, nil
}

func (p *poster) close() { _ = p.conn.Close() }

func (p *poster) post(_ context.Context, name string) error {
	p.request.Reset()
	fmt.Fprintf(&p.request, "POST /uploads?name=%s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n", name, p.address, len(p.body))
	p.request.Write(p.body)
	if _, err := p.conn.Write(p.request.Bytes()); err != nil {
		return err
	}
	status, err := p.answers.ReadString('\n')
	if err != nil {
		return err
	}
	length := 0
	for {
		line, err := p.answers.ReadString('\n')
		if err != nil {
			return err
		}
		if line == "\r\n" {
			break
		}
		if value, ok := strings.CutPrefix(line, "Content-Length: "); ok {
			if length, err = strconv.Atoi(strings.TrimSpace(value)); err != nil {
				return err
			}
		}
	}
	if _, err := p.answers.Discard(length); err != nil {
		return err
	}
	if !strings.HasPrefix(status, "HTTP/1.1 20") {
		return fmt.Errorf("POST %s: %s", name, strings.TrimSpace(status))
	}
	return nil
}

// A handler is a server of HTTP in this process.
type handler struct {
	address string
	stop    func() error
}

func startHandler(h http.Handler) (*handler, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	return &handler{ln.Addr().String(), func() error {
		err := srv.Close()
		if ended := <-served; !errors.Is(ended, http.ErrServerClosed) {
			err = errors.Join(err, ended)
		}
		return err
	}}, nil
}

// startGateway runs a gateway in this process. The destination knows it by the name of its
// folder.
func startGateway(ctx context.Context, data string, native *nativeServer) (*handler, error) {
	token, err := native.token(ctx)
	if err != nil {
		return nil, err
	}
	destination, err := proto.ParseDestination(native.to)
	if err != nil {
		return nil, err
	}
	name, err := proto.ParseClientName(filepath.Base(data))
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, err
	}
	g, err := gateway.Open(ctx, gateway.Config{Data: data, Destinations: []gateway.Destination{{To: destination, Join: token}}, Name: name, Grace: time.Millisecond})
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, g.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- g.Serve(ctx, ln) }()
	return &handler{ln.Addr().String(), func() error {
		cancel()
		return errors.Join(<-served, g.Close())
	}}, nil
}

// pause keeps a gateway from delivering.
func pause(ctx context.Context, address string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+"/destinations/default/pause", nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	if err := res.Body.Close(); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("pause the destination: %s", res.Status)
	}
	return nil
}

func drop(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.WriteHeader(http.StatusAccepted)
}

// filing stores each body as a file, durably, as programs do that know nothing of
// each other's requests.
type filing struct {
	dir    string
	folder *os.File
}

func newFiling(dir string) (*filing, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	folder, err := os.Open(dir)
	return &filing{dir, folder}, err
}

func (f *filing) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := f.store(r.URL.Query().Get("name"), r.Body); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.WriteHeader(http.StatusAccepted)
}

func (f *filing) store(name string, body io.Reader) error {
	path := filepath.Join(f.dir, filepath.Base(name))
	file, err := os.Create(path + ".part")
	if err != nil {
		return err
	}
	_, err = io.Copy(file, body)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".part", path); err != nil {
		return err
	}
	return f.folder.Sync()
}
