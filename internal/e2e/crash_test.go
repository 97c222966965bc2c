package e2e_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var kills = flag.Int("kills", 200, "how often TestKill ends the process with SIGKILL")

// uploaders is how many uploads are under way at once while the process is
// killed.
const uploaders = 50

// A ledger is what a careful client knows: what it sent under which name, and
// what was answered with 202.
type ledger struct {
	mu       sync.Mutex
	accepted map[string][]string // by name: the ids answered, more than one if an answer was lost
	files    map[string]sample   // by name
}

// sample is a file that can be made again: content(seed, size).
type sample struct {
	seed uint64
	size int64
}

// TestKill ends ferry up with SIGKILL at random moments while 50 uploads are
// being accepted and delivered. Whatever was answered 202 must be delivered,
// once, intact. Each client repeats an upload until it has its 202, under the
// same name, as a pipeline that is run again does.
func TestKill(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	led := &ledger{accepted: map[string][]string{}, files: map[string]sample{}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var base atomic.Value // string: where ferry answers just now
	base.Store("")
	var clients sync.WaitGroup
	for i := range uploaders {
		clients.Go(func() { led.keepUploading(ctx, &base, i, rand.New(rand.NewPCG(seed, uint64(i+1)))) })
	}

	for range *kills {
		ferry := up(t, data)
		base.Store(ferry.http)
		time.Sleep(time.Duration(random.Int64N(int64(400 * time.Millisecond))))
		ferry.kill()
	}
	ferry := up(t, data)
	base.Store(ferry.http)
	cancel()
	clients.Wait()
	led.check(t, ferry, data)
}

// keepUploading sends one file after another until ctx ends; each until it was
// answered 202.
func (l *ledger) keepUploading(ctx context.Context, base *atomic.Value, worker int, random *rand.Rand) {
	for n := 0; ctx.Err() == nil; n++ {
		name := fmt.Sprintf("worker %d file %d", worker, n)
		s := sample{seed: random.Uint64(), size: randomSize(random)}
		l.mu.Lock()
		l.files[name] = s
		l.mu.Unlock()
		for ctx.Err() == nil {
			u, err := post(ctx, base.Load().(string), name, content(s.seed, s.size), s.size)
			if err == nil {
				l.mu.Lock()
				l.accepted[name] = append(l.accepted[name], u.ID)
				l.mu.Unlock()
				break
			}
			time.Sleep(5 * time.Millisecond) // the process is gone; its successor is about to answer
		}
	}
}

// randomSize is empty, small enough to be kept in the database, or a file of
// many packets.
func randomSize(random *rand.Rand) int64 {
	switch random.IntN(10) {
	case 0:
		return 0
	case 1, 2:
		return 100_000 + random.Int64N(2_000_000)
	default:
		return random.Int64N(20_000)
	}
}

func (l *ledger) check(t *testing.T, ferry *process, data string) {
	t.Helper()
	// What was accepted first is delivered first, and ids sort by that: each has
	// to follow the one before it soon, however many there are.
	var ids []string
	for _, some := range l.accepted {
		ids = append(ids, some...)
	}
	slices.Sort(ids)
	for _, id := range ids {
		waitDelivered(t, ferry.http, id, time.Minute)
	}
	folder := storedFolder(t, filepath.Join(data, "server"))
	for name := range l.accepted {
		if err := l.compare(folder, name); err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d files were answered 202 while the process was killed %d times", len(l.accepted), *kills)
	if len(l.accepted) < *kills {
		t.Errorf("only %d uploads were accepted in %d lives of the process: too few to show anything", len(l.accepted), *kills)
	}
	l.checkNothingElse(t, folder)
	waitNothingStaged(t, data)
}

func (l *ledger) compare(folder, name string) error {
	want, err := sha256Of(content(l.files[name].seed, l.files[name].size))
	if err != nil {
		return err
	}
	got, err := sha256OfFile(filepath.Join(folder, name))
	if err == nil && got != want {
		err = fmt.Errorf("%q is stored with SHA-256 %s, want %s", name, got, want)
	}
	return err
}

// checkNothingElse wants every stored file to be one that somebody sent under
// that name, whole: also those whose 202 was lost.
func (l *ledger) checkNothingElse(t *testing.T, folder string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if _, ok := l.files[e.Name()]; !ok {
			t.Errorf("%q is stored, and nobody sent it", e.Name())
		} else if err := l.compare(folder, e.Name()); err != nil {
			t.Error(err)
		}
	}
}

// waitNothingStaged wants no bytes left in the staging folders and the spool
// once everything is delivered.
func waitNothingStaged(t *testing.T, data string) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		left, err := leftovers(data)
		if err != nil {
			t.Fatal(err)
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left behind: %q", left)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// leftovers are the files with content in the gateway's spool and in both
// staging folders.
func leftovers(data string) ([]string, error) {
	var left []string
	for _, pattern := range []string{"gateway/files", "gateway/staging", "server/staging"} {
		err := filepath.WalkDir(filepath.Join(data, pattern), func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			info, err := d.Info()
			if err == nil && info.Size() > 0 {
				left = append(left, path)
			}
			return err
		})
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	return left, nil
}

// TestGoesOnAfterKill wants what a killed gateway had accepted to be under way
// within two seconds of its restart.
func TestGoesOnAfterKill(t *testing.T) {
	const goesOnWithin = 2 * time.Second
	data := t.TempDir()
	server := startV4(t, filepath.Join(data, "server"))
	native := server.v4
	g := server.startGatewayV4(filepath.Join(data, "gateway"), native, "ci")
	first, err := post(t.Context(), g.http, "first", content(1, 10), 10)
	if err != nil {
		t.Fatal(err)
	}
	waitDelivered(t, g.http, first.ID, 10*time.Second)
	server.stop()
	var ids []string
	for i := range 20 {
		u, err := post(t.Context(), g.http, fmt.Sprintf("kept %d", i), content(uint64(i), 100_000), 100_000)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, u.ID)
	}
	g.kill()
	start(t, "server", "--data", server.data, "--listen", native)
	g.again()
	ready := time.Now()
	for _, id := range ids {
		u := waitDelivered(t, g.http, id, 10*time.Second)
		if late := u.DeliveredAt.Sub(ready); late > goesOnWithin {
			t.Errorf("%s was delivered %v after the restart, want within %v", u.Name, late, goesOnWithin)
		}
	}
}
