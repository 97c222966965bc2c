package gateway

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"

	"ferry/proto"
)

// like4 is a destination that speaks as version 4 does, with a signer that makes
// one envelope of each name.
func like4(t *testing.T, r *remote) func(*Config, *parts) {
	r.again = true
	r.sign = func(o proto.Offer) []byte { return []byte(`{"payload":"` + o.Name.String() + `"}`) }
	return func(cfg *Config, _ *parts) { cfg.Destinations = to(t, "v4://127.0.0.1:1") }
}

func (c *core) wantReceipt(id ulid.ULID, want string) {
	c.t.Helper()
	u, got, err := c.receipt(c.t.Context(), id)
	if err != nil || string(got) != want {
		c.t.Errorf("receipt %s, %v; want %s", got, err, want)
	}
	if (u.Receipt != nil) != (want != "") || want != "" && *u.Receipt != "/uploads/"+id.String()+"/receipt" {
		c.t.Errorf("the upload says %q", *orEmpty(u.Receipt))
	}
}

// receipts is how many envelopes are kept.
func (c *core) receipts() (n int) {
	c.t.Helper()
	if err := c.db.Read().QueryRow("select count(*) from receipts").Scan(&n); err != nil {
		c.t.Fatal(err)
	}
	return n
}

// TestOffers: an offer names the upload, over all attempts, and says what was
// recorded of it.
func TestOffers(t *testing.T) {
	dir, r := t.TempDir(), newRemote()
	g := openCore(t, dir, r, like4(t, r))
	r.expect("f", fails(errBroken), loses)
	first, other := g.take("f", "content"), g.take("other", "x")
	stop := g.deliverAll()
	g.awaitInTime(first.ID, StateDelivered)
	g.await(other.ID, StateDelivered)
	stop()
	g.shut()
	ids := map[string]map[proto.TransferID]bool{"f": {}, "other": {}}
	for _, o := range r.offers {
		ids[o.Name.String()][o.ID] = true
		if o.Sum == nil || o.Sum.Size != o.Size || o.Sum.SHA256 == [32]byte{} {
			t.Errorf("offered with the sums %+v", o.Sum)
		}
	}
	want := map[string]map[proto.TransferID]bool{"f": {proto.TransferID(first.ID): true}, "other": {proto.TransferID(other.ID): true}}
	if d := cmp.Diff(want, ids); d != "" || len(r.offers) < 3 {
		t.Errorf("%d offers; ids (-want +got):\n%s", len(r.offers), d)
	}
}

// TestAskedAgain loses the answer of a destination that can be asked again, at
// each point, whatever has become of the gateway meanwhile: the upload is
// delivered, and has its receipt.
func TestAskedAgain(t *testing.T) {
	for name, step := range map[string]step{
		"nothing was sent":         fails(errBroken),
		"sent, not stored":         breaks,
		"stored, answer lost":      loses,
		"stored, server stops":     func(s *sending) error { return errors.Join(s.deliver(), &proto.RefusedError{Why: proto.ErrStopping}) },
		"stored, session violated": func(s *sending) error { return errors.Join(s.deliver(), proto.ErrProtocol) },
		"refused, then stored":     func(s *sending) error { return errors.Join(s.deliver(), proto.ErrRefused) },
	} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/restart %v", name, restart), func(t *testing.T) {
				dir, r := t.TempDir(), newRemote()
				g := openCore(t, dir, r, like4(t, r))
				r.expect("f", step, step)
				u := g.take("f", content(1, large))
				stop := g.deliverAll()
				g.await(u.ID, StateWaiting)
				if restart {
					stop()
					g.shut()
					g = openCore(t, dir, r, like4(t, r))
					g.deliverAll()
				}
				g.awaitInTime(u.ID, StateDelivered)
				g.wantReceipt(u.ID, `{"payload":"f"}`)
				if d := cmp.Diff(map[string]string{"f": content(1, large)}, r.stored()); d != "" {
					t.Error(d)
				}
			})
		}
	}
}

// TestNameIsTaken: the destination says what a name is taken by, and that goes
// before what was known here.
func TestNameIsTaken(t *testing.T) {
	r := newRemote()
	g := openCore(t, t.TempDir(), r, like4(t, r))
	r.expect("f", breaks, breaks)
	first, second := g.take("f", "first"), g.take("f", "second")
	g.deliverAll()
	g.await(first.ID, StateWaiting)
	g.cancel(first.ID)
	g.await(second.ID, StateWaiting)
	r.mu.Lock()
	r.files["f"] = "first" // after all
	r.mu.Unlock()
	g.time.advance(maxDelay)
	second = g.await(second.ID, StateFailed)
	for _, sum := range []string{*first.SHA256, *second.SHA256} {
		if !strings.Contains(*second.Error, sum) {
			t.Errorf("error %q, want %s in it", *second.Error, sum)
		}
	}
	g.wantReceipt(second.ID, "")
	if _, err := g.retry(t.Context(), first.ID); err != nil {
		t.Fatal(err)
	}
	g.await(first.ID, StateDelivered)
	g.wantReceipt(first.ID, `{"payload":"f"}`)

	// A server that says of the very content that it exists gives no receipt.
	third := g.take("g", "third")
	g.await(third.ID, StateDelivered)
	r.expect("g", func(s *sending) error { return &proto.ExistsError{Sum: *s.offer.Sum} })
	fourth := g.take("g", "third")
	g.await(fourth.ID, StateDelivered)
	g.wantReceipt(fourth.ID, "")
}

// TestReceiptsAreShared keeps an envelope once, for as long as an upload refers
// to it.
func TestReceiptsAreShared(t *testing.T) {
	dir, r := t.TempDir(), newRemote()
	change := like4(t, r)
	r.sign = func(o proto.Offer) []byte { return []byte(strings.SplitN(o.Name.String(), "-", 2)[0]) }
	g := openCore(t, dir, r, change)
	stop := g.deliverAll()
	a1, a2, b := g.take("a-1", "1"), g.take("a-2", "2"), g.take("b-1", "3")
	for _, u := range []Upload{a1, a2, b} {
		g.await(u.ID, StateDelivered)
	}
	stop()
	g.shut()
	g = openCore(t, dir, r, change)
	for i, c := range []struct {
		forget ulid.ULID
		left   int
	}{{a1.ID, 2}, {b.ID, 1}, {a2.ID, 0}} {
		g.wantReceipt(c.forget, []string{"a", "b", "a"}[i])
		if _, gone, err := g.remove(t.Context(), c.forget); err != nil || !gone {
			t.Fatalf("gone %v, %v", gone, err)
		}
		if n := g.receipts(); n != c.left {
			t.Errorf("%d receipts are kept, want %d", n, c.left)
		}
		if _, _, err := g.receipt(t.Context(), c.forget); !errors.Is(err, errNotFound) {
			t.Errorf("a receipt of what was forgotten: %v", err)
		}
	}
}

// TestReceiptsWithoutBefore opens a database from before there were receipts.
func TestReceiptsWithoutBefore(t *testing.T) {
	dir := t.TempDir()
	db := openOlder(t, dir, 1)
	id := ulid.Make()
	err := db.Update(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `insert into uploads (id, name, size, sha256, cksum, state, body, destination, created_at, updated_at, delivered_at)
			values ($1, 'old', 1, $2, 1, 'delivered', 'gone', 'v3://h:1256', 1, 1, 1)`, id, make([]byte, 32))
		return err
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	g := openCore(t, dir, newRemote())
	if u := g.see(id); u.Name != "old" || u.State != StateDelivered {
		t.Errorf("%+v", u)
	}
	g.wantReceipt(id, "")
}

// TestSourcesSeek: a transfer goes on where it ended without reading what was
// sent before.
func TestSourcesSeek(t *testing.T) {
	for _, size := range []int{10, large} {
		r := newRemote()
		g := openCore(t, t.TempDir(), r)
		r.expect("f", func(s *sending) error {
			src, err := s.src()
			if err != nil {
				return err
			}
			seeker, ok := src.(io.Seeker)
			if !ok {
				return fmt.Errorf("%w: %T cannot seek", proto.ErrSource, src)
			}
			_, err = seeker.Seek(5, io.SeekStart)
			rest, err2 := io.ReadAll(src)
			if err := errors.Join(err, err2, src.Close()); err != nil || string(rest) != content(1, size)[5:] {
				return fmt.Errorf("%w: %d bytes, %w", proto.ErrSource, len(rest), err)
			}
			return s.deliver()
		})
		u := g.take("f", content(1, size))
		g.deliverAll()
		g.await(u.ID, StateDelivered)
	}
}

// anEnvelope is one as the description has it.
func anEnvelope(t *testing.T) string {
	t.Helper()
	b, err := json.Marshal(envelope{PayloadType: "application/vnd.in-toto+json", Payload: "e30=", Signatures: []signature{{KeyID: "sha256:00", Sig: "AA=="}}})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// delivered has an upload of that name delivered, with an envelope if there is
// one.
func (f *fakeAPI) delivered(t *testing.T, name, envelope string) Upload {
	t.Helper()
	u := f.ask(t, "POST", "/uploads?name="+strings.ReplaceAll(name, " ", "%20"), strings.NewReader("x")).upload(t, http.StatusAccepted)
	f.core.mu.Lock()
	defer f.core.mu.Unlock()
	i, err := f.core.find(u.ID)
	if err != nil {
		t.Fatal(err)
	}
	kept := &f.core.kept[i]
	kept.State, kept.DeliveredAt = StateDelivered, &kept.CreatedAt
	if envelope != "" {
		kept.Receipt = new(u.address() + receiptPath)
		f.core.envelopes = map[ulid.ULID][]byte{u.ID: []byte(envelope)}
	}
	return *kept
}

func TestGetReceipt(t *testing.T) {
	s := newFakeAPI(t, func(_ *httpAPI, c *fakeCore) { c.names = namingFor(destination(t, "v4://h").ParseName) })
	want := anEnvelope(t)
	for name, filename := range map[string]string{
		"app.tar.gz":          `attachment; filename=app.tar.gz.receipt.json`,
		"build 17/app.tar.gz": `attachment; filename=app.tar.gz.receipt.json`,
		"two words":           `attachment; filename="two words.receipt.json"`,
		`a"b`:                 `attachment; filename="a\"b.receipt.json"`,
		"grüße":               `attachment; filename*=utf-8''gr%C3%BC%C3%9Fe.receipt.json`,
	} {
		u := s.delivered(t, name, want)
		if got := s.ask(t, "GET", u.address(), nil).upload(t, http.StatusOK); *orEmpty(got.Receipt) != u.address()+"/receipt" {
			t.Errorf("the upload says %q", *orEmpty(got.Receipt))
		}
		a := s.ask(t, "GET", *u.Receipt, nil)
		if a.StatusCode != http.StatusOK || string(a.body) != want {
			t.Fatalf("answer %d: %s", a.StatusCode, a.body)
		}
		for field, value := range map[string]string{
			"Content-Type": receiptType, "Content-Disposition": filename, "Content-Length": fmt.Sprint(len(want)), "Cache-Control": "no-cache",
		} {
			if got := a.Header.Get(field); got != value {
				t.Errorf("%s is %q, want %q", field, got, value)
			}
		}
		again := s.ask(t, "GET", *u.Receipt, nil, "If-None-Match", a.Header.Get("ETag"))
		if again.StatusCode != http.StatusNotModified || len(again.body) > 0 {
			t.Errorf("the same again: answer %d, %s", again.StatusCode, again.body)
		}
		if other := s.ask(t, "GET", *u.Receipt, nil, "If-None-Match", `"x"`); other.StatusCode != http.StatusOK {
			t.Errorf("another one: answer %d", other.StatusCode)
		}
		if head := s.ask(t, "HEAD", *u.Receipt, nil); head.StatusCode != http.StatusOK || head.Header.Get("ETag") != a.Header.Get("ETag") || len(head.body) > 0 {
			t.Errorf("HEAD: answer %d, %v", head.StatusCode, head.Header)
		}
	}
}

func TestNoReceipt(t *testing.T) {
	s := newFakeAPI(t)
	queued := s.ask(t, "POST", "/uploads?name=a", strings.NewReader("x")).upload(t, http.StatusAccepted)
	if queued.Receipt != nil {
		t.Errorf("a receipt of what is queued: %s", *queued.Receipt)
	}
	for says, u := range map[string]Upload{
		"is queued": queued, "wire version 3": s.delivered(t, "b", ""),
	} {
		if p := s.ask(t, "GET", u.address()+"/receipt", nil).problem(t, kindNoReceipt); !strings.Contains(p.Detail, says) {
			t.Errorf("%q does not say %q", p.Detail, says)
		}
	}
	s.ask(t, "GET", "/uploads/"+ulid.Make().String()+"/receipt", nil).problem(t, kindNotFound)
	s.ask(t, "GET", "/uploads/x/receipt", nil).problem(t, kindNotFound)
	s.ask(t, "POST", queued.address()+"/receipt", bytes.NewReader(nil)).problem(t, kindMethod)
	s.core.fail["receipt"] = errors.New("/var/lib/ferry")
	if p := s.ask(t, "GET", queued.address()+"/receipt", nil).problem(t, kindInternal); strings.Contains(p.Detail, "/var") {
		t.Errorf("detail %q", p.Detail)
	}
}
