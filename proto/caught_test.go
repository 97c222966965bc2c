package proto_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"testing"

	"ferry/proto"
)

var internalError = regexp.MustCompile(`internal error: .* \(\w+\.go:\d+\)`)

// TestPanicEndsSession: a panic in a goroutine that a session has made ends that session with
// an error that says where it was; others go on, and nothing stays behind.
func TestPanicEndsSession(t *testing.T) {
	h := newHostV4(alice(t))
	h.take = func(ctx context.Context, transfer proto.Transfer) error {
		if transfer.Offer().Name.String() == "bad" {
			proto.PanicInPackets(transfer)
		}
		return h.store(ctx, transfer)
	}
	address := h.listen(t)
	good, bad := clientV4(t, address), clientV4(t, address)
	b := content(3 << 20)
	send := func(c *proto.Client, name string) error {
		o, src := offered(t, name, b, false)
		_, err := c.Send(t.Context(), o, src, proto.Watcher{})
		return err
	}
	if err := send(good, "before"); err != nil {
		t.Fatal(err)
	}
	if err := send(bad, "bad"); err == nil || proto.Permanent(err) {
		t.Errorf("the file whose session panicked: %v, want an error of the network's kind", err)
	}
	if err := send(good, "after"); err != nil {
		t.Errorf("a file of another session, after it: %v", err)
	}
	if err := errors.Join(good.Close(), bad.Close()); err != nil {
		t.Error(err)
	}
	errs := errors.Join(h.errors()...)
	if errs == nil || !internalError.MatchString(errs.Error()) {
		t.Errorf("the sessions ended with %v, want an internal error with its place", errs)
	}
}

// TestPanicOfSink: a sink's panic reaches whoever called Receive, and no goroutine of
// the session stays behind once the connection is closed.
func TestPanicOfSink(t *testing.T) {
	h := newHostV4(alice(t))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	h.ctx = ctx
	var conn net.Conn
	h.wrap = func(c net.Conn) net.Conn { conn = c; return c }
	h.take = func(ctx context.Context, transfer proto.Transfer) (err error) {
		defer func() { // what a server does about a panic
			err = fmt.Errorf("recovered: %v", recover())
			_ = conn.Close()
			cancel()
		}()
		_, err = transfer.Receive(ctx, panickingSink{})
		return err
	}
	c := clientV4(t, h.listen(t))
	o, src := offered(t, "large", content(8<<20), false)
	if _, err := c.Send(t.Context(), o, src, proto.Watcher{}); err == nil {
		t.Error("the file was delivered")
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if errs := h.errors(); len(errs) == 0 || errs[0].Error() != "recovered: a defect in storing" {
		t.Errorf("the session ended with %v", errs)
	}
}

type panickingSink struct{}

func (panickingSink) Write([]byte) (int, error) { panic("a defect in storing") }
func (panickingSink) Reset() error              { return nil }
func (panickingSink) Kept() (int64, []byte)     { return 0, nil }
func (panickingSink) Keep([]byte) error         { return nil }

func TestPanicInAnswers(t *testing.T) {
	for version, err := range proto.PanickingAnswers() {
		if err == nil || !internalError.MatchString(err.Error()) {
			t.Errorf("%s: %v, want an internal error with its place", version, err)
		}
	}
}
