// Package oldclient reads and writes the files that the old clients of wire
// version 3 keep in their folder, so that a folder can be used by them and by
// Ferry in turns.
//
//	transfer.info   what to send, where to and as whom: see [Transfer]
//	me.info         who the client is, once it has registered: see [Me]
//	priv.key        its private key once more: see [ParseKey]
//
// port.info lies beside the old server: see [ParsePort].
package oldclient

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"ferry/proto"
)

// The files' names.
const (
	TransferFile = "transfer.info"
	MeFile       = "me.info"
	KeyFile      = "priv.key"
)

// maxFile bounds what is read of any of these files. A path has 4,096 bytes at
// most, a key of 1024 bits about 900.
const maxFile = 64 << 10

// DefaultPort is the old server's, where its port.info is missing or bad.
const DefaultPort = 1256

// Transfer is what transfer.info says, in three lines: HOST:PORT with blanks
// allowed around both, the user's name, and the path of the file.
type Transfer struct {
	Address string // HOST:PORT, an IPv6 host in brackets
	Name    proto.ClientName
	Path    string // relative to the folder, or absolute
}

// ParseTransfer reads transfer.info. Lines may end in CRLF, the last one in
// nothing; a name may be padded with NULs; empty lines may follow.
func ParseTransfer(b []byte) (Transfer, error) {
	if len(b) > maxFile {
		return Transfer{}, fmt.Errorf("it has %d bytes, %d are the limit", len(b), maxFile)
	}
	// Some editors begin a text with a byte order mark.
	lines := lines(bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")))
	for len(lines) > 0 && strings.TrimSpace(lines[len(lines)-1]) == "" {
		lines = lines[:len(lines)-1]
	}
	if len(lines) != 3 {
		return Transfer{}, fmt.Errorf("it has %d lines, want 3: HOST:PORT, the user's name, the path of the file", len(lines))
	}
	address, err := parseAddress(lines[0])
	if err != nil {
		return Transfer{}, fmt.Errorf("line 1: %w", err)
	}
	name, err := parseName(lines[1])
	if err != nil {
		return Transfer{}, fmt.Errorf("line 2: %w", err)
	}
	if strings.Contains(lines[2], "\x00") {
		return Transfer{}, fmt.Errorf("line 3: the path %q contains a NUL", lines[2])
	}
	return Transfer{Address: address, Name: name, Path: lines[2]}, nil
}

// Append appends transfer.info as the seed's client reads it.
func (t Transfer) Append(b []byte) []byte {
	return fmt.Appendf(b, "%s\n%s\n%s\n", t.Address, t.Name, t.Path)
}

// hostName is what may stand for a host beside an address.
var hostName = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?$`)

func parseAddress(line string) (string, error) {
	at := strings.LastIndexByte(line, ':')
	if at < 0 {
		return "", fmt.Errorf("%q: want HOST:PORT", line)
	}
	host, port := strings.TrimSpace(line[:at]), strings.TrimSpace(line[at+1:])
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return "", fmt.Errorf("%q: want a port from 1 to 65535 after the colon", line)
	}
	inner, open := strings.CutPrefix(host, "[")
	inner, closed := strings.CutSuffix(inner, "]")
	ip, err := netip.ParseAddr(inner)
	switch {
	case open && closed && err == nil && ip.Is6() && ip.Zone() == "":
		host = inner
	case !hostName.MatchString(host):
		return "", fmt.Errorf("%q: want an address or a host's name before the colon", line)
	}
	return net.JoinHostPort(host, strconv.FormatUint(n, 10)), nil
}

// ParsePort reads port.info: the old server's port, DefaultPort if there is
// nothing sensible in b.
func ParsePort(b []byte) int {
	n, err := strconv.ParseUint(string(bytes.TrimSpace(b)), 10, 16)
	if err != nil || n == 0 {
		return DefaultPort
	}
	return int(n)
}

// parseName reads a name, which one of the old programs pads with NULs.
func parseName(line string) (proto.ClientName, error) {
	return proto.ParseClientName(strings.TrimRight(line, "\x00"))
}

// lines splits a text whose lines may end in CRLF.
func lines(b []byte) []string {
	lines := strings.Split(string(b), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], "\r")
	}
	return lines
}
