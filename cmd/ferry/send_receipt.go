package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"ferry/proto"
)

// receipts is where ferry send keeps what servers sign; the zero value keeps
// nothing.
type receipts struct {
	file   string // for the receipt of one file
	folder string // for a receipt each
	stdout bool
}

// newReceipts reads --receipt.
func newReceipts(to string, several bool) receipts {
	switch {
	case to == "-":
		return receipts{stdout: true}
	case several:
		return receipts{folder: to}
	}
	return receipts{file: to}
}

// prepare fails if receipts could not be kept: before anything is sent.
func (r receipts) prepare() error {
	switch {
	case r.folder != "":
		if err := os.MkdirAll(r.folder, 0o755); err != nil { //nolint:gosec // receipts are no secret
			return fmt.Errorf("%w: %w", errReceipt, err)
		}
	case r.file != "":
		if info, err := os.Stat(filepath.Dir(r.file)); err != nil || !info.IsDir() {
			return fmt.Errorf("%w: no folder %s to write it to", errReceipt, filepath.Dir(r.file))
		}
	}
	return nil
}

// keep writes a receipt and returns its path; none for stdout.
func (r receipts) keep(name proto.FileName, envelope []byte, show *sendDisplay) (path string, err error) {
	if r == (receipts{}) {
		return "", nil
	}
	if envelope == nil {
		return "", fmt.Errorf("%w: the server sent none", errReceipt)
	}
	line := append(envelope[:len(envelope):len(envelope)], '\n')
	if r.stdout {
		show.print(line)
		return "", nil
	}
	if path = r.file; path == "" {
		path = filepath.Join(r.folder, filepath.FromSlash(name.String())+".receipt")
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // receipts are no secret
			return "", fmt.Errorf("%w: %w", errReceipt, err)
		}
	}
	if err := replaceFile(path, line, 0o644); err != nil {
		return "", fmt.Errorf("%w: %w", errReceipt, err)
	}
	return path, nil
}

// errReceipt: the file may be stored; its receipt is not.
var errReceipt = errors.New("the receipt could not be kept")
