package proto_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/proto"
	"ferry/proto/v4"
)

// fileOver is larger than what is kept at a time.
const fileOver = 9<<20 + 12_345

// thanks reads the 1604 that come until another message, which it returns.
func (r *rawV4) thanks() ([]int64, messageV4) {
	r.t.Helper()
	var kept []int64
	for {
		m := r.read()
		if m.Code != v4.CodeThanks {
			return kept, m
		}
		o, err := v4.ParseOffset(m.Payload)
		if err != nil {
			r.t.Fatal(err)
		}
		kept = append(kept, o.Bytes)
	}
}

// TestTransferV4Keeps follows what is kept of a large file, and what is written
// at once.
func TestTransferV4Keeps(t *testing.T) {
	h := newHostV4(alice(t))
	h.id = quickV4
	r := h.rawTCP(t).enter()
	c := content(fileOver)
	stage := &stageV4{}
	h.stages[proto.TransferID{1}] = stage
	if from := r.offer(1, offerV4("f", c, 1)); from != 0 {
		t.Fatalf("wanted from %d", from)
	}
	go r.write(r.packets(c, 0, 64<<10), r.end(1, c))
	kept, m := r.thanks()
	want := []int64{4 << 20, 8 << 20}
	if m.Code != v4.CodeStored || !slices.Equal(kept, want) || !slices.Equal(stage.keeps, want) {
		t.Errorf("%v behind thanks for %v, kept %v, want %v", m.Code, kept, stage.keeps, want)
	}
	large := 0
	for _, n := range stage.writes {
		if n >= 256<<10 {
			large++
		}
	}
	if large < 14 {
		t.Errorf("writes of %v: want most of them large", stage.writes)
	}
	r.bye()
}

// TestTransferV4Resumes cuts a connection, and goes on in another where the first
// one ended.
func TestTransferV4Resumes(t *testing.T) {
	c := content(fileOver)
	for what, test := range map[string]struct {
		end  func(r *rawV4)
		from int64
	}{
		"left":                  {func(r *rawV4) { r.bye() }, 5<<20 + 1},
		"within a message, cut": {func(r *rawV4) { r.write(r.message(v4.CodePacket, 5<<20+1, c[:100])[:50]); r.conn.Close() }, 5<<20 + 1},
		"violation":             {func(r *rawV4) { r.say(v4.CodePacket, 1, c[:100]); r.expectRefused(1, v4.ReasonViolation) }, 4 << 20},
		"given up":              {func(r *rawV4) { r.say(v4.CodeGiveUp, 1, nil); r.bye() }, 0},
	} {
		t.Run(what, func(t *testing.T) {
			h := newHostV4(alice(t))
			h.id = quickV4
			r := h.rawTCP(t).enter()
			r.offer(1, offerV4("f", c, 1))
			r.write(r.packets(c[:5<<20+1], 0, 1<<20))
			r.expect(v4.CodeThanks)
			test.end(r)
			h.conns.Wait()

			r = h.rawTCP(t).enter()
			o := offerV4("f", c, 1)
			o.Known, o.Sum = false, v4.Sum{}
			from := r.offer(9, o)
			if from != test.from {
				t.Fatalf("it goes on at %d, want %d", from, test.from)
			}
			go r.write(r.packets(c, from, 1<<20), r.end(9, c))
			if _, m := r.thanks(); m.Code != v4.CodeStored || !bytes.Equal(h.content("f"), c) {
				t.Errorf("%v, and %d bytes are stored", m.Code, len(h.content("f")))
			}
			r.bye()
		})
	}
}

// TestTransferV4KeptIsNotGood is what was kept and cannot be gone on from.
func TestTransferV4KeptIsNotGood(t *testing.T) {
	c := content(10_000)
	summer := proto.NewSummer()
	_, _ = summer.Write(c[:5000])
	state := must(summer.MarshalBinary())
	for what, stage := range map[string]*stageV4{
		"no state":             {b: slices.Clone(c[:5000]), kept: 5000},
		"state of another":     {b: slices.Clone(c[:4000]), kept: 4000, state: state},
		"more than is offered": {b: content(10_001), kept: 10_001, state: state},
	} {
		t.Run(what, func(t *testing.T) {
			h := newHostV4(alice(t))
			h.id = quickV4
			h.stages[proto.TransferID{1}] = stage
			r := h.rawTCP(t).enter()
			if from := r.offer(1, offerV4("f", c, 1)); from != 0 || stage.resets != 1 {
				t.Fatalf("wanted from %d after %d resets", from, stage.resets)
			}
			r.write(r.packets(c, 0, 8192), r.end(1, c))
			r.expectStored(1)
			if !bytes.Equal(h.content("f"), c) {
				t.Error("something else is stored")
			}
			r.bye()
		})
	}
	t.Run("all of it is there", func(t *testing.T) {
		h := newHostV4(alice(t))
		h.id = quickV4
		h.stages[proto.TransferID{1}] = &stageV4{b: slices.Clone(c[:5000]), kept: 5000, state: state}
		r := h.rawTCP(t).enter()
		if from := r.offer(1, offerV4("f", c[:5000], 1)); from != 5000 {
			t.Fatalf("wanted from %d", from)
		}
		r.write(r.end(1, c[:5000]))
		r.expectStored(1)
		if !bytes.Equal(h.content("f"), c[:5000]) {
			t.Error("something else is stored")
		}
		r.bye()
	})
	t.Run("of a small file", func(t *testing.T) {
		h := newHostV4(alice(t))
		h.id = quickV4
		h.stages[proto.TransferID{1, 1}] = &stageV4{b: slices.Clone(c[:5000]), kept: 5000, state: state}
		r := h.rawTCP(t).enter()
		r.write(r.small(1, "f", c))
		r.expectStored(1)
		if !bytes.Equal(h.content("f"), c) {
			t.Error("something else is stored")
		}
		r.bye()
	})
}

// TestTransferV4Differs sends a file whose sums are never right.
func TestTransferV4Differs(t *testing.T) {
	c := content(100_000)
	wrong := bytes.Clone(c)
	wrong[50_000] ^= 1
	for good := 1; good <= 5; good++ {
		for what, last := range map[string]v4.Code{"gives up": v4.CodeGiveUp, "comes again": v4.CodeAgain} {
			t.Run(fmt.Sprintf("good at %d, then %s", good, what), func(t *testing.T) {
				h := newHostV4(alice(t))
				h.id = quickV4
				stage := &stageV4{}
				h.stages[proto.TransferID{1}] = stage
				r := h.rawTCP(t).enter()
				r.offer(1, offerV4("f", c, 1))
				for send := 1; send <= 4 && send < good; send++ {
					r.write(r.packets(wrong, 0, 8192), r.end(1, c))
					m, err := v4.ParseDiffers(r.expect(v4.CodeDiffers).Payload)
					if sum := sumOf(wrong); err != nil || m.Size != sum.Size || m.Sum.Cksum != sum.Cksum || m.Sum.SHA256 != sum.SHA256 {
						t.Fatalf("it has %+v, %v", m, err)
					}
					if stage.resets != send || len(stage.b) != 0 {
						t.Fatalf("after send %d: %d resets, %d bytes", send, stage.resets, len(stage.b))
					}
					if send < 4 {
						r.say(v4.CodeAgain, 1, nil)
					}
				}
				if good <= 4 {
					r.write(r.packets(c, 0, 8192), r.end(1, c))
					r.expectStored(1)
					if !bytes.Equal(h.content("f"), c) {
						t.Error("something else is stored")
					}
					r.bye()
					return
				}
				r.say(last, 1, nil)
				if last == v4.CodeAgain {
					r.expectRefused(1, v4.ReasonViolation)
					r.expectEnd()
				} else {
					r.write(r.small(2, "g", c[:10])) // it goes on
					r.expectStored(2)
					r.bye()
				}
				if errs := h.errors(); len(errs) == 0 || last == v4.CodeGiveUp && !errors.Is(errs[0], proto.ErrChecksum) {
					t.Errorf("got errors %v", errs)
				}
				if _, ok := h.stored("f"); ok {
					t.Error("it is stored")
				}
			})
		}
	}
}

// TestTransferV4OneSumDiffers: each of the two sums counts, of small files as well.
func TestTransferV4OneSumDiffers(t *testing.T) {
	c := content(1000)
	for what, change := range map[string]func(*v4.Sum){
		"cksum":   func(s *v4.Sum) { s.Cksum ^= 1 },
		"SHA-256": func(s *v4.Sum) { s.SHA256[31] ^= 1 },
	} {
		t.Run(what, func(t *testing.T) {
			h := newHostV4(alice(t))
			h.id = quickV4
			r := h.rawTCP(t).enter()
			o := offerV4("f", c, 1)
			change(&o.Sum)
			r.offer(1, o)
			r.write(r.packets(c, 0, 8192))
			r.say(v4.CodeEnd, 1, o.Sum.Append(nil))
			r.expect(v4.CodeDiffers)
			r.say(v4.CodeGiveUp, 1, nil)
			o.Transfer[0]++
			r.say(v4.CodeFile, 2, append(o.Append(nil), c...))
			if m := r.expect(v4.CodeDiffers); m.Number != 2 {
				t.Errorf("1608 for %d", m.Number)
			}
			r.write(r.small(3, "f", c))
			r.expectStored(3)
			r.bye()
			if errs := h.errors(); len(errs) != 2 || !errors.Is(errs[0], proto.ErrChecksum) || !errors.Is(errs[1], proto.ErrChecksum) {
				t.Errorf("got errors %v", errs)
			}
		})
	}
}

// TestTransferV4SinkFails is a disk that takes no more, at several points, and
// what the client may do then.
func TestTransferV4SinkFails(t *testing.T) {
	c := content(6 << 20)
	secret := errors.New("write /var/lib/ferry/staging/17: no space left on device")
	for what, test := range map[string]struct {
		limit int
		err   error
		code  v4.Reason
	}{
		"at once":        {0, proto.ErrNoRoom, v4.ReasonNoRoom},
		"in the middle":  {3 << 20, fmt.Errorf("%w: %w", proto.ErrQuota, secret), v4.ReasonQuota},
		"near the end":   {6<<20 - 1, secret, v4.ReasonInternal},
		"its own reason": {1 << 20, &proto.RefusedError{Why: proto.ErrBusy, Words: "come back", After: time.Minute}, v4.ReasonBusy},
	} {
		for how, rest := range map[string]func(r *rawV4){
			"gives up": func(r *rawV4) { r.say(v4.CodeGiveUp, 1, nil) },
			"ends":     func(r *rawV4) { r.write(r.end(1, c)) },
			"again":    func(r *rawV4) { r.say(v4.CodeAgain, 1, nil) },
			"again, and a packet": func(r *rawV4) {
				r.say(v4.CodeAgain, 1, nil)
				r.write(r.packets(c[:8192], 0, 8192))
				r.say(v4.CodeGiveUp, 1, nil)
			},
		} {
			t.Run(what+", "+how, func(t *testing.T) {
				h := newHostV4(alice(t))
				h.id = quickV4
				h.stages[proto.TransferID{1}] = &stageV4{limit: test.limit, err: test.err}
				r := h.rawTCP(t).enter()
				r.offer(1, offerV4("f", c, 1))
				written := make(chan struct{})
				go func() {
					defer close(written)
					r.write(r.packets(c, 0, 64<<10))
				}()
				_, m := r.thanks()
				refused, err := v4.ParseRefused(m.Payload)
				if m.Code != v4.CodeRefused || m.Number != 1 || err != nil || refused.Reason != test.code {
					t.Fatalf("got %v for %d, %+v, %v", m.Code, m.Number, refused, err)
				}
				if strings.Contains(refused.Words, "/var") || refused.After == 0 {
					t.Errorf("refused with %+v", refused)
				}
				if own := test.code == v4.ReasonBusy; own && (refused.Words != "come back" || refused.After != 60_000) {
					t.Errorf("refused with %+v", refused)
				}
				<-written
				rest(r)
				r.write(r.small(2, "g", c[:100]))
				r.expectStored(2)
				r.bye()
				if errs := h.errors(); len(errs) != 1 || !errors.Is(errs[0], test.err) {
					t.Errorf("got errors %v", errs)
				}
				if _, ok := h.stored("f"); ok {
					t.Error("it is stored")
				}
			})
		}
	}
}

// TestTransferV4SinkEndsSession: the sink's error can be one that ends the
// session.
func TestTransferV4SinkEndsSession(t *testing.T) {
	h := newHostV4(alice(t))
	h.id = quickV4
	h.stages[proto.TransferID{1}] = &stageV4{err: proto.ErrRevoked}
	r := h.rawTCP(t).enter()
	c := content(100_000)
	r.offer(1, offerV4("f", c, 1))
	r.write(r.packets(c, 0, 64<<10), r.end(1, c))
	r.expectRefused(1, v4.ReasonRevoked)
	r.expectEnd()
	if errs := h.errors(); len(errs) != 2 || !errors.Is(errs[1], proto.ErrRevoked) {
		t.Errorf("got errors %v", errs)
	}
}

// TestTransferV4RefusedGoesOn is a client that sends a refused file without end.
func TestTransferV4RefusedGoesOn(t *testing.T) {
	h := newHostV4(alice(t))
	h.id = quickV4
	h.stages[proto.TransferID{1}] = &stageV4{err: proto.ErrNoRoom}
	r := h.rawTCP(t).enter()
	o := v4.Offer{Transfer: proto.TransferID{1}, Size: math.MaxInt64, ModTime: v4.NoTime, Name: "f"}
	r.offer(1, o)
	c := content(1 << 20)
	sent := make(chan int, 1)
	go func() {
		n := 0
		for ; ; n++ {
			if _, err := r.tls.Write(r.message(v4.CodePacket, uint64(n)<<20, c)); err != nil || n > 100 {
				break
			}
		}
		sent <- n
	}()
	r.expectRefused(1, v4.ReasonNoRoom)
	r.expectRefused(0, v4.ReasonViolation)
	r.expectEnd()
	if n := <-sent; n > 60 {
		t.Errorf("%d MiB were sent", n)
	}
}

// TestTransferV4Offers is what the session refuses by itself, and passes on.
func TestTransferV4Offers(t *testing.T) {
	h := newHostV4(alice(t))
	h.id = quickV4
	h.cfg.MaxFileSize = 1000
	var told []string
	h.cfg.Refused = func(client, file string, why error) { told = append(told, client+" "+file) }
	offers := make(chan proto.Offer, 10)
	store := h.store
	h.take = func(ctx context.Context, tr proto.Transfer) error {
		offers <- tr.Offer()
		return store(ctx, tr)
	}
	r := h.rawTCP(t).enter()
	c := content(1001)
	number := uint64(0)
	for _, name := range []string{"", ".", "a/../b", "/a", "a//b", "a\\b", "a\x00", "\xff", "e\u0301", strings.Repeat("x", 256)} {
		number++
		r.say(v4.CodeOffer, number, offerV4(name, c[:10], 1).Append(nil))
		if m := r.expectRefused(number, v4.ReasonName); m.After != 0 || m.Words == "" {
			t.Errorf("%q: refused with %+v", name, m)
		}
		number++
		r.write(r.small(number, name, c[:10]))
		r.expectRefused(number, v4.ReasonName)
	}
	r.say(v4.CodeOffer, 98, offerV4("large", c, 1).Append(nil))
	r.expectRefused(98, v4.ReasonTooLarge)
	r.write(r.small(99, "small", c))
	r.expectRefused(99, v4.ReasonTooLarge)
	if len(told) != 22 || told[21] != "alice small" {
		t.Errorf("told of %q", told)
	}
	o := offerV4("dir/\u00e9", c[:10], 3)
	o.Mode, o.ModTime = 0o640, 1_700_000_000_123_456_789
	r.say(v4.CodeFile, 100, append(o.Append(nil), c[:10]...))
	r.expectStored(100)
	sum := sumOf(c[:10])
	got := <-offers
	if got.Sum == nil || *got.Sum != sum || !got.ModTime.Equal(time.Unix(0, o.ModTime)) || got.Mode != 0o640 || got.Size != 10 ||
		got.Name.String() != o.Name || got.ID != o.Transfer {
		t.Errorf("the offer is %+v", got)
	}
	o = v4.Offer{Transfer: proto.TransferID{4}, Size: 10, ModTime: v4.NoTime, Name: "g"}
	r.offer(101, o)
	if got := <-offers; got.Sum != nil || !got.ModTime.IsZero() || got.Mode != 0 {
		t.Errorf("the offer is %+v", got)
	}
	r.say(v4.CodeGiveUp, 101, nil)
	r.bye()
}

// TestTransferV4Exists asks for what is stored in every way.
func TestTransferV4Exists(t *testing.T) {
	c, other := content(1000), content(1001)
	h := newHostV4(alice(t))
	r := h.rawTCP(t).enter()
	r.write(r.small(1, "f", c))
	first := r.expectStored(1)[0]

	unknown := func(o v4.Offer) v4.Offer { o.Known, o.Sum = false, v4.Sum{}; return o }
	same := offerV4("f", c, 0)
	same.Transfer = first.Transfer
	for what, test := range map[string]struct {
		o      v4.Offer
		stored bool
	}{
		"the same transfer":                {same, true},
		"the same transfer, sum not known": {unknown(same), true},
		"the same content":                 {offerV4("f", c, 9), true},
		"other content":                    {offerV4("f", other, 9), false},
		"sum not known":                    {unknown(offerV4("f", c, 9)), false},
	} {
		r.say(v4.CodeOffer, 5, test.o.Append(nil))
		if test.stored {
			if got := r.expectStored(5); got[0] != first {
				t.Errorf("%s: the receipt says %+v, want %+v", what, got[0], first)
			}
			continue
		}
		m := r.expectRefused(5, v4.ReasonExists)
		if m.Exists.Size != first.Sum.Size || m.Exists.Sum.SHA256 != first.Sum.SHA256 || m.Exists.Sum.Cksum != first.Sum.Cksum || m.After != 0 {
			t.Errorf("%s: refused with %+v", what, m)
		}
		r.say(v4.CodeGiveUp, 5, nil) // a client may, and need not
	}
	r.write(r.small(6, "f", c))
	if got := r.expectStored(6); got[0] != first {
		t.Errorf("small: the receipt says %+v, want %+v", got[0], first)
	}
	r.write(r.small(7, "f", other))
	r.expectRefused(7, v4.ReasonExists)

	// Found out only when all has come.
	h.mu.Lock()
	h.take = func(ctx context.Context, tr proto.Transfer) error {
		if _, err := tr.Receive(ctx, &stageV4{}); err != nil {
			return err
		}
		return tr.Exists(ctx, first)
	}
	h.mu.Unlock()
	r.bye()
	r = h.rawTCP(t).enter()
	for n, b := range [][]byte{c, other} {
		number := uint64(n)
		o := unknown(offerV4("f", b, 9))
		r.offer(number, o)
		r.write(r.packets(b, 0, 8192), r.end(number, b))
		if n == 0 {
			if got := r.expectStored(number); got[0] != first {
				t.Errorf("the receipt says %+v, want %+v", got[0], first)
			}
		} else {
			r.expectRefused(number, v4.ReasonExists)
		}
	}
	r.bye()
	if errs := h.errors(); len(errs) != 0 {
		t.Errorf("got errors %v", errs)
	}
}

// TestTransferV4Refusals is what a client is told of each error, before a byte
// and after the last.
func TestTransferV4Refusals(t *testing.T) {
	path := errors.New("/var/lib/ferry/catalog.db: disk I/O error")
	for _, test := range []struct {
		why    error
		reason v4.Reason
		again  bool
		ends   bool
	}{
		{path, v4.ReasonInternal, true, false},
		{proto.ErrRefused, v4.ReasonInternal, true, false},
		{proto.ErrExists, v4.ReasonInternal, true, false}, // the name was taken meanwhile: ask again what by
		{&proto.ExistsError{Sum: sumOf([]byte("x"))}, v4.ReasonExists, false, false},
		{proto.ErrName, v4.ReasonName, false, false},
		{proto.ErrTooLarge, v4.ReasonTooLarge, false, false},
		{proto.ErrQuota, v4.ReasonQuota, true, false},
		{proto.ErrNoRoom, v4.ReasonNoRoom, true, false},
		{proto.ErrBusy, v4.ReasonBusy, true, false},
		{proto.ErrUnauthorized, v4.ReasonUnauthorized, false, true},
		{proto.ErrRevoked, v4.ReasonRevoked, false, true},
		{proto.ErrStopping, v4.ReasonStopping, true, true},
	} {
		for _, received := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v/received=%v", test.why, received), func(t *testing.T) {
				h := newHostV4(alice(t))
				h.id = quickV4
				h.take = func(ctx context.Context, tr proto.Transfer) error {
					if tr.Offer().Name.String() != "f" {
						return h.store(ctx, tr)
					}
					if received {
						if _, err := tr.Receive(ctx, &stageV4{}); err != nil {
							return err
						}
					}
					return tr.Refuse(ctx, fmt.Errorf("%w: %w", test.why, path))
				}
				r := h.rawTCP(t).enter()
				c := content(100)
				if received {
					r.offer(1, offerV4("f", c, 1))
					r.write(r.packets(c, 0, 8192), r.end(1, c))
				} else {
					r.say(v4.CodeOffer, 1, offerV4("f", c, 1).Append(nil))
				}
				m := r.expectRefused(1, test.reason)
				if (m.After > 0) != test.again || strings.Contains(m.Words, "/var") {
					t.Errorf("refused with %+v", m)
				}
				if test.ends {
					r.mutter(r.small(2, "g", c))
					_, _ = io.Copy(io.Discard, r.tls)
					r.conn.Close()
					if errs := h.errors(); len(errs) == 0 {
						t.Error("the session did not end with an error")
					}
					return
				}
				r.write(r.small(2, "g", c))
				r.expectStored(2)
				r.bye()
				if errs := h.errors(); len(errs) != 0 {
					t.Errorf("got errors %v", errs)
				}
			})
		}
	}
}

// TestTransferV4Words are cut to their limit between two characters.
func TestTransferV4Words(t *testing.T) {
	h := newHostV4(alice(t))
	h.id = quickV4
	h.take = func(ctx context.Context, tr proto.Transfer) error {
		return tr.Refuse(ctx, &proto.RefusedError{Why: proto.ErrBusy, Words: strings.Repeat("é", 400) + "\xff", After: 100 * 24 * 365 * time.Hour})
	}
	r := h.rawTCP(t).enter()
	r.write(r.small(1, "f", nil))
	m := r.expectRefused(1, v4.ReasonBusy)
	if m.Words != strings.Repeat("é", 256) || m.After != math.MaxUint32 {
		t.Errorf("refused with %d ms, %q", m.After, m.Words)
	}
	r.bye()
}

// TestTransferV4NotStatable: what no receipt can say is an error of Accept, and
// the file can still be refused.
func TestTransferV4NotStatable(t *testing.T) {
	h := newHostV4(alice(t))
	h.id = quickV4
	h.take = func(ctx context.Context, tr proto.Transfer) error {
		sum, err := tr.Receive(ctx, &stageV4{})
		if err != nil {
			return err
		}
		for _, as := range []proto.Stored{
			{},
			{Name: tr.Offer().Name, Sum: sum},
			{Name: fileName(t, "other"), Sum: sum, At: time.Now()},
		} {
			if err := tr.Accept(ctx, as); err == nil {
				t.Errorf("accepted as %+v", as)
			}
		}
		return tr.Refuse(ctx, errors.New("disk"))
	}
	r := h.rawTCP(t).enter()
	r.write(r.small(1, "f", nil))
	r.expectRefused(1, v4.ReasonInternal)
	r.bye()
}

// TestTransferV4Misused is a caller that does what it may not.
func TestTransferV4Misused(t *testing.T) {
	panics := func(what string, f func()) {
		t.Helper()
		defer func() {
			if recover() == nil {
				t.Errorf("%s: no panic", what)
			}
		}()
		f()
	}
	h := newHostV4(alice(t))
	h.id = quickV4
	h.take = func(ctx context.Context, tr proto.Transfer) error {
		as := proto.Stored{Name: tr.Offer().Name, At: time.Now()}
		panics("accept before receive", func() { _ = tr.Accept(ctx, as) })
		if _, err := tr.Receive(ctx, &stageV4{}); err != nil {
			return err
		}
		panics("receive twice", func() { _, _ = tr.Receive(ctx, &stageV4{}) })
		if err := tr.Refuse(ctx, proto.ErrBusy); err != nil {
			return err
		}
		panics("refuse twice", func() { _ = tr.Refuse(ctx, proto.ErrBusy) })
		panics("accept after refuse", func() { _ = tr.Accept(ctx, as) })
		return nil
	}
	r := h.rawTCP(t).enter()
	r.write(r.small(1, "f", nil))
	r.expectRefused(1, v4.ReasonBusy)
	r.bye()
}

// TestTransferV4Huge offers sizes at which 32 and 63 bits end, and ends each after a
// byte: nothing is reserved for a claim.
func TestTransferV4Huge(t *testing.T) {
	h := newHostV4(alice(t))
	h.id = quickV4
	var offered []int64
	h.take = func(ctx context.Context, tr proto.Transfer) error {
		offered = append(offered, tr.Offer().Size)
		_, err := tr.Receive(ctx, &stageV4{})
		return err
	}
	r := h.rawTCP(t).enter()
	sizes := []int64{1<<31 - 1, 1 << 31, 1<<31 + 1, 1<<32 - 1, 1 << 32, 1<<32 + 1, math.MaxInt64}
	for n, size := range sizes {
		r.offer(uint64(n), v4.Offer{Size: size, ModTime: v4.NoTime, Name: "f"})
		r.say(v4.CodePacket, 0, []byte{1})
		r.say(v4.CodeGiveUp, uint64(n), nil)
	}
	r.bye()
	h.conns.Wait()
	if !slices.Equal(offered, sizes) {
		t.Errorf("offered were %v, want %v", offered, sizes)
	}
}
