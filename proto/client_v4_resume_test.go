package proto_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ferry/proto"
	"ferry/proto/v4"
)

// plain hides that a reader can seek.
type plain struct{ io.Reader }

func (plain) Close() error { return nil }

// oneAtATime has a transfer wait until the connection before has let go of what
// it left, as a server does.
func oneAtATime(h *hostV4) {
	var mu sync.Mutex
	h.take = func(ctx context.Context, t proto.Transfer) error {
		mu.Lock()
		defer mu.Unlock()
		return h.store(ctx, t)
	}
}

// Cut anywhere, a transfer goes on where the server has it: what is sent more
// than once is no more than a window for each cut.
func TestV4Resume(t *testing.T) {
	const size = 24 << 20
	b := content(size)
	for _, known := range []bool{true, false} {
		seek := !known
		t.Run(fmt.Sprintf("known=%v/seek=%v", known, seek), func(t *testing.T) {
			h := newHostV4(alice(t))
			oneAtATime(h)
			r := &relayV4{to: h.listen(t), cut: func(n int) (int64, int64) {
				if n <= 3 {
					return rand.Int64N(size/2) + 1, -1
				}
				return -1, -1
			}}
			c := clientV4(t, r.listen(t))
			o, src := offered(t, "large", b, known)
			if !seek {
				seekable := src
				src = func() (io.ReadCloser, error) { r, err := seekable(); return plain{r}, err }
			}
			var receipt proto.Receipt
			var err error
			attempts := 0
			for {
				attempts++
				if receipt, err = c.Send(t.Context(), o, src, proto.Watcher{}); err == nil {
					break
				}
				if proto.Permanent(err) || errors.Is(err, proto.ErrProtocol) || attempts > 20 {
					t.Fatalf("attempt %d: %v", attempts, err)
				}
			}
			checkReceipt(t, receipt, o, b, 1)
			if !bytes.Equal(h.content("large"), b) {
				t.Error("it has not arrived as it was")
			}
			const window, overhead = 16 << 20, 1 << 20
			if most := int64(size + 3*window + overhead); r.up.Load() > most {
				t.Errorf("%d bytes were sent of a file of %d, cut 3 times", r.up.Load(), size)
			}
			if attempts < 2 {
				t.Error("it was never cut")
			}
		})
	}
}

// What the server keeps is not sent again, nor hashed again by a client that has
// hashed it, and hashed before it is asked to wait by one that has not.
func TestV4ResumesExactly(t *testing.T) {
	const size, kept = 5 << 20, 4 << 20
	b := content(size)
	for _, test := range []struct {
		name  string
		known bool
		fresh bool // another client goes on
		begun func(state []byte) []byte
		read  int64
		sends int
	}{
		{"known", true, false, nil, size - kept, 1},
		{"unknown", false, false, nil, size - kept, 1},
		{"known, another client", true, true, nil, size - kept, 1},
		{"unknown, another client", false, true, nil, size, 1},
		{"unknown, another client that has the sum so far", false, true, func(state []byte) []byte { return state }, size - kept, 1},
		{"a sum so far that is none", false, true, func([]byte) []byte { return []byte("nonsense") }, size, 1},
		{"a sum of more than there is", false, true, func([]byte) []byte { return stateOf(t, content(size+1)) }, size, 1},
		{"a sum of something else", false, true, func([]byte) []byte { return stateOf(t, make([]byte, kept)) }, size - kept + size, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHostV4(alice(t))
			left := make(chan struct{}, 2)
			h.take = func(ctx context.Context, t proto.Transfer) error {
				defer func() { left <- struct{}{} }()
				return h.store(ctx, t)
			}
			address := h.listen(t)
			first := clientV4(t, address)
			o, src := offered(t, "large", b, test.known)
			stopped := errors.New("stopped")
			ctx, cancel := context.WithCancelCause(t.Context())
			there := make(chan struct{}) // closed when the server has said that it keeps so much
			var state []byte
			_, err := first.Send(ctx, o, func() (io.ReadCloser, error) {
				in, err := src()
				return &stopAt{ReadCloser: in, left: kept + 100_000, then: func() { <-there; cancel(stopped) }, ended: ctx.Done()}, err
			}, proto.Watcher{Progress: func(p proto.Progress) {
				if p.Bytes == kept {
					close(there)
				}
			}, Summed: func(s []byte) { state = s }})
			if !errors.Is(err, stopped) {
				t.Fatalf("%v, want %v", err, stopped)
			}
			<-left // what came is kept by now
			second := first
			if test.fresh {
				second = clientV4(t, address)
			}
			var read atomic.Int64
			var at []int64
			var last proto.Progress
			watch := proto.Watcher{Progress: func(p proto.Progress) { at, last = append(at, p.Bytes), p }}
			distrusted := false
			watch.Summed = func(s []byte) { distrusted = distrusted || s == nil }
			if test.begun != nil {
				watch.Begun = test.begun(state)
			}
			r, err := second.Send(t.Context(), o, func() (io.ReadCloser, error) {
				in, err := src()
				return counted{in.(seekable), &read}, err
			}, watch)
			if err != nil {
				t.Fatal(err)
			}
			checkReceipt(t, r, o, b, test.sends)
			if distrusted != (test.sends > 1) {
				t.Errorf("the sum so far was taken back: %v", distrusted)
			}
			if got := read.Load(); got > test.read || got < test.read-1<<20 {
				t.Errorf("%d bytes were read, want %d at most and about", got, test.read)
			}
			if !bytes.Equal(h.content("large"), b) {
				t.Error("it has not arrived as it was")
			}
			if !slicesContainAtLeast(at, kept) {
				t.Errorf("progress %v", at)
			}
			if want := int64(kept) * int64(2-test.sends); last.From != want || last.Bytes != size {
				t.Errorf("progress %+v, want it from %d on", last, want)
			}
		})
	}
}

// stateOf is the state of the sum of b.
func stateOf(t *testing.T, b []byte) []byte {
	s := proto.NewSummer()
	_, _ = s.Write(b)
	state, err := s.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// slicesContainAtLeast wants the first value above 0 to be at least that.
func slicesContainAtLeast(s []int64, least int64) bool {
	for _, n := range s {
		if n > 0 {
			return n >= least
		}
	}
	return false
}

// stopAt calls then once so much has been read, and ends when ended is closed.
type stopAt struct {
	io.ReadCloser
	left  int64
	then  func()
	ended <-chan struct{}
}

func (s *stopAt) Read(p []byte) (int, error) {
	if s.left == 0 {
		s.then()
		<-s.ended
		return 0, io.ErrClosedPipe
	}
	n, err := s.ReadCloser.Read(p[:min(int64(len(p)), s.left)])
	s.left -= int64(n)
	return n, err
}

type counted struct {
	seekable
	n *atomic.Int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.seekable.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// Whatever is lost, each file is stored once, and each sender hears of it.
func TestV4ManySmallCut(t *testing.T) {
	const files, senders = 2000, 64
	h := newHostV4(alice(t))
	var mu sync.Mutex
	times := map[string]int{}
	h.take = func(ctx context.Context, t proto.Transfer) error {
		name := t.Offer().Name.String()
		if as, ok := h.stored(name); ok {
			return t.Exists(ctx, as)
		}
		dst := &stageV4{}
		sum, err := t.Receive(ctx, dst)
		if err != nil {
			return err
		}
		mu.Lock()
		times[name]++
		mu.Unlock()
		return t.Accept(ctx, h.publish(t.Offer(), dst, sum))
	}
	r := &relayV4{to: h.listen(t), cut: func(n int) (int64, int64) {
		switch {
		case n > 60:
			return -1, -1
		case n%3 == 0:
			return 3_000 + rand.Int64N(200_000), -1
		}
		return -1, 2_600 + rand.Int64N(60_000) // some within the handshake
	}}
	c := clientV4(t, r.listen(t))
	work := make(chan int, files)
	for i := range files {
		work <- i
	}
	close(work)
	var all sync.WaitGroup
	var failures atomic.Int64
	for range senders {
		all.Go(func() {
			for i := range work {
				b := content(int64(i * 3))
				o, src := offered(t, fmt.Sprintf("file/%d", i), b, i%2 == 0)
				for attempt := 1; ; attempt++ {
					got, err := c.Send(t.Context(), o, src, proto.Watcher{})
					if err == nil {
						checkReceipt(t, got, o, b, 1)
						break
					}
					failures.Add(1)
					if proto.Permanent(err) || errors.Is(err, proto.ErrProtocol) || errors.Is(err, proto.ErrRefused) || attempt > 200 {
						t.Errorf("file %d: %v", i, err)
						return
					}
				}
			}
		})
	}
	all.Wait()
	for i := range files {
		name := fmt.Sprintf("file/%d", i)
		if times[name] != 1 || !bytes.Equal(h.content(name), content(int64(i*3))) {
			t.Errorf("%s was stored %d times", name, times[name])
		}
	}
	t.Logf("%d connections, %d failures", r.made.Load(), failures.Load())
	if r.made.Load() < 10 || failures.Load() == 0 {
		t.Errorf("%d connections, %d failures: the test cut nothing", r.made.Load(), failures.Load())
	}
}

// A client that has much to read before it can go on does not keep the server
// waiting meanwhile.
func TestV4ReadsAheadAlone(t *testing.T) {
	const size, kept = 6 << 20, 5 << 20
	b := content(size)
	address, connections := scriptedV4(t, func(p *peerV4) {
		if !p.enter() {
			return
		}
		number, o, ok := p.offered()
		if !ok {
			return
		}
		p.say(v4.CodeGo, number, v4.Offset{Bytes: kept}.Append(nil))
		m, n, ok := p.skipTo()
		if !ok {
			return
		}
		if m.Code != v4.CodeEnd || n != size-kept {
			t.Errorf("%v after %d bytes", m.Code, n)
		}
		p.stored([]proto.Stored{{Name: fileName(t, o.Name), Sum: sumOf(b), Transfer: o.Transfer, At: time.Now()}}, number)
		p.read()
	})
	for _, seek := range []bool{true, false} {
		connections.Store(0)
		c := clientV4(t, address, func(cfg *proto.ClientConfig) { cfg.IdleConns = -1 })
		proto.ReadAtOnce(c, 1<<20)
		o, src := offered(t, "a", b, false)
		opened := 0
		var read atomic.Int64
		r, err := c.Send(t.Context(), o, func() (io.ReadCloser, error) {
			opened++
			in, err := src()
			if seek {
				return counted{in.(seekable), &read}, err
			}
			return plain{counted{in.(seekable), &read}}, err
		}, proto.Watcher{})
		if err != nil {
			t.Fatal(err)
		}
		checkReceipt(t, r, o, b, 1)
		if connections.Load() != 2 || opened != 1 || read.Load() != size {
			t.Errorf("seek=%v: %d connections, opened %d times, read %d bytes", seek, connections.Load(), opened, read.Load())
		}
	}
}
