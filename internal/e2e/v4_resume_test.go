package e2e_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

var (
	resumeSize = flag.Int64("resume-size", 96<<20, "bytes of the file that TestResumeV4 delivers; 2000000000 in a long run")
	resumeCuts = flag.Int("resume-cuts", 3, "how often TestResumeV4 does each of the things that break a transfer off; 100 in a long run")
)

const (
	// windowV4 is how much of a file may be on its way beyond what the server has
	// said it keeps, and so all that may have to be sent again.
	windowV4 = 16 << 20
	// handshakeV4 is more than a client sends before and behind a file's bytes.
	handshakeV4 = 64 << 10
	// longestLife is how many bytes come before a transfer is broken off, at most:
	// half of it is more than a window, so that a transfer which begins anew each
	// time sends more than is allowed.
	longestLife = 4 * windowV4
	// overhead is what TLS and the messages add, at most: a fiftieth.
	overhead = 50
)

// allowed is how many bytes may be sent for so many of a file, when they are
// broken off so often.
func allowed(bytes int64, cuts int) int64 {
	return bytes + bytes/overhead + int64(cuts)*(windowV4+handshakeV4)
}

// A disturbance breaks a transfer off.
type disturbance struct {
	what string
	do   func(r *resumption)
}

// briefly is what a process is given to stop while a transfer is held up: it
// cannot finish.
var briefly = []string{"--grace", "100ms"}

var disturbances = []disturbance{
	{"the connection is cut", func(r *resumption) { r.line.loseAll() }},
	{"the gateway is killed", func(r *resumption) {
		r.gateway.kill()
		r.line.loseAll()
		r.gateway.again()
	}},
	{"the server is killed", func(r *resumption) {
		r.server.kill()
		r.line.loseAll()
		r.server.again()
		r.line.leadTo(r.server.v4)
	}},
	{"the gateway is restarted", func(r *resumption) {
		r.gateway.stop()
		r.line.loseAll()
		r.gateway.again()
	}},
	{"the server is restarted", func(r *resumption) {
		r.server.stop()
		r.line.loseAll()
		r.server.again()
		r.line.leadTo(r.server.v4)
	}},
}

// A resumption is a transfer that is broken off again and again.
type resumption struct {
	t       *testing.T
	random  *rand.Rand
	server  *serverV4
	line    *line
	gateway *gatewayV4
}

// TestResumeV4 breaks the transfer of a large file off in every way and at
// random offsets, and wants what the server keeps not to be sent again: beyond
// the file, at most one window for each time. In the end the server has the file.
func TestResumeV4(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	t.Run("gateway", func(t *testing.T) {
		r := newResumption(t, seed)
		r.gateway = r.server.startGatewayV4(filepath.Join(t.TempDir(), "gateway"), r.line.address, "ci", briefly...)
		r.disturb(disturbances, r.upload)
	})
	t.Run("ferry send", func(t *testing.T) {
		r := newResumption(t, seed+1)
		s := &resending{r: r, home: t.TempDir(), join: r.server.token()}
		r.disturb([]disturbance{{"ferry send is killed", func(r *resumption) {
			s.kill()
			r.line.loseAll()
		}}}, s.begin)
	})
}

func newResumption(t *testing.T, seed uint64) *resumption {
	r := &resumption{t: t, random: rand.New(rand.NewPCG(seed, 0))}
	r.server = startV4(t, filepath.Join(t.TempDir(), "server"), briefly...)
	r.line = layLine(t, r.server.v4)
	return r
}

// A delivery under way says when it has arrived, and starts again what has
// ended before.
type arriving func() (arrived bool, err error)

// disturb has files delivered by begin, one after another, until each
// disturbance has happened as often as it should.
func (r *resumption) disturb(all []disturbance, begin func(n int) arriving) {
	t := r.t
	t.Helper()
	var queue []disturbance
	for _, d := range all {
		for range *resumeCuts {
			queue = append(queue, d)
		}
	}
	r.random.Shuffle(len(queue), func(i, j int) { queue[i], queue[j] = queue[j], queue[i] })
	cuts, files := 0, 0
	for ; len(queue) > 0; files++ {
		if files > *resumeCuts*len(all) {
			t.Fatalf("%d files were delivered, and only %d times was there something to break off", files, cuts)
		}
		arrived := begin(files)
		for len(queue) > 0 {
			h := r.line.holdAfter(1 + r.random.Int64N(min(*resumeSize, longestLife)))
			if r.wait(h, arrived) {
				break
			}
			queue[0].do(r)
			queue, cuts = queue[1:], cuts+1
		}
		r.line.release()
		r.wait(nil, arrived)
	}
	sent := r.line.up.Load()
	t.Logf("%d files of %d bytes were broken off %d times; beyond the files, %.1f MiB were sent for each time",
		files, *resumeSize, cuts, float64(sent-int64(files)*(*resumeSize))/float64(cuts)/(1<<20))
	if most := allowed(int64(files)*(*resumeSize), cuts); sent > most {
		t.Errorf("%d bytes were sent, want at most %d", sent, most)
	}
	if least := int64(files) * *resumeSize; sent < least {
		t.Errorf("%d bytes were sent of %d: not all came this way", sent, least)
	}
	for n := range files {
		r.check(n)
	}
}

// wait returns as soon as the hold is reached, or the file has arrived.
func (r *resumption) wait(h *hold, arrived arriving) bool {
	r.t.Helper()
	var reached chan struct{}
	if h != nil {
		reached = h.reached
	}
	end := time.After(2*time.Minute + time.Duration(*resumeSize/10_000_000)*time.Second)
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		select {
		case <-reached:
			return false
		case <-end:
			r.t.Fatal("the file did not arrive")
		case <-tick.C:
		}
		done, err := arrived()
		if err != nil {
			r.t.Fatal(err)
		}
		if done {
			return true
		}
	}
}

func resumedName(n int) string { return fmt.Sprintf("large %d", n) }

// check compares what is on the server's disk.
func (r *resumption) check(n int) {
	r.t.Helper()
	want, err := sha256Of(content(uint64(n), *resumeSize))
	if err != nil {
		r.t.Fatal(err)
	}
	got, err := sha256OfFile(r.server.stored("ci", resumedName(n)))
	if err != nil || got != want {
		r.t.Errorf("stored with SHA-256 %s, %v; want %s", got, err, want)
	}
}

// upload hands a file to the gateway.
func (r *resumption) upload(n int) arriving {
	r.t.Helper()
	u, err := post(r.t.Context(), r.gateway.http, resumedName(n), content(uint64(n), *resumeSize), *resumeSize)
	if err != nil {
		r.t.Fatal(err)
	}
	return func() (bool, error) {
		now, err := look(r.t.Context(), r.gateway.http, u.ID)
		if err == nil && (now.State == "failed" || now.State == "cancelled") {
			err = fmt.Errorf("the upload is %s: %s", now.State, now.Error)
		}
		return now.State == "delivered", err
	}
}

// A resending is a ferry send that is started again each time it was killed.
type resending struct {
	r    *resumption
	home string
	join string
	path string
	name string
	cmd  *exec.Cmd
	done chan result // nil while none runs
}

// begin sends a file until it has arrived.
func (s *resending) begin(n int) arriving {
	s.r.t.Helper()
	s.name = resumedName(n)
	s.path = filepath.Join(s.r.t.TempDir(), s.name)
	writeFile(s.r.t, s.path, uint64(n), *resumeSize)
	return func() (bool, error) {
		if s.done == nil {
			s.start()
			return false, nil
		}
		select {
		case got := <-s.done:
			s.done = nil
			if got.status == 0 {
				return true, nil
			}
			return false, fmt.Errorf("ferry send: %+v", got)
		default:
			return false, nil
		}
	}
}

func (s *resending) start() {
	s.cmd = command(s.r.t, s.home, "send", "--to", s.r.server.url(s.r.line.address), "--join", s.join, "--name", "ci", s.path)
	wait, done := background(s.cmd), make(chan result, 1)
	go func() {
		r, err := wait()
		if err != nil {
			r = result{status: -1, stderr: err.Error()}
		}
		done <- r
	}()
	s.done = done
}

func (s *resending) kill() {
	_ = s.cmd.Process.Kill()
	<-s.done
	s.done = nil
}
