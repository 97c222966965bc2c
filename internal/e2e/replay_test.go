package e2e_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rsa"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ferry/proto"
	"ferry/proto/prototest"
	"ferry/proto/v3"
)

// TestRecordedConversations has the five recorded programs talk to the real
// server, each with a server of its own: byte for byte what they said, in the
// pieces in which they said it, waiting where they waited. Different is what a
// server chooses: the client's id, and the AES key, with which the recorded
// packets are encrypted anew in place.
func TestRecordedConversations(t *testing.T) {
	byProgram := map[string][]prototest.Vector{}
	for _, v := range prototest.Vectors(t) {
		byProgram[v.Program] = append(byProgram[v.Program], v)
	}
	if len(byProgram) != 5 {
		t.Errorf("recordings of %d programs, want 5", len(byProgram))
	}
	for _, program := range slices.Sorted(maps.Keys(byProgram)) {
		t.Run(program, func(t *testing.T) {
			p := newPlayback(t)
			for _, v := range byProgram[program] {
				t.Run(v.Case, func(t *testing.T) { p.replay(t, v) })
			}
			p.onlyStored(t)
		})
	}
}

// A playback is a server that recorded clients talk to.
type playback struct {
	data   string
	server *process
	id     v3.ID             // of the recorded client, once it has registered
	want   map[string]string // SHA-256 of what is to be stored, by client/name
}

func newPlayback(t *testing.T) *playback {
	t.Helper()
	p := &playback{data: t.TempDir(), want: map[string]string{}}
	p.server = start(t, "server", "--data", p.data, "--listen", "none", "--v3-listen", "127.0.0.1:0")
	return p
}

// onlyStored ends the server, and wants all that is to be stored to be, and
// nothing else.
func (p *playback) onlyStored(t *testing.T) {
	t.Helper()
	waitUnstaged(t, p.data)
	p.server.stop()
	if d := cmp.Diff(p.want, storedSums(t, p.data)); d != "" {
		t.Errorf("files by SHA-256 (-want +stored):\n%s", d)
	}
}

// replay has the client of a recording deliver its file.
func (p *playback) replay(t *testing.T, v prototest.Vector) {
	r, err := dialRaw(p.server.native)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	private, err := v3.ParsePrivateKey(v.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	said := bytes.Clone(v.C2S)
	requests := requestsIn(t, said)
	if !v.Registers() {
		asClient(requests, p.id)
	}
	want := recordedAnswers(t, v)
	var got []spoken
	for _, c := range v.Chunks {
		if !c.FromServer {
			if err := r.say(said[c.Offset:][:c.Len]); err != nil {
				t.Fatal(err)
			}
			continue
		}
		for len(got) < len(want) && want[len(got)].end <= c.Offset+c.Len {
			a := hearSpoken(t, r)
			switch a.Code {
			case v3.CodeRegistered:
				p.id = v3.ID(a.Payload)
				asClient(requests, p.id)
			case v3.CodeKey, v3.CodeReconnected:
				key := keyIn(t, private, p.id, a)
				if err := reseal(requests, v, key); err != nil {
					t.Fatal(err)
				}
			}
			got = append(got, a)
		}
	}
	r.close()
	if d := cmp.Diff(p.answersWanted(v, want), withoutKeys(got)); d != "" {
		t.Errorf("answers (-recorded +got):\n%s", d)
	}
	stored := v.User + "/" + v.File
	p.want[stored] = sumOfBytes(v.Content())
	path := filepath.Join(p.data, "files", stored)
	waitStored(t, path, peerDialect{name: v.Program})
	if sum, err := sha256OfFile(path); err != nil || sum != p.want[stored] {
		t.Errorf("%s is stored with SHA-256 %q, %v; want %s", stored, sum, err, p.want[stored])
	}
}

// spoken is an answer.
type spoken struct {
	Code    v3.Code
	Payload []byte
	end     int // of a recorded one, in the stream
}

// Equal leaves out where it was.
func (a spoken) Equal(b spoken) bool { return a.Code == b.Code && bytes.Equal(a.Payload, b.Payload) }

func (a spoken) String() string { return fmt.Sprintf("%v %x", a.Code, a.Payload) }

func hearSpoken(t *testing.T, r *raw) spoken {
	t.Helper()
	code, payload, err := r.hear()
	if err != nil {
		t.Fatal("no answer: ", err)
	}
	return spoken{Code: code, Payload: payload}
}

func recordedAnswers(t *testing.T, v prototest.Vector) []spoken {
	t.Helper()
	var all []spoken
	for src := bytes.NewReader(v.S2C); src.Len() > 0; {
		m, err := readAnswer(src)
		if err != nil {
			t.Fatal(err)
		}
		h, err := v3.ParseResponseHeader(m[:v3.ResponseHeaderSize])
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, spoken{h.Code, m[v3.ResponseHeaderSize:], len(v.S2C) - src.Len()})
	}
	return all
}

// answersWanted are the recorded ones with the id that our server gave. A file
// of per-slice in one packet looks like one of mainstream, and is answered like
// one: all that its client can notice are two sizes.
func (p *playback) answersWanted(v prototest.Vector, recorded []spoken) []spoken {
	small := v.Dialect == "per-slice" && v.Size < 1024
	for i, a := range recorded {
		if small && a.Code == v3.CodeThanks {
			a.Payload = v.ClientID[:]
		}
		a.Payload = bytes.Clone(a.Payload)
		if small && a.Code == v3.CodeReceived {
			a.Payload[v3.IDSize] = 16
		}
		if bytes.HasPrefix(a.Payload, v.ClientID[:]) {
			copy(a.Payload, p.id[:])
		}
		recorded[i] = a
	}
	return withoutKeys(recorded)
}

// withoutKeys blanks what is another one each time a key is wrapped.
func withoutKeys(answers []spoken) []spoken {
	for _, a := range answers {
		if a.Code == v3.CodeKey || a.Code == v3.CodeReconnected {
			clear(a.Payload[v3.IDSize:])
		}
	}
	return answers
}

// keyIn unwraps the key that a server chose.
func keyIn(t *testing.T, private *rsa.PrivateKey, id v3.ID, a spoken) v3.Key {
	t.Helper()
	w, err := v3.ParseWrappedKey(a.Payload)
	if err != nil {
		t.Fatal(err)
	}
	if w.Client != id {
		t.Errorf("%v is for client %x, want %x", a.Code, w.Client, id)
	}
	key, err := v3.UnwrapKey(private, w.Key)
	if err != nil {
		t.Fatal(err)
	}
	withoutKeys([]spoken{a})
	return key
}

// requestsIn are parts of what a client said; changing them changes it.
func requestsIn(t *testing.T, said []byte) [][]byte {
	t.Helper()
	var all [][]byte
	for src := bytes.NewReader(said); src.Len() > 0; {
		at := len(said) - src.Len()
		if _, err := readRequest(src); err != nil {
			t.Fatal(err)
		}
		all = append(all, said[at:len(said)-src.Len()])
	}
	return all
}

// asClient puts the id into requests that are sent by somebody who has one.
func asClient(requests [][]byte, id v3.ID) {
	for _, m := range requests {
		if codeOf(m) != v3.CodeRegister {
			copy(m, id[:])
		}
	}
}

// cipherAt is where the ciphertext begins in a packet.
const cipherAt = v3.RequestHeaderSize + v3.PacketHeaderSize

// reseal replaces the recorded key by the live one under a file's packets. It
// changes nothing else: padding stays as the program made it, and so do bytes
// behind the end, with which one of them fills its last packet.
func reseal(requests [][]byte, v prototest.Vector, live v3.Key) error {
	var parts [][]byte // the ciphertext, as it lies in the packets
	left := (v.Size/aes.BlockSize + 1) * aes.BlockSize
	for _, m := range requests {
		if codeOf(m) != v3.CodePacket {
			continue
		}
		part := m[cipherAt:]
		if v.Dialect == "per-slice" {
			if err := rekey(part, v.Key, live); err != nil {
				return err
			}
			continue
		}
		part = part[:min(int64(len(part)), left)]
		left -= int64(len(part))
		parts = append(parts, part)
	}
	if v.Dialect == "per-slice" {
		return nil
	}
	whole := slices.Concat(parts...)
	err := rekey(whole, v.Key, live)
	for _, part := range parts {
		whole = whole[copy(part, whole):]
	}
	return err
}

// rekey decrypts with one key and encrypts with another, in place.
func rekey(b []byte, from, to [32]byte) error {
	if len(b)%aes.BlockSize != 0 {
		return fmt.Errorf("ciphertext of %d bytes", len(b))
	}
	old, err := aes.NewCipher(from[:])
	if err != nil {
		return err
	}
	cipher.NewCBCDecrypter(old, make([]byte, aes.BlockSize)).CryptBlocks(b, b)
	return seal(b, to)
}

// seal encrypts whole blocks, in place.
func seal(b []byte, key [32]byte) error {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return err
	}
	cipher.NewCBCEncrypter(block, make([]byte, aes.BlockSize)).CryptBlocks(b, b)
	return nil
}

// What our server answers where something was amiss, as "request>answers". The
// program's own server did not always know how to go on, and then the recording
// ends otherwise: from there on the program says what it says elsewhere.
var amiss = []struct{ programs, scenario, talk string }{
	{"seed mainstream-8192", "name-taken", "825>1601"},
	{"mainstream-4096 mainstream-734", "name-taken", "825>1601 825>1601 825>1601 825>1601"},
	{"per-slice-1040", "name-taken", "825>1601 825>1601 825>1601"},

	{"seed", "reconnect-unknown", "827>1606 825>1600 826>1602 828>1604,1603 900>1604"},
	{"mainstream-4096 per-slice-1040", "reconnect-unknown", "827>1606 825>1600 826>1602 828>1603 900>1604"},
	{"mainstream-734", "reconnect-unknown", "827>1606 825>1600 826>1602 828>1603"},
	{"mainstream-8192", "reconnect-unknown",
		"827>1606 827>1606 827>1606 827>1606 825>1600 826>1602 828>1603 900>1604"},

	{"seed", "same-file-again", "827>1605 828>1607 828>1607 828>1607 828>1607"},
	{"mainstream-4096 mainstream-734 mainstream-8192 per-slice-1040", "same-file-again", "827>1605 828>1607"},

	{"seed", "badcrc1-first", "825>1600 826>1602 828>1604,1603 901> 828>1604,1603 900>1604"},
	{"mainstream-4096 per-slice-1040", "badcrc1-first", "825>1600 826>1602 828>1603 901> 828>1603 900>1604"},
	{"mainstream-734", "badcrc1-first", "825>1600 826>1602 828>1603 828>1603"},
	{"mainstream-8192", "badcrc1-first", "825>1600 826>1602 828>1603 901>1604 828>1603 900>1604"},

	{"seed", "badcrc-all",
		"825>1600 826>1602 828>1604,1603 901> 828>1604,1603 901> 828>1604,1603 901> 828>1604,1603 902>1604"},
	{"mainstream-4096 per-slice-1040", "badcrc-all",
		"825>1600 826>1602 828>1603 901> 828>1603 901> 828>1603 901> 828>1603 902>1604"},
	{"mainstream-734", "badcrc-all", "825>1600 826>1602 828>1603 828>1603 828>1603 828>1603 828>1603"},
	{"mainstream-8192", "badcrc-all",
		"825>1600 826>1602 828>1603 901>1604 828>1603 901>1604 828>1603 901>1604 828>1603 902>1604"},
}

// TestRecordedScenarios is TestRecordedConversations where something was amiss.
// Of these recordings no keys were kept, so that the client's public key is
// another one as well, and the file, of which the size is known, too.
func TestRecordedScenarios(t *testing.T) {
	recordings := map[string]prototest.Recording{}
	for _, r := range prototest.Scenarios(t) {
		recordings[r.String()] = r
	}
	left := len(recordings)
	for _, a := range amiss {
		for program := range strings.FieldsSeq(a.programs) {
			name := program + "/" + a.scenario
			r, ok := recordings[name]
			if !ok {
				t.Errorf("there is no recording %s", name)
				continue
			}
			left--
			t.Run(name, func(t *testing.T) {
				s := newScene(t, r, recordings[program+"/badcrc1-first"])
				s.prepare(a.scenario)
				for i, turn := range strings.Fields(a.talk) {
					s.turn(i, turn)
				}
				s.r.close()
				if s.expected(a.talk) {
					path := s.user + "/" + s.file
					s.want[path] = sumOfBytes(s.content)
					waitStored(t, filepath.Join(s.data, "files", path), peerDialect{name: program})
				}
				s.onlyStored(t)
			})
		}
	}
	if left != 0 {
		t.Errorf("%d recordings were not replayed", left)
	}
}

// A scene is a playback of a recording in which something is amiss.
type scene struct {
	*playback
	t          *testing.T
	r          *raw
	private    *rsa.PrivateKey
	requests   [][]byte // the recorded ones
	others     [][]byte // of the same program, for what comes after them
	dialect    string
	user, file string
	content    []byte
}

func newScene(t *testing.T, r, other prototest.Recording) *scene {
	t.Helper()
	s := &scene{
		playback: newPlayback(t), t: t, dialect: r.Dialect, file: "none", content: bytesOf(21, 500),
		requests: requestsIn(t, bytes.Clone(r.C2S)), others: requestsIn(t, bytes.Clone(other.C2S)),
	}
	for _, m := range slices.Concat(s.others, s.requests) {
		switch codeOf(m) {
		case v3.CodeRegister, v3.CodeReconnect:
			s.user = nameAt(m, v3.RequestHeaderSize)
		case v3.CodePacket:
			s.file = nameAt(m, cipherAt-v3.NameSize)
		}
	}
	var err error
	if s.private, err = v3.ParsePrivateKey(prototest.Vectors(t)[0].PrivateKey); err != nil {
		t.Fatal(err)
	}
	if s.r, err = dialRaw(s.server.native); err != nil {
		t.Fatal(err)
	}
	return s
}

func nameAt(m []byte, at int) string {
	return string(bytes.TrimRight(m[at:][:v3.NameSize], "\x00"))
}

// prepare has the server know what the recorded one knew: somebody with that
// name, who in one scenario is the recorded client, and has stored a file.
func (s *scene) prepare(scenario string) {
	s.t.Helper()
	if scenario != "name-taken" && scenario != "same-file-again" {
		return
	}
	m := &attacker{address: s.server.native, key: s.private, secrets: map[string][]byte{}} // no more than a client, here
	r, err := dialRaw(s.server.native)
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.close()
	if err := m.enter(r, s.user); err != nil {
		s.t.Fatal(err)
	}
	if scenario == "name-taken" {
		return
	}
	s.id = r.id
	asClient(s.requests, s.id)
	b := bytesOf(22, 700)
	packets, err := r.packets(v3.Mainstream(8192), s.file, b)
	if err := errors.Join(err, r.say(packets...), r.expect("the first file", v3.CodeReceived),
		r.say(r.confirm(v3.CodeEqual, s.file)), r.expect("900", v3.CodeThanks)); err != nil {
		s.t.Fatal(err)
	}
	s.want[s.user+"/"+s.file] = sumOfBytes(b)
}

// turn says one request and wants its answers.
func (s *scene) turn(i int, turn string) {
	s.t.Helper()
	code, answers, _ := strings.Cut(turn, ">")
	if err := s.r.say(s.request(i, codeNamed(code))); err != nil {
		s.t.Fatal(err)
	}
	for want := range strings.FieldsFuncSeq(answers, func(r rune) bool { return r == ',' }) {
		a := hearSpoken(s.t, s.r)
		if a.Code != codeNamed(want) {
			s.t.Fatalf("request %d, %s, is answered %v, want %s", i+1, code, a, want)
		}
		s.heed(a)
	}
}

func codeNamed(s string) v3.Code {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		panic(err) // the table is in this file
	}
	return v3.Code(n)
}

// request is the recorded one as far as the recording goes, and else one of the
// same program; 900 and 902 differ from its 901 in their code alone.
func (s *scene) request(i int, code v3.Code) []byte {
	s.t.Helper()
	if i < len(s.requests) && codeOf(s.requests[i]) == code {
		return s.requests[i]
	}
	for _, m := range slices.Concat(s.requests, s.others) {
		if codeOf(m) == code {
			return m
		}
	}
	for _, m := range slices.Concat(s.requests, s.others) {
		if codeOf(m) == v3.CodeDiffers {
			return slices.Concat(m[:17], v3.RequestHeader{Code: code}.Append(nil)[17:19], m[19:])
		}
	}
	s.t.Fatalf("the program says no %v", code)
	return nil
}

// heed wants an answer to be what a client of this kind goes on with, and does
// what the client does.
func (s *scene) heed(a spoken) {
	s.t.Helper()
	sizes := map[v3.Code]int{1600: 16, 1601: 0, 1602: 144, 1603: 279, 1604: 16, 1605: 144, 1606: 16, 1607: 0}
	if a.Code == v3.CodeGeneralError && s.dialect != "seed" {
		sizes[a.Code] = v3.NameSize // of the file that exists; none of these programs looks at it
	}
	if len(a.Payload) != sizes[a.Code] {
		s.t.Fatalf("%v has %d bytes, want %d", a.Code, len(a.Payload), sizes[a.Code])
	}
	switch a.Code {
	case v3.CodeRegistered:
		s.id = v3.ID(a.Payload)
		asClient(slices.Concat(s.requests, s.others), s.id)
		s.useKey()
	case v3.CodeKey, v3.CodeReconnected:
		s.sealAll(keyIn(s.t, s.private, s.id, a))
	case v3.CodeThanks:
		if v3.ID(a.Payload) != s.id {
			s.t.Errorf("%v, want for client %x", a, s.id)
		}
	case v3.CodeReceived:
		sum := proto.NewSummer()
		_, _ = sum.Write(s.content) // never fails
		want := v3.Received{Client: s.id, ContentSize: 512, Name: s.file, Cksum: sum.Sum().Cksum}
		if got, err := v3.ParseReceived(a.Payload); err != nil || got != want {
			s.t.Errorf("answered %+v, %v; want %+v", got, err, want)
		}
	}
}

// useKey puts our public key into the recorded request.
func (s *scene) useKey() {
	s.t.Helper()
	field, err := v3.MarshalPublicKeyInfo(&s.private.PublicKey)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, m := range slices.Concat(s.requests, s.others) {
		if codeOf(m) == v3.CodePublicKey {
			copy(m[v3.RequestHeaderSize+v3.NameSize:], field[:])
		}
	}
}

// sealAll puts the file into all packets: each has one of 500 bytes.
func (s *scene) sealAll(key v3.Key) {
	s.t.Helper()
	sealed := append(bytes.Clone(s.content), bytes.Repeat([]byte{12}, 12)...)
	if err := seal(sealed, key); err != nil {
		s.t.Fatal(err)
	}
	for _, m := range slices.Concat(s.requests, s.others) {
		if codeOf(m) != v3.CodePacket {
			continue
		}
		if len(m)-cipherAt != len(sealed) {
			s.t.Fatalf("a packet has %d bytes of ciphertext, want %d", len(m)-cipherAt, len(sealed))
		}
		copy(m[cipherAt:], sealed)
	}
}

// expected reports whether the file is to be stored: its checksum was confirmed,
// by the word or, in the program that has none, by leaving in time.
func (s *scene) expected(talk string) bool {
	if strings.Contains(talk, "900>") {
		return true
	}
	return !strings.Contains(talk, "1607") && strings.HasSuffix(talk, "828>1603") && strings.Count(talk, "828>") < 5
}
