package gateway

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

// deadlines is an answer that notes its deadlines.
type deadlines struct {
	httptest.ResponseRecorder
	read, write time.Time
	sets        int
	refuses     bool
}

func (d *deadlines) SetReadDeadline(t time.Time) error  { return d.set(&d.read, t) }
func (d *deadlines) SetWriteDeadline(t time.Time) error { return d.set(&d.write, t) }

func (d *deadlines) set(which *time.Time, t time.Time) error {
	if d.refuses {
		return http.ErrNotSupported
	}
	*which = t
	d.sets++
	return nil
}

// slowly is a body of which a byte comes after each of the waits.
type slowly []time.Duration

func (s *slowly) Close() error { return nil }

func (s *slowly) Read(p []byte) (int, error) {
	if len(*s) == 0 {
		return 0, io.EOF
	}
	time.Sleep((*s)[0])
	*s = (*s)[1:]
	p[0] = 'x'
	return 1, nil
}

// TestDeadlinesGoOn: every read and write has the deadline that it should have, or one that is
// earlier by little; a small request sets no more than it needs.
func TestDeadlinesGoOn(t *testing.T) {
	const stall = 10 * time.Second
	begin := func(d *deadlines, body io.ReadCloser) *exchange {
		r := httptest.NewRequest(http.MethodPost, "/uploads", body)
		return (&httpAPI{stall: stall, rate: 10}).begin(d, r)
	}
	within := func(t *testing.T, what string, got time.Time, want, less time.Duration) {
		t.Helper()
		if left := time.Until(got); left > want || left < want-less {
			t.Errorf("%s: %v are left, want %v, or less by %v", what, left, want, less)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		d := &deadlines{ResponseRecorder: *httptest.NewRecorder()}
		x := begin(d, io.NopCloser(bytes.NewReader(make([]byte, 4096))))
		if n, err := io.Copy(io.Discard, &x.body); n != 4096 || err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
		_, _ = x.Write([]byte("done"))
		if d.sets != 2 {
			t.Errorf("a small request sets %d deadlines, want 2", d.sets)
		}
		for _, wait := range []time.Duration{900 * time.Millisecond, 100 * time.Millisecond, 1100 * time.Millisecond, 31 * time.Second} {
			time.Sleep(wait)
			_, _ = x.Write([]byte("more"))
			within(t, fmt.Sprintf("a write after %v", wait), d.write, writeTimeout, sameTime)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		d := &deadlines{ResponseRecorder: *httptest.NewRecorder()}
		steady := make(slowly, 1000) // a minute and forty seconds
		for i := range steady {
			steady[i] = 100 * time.Millisecond
		}
		x := begin(d, &steady)
		for range 1000 {
			if _, err := x.body.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			within(t, "a read of a steady body", d.read, stall, 100*time.Millisecond+stall/100) // as it began that long ago
		}
		lazy := slowly{4 * time.Second, 4 * time.Second}
		x = begin(d, &lazy)
		want := stall
		for range 2 {
			before := time.Now()
			if _, err := x.body.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			if got := d.read.Sub(before); got > want || got < want-want/100 {
				t.Errorf("a read of a slow body has %v, want %v", got, want)
			}
			want += 100*time.Millisecond - 4*time.Second
		}
	})
	d := &deadlines{ResponseRecorder: *httptest.NewRecorder(), refuses: true}
	if _, err := begin(d, io.NopCloser(bytes.NewReader([]byte("x")))).body.Read(make([]byte, 1)); err == nil {
		t.Error("a body is read without a deadline")
	}
}
