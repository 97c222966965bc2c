package e2e_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ferry/proto"
)

var (
	unlimitedSizes = flag.String("unlimited-sizes", "2147483649",
		"sizes of the sparse files that TestUnlimitedV4 delivers whole; 2147483647,2147483648,2147483649,4294967295,4294967296,4294967297,5000000000 in a long run")
	unlimitedGateway = flag.Bool("unlimited-gateway", false, "whether TestUnlimitedV4 has a gateway deliver them as well")
)

// edges are sizes at which something of fewer than 64 bits ends, with one below
// and above, the five billion bytes that nothing before version 4 could carry,
// and the largest size that there is.
var edges = []int64{
	1<<31 - 1, 1 << 31, 1<<31 + 1,
	1<<32 - 1, 1 << 32, 1<<32 + 1,
	5_000_000_000, math.MaxInt64,
}

// TestUnlimitedV4 wants sizes and offsets to be of 64 bits everywhere, and memory
// not to grow with the file.
func TestUnlimitedV4(t *testing.T) {
	t.Run("edges", testEdges)
	for s := range strings.SplitSeq(*unlimitedSizes, ",") {
		size, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		t.Run("ferry send "+s, func(t *testing.T) { sendSparse(t, size) })
		if *unlimitedGateway {
			t.Run("gateway "+s, func(t *testing.T) { uploadSparse(t, size) })
		}
	}
}

func sparse(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sparse")
	f, err := os.Create(path)
	if err == nil {
		err = errors.Join(f.Truncate(size), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// mostMemory in KiB is what neither end may ever have, however large the file.
const mostMemory = 100 << 10

// sendSparse has ferry send deliver a file that takes no room at the sender.
func sendSparse(t *testing.T, size int64) {
	server := startV4(t, filepath.Join(t.TempDir(), "server"))
	path := sparse(t, size)
	cmd := command(t, t.TempDir(), "send", "--json", "--to", server.url(server.v4), "--join", server.token(), "--name", "ci", path)
	wait := background(cmd)
	ended, peak := make(chan struct{}), make(chan int64)
	go func() { peak <- watchPeak(cmd.Process.Pid, ended) }()
	got, err := wait()
	close(ended)
	most := <-peak
	if err != nil {
		t.Fatal(err)
	}
	var sent struct{ SHA256 string }
	if got.status != 0 || json.Unmarshal([]byte(got.stdout), &sent) != nil {
		t.Fatalf("ferry send: %+v", got)
	}
	if most == 0 {
		t.Error("nothing is known of what ferry send took")
	}
	wantLittleMemory(t, "ferry send", most)
	wantPeak(t, "the server", server.process)
	wantOnDisk(t, server.stored("ci", "sparse"), size, sent.SHA256)
}

// watchPeak returns the last VmHWM in KiB that it saw of a process. The maximum
// that wait4(2) states is no use: it counts what this process had when it made
// that one.
func watchPeak(pid int, ended <-chan struct{}) (peak int64) {
	ticks := time.NewTicker(20 * time.Millisecond)
	defer ticks.Stop()
	for {
		select {
		case <-ended:
			return peak
		case <-ticks.C:
			if kib, err := residentKiB(pid, "VmHWM"); err == nil {
				peak = kib
			}
		}
	}
}

func wantPeak(t *testing.T, which string, p *process) {
	t.Helper()
	peak, err := residentKiB(p.pid(), "VmHWM")
	if err != nil {
		t.Fatal(err)
	}
	wantLittleMemory(t, which, peak)
}

func wantLittleMemory(t *testing.T, which string, peak int64) {
	t.Helper()
	t.Logf("%s had at most %d MiB", which, peak>>10)
	if peak > mostMemory {
		t.Errorf("%s had %d KiB, want at most %d", which, peak, mostMemory)
	}
}

func uploadSparse(t *testing.T, size int64) {
	server := startV4(t, filepath.Join(t.TempDir(), "server"))
	g := server.startGatewayV4(filepath.Join(t.TempDir(), "gateway"), server.v4, "ci")
	u, err := post(t.Context(), g.http, "sparse", io.LimitReader(zeros{}, size), size)
	if err != nil {
		t.Fatal(err)
	}
	deliveredSoon(t, g.http, u.ID, 5*time.Minute)
	wantPeak(t, "the gateway", g.process)
	wantPeak(t, "the server", server.process)
	wantOnDisk(t, server.stored("ci", "sparse"), size, u.SHA256)
}

func wantOnDisk(t *testing.T, path string, size int64, sum string) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil || info.Size() != size {
		t.Fatalf("stored: %+v, %v; want %d bytes", info, err, size)
	}
	if got, err := sha256OfFile(path); err != nil || got != sum {
		t.Errorf("stored with SHA-256 %s, %v; the sender says %s", got, err, sum)
	}
}

// testEdges has the two ends of the protocol carry on transfers of each size
// from points near its end, over a real connection, where offsets pass every
// edge below it. What is kept before those points exists for neither end: that
// is what a resumed transfer is.
func testEdges(t *testing.T) {
	pem, err := serverIdentity()
	if err != nil {
		t.Fatal(err)
	}
	id, err := proto.ParseServerIdentity(pem, pem)
	if err != nil {
		t.Fatal(err)
	}
	s := &keeper{t: t, accept: proto.AcceptV4(id)}
	if s.ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	to, err := proto.ParseDestination("v4://" + s.ln.Addr().String() + "?pin=" + id.Pin().String())
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	defer served.Wait()
	defer s.ln.Close()
	served.Go(s.serve)
	name, _ := proto.ParseClientName("ci")
	c := proto.NewClient(proto.ClientConfig{To: to, Name: name, Keyring: new(memoryKeyring)})
	defer c.Close()

	n := 0
	for _, size := range edges {
		for _, rest := range []int64{0, 1, 8191, 200_000, 20 << 20} {
			n++
			s.kept.Store(size - rest)
			if err := carryOn(t.Context(), c, s, n, size, id.Pin()); err != nil {
				t.Errorf("%d bytes, of which %d are kept: %v", size, size-rest, err)
			}
		}
	}
}

// carryOn sends a file from where the server has kept it, and checks the
// receipt.
func carryOn(ctx context.Context, c *proto.Client, s *keeper, n int, size int64, pin proto.Pin) error {
	kept := s.kept.Load()
	all, err := keptSummer(kept)
	if err != nil {
		return err
	}
	if _, err := io.Copy(all, io.NewSectionReader(pattern{}, kept, size-kept)); err != nil {
		return err
	}
	sum := all.Sum()
	name, err := proto.ParseFileName(fmt.Sprintf("folder/%d", n))
	if err != nil {
		return err
	}
	o := proto.Offer{ID: proto.TransferID{15: byte(n)}, Name: name, Size: size, Sum: &sum}
	r, err := c.Send(ctx, o, func() (io.ReadCloser, error) {
		return struct {
			io.ReadSeeker
			io.Closer
		}{io.NewSectionReader(pattern{}, 0, size), io.NopCloser(nil)}, nil
	}, proto.Watcher{})
	if err != nil {
		return err
	}
	statement, err := proto.VerifyReceipt(r.Envelope, pin)
	if err != nil {
		return err
	}
	if got := statement.Files[0]; got.Sum != sum || sum.Size != size || got.Name != name {
		return fmt.Errorf("the receipt is for %+v, want %+v", got, sum)
	}
	return nil
}

// pattern is a file without an end of which each byte depends on where it is.
type pattern struct{}

func (pattern) ReadAt(p []byte, off int64) (int, error) {
	for i := range p {
		at := uint64(off) + uint64(i)
		p[i] = byte(at ^ at>>16 ^ at>>31 ^ at>>40)
	}
	return len(p), nil
}

// keptSummer is a Summer of so many bytes, of which it has seen only the last
// few: what they were before does not matter to either end.
func keptSummer(size int64) (*proto.Summer, error) {
	s := proto.NewSummer()
	_, _ = s.Write(make([]byte, size%64)) // never fails
	state, err := s.MarshalBinary()
	if err != nil {
		return nil, err
	}
	binary.LittleEndian.PutUint64(state[1:], uint64(size))
	binary.BigEndian.PutUint64(state[len(state)-8:], uint64(size))
	return s, s.UnmarshalBinary(state)
}

// A keeper is a server that says of each file how much of it is kept, and
// wants the rest. It takes one connection after another.
type keeper struct {
	t      *testing.T
	ln     net.Listener
	accept proto.Accept
	kept   atomic.Int64 // of the next file

	mu    sync.Mutex
	known map[proto.ClientID]proto.Registration // guarded by mu
}

func (s *keeper) serve() {
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		conn, err := s.ln.Accept()
		if err != nil {
			return
		}
		conns.Go(func() {
			defer conn.Close()
			if err := s.session(s.t.Context(), conn); err != nil {
				s.t.Errorf("session: %v", err)
			}
		})
	}
}

func (s *keeper) session(ctx context.Context, conn net.Conn) (err error) {
	session, err := s.accept(ctx, conn, proto.SessionConfig{Directory: s})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, session.Close()) }()
	for {
		t, err := session.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.take(ctx, t); err != nil {
			return err
		}
	}
}

func (s *keeper) take(ctx context.Context, t proto.Transfer) error {
	o, kept := t.Offer(), s.kept.Load()
	summer, err := keptSummer(kept)
	if err != nil {
		return err
	}
	state, err := summer.MarshalBinary()
	if err != nil {
		return err
	}
	sum, err := t.Receive(ctx, &keptSink{size: kept, state: state})
	if err != nil {
		return fmt.Errorf("receive %s of %d bytes: %w", o.Name, o.Size, err)
	}
	return t.Accept(ctx, proto.Stored{Name: o.Name, Sum: sum, Transfer: o.ID, At: time.Now()})
}

// keptSink has kept a part of a file, and compares the rest.
type keptSink struct {
	size  int64
	state []byte
	at    int64
}

func (k *keptSink) Kept() (int64, []byte) {
	k.at = k.size
	return k.size, k.state
}
func (k *keptSink) Keep([]byte) error { return nil }
func (k *keptSink) Reset() error      { return errors.New("all was sent from the start") }

func (k *keptSink) Write(p []byte) (int, error) {
	want := make([]byte, len(p))
	_, _ = pattern{}.ReadAt(want, k.at) // never fails
	if string(want) != string(p) {
		return 0, fmt.Errorf("other bytes at %d", k.at)
	}
	k.at += int64(len(p))
	return len(p), nil
}

// The keeper is its own directory, of clients that need no token.

func (s *keeper) ByID(_ context.Context, id proto.ClientID) (proto.Registration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.known[id]; ok {
		return r, nil
	}
	return proto.Registration{}, proto.ErrUnknownClient
}

func (s *keeper) Admits(_ context.Context, _ proto.ClientName, id proto.ClientID, _ string) (proto.ClientID, error) {
	return id, nil
}

func (s *keeper) Register(_ context.Context, r proto.Registration, _ string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil {
		s.known = map[proto.ClientID]proto.Registration{}
	}
	s.known[r.ID] = r
	return nil
}

func (s *keeper) Replace(context.Context, proto.ClientID, []byte, []byte) error {
	return proto.ErrUnauthorized
}
func (s *keeper) Seen(context.Context, proto.ClientID) error { return nil }
