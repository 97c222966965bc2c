package gateway

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ferry/proto"
)

// BenchmarkPost sends files, of 4 KiB if it says no other size, by 64 clients to a
// gateway that does all that it does but record them, and to a handler that drops
// them: what lies between is what the gateway adds to net/http. The clients are part
// of it; they allocate nothing.
func BenchmarkPost(b *testing.B) {
	for _, size := range []int{100, 4 << 10, 40 << 10} {
		b.Run(strconv.Itoa(size), func(b *testing.B) { benchPost(b, unrecorded(b, slog.DiscardHandler), size) })
	}
	b.Run("token", func(b *testing.B) {
		h := unrecorded(b, slog.DiscardHandler)
		benchPost(b, h, 4<<10, "Authorization: Bearer "+h.token(b))
	})
	b.Run("logged", func(b *testing.B) { benchPost(b, unrecorded(b, slog.NewTextHandler(io.Discard, nil)), 4<<10) })
	b.Run("dropping", func(b *testing.B) {
		benchPost(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				b.Error(err)
			}
			w.WriteHeader(http.StatusAccepted)
		}), 4<<10)
	})
}

// unrecordedGateway is a gateway whose receptions do not reach the database.
type unrecordedGateway struct {
	*Gateway
	http.Handler
}

func unrecorded(b *testing.B, log slog.Handler) unrecordedGateway {
	b.Helper()
	name, err := proto.ParseClientName("test")
	if err != nil {
		b.Fatal(err)
	}
	g, err := Open(b.Context(), Config{Data: b.TempDir(), Destinations: to(b, "v4://127.0.0.1:1"), Name: name, Log: slog.New(log)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := g.Close(); err != nil {
			b.Error(err)
		}
	})
	a := g.httpAPI()
	a.receive = func(ctx context.Context) receiver { return unrecordedReception{g.receiveOnce(ctx)} }
	return unrecordedGateway{g, g.counted(a.around(a.routes()))}
}

func (g unrecordedGateway) token(b *testing.B) string {
	b.Helper()
	token, err := CreateToken(b.Context(), g.cfg.Data, TokenOptions{Name: "ci", Scopes: []Scope{ScopeUpload}})
	if err != nil {
		b.Fatal(err)
	}
	if err := g.door.look(b.Context()); err != nil {
		b.Fatal(err)
	}
	return token
}

type unrecordedReception struct{ *reception }

func (r unrecordedReception) commit() ([]Upload, error) {
	now := r.g.now()
	var kept []Upload
	for _, in := range r.files {
		kept = append(kept, in.queued(now))
		r.made++
	}
	if !r.enter(committing) {
		return nil, errors.New("interrupted")
	}
	r.end()
	return kept, nil
}

// benchPost also reports the processor's time, which other work on the machine does not
// lengthen.
func benchPost(b *testing.B, h http.Handler, size int, fields ...string) {
	b.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	defer func() {
		if err := srv.Close(); err != nil {
			b.Error(err)
		}
		if err := soon(b, served); !errors.Is(err, http.ErrServerClosed) {
			b.Error(err)
		}
	}()
	head := append([]string{"POST /uploads?name=build-17.tar.gz HTTP/1.1", "Host: " + ln.Addr().String(), "Content-Length: " + strconv.Itoa(size)}, fields...)
	request := []byte(strings.Join(head, "\r\n") + "\r\n\r\n" + content(1, size))
	b.ReportAllocs()
	b.SetParallelism(32)
	before := cpu(b)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		conn, err := new(net.Dialer).DialContext(b.Context(), "tcp", ln.Addr().String())
		if err != nil {
			b.Error(err)
			return
		}
		defer conn.Close()
		answers := bufio.NewReader(conn)
		for pb.Next() {
			if err := post(conn, answers, request); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-ns/op")
}

var (
	accepted      = []byte("HTTP/1.1 202 ")
	contentLength = []byte("Content-Length: ")
)

func post(conn net.Conn, answers *bufio.Reader, request []byte) error {
	if _, err := conn.Write(request); err != nil {
		return err
	}
	status, err := answers.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(status, accepted) {
		return errors.New(string(status))
	}
	length := 0
	for {
		line, err := answers.ReadSlice('\n')
		if err != nil {
			return err
		}
		if line = bytes.TrimSpace(line); len(line) == 0 {
			break
		}
		if value, ok := bytes.CutPrefix(line, contentLength); ok {
			if length, err = strconv.Atoi(string(value)); err != nil {
				return err
			}
		}
	}
	_, err = answers.Discard(length)
	return err
}

// cpu is what the process has used.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
