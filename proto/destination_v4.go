package proto

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"golang.org/x/text/unicode/norm"

	"ferry/proto/v4"
)

const (
	// parallelV4 is how many files a client has on their way at once, most of
	// them small.
	parallelV4 = 256
	// usualPacket is what the client asks for.
	usualPacket = 64 << 10
)

// A Pin is what a server is known by: the SHA-256 of its public key, as
// SubjectPublicKeyInfo in DER. The zero value is none.
type Pin [32]byte

const pinPrefix = "sha256:"

// String returns the pin as sha256: and 64 lower-case hexadecimal digits.
func (p Pin) String() string { return pinPrefix + hex.EncodeToString(p[:]) }

// ParsePin reads what [Pin.String] writes; digits may be of either case.
func ParsePin(s string) (Pin, error) {
	digits, ok := strings.CutPrefix(s, pinPrefix)
	if !ok || len(digits) != hex.EncodedLen(len(Pin{})) {
		return Pin{}, fmt.Errorf("pin %q: want %s and 64 hexadecimal digits", s, pinPrefix)
	}
	var p Pin
	if _, err := hex.Decode(p[:], []byte(digits)); err != nil {
		return Pin{}, fmt.Errorf("pin %q: want %s and 64 hexadecimal digits", s, pinPrefix)
	}
	return p, nil
}

// A destinationV4 is how version 4 is spoken to a server.
type destinationV4 struct {
	pin    Pin
	ca     bool // the system's authorities vouch for the server
	packet int  // bytes
}

func parseV4(options map[string]string) (destinationVersion, error) {
	d := destinationV4{packet: usualPacket}
	var err error
	for key, value := range options {
		switch key {
		case "pin":
			if d.pin, err = ParsePin(value); err == nil && d.pin == (Pin{}) {
				err = fmt.Errorf("pin %q: zeros are none", value)
			}
		case "ca":
			if d.ca = value == "system"; !d.ca {
				err = fmt.Errorf("ca %q: want system", value)
			}
		case "packet":
			d.packet, err = number(key, value, v4.MinPacket, v4.MaxPacket)
		default:
			err = fmt.Errorf("%q: want pin, ca or packet", key)
		}
		if err != nil {
			return nil, err
		}
	}
	if d.ca && d.pin != (Pin{}) {
		return nil, errors.New("pin and ca are two ways to know the server: want one")
	}
	return d, nil
}

func (d destinationV4) query() string {
	var options []string
	if d.pin != (Pin{}) {
		options = append(options, "pin="+d.pin.String())
	}
	if d.ca {
		options = append(options, "ca=system")
	}
	if d.packet != usualPacket {
		options = append(options, "packet="+strconv.Itoa(d.packet))
	}
	return strings.Join(options, "&")
}

func (d destinationV4) maxSize() int64 { return math.MaxInt64 }
func (d destinationV4) parallel() int  { return parallelV4 }

func (d destinationV4) normal(name string) string { return norm.NFC.String(name) }

func (d destinationV4) checkName(name FileName) error { return checkNFC(name) }

func checkNFC(name FileName) error {
	if !norm.NFC.IsNormalString(name.String()) {
		return fmt.Errorf("file %w: it is not in Unicode's normal form NFC", ErrName)
	}
	return nil
}

func (d destinationV4) newClient(cfg ClientConfig) clientVersion { return newClientV4(cfg, d) }

// Identified reports whether the URL says how the server is known, or the
// version has no way to.
func (d Destination) Identified() bool {
	v, ok := d.version.(destinationV4)
	return !ok || v.ca || v.pin != Pin{}
}

// Pin is the URL's; zeros if it has none.
func (d Destination) Pin() Pin {
	v, _ := d.version.(destinationV4)
	return v.pin
}

// WithPin returns the destination with a pin, if Identified is false; else d.
func (d Destination) WithPin(p Pin) Destination {
	v, ok := d.version.(destinationV4)
	if !ok || d.Identified() {
		return d
	}
	v.pin = p
	d.version, d.url = v, canonical("v4", d.address, v)
	return d
}
