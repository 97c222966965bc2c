package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"ferry/proto"
)

// source is an open file that must not change while it is sent.
type source struct {
	path string
	file *os.File
	info os.FileInfo // when it was opened
}

// openSource wants a regular file: of others nobody knows the size.
func openSource(path string) (*source, error) {
	info, err := os.Stat(path) // before it is opened, which a pipe would not return from
	if err != nil {
		return nil, err
	}
	switch {
	case info.IsDir():
		return nil, errFolder
	case !info.Mode().IsRegular():
		return nil, errors.New("not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if info, err = f.Stat(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &source{path, f, info}, nil
}

// Close ends all reading.
func (s *source) Close() error { return s.file.Close() }

// open is a [proto.Source]: the file from its start, as often as it is needed.
func (s *source) open() (io.ReadCloser, error) {
	return section{io.NewSectionReader(s.file, 0, 1<<62)}, nil
}

// section is a file that can be read, and sought, by several at a time.
type section struct{ *io.SectionReader }

// Close leaves the file open.
func (section) Close() error { return nil }

// offer is what the server is told of the file.
func (s *source) offer(name proto.FileName) proto.Offer {
	return proto.Offer{
		ID: s.transferID(name), Name: name, Size: s.info.Size(),
		Mode: s.info.Mode().Perm(), ModTime: s.info.ModTime(),
	}
}

// transferID is the same for the same file each time the program runs, so that a
// transfer that was interrupted goes on, and another one for whatever was
// written to since: the kernel notes that in the change time, which no program
// can set.
func (s *source) transferID(name proto.FileName) (id proto.TransferID) {
	h := sha256.New()
	fmt.Fprintf(h, "ferry send\x00%s\x00%s\x00%d %d", absolute(s.path), name, s.info.Size(), s.info.ModTime().UnixNano())
	if stat, ok := s.info.Sys().(*syscall.Stat_t); ok {
		fmt.Fprintf(h, " %d %d %d %d", stat.Dev, stat.Ino, stat.Ctim.Sec, stat.Ctim.Nsec)
	}
	copy(id[:], h.Sum(nil))
	return id
}

// unchanged finds whether somebody wrote to the file since it was opened.
func (s *source) unchanged() error {
	now, err := s.file.Stat()
	if err != nil {
		return fmt.Errorf("%w: %w", proto.ErrSource, err)
	}
	if now.Size() != s.info.Size() || !now.ModTime().Equal(s.info.ModTime()) {
		return fmt.Errorf("%w: %w", proto.ErrSource, errFileChanged)
	}
	return nil
}

// judge tells a file that changed from one that cannot be read.
func (s *source) judge(err error) error {
	if errors.Is(err, proto.ErrSource) {
		if changed := s.unchanged(); changed != nil {
			return changed
		}
	}
	return err
}

// sum adds the file up. It is an error if the file is not what was opened any
// more.
func (s *source) sum(ctx context.Context) (proto.Sum, error) {
	r, err := s.open()
	if err != nil {
		return proto.Sum{}, err
	}
	sum, err := proto.SumOf(ctx, r)
	switch {
	case err == nil:
		return sum, s.unchanged()
	case ctx.Err() != nil:
		return proto.Sum{}, context.Cause(ctx)
	}
	return proto.Sum{}, fmt.Errorf("%w: %w", proto.ErrSource, err)
}
