package proto_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"ferry/proto"
	"ferry/proto/prototest"
	"ferry/proto/v3"
)

// offer is a file of that size with the content of that size.
func offer(t testing.TB, name string, size int64) (proto.Offer, proto.Source) {
	t.Helper()
	sum := sumOf(content(size))
	return proto.Offer{Name: fileName(t, name), Size: size, Sum: &sum}, bytesOf(content(size))
}

func send(t testing.TB, c *proto.Client, name string, size int64) (proto.Receipt, error) {
	t.Helper()
	o, src := offer(t, name, size)
	return c.Send(t.Context(), o, src, proto.Watcher{})
}

// wrongSums makes the first n checksums that the server states wrong.
func wrongSums(n int) func(net.Conn) net.Conn {
	return func(c net.Conn) net.Conn { return &liar{Conn: c, left: n} }
}

type liar struct {
	net.Conn
	left int
}

func (l *liar) Write(b []byte) (int, error) {
	changed := bytes.Clone(b)
	for at := 0; at < len(b); {
		h := must(v3.ParseResponseHeader(b[at : at+v3.ResponseHeaderSize]))
		at += v3.ResponseHeaderSize + int(h.PayloadSize)
		if h.Code == v3.CodeReceived && l.left > 0 {
			l.left--
			changed[at-1] ^= 0x5a
		}
	}
	return l.Conn.Write(changed)
}

func TestResends(t *testing.T) {
	for _, way := range ways {
		for wrong := 1; wrong <= 4; wrong++ {
			t.Run(fmt.Sprintf("%s/%d wrong", way.url, wrong), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					for _, size := range []int64{100, 3 * way.slice} {
						h := newHost()
						h.wrap = wrongSums(wrong)
						c := h.client(t, way.url)
						opened, matched := 0, false
						o, src := offer(t, "file", size)
						r, err := c.Send(t.Context(), o, func() (io.ReadCloser, error) { opened++; return src() },
							proto.Watcher{Matched: func(context.Context) error { matched = true; return nil }})
						synctest.Wait()
						switch {
						case wrong < 4 && (err != nil || r.Sends != wrong+1 || opened != wrong+1 || !matched):
							t.Errorf("%d bytes: %d sends, opened %d times, matched %v, %v; the server: %v", size, r.Sends, opened, matched, err, h.errors())
						case wrong < 4 && !bytes.Equal(h.file("file"), content(size)):
							t.Errorf("%d bytes have not arrived", size)
						case wrong == 4 && (!errors.Is(err, proto.ErrChecksum) || matched || opened != 4 || h.file("file") != nil):
							t.Errorf("%d bytes: %v, want %v; opened %d times, matched %v", size, err, proto.ErrChecksum, opened, matched)
						case wrong == 4 && proto.Permanent(err):
							t.Error("a wrong checksum is permanent")
						}
					}
				})
			})
		}
	}
}

func TestRefusals(t *testing.T) {
	noRoom := errors.New("no room")
	limited := func(n int) func() *sink {
		return func() *sink { return &sink{limit: n, err: noRoom} }
	}
	for _, way := range ways {
		for _, test := range []struct {
			name    string
			change  func(*host)
			want    error
			matched bool
		}{
			{"exists", func(h *host) { h.files["file"] = []byte("another") }, proto.ErrExists, false},
			{"refused", func(h *host) { h.refuse = func(proto.Offer) error { return noRoom } }, proto.ErrRefused, false},
			{"too large", func(h *host) { h.cfg.MaxFileSize = 9 }, proto.ErrRefused, false},
			{"first write", func(h *host) { h.sink = limited(0) }, proto.ErrRefused, false},
			{"a later write", func(h *host) { h.sink = limited(40_000) }, proto.ErrRefused, false},
			{"at the end", func(h *host) { h.accept = func(proto.Offer, []byte) error { return noRoom } }, proto.ErrRefused, true},
			{"exists at the end", func(h *host) { h.accept = func(proto.Offer, []byte) error { return proto.ErrExists } }, proto.ErrRefused, true},
		} {
			for _, size := range []int64{10, 3 * way.slice, 1_000_000} {
				if test.name == "a later write" && size < 50_000 {
					continue
				}
				t.Run(fmt.Sprintf("%s/%s/%d", way.url, test.name, size), func(t *testing.T) {
					if test.matched && way.url == "v3://h?dialect=mainstream&slice=734" {
						t.Skip("over a pipe, which has no half to close, this dialect has no answer to its end")
					}
					synctest.Test(t, func(t *testing.T) {
						h := newHost()
						test.change(h)
						c := h.client(t, way.url)
						matched := false
						o, src := offer(t, "file", size)
						start := time.Now()
						_, err := c.Send(t.Context(), o, src, proto.Watcher{
							Matched: func(context.Context) error { matched = true; return nil },
						})
						if !errors.Is(err, test.want) || matched != test.matched {
							t.Errorf("%v, matched %v; want %v, %v", err, matched, test.want, test.matched)
						}
						if permanent := proto.Permanent(err); permanent != errors.Is(test.want, proto.ErrExists) {
							t.Errorf("permanent: %v", permanent)
						}
						if d := time.Since(start); d > 0 {
							t.Errorf("the client heard of it after %v", d)
						}
					})
				})
			}
		}
	}
}

// A name that exists is not the end of the conversation, nor is anything else
// that the server refuses.
func TestSessionGoesOn(t *testing.T) {
	for _, d := range []v3.Dialect{v3.Seed(), v3.Mainstream(4096), v3.PerSlice(1040)} {
		for _, why := range []error{proto.ErrExists, errors.New("no room")} {
			t.Run(fmt.Sprintf("%s/%v", d.Name, why), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					h := newHost()
					h.refuse = func(o proto.Offer) error {
						if o.Name.String() == "refused" {
							return why
						}
						return nil
					}
					r := h.raw(t).enter("alice")
					codes := []v3.Code{v3.CodeGeneralError}
					if d.AckPackets && !errors.Is(why, proto.ErrExists) {
						codes = []v3.Code{v3.CodeThanks, v3.CodeGeneralError}
					}
					refused := r.packets(d, "refused", content(50_000))
					r.mutter(bytes.Join(refused[:5], nil)) // all on their way
					if d := cmp.Diff(codes, answersNow(r, len(codes))); d != "" {
						t.Fatalf("answers (-want +got):\n%s", d)
					}
					synctest.Wait()
					if d.AckPackets { // a seed's client repeats what was refused
						for range 3 {
							r.say(refused[4])
							r.expect(v3.CodeGeneralError)
						}
					}
					want := content(20_000)
					for _, p := range r.packets(d, "taken", want) {
						r.say(p)
						if d.AckPackets {
							r.expect(v3.CodeThanks)
						}
					}
					r.expect(v3.CodeReceived)
					r.say(r.confirm(v3.CodeEqual, "taken"))
					r.expect(v3.CodeThanks)
					if !bytes.Equal(h.file("taken"), want) {
						t.Errorf("the file behind it has not arrived: %v", h.errors())
					}
				})
			})
		}
	}
}

func TestRegistersAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost()
		keys := &keyring{}
		c := h.client(t, "v3://h", func(cfg *proto.ClientConfig) { cfg.Keyring = keys })
		first, err := send(t, c, "a", 10)
		if err != nil {
			t.Fatal(err)
		}
		// Another Client has it from the keyring.
		other := h.client(t, "v3://h", func(cfg *proto.ClientConfig) { cfg.Keyring = keys })
		if r, err := send(t, other, "b", 10); err != nil || r.ClientID != first.ClientID || keys.saves != 1 {
			t.Fatalf("client %v, %v; want %v again, saved once and not %d times", r.ClientID, err, first.ClientID, keys.saves)
		}
		h.dir.forgetAll()
		r, err := send(t, c, "c", 10)
		if err != nil || r.ClientID == first.ClientID || keys.id.ID != r.ClientID || keys.saves != 2 {
			t.Fatalf("client %v, %v; want another than %v, saved", r.ClientID, err, first.ClientID)
		}
		// The other one's id is the old one; what is in the keyring is better
		// than to register once more, under a name that is taken.
		if again, err := send(t, other, "d", 10); err != nil || again.ClientID != r.ClientID {
			t.Fatalf("client %v, %v; want %v", again.ClientID, err, r.ClientID)
		}
	})
}

func TestRegistersOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost()
		keys := &keyring{}
		c := h.client(t, "v3://h?window=64", func(cfg *proto.ClientConfig) { cfg.Keyring = keys })
		for round := range 3 {
			var all sync.WaitGroup
			for i := range 20 {
				all.Go(func() {
					if _, err := send(t, c, fmt.Sprintf("%d of %d", i, round), 1000); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			if keys.saves != round+1 || len(h.dir.all()) != 1 {
				t.Errorf("registered %d times, %d clients", keys.saves, len(h.dir.all()))
			}
			c.Close()
			h.dir.forgetAll()
			c = h.client(t, "v3://h?window=64", func(cfg *proto.ClientConfig) { cfg.Keyring = keys })
		}
	})
}

func TestNameTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost()
		_, public := publicKeyOf(t, aliceKey())
		h.dir = newDirectory(registration(t, "alice", proto.ClientID{1}, public))
		keys := &keyring{}
		c := h.client(t, "v3://h", func(cfg *proto.ClientConfig) { cfg.Keyring = keys })
		if _, err := send(t, c, "file", 10); !errors.Is(err, proto.ErrNameTaken) || keys.ok {
			t.Errorf("%v, saved %v; want %v", err, keys.ok, proto.ErrNameTaken)
		}
	})
}

// Wherever the connection breaks while the client registers, it can register
// afterwards, or is known.
func TestRegistrationBreaks(t *testing.T) {
	const whole = 278 + 438 // 825 and 826
	for n := int64(0); n <= whole; n += 31 {
		synctest.Test(t, func(t *testing.T) {
			h := newHost()
			keys := &keyring{}
			dials := 0
			c := h.client(t, "v3://h", func(cfg *proto.ClientConfig) {
				cfg.Keyring = keys
				cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
					conn, err := h.dial(ctx, network, address)
					if dials++; dials == 1 {
						conn = prototest.Faulty(conn, prototest.CutWrite(n))
					}
					return conn, err
				}
			})
			if _, err := send(t, c, "file", 10); err == nil || proto.Permanent(err) {
				t.Errorf("cut after %d bytes: %v", n, err)
			}
			c.Close() // what it knows is lost, as in a crash
			c = h.client(t, "v3://h", func(cfg *proto.ClientConfig) { cfg.Keyring = keys })
			if _, err := send(t, c, "file", 10); err != nil {
				t.Errorf("after a cut after %d bytes: %v", n, err)
			}
		})
	}
}

// An identity that could not be saved is not used.
func TestIdentityNotSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost()
		keys := &keyring{saveErr: errors.New("disk full")}
		c := h.client(t, "v3://h", func(cfg *proto.ClientConfig) { cfg.Keyring = keys })
		if _, err := send(t, c, "file", 10); !errors.Is(err, keys.saveErr) || len(h.dir.all()) != 0 {
			t.Errorf("%v, %d clients registered; want %v and none", err, len(h.dir.all()), keys.saveErr)
		}
		keys.saveErr = nil
		if _, err := send(t, c, "file", 10); err != nil {
			t.Error(err)
		}
	})
}

// An old server takes a name with 825 already. If the connection breaks behind
// it, the client has an id and may still send its key.
func TestHalfRegisteredAtOldServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near := make(chan net.Conn, 2)
		defer close(near)
		id := v3.ID{7}
		var said []v3.Code
		var conns sync.WaitGroup
		serve := func(conn net.Conn, answers ...answer) {
			conns.Go(func() {
				defer conn.Close()
				for _, a := range answers {
					h := make([]byte, v3.RequestHeaderSize)
					if _, err := io.ReadFull(conn, h); err != nil {
						return
					}
					said = append(said, codeOf(h))
					_, _ = io.CopyN(io.Discard, conn, int64(must(v3.ParseRequestHeader(h)).PayloadSize))
					_, _ = conn.Write(append(v3.ResponseHeader{Code: a.Code, PayloadSize: uint32(len(a.Payload))}.Append(nil), a.Payload...))
				}
			})
		}
		dials := 0
		c := proto.NewClient(proto.ClientConfig{
			To: destination(t, "v3://h"), Name: clientName(t, "alice"), Keyring: &keyring{},
			Dial: func(context.Context, string, string) (net.Conn, error) {
				near, far := net.Pipe()
				if dials++; dials == 1 {
					serve(far, answer{Code: v3.CodeRegistered, Payload: id[:]})
				} else {
					serve(far, answer{Code: v3.CodeGeneralError}, answer{Code: v3.CodeNameTaken}, answer{Code: v3.CodeGeneralError})
				}
				return near, nil
			},
		})
		for range 2 {
			if _, err := send(t, c, "file", 10); err == nil {
				t.Error("sent")
			}
			conns.Wait()
		}
		want := []v3.Code{v3.CodeRegister, v3.CodeReconnect, v3.CodeRegister, v3.CodePublicKey}
		if d := cmp.Diff(want, said); d != "" {
			t.Errorf("said (-want +got):\n%s", d)
		}
	})
}

func TestParallel(t *testing.T) {
	for url, most := range map[string]int32{"v3://h": 1, "v3://h?window=8": 8} {
		synctest.Test(t, func(t *testing.T) {
			h := newHost()
			var now, peak atomic.Int32
			h.accept = func(proto.Offer, []byte) error {
				peak.Store(max(peak.Load(), now.Add(1)))
				time.Sleep(time.Second)
				now.Add(-1)
				return nil
			}
			c := h.client(t, url)
			var all sync.WaitGroup
			for i := range 20 {
				all.Go(func() {
					if _, err := send(t, c, fmt.Sprint(i), 100); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			if peak.Load() != most {
				t.Errorf("%s: %d sends at once, want %d", url, peak.Load(), most)
			}
			wantConns := 20
			if most > 1 {
				wantConns = int(most)
			}
			if got := h.connections(); got != wantConns {
				t.Errorf("%s: %d connections, want %d", url, got, wantConns)
			}
		})
	}
}

func TestWaitingObeysContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost()
		release := make(chan struct{})
		h.accept = func(proto.Offer, []byte) error { <-release; return nil }
		c := h.client(t, "v3://h")
		var first sync.WaitGroup
		first.Go(func() {
			if _, err := send(t, c, "first", 10); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		cause := errors.New("no more")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(cause) })
		o, src := offer(t, "second", 10)
		if _, err := c.Send(ctx, o, src, proto.Watcher{}); !errors.Is(err, cause) {
			t.Errorf("%v, want %v", err, cause)
		}
		close(release)
		first.Wait()
	})
}

// Kept connections that end meanwhile are not an error, whenever the client
// gets to know.
func TestKeptConnections(t *testing.T) {
	t.Run("closed by the server", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := newHost()
			h.cfg.IdleTimeout = time.Second
			c := h.client(t, "v3://h?window=8")
			for i := range 3 {
				if _, err := send(t, c, fmt.Sprint(i), 100); err != nil {
					t.Error(err)
				}
				time.Sleep(5 * time.Second)
			}
			if got := h.connections(); got != 3 {
				t.Errorf("%d connections, want 3", got)
			}
		})
	})
	t.Run("closed at the same moment", func(t *testing.T) {
		for n := range int64(300) {
			synctest.Test(t, func(t *testing.T) {
				const whole = 278 + 306 + 278 // 827, 828, 900
				h := newHost()
				h.wrap = func(conn net.Conn) net.Conn { return prototest.Faulty(conn, prototest.CutRead(whole+1+n)) }
				c := h.client(t, "v3://h?window=8")
				for i := range 2 {
					r, err := send(t, c, fmt.Sprint(i), 10)
					if err != nil || r.Sends != 1 {
						t.Fatalf("cut after %d bytes of file %d: %d sends, %v; the server: %v", n+1, i, r.Sends, err, h.errors())
					}
					synctest.Wait()
				}
				if got := h.connections(); got != 2 {
					t.Errorf("%d connections, want 2", got)
				}
			})
		}
	})
	t.Run("out of step", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := newHost()
			h.wrap = func(conn net.Conn) net.Conn { return &polite{conn} }
			c := h.client(t, "v3://h?window=8&dialect=mainstream")
			for i := range 2 {
				if _, err := send(t, c, fmt.Sprint(i), 100); err != nil {
					t.Error(err)
				}
				synctest.Wait()
			}
			if got := h.connections(); got != 2 {
				t.Errorf("%d connections, want 2", got)
			}
		})
	})
	t.Run("kept for a while", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := newHost()
			h.cfg.IdleTimeout = time.Hour
			c := h.client(t, "v3://h?window=8", func(cfg *proto.ClientConfig) { cfg.KeepAlive = time.Minute })
			for i, pause := range []time.Duration{59 * time.Second, 61 * time.Second, 0} {
				if _, err := send(t, c, fmt.Sprint(i), 100); err != nil {
					t.Error(err)
				}
				time.Sleep(pause)
			}
			if got := h.connections(); got != 2 {
				t.Errorf("%d connections, want 2", got)
			}
		})
	})
}

func TestProgress(t *testing.T) {
	for _, way := range ways {
		t.Run(way.url, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHost()
				h.wrap = wrongSums(1)
				var all []proto.Progress
				size := 40*way.slice + 5
				o, src := offer(t, "file", size)
				_, err := h.client(t, way.url).Send(t.Context(), o, src, proto.Watcher{
					Progress: func(p proto.Progress) { all = append(all, p) },
				})
				if err != nil {
					t.Fatal(err)
				}
				var phases []proto.Phase
				for i, p := range all {
					if p.TotalBytes != size || p.Bytes < 0 || p.Bytes > size || p.Packets > p.TotalPackets || (p.Bytes == size) != (p.Packets == p.TotalPackets) {
						t.Fatalf("%+v of %d bytes", p, size)
					}
					if i > 0 && p.Phase == all[i-1].Phase && (p.Bytes <= all[i-1].Bytes || p.Packets <= all[i-1].Packets) {
						t.Fatalf("%+v after %+v", p, all[i-1])
					}
					if i == 0 || p.Phase != all[i-1].Phase {
						phases = append(phases, p.Phase)
					}
				}
				want := []proto.Phase{proto.PhaseConnecting, proto.PhaseKeying, proto.PhaseSending, proto.PhaseVerifying, proto.PhaseSending, proto.PhaseVerifying}
				if d := cmp.Diff(want, phases); d != "" {
					t.Errorf("phases (-want +got):\n%s", d)
				}
				if last := all[len(all)-1]; last.Send != 2 || last.Bytes != size {
					t.Errorf("last: %+v", last)
				}
			})
		})
	}
}

func TestSources(t *testing.T) {
	broken := errors.New("disk is broken")
	want := content(100_000)
	sum := sumOf(want)
	for _, way := range ways {
		for name, src := range map[string]proto.Source{
			"cannot be opened": func() (io.ReadCloser, error) { return nil, broken },
			"breaks": func() (io.ReadCloser, error) {
				return io.NopCloser(io.MultiReader(bytes.NewReader(want[:50_000]), failing{broken})), nil
			},
			"breaks at its end": func() (io.ReadCloser, error) {
				return io.NopCloser(io.MultiReader(bytes.NewReader(want), failing{broken})), nil
			},
			"is short":   bytesOf(want[:99_999]),
			"is empty":   bytesOf(nil),
			"is long":    bytesOf(append(bytes.Clone(want), 0)),
			"is another": bytesOf(slices.Concat(want[1:], want[:1])),
		} {
			t.Run(way.url+"/"+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					h := newHost()
					o := proto.Offer{Name: fileName(t, "file"), Size: int64(len(want)), Sum: &sum}
					_, err := h.client(t, way.url).Send(t.Context(), o, src, proto.Watcher{
						Matched: func(context.Context) error { t.Error("matched"); return nil },
					})
					if !errors.Is(err, proto.ErrSource) || !proto.Permanent(err) {
						t.Errorf("%v, want %v", err, proto.ErrSource)
					}
					synctest.Wait()
					if h.file("file") != nil {
						t.Error("it was confirmed")
					}
				})
			})
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestOffersThatAreNone(t *testing.T) {
	c := newHost().client(t, "v3://h")
	o, src := offer(t, "file", 10)
	for _, test := range []struct {
		offer proto.Offer
		want  error
	}{
		{proto.Offer{Size: 10}, proto.ErrName},
		{proto.Offer{Name: o.Name, Size: -1}, proto.ErrTooLarge},
		{proto.Offer{Name: o.Name, Size: 517_857_568}, proto.ErrTooLarge},
		{proto.Offer{Name: o.Name, Size: 11, Sum: o.Sum}, proto.ErrSource},
	} {
		if _, err := c.Send(t.Context(), test.offer, src, proto.Watcher{}); !errors.Is(err, test.want) || !proto.Permanent(err) {
			t.Errorf("%v, want %v", err, test.want)
		}
	}
}

// An error of Matched leaves nothing behind, and nothing confirmed.
func TestMatchedFails(t *testing.T) {
	for _, way := range ways {
		for _, size := range []int64{10, 100_000} {
			synctest.Test(t, func(t *testing.T) {
				h := newHost()
				why := errors.New("not now")
				o, src := offer(t, "file", size)
				_, err := h.client(t, way.url).Send(t.Context(), o, src, proto.Watcher{
					Matched: func(context.Context) error { return why },
				})
				synctest.Wait()
				if !errors.Is(err, why) || h.file("file") != nil {
					t.Errorf("%s, %d bytes: %v, stored %v; want %v and nothing", way.url, size, err, h.file("file") != nil, why)
				}
			})
		}
	}
}

// Ending the context at any change of phase, or within one, ends the send with
// its cause, at once.
func TestCancelled(t *testing.T) {
	cause := errors.New("enough")
	for _, way := range ways {
		for _, when := range []proto.Phase{proto.PhaseConnecting, proto.PhaseKeying, proto.PhaseSending, proto.PhaseVerifying} {
			t.Run(way.url+"/"+string(when), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					h := newHost()
					ctx, cancel := context.WithCancelCause(t.Context())
					o, src := offer(t, "file", 30*way.slice)
					_, err := h.client(t, way.url).Send(ctx, o, src, proto.Watcher{Progress: func(p proto.Progress) {
						if p.Phase == when {
							cancel(cause)
						}
					}})
					if !errors.Is(err, cause) || proto.Permanent(err) {
						t.Errorf("%v, want %v", err, cause)
					}
					synctest.Wait()
					// To some, closing behind the last packet is all there is to say.
					if h.file("file") != nil && !strings.Contains(way.url, "slice=734") {
						t.Error("it was stored")
					}
				})
			})
		}
	}
	t.Run("server silent", func(t *testing.T) {
		for n := int64(0); n < 862; n += 100 {
			synctest.Test(t, func(t *testing.T) {
				h := newHost()
				h.cfg.IdleTimeout, h.cfg.HandshakeTimeout = time.Hour, time.Hour
				h.wrap = func(c net.Conn) net.Conn { return prototest.Faulty(c, prototest.DropRead(n)) }
				ctx, cancel := context.WithTimeoutCause(t.Context(), 5*time.Second, cause)
				defer cancel()
				start := time.Now()
				o, src := offer(t, "file", 10)
				_, err := h.client(t, "v3://h").Send(ctx, o, src, proto.Watcher{})
				if d := time.Since(start); !errors.Is(err, cause) || d != 5*time.Second {
					t.Errorf("silent after %d bytes: %v after %v; want %v", n, err, d, cause)
				}
			})
		}
	})
}

// Without a context that ends, the deadlines do it.
func TestSilentServer(t *testing.T) {
	for _, url := range []string{"v3://h", "v3://h?window=64", "v3://h?dialect=per-slice"} {
		for n := int64(0); n < 100_000; n += 9_973 {
			synctest.Test(t, func(t *testing.T) {
				h := newHost()
				h.cfg.IdleTimeout, h.cfg.HandshakeTimeout = time.Hour, time.Hour
				h.wrap = func(c net.Conn) net.Conn { return prototest.Faulty(c, prototest.DropRead(n)) }
				start := time.Now()
				o, src := offer(t, "file", 100_000)
				_, err := h.client(t, url).Send(t.Context(), o, src, proto.Watcher{})
				var timeout net.Error
				if !errors.As(err, &timeout) || !timeout.Timeout() || proto.Permanent(err) {
					t.Errorf("silent after %d bytes: %v, want a timeout", n, err)
				}
				if d := time.Since(start); d < 30*time.Second || d > 61*time.Second {
					t.Errorf("silent after %d bytes: it took %v", n, d)
				}
			})
		}
	}
}

// A source may take longer than any deadline: nobody waits for the server then.
func TestSlowSource(t *testing.T) {
	for _, way := range ways {
		synctest.Test(t, func(t *testing.T) {
			h := newHost()
			h.cfg.IdleTimeout = 24 * time.Hour
			c := h.client(t, way.url)
			want := content(5 * way.slice)
			o := proto.Offer{Name: fileName(t, "file"), Size: int64(len(want))}
			src := func() (io.ReadCloser, error) {
				return io.NopCloser(&slow{b: want, piece: 3000, pause: 50 * time.Second}), nil
			}
			if _, err := c.Send(t.Context(), o, src, proto.Watcher{}); err != nil {
				t.Errorf("%s: %v", way.url, err)
			}
		})
	}
}

type slow struct {
	b     []byte
	piece int
	pause time.Duration
}

func (s *slow) Read(p []byte) (int, error) {
	if len(s.b) == 0 {
		return 0, io.EOF
	}
	time.Sleep(s.pause)
	n := copy(p[:min(len(p), s.piece)], s.b)
	s.b = s.b[n:]
	return n, nil
}

// With a window of n, no more than n packets are on their way.
func TestWindow(t *testing.T) {
	for _, window := range []int{1, 2, 3, 16, 64} {
		synctest.Test(t, func(t *testing.T) {
			near, far := net.Pipe()
			c := proto.NewClient(proto.ClientConfig{
				To: destination(t, fmt.Sprintf("v3://h?window=%d", window)), Name: clientName(t, "alice"), Keyring: &keyring{},
				Dial: func(context.Context, string, string) (net.Conn, error) { return near, nil },
			})
			defer c.Close()
			size := int64(200 * 7902)
			o, src := offer(t, "file", size)
			var sent sync.WaitGroup
			sent.Go(func() {
				if _, err := c.Send(t.Context(), o, src, proto.Watcher{}); err == nil {
					t.Error("sent to nobody")
				}
			})
			var mu sync.Mutex
			var got []byte
			start := make(chan struct{})
			var reader sync.WaitGroup
			reader.Go(func() {
				answerHandshake(t, far)
				close(start)
				b := make([]byte, 1<<20)
				for {
					n, err := far.Read(b)
					if err != nil {
						return
					}
					mu.Lock()
					got = append(got, b[:n]...)
					mu.Unlock()
				}
			})
			<-start
			for acked := 0; acked < 100; {
				synctest.Wait()
				mu.Lock()
				packets := len(requestsIn(t, got))
				mu.Unlock()
				if packets > acked+window || packets <= acked {
					t.Errorf("window %d: %d packets sent, %d acknowledged", window, packets, acked)
				}
				thanks := v3.Seed().AppendThanks(nil, v3.ID{7})
				if _, err := far.Write(bytes.Repeat(thanks, packets-acked)); err != nil {
					t.Fatal(err)
				}
				acked = packets
			}
			far.Close()
			sent.Wait()
			reader.Wait()
		})
	}
}

// answerHandshake registers whoever comes.
func answerHandshake(t *testing.T, conn net.Conn) {
	b := make([]byte, v3.RequestHeaderSize+v3.NameSize)
	_, _ = io.ReadFull(conn, b)
	id := v3.ID{7}
	_, _ = conn.Write(append(v3.ResponseHeader{Code: v3.CodeRegistered, PayloadSize: v3.IDSize}.Append(nil), id[:]...))
	b = make([]byte, v3.RequestHeaderSize+v3.NameSize+v3.PublicKeySize)
	_, _ = io.ReadFull(conn, b)
	m := must(v3.ParsePublicKey(b[v3.RequestHeaderSize:]))
	wrapped := must(v3.WrapKey(must(v3.ParsePublicKeyInfo(m.Key)), v3.NewKey()))
	_, _ = conn.Write(v3.WrappedKey{Client: id, Key: wrapped}.Append(
		v3.ResponseHeader{Code: v3.CodeKey, PayloadSize: v3.IDSize + v3.WrappedKeySize}.Append(nil)))
}

// To a server that is not known to cope, each message is one write.
func TestOneWriteForEachMessage(t *testing.T) {
	for _, way := range ways {
		if destination(t, way.url).Parallel() > 1 {
			continue
		}
		synctest.Test(t, func(t *testing.T) {
			h := newHost()
			var sizes []int
			c := h.client(t, way.url, func(cfg *proto.ClientConfig) {
				cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
					conn, err := h.dial(ctx, network, address)
					return &counting{conn, &sizes}, err
				}
			})
			if _, err := send(t, c, "file", 5*way.slice); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			for _, n := range sizes {
				if n < 278 {
					t.Errorf("%s: a write of %d bytes", way.url, n)
				}
			}
			if len(sizes) < 7 || slices.Max(sizes) > 10_000 {
				t.Errorf("%s: writes of %v bytes", way.url, sizes)
			}
		})
	}
}

type counting struct {
	net.Conn
	sizes *[]int
}

func (c *counting) Write(b []byte) (int, error) {
	*c.sizes = append(*c.sizes, len(b))
	return c.Conn.Write(b)
}

func TestClosedClient(t *testing.T) {
	c := newHost().client(t, "v3://h")
	c.Close()
	if _, err := send(t, c, "file", 10); !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v, want %v", err, net.ErrClosed)
	}
}
