package proto_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ferry/proto"
	"ferry/proto/prototest"
	v4 "ferry/proto/v4"
)

const (
	smallSize = int64(1_000)
	largeSize = int64(600_000)
)

// asked is how Matched was called.
func asked(n *int) proto.Watcher {
	return proto.Watcher{Matched: func(context.Context) error { *n++; return nil }}
}

// Each reason arrives as itself, wherever it is given, and the connection goes on
// with the next file.
func TestV4Refusals(t *testing.T) {
	reasons := []struct {
		why     error
		is      error
		refused bool
		after   time.Duration
	}{
		{errors.New("secret path"), proto.ErrRefused, true, 5 * time.Second},
		{proto.ErrName, proto.ErrName, false, 0},
		{proto.ErrTooLarge, proto.ErrTooLarge, false, 0},
		{proto.ErrQuota, proto.ErrQuota, true, time.Minute},
		{&proto.RefusedError{Why: proto.ErrNoRoom, Words: "full", After: 7 * time.Second}, proto.ErrNoRoom, true, 7 * time.Second},
	}
	for _, size := range []int64{smallSize, largeSize, 3 << 20} {
		for i, reason := range reasons {
			if size > 1<<20 && i > 0 {
				break // enough of it
			}
			for _, when := range []string{"before", "within", "behind"} {
				t.Run(fmt.Sprintf("%d/%v/%s", size, reason.is, when), func(t *testing.T) {
					h := newHostV4(alice(t))
					h.take = func(ctx context.Context, t proto.Transfer) error {
						if t.Offer().Name.String() == "next" {
							return h.store(ctx, t)
						}
						switch when {
						case "before":
							return t.Refuse(ctx, reason.why)
						case "within":
							_, err := t.Receive(ctx, &stageV4{err: reason.why, limit: int(size / 3)})
							return err
						}
						if _, err := t.Receive(ctx, &stageV4{}); err != nil {
							return err
						}
						return t.Refuse(ctx, reason.why)
					}
					r := &relayV4{to: h.listen(t)}
					c := clientV4(t, r.listen(t))
					for range 2 {
						matched := 0
						o, src := offered(t, "a", content(size), true)
						_, err := c.Send(t.Context(), o, src, asked(&matched))
						after, _ := proto.RetryAfter(err)
						if !errors.Is(err, reason.is) || errors.Is(err, proto.ErrRefused) != reason.refused || after != reason.after {
							t.Fatalf("got %v, after %v; want %v, after %v", err, after, reason.is, reason.after)
						}
						if strings.Contains(err.Error(), "secret") {
							t.Errorf("the error says %v", err)
						}
						if want := when == "behind" || size == smallSize; want != (matched == 1) && when != "within" {
							t.Errorf("matched %d times", matched)
						}
						if err := sendV4(t, c, "next", size); err != nil {
							t.Fatalf("the next file: %v", err)
						}
					}
					if n := r.made.Load(); n != 1 {
						t.Errorf("%d connections", n)
					}
				})
			}
		}
	}
}

// A name that is taken by the same content is success, by other content a failure
// that says what is there.
func TestV4Exists(t *testing.T) {
	for _, size := range []int64{smallSize, largeSize} {
		for _, known := range []bool{true, false} {
			t.Run(fmt.Sprintf("%d/%v", size, known), func(t *testing.T) {
				h := newHostV4(alice(t))
				c := clientV4(t, h.listen(t))
				if err := sendV4(t, c, "taken", size); err != nil {
					t.Fatal(err)
				}
				there, _ := h.stored("taken")
				o, src := offered(t, "taken", content(size), known)
				o.ID[0]++ // another transfer
				var last proto.Progress
				r, err := c.Send(t.Context(), o, src, proto.Watcher{Progress: func(p proto.Progress) { last = p }})
				if err != nil || r.Sends != 0 || r.Sum != there.Sum || len(r.Envelope) == 0 {
					t.Errorf("the same content: %+v, %v", r, err)
				}
				if known && size == largeSize && last.From != size { // else its content is sent before that is known
					t.Errorf("progress %+v, want all of it from before", last)
				}
				for _, other := range [][]byte{append([]byte{1}, content(size)[1:]...), content(size + 1)} {
					o, src := offered(t, "taken", other, known)
					o.ID[0]++
					_, err := c.Send(t.Context(), o, src, proto.Watcher{})
					e, ok := errors.AsType[*proto.ExistsError](err)
					if !ok || e.Sum != there.Sum || !proto.Permanent(err) {
						t.Errorf("other content: %v", err)
					}
				}
			})
		}
	}
}

// differing answers the first n ends with sums that differ, and the one behind
// them with a receipt.
func differing(t testing.TB, n int) (address string, sends *atomic.Int32) {
	sends = new(atomic.Int32)
	address, _ = scriptedV4(t, func(p *peerV4) {
		if !p.enter() {
			return
		}
		for {
			m, ok := p.read()
			if !ok {
				return
			}
			var o v4.Offer
			if m.Code == v4.CodeFile {
				o, _ = mustFile(m.Payload)
			} else {
				o = must(v4.ParseOffer(m.Payload))
				p.say(v4.CodeGo, m.Number, v4.Offset{}.Append(nil))
			}
			number := m.Number
			for {
				if m.Code != v4.CodeFile {
					var bytes int64
					if m, bytes, ok = p.skipTo(); !ok || m.Code == v4.CodeGiveUp {
						break
					}
					if bytes != o.Size || m.Code != v4.CodeEnd || m.Number != number {
						t.Errorf("%v of file %d after %d bytes", m.Code, m.Number, bytes)
					}
				}
				if int(sends.Add(1)) > n {
					sum := proto.Sum{Size: o.Size}
					if m.Code == v4.CodeFile {
						sum.Cksum, sum.SHA256 = o.Sum.Cksum, o.Sum.SHA256
					} else {
						s := must(v4.ParseSum(m.Payload))
						sum.Cksum, sum.SHA256 = s.Cksum, s.SHA256
					}
					p.stored([]proto.Stored{{Name: fileName(t, o.Name), Sum: sum, Transfer: o.Transfer, At: time.Now()}}, number)
					break
				}
				p.say(v4.CodeDiffers, number, v4.Differs{Size: o.Size}.Append(nil))
				if m.Code == v4.CodeFile {
					break
				}
				if m, ok = p.read(); !ok || m.Code != v4.CodeAgain {
					break // 902
				}
			}
		}
	})
	return address, sends
}

func TestV4Resends(t *testing.T) {
	for _, size := range []int64{0, smallSize, largeSize} {
		for _, known := range []bool{true, false} {
			for n := 1; n <= 4; n++ {
				t.Run(fmt.Sprintf("%d/%v/%d", size, known, n), func(t *testing.T) {
					address, sends := differing(t, n)
					c := clientV4(t, address)
					o, src := offered(t, "a", content(size), known)
					matched, opened := 0, 0
					r, err := c.Send(t.Context(), o, func() (io.ReadCloser, error) { opened++; return src() }, asked(&matched))
					switch {
					case n < 4 && (err != nil || r.Sends != n+1 || matched != n+1):
						t.Errorf("%v; %d sends, matched %d times", err, r.Sends, matched)
					case n == 4 && (!errors.Is(err, proto.ErrChecksum) || proto.Permanent(err) || sends.Load() != 4):
						t.Errorf("%v after %d sends", err, sends.Load())
					}
					if size == largeSize && opened != min(n+1, 4) {
						t.Errorf("opened %d times", opened)
					}
					if err := sendV4(t, c, "next", size); err != nil {
						t.Errorf("the next file: %v", err)
					}
				})
			}
		}
	}
}

// Bytes that are not those that were recorded are never confirmed; if they were
// only once, they are sent again.
func TestV4WrongSource(t *testing.T) {
	for _, size := range []int64{smallSize, largeSize} {
		for _, wrong := range []int{1, 100} {
			h := newHostV4(alice(t))
			r := &relayV4{to: h.listen(t)}
			c := clientV4(t, r.listen(t))
			o, src := offered(t, "a", content(size), true)
			opened := 0
			got, err := c.Send(t.Context(), o, func() (io.ReadCloser, error) {
				if opened++; opened <= wrong {
					return seekable{bytes.NewReader(make([]byte, size))}, nil
				}
				return src()
			}, proto.Watcher{})
			if wrong == 1 && size == largeSize {
				if err != nil || got.Sends != 2 {
					t.Errorf("%d bytes: %v, %d sends", size, err, got.Sends)
				}
			} else if !errors.Is(err, proto.ErrSource) || h.content("a") != nil {
				t.Errorf("%d bytes, wrong %d times: %v, want %v", size, wrong, err, proto.ErrSource)
			}
			if err := sendV4(t, c, "next", size); err != nil || r.made.Load() != 1 {
				t.Errorf("the next file: %v, over %d connections", err, r.made.Load())
			}
		}
	}
}

// failsWith ends with an error.
type failsWith struct{ io.Reader }

func (f failsWith) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		err = os.ErrPermission
	}
	return n, err
}

func TestV4BadSources(t *testing.T) {
	for _, size := range []int64{smallSize, largeSize} {
		for name, src := range map[string]proto.Source{
			"shorter":     bytesOf(content(size - 1)),
			"empty":       bytesOf(nil),
			"longer":      bytesOf(content(size + 1)),
			"fails":       func() (io.ReadCloser, error) { return plain{failsWith{bytes.NewReader(content(size / 2))}}, nil },
			"cannot open": func() (io.ReadCloser, error) { return nil, os.ErrPermission },
		} {
			for _, known := range []bool{true, false} {
				t.Run(fmt.Sprintf("%d/%s/%v", size, name, known), func(t *testing.T) {
					h := newHostV4(alice(t))
					r := &relayV4{to: h.listen(t)}
					c := clientV4(t, r.listen(t))
					if err := sendV4(t, c, "before", size); err != nil {
						t.Fatal(err)
					}
					o, _ := offered(t, "a", content(size), known)
					matched := 0
					if _, err := c.Send(t.Context(), o, src, asked(&matched)); !errors.Is(err, proto.ErrSource) || matched != 0 {
						t.Errorf("%v, matched %d times; want %v", err, matched, proto.ErrSource)
					}
					if err := sendV4(t, c, "next", size); err != nil || r.made.Load() != 1 {
						t.Errorf("the next file: %v, over %d connections", err, r.made.Load())
					}
					if h.content("a") != nil {
						t.Error("it was stored")
					}
					h.mu.Lock()
					defer h.mu.Unlock()
					if s := h.stages[o.ID]; s != nil && s.kept > 0 {
						t.Errorf("%d bytes of it are kept", s.kept)
					}
				})
			}
		}
	}
}

// Ending ctx ends a Send wherever it is, at once, and no other one.
func TestV4ContextEnds(t *testing.T) {
	for _, size := range []int64{smallSize, largeSize} {
		for _, where := range []string{"dial", "handshake", "offer", "source", "matched", "end"} {
			t.Run(fmt.Sprintf("%d/%s", size, where), func(t *testing.T) {
				if where == "offer" && size == smallSize {
					t.Skip("it has none")
				}
				why := errors.New("enough")
				ctx, cancel := context.WithCancelCause(t.Context())
				stop := func() { cancel(why) }
				address, _ := scriptedV4(t, func(p *peerV4) {
					if where == "handshake" {
						p.read()
						stop()
						p.read()
						return
					}
					if !p.enter() {
						return
					}
					number, _, ok := p.offered()
					if !ok {
						return
					}
					if where == "offer" || where == "end" && size == smallSize {
						stop()
						p.read()
						return
					}
					p.say(v4.CodeGo, number, v4.Offset{}.Append(nil))
					p.skipTo()
					stop()
					p.read()
				})
				c := clientV4(t, address, func(cfg *proto.ClientConfig) {
					if where == "dial" {
						cfg.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
							stop()
							<-ctx.Done()
							return nil, ctx.Err()
						}
					}
				})
				o, src := offered(t, "a", content(size), true)
				matched := 0
				start := time.Now()
				_, err := c.Send(ctx, o, func() (io.ReadCloser, error) {
					if where == "source" {
						stop()
						return plain{endsWith{ctx}}, nil
					}
					return src()
				}, proto.Watcher{Matched: func(context.Context) error {
					if matched++; where == "matched" {
						stop()
					}
					return nil
				}})
				if !errors.Is(err, why) || time.Since(start) > 10*time.Second {
					t.Errorf("%v after %v, want %v", err, time.Since(start), why)
				}
				if late := where == "matched" || where == "end"; late != (matched == 1) {
					t.Errorf("matched %d times", matched)
				}
			})
		}
	}
}

// endsWith is a source that has nothing until ctx has ended.
type endsWith struct{ ctx context.Context }

func (e endsWith) Read([]byte) (int, error) { <-e.ctx.Done(); return 0, e.ctx.Err() }

// A small file that nobody waits for any more leaves the others alone, and its
// answer is dropped.
func TestV4LeavesOthersAlone(t *testing.T) {
	h := newHostV4(alice(t))
	hold, taken := make(chan struct{}), make(chan struct{})
	h.take = func(ctx context.Context, t proto.Transfer) error {
		if t.Offer().Name.String() == "held" {
			close(taken)
			<-hold
		}
		return h.store(ctx, t)
	}
	r := &relayV4{to: h.listen(t)}
	c := clientV4(t, r.listen(t))
	ctx, cancel := context.WithCancel(t.Context())
	o, src := offered(t, "held", content(smallSize), true)
	ended := make(chan error, 1)
	go func() { _, err := c.Send(ctx, o, src, proto.Watcher{}); ended <- err }()
	<-taken
	others := make(chan error, 10)
	for i := range cap(others) {
		go func() { others <- sendV4(t, c, fmt.Sprint(i), smallSize) }()
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(hold)
	for range cap(others) {
		if err := <-others; err != nil {
			t.Error(err)
		}
	}
	if err := sendV4(t, c, "behind", smallSize); err != nil || r.made.Load() != 1 {
		t.Errorf("%v, over %d connections", err, r.made.Load())
	}
}

// A caller that says no to Matched is not confirmed anything; what the server has
// of a large file, it keeps.
func TestV4NotMatched(t *testing.T) {
	for _, size := range []int64{smallSize, largeSize} {
		h := newHostV4(alice(t))
		c := clientV4(t, h.listen(t))
		o, src := offered(t, "a", content(size), true)
		why := errors.New("the lease is lost")
		if _, err := c.Send(t.Context(), o, src, proto.Watcher{Matched: func(context.Context) error { return why }}); !errors.Is(err, why) {
			t.Errorf("got %v, want %v", err, why)
		}
		if err := sendV4(t, c, "next", size); err != nil {
			t.Error(err)
		}
		if h.content("a") != nil {
			t.Error("it was stored")
		}
	}
}

// Kept connections that the server has closed meanwhile say nothing about the
// file: another one is made.
func TestV4KeptConnectionEnds(t *testing.T) {
	for _, size := range []int64{smallSize, largeSize} {
		h := newHostV4(alice(t))
		var mu sync.Mutex
		var conns []net.Conn
		h.wrap = func(c net.Conn) net.Conn {
			mu.Lock()
			defer mu.Unlock()
			conns = append(conns, c)
			return c
		}
		c := clientV4(t, h.listen(t))
		for i := range 5 {
			if err := sendV4(t, c, fmt.Sprint(i), size); err != nil {
				t.Fatalf("%d bytes: file %d: %v", size, i, err)
			}
			mu.Lock()
			conns[len(conns)-1].Close() // the client may notice before the next file, or with it
			mu.Unlock()
		}
		if len(conns) != 5 {
			t.Errorf("%d connections", len(conns))
		}
	}
}

// A connection that is kept ends when it is kept no longer, or none is to be.
func TestV4KeepAlive(t *testing.T) {
	for _, size := range []int64{smallSize, largeSize} {
		for _, change := range []func(*proto.ClientConfig){
			func(cfg *proto.ClientConfig) { cfg.KeepAlive = 10 * time.Millisecond },
			func(cfg *proto.ClientConfig) { cfg.IdleConns = -1 },
		} {
			h := newHostV4(alice(t))
			r := &relayV4{to: h.listen(t), over: make(chan struct{}, 3)}
			c := clientV4(t, r.listen(t), change)
			for i := range 3 {
				if err := sendV4(t, c, fmt.Sprint(i), size); err != nil {
					t.Fatal(err)
				}
				<-r.over
			}
			if errs := h.errors(); len(errs) > 0 {
				t.Errorf("the server: %v", errs)
			}
		}
	}
}

func TestV4Close(t *testing.T) {
	h := newHostV4(alice(t))
	hold, taken := make(chan struct{}), make(chan struct{}, 2)
	h.take = func(ctx context.Context, t proto.Transfer) error {
		taken <- struct{}{}
		<-hold
		return h.store(ctx, t)
	}
	c := clientV4(t, h.listen(t))
	results := make(chan error, 2)
	for _, size := range []int64{smallSize, largeSize} {
		go func() { results <- sendV4(t, c, fmt.Sprint(size), size) }()
	}
	<-taken
	<-taken
	if err := c.Close(); err != nil { // those that run go on
		t.Error(err)
	}
	close(hold)
	for range 2 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	for _, size := range []int64{smallSize, largeSize} {
		if err := sendV4(t, c, "late", size); !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v, want %v", err, net.ErrClosed)
		}
	}
	if err := c.Rotate(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want %v", err, net.ErrClosed)
	}
	if errs := h.errors(); len(errs) > 0 { // and the connections have ended, as one ends them
		t.Errorf("the server: %v", errs)
	}
}

// A server that is silent is waited for no longer than IdleTimeout, wherever.
func TestV4SilentServer(t *testing.T) {
	for _, size := range []int64{smallSize, largeSize, 3 << 20} {
		for _, step := range []string{"TLS", "handshake", "proof", "offer", "packets", "end"} {
			if step == "offer" && size == smallSize || step == "packets" && size < 1<<20 {
				continue
			}
			t.Run(fmt.Sprintf("%d/%s", size, step), func(t *testing.T) {
				t.Parallel()
				hold := make(chan struct{})
				script := func(p *peerV4) {
					switch step {
					case "handshake":
						<-hold
						return
					case "proof":
						p.read()
						p.wrap(v4.CodeReconnKey, proto.ClientID{0xa1}, spki(keyV4()))
						<-hold
						return
					}
					if !p.enter() {
						return
					}
					number, _, ok := p.offered()
					if !ok || step == "offer" || size == smallSize {
						<-hold
						return
					}
					p.say(v4.CodeGo, number, v4.Offset{}.Append(nil))
					if step == "end" {
						p.skipTo()
					}
					<-hold
				}
				address, _ := scriptedV4(t, script)
				if step == "TLS" {
					address = prototest.ListenAndCut(t, func(net.Conn) { <-hold })
				}
				t.Cleanup(func() { close(hold) }) // before it is waited for
				c := clientV4(t, address, func(cfg *proto.ClientConfig) { cfg.IdleTimeout = 100 * time.Millisecond })
				err := sendV4(t, c, "a", size)
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("got %v, want %v", err, os.ErrDeadlineExceeded)
				}
			})
		}
	}
}

// No more than the window is on its way beyond what the server has said that it
// keeps.
func TestV4Window(t *testing.T) {
	const window, size = 1 << 20, 8 << 20
	var sent, most int64
	address, _ := scriptedV4(t, func(p *peerV4) {
		if !p.enterWith(v4.Welcome{Packet: 8 << 10, Window: window, Unanswered: 1}) {
			return
		}
		number, o, ok := p.offered()
		if !ok {
			return
		}
		p.say(v4.CodeGo, number, v4.Offset{}.Append(nil))
		kept := int64(0)
		for kept < size {
			m, ok := p.read()
			if !ok {
				return
			}
			if m.Code == v4.CodeEnd {
				t.Errorf("the end after %d bytes", sent)
				return
			}
			if len(m.Payload) > 8<<10 || m.Number != uint64(sent) {
				t.Errorf("a packet of %d bytes at %d after %d", len(m.Payload), m.Number, sent)
			}
			if sent += int64(len(m.Payload)); sent-kept > most {
				most = sent - kept
			}
			if sent-kept >= window-256<<10 || sent == size { // nothing more may come
				kept = sent
				p.say(v4.CodeThanks, number, v4.Offset{Bytes: kept}.Append(nil))
			}
		}
		if m, _ := p.read(); m.Code != v4.CodeEnd {
			t.Errorf("%v in place of the end", m.Code)
		}
		sum := sumOf(content(size))
		p.stored([]proto.Stored{{Name: fileName(t, o.Name), Sum: sum, Transfer: o.Transfer, At: time.Now()}}, number)
	})
	c := clientV4(t, address)
	last := int64(-1)
	o, src := offered(t, "a", content(size), true)
	_, err := c.Send(t.Context(), o, src, proto.Watcher{Progress: func(p proto.Progress) {
		if p.Bytes < last {
			t.Errorf("progress from %d to %d", last, p.Bytes)
		}
		last = p.Bytes
	}})
	if err != nil || most > window || last != size {
		t.Errorf("%v; %d bytes on their way, %d are the window; progress ends at %d", err, most, window, last)
	}
}

// One that says nothing is sent the window, and no more.
func TestV4WindowUnanswered(t *testing.T) {
	const window, size = 1 << 20, 8 << 20
	sent := make(chan int64, 1)
	address, _ := scriptedV4(t, func(p *peerV4) {
		if !p.enterWith(v4.Welcome{Packet: 8 << 10, Window: window, Unanswered: 1}) {
			return
		}
		number, _, _ := p.offered()
		p.say(v4.CodeGo, number, v4.Offset{}.Append(nil))
		_, n, _ := p.skipTo()
		sent <- n
	})
	c := clientV4(t, address, func(cfg *proto.ClientConfig) { cfg.IdleTimeout = 300 * time.Millisecond })
	err := sendV4(t, c, "a", size)
	if n := <-sent; n > window || n < window/2 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d bytes were sent, %d are the window; %v", n, window, err)
	}
}

// No more small files are on their way than the server allows.
func TestV4Unanswered(t *testing.T) {
	const allowed, files = 3, 20
	address, _ := scriptedV4(t, func(p *peerV4) {
		if !p.enterWith(v4.Welcome{Packet: 64 << 10, Window: 1 << 20, Unanswered: allowed}) {
			return
		}
		for left := files; left > 0; {
			var numbers []uint64
			var stored []proto.Stored
			for range min(allowed, left) {
				number, o, ok := p.offered()
				if !ok {
					return
				}
				numbers = append(numbers, number)
				sum := proto.Sum{Size: o.Size, Cksum: o.Sum.Cksum, SHA256: o.Sum.SHA256}
				stored = append(stored, proto.Stored{Name: fileName(t, o.Name), Sum: sum, Transfer: o.Transfer, At: time.Now()})
			}
			_ = p.conn.SetReadDeadline(time.Now().Add(30 * time.Millisecond))
			if b := make([]byte, 1); len(numbers) == allowed {
				if n, _ := p.conn.Read(b); n > 0 {
					t.Errorf("a file beyond the %d that are allowed", allowed)
				}
			}
			_ = p.conn.SetReadDeadline(time.Time{})
			p.stored(stored, numbers...)
			left -= len(numbers)
		}
		p.read()
	})
	c := clientV4(t, address)
	var all sync.WaitGroup
	for i := range files {
		all.Go(func() {
			if err := sendV4(t, c, fmt.Sprint(i), 100); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// What has not been written when nobody wants it any more is not written, and
// makes room for others.
func TestV4Withdrawn(t *testing.T) {
	const half = 100 // of them, several times what fits between the two
	hold := make(chan struct{})
	var came atomic.Int32
	var together atomic.Bool // all have to be there before they are answered
	address, connections := scriptedV4(t, func(p *peerV4) {
		if p.conn.(*net.TCPConn).SetReadBuffer(64<<10) != nil || !p.enterWith(v4.Welcome{Packet: 64 << 10, Window: 1 << 20, Unanswered: 2 * half}) {
			return
		}
		<-hold
		var unanswered []uint64
		for {
			number, _, ok := p.offered()
			if !ok {
				return
			}
			came.Add(1)
			unanswered = append(unanswered, number)
			if together.Load() && len(unanswered) < 2*half {
				continue
			}
			for _, number := range unanswered {
				p.refuse(number, v4.Refused{Reason: v4.ReasonQuota})
			}
			unanswered = nil
		}
	})
	c := clientV4(t, address, func(cfg *proto.ClientConfig) {
		cfg.IdleTimeout = 10 * time.Second
		cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
			if err == nil {
				err = conn.(*net.TCPConn).SetWriteBuffer(64 << 10)
			}
			return conn, err
		}
	})
	b := content(v4.MaxSmall)
	results := make(chan error, 2*half)
	post := func(ctx context.Context, n int) {
		posted := make(chan struct{}, n)
		for i := range n {
			o, src := offered(t, fmt.Sprint(i), b, true)
			go func() {
				_, err := c.Send(ctx, o, src, proto.Watcher{Progress: func(p proto.Progress) {
					if p.Phase == proto.PhaseVerifying {
						posted <- struct{}{}
					}
				}})
				results <- err
			}()
		}
		for range n {
			<-posted
		}
	}
	want := func(n int, what error) {
		t.Helper()
		for range n {
			if err := <-results; !errors.Is(err, what) {
				t.Errorf("got %v, want %v", err, what)
			}
		}
	}
	post(t.Context(), half)
	ctx, cancel := context.WithCancel(t.Context())
	post(ctx, half)
	cancel()
	want(half, context.Canceled)
	close(hold)
	want(half, proto.ErrQuota)
	post(t.Context(), 1) // behind all that was written
	want(1, proto.ErrQuota)
	together.Store(true)
	post(t.Context(), 2*half)
	want(2*half, proto.ErrQuota)
	if n, made := came.Load(), connections.Load(); n >= 4*half+1 || made != 1 {
		t.Errorf("%d files came, over %d connections", n, made)
	}
}

// A receipt that is not for this file, of this client, by this server is none.
func TestV4WrongReceipts(t *testing.T) {
	other := identityOf(t, goodKeys[0].name).identity
	for _, size := range []int64{smallSize, largeSize} {
		sum := sumOf(content(size))
		for name, change := range map[string]func(client *proto.Registration, by *proto.ServerIdentity, f *proto.Stored, envelope *[]byte){
			"another server": func(_ *proto.Registration, by *proto.ServerIdentity, _ *proto.Stored, _ *[]byte) { *by = other },
			"another client": func(c *proto.Registration, _ *proto.ServerIdentity, _ *proto.Stored, _ *[]byte) { c.ID[3]++ },
			"another name": func(c *proto.Registration, _ *proto.ServerIdentity, _ *proto.Stored, _ *[]byte) {
				c.Name = clientName(t, "bob")
			},
			"another file": func(_ *proto.Registration, _ *proto.ServerIdentity, f *proto.Stored, _ *[]byte) {
				f.Name = fileName(t, "b")
			},
			"another size":    func(_ *proto.Registration, _ *proto.ServerIdentity, f *proto.Stored, _ *[]byte) { f.Sum.Size++ },
			"another content": func(_ *proto.Registration, _ *proto.ServerIdentity, f *proto.Stored, _ *[]byte) { f.Sum.SHA256[9]++ },
			"another cksum":   func(_ *proto.Registration, _ *proto.ServerIdentity, f *proto.Stored, _ *[]byte) { f.Sum.Cksum++ },
			"a changed byte": func(_ *proto.Registration, _ *proto.ServerIdentity, _ *proto.Stored, e *[]byte) {
				if len(*e) > 0 {
					(*e)[len(*e)/2] ^= 1
				}
			},
			"nothing": func(_ *proto.Registration, _ *proto.ServerIdentity, _ *proto.Stored, e *[]byte) { *e = nil },
		} {
			t.Run(fmt.Sprintf("%d/%s", size, name), func(t *testing.T) {
				address, _ := scriptedV4(t, func(p *peerV4) {
					if !p.enter() {
						return
					}
					number, o, ok := p.offered()
					if !ok {
						return
					}
					if size == largeSize {
						p.say(v4.CodeGo, number, v4.Offset{}.Append(nil))
						p.skipTo()
					}
					client, by := proto.Registration{ID: p.id, Name: clientName(t, "alice")}, serverV4()
					f := proto.Stored{Name: fileName(t, o.Name), Sum: sum, Transfer: o.Transfer, At: time.Now()}
					var envelope []byte
					change(&client, &by, &f, &envelope) // what is signed, and then the envelope
					envelope = must(by.SignReceipt(client, []proto.Stored{f}))
					change(&client, &by, &f, &envelope)
					p.say(v4.CodeStored, 0, v4.Stored{Numbers: []uint64{number}, Envelope: envelope}.Append(nil))
					p.read()
				})
				o, src := offered(t, "a", content(size), size == smallSize)
				r, err := clientV4(t, address).Send(t.Context(), o, src, proto.Watcher{})
				if !errors.Is(err, proto.ErrProtocol) || r.Envelope != nil {
					t.Errorf("got %+v, %v; want %v", r, err, proto.ErrProtocol)
				}
			})
		}
	}
}

// When the server ends the session before its answer, the file may be stored:
// nothing says that it is not.
func TestV4SessionEndsBeforeTheAnswer(t *testing.T) {
	for _, size := range []int64{smallSize, largeSize} {
		for _, number := range []uint64{0, 1} {
			address, _ := scriptedV4(t, func(p *peerV4) {
				if !p.enter() {
					return
				}
				n, _, ok := p.offered()
				if !ok {
					return
				}
				if size == largeSize {
					p.say(v4.CodeGo, n, v4.Offset{}.Append(nil))
					p.skipTo()
				}
				p.refuse(number, v4.Refused{Reason: v4.ReasonStopping, After: 2000, Words: "maintenance"})
			})
			err := sendV4(t, clientV4(t, address), "a", size)
			if !errors.Is(err, proto.ErrStopping) || !strings.Contains(err.Error(), "maintenance") {
				t.Errorf("%d bytes: %v, want %v", size, err, proto.ErrStopping)
			}
			if refused := number != 0; errors.Is(err, proto.ErrRefused) != refused {
				t.Errorf("%d bytes, said of %d: refused is %v", size, number, !refused)
			}
		}
	}
}

// Messages that have no place end in ErrProtocol.
func TestV4Violations(t *testing.T) {
	offset := func(n int64) []byte { return v4.Offset{Bytes: n}.Append(nil) }
	for name, test := range map[string]struct {
		small         bool
		offered, sent func(p *peerV4, number uint64)
	}{
		"go to a small file":    {small: true, offered: func(p *peerV4, n uint64) { p.say(v4.CodeGo, n, offset(0)) }},
		"another small file":    {small: true, offered: func(p *peerV4, n uint64) { p.say(v4.CodeDiffers, n+1, v4.Differs{}.Append(nil)) }},
		"a small file is kept":  {small: true, offered: func(p *peerV4, n uint64) { p.say(v4.CodeThanks, n, offset(1)) }},
		"work on another one":   {small: true, offered: func(p *peerV4, n uint64) { p.say(v4.CodeThanks, n+1, offset(0)) }},
		"work on none":          {small: true, offered: func(p *peerV4, _ uint64) { p.say(v4.CodeThanks, 0, offset(0)) }},
		"work on no large one":  {sent: func(p *peerV4, _ uint64) { p.say(v4.CodeThanks, 0, offset(0)) }},
		"work on the next one":  {sent: func(p *peerV4, n uint64) { p.say(v4.CodeThanks, n+1, offset(0)) }},
		"thanks for an offer":   {offered: func(p *peerV4, n uint64) { p.say(v4.CodeThanks, n, offset(1)) }},
		"go beyond the end":     {offered: func(p *peerV4, n uint64) { p.say(v4.CodeGo, n, offset(largeSize+1)) }},
		"go for another file":   {offered: func(p *peerV4, n uint64) { p.say(v4.CodeGo, n+1, offset(0)) }},
		"welcome":               {offered: func(p *peerV4, _ uint64) { p.say(v4.CodeWelcome, 0, usualWelcome.Append(nil)) }},
		"differs from an offer": {offered: func(p *peerV4, n uint64) { p.say(v4.CodeDiffers, n, v4.Differs{}.Append(nil)) }},
		"a packet":              {offered: func(p *peerV4, _ uint64) { p.say(v4.CodePacket, 0, []byte{1}) }},
		"bytes left over":       {offered: func(p *peerV4, n uint64) { p.say(v4.CodeGo, n, append(offset(0), 0)) }},
		"too long":              {offered: func(p *peerV4, n uint64) { p.say(v4.CodeGo, n, make([]byte, 5000)) }},
		"thanks for too much":   {sent: func(p *peerV4, n uint64) { p.say(v4.CodeThanks, n, offset(largeSize+1)) }},
		"go at the end":         {sent: func(p *peerV4, n uint64) { p.say(v4.CodeGo, n, offset(0)) }},
	} {
		t.Run(name, func(t *testing.T) {
			address, _ := scriptedV4(t, func(p *peerV4) {
				if !p.enter() {
					return
				}
				n, _, ok := p.offered()
				if !ok {
					return
				}
				if test.offered != nil {
					test.offered(p, n)
				} else {
					p.say(v4.CodeGo, n, offset(0))
					p.skipTo()
					test.sent(p, n)
				}
				p.read()
			})
			size := largeSize
			if test.small {
				size = smallSize
			}
			c := clientV4(t, address, func(cfg *proto.ClientConfig) { cfg.IdleTimeout = 5 * time.Second })
			if err := sendV4(t, c, "a", size); !errors.Is(err, proto.ErrProtocol) {
				t.Errorf("got %v, want %v", err, proto.ErrProtocol)
			}
		})
	}
}

// At most so many files have a connection to themselves, and the others share
// one meanwhile.
func TestV4Connections(t *testing.T) {
	h := newHostV4(alice(t))
	hold := make(chan struct{})
	taken := make(chan struct{}, 100)
	h.take = func(ctx context.Context, t proto.Transfer) error {
		if t.Offer().Size == largeSize {
			taken <- struct{}{}
			<-hold
		}
		return h.store(ctx, t)
	}
	r := &relayV4{to: h.listen(t)}
	c := clientV4(t, r.listen(t))
	var all sync.WaitGroup
	for i := range 12 {
		all.Go(func() {
			if err := sendV4(t, c, fmt.Sprintf("large/%d", i), largeSize); err != nil {
				t.Error(err)
			}
		})
	}
	for range 8 {
		<-taken
	}
	for i := range 50 {
		if err := sendV4(t, c, fmt.Sprint(i), smallSize); err != nil {
			t.Error(err)
		}
	}
	if n := r.made.Load(); n != 9 || len(taken) > 0 {
		t.Errorf("%d connections, %d more large files", n, len(taken))
	}
	close(hold)
	all.Wait()
}
