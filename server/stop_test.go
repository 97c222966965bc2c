package server_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"ferry/proto"
	"ferry/server"
)

func TestStopWhileIdle(t *testing.T) {
	inBubble(t, server.Limits{}, func(t *testing.T, h *harness) {
		silent := h.connect("", "127.0.0.1")
		idle := h.client("alice")
		idle.send(file("f", "x"))
		before := time.Now()
		h.stop()
		if d := time.Since(before); d > 0 || !is(silent.gone) || !is(idle.gone) {
			t.Errorf("it took %v; closed: %v, %v", d, is(silent.gone), is(idle.gone))
		}
		if got := h.log.lines("level=WARN"); got != nil {
			t.Errorf("the log complains: %q", got)
		}
	})
}

// stopWithin ends Serve while a file comes in that needs so long.
func stopWithin(t *testing.T, needs time.Duration) (took time.Duration, got outcome, h *harness) {
	t.Helper()
	inBubble(t, server.Limits{}, func(t *testing.T, inner *harness) {
		h = inner
		p := h.client("alice")
		f := sent("f", "content", func(ctx context.Context, dst proto.Sink) error {
			if _, err := io.WriteString(dst, "con"); err != nil {
				return err
			}
			select {
			case <-time.After(needs):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			_, err := io.WriteString(dst, "tent")
			return err
		})
		p.offers <- f
		synctest.Wait()
		before := time.Now()
		h.stop()
		took = time.Since(before)
		got = <-f.outcome
		if !is(p.gone) {
			t.Error("the connection is open still")
		}
		if left := h.staged(); left != 0 {
			t.Errorf("%d bytes are left in staging", left)
		}
	})
	return took, got, h
}

func TestStopLetsAFileFinish(t *testing.T) {
	took, got, h := stopWithin(t, 50*time.Second)
	if !got.accepted || took != 50*time.Second {
		t.Errorf("%+v after %v, want it stored after 50s", got, took)
	}
	if content, _ := h.read("alice", "f"); content != "content" {
		t.Errorf("stored: %q", content)
	}
}

func TestStopCutsAFileAfterGrace(t *testing.T) {
	took, got, h := stopWithin(t, 70*time.Second)
	if got.accepted || got.err == nil || took != time.Minute {
		t.Errorf("%+v after %v, want it cut after 1m0s", got, took)
	}
	if _, ok := h.read("alice", "f"); ok {
		t.Error("half a file is visible")
	}
	if got := h.log.lines("level=WARN", "file broken off", "file=f", "stopping"); len(got) != 1 {
		t.Errorf("the log says %s", h.log)
	}
}

// TestStopKeepsWhatIsThere: the time is over when the last byte has come; the
// file is stored nevertheless.
func TestStopKeepsWhatIsThere(t *testing.T) {
	inBubble(t, server.Limits{}, func(t *testing.T, h *harness) {
		p := h.client("alice")
		f := sent("f", "content", func(ctx context.Context, dst proto.Sink) error {
			<-ctx.Done()
			_, err := io.WriteString(dst, "content")
			return err
		})
		p.offers <- f
		synctest.Wait()
		h.stop()
		if got := <-f.outcome; !got.accepted {
			t.Errorf("got %+v, want it stored", got)
		}
		verified(t, h.data, 1)
		if got := h.rows(); len(got) != 1 {
			t.Errorf("on record: %q", got)
		}
	})
}

func TestSeenIsNotedOncePerMinute(t *testing.T) {
	inBubble(t, server.Limits{}, func(t *testing.T, h *harness) {
		seen := func() time.Time {
			in, err := server.Inspect(h.data)
			if err != nil {
				t.Fatal(err)
			}
			for c, err := range in.Clients(t.Context()) {
				if err != nil {
					t.Fatal(err)
				}
				return c.LastSeen
			}
			t.Fatal("no client")
			return time.Time{}
		}
		visit := func() {
			p := h.client("alice")
			close(p.offers)
			await(t, p.gone, "the end of the connection")
		}
		first := time.Now().UTC()
		visit()
		time.Sleep(59 * time.Second)
		visit()
		if got := seen(); !got.Equal(first) {
			t.Errorf("within a minute: seen %v, want %v", got, first)
		}
		time.Sleep(2 * time.Second)
		second := time.Now().UTC()
		visit()
		if got := seen(); !got.Equal(second) {
			t.Errorf("after a minute: seen %v, want %v", got, second)
		}
	})
}

func TestServeAfterStop(t *testing.T) {
	h := openOn(t, t.TempDir(), server.Limits{})
	for range 2 { // one after another
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errors.New("enough"))
		if err := h.Serve(ctx, newListener(), accept, server.Admission{Open: true}); err != nil {
			t.Errorf("got %v, want nil", err)
		}
	}
}
