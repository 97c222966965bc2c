package proto_test

import (
	"testing"

	"ferry/proto"
)

// FuzzDestination: what parses prints as a URL that parses to the same, and
// nothing else comes with an error.
func FuzzDestination(f *testing.F) {
	for _, s := range []string{
		"v3://127.0.0.1", "v3://[::1]:1256?window=64", "v3://host:1?dialect=per-slice&slice=1040",
		"v3://host?dialect=mainstream&slice=734&window=2", "v4://host:1257", "v4://host?ca=system&packet=8192",
		"v4://[fe80::1%25lo]?packet=1048576&pin=" + aPin, "v3://host?window=0", "v4://[0:0:0:0:0:0:0:1]", "v4://[::ffff:7f00:1%25a]", "v3://user@host/path#x",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := proto.ParseDestination(s)
		if err != nil {
			if d != (proto.Destination{}) {
				t.Fatalf("%q: %v, with %v", s, err, d)
			}
			return
		}
		again, err := proto.ParseDestination(d.String())
		if err != nil || again != d {
			t.Fatalf("%q prints as %q, which is %v, %v", s, d, again, err)
		}
		pin := proto.Pin{1}
		if with := d.WithPin(pin); !with.Identified() || !d.Identified() && with != destination(t, with.String()) {
			t.Fatalf("%q with a pin is %s", s, with)
		}
		if d.MaxSize() < 1 || d.Parallel() < 1 {
			t.Fatalf("%q: %d bytes at most, %d at a time", s, d.MaxSize(), d.Parallel())
		}
	})
}
