package gateway

import (
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestMemoryIsReusedApart takes many bodies in at once that have memory which is used again, with some that are refused
// among them, and wants each to be kept as it came.
func TestMemoryIsReusedApart(t *testing.T) {
	g := openCore(t, t.TempDir(), newRemote())
	g.take("there", "other")
	var all sync.WaitGroup
	for sender := range 16 {
		all.Go(func() {
			for i := range 20 {
				name, n := fmt.Sprintf("%d-%d", sender, i), 1+rand.IntN(3)
				want := make([]string, n)
				r := g.receive(t.Context())
				for k := range want {
					want[k] = strings.Repeat(fmt.Sprintf("%s-%d ", name, k), firstPiece)[:firstPiece]
					if _, err := r.add(fileName(t, fmt.Sprintf("%s-%d", name, k)), firstPiece, &pausing{want[k]}); err != nil {
						t.Errorf("%s: %v", name, err)
						return
					}
				}
				if refused := i%5 == 0; refused { // another content of a name that is taken
					r.rename(0, fileName(t, "there"))
					r.ifVacant()
					if _, err := r.commit(); err == nil {
						t.Errorf("%s: what is taken was taken again", name)
					}
					continue
				}
				uploads, err := r.commit()
				if err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
				for k, u := range uploads {
					if got, err := g.body(t.Context(), u.ID); err != nil || string(got) != want[k] {
						t.Errorf("%s: file %d is not kept as it came: %v", name, k, err)
					}
				}
			}
		})
	}
	all.Wait()
}

// pausing is a body that comes in pieces, with waits in which others come.
type pausing struct{ rest string }

func (p *pausing) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.rest[:min(len(p.rest), 1500)])
	p.rest = p.rest[n:]
	time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
	if len(p.rest) == 0 {
		return n, io.EOF
	}
	return n, nil
}
