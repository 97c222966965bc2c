package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ferry/proto"
	"ferry/server"
)

const mib = 1 << 20

// errCut is the network's.
var errCut = errors.New("connection reset")

// resumed is a file with that transfer id of which each attempt writes so much
// more, keeps it, and is then cut, until all is there.
func resumed(name, content string, id byte, step int, kept *[]int64) *transfer {
	f := sent(name, content, func(_ context.Context, dst proto.Sink) error {
		size, state := dst.Kept()
		*kept = append(*kept, size)
		if want := fmt.Sprint("state ", size); size > 0 && string(state) != want {
			return fmt.Errorf("state %q, want %q", state, want)
		}
		to := min(int(size)+step, len(content))
		if _, err := io.WriteString(dst, content[size:to]); err != nil {
			return err
		}
		if to == len(content) {
			return nil
		}
		if err := dst.Keep(fmt.Append(nil, "state ", to)); err != nil {
			return err
		}
		if _, err := io.WriteString(dst, "was not kept"); err != nil {
			return err
		}
		return errCut
	})
	f.offer.ID = proto.TransferID{id}
	return f
}

// TestResume sends a file over cuts and restarts, with nothing twice.
func TestResume(t *testing.T) {
	data := t.TempDir()
	content := string(random(5*mib + 50))
	var kept []int64
	h := start(t, data, server.Limits{})
	p := h.client("alice")
	for i := range 5 {
		if i == 2 || i == 4 {
			h.stop()
			h = start(t, data, server.Limits{})
		}
		p = h.client("alice")
		if got := p.offer(resumed("a/f", content, 1, mib+11, &kept)); !errors.Is(got.err, errCut) && !got.accepted {
			t.Fatalf("attempt %d: %+v", i, got)
		}
		if _, ok := h.read("alice", "a/f"); ok != (i == 4) {
			t.Errorf("attempt %d: visible %v", i, ok)
		}
	}
	for i, size := range kept {
		if size != int64(i*(mib+11)) {
			t.Errorf("attempt %d began at %d", i, size)
		}
	}
	if got, _ := h.read("alice", "a/f"); got != content {
		t.Errorf("%d bytes are stored, and not what was sent", len(got))
	}
	verified(t, data, 1)
	if got := h.staged(); got != 0 {
		t.Errorf("%d bytes are left in staging", got)
	}
	// The same again is what is stored; so is the name with another transfer.
	for _, id := range []byte{1, 2} {
		f := resumed("a/f", content, id, mib, &kept)
		if got := p.offer(f); !errors.Is(got.err, proto.ErrExists) || got.as.Sum != sumOf(content) || got.as.Transfer != (proto.TransferID{1}) || got.as.At.IsZero() {
			t.Errorf("again: %+v", got)
		}
	}
	if len(kept) != 5 {
		t.Errorf("%d attempts received something, want 5", len(kept))
	}
}

// TestNotResumed is what does not go on: small files, files without an id, other
// clients' transfers, and what was dropped.
func TestNotResumed(t *testing.T) {
	h := start(t, t.TempDir(), server.Limits{})
	content := string(random(2 * mib))
	var kept []int64
	for what, f := range map[string]func() *transfer{
		"small": func() *transfer { return resumed("f", content[:mib-1], 1, 1000, &kept) },
		"no id": func() *transfer { return resumed("f", content, 0, mib, &kept) },
		"given up": func() *transfer {
			f := resumed("f", content, 3, mib, &kept)
			cut := f.receive
			f.receive = func(ctx context.Context, dst proto.Sink) error {
				_ = cut(ctx, dst)
				return proto.ErrChecksum
			}
			return f
		},
	} {
		kept = nil
		for range 2 {
			if got := h.client("alice").offer(f()); got.accepted {
				t.Errorf("%s: %+v", what, got)
			}
		}
		if len(kept) != 2 || kept[1] != 0 {
			t.Errorf("%s: it began at %v", what, kept)
		}
	}
	kept = nil
	for _, client := range []string{"alice", "bob"} {
		h.client(client).offer(resumed("f", content, 4, mib, &kept))
	}
	if len(kept) != 2 || kept[1] != 0 {
		t.Errorf("another client's: it began at %v", kept)
	}
}

// TestTakenOver: the client comes again before the server has noticed that it was
// cut off. Nothing that was kept is lost.
func TestTakenOver(t *testing.T) {
	inBubble(t, server.Limits{}, func(t *testing.T, h *harness) {
		content := string(random(2 * mib))
		var kept []int64
		hung := resumed("f", content, 1, mib, &kept)
		cut := hung.receive
		hung.receive = func(ctx context.Context, dst proto.Sink) error {
			_ = cut(ctx, dst)
			<-ctx.Done()
			return context.Cause(ctx)
		}
		old := h.client("alice")
		old.offers <- hung
		synctest.Wait()
		before := time.Now()
		fresh := h.client("alice")
		if got := fresh.offer(resumed("f", content, 1, mib, &kept)); !got.accepted {
			t.Errorf("got %+v", got)
		}
		if took := time.Since(before); took > time.Second {
			t.Errorf("it took %v", took)
		}
		if got := <-hung.outcome; !errors.Is(got.err, proto.ErrBusy) {
			t.Errorf("the older connection's: %+v", got)
		}
		await(t, old.gone, "the end of the older connection")
		if len(kept) != 2 || kept[1] != mib {
			t.Errorf("the attempts began at %v", kept)
		}
	})
}

// TestNotTakenOver: what still comes is not ended for another one.
func TestNotTakenOver(t *testing.T) {
	inBubble(t, server.Limits{}, func(t *testing.T, h *harness) {
		content := strings.Repeat("x", 20*mib)
		slow := large("f", 20*mib, func(_ context.Context, dst proto.Sink) error {
			for range 20 {
				if _, err := io.WriteString(dst, content[:mib]); err != nil {
					return err
				}
				time.Sleep(time.Second / 2)
			}
			return nil
		})
		slow.content = content
		h.client("alice").offers <- slow
		synctest.Wait()
		got := h.client("alice").offer(large("f", 20*mib, nil))
		if after, ok := proto.RetryAfter(got.err); !errors.Is(got.err, proto.ErrBusy) || !ok || after <= 0 {
			t.Errorf("the second one: %+v", got)
		}
		if got := <-slow.outcome; !got.accepted {
			t.Errorf("the first one: %+v", got)
		}
	})
}

// TestNotHandedOver: a session that does not let go of its transfer holds the next
// one up for a bounded time, and is not in its way for ever.
func TestNotHandedOver(t *testing.T) {
	inBubble(t, server.Limits{}, func(t *testing.T, h *harness) {
		leave := make(chan struct{})
		stuck := large("f", mib, func(context.Context, proto.Sink) error {
			<-leave
			return errCut
		})
		h.client("alice").offers <- stuck
		synctest.Wait()
		got := h.client("alice").offer(large("f", mib, nil))
		if after, ok := proto.RetryAfter(got.err); !errors.Is(got.err, proto.ErrBusy) || !ok || after <= 0 {
			t.Errorf("got %+v", got)
		}
		close(leave)
		<-stuck.outcome
		var kept []int64
		f := resumed("f", strings.Repeat("x", mib), 1, mib, &kept)
		f.offer.ID = stuck.offer.ID
		h.client("alice").send(f)
	})
}

// TestUnfinishedExpire leaves transfers, and looks when they are gone.
func TestUnfinishedExpire(t *testing.T) {
	data := t.TempDir()
	content := string(random(2 * mib))
	limits := server.Limits{KeepUnfinished: time.Hour, StagedPerClient: 3 * mib}
	var kept []int64
	h := start(t, data, limits)
	h.client("alice").offer(resumed("f", content, 1, mib, &kept))
	h.stop()
	if h = start(t, data, limits); h.staged() < mib {
		t.Errorf("%d bytes are left in staging after a restart", h.staged())
	}
	// What was left counts.
	full := large("g", 3*mib, nil)
	full.offer.ID = proto.TransferID{9}
	if got := h.client("alice").offer(full); !errors.Is(got.err, proto.ErrQuota) {
		t.Errorf("beside what was left: %+v", got)
	}
	h.stop()
	ago := time.Now().Add(-2 * time.Hour)
	sidecars, err := filepath.Glob(filepath.Join(data, "staging", "*.state"))
	if err != nil || len(sidecars) != 1 {
		t.Fatalf("%q, %v", sidecars, err)
	}
	if err := os.Chtimes(sidecars[0], ago, ago); err != nil {
		t.Fatal(err)
	}
	if h = start(t, data, limits); h.staged() != 0 || len(h.log.lines("unfinished transfers dropped", "transfers=1")) != 1 {
		t.Errorf("%d bytes are left, and the log says %s", h.staged(), h.log)
	}
	kept = nil
	h.client("alice").offer(resumed("f", content, 1, mib, &kept))
	if len(kept) != 1 || kept[0] != 0 {
		t.Errorf("it began at %v", kept)
	}
}

// TestRevokedWhileItExpires: to take away what was left of many transfers may take
// long, and a client that is revoked meanwhile is cut as soon as at any time.
func TestRevokedWhileItExpires(t *testing.T) {
	inBubble(t, server.Limits{KeepUnfinished: time.Minute}, func(t *testing.T, h *harness) {
		var kept []int64
		h.client("alice").offer(resumed("f", strings.Repeat("x", 2*mib), 1, mib, &kept))
		expiring, leave := make(chan struct{}), make(chan struct{})
		defer close(leave)
		hold := func(message string) {
			if message == "unfinished transfers dropped: nobody went on with them" {
				close(expiring)
				<-leave
			}
		}
		h.overhear.Store(&hold)
		sidecars, err := filepath.Glob(filepath.Join(h.data, "staging", "*.state"))
		if err != nil || len(sidecars) != 1 {
			t.Fatalf("%q, %v", sidecars, err)
		}
		if err := os.Chtimes(sidecars[0], time.Unix(0, 0), time.Unix(0, 0)); err != nil { // the bubble's time is long ago
			t.Fatal(err)
		}
		<-expiring
		p := h.client("alice")
		if err := server.RevokeClient(t.Context(), h.data, "alice"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if !is(p.gone) || !errors.Is(p.ended, proto.ErrRevoked) {
			t.Error("the client is not cut within 2 seconds")
		}
	})
}

// TestExpireWhileItRuns: the server looks by itself once an hour, and what goes
// does not count any more.
func TestExpireWhileItRuns(t *testing.T) {
	limits := server.Limits{KeepUnfinished: time.Minute, StagedPerClient: 3 * mib, Unfinished: 1, Idle: 1000 * time.Hour}
	h := openOn(t, t.TempDir(), limits)
	h.serve()
	var kept []int64
	h.client("alice").offer(resumed("f", strings.Repeat("x", 2*mib), 1, mib, &kept))
	p := h.client("alice")
	other := func() *transfer { return resumed("g", strings.Repeat("x", 2*mib), 2, 2*mib, &kept) }
	if got := p.offer(other()); !errors.Is(got.err, proto.ErrQuota) {
		t.Errorf("a second one: %+v", got)
	}
	sidecars, err := filepath.Glob(filepath.Join(h.data, "staging", "*.state"))
	if err != nil || len(sidecars) != 1 {
		t.Fatalf("%q, %v", sidecars, err)
	}
	ago := time.Now().Add(-2 * time.Hour)
	for deadline := time.Now().Add(time.Minute); len(h.log.lines("unfinished transfers dropped")) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it is not dropped")
		}
		// The session that it came over may have it open for a moment.
		if err := os.Chtimes(sidecars[0], ago, ago); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if err := server.Expire(h.Server); err != nil {
			t.Fatal(err)
		}
	}
	p.send(other())
}

// TestHoarders: clients that offer and send nothing, or stage to their limit, are
// refused, and hold nothing against others.
func TestHoarders(t *testing.T) {
	limits := server.Limits{StagedPerClient: 4 * mib, Staged: 10 * mib, Unfinished: 20}
	h := start(t, t.TempDir(), limits)
	content := strings.Repeat("x", 2*mib)
	t.Run("offers", func(t *testing.T) {
		var kept []int64
		refused, p := 0, h.client("mallory")
		for i := range 300 {
			if is(p.gone) {
				p = h.client("mallory")
			}
			f := resumed(fmt.Sprint(i), content, 1, 1000, &kept)
			f.offer.ID = proto.TransferID{1, byte(i), byte(i >> 8)}
			if i%2 == 0 { // or sends nothing at all
				f.receive = func(context.Context, proto.Sink) error { return errCut }
			}
			got := p.offer(f)
			if errors.Is(got.err, errCut) {
				await(t, p.gone, "the end of the connection")
			}
			if after, ok := proto.RetryAfter(got.err); errors.Is(got.err, proto.ErrQuota) && ok && after > 0 {
				refused++
			} else if !errors.Is(got.err, errCut) {
				t.Errorf("%d: %v", i, got.err)
			}
		}
		if refused < 200 || len(kept) != 20 {
			t.Errorf("%d were refused, %d were taken", refused, len(kept))
		}
	})
	t.Run("stages", func(t *testing.T) {
		var kept []int64
		for i := range 5 {
			got := h.client("oscar").offer(resumed(fmt.Sprint(i), content, byte(i+1), mib+mib/2, &kept))
			if want := i < 2; want != errors.Is(got.err, errCut) || want == errors.Is(got.err, proto.ErrQuota) {
				t.Errorf("%d: %v", i, got.err)
			}
		}
		// More than was said.
		lie := claiming(1, file("lie", strings.Repeat("x", 2*mib)))
		p := h.client("oscar")
		if got := p.offer(lie); !errors.Is(got.err, proto.ErrQuota) {
			t.Errorf("a lie: %v", got.err)
		}
		// What goes on needs only what is missing.
		if got := p.offer(resumed("1", content, 2, 2*mib, &kept)); !got.accepted {
			t.Errorf("what was left goes on: %v", got.err)
		}
	})
	honest := h.client("alice")
	honest.send(file("small", "x"), file("large", strings.Repeat("x", 4*mib)))
	// And when all together hold as much as there may be, it is not for ever.
	var kept []int64
	for _, client := range []string{"bob", "carol"} {
		h.client(client).offer(resumed("f", strings.Repeat("x", 4*mib-1000), 1, 4*mib-2000, &kept))
	}
	got := honest.offer(file("too much", strings.Repeat("x", 4*mib)))
	if after, ok := proto.RetryAfter(got.err); !errors.Is(got.err, proto.ErrBusy) || !ok || after <= 0 {
		t.Errorf("got %+v", got)
	}
}

// TestLastingKeep: now and then what is kept is made durable.
func TestLastingKeep(t *testing.T) {
	inBubble(t, server.Limits{}, func(t *testing.T, h *harness) {
		sizes := map[string]int64{}
		sidecar := func() int64 {
			all, err := filepath.Glob(filepath.Join(h.data, "staging", "*.state"))
			if err != nil || len(all) != 1 {
				t.Fatalf("%q, %v", all, err)
			}
			info, err := os.Stat(all[0])
			if err != nil {
				t.Fatal(err)
			}
			return info.Size()
		}
		f := large("f", 10*mib, func(_ context.Context, dst proto.Sink) error {
			for _, at := range []string{"at once", "after 29 s", "after 31 s"} {
				if _, err := io.WriteString(dst, "x"); err != nil {
					return err
				}
				if err := dst.Keep([]byte("state")); err != nil {
					return err
				}
				sizes[at] = sidecar()
				if time.Sleep(29 * time.Second); at != "at once" {
					time.Sleep(2 * time.Second)
				}
			}
			return errCut
		})
		h.client("alice").offers <- f
		<-f.outcome
		if sizes["after 29 s"] != sizes["at once"] || sizes["after 31 s"] <= sizes["at once"] {
			t.Errorf("sidecars of %v", sizes)
		}
	})
}
