package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"ferry/proto"
)

// serverIdentity is a key and certificate for servers of version 4: making
// one for each test would take a third of a second.
var serverIdentity = sync.OnceValues(proto.NewServerIdentity)

// identityFile is where a server keeps it.
const identityFile = "identity.pem"

// A serverV4 is a ferry server as a process that speaks version 4.
type serverV4 struct {
	*process
	data string
	args []string
}

// startV4 runs ferry server on a data folder, with the identity that the tests
// have made.
func startV4(t testing.TB, data string, args ...string) *serverV4 {
	t.Helper()
	giveIdentity(t, data)
	s := &serverV4{data: data, args: append([]string{"server", "--data", data, "--listen", "127.0.0.1:0"}, args...)}
	s.process = start(t, s.args...)
	return s
}

// giveIdentity puts that identity into a server's data folder.
func giveIdentity(t testing.TB, data string) {
	t.Helper()
	pem, err := serverIdentity()
	if err == nil {
		err = errors.Join(os.MkdirAll(data, 0o700), os.WriteFile(filepath.Join(data, identityFile), pem, 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// again starts it once more, wherever a port is free, after it has ended.
func (s *serverV4) again() {
	s.t.Helper()
	s.process = start(s.t, s.args...)
}

// url is the destination at an address, where the server or somebody before it
// listens.
func (s *serverV4) url(address string) string { return "v4://" + address + "?pin=" + s.pin }

// token makes a join token.
func (s *serverV4) token(args ...string) string {
	s.t.Helper()
	r := ferry(s.t, "", append([]string{"server", "token", "create", "--data", s.data}, args...)...)
	if r.status != 0 {
		s.t.Fatalf("ferry server token create: %+v", r)
	}
	for word := range strings.FieldsSeq(r.stdout) {
		if strings.HasPrefix(word, "ferry-join-") {
			return word
		}
	}
	s.t.Fatalf("ferry server token create printed %q, and no token", r.stdout)
	return ""
}

// stored is where a client's file is on disk.
func (s *serverV4) stored(client, name string) string {
	return filepath.Join(s.data, "files", client, filepath.FromSlash(name))
}

// A result is what a command came to.
type result struct {
	status         int
	stdout, stderr string
}

// says reports whether the command printed all these words, anywhere.
func (r result) says(words ...string) bool { return hasAll(r.stdout+r.stderr, words) }

// ferry runs the binary to its end, in a home of its own if home is not empty.
func ferry(t testing.TB, home string, args ...string) result {
	t.Helper()
	return finish(t, command(t, home, args...))
}

// command is ferry with args, to be run.
func command(t testing.TB, home string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), ferryBinary, args...)
	cmd.Env = withoutFerryVariables(os.Environ())
	if home != "" {
		cmd.Env = append(cmd.Env, "HOME="+home, "XDG_STATE_HOME="+filepath.Join(home, "state"), "XDG_CONFIG_HOME="+filepath.Join(home, "config"))
	}
	return cmd
}

func finish(t testing.TB, cmd *exec.Cmd) result {
	t.Helper()
	r, err := background(cmd)()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// background starts a command and returns what waits for its end.
func background(cmd *exec.Cmd) (wait func() (result, error)) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Start()
	return func() (result, error) {
		if err != nil {
			return result{}, fmt.Errorf("ferry %s: %w", args(cmd), err)
		}
		if err := cmd.Wait(); err != nil {
			if _, exited := errors.AsType[*exec.ExitError](err); !exited {
				return result{}, fmt.Errorf("ferry %s: %w", args(cmd), err)
			}
		}
		return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}, nil
	}
}

// A gatewayV4 is a ferry gateway as a process, that delivers to an address.
type gatewayV4 struct {
	*process
	data string
	args []string
}

// startGatewayV4 runs a gateway that joins, under a name, the server that
// listens at an address or lies behind it.
func (s *serverV4) startGatewayV4(data, address, name string, args ...string) *gatewayV4 {
	s.t.Helper()
	g := &gatewayV4{data: data, args: append([]string{
		"gateway", "--data", data, "--http", "127.0.0.1:0",
		"--to", s.url(address), "--join", s.token(), "--name", name,
	}, args...)}
	g.process = start(s.t, g.args...)
	return g
}

// again starts it once more after it has ended.
func (g *gatewayV4) again() {
	g.t.Helper()
	g.process = start(g.t, g.args...)
}

// retry has an upload that waits tried again at once.
func retry(ctx context.Context, base, id string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/uploads/"+id+"/retry", nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	return res.Body.Close() // one that is not waiting any more is refused, which is well
}

// look is where an upload stands; one that waits for its next attempt is
// tried again at once, so that tests need not wait.
func look(ctx context.Context, base, id string) (upload, error) {
	u, err := get(ctx, base, id)
	if err == nil && u.State == "waiting" {
		err = retry(ctx, base, id)
	}
	return u, err
}

// pollEvery is how often tests look at what they wait for.
const pollEvery = 5 * time.Millisecond

// final polls until an upload is at its end, whichever.
func final(ctx context.Context, base, id string) (upload, error) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		u, err := look(ctx, base, id)
		if err != nil {
			return u, fmt.Errorf("upload %s: %w", id, err)
		}
		switch u.State {
		case "delivered", "failed", "cancelled":
			return u, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return u, fmt.Errorf("upload %s is %s after %d attempts, the last of which: %s: %w", id, u.State, u.Attempts.Count, u.Attempts.LastError, context.Cause(ctx))
		}
	}
}

// deliveredSoon wants an upload to be delivered, however often it is tried.
func deliveredSoon(t testing.TB, base, id string, limit time.Duration) upload {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	u, err := final(ctx, base, id)
	if err != nil {
		t.Fatal(err)
	}
	if u.State != "delivered" {
		t.Fatalf("upload %s is %s: %s", id, u.State, u.Error)
	}
	return u
}

// eventually polls until a condition holds, and fails the test with what it
// says at last if it does not within a limit.
func eventually(t testing.TB, limit time.Duration, condition func() error) {
	t.Helper()
	end := time.Now().Add(limit)
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not within %v: %v", limit, err)
		}
		time.Sleep(pollEvery)
	}
}
