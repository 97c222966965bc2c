package server_test

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"ferry/proto"
	"ferry/server"
)

// What is said on the wire in version 3, written down here once more: a test
// that used the codec could not say what it forbids.
const (
	codeRegister, codePublicKey, codeReconnect, codePacket = 825, 826, 827, 828
	codeEqual, codeDiffers, codeGiveUp                     = 900, 901, 902
	codeRegistered, codeKey, codeReconnected, codeUnknown  = 1600, 1602, 1605, 1606
	codeReceived, codeThanks, codeRefused                  = 1603, 1604, 1607
)

// A raw is a connection that says what it likes.
type raw struct {
	t    *testing.T
	conn net.Conn
	id   proto.ClientID
}

func (h *harness) raw(t *testing.T, id proto.ClientID) *raw {
	t.Helper()
	conn, err := net.Dial("tcp", h.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(wait)); err != nil {
		t.Fatal(err)
	}
	return &raw{t, conn, id}
}

func padded(name string) []byte {
	b := make([]byte, 255)
	copy(b, name)
	return b
}

// request is a header that may lie about its payload.
func request(id proto.ClientID, code uint16, size uint32) []byte {
	b := append(id[:], 3)
	b = binary.LittleEndian.AppendUint16(b, code)
	return binary.LittleEndian.AppendUint32(b, size)
}

func (r *raw) say(code uint16, payload ...[]byte) {
	r.t.Helper()
	body := bytes.Join(payload, nil)
	r.write(append(request(r.id, code, uint32(len(body))), body...))
}

func (r *raw) write(b []byte) {
	r.t.Helper()
	if _, err := r.conn.Write(b); err != nil {
		r.t.Fatal(err)
	}
}

// hear returns the code of the next answer, or 0 if the server has closed.
func (r *raw) hear() (code uint16, payload []byte) {
	r.t.Helper()
	var head [7]byte
	if _, err := io.ReadFull(r.conn, head[:]); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			r.t.Fatal("the server says nothing and does not close")
		}
		return 0, nil
	}
	payload = make([]byte, binary.LittleEndian.Uint32(head[3:]))
	if _, err := io.ReadFull(r.conn, payload); err != nil {
		r.t.Fatal(err)
	}
	return binary.LittleEndian.Uint16(head[1:]), payload
}

func (r *raw) expect(what string, want ...uint16) {
	r.t.Helper()
	for _, w := range want {
		if got, _ := r.hear(); got != w {
			r.t.Errorf("%s: answer %d, want %v", what, got, want)
			return
		}
	}
}

// publicKey is what 826 carries, of a client's private key.
func publicKey(t *testing.T, private []byte) []byte {
	t.Helper()
	key, err := x509.ParsePKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.(*rsa.PrivateKey).PublicKey)
	if err != nil || len(public) != 160 {
		t.Fatalf("%d bytes of public key, %v", len(public), err)
	}
	return public
}

// register makes a client with a key that there is.
func (h *harness) register(t *testing.T, name string, private []byte) proto.ClientID {
	t.Helper()
	r := h.raw(t, proto.ClientID{})
	r.say(codeRegister, padded(name))
	code, id := r.hear()
	if code != codeRegistered || copy(r.id[:], id) != len(r.id) {
		t.Fatalf("register %q: answer %d", name, code)
	}
	r.say(codePublicKey, padded(name), publicKey(t, private))
	r.expect("public key", codeKey)
	_ = r.conn.Close()
	return r.id
}

// packet is the first of total packets of a file, in the seed's dialect.
func packet(name string, content, original uint32, total uint16) []byte {
	b := binary.LittleEndian.AppendUint32(nil, content)
	b = binary.LittleEndian.AppendUint32(b, original)
	b = binary.LittleEndian.AppendUint16(b, total)
	b = binary.LittleEndian.AppendUint16(b, 1)
	return append(b, padded(name)...)
}

// A victim is a client with one file that is stored.
type victim struct {
	*harness
	keys *keyring
	id   proto.ClientID
	c    *proto.Client
}

func newVictim(t *testing.T, limits server.Limits) *victim {
	t.Helper()
	v := &victim{harness: listen(t, t.TempDir(), limits), keys: new(keyring)}
	v.c = v.native("victim", v.keys, nil)
	if _, err := deliver(t, v.c, "finished", []byte("finished"), proto.Watcher{}); err != nil {
		t.Fatal(err)
	}
	v.id = v.keys.id.ID
	return v
}

// unharmed fails the test unless the victim's file is there and it can store
// another one, and nothing else lies anywhere.
func (v *victim) unharmed(t *testing.T) {
	t.Helper()
	if _, err := deliver(t, v.native("victim", v.keys, nil), "next", []byte("next"), proto.Watcher{}); err != nil {
		t.Errorf("the victim cannot go on: %v", err)
	}
	v.stop()
	var got []string
	err := filepath.WalkDir(filepath.Join(v.data, "files"), func(path string, d os.DirEntry, err error) error {
		if !d.IsDir() {
			got = append(got, d.Name())
		}
		return err
	})
	if err != nil || strings.Join(got, " ") != "finished next" {
		t.Errorf("files: %q, %v", got, err)
	}
	if content, _ := v.read("victim", "finished"); content != "finished" {
		t.Errorf("the file became %q", content)
	}
	if got := v.staged(); got != 0 {
		t.Errorf("%d bytes are left in staging", got)
	}
	for _, side := range []string{filepath.Dir(v.data), v.data} {
		if _, err := os.Stat(filepath.Join(side, "escaped")); err == nil {
			t.Errorf("something was written to %s", side)
		}
	}
	verified(t, v.data, 2)
}

func (v *victim) reconnected(t *testing.T) *raw {
	t.Helper()
	r := v.raw(t, v.id)
	r.say(codeReconnect, padded("victim"))
	r.expect("reconnect", codeReconnected)
	return r
}

func TestHostileFinishedFile(t *testing.T) {
	v := newVictim(t, server.Limits{})
	for _, code := range []uint16{codeEqual, codeDiffers, codeGiveUp} {
		r := v.reconnected(t)
		r.say(code, padded("finished"))
		r.expect(fmt.Sprint(code), codeRefused)
	}
	r := v.reconnected(t)
	r.say(codePacket, packet("finished", 16, 3, 1), make([]byte, 7902))
	r.expect("the same name", codeRefused)
	v.unharmed(t)
}

func TestHostileGarbageTakesNoName(t *testing.T) {
	v := newVictim(t, server.Limits{})
	r := v.reconnected(t)
	r.say(codePacket, packet("next", 15_808, 15_800, 3), make([]byte, 7902))
	r.expect("the first packet", codeThanks)
	_ = r.conn.Close()
	r = v.reconnected(t)
	r.say(codePacket, packet("next", 16, 3, 1), make([]byte, 7902))
	r.expect("one packet of garbage", codeThanks, codeReceived)
	r.say(codeEqual, padded("next")) // whatever the checksum was
	r.expect("900", codeRefused)
	v.unharmed(t)
}

func TestHostileIdentity(t *testing.T) {
	v := newVictim(t, server.Limits{})
	r := v.raw(t, proto.ClientID{1, 2, 3})
	r.say(codeReconnect, padded("victim"))
	r.expect("an unknown id", codeUnknown)
	r = v.raw(t, v.id)
	r.say(codeReconnect, padded("somebody"))
	r.expect("another name", codeUnknown)

	other := new(keyring)
	if _, err := deliver(t, v.native("mallory", other, nil), "f", nil, proto.Watcher{}); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(v.data, "files", "mallory", "f")); err != nil { // for unharmed
		t.Fatal(err)
	}
	public := publicKey(t, other.id.PrivateKey)
	r = v.raw(t, v.id)
	r.say(codePublicKey, padded("victim"), public)
	r.expect("another key", codeRefused, 0) // closed, and logged before
	if got := v.log.lines("level=WARN", "another public key", "address=127.0.0.1"); len(got) != 1 {
		t.Errorf("the log says %s", v.log)
	}
	put(t, v.data, "mallory", "f", "")
	verified(t, v.data, 2)
	if _, err := deliver(t, v.native("victim", v.keys, nil), "next", nil, proto.Watcher{}); err != nil {
		t.Error(err)
	}
}

func TestHostileNames(t *testing.T) {
	v := newVictim(t, server.Limits{})
	bad := []string{"", ".", "..", "../escaped", "../../escaped", "../mallory/escaped", "/escaped", `..\escaped`, "a/b", "a\x00b", "a\nb", "\xff\xfe"}
	for _, name := range bad {
		r := v.raw(t, proto.ClientID{})
		r.say(codeRegister, padded(name))
		r.expect(fmt.Sprintf("user name %q", name), codeRefused)

		r = v.reconnected(t)
		r.say(codePacket, packet(name, 16, 3, 1), make([]byte, 7902))
		for {
			code, _ := r.hear()
			if code == codeThanks { // before the 1607, so that it is not taken for ErrExists
				continue
			}
			if code != codeRefused {
				t.Errorf("file name %q: answer %d, want %d", name, code, codeRefused)
			}
			break
		}
	}
	v.unharmed(t)
}

func TestHostileHeaders(t *testing.T) {
	v := newVictim(t, server.Limits{})
	for _, code := range []uint16{codeRegister, codePublicKey, codeReconnect, codePacket, codeEqual, codeDiffers, codeGiveUp, 0, 1, 1600, math.MaxUint16} {
		for _, size := range []uint32{0, 1, 1 << 20, math.MaxUint32} {
			if code == codeReconnect && size == 0 {
				continue
			}
			r := v.raw(t, v.id)
			r.write(request(r.id, code, size))
			if got, _ := r.hear2(); got != codeRefused && got != 0 {
				t.Errorf("%d with %d bytes: answer %d", code, size, got)
			}
			r = v.reconnected(t)
			r.write(request(r.id, code, size))
			if got, _ := r.hear2(); got != codeRefused && got != 0 {
				t.Errorf("%d with %d bytes, when known: answer %d", code, size, got)
			}
		}
	}
	for n := range 23 { // half headers
		r := v.raw(t, v.id)
		r.write(request(r.id, codeReconnect, 255)[:n])
		_ = r.conn.Close()
	}
	v.unharmed(t)
}

// hear2 is hear after our half is closed: what is missing does not come.
func (r *raw) hear2() (uint16, []byte) {
	r.t.Helper()
	if err := r.conn.(*net.TCPConn).CloseWrite(); err != nil {
		r.t.Fatal(err)
	}
	return r.hear()
}

// TestHostileSilence has many connections say nothing, or little, while a client
// goes on.
func TestHostileSilence(t *testing.T) {
	v := newVictim(t, server.Limits{Conns: 60, ConnsPerAddress: 50, Handshake: 2 * time.Second})
	var all []*raw
	for i := range 300 {
		r := v.raw(t, v.id)
		if i%2 == 0 {
			_, _ = r.conn.Write(request(r.id, codeReconnect, 255)[:1+i%22]) // it may be closed already
		}
		all = append(all, r)
	}
	time.Sleep(300 * time.Millisecond) // an honest handshake's time
	start := time.Now()
	if _, err := deliver(t, v.native("victim", v.keys, nil), "meanwhile", nil, proto.Watcher{}); err != nil {
		t.Errorf("beside silent connections: %v", err)
	}
	if d := time.Since(start); d > time.Second {
		t.Errorf("it took %v", d)
	}
	for _, r := range all { // all are closed in the end
		if code, _ := r.hear(); code != 0 && code != codeRefused {
			t.Fatalf("answer %d", code)
		}
	}
	if got := v.log.lines("over a limit"); len(got) == 0 || len(got) > 3 {
		t.Errorf("the log says %q", got)
	}
}

// TestIdleConnectionsAreSmall opens a thousand and looks at what they hold, both
// ends together.
func TestIdleConnectionsAreSmall(t *testing.T) {
	const n = 1000
	v := newVictim(t, server.Limits{Conns: 1100, ConnsPerAddress: 1100, ConnsPerClient: 1100})
	held := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	before := held()
	var all []*raw
	for range n {
		all = append(all, v.reconnected(t))
	}
	if got := (held() - before) / n; got > 32<<10 {
		t.Errorf("%d bytes a connection, want no more than 32 KiB", got)
	} else {
		t.Logf("%d bytes a connection", got)
	}
	runtime.KeepAlive(all)
}
