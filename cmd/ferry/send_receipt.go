package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"ferry/internal/atomicfile"
	"ferry/proto"
)

// receipts is where ferry send keeps what servers sign; the zero value keeps
// nothing.
type receipts struct {
	file   string // for the receipt of one file
	folder string // for a receipt each
	stdout bool
}

// newReceipts reads --receipt. A folder that is there takes the receipt of one
// file, too.
func newReceipts(to string, several bool) receipts {
	switch info, err := os.Stat(to); {
	case to == "-":
		return receipts{stdout: true}
	case to != "" && (several || err == nil && info.IsDir()):
		return receipts{folder: to}
	}
	return receipts{file: to}
}

// inFolder is a receipt's path in the folder.
func inFolder(name proto.FileName) string { return filepath.FromSlash(name.String()) + ".receipt" }

// check finds receipts that could not all be kept: before anything is sent.
func (r receipts) check(files []sendFile) error {
	if r.folder == "" {
		return nil
	}
	paths := map[string]string{}
	for _, f := range files {
		if f.err != nil {
			continue
		}
		path := inFolder(f.name)
		if len(filepath.Base(path)) > proto.MaxClientName {
			return fmt.Errorf("--receipt %s: the name of %s's receipt, %s, would be too long; send it by itself with --receipt FILE",
				r.folder, printable(f.path), printable(filepath.Base(path)))
		}
		paths[path] = f.path
	}
	for path, file := range paths {
		for dir := filepath.Dir(path); dir != "."; dir = filepath.Dir(dir) {
			if other, taken := paths[dir]; taken {
				return fmt.Errorf("--receipt %s: the receipt of %s would lie where a folder is needed for that of %s; send one of them by itself",
					r.folder, printable(other), printable(file))
			}
		}
	}
	return nil
}

// prepare fails if receipts could not be kept: before anything is sent.
func (r receipts) prepare() error {
	switch {
	case r.folder != "":
		if err := os.MkdirAll(r.folder, 0o755); err != nil { //nolint:gosec // receipts are no secret
			return fmt.Errorf("%w: %w", errReceipt, err)
		}
	case r.file != "":
		if _, _, err := receiptTarget(r.file); err != nil {
			return fmt.Errorf("%w: %w", errReceipt, err)
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
		path = filepath.Join(r.folder, inFolder(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // receipts are no secret
			return "", fmt.Errorf("%w: %w", errReceipt, err)
		}
	}
	if err := writeReceipt(path, line); err != nil {
		return "", fmt.Errorf("%w: %w", errReceipt, err)
	}
	return path, nil
}

// writeReceipt replaces a regular file, or the one that a link leads to. Into
// anything else, a device or a pipe, it writes.
func writeReceipt(path string, line []byte) error {
	target, regular, err := receiptTarget(path)
	if err != nil {
		return err
	}
	if regular {
		return atomicfile.Write(target, line, 0o644)
	}
	// A pipe that nobody reads would keep us in open, where no signal reaches us.
	f, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ENXIO) {
		return fmt.Errorf("%s: nobody reads the pipe, or there is no such device", path)
	}
	if err != nil {
		return err
	}
	_ = f.SetWriteDeadline(time.Now().Add(receiptWait)) // a device may have none, and does not wait
	_, err = f.Write(line)
	return errors.Join(err, f.Close())
}

// receiptWait bounds how long a pipe's reader may take no byte.
const receiptWait = 10 * time.Second

// receiptTarget is where a receipt lies in the end, links being followed, also
// those that lead to nothing yet, and whether it is a regular file or will be.
func receiptTarget(path string) (target string, regular bool, err error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return path, false, nil
	}
	const mostLinks = 40 // as the kernel
	for range mostLinks {
		dir, file := filepath.Split(path)
		folder, err := filepath.EvalSymlinks(cmp.Or(dir, "."))
		if err != nil {
			return "", false, fmt.Errorf("no folder %s to write it to", filepath.Clean(dir))
		}
		if info, err := os.Stat(folder); err != nil || !info.IsDir() {
			return "", false, fmt.Errorf("no folder %s to write it to", filepath.Clean(dir))
		}
		path = filepath.Join(folder, file)
		to, err := os.Readlink(path)
		if err != nil {
			return path, true, nil //nolint:nilerr // no link, or nothing
		}
		if path = to; !filepath.IsAbs(to) {
			path = folder + string(filepath.Separator) + to // what .. means is for the links to say
		}
	}
	return "", false, fmt.Errorf("%s: too many links", path)
}

// errReceipt: the file may be stored; its receipt is not.
var errReceipt = errors.New("the receipt could not be kept")
