package server_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"ferry/proto"
	"ferry/server"
)

// BenchmarkSmallFiles stores files of 4 KiB that come one after another in one
// connection, as many of them on their way as it allows, in fresh folders.
func BenchmarkSmallFiles(b *testing.B) {
	content := strings.Repeat("x", 4096)
	for _, connections := range []int{1, 4} {
		b.Run(fmt.Sprintf("%d connections", connections), func(b *testing.B) {
			h := start(b, b.TempDir(), server.Limits{})
			peers := make([]*peer, connections)
			for i := range peers {
				peers[i] = h.client(fmt.Sprintf("client-%d", i))
			}
			b.ResetTimer()
			done := make(chan int)
			for i, p := range peers {
				go func() {
					files := make([]*transfer, 0, b.N/connections+1)
					for n := i; n < b.N; n += connections {
						files = append(files, sent(fmt.Sprintf("run-%d/%06d", n/1000, n), content, func(_ context.Context, dst proto.Sink) error {
							_, err := io.WriteString(dst, content)
							return err
						}))
					}
					go func() {
						for _, f := range files {
							p.offers <- f
						}
					}()
					stored := 0
					for _, f := range files {
						if got := <-f.outcome; got.accepted {
							stored++
						} else {
							b.Error(got.err)
						}
					}
					done <- stored
				}()
			}
			stored := 0
			for range peers {
				stored += <-done
			}
			b.StopTimer()
			if stored != b.N {
				b.Errorf("%d files are stored, want %d", stored, b.N)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "files/s")
		})
	}
}
