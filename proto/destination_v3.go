package proto

import (
	"fmt"
	"strconv"
	"strings"

	"ferry/proto/v3"
)

const (
	// maxWindow is more than keeps any network busy, and little enough for a
	// server that has to skip what is in flight of a file it refused.
	maxWindow = 1024
	// parallelV3 is how many connections of one client a server is asked to serve
	// at once that is known to cope.
	parallelV3 = 8
)

// A destinationV3 is how version 3 is spoken to a server.
type destinationV3 struct {
	dialect v3.Dialect
	window  int // packets
}

func parseV3(options map[string]string) (destinationVersion, error) {
	d, name, slice := destinationV3{window: 1}, "seed", 0
	var err error
	for key, value := range options {
		switch key {
		case "dialect":
			name = value
		case "slice":
			slice, err = number(key, value, 1, v3.MaxSlice)
		case "window":
			d.window, err = number(key, value, 1, maxWindow)
		default:
			err = fmt.Errorf("%q: want dialect, slice or window", key)
		}
		if err != nil {
			return nil, err
		}
	}
	if d.dialect, err = v3.DialectNamed(name, slice); err != nil {
		return nil, err
	}
	return d, nil
}

func (d destinationV3) query() string {
	var options []string
	if d.dialect.Name != "seed" {
		options = append(options, "dialect="+d.dialect.Name)
	}
	if usual, err := v3.DialectNamed(d.dialect.Name, 0); err != nil || usual.Slice != d.dialect.Slice {
		options = append(options, "slice="+strconv.Itoa(d.dialect.Slice))
	}
	if d.window != 1 {
		options = append(options, "window="+strconv.Itoa(d.window))
	}
	return strings.Join(options, "&")
}

func (d destinationV3) maxSize() int64 { return d.dialect.MaxSize() }

func (d destinationV3) parallel() int {
	if d.copes() {
		return parallelV3
	}
	return 1
}

// copes reports whether the server takes more than the seed's does.
func (d destinationV3) copes() bool { return d.window > 1 }

func (d destinationV3) normal(name string) string { return name }

func (d destinationV3) checkName(name FileName) error { return checkPlain(name) }

// checkPlain wants a name that fits the field of version 3, and is no path.
func checkPlain(name FileName) error {
	switch s := name.String(); {
	case len(s) > MaxClientName:
		return fmt.Errorf("file %w: it has %d bytes, %d are the limit in version 3", ErrName, len(s), MaxClientName)
	case strings.Contains(s, "/"):
		return fmt.Errorf("file %w: version 3 has no folders", ErrName)
	}
	return nil
}

func (d destinationV3) newClient(cfg ClientConfig) clientVersion { return newClientV3(cfg, d) }
