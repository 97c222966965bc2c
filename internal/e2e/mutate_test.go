package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ferry/proto"
	"ferry/proto/prototest"
	"ferry/proto/v3"
)

var (
	mutations    = flag.Int("mutations", 300, "how many files TestMutatedOnTheWay sends")
	mutationSeed = flag.Uint64("mutation-seed", 0, "what is done to them; 0 takes the clock")
)

// TestMutatedOnTheWay sends files through somebody who flips, cuts, repeats and
// reorders what the client says to the real server. Whatever happens to them,
// each delivery ends; a file is stored only as it was sent, and is stored if its
// client was told so; nothing is left in staging, nothing is on record that is
// not on disk, and afterwards the server serves as before.
//
// Many more conversations are held in memory: see TestMutations of package
// proto.
func TestMutatedOnTheWay(t *testing.T) {
	seed := *mutationSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("to repeat: -mutation-seed=%d", seed)
	// What waits for bytes that were cut out waits for this long.
	const idle = 300 * time.Millisecond
	s := besiege(t, "--idle-timeout", idle.String(), "--max-conns-per-client", "500")
	var next, delivered atomic.Int64
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for n := next.Add(1); n <= int64(*mutations); n = next.Add(1) {
				ok, err := mutateOnTheWay(s, seed, uint64(n), idle)
				if err != nil {
					t.Errorf("file %d: %v", n, err)
				}
				if ok {
					delivered.Add(1)
				}
			}
		})
	}
	workers.Wait()
	waitUnstaged(t, s.data)

	got := storedSums(t, s.data)
	stored := 0
	for n := 1; n <= *mutations; n++ {
		sum, ok := got[fmt.Sprintf("bulk/mutated %d", n)]
		if !ok {
			continue
		}
		stored++
		s.stores("bulk", fmt.Sprintf("mutated %d", n), sum)
		if want := sumOfBytes(mutatedFile(seed, uint64(n))); sum != want {
			t.Errorf("file %d is stored with SHA-256 %s, want %s", n, sum, want)
		}
	}
	t.Logf("%d of %d files were delivered and %d are stored", delivered.Load(), *mutations, stored)
	if d := int(delivered.Load()); d > stored || d < *mutations/20 || d > *mutations*19/20 {
		t.Errorf("%d of %d files were delivered, %d are stored: want some of each", d, *mutations, stored)
	}
	s.servesBeside()
	s.unharmed(usualMemory)
}

// mutatedFile is larger than the files that a client confirms by leaving: of
// those, what was changed on the way is stored if its client dies before it sees
// the checksum.
func mutatedFile(seed, n uint64) []byte { return bytesOf(seed^n, int64(1000+n*7919%30_000)) }

var mutatedDialects = []string{"window=64", "", "dialect=mainstream", "dialect=mainstream&slice=4096", "dialect=per-slice"}

// mutateOnTheWay sends one file and reports whether its client has a receipt;
// its error says what must not be.
func mutateOnTheWay(s *siege, seed, n uint64, idle time.Duration) (delivered bool, err error) {
	mutator := prototest.NewMutator()
	mutator.Seed(seed, n)
	at := mutator.IntN(6) // the message to which it happens; others follow unchanged
	var before [][]byte
	m, err := between(s.server.native, &middle{request: func(b []byte) []byte {
		before = append(before, b)
		if len(before)-1 != at {
			return b
		}
		changed := bytes.Join(mutator.Mutate([][]byte{b}, before), nil)
		for _, code := range []v3.Code{v3.CodeEqual, v3.CodeDiffers, v3.CodeGiveUp} {
			if says(changed, code) && !says(b, code) {
				return b // whoever says what the client makes of a checksum misleads both: see docs/security.md
			}
		}
		if len(changed) == 0 {
			return nil
		}
		return changed
	}})
	if err != nil {
		return false, err
	}
	defer m.close()
	c, err := mutatedClient(m.address, mutatedDialects[mutator.IntN(len(mutatedDialects))], s.bulk, idle)
	if err != nil {
		return false, err
	}
	defer func() { _ = c.Close() }()
	b := mutatedFile(seed, n)
	const limit = 30 * time.Second
	ctx, cancel := context.WithTimeout(s.t.Context(), limit)
	defer cancel()
	_, err = sendWith(ctx, c, fmt.Sprintf("mutated %d", n), int64(len(b)),
		func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil })
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
		return false, fmt.Errorf("the delivery has not ended after %v", limit)
	}
	return err == nil, nil
}

// says reports whether 900, 901 or 902 is said anywhere in b.
func says(b []byte, code v3.Code) bool {
	h := v3.RequestHeader{Code: code, PayloadSize: v3.NameSize}.Append(nil)
	return bytes.Contains(b, h[v3.IDSize:])
}

// mutatedClient is one that does not wait long. It may lose its identity to what
// happens on the way, so that each has a copy.
func mutatedClient(address, query string, k *memoryKeyring, idle time.Duration) (*proto.Client, error) {
	to, err := proto.ParseDestination("v3://" + address + "?" + query)
	if err != nil {
		return nil, err
	}
	id, _, err := k.Load(context.Background())
	return proto.NewClient(proto.ClientConfig{To: to, Name: id.Name, Keyring: &memoryKeyring{id: id}, IdleTimeout: idle}), err
}
