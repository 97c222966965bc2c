package proto_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	"ferry/proto"
)

const aPin = "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

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
		{"v4://h", "v4://h:1257", math.MaxInt64, 256},
		{"V4://Host.Example:7?packet=65536", "v4://host.example:7", math.MaxInt64, 256},
		{"v4://[0:0:0:0:0:0:0:1]", "v4://[::1]:1257", math.MaxInt64, 256},
		{"v4://[2001:DB8:0:0::0001]:7", "v4://[2001:db8::1]:7", math.MaxInt64, 256},
		{"v4://[::FFFF:7f00:1]", "v4://[::ffff:127.0.0.1]:1257", math.MaxInt64, 256},
		{"v4://[FE80:0::1%25lo]", "v4://[fe80::1%25lo]:1257", math.MaxInt64, 256},
		{"v4://[::1]?ca=system", "v4://[::1]:1257?ca=system", math.MaxInt64, 256},
		{"v4://h?packet=8192&pin=" + aPin, "v4://h:1257?pin=" + aPin + "&packet=8192", math.MaxInt64, 256},
		{"v4://h?pin=sha256:" + strings.ToUpper(aPin[7:]), "v4://h:1257?pin=" + aPin, math.MaxInt64, 256},
		{"v4://h?pin=sha256%3A" + aPin[7:], "v4://h:1257?pin=" + aPin, math.MaxInt64, 256},
		{"v4://h?packet=1048576&ca=system", "v4://h:1257?ca=system&packet=1048576", math.MaxInt64, 256},
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
		{"v5://h", "want v4 or v3"},
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
		{"v4://h?window=1", "want pin, ca or packet"},
		{"v4://h?ca=none", "want system"},
		{"v4://h?ca=", "want system"},
		{"v4://h?packet=8191", "8192 to 1048576"},
		{"v4://h?packet=1048577", "8192 to 1048576"},
		{"v4://h?pin=", "64 hexadecimal digits"},
		{"v4://h?pin=" + aPin[7:], "64 hexadecimal digits"},
		{"v4://h?pin=" + aPin[:70], "64 hexadecimal digits"},
		{"v4://h?pin=" + aPin + "0", "64 hexadecimal digits"},
		{"v4://h?pin=sha512:" + aPin[7:], "64 hexadecimal digits"},
		{"v4://h?pin=sha256:g" + aPin[8:], "64 hexadecimal digits"},
		{"v4://h?pin=sha256:" + strings.Repeat("0", 64), "zeros"},
		{"v4://h?ca=system&pin=" + aPin, "want one"},
		{"v4://h/x", "path"},
		{"v3://h?pin=" + aPin, "want dialect, slice or window"},
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

func TestPins(t *testing.T) {
	pin, err := proto.ParsePin(aPin)
	if err != nil || pin.String() != aPin {
		t.Fatalf("%v, %v", pin, err)
	}
	open := destination(t, "v4://h?packet=8192")
	if open.Identified() || open.Pin() != (proto.Pin{}) {
		t.Errorf("%s: identified %v, pin %v", open, open.Identified(), open.Pin())
	}
	pinned := open.WithPin(pin)
	if want := destination(t, "v4://h?packet=8192&pin="+aPin); pinned != want || !pinned.Identified() || pinned.Pin() != pin {
		t.Errorf("with its pin it is %s, identified %v; want %s", pinned, pinned.Identified(), want)
	}
	for _, url := range []string{"v4://h?ca=system", "v4://h?pin=sha256:" + strings.Repeat("1", 64), "v3://h"} {
		if d := destination(t, url); !d.Identified() || d.WithPin(pin) != d {
			t.Errorf("%s is identified: %v, with a pin %s", d, d.Identified(), d.WithPin(pin))
		}
	}
}

func TestNamesInNFC(t *testing.T) {
	d := destination(t, "v4://h")
	for name, ok := range map[string]bool{
		"a": true, "build 17/app.tar.gz": true, "r\u00e9sum\u00e9": true, "re\u0301sume\u0301": false, strings.Repeat("x/", 511) + "yz": true,
	} {
		if err := d.CheckName(fileName(t, name)); (err == nil) != ok || err != nil && !errors.Is(err, proto.ErrName) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if err := d.CheckName(proto.FileName{}); !errors.Is(err, proto.ErrName) {
		t.Errorf("no name: %v", err)
	}
}
