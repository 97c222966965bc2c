package prototest_test

import (
	"bytes"
	"io/fs"
	"testing"

	"ferry/proto/prototest"
	"ferry/proto/v3/testdata"
)

// Every recording that is there is handed out: none is forgotten silently.
func TestAllRecordingsAreUsed(t *testing.T) {
	files, err := fs.Glob(testdata.Files, "*/*.bin")
	if err != nil {
		t.Fatal(err)
	}
	got := 2 * (len(prototest.Vectors(t)) + len(prototest.Scenarios(t)))
	if got != len(files) {
		t.Errorf("vectors and scenarios have %d files, testdata has %d", got, len(files))
	}
}

func TestVectorsAreWhole(t *testing.T) {
	programs := map[string]int{}
	for _, v := range prototest.Vectors(t) {
		programs[v.Program]++
		if got := int64(len(v.Content())); got != v.Size {
			t.Errorf("%v: content of %d bytes, want %d", v, got, v.Size)
		}
		for _, got := range v.Received {
			if got != v.Cksum {
				t.Errorf("%v: 1603 has cksum %d, want %d", v, got, v.Cksum)
			}
		}
		if len(v.Received) == 0 || v.Key == [32]byte{} || v.WrappedKey == [128]byte{} || v.ClientID == [16]byte{} ||
			len(v.PrivateKey) == 0 || v.User == "" || v.File == "" {
			t.Errorf("%v: something is missing: %+v", v, v)
		}
		register := []byte{825 & 0xff, 825 >> 8}
		if got := bytes.Equal(v.C2S[17:19], register); got != v.Registers() {
			t.Errorf("%v: Registers: got %v, want %v", v, v.Registers(), got)
		}
	}
	if len(programs) != 5 {
		t.Errorf("vectors of %d programs, want 5: %v", len(programs), programs)
	}
}

func TestChunksMakeTheStreams(t *testing.T) {
	all := prototest.Scenarios(t)
	for _, v := range prototest.Vectors(t) {
		all = append(all, v.Recording)
	}
	for _, r := range all {
		var c2s, s2c []byte
		for _, c := range r.Chunks {
			if c.FromServer {
				s2c = append(s2c, c.Bytes(r)...)
			} else {
				c2s = append(c2s, c.Bytes(r)...)
			}
		}
		if !bytes.Equal(c2s, r.C2S) || !bytes.Equal(s2c, r.S2C) {
			t.Errorf("%v: the chunks are not the streams", r)
		}
		if len(r.C2S) == 0 || len(r.S2C) == 0 {
			t.Errorf("%v: an empty stream", r)
		}
	}
}
