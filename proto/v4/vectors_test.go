package v4_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"ferry/proto"
	v4 "ferry/proto/v4"
)

var update = flag.Bool("update", false, "write the vectors anew; keys and wrapped secrets stay as they are")

// A manifest says what is in the vectors. Numbers of 64 bits are strings.
type manifest struct {
	Note          string         `json:"note"`
	Secret        string         `json:"secret"`   // that the server made
	Exporter      string         `json:"exporter"` // of the TLS connection
	ClientName    string         `json:"clientName"`
	ClientID      string         `json:"clientId"`
	Wrapped       string         `json:"wrapped"`     // the secret, for client.pem
	WrappedNext   string         `json:"wrappedNext"` // the secret, for next.pem
	ToServer      string         `json:"toServer"`    // the keys
	ToClient      string         `json:"toClient"`
	Pin           string         `json:"pin"`
	Epochs        []epoch        `json:"epochs"`
	Conversations []conversation `json:"conversations"`
}

// An epoch is a message to the server, sealed when so many had been before.
type epoch struct {
	Count   string `json:"count"`
	Key     string `json:"key"` // that has become of ToServer
	Message string `json:"message"`
	Payload string `json:"payload"`
}

// A conversation is all that is said in one connection. What each side says is
// in the files NAME.c2s.bin and NAME.s2c.bin; Messages has both, in the order
// in which they may have been said.
type conversation struct {
	Name     string    `json:"name"`
	What     string    `json:"what"`
	Exporter string    `json:"exporter,omitempty"` // the client's, where it is another one
	Messages []message `json:"messages"`
}

// A message is what one side says, as it was before sealing.
type message struct {
	From    string         `json:"from"` // client or server
	Code    v4.Code        `json:"code"`
	Number  string         `json:"number"`
	Sealed  bool           `json:"sealed,omitempty"`
	Opens   *bool          `json:"opens,omitempty"`   // false if it does not, with ToServer
	Payload string         `json:"payload,omitempty"` // before sealing
	Says    map[string]any `json:"says,omitempty"`    // the payload's fields
}

// raw is a payload without fields: a packet's.
type raw []byte

func (m raw) Append(b []byte) []byte { return append(b, m...) }

// says has a message's fields by name: bytes are hexadecimal digits, and
// numbers of 64 bits strings.
func says(m encoder) map[string]any {
	if _, ok := m.(raw); ok || m == nil {
		return nil
	}
	fields, _ := plain(reflect.ValueOf(m)).(map[string]any)
	return fields
}

func plain(v reflect.Value) any {
	switch v.Kind() {
	case reflect.Struct:
		fields := map[string]any{}
		for i := range v.NumField() {
			f := v.Type().Field(i)
			if f.Anonymous {
				maps.Copy(fields, plain(v.Field(i)).(map[string]any))
				continue
			}
			fields[camel(f.Name)] = plain(v.Field(i))
		}
		return fields
	case reflect.Array, reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			b := make([]byte, v.Len())
			reflect.Copy(reflect.ValueOf(b), v)
			return hex.EncodeToString(b)
		}
		list := make([]any, v.Len())
		for i := range list {
			list[i] = plain(v.Index(i))
		}
		return list
	case reflect.Int64:
		return strconv.FormatInt(v.Int(), 10)
	case reflect.Uint64:
		return strconv.FormatUint(v.Uint(), 10)
	case reflect.Uint16, reflect.Uint32:
		return float64(v.Uint()) // as JSON has it
	case reflect.String:
		return v.String()
	case reflect.Bool:
		return v.Bool()
	default:
		panic("no rule for " + v.Kind().String())
	}
}

// camel is a field's name in JSON.
func camel(name string) string {
	if name == strings.ToUpper(name) {
		return strings.ToLower(name) // ID, SHA256
	}
	return string(unicode.ToLower(rune(name[0]))) + name[1:]
}

// A fixture is what the vectors are made from.
type fixture struct {
	secret               v4.Secret
	exporter             []byte
	client, next         *rsa.PrivateKey
	wrapped, wrappedNext []byte
	server               proto.ServerIdentity
	toServer, toClient   v4.Key
}

// counting is n bytes, each one more than the one before.
func counting(first byte, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = first + byte(i)
	}
	return b
}

const vectorClient = "ci"

func inTestdata(name string) string { return filepath.Join("testdata", name) }

// loadFixture reads keys and wrapped secrets, which were made once; it makes
// them only for -update, and only where they are missing.
func loadFixture(t testing.TB) fixture {
	t.Helper()
	f := fixture{secret: v4.Secret(counting(0x40, 32)), exporter: counting(0x80, 32)}
	f.client, f.next = clientKey(t, "client.pem"), clientKey(t, "next.pem")
	f.wrapped, f.wrappedNext = wrappedFor(t, "wrapped.bin", f.client, f.secret), wrappedFor(t, "wrapped-next.bin", f.next, f.secret)
	both := kept(t, "server.pem", func() ([]byte, error) {
		b, err := proto.NewServerIdentity()
		return append([]byte(publicKeys), b...), err
	})
	var err error
	if f.server, err = proto.ParseServerIdentity(both, both); err != nil {
		t.Fatal(err)
	}
	if f.toServer, f.toClient, err = v4.Keys(f.secret, f.exporter, someID); err != nil {
		t.Fatal(err)
	}
	return f
}

// publicKeys stands before each private key of testdata.
const publicKeys = "For Ferry's tests alone: this private key is public.\n"

// kept is a file of testdata.
func kept(t testing.TB, name string, fresh func() ([]byte, error)) []byte {
	t.Helper()
	b, err := os.ReadFile(inTestdata(name))
	if errors.Is(err, fs.ErrNotExist) && *update && fresh != nil {
		if b, err = fresh(); err == nil {
			err = os.WriteFile(inTestdata(name), b, 0o644)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func clientKey(t testing.TB, name string) *rsa.PrivateKey {
	t.Helper()
	b := kept(t, name, func() ([]byte, error) {
		k, err := rsa.GenerateKey(rand.Reader, v4.KeyBits)
		if err != nil {
			return nil, err
		}
		der, err := x509.MarshalPKCS8PrivateKey(k)
		return append([]byte(publicKeys), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...), err
	})
	block, _ := pem.Decode(b)
	if block == nil {
		t.Fatalf("%s is no PEM", name)
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return k.(*rsa.PrivateKey)
}

func wrappedFor(t testing.TB, name string, key *rsa.PrivateKey, secret v4.Secret) []byte {
	t.Helper()
	b := kept(t, name, func() ([]byte, error) { return v4.WrapSecret(&key.PublicKey, secret) })
	if got, err := v4.UnwrapSecret(key, b); got != secret || err != nil {
		t.Fatalf("%s: another secret than the vectors', or %v", name, err)
	}
	return b
}

// A talk writes a conversation.
type talk struct {
	t        testing.TB
	fixture  fixture
	c        conversation
	c2s, s2c []byte
	toServer *v4.Sealer // nil before there are keys
	toClient *v4.Sealer
}

// say adds what one side says.
func (k *talk) say(from string, code v4.Code, number uint64, m encoder) {
	k.t.Helper()
	var payload []byte
	if m != nil {
		payload = m.Append(nil)
	}
	said := message{From: from, Code: code, Number: strconv.FormatUint(number, 10), Payload: hex.EncodeToString(payload), Says: says(m)}
	sealer, all := k.toServer, &k.c2s
	if from == "server" {
		sealer, all = k.toClient, &k.s2c
	}
	if sealer == nil {
		*all = v4.Header{Code: code, Length: uint32(len(payload)), Number: number}.Append(*all)
		*all = append(*all, payload...)
	} else {
		said.Sealed = true
		var err error
		if *all, err = sealer.Append(*all, code, number, payload); err != nil {
			k.t.Fatal(err)
		}
	}
	k.c.Messages = append(k.c.Messages, said)
}

func (k *talk) client(code v4.Code, number uint64, m encoder) {
	k.t.Helper()
	k.say("client", code, number, m)
}
func (k *talk) server(code v4.Code, number uint64, m encoder) {
	k.t.Helper()
	k.say("server", code, number, m)
}

// keys begins to seal.
func (k *talk) keys(exporter []byte) {
	toServer, _, err := v4.Keys(k.fixture.secret, exporter, someID)
	if err != nil {
		k.t.Fatal(err)
	}
	k.toServer = must(v4.NewSealer(toServer))
	k.toClient = must(v4.NewSealer(k.fixture.toClient))
}

func (k *talk) welcome() {
	k.keys(k.fixture.exporter)
	k.client(v4.CodeProve, 0, v4.Prove{Packet: 65536})
	k.server(v4.CodeWelcome, 0, v4.Welcome{Packet: 8192, Window: 16384, Unanswered: 64})
}

func (k *talk) reconnect() {
	k.client(v4.CodeReconnect, 0, v4.Reconnect{ID: someID, Name: vectorClient})
	k.server(v4.CodeReconnKey, 0, v4.Wrapped{ID: someID, Secret: k.fixture.wrapped})
	k.welcome()
}

func (k *talk) register() {
	k.client(v4.CodeRegister, 0, v4.Register{Name: vectorClient, Token: vectorToken})
	k.server(v4.CodeRegistered, 0, v4.Client{ID: someID})
	k.client(v4.CodePublicKey, 0, v4.PublicKey{Key: spki(k.t, &k.fixture.client.PublicKey)})
	k.server(v4.CodeKey, 0, v4.Wrapped{ID: someID, Secret: k.fixture.wrapped})
	k.welcome()
}

const vectorToken = "ferry-join-aebagbafaydqqcikbmga2dqpcaireeyu"

// stored answers files with a receipt.
func (k *talk) stored(files ...numbered) {
	k.t.Helper()
	var m v4.Stored
	var list []proto.Stored
	for i, f := range files {
		m.Numbers = append(m.Numbers, f.number)
		list = append(list, proto.Stored{
			Name: must(proto.ParseFileName(f.Name)), Transfer: f.Transfer,
			Sum: proto.Sum{Size: f.Size, Cksum: f.Sum.Cksum, SHA256: f.Sum.SHA256},
			At:  vectorDay.Add(time.Duration(i) * time.Millisecond),
		})
	}
	client := proto.Registration{ID: someID, Name: must(proto.ParseClientName(vectorClient))}
	var err error
	if m.Envelope, err = k.fixture.server.SignReceipt(client, list); err != nil {
		k.t.Fatal(err)
	}
	k.server(v4.CodeStored, 0, m)
}

var vectorDay = time.Date(2026, 1, 2, 3, 4, 5, 678_000_000, time.UTC)

// refused says no.
func (k *talk) refused(number uint64, reason v4.Reason, after uint32, words string) {
	k.t.Helper()
	k.server(v4.CodeRefused, number, v4.Refused{Reason: reason, After: after, Words: words})
}

// vectors makes all conversations.
func vectors(t testing.TB, f fixture) []*talk {
	var all []*talk
	for _, s := range scripts {
		k := &talk{t: t, fixture: f, c: conversation{Name: s.name, What: s.what}}
		s.play(k)
		all = append(all, k)
	}
	return all
}

func manifestOf(t testing.TB, f fixture, all []*talk) []byte {
	t.Helper()
	m := manifest{
		Note:   "Made by go test ./proto/v4 -run TestVectors -update. The keys were made for these vectors: they protect nothing, and nothing but tests may use them.",
		Secret: hex.EncodeToString(f.secret[:]), Exporter: hex.EncodeToString(f.exporter),
		ClientName: vectorClient, ClientID: hex.EncodeToString(someID[:]),
		Wrapped: hex.EncodeToString(f.wrapped), WrappedNext: hex.EncodeToString(f.wrappedNext),
		ToServer: hex.EncodeToString(f.toServer[:]), ToClient: hex.EncodeToString(f.toClient[:]),
		Pin: f.server.Pin().String(), Epochs: epochsOf(t, f.toServer),
	}
	for _, k := range all {
		m.Conversations = append(m.Conversations, k.c)
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// epochsOf is a message on each side of where a key ends.
func epochsOf(t testing.TB, first v4.Key) []epoch {
	t.Helper()
	var all []epoch
	under := first
	for n := range uint64(3) {
		if n > 0 {
			under = expand(under[:], "ferry/4 next key")
		}
		for _, count := range []uint64{n * v4.EpochMessages, (n+1)*v4.EpochMessages - 1} {
			payload := fmt.Sprintf("message %d", count)
			// The Sealer has made the key before n's last itself, if there is one.
			sealer, err := v4.NewSealerAt(under, count, v4.EpochMessages)
			if count == n*v4.EpochMessages && n > 0 {
				sealer, err = v4.NewSealerAt(before(first, n), count, v4.EpochMessages)
			}
			if err != nil {
				t.Fatal(err)
			}
			m, err := sealer.Append(nil, v4.CodePacket, count, []byte(payload))
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, epoch{
				Count: strconv.FormatUint(count, 10), Key: hex.EncodeToString(under[:]),
				Message: hex.EncodeToString(m), Payload: hex.EncodeToString([]byte(payload)),
			})
		}
	}
	return all
}

// before is the key before that of epoch n.
func before(first v4.Key, n uint64) v4.Key {
	for range n - 1 {
		first = expand(first[:], "ferry/4 next key")
	}
	return first
}

// filesOf is all that the vectors consist of, beside keys and wrapped secrets.
func filesOf(t testing.TB) map[string][]byte {
	t.Helper()
	f := loadFixture(t)
	all := vectors(t, f)
	files := map[string][]byte{"manifest.json": manifestOf(t, f, all)}
	for _, k := range all {
		files[k.c.Name+".c2s.bin"], files[k.c.Name+".s2c.bin"] = k.c2s, k.s2c
	}
	return files
}

// TestVectors makes the vectors anew and wants the same bytes.
func TestVectors(t *testing.T) {
	files := filesOf(t)
	if *update {
		for name, b := range files {
			if err := os.WriteFile(inTestdata(name), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, want := range files {
		got, err := os.ReadFile(inTestdata(name))
		if err != nil {
			t.Error(err)
		} else if !bytes.Equal(got, want) {
			t.Errorf("%s has %d bytes that are not those that are made now, %d: if that is meant, run go test ./proto/v4 -run TestVectors -update", name, len(got), len(want))
		}
	}
	others := []string{"README.md", "client.pem", "decode.mjs", "fuzz", "next.pem", "server.pem", "wrapped-next.bin", "wrapped.bin"}
	entries, err := os.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if _, ok := files[e.Name()]; !ok && !slices.Contains(others, e.Name()) {
			t.Errorf("testdata/%s belongs to nothing", e.Name())
		}
	}
}

// parsers has how the payload of each code is read; nil: it has none.
var parsers = map[v4.Code]parser{
	v4.CodeRegister: parserOf(v4.ParseRegister), v4.CodePublicKey: parserOf(v4.ParsePublicKey),
	v4.CodeReconnect: parserOf(v4.ParseReconnect), v4.CodePacket: func(b []byte) (encoder, error) { return raw(b), nil },
	v4.CodeProve: parserOf(v4.ParseProve), v4.CodeOffer: parserOf(v4.ParseOffer), v4.CodeEnd: parserOf(v4.ParseSum),
	v4.CodeFile: parserOf(parseSmall), v4.CodeRotate: parserOf(v4.ParseRotate), v4.CodeAgain: nil, v4.CodeGiveUp: nil,
	v4.CodeRegistered: parserOf(v4.ParseClient), v4.CodeNameTaken: nil, v4.CodeKey: parserOf(v4.ParseWrapped),
	v4.CodeStored: parserOf(v4.ParseStored), v4.CodeThanks: parserOf(v4.ParseOffset), v4.CodeReconnKey: parserOf(v4.ParseWrapped),
	v4.CodeUnknown: parserOf(v4.ParseClient), v4.CodeRefused: parserOf(v4.ParseRefused), v4.CodeDiffers: parserOf(v4.ParseDiffers),
	v4.CodeWelcome: parserOf(v4.ParseWelcome), v4.CodeGo: parserOf(v4.ParseOffset),
}

// readManifest reads what lies in testdata.
func readManifest(tb testing.TB) manifest {
	tb.Helper()
	b, err := os.ReadFile(inTestdata("manifest.json"))
	if err != nil {
		tb.Fatal(err)
	}
	var m manifest
	if err := json.Unmarshal(b, &m); err != nil {
		tb.Fatal(err)
	}
	if len(m.Conversations) == 0 {
		tb.Fatal("the manifest has no conversation")
	}
	return m
}

// A side reads what one side of a conversation said.
type side struct {
	said   []byte
	opener *v4.Opener
}

// next returns the next message, opened if it was sealed.
func (s *side) next(sealed bool) (v4.Header, []byte, error) {
	h, err := v4.ParseHeader(s.said)
	if err != nil {
		return h, nil, err
	}
	header, body := s.said[:v4.HeaderSize], s.said[v4.HeaderSize:]
	if int(h.Length) > len(body) {
		return h, nil, fmt.Errorf("%d bytes where %d are announced", len(body), h.Length)
	}
	body, s.said = body[:h.Length], body[h.Length:]
	if !sealed {
		return h, body, nil
	}
	b, err := s.opener.Open(nil, header, body)
	return h, b, err
}

// TestVectorsAreRead reads what lies in testdata as a peer would, and finds what
// the manifest says.
func TestVectorsAreRead(t *testing.T) {
	m, f := readManifest(t), loadFixture(t)
	seen := map[v4.Code]bool{}
	for _, c := range m.Conversations {
		t.Run(c.Name, func(t *testing.T) {
			sides := map[string]*side{
				"client": {said: kept(t, c.Name+".c2s.bin", nil), opener: must(v4.NewOpener(f.toServer))},
				"server": {said: kept(t, c.Name+".s2c.bin", nil), opener: must(v4.NewOpener(f.toClient))},
			}
			for i, want := range c.Messages {
				seen[want.Code] = true
				h, payload, err := sides[want.From].next(want.Sealed)
				if want.Opens != nil {
					if !errors.Is(err, v4.ErrOpen) {
						t.Errorf("message %d: got %v, want %v", i, err, v4.ErrOpen)
					}
					continue
				}
				if err != nil {
					t.Fatalf("message %d: %v", i, err)
				}
				if got := strconv.FormatUint(h.Number, 10); h.Code != want.Code || got != want.Number || hex.EncodeToString(payload) != want.Payload {
					t.Fatalf("message %d: got %v of %s, %x, want %v of %s, %s", i, h.Code, got, payload, want.Code, want.Number, want.Payload)
				}
				checkSays(t, want, payload)
			}
			for from, s := range sides {
				if len(s.said) > 0 {
					t.Errorf("the %s says %d bytes more", from, len(s.said))
				}
			}
		})
	}
	for code := range parsers {
		if !seen[code] {
			t.Errorf("no vector has %v", code)
		}
	}
}

// checkSays parses a payload, and writes it again.
func checkSays(t *testing.T, want message, payload []byte) {
	t.Helper()
	parse, ok := parsers[want.Code]
	if !ok {
		t.Fatalf("no parser for %v", want.Code)
	}
	if parse == nil {
		if len(payload) > 0 {
			t.Errorf("%v: a payload of %d bytes", want.Code, len(payload))
		}
		return
	}
	m, err := parse(payload)
	if err != nil {
		t.Fatalf("%v: %v", want.Code, err)
	}
	if d := cmp.Diff(want.Says, says(m)); d != "" {
		t.Errorf("%v says (-want +got):\n%s", want.Code, d)
	}
	if again := m.Append(nil); !bytes.Equal(again, payload) {
		t.Errorf("%v: written again it is\n%x, want\n%x", want.Code, again, payload)
	}
}

// TestVectorsHaveReceipts verifies each.
func TestVectorsHaveReceipts(t *testing.T) {
	receipts := 0
	for _, c := range readManifest(t).Conversations {
		for _, said := range c.Messages {
			if said.Code != v4.CodeStored {
				continue
			}
			receipts++
			m, err := v4.ParseStored(bytesOf(t, said.Payload))
			if err != nil {
				t.Fatal(err)
			}
			s, err := proto.VerifyReceipt(m.Envelope, loadFixture(t).server.Pin())
			if err != nil || len(s.Files) != len(m.Numbers) {
				t.Errorf("%s: a receipt for %d files of %d: %v", c.Name, len(s.Files), len(m.Numbers), err)
			}
		}
	}
	if receipts == 0 {
		t.Error("no vector has a receipt")
	}
}

// TestVectorsInNode has them all read by the decoder in testdata, which is
// written from the page and has its cryptography from elsewhere. make deps
// installs what it runs on.
func TestVectorsInNode(t *testing.T) {
	m := readManifest(t)
	messages := 0
	for _, c := range m.Conversations {
		messages += len(c.Messages)
	}
	out, err := runDecoder(t, "testdata")
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("%d conversations, %d messages and %d epochs are what the manifest says\n", len(m.Conversations), messages, len(m.Epochs))
	if out != want {
		t.Errorf("got %q, want %q", out, want)
	}
}

// The decoder finds a changed byte, so that it has looked at it.
func TestVectorsInNodeChanged(t *testing.T) {
	changed := t.TempDir()
	if err := os.CopyFS(changed, os.DirFS("testdata")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"small.c2s.bin", "reconnect.s2c.bin", "wrapped.bin", "manifest.json"} {
		good, err := os.ReadFile(filepath.Join(changed, name))
		if err != nil {
			t.Fatal(err)
		}
		bad := bytes.Clone(good)
		if name == "manifest.json" {
			bad = bytes.Replace(bad, []byte(`"packet": 65536`), []byte(`"packet": 65537`), 1)
		} else {
			bad[len(bad)-1] ^= 1
		}
		write := func(b []byte) {
			if err := os.WriteFile(filepath.Join(changed, name), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		write(bad)
		if out, err := runDecoder(t, changed); err == nil {
			t.Errorf("%s was changed, and the decoder says %s", name, out)
		}
		write(good)
	}
}

func runDecoder(t *testing.T, folder string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "node", inTestdata("decode.mjs"), folder)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("node %s: %w: %s", inTestdata("decode.mjs"), err, stderr.Bytes())
	}
	return string(out), nil
}
