// Package prototest helps the tests of the packages that speak or carry a
// native conversation: recorded conversations, and connections that fail on
// demand. Only tests import it.
package prototest

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"ferry/proto/v3/testdata"
)

// A Recording is one connection of version 3 between programs that are not
// Ferry, byte for byte. proto/v3/testdata/README.md says where they are from.
type Recording struct {
	Dialect string  // "seed", "mainstream" or "per-slice"
	Program string  // the folder, such as "mainstream-734"
	Case    string  // such as "reconnect-8192" or "badcrc-all"
	Slice   int     // of ciphertext in a packet
	C2S     []byte  // all that the client sent
	S2C     []byte  // all that the server sent
	Chunks  []Chunk // both, in the order in which they were seen
}

// A Chunk is a piece of a recording that was seen at once.
type Chunk struct {
	FromServer  bool
	Offset, Len int // within S2C or C2S
}

// String names the recording, for a subtest.
func (r Recording) String() string { return r.Program + "/" + r.Case }

// Bytes returns what the chunk is of its recording.
func (c Chunk) Bytes(r Recording) []byte {
	stream := r.C2S
	if c.FromServer {
		stream = r.S2C
	}
	return stream[c.Offset:][:c.Len]
}

// A Vector is the recording of one delivered file, with all that is needed to
// decrypt it and to make it again.
type Vector struct {
	Recording
	User       string
	ClientID   [16]byte
	File       string
	Size       int64
	Cksum      uint32    // of the file
	Received   []uint32  // the checksums in the server's 1603
	Key        [32]byte  // AES
	PrivateKey []byte    // the client's: PKCS#8 in DER
	WrappedKey [128]byte // Key, as the server wrapped it
}

// Content returns the file's bytes.
func (v Vector) Content() []byte {
	b := make([]byte, v.Size)
	for i := range b {
		b[i] = byte(i*7 + i/251)
	}
	return b
}

// Registers reports whether the client registers in it; else it reconnects.
func (v Vector) Registers() bool { return strings.HasPrefix(v.Case, "register-") }

// Vectors returns all recordings of a delivered file. A test fails that cannot
// have them.
func Vectors(tb testing.TB) []Vector {
	tb.Helper()
	var vectors []Vector
	for _, e := range load(tb).Vectors {
		v, err := e.vector()
		if err != nil {
			tb.Fatalf("recording %s/%s: %v", e.Program, e.Case, err)
		}
		vectors = append(vectors, v)
	}
	if len(vectors) == 0 {
		tb.Fatal("no recorded conversations: proto/v3/testdata/manifest.json lists none")
	}
	return vectors
}

// Scenarios returns all recordings in which something is amiss. Of their keys
// and files nothing is known.
func Scenarios(tb testing.TB) []Recording {
	tb.Helper()
	var scenarios []Recording
	for _, e := range load(tb).Scenarios {
		r, err := e.recording()
		if err != nil {
			tb.Fatalf("recording %s/%s: %v", e.Program, e.Case, err)
		}
		scenarios = append(scenarios, r)
	}
	if len(scenarios) == 0 {
		tb.Fatal("no recorded scenarios: proto/v3/testdata/manifest.json lists none")
	}
	return scenarios
}

type manifest struct {
	Vectors   []vectorEntry
	Scenarios []entry
}

type entry struct {
	Dialect, Program, Case string
	C2S, S2C               string // files
	Order                  []Chunk
}

type vectorEntry struct {
	entry
	User       string
	ClientID   string `json:"client_id"`
	File       string
	Size       int64
	Cksum      uint32   `json:"posix_cksum"`
	Received   []uint32 `json:"crc_in_1603"`
	Key        string   `json:"aes_key"`
	PrivateKey string   `json:"client_rsa_pkcs8_hex"`
	WrappedKey string   `json:"oaep_ciphertext"`
}

func load(tb testing.TB) manifest {
	tb.Helper()
	b, err := testdata.Files.ReadFile("manifest.json")
	if err != nil {
		tb.Fatalf("recorded conversations: %v", err)
	}
	var m manifest
	if err := json.Unmarshal(b, &m); err != nil {
		tb.Fatalf("recorded conversations: manifest.json: %v", err)
	}
	return m
}

func (e entry) recording() (Recording, error) {
	r := Recording{Dialect: e.Dialect, Program: e.Program, Case: e.Case, Chunks: e.Order}
	var err error
	if r.Slice, err = slice(e.Program); err != nil {
		return Recording{}, err
	}
	if r.C2S, err = testdata.Files.ReadFile(e.C2S); err != nil {
		return Recording{}, err
	}
	if r.S2C, err = testdata.Files.ReadFile(e.S2C); err != nil {
		return Recording{}, err
	}
	return r, r.checkChunks()
}

// slice reads the size off the program's name; seed has one only.
func slice(program string) (int, error) {
	if program == "seed" {
		return 7902, nil
	}
	return strconv.Atoi(program[strings.LastIndexByte(program, '-')+1:])
}

// checkChunks sees that the chunks are both streams, each from start to end.
func (r Recording) checkChunks() error {
	var c2s, s2c int
	for _, c := range r.Chunks {
		next := &c2s
		if c.FromServer {
			next = &s2c
		}
		if c.Offset != *next || c.Len < 1 {
			return fmt.Errorf("chunk of %d bytes at %d, want it at %d", c.Len, c.Offset, *next)
		}
		*next += c.Len
	}
	if c2s != len(r.C2S) || s2c != len(r.S2C) {
		return fmt.Errorf("chunks of %d and %d bytes, the streams have %d and %d", c2s, s2c, len(r.C2S), len(r.S2C))
	}
	return nil
}

// UnmarshalJSON reads what the manifest has: ["c2s", offset, length].
func (c *Chunk) UnmarshalJSON(b []byte) error {
	var direction string
	if err := json.Unmarshal(b, &[]any{&direction, &c.Offset, &c.Len}); err != nil {
		return err
	}
	c.FromServer = direction == "s2c"
	if !c.FromServer && direction != "c2s" {
		return fmt.Errorf("chunk of direction %q", direction)
	}
	return nil
}

func (e vectorEntry) vector() (Vector, error) {
	r, err := e.recording()
	if err != nil {
		return Vector{}, err
	}
	v := Vector{
		Recording: r, User: e.User, File: e.File, Size: e.Size, Cksum: e.Cksum, Received: e.Received,
	}
	if v.PrivateKey, err = hex.DecodeString(e.PrivateKey); err != nil {
		return Vector{}, err
	}
	return v, errors.Join(
		fill(v.ClientID[:], e.ClientID),
		fill(v.Key[:], e.Key),
		fill(v.WrappedKey[:], e.WrappedKey),
	)
}

// fill decodes exactly as many bytes as dst has.
func fill(dst []byte, s string) error {
	b, err := hex.DecodeString(s)
	if err != nil {
		return err
	}
	if copy(dst, b) != len(b) || len(b) != len(dst) {
		return fmt.Errorf("%d bytes, want %d", len(b), len(dst))
	}
	return nil
}
