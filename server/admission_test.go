package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ferry/proto"
	"ferry/server"
)

// closed serves a listener that wants join tokens.
func closed(t testing.TB, data string, limits server.Limits) *harness {
	t.Helper()
	h := openOn(t, data, limits)
	h.admission = server.Admission{}
	h.serve()
	return h
}

func (h *harness) token(o server.TokenOptions) string {
	h.t.Helper()
	token, err := h.CreateToken(context.Background(), o)
	if err != nil {
		h.t.Fatal(err)
	}
	if !strings.HasPrefix(token, "ferry-join-") || len(token) != len("ferry-join-")+32 || strings.ToLower(token) != token {
		h.t.Errorf("token %q", token)
	}
	return token
}

// join connects with a token and returns what came of the handshake.
func (h *harness) join(name, token string) (*peer, error) {
	h.t.Helper()
	p := &peer{t: h.t, name: name, address: "127.0.0.1", token: token,
		offers: make(chan *transfer), entered: make(chan struct{}), gone: make(chan struct{})}
	h.dial(p)
	select {
	case <-p.entered:
		return p, nil
	case <-p.gone:
		return p, p.ended
	case <-time.After(wait):
		h.t.Fatal("the handshake does not end")
		return nil, nil
	}
}

func TestJoin(t *testing.T) {
	data := t.TempDir()
	h := closed(t, data, server.Limits{Clients: 5})
	try := func(what, name, token string, want error) *peer {
		t.Helper()
		p, err := h.join(name, token)
		if !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
		if err != nil && token != "" && strings.Contains(err.Error(), token) {
			t.Errorf("%s: the error shows the token", what)
		}
		return p
	}
	try("no token", "alice", "", proto.ErrUnauthorized)
	try("a made up one", "alice", "ferry-join-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", proto.ErrUnauthorized)
	once := h.token(server.TokenOptions{})
	try("a good one", "alice", once, nil).send(file("f", "alice's"))
	try("used", "bob", once, proto.ErrUnauthorized)
	twice := h.token(server.TokenOptions{Uses: 2})
	try("the name is taken", "alice", twice, proto.ErrNameTaken)
	try("first of two", "bob", twice, nil)
	try("second of two", "carol", twice, nil)
	try("third of two", "dave", twice, proto.ErrUnauthorized)
	named := h.token(server.TokenOptions{Client: "dave", Uses: 2})
	try("of another name", "eve", named, proto.ErrUnauthorized)
	try("of that name", "dave", named, nil)
	try("again", "dave", named, nil)
	try("once more", "dave", named, proto.ErrUnauthorized)
	expired := h.token(server.TokenOptions{Expires: time.Nanosecond})
	try("expired", "eve", expired, proto.ErrUnauthorized)
	many := h.token(server.TokenOptions{Uses: 100})
	try("the last one", "eve", many, nil)
	try("one too many", "frank", many, proto.ErrRefused)
	if b, err := os.ReadFile(filepath.Join(data, "catalog.db-wal")); err != nil || strings.Contains(string(b), strings.TrimPrefix(many, "ferry-join-")) {
		t.Errorf("the token itself is in the catalog, or cannot be looked for: %v", err)
	}
	if strings.Contains(h.log.String(), "ferry-join-") {
		t.Errorf("a token is in the log: %s", h.log)
	}
	// Whoever is registered needs none.
	try("known", "alice", "", nil)
}

// TestReplaceByToken: a token for a name is good for another key; id and files
// stay, the old key's connections end, and a revocation is lifted.
func TestReplaceByToken(t *testing.T) {
	data := t.TempDir()
	h := closed(t, data, server.Limits{})
	old, err := h.join("alice", h.token(server.TokenOptions{Client: "alice"}))
	if err != nil {
		t.Fatal(err)
	}
	old.send(file("f", "content"))
	for _, revoked := range []bool{false, true} {
		if revoked {
			if err := h.RevokeClient(t.Context(), "alice"); err != nil {
				t.Fatal(err)
			}
			await(t, old.gone, "the revoked client to be cut")
		}
		fresh, err := h.join("alice", h.token(server.TokenOptions{Client: "alice"}))
		if err != nil {
			t.Fatalf("revoked %v: %v", revoked, err)
		}
		await(t, old.gone, "the end of the connection with the old key")
		if fresh.client.ID != old.client.ID {
			t.Errorf("the id became %v", fresh.client.ID)
		}
		if got := fresh.offer(file("f", "content")); !errors.Is(got.err, proto.ErrExists) || got.as.Sum != sumOf("content") {
			t.Errorf("its file: %+v", got)
		}
		old = fresh
	}
	if got := h.log.lines("its key was replaced", "client=alice"); len(got) != 2 {
		t.Errorf("the log says %s", h.log)
	}
}

// TestTokenForOneOfMany lets many use a token at once that is good for some.
func TestTokenForOneOfMany(t *testing.T) {
	h := closed(t, t.TempDir(), server.Limits{})
	token := h.token(server.TokenOptions{Uses: 3})
	var all sync.WaitGroup
	var mu sync.Mutex
	joined := 0
	for i := range 30 {
		all.Go(func() {
			if _, err := h.join(fmt.Sprintf("client %d", i), token); err == nil {
				mu.Lock()
				joined++
				mu.Unlock()
			} else if !errors.Is(err, proto.ErrUnauthorized) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if joined != 3 {
		t.Errorf("%d clients joined with a token for 3", joined)
	}
}

func TestReplaceKey(t *testing.T) {
	h := start(t, t.TempDir(), server.Limits{})
	alice := h.client("alice").client
	d := server.DirectoryOf(h.Server)
	if err := d.Replace(t.Context(), alice.ID, []byte("another"), []byte("fresh")); !errors.Is(err, proto.ErrUnauthorized) {
		t.Errorf("with another old key: %v", err)
	}
	if err := d.Replace(t.Context(), alice.ID, alice.PublicKey, []byte("fresh")); err != nil {
		t.Fatal(err)
	}
	if got, err := d.ByID(t.Context(), alice.ID); err != nil || string(got.PublicKey) != "fresh" || got.Name != alice.Name {
		t.Errorf("%+v, %v", got, err)
	}
	if err := h.RevokeClient(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	if err := d.Replace(t.Context(), alice.ID, []byte("fresh"), []byte("third")); !errors.Is(err, proto.ErrUnauthorized) {
		t.Errorf("when revoked: %v", err)
	}
	if _, err := d.ByID(t.Context(), alice.ID); !errors.Is(err, proto.ErrRevoked) {
		t.Errorf("by id when revoked: %v", err)
	}
}

// TestOperatorBeside makes, lists and revokes tokens and clients in a process that
// is not the server's, which is not there at first and then runs.
func TestOperatorBeside(t *testing.T) {
	data := filepath.Join(t.TempDir(), "server")
	ctx := t.Context()
	for what, err := range map[string]error{
		"revoke a token": server.RevokeToken(ctx, data, "ab"), "revoke a client": server.RevokeClient(ctx, data, "alice"),
	} {
		if err == nil || !strings.Contains(err.Error(), "no server") {
			t.Errorf("%s where no server was: %v", what, err)
		}
	}
	early := otherProcess(t, data, "create", "alice")
	h := closed(t, data, server.Limits{})
	p, err := h.join("alice", early)
	if err != nil {
		t.Fatalf("with a token from before the first start: %v", err)
	}
	late := otherProcess(t, data, "create", "")
	if _, err := h.join("bob", late); err != nil {
		t.Errorf("with a token made beside the server: %v", err)
	}

	unused := h.token(server.TokenOptions{Client: "carol", Expires: time.Hour, Uses: 7})
	h.token(server.TokenOptions{})
	infos := tokens(t, data)
	if len(infos) != 2 {
		t.Fatalf("%d tokens are good, want 2: %+v", len(infos), infos)
	}
	if infos[0].Client == "" { // both were made in one millisecond
		infos[0], infos[1] = infos[1], infos[0]
	}
	carol := infos[0]
	if carol.Client != "carol" || carol.Uses != 7 || carol.ExpiresAt.Sub(carol.CreatedAt) != time.Hour || len(carol.ID) != 12 {
		t.Errorf("%+v", carol)
	}
	if !infos[1].ExpiresAt.IsZero() || infos[1].Client != "" || infos[1].Uses != 1 {
		t.Errorf("%+v", infos[1])
	}
	for id, want := range map[string]error{"": server.ErrNoToken, "zz": server.ErrNoToken, "%": server.ErrNoToken, carol.ID + "0000": server.ErrNoToken} {
		if err := server.RevokeToken(ctx, data, id); !errors.Is(err, want) {
			t.Errorf("revoke %q: %v, want %v", id, err, want)
		}
	}
	if err := server.RevokeToken(ctx, data, strings.ToUpper(carol.ID[:8])); err != nil {
		t.Error(err)
	}
	if _, err := h.join("carol", unused); !errors.Is(err, proto.ErrUnauthorized) {
		t.Errorf("with a revoked token: %v", err)
	}
	if got := tokens(t, data); len(got) != 1 {
		t.Errorf("%d tokens are left, want 1", len(got))
	}

	p.send(file("f", "x"))
	otherProcess(t, data, "revoke", "alice")
	before := time.Now()
	await(t, p.gone, "the revoked client to be cut")
	if d := time.Since(before); d > 5*time.Second { // 2 on a machine that has time
		t.Errorf("it took %v", d)
	}
	if !errors.Is(p.ended, proto.ErrRevoked) || !p.closed {
		t.Errorf("its session ended with %v, closed %v", p.ended, p.closed)
	}
	if _, err := h.join("alice", ""); !errors.Is(err, proto.ErrRevoked) {
		t.Errorf("it comes again: %v", err)
	}
	for c, err := range inspect(t, data).Clients(ctx) {
		if err != nil || c.RevokedAt.IsZero() != (c.Name != "alice") {
			t.Errorf("%s is revoked at %v, %v", c.Name, c.RevokedAt, err)
		}
	}
	otherProcess(t, data, "restore", "alice")
	if p, err = h.join("alice", ""); err != nil {
		t.Fatalf("restored: %v", err)
	}
	if got := p.offer(file("f", "x")); !errors.Is(got.err, proto.ErrExists) {
		t.Errorf("its file: %+v", got)
	}
	if err := server.RevokeClient(ctx, data, "nobody"); !errors.Is(err, proto.ErrUnknownClient) {
		t.Errorf("revoke nobody: %v", err)
	}
}

func TestManyTokensBeginAlike(t *testing.T) {
	data := t.TempDir()
	h := closed(t, data, server.Limits{})
	for range 17 { // two of them begin with the same digit
		h.token(server.TokenOptions{})
	}
	found := false
	for _, digit := range "0123456789abcdef" {
		err := server.RevokeToken(t.Context(), data, string(digit))
		found = found || errors.Is(err, server.ErrManyTokens)
		if err != nil && !errors.Is(err, server.ErrNoToken) && !errors.Is(err, server.ErrManyTokens) {
			t.Error(err)
		}
	}
	if !found || len(tokens(t, data)) < 2 {
		t.Errorf("%d tokens are left; told that there are many: %v", len(tokens(t, data)), found)
	}
}

func tokens(t *testing.T, data string) (all []server.TokenInfo) {
	t.Helper()
	for info, err := range server.Tokens(t.Context(), data) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, info)
	}
	return all
}

// operate lets the test binary be an operator's command.
func operate(data, what, name string) error {
	ctx := context.Background()
	switch what {
	case "create":
		token, err := server.CreateToken(ctx, data, server.TokenOptions{Client: name})
		fmt.Print(token)
		return err
	case "revoke":
		return server.RevokeClient(ctx, data, name)
	case "restore":
		return server.RestoreClient(ctx, data, name)
	}
	return errors.New("unknown command")
}

func otherProcess(t *testing.T, data, what, name string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "SERVER_TEST_OPERATE="+what, "SERVER_TEST_DATA="+data, "SERVER_TEST_NAME="+name)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v", what, name, err)
	}
	return string(out)
}

// TestReplacedKeyEndsOthers: what proved itself with the old key does not go on
// with it, in the middle of a file either.
func TestReplacedKeyEndsOthers(t *testing.T) {
	inBubble(t, server.Limits{}, func(t *testing.T, h *harness) {
		p := h.client("alice")
		f := large("f", 2<<20, func(ctx context.Context, _ proto.Sink) error {
			<-ctx.Done()
			return context.Cause(ctx)
		})
		p.offers <- f
		synctest.Wait()
		if err := server.DirectoryOf(h.Server).Replace(t.Context(), p.client.ID, p.client.PublicKey, []byte("another")); err != nil {
			t.Fatal(err)
		}
		if got := <-f.outcome; !errors.Is(got.err, proto.ErrUnauthorized) {
			t.Errorf("the transfer: %+v", got)
		}
		await(t, p.gone, "the end of the connection with the old key")
	})
}

// TestRevokedAgainstToken: a token that was made before is no way back in.
func TestRevokedAgainstToken(t *testing.T) {
	h := start(t, t.TempDir(), server.Limits{})
	h.client("alice").send(file("f", "x"))
	if _, err := server.CreateToken(t.Context(), h.data, server.TokenOptions{Uses: 1, Expires: time.Hour, Client: "alice"}); err != nil {
		t.Fatal(err)
	}
	if err := server.RevokeClient(t.Context(), h.data, "alice"); err != nil {
		t.Fatal(err)
	}
	for token, err := range server.Tokens(t.Context(), h.data) {
		t.Errorf("%+v, %v; want no token for who is revoked", token, err)
	}
}

// TestRevokedInMidTransfer: a file that comes in is cut within two seconds of a
// revocation by somebody else, the session hears why, and nothing is left.
func TestRevokedInMidTransfer(t *testing.T) {
	inBubble(t, server.Limits{}, func(t *testing.T, h *harness) {
		p, other := h.client("alice"), h.client("bob")
		f := large("f", 2<<20, func(ctx context.Context, dst proto.Sink) error {
			if _, err := io.WriteString(dst, "something"); err != nil {
				return err
			}
			if err := dst.Keep([]byte("state")); err != nil {
				return err
			}
			<-ctx.Done()
			return context.Cause(ctx)
		})
		p.offers <- f
		synctest.Wait()
		before := time.Now()
		if err := server.RevokeClient(t.Context(), h.data, "alice"); err != nil {
			t.Fatal(err)
		}
		got := <-f.outcome
		<-p.gone
		if took := time.Since(before); !errors.Is(got.err, proto.ErrRevoked) || took > 2*time.Second {
			t.Errorf("%+v after %v", got, took)
		}
		if left := h.staged(); left != 0 {
			t.Errorf("%d bytes are left in staging", left)
		}
		other.send(file("f", "x"))
		if got := h.log.lines("level=WARN", "connection", "client=alice"); len(got) > 1 {
			t.Errorf("the log says %q", got)
		}
	})
}

// TestSessionThatDoesNotEnd: a session that is told to end and does not loses its
// connection.
func TestSessionThatDoesNotEnd(t *testing.T) {
	inBubble(t, server.Limits{}, func(t *testing.T, h *harness) {
		p := h.client("alice")
		leave := make(chan struct{})
		p.offers <- sent("f", "x", func(context.Context, proto.Sink) error {
			<-leave
			return errors.New("cut")
		})
		synctest.Wait()
		before := time.Now()
		if err := h.RevokeClient(t.Context(), "alice"); err != nil {
			t.Fatal(err)
		}
		<-p.gone
		if took := time.Since(before); took > 2*time.Second {
			t.Errorf("it took %v", took)
		}
		close(leave)
	})
}

func TestIdentity(t *testing.T) {
	data := filepath.Join(t.TempDir(), "server")
	var all sync.WaitGroup
	pins := make([]proto.Pin, 4)
	for i := range pins {
		all.Go(func() {
			id, err := server.LoadIdentity(data)
			if err != nil {
				t.Error(err)
			}
			pins[i] = id.Pin()
		})
	}
	all.Wait()
	for _, pin := range pins {
		if pin != pins[0] || pin == (proto.Pin{}) {
			t.Errorf("several identities: %v", pins)
		}
	}
	path := filepath.Join(data, "identity.pem")
	entries, err := os.ReadDir(data)
	if err != nil || len(entries) != 1 {
		t.Errorf("left: %v, %v", entries, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o602} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := server.LoadIdentity(data); err == nil || !strings.Contains(err.Error(), "0600") {
			t.Errorf("mode %v: %v", mode, err)
		}
	}
	if err := errors.Join(os.Chmod(path, 0o600), os.WriteFile(path, []byte("junk"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := server.LoadIdentity(data); err == nil {
		t.Error("junk is an identity")
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "junk" {
		t.Errorf("the file became %q, %v", b, err)
	}
}
