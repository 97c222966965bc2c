package gateway

import (
	"context"
	"encoding/hex"
	"errors"
	"maps"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ferry/proto"
	"ferry/proto/prototest"
)

// native is the server half of the protocol with files in memory.
type native struct {
	address string
	token   string // to register with

	mu     sync.Mutex
	accept proto.Accept // guarded by mu, as what follows
	files  map[string]string
	held   map[string]proto.Stored
	known  map[proto.ClientID]proto.Registration
}

func listenNative(t *testing.T, accept proto.Accept) *native {
	t.Helper()
	s := &native{accept: accept, files: map[string]string{}, held: map[string]proto.Stored{}, known: map[proto.ClientID]proto.Registration{}}
	ctx, cancel := context.WithCancel(context.Background())
	s.address = prototest.Listen(t, new(sync.WaitGroup), func(conn net.Conn) { s.serve(ctx, conn) })
	t.Cleanup(cancel) // before it waits for what is served
	return s
}

func (s *native) serve(ctx context.Context, conn net.Conn) {
	s.mu.Lock()
	accept := s.accept
	s.mu.Unlock()
	session, err := accept(ctx, conn, proto.SessionConfig{Directory: s})
	if err != nil {
		return
	}
	defer session.Close()
	for err == nil {
		var in proto.Transfer
		if in, err = session.Next(ctx); err != nil {
			return
		}
		err = s.take(ctx, in)
	}
}

func (s *native) take(ctx context.Context, in proto.Transfer) error {
	name := in.Offer().Name
	s.mu.Lock()
	held, there := s.held[name.String()]
	s.mu.Unlock()
	if there {
		return in.Exists(ctx, held)
	}
	var b memorySink
	sum, err := in.Receive(ctx, &b)
	if err != nil {
		return err
	}
	held = proto.Stored{Name: name, Sum: sum, Transfer: in.Offer().ID, At: time.Now()}
	s.mu.Lock()
	s.files[name.String()], s.held[name.String()] = b.String(), held
	s.mu.Unlock()
	return in.Accept(ctx, held)
}

type memorySink struct{ strings.Builder }

func (m *memorySink) Reset() error          { m.Builder.Reset(); return nil }
func (m *memorySink) Kept() (int64, []byte) { return 0, nil }
func (m *memorySink) Keep([]byte) error     { return nil }

func (s *native) stored() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.files)
}

func (s *native) registrations() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.known)
}

func (s *native) ByID(_ context.Context, id proto.ClientID) (proto.Registration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.known[id]; ok {
		return r, nil
	}
	return proto.Registration{}, proto.ErrUnknownClient
}

func (s *native) Admits(_ context.Context, _ proto.ClientName, id proto.ClientID, token string) (proto.ClientID, error) {
	switch {
	case token != s.token:
		return id, proto.ErrUnauthorized
	case s.registrations() > 0:
		return id, proto.ErrNameTaken
	}
	return id, nil
}

func (s *native) Register(ctx context.Context, r proto.Registration, token string) error {
	if _, err := s.Admits(ctx, r.Name, r.ID, token); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known[r.ID] = r
	return nil
}

func (s *native) Replace(context.Context, proto.ClientID, []byte, []byte) error {
	return proto.ErrUnsupported
}

func (s *native) Seen(context.Context, proto.ClientID) error { return nil }

// listenV4 is a native server of version 4, and what it is known by.
func listenV4(t *testing.T) (*native, proto.ServerIdentity) {
	t.Helper()
	pem, err := proto.NewServerIdentity()
	if err != nil {
		t.Fatal(err)
	}
	id, err := proto.ParseServerIdentity(pem, pem)
	if err != nil {
		t.Fatal(err)
	}
	return listenNative(t, proto.AcceptV4(id)), id
}

// TestVersion4 delivers with the real client, whatever a file is called and
// however large it is; every upload has a receipt that says so.
func TestVersion4(t *testing.T) {
	srv, id := listenV4(t)
	srv.token = "ferry-join-good"
	g := openCore(t, t.TempDir(), newRemote(), func(cfg *Config, p *parts) {
		cfg.Destinations = to(t, "v4://"+srv.address+"?pin="+id.Pin().String())
		cfg.Destinations[0].Join = srv.token
		p.sender, p.clock = nil, clock{}
	})
	want := map[string]string{
		"empty": "", "small": content(1, 7902), "build 17/é/edge": content(2, smallBody), "build 17/beyond": content(3, smallBody+1), "large": content(4, 3<<20),
	}
	var all []Upload
	for name, c := range want {
		all = append(all, g.take(name, c))
	}
	all = append(all, g.take("small", want["small"]), g.take("large", want["large"])) // once more
	g.deliverAll()
	for _, u := range all {
		u = g.await(u.ID, StateDelivered)
		if u.Progress.Bytes != *u.Size || u.Progress.Packets != u.Progress.TotalPackets {
			t.Errorf("%s: progress %+v", u.Name, u.Progress)
		}
		_, envelope, err := g.receipt(t.Context(), u.ID)
		if err != nil {
			t.Fatal(err)
		}
		says, err := proto.VerifyReceipt(envelope, id.Pin())
		if err != nil {
			t.Fatal(err)
		}
		if says.Client.String() != "test" || says.ClientID != g.lanes.first().keys.Client() || !states(says, u) {
			t.Errorf("the receipt of %s says %+v", u.Name, says)
		}
	}
	if d := cmp.Diff(want, srv.stored()); d != "" {
		t.Error("what is stored differs")
	}
	other := g.take("small", "something else")
	other = g.await(other.ID, StateFailed)
	for _, sum := range []string{*all[len(all)-2].SHA256, *other.SHA256} {
		if !strings.Contains(*other.Error, sum) {
			t.Errorf("error %q, want %s in it", *other.Error, sum)
		}
	}
	if n := srv.registrations(); n != 1 {
		t.Errorf("registered %d times, want once", n)
	}
}

// states reports whether a receipt speaks of an upload's file.
func states(s proto.Statement, u Upload) bool {
	for _, f := range s.Files {
		if f.Name.String() == u.Name && f.Sum.Size == *u.Size && hex.EncodeToString(f.Sum.SHA256[:]) == *u.SHA256 && f.Transfer != (proto.TransferID{}) {
			return true
		}
	}
	return false
}

// TestNotLetIn: a gateway that the destination does not let in keeps what it
// has, says what is to be done, and delivers once that has been done.
func TestNotLetIn(t *testing.T) {
	srv, id := listenV4(t)
	srv.token = "ferry-join-good"
	_, otherID := listenV4(t)
	dir := t.TempDir()
	address := "v4://" + srv.address
	pinned := address + "?pin=" + id.Pin().String()
	var u Upload
	for i, c := range []struct {
		to, token string
		says      []string // nothing if it is let in
	}{
		{address + "?pin=" + otherID.Pin().String(), srv.token, []string{id.Pin().String(), otherID.Pin().String(), "?pin="}},
		{pinned, "", []string{"not authorised", "--join"}},
		{pinned, "ferry-join-bad", []string{"not authorised", "--join"}},
		{pinned, srv.token, nil},
	} {
		g := openCore(t, dir, newRemote(), func(cfg *Config, p *parts) {
			cfg.Destinations = []Destination{{To: destination(t, c.to), Join: c.token}}
			p.sender, p.clock = nil, clock{}
		})
		if i == 0 {
			u = g.take("f", "content")
		}
		stop := g.deliverAll()
		if c.says == nil {
			g.await(u.ID, StateDelivered)
			break
		}
		got := g.await(u.ID, StateWaiting)
		for _, word := range c.says {
			if !strings.Contains(*got.Attempts.LastError, word) {
				t.Errorf("last error %q, want %q in it", *got.Attempts.LastError, word)
			}
		}
		if wait := got.Attempts.NextAt.Sub(got.UpdatedAt); wait < operatorDelay {
			t.Errorf("the next attempt comes %v later, want %v", wait, operatorDelay)
		}
		stop()
		g.shut()
	}
	if d := cmp.Diff(map[string]string{"f": "content"}, srv.stored()); d != "" {
		t.Error(d)
	}
}

// TestCutAfterStored cuts the connection each time the server has stored a file
// and before it has said so: every upload is delivered all the same, once.
func TestCutAfterStored(t *testing.T) {
	srv, id := listenV4(t)
	cut := map[string]bool{}
	var mu sync.Mutex
	srv.mu.Lock()
	accept := srv.accept
	srv.accept = func(ctx context.Context, conn net.Conn, cfg proto.SessionConfig) (proto.Session, error) {
		s, err := accept(ctx, conn, cfg)
		return &cutting{s, conn, func(name string) bool {
			mu.Lock()
			defer mu.Unlock()
			first := !cut[name]
			cut[name] = true
			return first
		}}, err
	}
	srv.mu.Unlock()
	g := openCore(t, t.TempDir(), newRemote(), func(cfg *Config, p *parts) {
		cfg.Destinations = to(t, "v4://"+srv.address+"?pin="+id.Pin().String())
		p.sender, p.clock = nil, clock{}
	})
	want := map[string]string{"small": "1", "small too": "2", "large": content(1, large), "larger": content(2, 1<<20)}
	var all []Upload
	for name, c := range want {
		all = append(all, g.take(name, c))
	}
	g.deliverAll()
	for _, u := range all {
		u = g.await(u.ID, StateDelivered)
		if u.Receipt == nil || u.Attempts.Count < 2 {
			t.Errorf("%s has the receipt %q after %d attempts", u.Name, *orEmpty(u.Receipt), u.Attempts.Count)
		}
	}
	if d := cmp.Diff(want, srv.stored()); d != "" {
		t.Error("what is stored differs")
	}
}

// cutting is a session that loses its connection before a file is acknowledged
// for the first time.
type cutting struct {
	proto.Session
	conn net.Conn
	now  func(name string) bool
}

func (c *cutting) Next(ctx context.Context) (proto.Transfer, error) {
	in, err := c.Session.Next(ctx)
	if err != nil {
		return nil, err
	}
	return &cutTransfer{in, c}, nil
}

type cutTransfer struct {
	proto.Transfer
	session *cutting
}

func (c *cutTransfer) Accept(ctx context.Context, as proto.Stored) error {
	if c.session.now(as.Name.String()) {
		return errors.Join(c.session.conn.Close(), c.Transfer.Accept(ctx, as), errBroken)
	}
	return c.Transfer.Accept(ctx, as)
}
