package proto_test

import (
	"bytes"
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ferry/proto"
	"ferry/proto/v4"
)

func TestSessionV4Files(t *testing.T) {
	h := newHostV4(alice(t))
	r := h.rawTCP(t).enter()
	number := uint64(0)
	for _, size := range []int64{0, 1, v4.MaxSmall} {
		number++
		name := fmt.Sprintf("small/%d", size)
		r.write(r.small(number, name, content(size)))
		files := r.expectStored(number)
		if as, _ := h.stored(name); files[0] != as || !bytes.Equal(h.content(name), content(size)) {
			t.Errorf("%s: the receipt says %+v, stored is %+v with %d bytes", name, files[0], as, len(h.content(name)))
		}
	}
	for _, size := range []int64{0, 1, 8191, 100_000, 3 << 20} {
		for _, packet := range []int{1 << 13, 1 << 16, 1 << 20} {
			number++
			name := fmt.Sprintf("large/%d/%d", size, packet)
			c := content(size)
			if from := r.offer(number, offerV4(name, c, byte(number))); from != 0 {
				t.Fatalf("%s is wanted from %d", name, from)
			}
			r.write(r.packets(c, 0, packet), r.end(number, c))
			files := r.expectStored(number)
			if as, _ := h.stored(name); files[0] != as || !bytes.Equal(h.content(name), c) {
				t.Errorf("%s: the receipt says %+v, stored is %+v", name, files[0], as)
			}
		}
	}
	r.bye()
	if errs := h.errors(); len(errs) != 0 {
		t.Errorf("got errors %v", errs)
	}
}

// everyCode is all that a client could say, and more.
var everyCode = []v4.Code{
	v4.CodeRegister, v4.CodePublicKey, v4.CodeReconnect, v4.CodePacket, v4.CodeProve, v4.CodeOffer, v4.CodeEnd, v4.CodeFile,
	v4.CodeRotate, v4.CodeAgain, v4.CodeGiveUp, v4.CodeRegistered, v4.CodeStored, v4.CodeRefused, v4.CodeWelcome, v4.CodeGo,
	0, 824, 834, 900, 903, 65535,
}

// TestSessionV4OutOfOrder says each message where it has no place.
func TestSessionV4OutOfOrder(t *testing.T) {
	c := content(20_000)
	stages := map[string]struct {
		enter  func(r *rawV4)
		number uint64 // that of the refusal
		good   []v4.Code
	}{
		"between files": {enter: func(*rawV4) {}, good: []v4.Code{v4.CodeOffer, v4.CodeFile, v4.CodeRotate, v4.CodeGiveUp}},
		"after a file": {
			enter: func(r *rawV4) {
				r.offer(1, offerV4("f", c, 1))
				r.write(r.packets(c, 0, 8192), r.end(1, c))
				r.expectStored(1)
			},
			good: []v4.Code{v4.CodeOffer, v4.CodeFile, v4.CodeRotate, v4.CodeGiveUp},
		},
		"after go": {
			enter:  func(r *rawV4) { r.offer(1, offerV4("f", c, 1)) },
			number: 1,
			good:   []v4.Code{v4.CodeGiveUp, v4.CodePacket, v4.CodeEnd},
		},
		"after a packet": {
			enter: func(r *rawV4) {
				r.offer(1, offerV4("f", c, 1))
				r.write(r.packets(c[:8192], 0, 8192))
			},
			number: 1,
			good:   []v4.Code{v4.CodeGiveUp, v4.CodePacket, v4.CodeEnd},
		},
		"after sums that differ": {
			enter: func(r *rawV4) {
				r.offer(1, offerV4("f", c, 1))
				r.write(r.packets(c, 0, 8192), r.end(1, c[1:]))
				r.expect(v4.CodeDiffers)
			},
			number: 1,
			good:   []v4.Code{v4.CodeGiveUp, v4.CodeAgain},
		},
		"after a refusal in the middle": {
			enter: func(r *rawV4) {
				r.host.stages[proto.TransferID{1}] = &stageV4{err: proto.ErrNoRoom}
				r.offer(1, offerV4("f", c, 1))
				r.write(r.packets(c, 0, 8192), r.message(v4.CodePacket, 20_000, c[:1])) // more than the file has
				r.expectRefused(1, v4.ReasonNoRoom)
			},
			good: []v4.Code{v4.CodeGiveUp, v4.CodePacket, v4.CodeEnd, v4.CodeAgain},
		},
	}
	for stage, test := range stages {
		for _, code := range everyCode {
			if slices.Contains(test.good, code) {
				continue
			}
			t.Run(fmt.Sprint(stage, " ", code), func(t *testing.T) {
				h := newHostV4(alice(t))
				h.id = quickV4
				r := h.rawTCP(t).enter()
				test.enter(r)
				r.say(code, test.number, nil)
				m := r.expect(v4.CodeRefused)
				refused, err := v4.ParseRefused(m.Payload)
				if err != nil || refused.Reason != v4.ReasonViolation || refused.After != 0 {
					t.Fatalf("got %+v, %v", refused, err)
				}
				r.expectEnd()
				errs := h.errors()
				if len(errs) == 0 || !slices.ContainsFunc(errs, func(err error) bool { return errors.Is(err, proto.ErrProtocol) }) {
					t.Errorf("got errors %v", errs)
				}
			})
		}
	}
}

// TestSessionV4Malformed is messages that have their place, and are not right.
func TestSessionV4Malformed(t *testing.T) {
	c := content(20_000)
	sum := v4.Sum{}.Append(nil)
	zero := v4.Offset{}.Append(nil)
	offer := func(change func(*v4.Offer)) []byte {
		o := offerV4("f", c, 1)
		change(&o)
		return o.Append(nil)
	}
	for what, test := range map[string]struct {
		inside  bool // a file is under way, of which nothing has come
		code    v4.Code
		number  uint64
		payload []byte
	}{
		"offer without a payload":   {code: v4.CodeOffer},
		"offer with more":           {code: v4.CodeOffer, payload: append(offer(func(*v4.Offer) {}), 0)},
		"offer of a negative size":  {code: v4.CodeOffer, payload: offer(func(o *v4.Offer) { o.Size = -1 })},
		"offer with other bits":     {code: v4.CodeOffer, payload: offer(func(o *v4.Offer) { o.Mode = 0o1000 })},
		"file of another size":      {code: v4.CodeFile, payload: append(offer(func(o *v4.Offer) { o.Size = 3 }), 1, 2)},
		"file of unknown sum":       {code: v4.CodeFile, payload: append(offer(func(o *v4.Offer) { o.Size, o.Known = 1, false }), 1)},
		"file without a payload":    {code: v4.CodeFile},
		"end with less":             {inside: true, code: v4.CodeEnd, number: 1, payload: sum[1:]},
		"end before the end":        {inside: true, code: v4.CodeEnd, number: 1, payload: sum},
		"end of another file":       {inside: true, code: v4.CodeEnd, number: 2, payload: sum},
		"give up of another":        {inside: true, code: v4.CodeGiveUp, number: 2},
		"give up with a payload":    {inside: true, code: v4.CodeGiveUp, number: 1, payload: zero},
		"packet of nothing":         {inside: true, code: v4.CodePacket},
		"packet further on":         {inside: true, code: v4.CodePacket, number: 8192, payload: c[:8192]},
		"packet of more than there": {inside: true, code: v4.CodePacket, payload: append(slices.Clone(c), 0)},
		"packet far away":           {inside: true, code: v4.CodePacket, number: 1<<64 - 1, payload: c[:1]},
		"rotate without a payload":  {code: v4.CodeRotate},
	} {
		t.Run(what, func(t *testing.T) {
			h := newHostV4(alice(t))
			h.id = quickV4
			r := h.rawTCP(t).enter()
			number := uint64(0)
			if test.inside {
				number = 1
				r.offer(number, offerV4("f", c, 1))
			}
			r.say(test.code, test.number, test.payload)
			r.expectRefused(number, v4.ReasonViolation)
			r.expectEnd()
			if errs := h.errors(); len(errs) == 0 || !errors.Is(errs[0], proto.ErrProtocol) {
				t.Errorf("got errors %v", errs)
			}
			if _, ok := h.stored("f"); ok {
				t.Error("something is stored")
			}
		})
	}
}

// TestSessionV4TooLong states lengths that a message cannot have, where it has its
// place, and sends nothing of them.
func TestSessionV4TooLong(t *testing.T) {
	for what, test := range map[string]struct {
		code   v4.Code
		inside int64 // the size of the file that is under way; -1: none is
	}{
		"offer":            {v4.CodeOffer, -1},
		"file":             {v4.CodeFile, -1},
		"rotate":           {v4.CodeRotate, -1},
		"give up":          {v4.CodeGiveUp, -1},
		"give up a file":   {v4.CodeGiveUp, 1000},
		"end":              {v4.CodeEnd, 0},
		"packet":           {v4.CodePacket, math.MaxInt64},
		"offer in a file":  {v4.CodeOffer, 1000},
		"packet, and none": {v4.CodePacket, -1},
	} {
		limit := int64(v4.PayloadLimit(test.code, v4.MaxPacket)) + v4.TagSize
		for _, length := range []int64{0, v4.TagSize - 1, limit + 1, 1<<32 - 1} {
			t.Run(fmt.Sprint(what, " ", length), func(t *testing.T) {
				h := newHostV4(alice(t))
				h.id = quickV4
				h.cfg.IdleTimeout = 3 * time.Second
				r := h.rawTCP(t).enter()
				number := uint64(0)
				if test.inside >= 0 {
					number = 1
					r.offer(number, v4.Offer{Size: test.inside, ModTime: v4.NoTime, Name: "f"})
				}
				head := v4.Header{Code: test.code, Length: uint32(length)}
				if test.code != v4.CodePacket {
					head.Number = number
				}
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				r.write(head.Append(nil))
				r.expectRefused(number, v4.ReasonViolation)
				runtime.ReadMemStats(&after)
				if grown := after.TotalAlloc - before.TotalAlloc; grown > 4<<20 {
					t.Errorf("%d bytes were allocated", grown)
				}
				r.expectEnd()
			})
		}
	}
}

// A sealedConversation is what a client says from its proof on: one large file
// and a small one.
func (r *rawV4) sealedConversation(large, small []byte) [][]byte {
	r.t.Helper()
	o := offerV4("large", large, 1)
	return [][]byte{
		r.message(v4.CodeProve, 0, v4.Prove{Packet: v4.MaxPacket}.Append(nil)),
		r.small(1, "small", small),
		r.message(v4.CodeOffer, 2, o.Append(nil)),
		r.packets(large[:2], 0, 2),
		r.message(v4.CodePacket, 2, large[2:]),
		r.end(2, large),
		r.small(3, "last", small),
	}
}

// said says what it is given, ends the conversation, and returns what came back
// until the server ended it.
func (r *rawV4) said(messages [][]byte) []messageV4 {
	r.t.Helper()
	var writing sync.WaitGroup
	defer writing.Wait()
	writing.Go(func() {
		_, _ = r.tls.Write(slices.Concat(messages...)) // the server may end it before
		_ = r.tls.CloseWrite()
	})
	var all []messageV4
	for {
		m, err := r.tryRead()
		if err != nil {
			r.conn.Close()
			return all
		}
		all = append(all, m)
	}
}

// wrapped is a client that has its keys, and has not proved it.
func (h *hostV4) wrapped(t testing.TB) *rawV4 {
	t.Helper()
	r := h.rawTCP(t)
	r.reconnect(proto.ClientID{0xa1}, "alice")
	r.unwrap(r.expect(v4.CodeReconnKey))
	return r
}

// TestSessionV4Flipped changes a bit in every byte of the sealed part of a
// conversation. What was sealed before it is stored, and nothing else.
func TestSessionV4Flipped(t *testing.T) {
	large, small := []byte("large"), []byte("s")
	h := newHostV4(alice(t))
	h.id = quickV4
	r := h.wrapped(t)
	messages := r.sealedConversation(large, small)
	r.said(messages)
	for name, want := range map[string][]byte{"small": small, "large": large, "last": small} {
		if got := h.content(name); !bytes.Equal(got, want) {
			t.Fatalf("unchanged: %s is %q, want %q", name, got, want)
		}
	}
	total := len(slices.Concat(messages...))
	step := 1
	if testing.Short() {
		step = 13
	}
	for at := 0; at < total; at += step {
		h := newHostV4(alice(t))
		h.id = quickV4
		r := h.wrapped(t)
		messages := r.sealedConversation(large, small)
		whole := 0 // messages before the one that is changed
		for end := len(messages[0]); at >= end; end += len(messages[whole]) {
			whole++
		}
		b := slices.Concat(messages...)
		b[at] ^= 1 << (at % 8)
		r.said([][]byte{b})
		errs := h.errors()
		if len(errs) == 0 {
			t.Errorf("byte %d: the session ended well", at)
		}
		for name, last := range map[string]int{"small": 1, "large": 5, "last": 6} {
			_, ok := h.stored(name)
			if want := last < whole; ok != want {
				t.Errorf("byte %d, in message %d: %s stored: %v, want %v", at, whole, name, ok, want)
			}
		}
	}
}

// TestSessionV4Moved repeats, leaves out and swaps sealed messages.
func TestSessionV4Moved(t *testing.T) {
	large, small := []byte("large"), []byte("s")
	for what, move := range map[string]func(m [][]byte) [][]byte{
		"packet again":      func(m [][]byte) [][]byte { return slices.Insert(m, 4, m[3]) },
		"packet left out":   func(m [][]byte) [][]byte { return slices.Delete(m, 3, 4) },
		"packets swapped":   func(m [][]byte) [][]byte { m[3], m[4] = m[4], m[3]; return m },
		"proof again":       func(m [][]byte) [][]byte { return slices.Insert(m, 1, m[0]) },
		"offer again":       func(m [][]byte) [][]byte { return slices.Insert(m, 3, m[2]) },
		"end left out":      func(m [][]byte) [][]byte { return slices.Delete(m, 5, 6) },
		"first left out":    func(m [][]byte) [][]byte { return slices.Delete(m, 1, 2) },
		"end before packet": func(m [][]byte) [][]byte { m[5], m[4] = m[4], m[5]; return m },
	} {
		t.Run(what, func(t *testing.T) {
			h := newHostV4(alice(t))
			h.id = quickV4
			r := h.wrapped(t)
			answers := r.said(move(r.sealedConversation(large, small)))
			last := answers[len(answers)-1]
			if refused, err := v4.ParseRefused(last.Payload); last.Code != v4.CodeRefused || err != nil || refused.Reason != v4.ReasonViolation {
				t.Errorf("the last answer is %v %+v", last.Code, refused)
			}
			if errs := h.errors(); len(errs) == 0 || !errors.Is(errs[0], proto.ErrProtocol) {
				t.Errorf("got errors %v", errs)
			}
			for _, name := range []string{"large", "last"} {
				if _, ok := h.stored(name); ok {
					t.Errorf("%s is stored", name)
				}
			}
		})
	}
}

// TestSessionV4Replayed says in another connection all that a client has said in
// one, as somebody could who has read what is inside TLS.
func TestSessionV4Replayed(t *testing.T) {
	h := newHostV4(alice(t))
	r := h.wrapped(t)
	messages := r.sealedConversation([]byte("large"), []byte("s"))
	r.said(messages)
	if _, ok := h.stored("last"); !ok {
		t.Fatal("the conversation is not one")
	}
	again := newHostV4(alice(t))
	again.files = map[string]proto.Stored{}
	thief := again.rawTCP(t)
	thief.reconnect(proto.ClientID{0xa1}, "alice")
	thief.expect(v4.CodeReconnKey)
	thief.write(messages[0])
	thief.expectRefused(0, v4.ReasonUnauthorized)
	thief.expectEnd()
	if len(again.errors()) != 1 || len(again.files) != 0 {
		t.Errorf("errors %v, files %v", again.errors(), again.files)
	}
}

// TestSessionV4Ends tells an end from a cut.
func TestSessionV4Ends(t *testing.T) {
	c := content(100_000)
	inside := func(r *rawV4) {
		r.offer(1, offerV4("f", c, 1))
		r.write(r.packets(c[:50_000], 0, 8192))
	}
	within := func(r *rawV4) { r.write(r.message(v4.CodeGiveUp, 1, nil)[:5]) }
	end := func(r *rawV4) { _ = r.tls.CloseWrite() }
	cut := func(r *rawV4) { r.conn.Close() }
	for what, test := range map[string]struct {
		before, how func(*rawV4)
		want        string // of the error; empty: it is an end
	}{
		"between files":         {func(*rawV4) {}, end, ""},
		"cut between files":     {func(*rawV4) {}, cut, "the connection was cut"},
		"within a file":         {inside, end, "the client left within the file"},
		"cut within a file":     {inside, cut, "the connection was cut"},
		"within a message":      {within, end, "the peer left within a message"},
		"cut within a message":  {within, cut, "the connection was cut"},
		"after a file is given": {func(r *rawV4) { inside(r); r.say(v4.CodeGiveUp, 1, nil) }, end, ""},
	} {
		t.Run(what, func(t *testing.T) {
			h := newHostV4(alice(t))
			h.id = quickV4
			r := h.raw(t).enter()
			test.before(r)
			if test.want == "" {
				go test.how(r)
				r.expectEnd()
			} else {
				go func() { _, _ = io.Copy(io.Discard, r.tls) }()
				test.how(r)
			}
			errs := h.errors()
			errs = slices.DeleteFunc(errs, func(err error) bool { return errors.Is(err, proto.ErrChecksum) })
			if test.want == "" {
				if len(errs) != 0 {
					t.Errorf("got errors %v, want none", errs)
				}
				return
			}
			if len(errs) == 0 || !strings.Contains(errs[0].Error(), test.want) || !errors.Is(errs[0], io.ErrUnexpectedEOF) {
				t.Errorf("got errors %v, want %q", errs, test.want)
			}
		})
	}
}

// TestSessionV4Pipelined sends many small files and has them answered in another
// order, by another goroutine, together.
func TestSessionV4Pipelined(t *testing.T) {
	const files = 600
	h := newHostV4(alice(t))
	var mu sync.Mutex
	var waiting []func()
	most := 0
	var committers sync.WaitGroup
	h.take = func(ctx context.Context, tr proto.Transfer) error {
		dst := &stageV4{}
		sum, err := tr.Receive(ctx, dst)
		if err != nil {
			return err
		}
		answer := func() {
			if err := tr.Accept(ctx, h.publish(tr.Offer(), dst, sum)); err != nil {
				t.Error(err)
			}
		}
		mu.Lock()
		defer mu.Unlock()
		waiting = append(waiting, answer)
		most = max(most, len(waiting))
		if len(waiting) < 200 {
			return nil
		}
		group := waiting
		waiting = nil
		slices.Reverse(group)
		committers.Go(func() {
			for _, answer := range group {
				answer()
			}
		})
		return nil
	}
	r := h.rawTCP(t).enter()
	var numbers []uint64
	for n := uint64(1); n <= files; n++ {
		numbers = append(numbers, n)
	}
	go func() {
		for n := uint64(1); n <= files; n++ {
			_, _ = r.tls.Write(r.small(n, fmt.Sprint(n), content(int64(n))))
		}
	}()
	answers := 0
	for left := numbers; len(left) > 0; answers++ {
		m, err := v4.ParseStored(r.expect(v4.CodeStored).Payload)
		if err != nil {
			t.Fatal(err)
		}
		s, err := proto.VerifyReceipt(m.Envelope, serverV4().Pin())
		if err != nil {
			t.Fatal(err)
		}
		for i, n := range m.Numbers {
			at := slices.Index(left, n)
			if at < 0 || s.Files[i].Name.String() != fmt.Sprint(n) {
				t.Fatalf("answer for %d says %q", n, s.Files[i].Name.String())
			}
			left = slices.Delete(left, at, at+1)
		}
	}
	// 200 came at a time, and at most 128 share an answer.
	if answers < 5 || answers > 9 {
		t.Errorf("%d files had %d answers", files, answers)
	}
	committers.Wait()
	r.bye()
	if errs := h.errors(); len(errs) != 0 || most > 256 {
		t.Errorf("errors %v, %d waited at once", errs, most)
	}
}

// TestSessionV4Backpressure is a server that answers nothing for a while: it reads
// no more than it has said.
func TestSessionV4Backpressure(t *testing.T) {
	h := newHostV4(alice(t))
	come := make(chan struct{}, 1000)
	goOn := make(chan struct{})
	var answering sync.WaitGroup
	h.take = func(ctx context.Context, tr proto.Transfer) error {
		dst := &stageV4{}
		sum, err := tr.Receive(ctx, dst)
		if err != nil {
			return err
		}
		come <- struct{}{}
		answering.Go(func() {
			<-goOn
			if err := tr.Accept(ctx, h.publish(tr.Offer(), dst, sum)); err != nil {
				t.Error(err)
			}
		})
		return nil
	}
	r := h.rawTCP(t).enter()
	var writing sync.WaitGroup
	writing.Go(func() {
		for n := uint64(1); n <= 300; n++ {
			_, _ = r.tls.Write(r.small(n, fmt.Sprint(n), nil))
		}
	})
	for range 256 {
		<-come
	}
	select {
	case <-come:
		t.Error("the 257th file has come, and none is answered")
	case <-time.After(50 * time.Millisecond):
	}
	close(goOn)
	var numbers []uint64
	for n := uint64(1); n <= 300; n++ {
		numbers = append(numbers, n)
	}
	r.expectStored(numbers...)
	writing.Wait()
	answering.Wait()
	r.bye()
	if errs := h.errors(); len(errs) != 0 {
		t.Errorf("errors %v", errs)
	}
}

// TestSessionV4Contexts ends contexts at several points, for reasons that the
// client is told.
func TestSessionV4Contexts(t *testing.T) {
	c := content(100_000)
	odd := errors.New("odd")
	for what, test := range map[string]struct {
		cause  error
		reason v4.Reason // 0: the client is told nothing
	}{
		"revoked":  {proto.ErrRevoked, v4.ReasonRevoked},
		"stopping": {fmt.Errorf("later: %w", proto.ErrStopping), v4.ReasonStopping},
		"busy":     {proto.ErrBusy, v4.ReasonBusy},
		"odd":      {odd, 0},
	} {
		for _, inside := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/inside=%v", what, inside), func(t *testing.T) {
				ctx, end := context.WithCancelCause(t.Context())
				h := newHostV4(alice(t))
				h.id, h.ctx = quickV4, ctx
				r := h.rawTCP(t).enter()
				number := uint64(0)
				if inside {
					number = 3
					r.offer(number, offerV4("f", c, 1))
					r.write(r.packets(c[:80_000], 0, 8192))
				} else { // a file before it, so that Next has been called
					r.write(r.small(1, "before", nil))
					r.expectStored(1)
				}
				end(test.cause)
				if test.reason != 0 {
					m := r.expectRefused(number, test.reason)
					if again := test.reason != v4.ReasonRevoked; (m.After > 0) != again {
						t.Errorf("after %d ms", m.After)
					}
				}
				r.expectEnd()
				errs := h.errors()
				if len(errs) == 0 || !errors.Is(errs[0], test.cause) {
					t.Errorf("got errors %v, want %v", errs, test.cause)
				}
			})
		}
	}
}

// TestSessionV4ContextBeforeNext ends the context before Next is called, when another file has
// come already: it is not taken, and the client hears why.
func TestSessionV4ContextBeforeNext(t *testing.T) {
	for range 20 { // what has come was taken by chance
		ctx, end := context.WithCancelCause(t.Context())
		h := newHostV4(alice(t))
		h.id, h.ctx = quickV4, ctx
		taken := 0
		h.take = func(_ context.Context, tr proto.Transfer) error {
			taken++
			dst := &stageV4{}
			sum, err := tr.Receive(t.Context(), dst)
			if err != nil {
				return err
			}
			err = tr.Accept(t.Context(), h.publish(tr.Offer(), dst, sum))
			end(proto.ErrBusy)
			return err
		}
		r := h.rawTCP(t).enter()
		r.write(append(r.small(1, "one", nil), r.small(2, "two", nil)...))
		r.expectStored(1)
		r.expectRefused(0, v4.ReasonBusy)
		r.expectEnd()
		if errs := h.errors(); taken != 1 || len(errs) == 0 || !errors.Is(errs[0], proto.ErrBusy) {
			t.Fatalf("%d files were taken, errors %v", taken, errs)
		}
		end(nil)
	}
}

// TestSessionV4ContextWhileFull ends the context while as many files as may be are
// not answered. They are answered all the same, and then the client hears why.
func TestSessionV4ContextWhileFull(t *testing.T) {
	ctx, end := context.WithCancelCause(t.Context())
	h := newHostV4(alice(t))
	h.ctx = ctx
	come := make(chan struct{}, 1000)
	var answers []func()
	h.take = func(ctx context.Context, tr proto.Transfer) error {
		dst := &stageV4{}
		sum, err := tr.Receive(ctx, dst)
		answers = append(answers, func() {
			if err := tr.Accept(ctx, h.publish(tr.Offer(), dst, sum)); err != nil {
				t.Error(err)
			}
		})
		come <- struct{}{}
		return err
	}
	h.settle = func() {
		for _, answer := range answers {
			answer()
		}
	}
	r := h.rawTCP(t).enter()
	var numbers []uint64
	for n := uint64(1); n <= 257; n++ {
		r.write(r.small(n, fmt.Sprint(n), nil))
		numbers = append(numbers, n)
	}
	for range 256 {
		<-come
	}
	end(proto.ErrStopping)
	r.expectStored(numbers[:256]...)
	r.expectRefused(0, v4.ReasonStopping)
	r.expectEnd()
	if _, stored := h.stored("257"); stored || len(answers) != 256 {
		t.Errorf("%d files were taken", len(answers))
	}
}

// TestSessionV4Slow is clients that take too long, in a time that is not real.
func TestSessionV4Slow(t *testing.T) {
	quickV4()
	keyV4()
	c := content(1 << 20)
	const idle = 30 * time.Second
	for what, test := range map[string]struct {
		rate int64
		do   func(r *rawV4) // until the server has ended it
		want time.Duration  // from the beginning of do
	}{
		"silent between files": {do: func(*rawV4) {}, want: idle},
		"a byte of a message now and then": {
			do: func(r *rawV4) {
				for _, b := range r.small(1, "f", c[:100]) {
					if _, err := r.tls.Write([]byte{b}); err != nil {
						return
					}
					time.Sleep(9 * time.Second)
				}
			},
			want: idle,
		},
		"silent within a file": {do: func(r *rawV4) { r.offer(1, offerV4("f", c, 1)) }, want: idle},
		"slow within a file": {
			rate: 1000,
			do: func(r *rawV4) {
				r.offer(1, offerV4("f", c, 1))
				for at := 0; ; at += 100 { // 20 bytes a second, and as many around them
					if _, err := r.tls.Write(r.message(v4.CodePacket, uint64(at), c[at:at+100])); err != nil {
						return
					}
					time.Sleep(5 * time.Second)
				}
			},
			want: idle + time.Second, // what came bought that, and a little more
		},
		"slow, and no rate is wanted": {
			rate: -1,
			do: func(r *rawV4) {
				r.offer(1, offerV4("f", c, 1))
				for at := range 10 {
					if _, err := r.tls.Write(r.message(v4.CodePacket, uint64(at), c[at:at+1])); err != nil {
						return
					}
					time.Sleep(20 * time.Second)
				}
			},
			want: 9*20*time.Second + idle,
		},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHostV4(alice(t))
				h.id = quickV4
				h.cfg.MinRate = test.rate
				r := h.raw(t).enter()
				start, took := time.Now(), time.Duration(0)
				var server sync.WaitGroup
				server.Go(func() {
					h.conns.Wait()
					took = time.Since(start)
				})
				test.do(r)
				go func() { _, _ = io.Copy(io.Discard, r.tls) }()
				server.Wait()
				// A second at most is for last words that nobody hears.
				if took < test.want || took > test.want+3*time.Second {
					t.Errorf("it ended after %v, want %v", took, test.want)
				}
				if errs := h.errors(); len(errs) == 0 || !errors.Is(errs[0], os.ErrDeadlineExceeded) {
					t.Errorf("got errors %v", errs)
				}
			})
		})
	}
}

// acceptAfter has files received, and accepted when wait returns, each in a
// goroutine of its own.
func (h *hostV4) acceptAfter(t *testing.T, wait func(tr proto.Transfer)) (answering *sync.WaitGroup) {
	answering = new(sync.WaitGroup)
	h.take = func(ctx context.Context, tr proto.Transfer) error {
		dst := &stageV4{}
		sum, err := tr.Receive(ctx, dst)
		if err != nil {
			return err
		}
		answering.Go(func() {
			wait(tr)
			if err := tr.Accept(ctx, h.publish(tr.Offer(), dst, sum)); err != nil {
				t.Error(err)
			}
		})
		return nil
	}
	return answering
}

// TestSessionV4SlowServer is a client that waits for an answer longer than it may
// be silent otherwise.
func TestSessionV4SlowServer(t *testing.T) {
	quickV4()
	keyV4()
	synctest.Test(t, func(t *testing.T) {
		h := newHostV4(alice(t))
		h.id = quickV4
		h.cfg.IdleTimeout = 10 * time.Second
		answering := h.acceptAfter(t, func(proto.Transfer) { time.Sleep(25 * time.Second) })
		r := h.raw(t).enter()
		stored := func(number uint64, name string) {
			t.Helper()
			start := time.Now()
			r.write(r.small(number, name, nil))
			said, m := r.still(start)
			if files := must(v4.ParseStored(m.Payload)).Numbers; m.Code != v4.CodeStored || !slices.Equal(files, []uint64{number}) {
				t.Errorf("%v of %v, want %v of %d", m.Code, files, v4.CodeStored, number)
			}
			if len(said) != 7 { // in thirds of the server's own time
				t.Errorf("said that it is at work %d times: %v", len(said), said)
			}
		}
		stored(1, "f")
		time.Sleep(9 * time.Second) // its own time begins with the answer
		stored(2, "g")
		answering.Wait()
		start := time.Now()
		_, _ = io.Copy(io.Discard, r.tls) // the client says nothing any more
		if d := time.Since(start); d < 9*time.Second || d > 21*time.Second {
			t.Errorf("it ended after %v", d)
		}
	})
}

// TestSessionV4DeafClient is one that reads no answers: the session ends, and
// nobody who answers waits for it.
func TestSessionV4DeafClient(t *testing.T) {
	quickV4()
	keyV4()
	synctest.Test(t, func(t *testing.T) {
		h := newHostV4(alice(t))
		h.id = quickV4
		h.cfg.IdleTimeout = 10 * time.Second
		r := h.raw(t).enter()
		start := time.Now()
		for n := uint64(1); ; n++ {
			if _, err := r.tls.Write(r.small(n, fmt.Sprint(n), nil)); err != nil {
				break
			}
			time.Sleep(time.Second)
		}
		if d := time.Since(start); d > 15*time.Second {
			t.Errorf("it ended after %v", d)
		}
		h.conns.Wait()
		if len(h.closing) != 1 || h.closing[0] == nil {
			t.Errorf("Close returned %v, want an error", h.closing)
		}
	})
}

// TestSessionV4DeafSender is one that sends a large file and does not read how far
// it is kept.
func TestSessionV4DeafSender(t *testing.T) {
	quickV4()
	keyV4()
	c := content(64 << 10)
	synctest.Test(t, func(t *testing.T) {
		h := newHostV4(alice(t))
		h.id = quickV4
		h.cfg.IdleTimeout = 10 * time.Second
		r := h.raw(t).enter()
		o := offerV4("f", nil, 1)
		o.Size, o.Known, o.Sum = 1<<40, false, v4.Sum{}
		r.offer(1, o)
		start := time.Now()
		for at := uint64(0); at < 256<<20; at += v4.MinPacket {
			if _, err := r.tls.Write(r.message(v4.CodePacket, at, c[:v4.MinPacket])); err != nil {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		// Half a window comes in 10 seconds, and nobody reads a word for 10 more.
		if d := time.Since(start); d > 40*time.Second {
			t.Errorf("it ended after %v", d)
		}
		h.conns.Wait()
		if errs := h.errors(); len(errs) == 0 || !errors.Is(errs[0], os.ErrDeadlineExceeded) {
			t.Errorf("got errors %v", errs)
		}
	})
}

func TestSessionV4Rotate(t *testing.T) {
	fresh := otherKeyV4()
	request := func(r *rawV4, key, signer *rsa.PrivateKey, exporter []byte, id proto.ClientID) []byte {
		der := spki(key)
		signature, err := v4.SignRotate(signer, v4.RotateContext(exporter, id, der))
		if err != nil {
			r.t.Fatal(err)
		}
		return v4.Rotate{Key: der, Signature: signature}.Append(nil)
	}
	h := newHostV4(alice(t))
	r := h.rawTCP(t).enter()
	r.say(v4.CodeRotate, 0, request(r, fresh, fresh, r.exporter(), r.id))
	if m := r.expect(v4.CodeThanks); m.Number != 0 || !bytes.Equal(m.Payload, v4.Offset{}.Append(nil)) {
		t.Errorf("thanks are %+v", m)
	}
	if got := h.dir.(*directory).all()[r.id].PublicKey; !bytes.Equal(got, spki(fresh)) {
		t.Error("the key on record is another one")
	}
	// The session goes on, also with yet another key.
	r.write(r.small(1, "f", nil))
	r.expectStored(1)
	r.say(v4.CodeRotate, 0, request(r, keyV4(), keyV4(), r.exporter(), r.id))
	r.expect(v4.CodeThanks)
	r.bye()
	h.rawTCP(t).enter().bye()

	for what, payload := range map[string]func(r *rawV4) []byte{
		"by the old key":      func(r *rawV4) []byte { return request(r, fresh, keyV4(), r.exporter(), r.id) },
		"of another session":  func(r *rawV4) []byte { return request(r, fresh, fresh, make([]byte, 32), r.id) },
		"of another client":   func(r *rawV4) []byte { return request(r, fresh, fresh, r.exporter(), proto.ClientID{7}) },
		"no key":              func(*rawV4) []byte { return v4.Rotate{Key: []byte("k"), Signature: []byte("s")}.Append(nil) },
		"replaced meanwhile":  nil,
		"the directory fails": nil,
	} {
		t.Run(what, func(t *testing.T) {
			h := newHostV4(alice(t))
			r := h.rawTCP(t).enter()
			d := h.dir.(*directory)
			switch what {
			case "replaced meanwhile":
				d.clients[r.id] = registration(t, "alice", r.id, spki(fresh))
			case "the directory fails":
				d.err = errors.New("disk")
			}
			if payload == nil {
				payload = func(r *rawV4) []byte { return request(r, fresh, fresh, r.exporter(), r.id) }
			}
			r.say(v4.CodeRotate, 0, payload(r))
			if what == "the directory fails" {
				r.expectRefused(0, v4.ReasonInternal)
				r.write(r.small(1, "f", nil)) // it goes on
				r.expectStored(1)
				r.bye()
				return
			}
			r.expectRefused(0, v4.ReasonUnauthorized)
			r.expectEnd()
			if got := d.all()[r.id].PublicKey; what != "replaced meanwhile" && !bytes.Equal(got, spki(keyV4())) {
				t.Error("the key was replaced")
			}
		})
	}
}

// TestSessionV4GivesUpLate: 902 of files that have been answered has no answer.
func TestSessionV4GivesUpLate(t *testing.T) {
	h := newHostV4(alice(t))
	h.id = quickV4
	r := h.rawTCP(t).enter()
	for range 256 {
		r.say(v4.CodeGiveUp, 7, nil)
	}
	r.write(r.small(1, "f", nil))
	r.expectStored(1)
	for range 257 {
		r.mutter(r.message(v4.CodeGiveUp, 7, nil))
	}
	if m := r.read(); m.Code != v4.CodeRefused {
		t.Errorf("got %v", m.Code)
	}
}

// TestSessionV4Recycled runs sessions one after another, each on its own connection,
// so that buffers are used again, and looks at what they hold.
func TestSessionV4Recycled(t *testing.T) {
	h := newHostV4(alice(t))
	h.id = quickV4
	var conns []net.Conn
	for i := range 5 {
		r := h.rawTCP(t).enter()
		c := content(int64(1 + i*700_000))
		c[0] = byte(i)
		name := fmt.Sprint("f", i)
		r.offer(1, offerV4(name, c, byte(i+1)))
		r.write(r.packets(c, 0, 65536), r.end(1, c), r.small(2, name+"s", c[:min(len(c), v4.MaxSmall)]))
		r.expectStored(1, 2)
		if !bytes.Equal(h.content(name), c) || !bytes.Equal(h.content(name+"s"), c[:min(len(c), v4.MaxSmall)]) {
			t.Errorf("%s is something else", name)
		}
		conns = append(conns, r.conn)
		r.bye()
	}
	if errs := h.errors(); len(errs) != 0 || len(conns) != 5 {
		t.Errorf("got errors %v", errs)
	}
}
