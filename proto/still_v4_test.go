package proto_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ferry/proto"
	"ferry/proto/v4"
)

// A slowSink takes its time where it has something to do there.
type slowSink struct {
	*stageV4
	writes, keeps, resets func()
	from                  int64 // keeps is for what is kept from there on
}

func (s *slowSink) Write(p []byte) (int, error) {
	once(&s.writes)
	return s.stageV4.Write(p)
}

func (s *slowSink) Keep(state []byte) error {
	if int64(len(s.b)) >= s.from {
		once(&s.keeps)
	}
	return s.stageV4.Keep(state)
}

func (s *slowSink) Reset() error {
	once(&s.resets)
	return s.stageV4.Reset()
}

// once calls what is there to be called, and not again.
func once(f *func()) {
	do := *f
	if *f = nil; do != nil {
		do()
	}
}

// A stillSaid is a 1604 that came so long after something.
type stillSaid struct {
	number uint64
	kept   int64
	after  time.Duration
}

// still reads the 1604 that come until another message, which it returns.
func (r *rawV4) still(since time.Time) ([]stillSaid, messageV4) {
	r.t.Helper()
	var said []stillSaid
	for {
		m := r.read()
		if m.Code != v4.CodeThanks {
			return said, m
		}
		said = append(said, stillSaid{m.Number, must(v4.ParseOffset(m.Payload)).Bytes, time.Since(since)})
	}
}

const (
	stillEvery = 10 * time.Second
	// longWork is longer than anybody is waited for who says nothing.
	longWork = 35 * time.Second
)

// every is what is said while a file is worked on for longWork.
func every(number uint64, kept int64) []stillSaid {
	return []stillSaid{{number, kept, stillEvery}, {number, kept, 2 * stillEvery}, {number, kept, 3 * stillEvery}}
}

// TestSessionV4Still is a server that is long at work, in each place: it says so
// and says nothing where it is not.
func TestSessionV4Still(t *testing.T) {
	quickV4()
	keyV4()
	work := func() { time.Sleep(longWork) }
	for what, test := range map[string]struct {
		size   int64
		kept   int64 // of an earlier connection
		before func()
		sink   slowSink
		after  func()
		code   v4.Code // that comes behind it
		want   []stillSaid
	}{
		"before a file is wanted": {size: 20_000, before: work, code: v4.CodeGo, want: every(1, 0)},
		"writing it":              {size: 20_000, sink: slowSink{writes: work}, code: v4.CodeStored, want: every(1, 0)},
		"keeping it": {size: 5 << 20, sink: slowSink{keeps: work}, code: v4.CodeStored,
			want: append(every(1, 0), stillSaid{1, 4 << 20, longWork})},
		"keeping more of it": {size: 9 << 20, sink: slowSink{keeps: work, from: 8 << 20}, code: v4.CodeStored,
			want: append(append([]stillSaid{{1, 4 << 20, 0}}, every(1, 4<<20)...), stillSaid{1, 8 << 20, longWork})},
		"storing it": {size: 5 << 20, after: work, code: v4.CodeStored,
			want: append([]stillSaid{{1, 4 << 20, 0}}, every(1, 4<<20)...)},
		"storing what went on": {size: 20_000, kept: 5000, after: work, code: v4.CodeStored, want: every(1, 5000)},
		"dropping it":          {size: 20_000, sink: slowSink{resets: work}, code: v4.CodeDiffers, want: every(1, 0)},
	} {
		t.Run(what, func(t *testing.T) {
			c := content(test.size)
			synctest.Test(t, func(t *testing.T) {
				h := newHostV4(alice(t))
				h.id = quickV4
				h.cfg.MinRate = -1
				h.take = func(ctx context.Context, tr proto.Transfer) error {
					once(&test.before)
					dst := test.sink
					dst.stageV4 = h.stage(tr.Offer().ID)
					sum, err := tr.Receive(ctx, &dst)
					if err != nil {
						return err
					}
					once(&test.after)
					return tr.Accept(ctx, h.publish(tr.Offer(), dst.stageV4, sum))
				}
				if test.kept > 0 {
					sum := proto.NewSummer()
					_, _ = sum.Write(c[:test.kept])
					h.stages[proto.TransferID{1}] = &stageV4{b: c[:test.kept:test.kept], kept: test.kept, state: must(sum.MarshalBinary())}
				}
				r := h.raw(t).enter()
				time.Sleep(25 * time.Second) // it owes nothing
				start := time.Now()
				r.say(v4.CodeOffer, 1, offerV4("f", c, 1).Append(nil))
				said, m := r.still(start)
				if test.code != v4.CodeGo {
					if len(said) > 0 || m.Code != v4.CodeGo {
						t.Fatalf("said %v, and %v", said, m.Code)
					}
					time.Sleep(25 * time.Second) // it waits for the client
					start = time.Now()
					end := r.end
					if test.code == v4.CodeDiffers {
						end = func(n uint64, c []byte) []byte { return r.end(n, c[1:]) }
					}
					b := slices.Concat(r.packets(c, test.kept, 64<<10), end(1, c))
					go func() { _, _ = r.tls.Write(b) }()
					said, m = r.still(start)
				}
				if m.Code != test.code || !slices.Equal(said, test.want) {
					t.Errorf("said %v, and then %v; want %v and %v", said, m.Code, test.want, test.code)
				}
				time.Sleep(25 * time.Second) // it owes nothing
				if test.code == v4.CodeDiffers {
					r.say(v4.CodeGiveUp, 1, nil)
				}
				if test.code == v4.CodeGo {
					r.write(r.packets(c, 0, 64<<10), r.end(1, c))
					r.expectStored(1)
				}
				r.bye()
				h.conns.Wait()
			})
		})
	}
}

// TestSessionV4StillSmall has several files in one message on their way, which
// are answered one by one: what is said is of one that is not.
func TestSessionV4StillSmall(t *testing.T) {
	quickV4()
	keyV4()
	synctest.Test(t, func(t *testing.T) {
		h := newHostV4(alice(t))
		h.id = quickV4
		h.settle = h.acceptAfter(t, func(tr proto.Transfer) { time.Sleep(time.Duration(tr.Offer().ID[1]) * 25 * time.Second) }).Wait
		r := h.raw(t).enter()
		start := time.Now()
		r.write(r.small(1, "a", nil), r.small(2, "b", nil), r.small(3, "c", nil))
		for n := uint64(1); n <= 3; n++ {
			said, m := r.still(start)
			stored := must(v4.ParseStored(m.Payload))
			if m.Code != v4.CodeStored || !slices.Equal(stored.Numbers, []uint64{n}) {
				t.Fatalf("%v of %v, want %v of %d", m.Code, stored.Numbers, v4.CodeStored, n)
			}
			if want := []stillSaid{{n, 0, stillEvery}, {n, 0, 2 * stillEvery}}; !slices.Equal(said, want) {
				t.Errorf("before %d: said %v, want %v", n, said, want)
			}
			start = time.Now()
		}
		time.Sleep(25 * time.Second)
		r.bye()
		if errs := h.errors(); len(errs) > 0 {
			t.Errorf("got errors %v", errs)
		}
	})
}

// TestSessionV4StillAtItsEnd: a session that is to end says that it is at work
// until the last answer, and nothing behind the reason of its end.
func TestSessionV4StillAtItsEnd(t *testing.T) {
	quickV4()
	keyV4()
	synctest.Test(t, func(t *testing.T) {
		h := newHostV4(alice(t))
		h.id = quickV4
		ctx, end := context.WithCancelCause(context.Background())
		h.ctx = ctx
		h.settle = h.acceptAfter(t, func(proto.Transfer) { time.Sleep(longWork) }).Wait
		r := h.raw(t).enter()
		start := time.Now()
		r.write(r.small(1, "a", nil))
		time.AfterFunc(5*time.Second, func() { end(proto.ErrStopping) })
		said, m := r.still(start)
		if want := every(1, 0); m.Code != v4.CodeStored || !slices.Equal(said, want) {
			t.Errorf("said %v, and then %v; want %v", said, m.Code, want)
		}
		r.expectRefused(0, v4.ReasonStopping)
		r.expectEnd()
		h.conns.Wait()
	})
}

// TestSessionV4StillUnheard is a client that reads nothing: the session ends as
// if it had not heard an answer.
func TestSessionV4StillUnheard(t *testing.T) {
	quickV4()
	keyV4()
	synctest.Test(t, func(t *testing.T) {
		h := newHostV4(alice(t))
		h.id = quickV4
		ended := make(chan struct{})
		answering := h.acceptAfter(t, func(proto.Transfer) { <-ended })
		h.settle = func() { close(ended); answering.Wait() }
		r := h.raw(t).enter()
		start := time.Now()
		r.write(r.small(1, "a", nil))
		h.conns.Wait()
		// The first word waits to be read for as long as any.
		if took := time.Since(start); took < 40*time.Second || took > 45*time.Second {
			t.Errorf("it ended after %v", took)
		}
		if errs := h.errors(); len(errs) != 1 || !errors.Is(errs[0], os.ErrDeadlineExceeded) {
			t.Errorf("got errors %v", errs)
		}
		if len(h.closing) != 1 || !errors.Is(h.closing[0], os.ErrDeadlineExceeded) {
			t.Errorf("Close returned %v, want %v", h.closing, os.ErrDeadlineExceeded)
		}
	})
}

// piped is a client of a server that is a script at the other end of a pipe.
func piped(t testing.TB, script func(p *peerV4)) (c *proto.Client, served *sync.WaitGroup) {
	t.Helper()
	served = new(sync.WaitGroup)
	return clientV4(t, "127.0.0.1:1", func(cfg *proto.ClientConfig) {
		cfg.Dial = func(context.Context, string, string) (net.Conn, error) {
			near, far := net.Pipe()
			served.Go(func() {
				defer far.Close()
				p := &peerV4{t: t, conn: far, tls: tls.Server(far, serverConfigV4())}
				if p.tls.Handshake() == nil && p.enter() {
					script(p)
				}
			})
			return near, nil
		}
	}), served
}

// TestV4StillPatience is how long a server is waited for that is at work, in each
// place: for ever so long while it says so, but not for ever, and no longer than
// any other once it says nothing.
func TestV4StillPatience(t *testing.T) {
	serverV4()
	keyV4()
	const size = 3 << 20
	packets := func(p *peerV4, n int) bool {
		for n > 0 {
			m, ok := p.read()
			if !ok {
				p.t.Error("the client has gone")
				return false
			}
			n -= len(m.Payload)
		}
		return true
	}
	for place, test := range map[string]struct {
		size int64
		// reach makes the file stand where the server is at work, and answer is
		// what it says when it is done.
		reach  func(p *peerV4, n uint64)
		answer func(p *peerV4, n uint64, o v4.Offer)
	}{
		"small": {size: smallSize},
		"offer": {size: largeSize},
		"packets": {
			size: size,
			reach: func(p *peerV4, n uint64) {
				p.say(v4.CodeGo, n, v4.Offset{}.Append(nil))
				packets(p, 1<<20) // the window
			},
			answer: func(p *peerV4, n uint64, _ v4.Offer) {
				p.say(v4.CodeThanks, n, v4.Offset{Bytes: 1 << 20}.Append(nil))
				for kept := int64(1 << 20); kept < size; kept += 512 << 10 {
					if !packets(p, 512<<10) {
						return
					}
					p.say(v4.CodeThanks, n, v4.Offset{Bytes: kept + 512<<10}.Append(nil))
				}
				p.read()
			},
		},
		"packets that are not taken": { // so few that nobody waits for a lock, of which synctest knows nothing
			size: 200 << 10,
			reach: func(p *peerV4, n uint64) {
				p.say(v4.CodeGo, n, v4.Offset{}.Append(nil))
				p.read()
			},
			answer: func(p *peerV4, _ uint64, _ v4.Offer) { p.skipTo() },
		},
		"end": {
			size: largeSize,
			reach: func(p *peerV4, n uint64) {
				p.say(v4.CodeGo, n, v4.Offset{}.Append(nil))
				p.skipTo()
			},
		},
	} {
		for end, times := range map[string]int{"answers": 30, "goes on": 1 << 30, "falls silent": 2, "silent": 0} {
			t.Run(place+" "+end, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var start time.Time
					c, served := piped(t, func(p *peerV4) {
						n, o, ok := p.offered()
						if !ok {
							t.Error("no file")
							return
						}
						if test.reach != nil {
							test.reach(p, n)
						}
						start = time.Now()
						gone := make(chan struct{})
						go func() {
							defer close(gone)
							if end == "answers" {
								return
							}
							if place == "packets that are not taken" {
								time.Sleep(15 * time.Minute)
							}
							p.read()
						}()
						for range times {
							time.Sleep(19 * time.Second)
							select {
							case <-gone:
								if end != "answers" {
									return
								}
							default:
							}
							p.say(v4.CodeThanks, n, v4.Offset{}.Append(nil))
						}
						if end != "answers" {
							<-gone
							return
						}
						if test.answer != nil {
							test.answer(p, n, o)
						}
						p.stored([]proto.Stored{{Name: fileName(t, o.Name), Sum: sumOf(content(test.size)), Transfer: o.Transfer, At: time.Now()}}, n)
						p.read()
					})
					err := sendV4(t, c, "a", test.size)
					ended := time.Now()
					_ = c.Close()
					served.Wait()
					took := ended.Sub(start)
					want := map[string]time.Duration{
						"answers": 30 * 19 * time.Second, "goes on": 10 * time.Minute, "falls silent": (2*19 + 30) * time.Second, "silent": 30 * time.Second,
					}[end]
					if took < want || took > want+2*time.Second { // and last words
						t.Errorf("it took %v, want %v: %v", took, want, err)
					}
					if end == "answers" {
						if err != nil {
							t.Error(err)
						}
						return
					}
					if !errors.Is(err, os.ErrDeadlineExceeded) || proto.Permanent(err) || proto.NotStored(err) {
						t.Errorf("got %v, want %v", err, os.ErrDeadlineExceeded)
					}
					if says := strings.Contains(err.Error(), "still at work"); says != (end == "goes on") {
						t.Errorf("got %v", err)
					}
				})
			})
		}
	}
}

// TestV4StillNothingSent: a server is at work on nothing of a file of which
// nothing has been sent to it.
func TestV4StillNothingSent(t *testing.T) {
	gone := make(chan struct{})
	address, _ := scriptedV4(t, func(p *peerV4) {
		defer close(gone)
		if !p.enter() {
			return
		}
		n, _, ok := p.offered()
		if !ok {
			return
		}
		p.say(v4.CodeGo, n, v4.Offset{}.Append(nil))
		p.say(v4.CodeThanks, n, v4.Offset{}.Append(nil))
		p.read()
	})
	o, _ := offered(t, "a", content(largeSize), true)
	_, err := clientV4(t, address).Send(t.Context(), o, func() (io.ReadCloser, error) { return waitingSource{gone}, nil }, proto.Watcher{})
	if !errors.Is(err, proto.ErrProtocol) {
		t.Errorf("got %v, want %v", err, proto.ErrProtocol)
	}
}

// A waitingSource has no bytes until the channel is closed.
type waitingSource struct{ until chan struct{} }

func (s waitingSource) Read(p []byte) (int, error) {
	<-s.until
	return copy(p, content(int64(len(p)))), nil
}

func (waitingSource) Close() error { return nil }

// TestV4StillAtWork sends through real sockets to a server that is at work for
// longer than either of the two waits for the other: each file is sent once. A run
// in which the machine stood still says nothing, and is done again.
func TestV4StillAtWork(t *testing.T) {
	for what, test := range map[string]workV4{
		"small":         {size: smallSize, files: 1},
		"several small": {size: smallSize, files: 20},
		"large":         {size: largeSize, files: 1},
		"several large": {size: largeSize, files: 4},
		"kept":          {size: 30 << 20, files: 1, sink: true},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			b := content(test.size)
			for run := 1; ; run++ {
				stood := standstill()
				errs := test.run(t, b)
				longest := stood()
				if len(errs) > 0 && longest > workIdle/6 && run < 20 {
					continue
				}
				for _, err := range errs {
					t.Error(err)
				}
				return
			}
		})
	}
}

const workIdle, workTakes = 1500 * time.Millisecond, 4 * time.Second

// A workV4 is files of that size, and a server that takes its time: to keep what
// came, or else to store it.
type workV4 struct {
	size  int64
	files int
	sink  bool
}

func (w workV4) run(t *testing.T, b []byte) []error {
	h := newHostV4(alice(t))
	h.cfg.IdleTimeout = workIdle
	var answering sync.WaitGroup
	h.settle = answering.Wait
	work := func() { time.Sleep(workTakes) }
	h.take = func(ctx context.Context, tr proto.Transfer) error {
		dst := slowSink{stageV4: h.stage(tr.Offer().ID)}
		if w.sink {
			dst.keeps = work
		}
		sum, err := tr.Receive(ctx, &dst)
		if err != nil {
			return err
		}
		answering.Go(func() {
			if !w.sink {
				work()
			}
			if err := tr.Accept(ctx, h.publish(tr.Offer(), dst.stageV4, sum)); err != nil {
				h.note(err)
			}
		})
		return nil
	}
	relay := &relayV4{to: h.listen(t)}
	c := clientV4(t, relay.listen(t), func(cfg *proto.ClientConfig) { cfg.IdleTimeout = workIdle })
	var all sync.WaitGroup
	for i := range w.files {
		all.Go(func() {
			o, src := offered(t, fmt.Sprint(i), b, true)
			r, err := c.Send(t.Context(), o, src, proto.Watcher{})
			if err != nil {
				h.note(err)
			} else if r.Sends != 1 || r.Sum != sumOf(b) {
				h.note(fmt.Errorf("%d sends, %+v", r.Sends, r.Sum))
			}
		})
	}
	all.Wait()
	want := int32(1)
	if w.size > v4.MaxSmall {
		want = int32(w.files)
	}
	if n := relay.made.Load(); n != want {
		h.note(fmt.Errorf("%d connections were made, want %d", n, want))
	}
	for i := range w.files {
		if got := h.content(fmt.Sprint(i)); !bytes.Equal(got, b) {
			h.note(fmt.Errorf("%d bytes of file %d are stored, want %d", len(got), i, len(b)))
		}
	}
	_ = c.Close()
	return h.errors()
}

// standstill watches until it is asked for how long nothing ran at most.
func standstill() (longest func() time.Duration) {
	const every = 10 * time.Millisecond
	stop, most := make(chan struct{}), make(chan time.Duration)
	go func() {
		var longest time.Duration
		for last := time.Now(); ; {
			select {
			case <-stop:
				most <- longest
				return
			case <-time.After(every):
			}
			now := time.Now()
			longest = max(longest, now.Sub(last)-every)
			last = now
		}
	}()
	return func() time.Duration {
		close(stop)
		return <-most
	}
}
