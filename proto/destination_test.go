package proto_test

import (
	"strings"
	"testing"

	"ferry/proto"
)

func TestDestinations(t *testing.T) {
	for _, test := range []struct {
		url, canonical string
		size           int64
		parallel       int
	}{
		{"v3://127.0.0.1:1256", "v3://127.0.0.1:1256", 517_857_567, 1},
		{"v3://127.0.0.1", "v3://127.0.0.1:1256", 517_857_567, 1},
		{"v3://Host.Example:7", "v3://host.example:7", 517_857_567, 1},
		{"V3://h?window=1&dialect=seed&slice=7902", "v3://h:1256", 517_857_567, 1},
		{"v3://[::1]", "v3://[::1]:1256", 517_857_567, 1},
		{"v3://[fe80::1%25lo]:65535", "v3://[fe80::1%25lo]:65535", 517_857_567, 1},
		{"v3://h?window=64", "v3://h:1256?window=64", 517_857_567, 8},
		{"v3://h?window=1024&dialect=mainstream", "v3://h:1256?dialect=mainstream&window=1024", 536_862_719, 8},
		{"v3://h?slice=8192&dialect=mainstream", "v3://h:1256?dialect=mainstream", 536_862_719, 1},
		{"v3://h?slice=734&dialect=mainstream", "v3://h:1256?dialect=mainstream&slice=734", 48_102_687, 1},
		{"v3://h?dialect=per-slice&slice=1040", "v3://h:1256?dialect=per-slice", 67_107_840, 1},
		{"v3://h?dialect=per-slice&slice=65536", "v3://h:1256?dialect=per-slice&slice=65536", 4_293_853_200, 1},
	} {
		d, err := proto.ParseDestination(test.url)
		if err != nil {
			t.Error(err)
			continue
		}
		if d.String() != test.canonical || d.MaxSize() != test.size || d.Parallel() != test.parallel {
			t.Errorf("%s: %s, %d bytes, %d at once; want %s, %d, %d", test.url, d, d.MaxSize(), d.Parallel(), test.canonical, test.size, test.parallel)
		}
		if again, err := proto.ParseDestination(d.String()); err != nil || again != d {
			t.Errorf("%s reads as %+v, %v", d, again, err)
		}
	}
}

func TestDestinationsThatAreNone(t *testing.T) {
	for _, test := range []struct{ url, says string }{
		{"", "scheme"},
		{"127.0.0.1:1256", ""},
		{"host:1256", "scheme"},
		{"http://h", "v3"},
		{"v4://h", "v3"},
		{"v3:h", "no host"},
		{"v3://", "no host"},
		{"v3://:1256", "no host"},
		{"v3://h:", "port"},
		{"v3://h:0", "1 to 65535"},
		{"v3://h:65536", "1 to 65535"},
		{"v3://h:01256", "1 to 65535"},
		{"v3://h:x", "port"},
		{"v3://a b", ""},
		{"v3://user@h", "user"},
		{"v3://h/", "path"},
		{"v3://h/x", "path"},
		{"v3://h#x", "fragment"},
		{"v3://h#", "fragment"},
		{"v3://h?windows=3", "want dialect, slice or window"},
		{"v3://h?window", "1 to 1024"},
		{"v3://h?window=0", "1 to 1024"},
		{"v3://h?window=-1", "1 to 1024"},
		{"v3://h?window=+1", "1 to 1024"},
		{"v3://h?window=1025", "1 to 1024"},
		{"v3://h?window=2&window=3", "2 times"},
		{"v3://h?dialect=Seed", "seed, mainstream or per-slice"},
		{"v3://h?slice=8192", "7902"},
		{"v3://h?dialect=mainstream&slice=0", "1 to 65536"},
		{"v3://h?dialect=mainstream&slice=65537", "1 to 65536"},
		{"v3://h?dialect=per-slice&slice=1000", "multiples"},
		{"v3://h?a=%zz", ""},
		{"v3://h?a;b", ""},
	} {
		d, err := proto.ParseDestination(test.url)
		if err == nil || d != (proto.Destination{}) {
			t.Errorf("%q: %+v, %v; want an error", test.url, d, err)
			continue
		}
		if !strings.Contains(err.Error(), test.says) {
			t.Errorf("%q: %q does not say %q", test.url, err, test.says)
		}
	}
}
