package proto

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// place makes the source stand where the server's part ends, at from, and the
// hash no less far. If more than limit bytes have to be read for that, it does
// nothing and returns errAhead.
func (d *deliveryV4) place(ctx context.Context, from, limit int64) error {
	start := from
	if d.hash != nil && d.hash.size < from {
		start = d.hash.size
	}
	if err := d.seek(ctx, start); err != nil {
		return err
	}
	if from-d.at > limit {
		return errAhead
	}
	buffer := getBuffer(batchV4)
	defer putBuffer(buffer)
	for d.at < from {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := d.in.Read(buffer[:min(int64(batchV4), from-d.at)])
		d.hashed(buffer[:n], d.at)
		d.at += int64(n)
		if err != nil && d.at < from {
			return sourceError(ctx, shorter(err, d.at, d.offer.Size))
		}
	}
	return nil
}

// seek opens the source unless it is, and makes it stand at start, or before it
// if it has to be read up to there.
func (d *deliveryV4) seek(ctx context.Context, start int64) error {
	if d.in != nil && d.at == start {
		return nil
	}
	if s, ok := d.in.(io.Seeker); ok {
		if at, err := s.Seek(start, io.SeekStart); err == nil && at == start {
			d.at = start
			return nil
		}
	}
	if d.in != nil && d.at < start {
		return nil
	}
	d.closeSource()
	in, err := d.source()
	if err != nil {
		return sourceError(ctx, err)
	}
	d.in, d.at = in, 0
	if s, ok := in.(io.Seeker); ok && start > 0 {
		if at, err := s.Seek(start, io.SeekStart); err == nil && at == start {
			d.at = start
		}
	}
	return nil
}

func (d *deliveryV4) closeSource() {
	if d.in != nil {
		_ = d.in.Close() // only read
		d.in = nil
	}
}

// hashed adds bytes that lie at that offset, as far as they are not in it yet.
func (d *deliveryV4) hashed(b []byte, at int64) {
	if d.hash == nil {
		return
	}
	if done := d.hash.size - at; done < int64(len(b)) {
		_, _ = d.hash.Write(b[max(done, 0):])
	}
}

// shorter is the error of a source that ended, or failed, at that offset.
func shorter(err error, at, size int64) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("it has %d bytes, %d were offered", at, size)
	}
	return err
}

// ended wants the source to end where it stands.
func (d *deliveryV4) ended() error {
	var b [1]byte
	for range 100 {
		switch n, err := d.in.Read(b[:]); {
		case n > 0:
			return fmt.Errorf("it has more than the %d bytes offered", d.offer.Size)
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
	return io.ErrNoProgress
}

// sumOfSource hashes a whole source, which has to have that size.
func sumOfSource(ctx context.Context, src Source, size int64) (Sum, error) {
	d := deliveryV4{offer: Offer{Size: size}, source: src, hash: NewSummer()}
	defer d.closeSource()
	if err := d.place(ctx, size, size); err != nil {
		return Sum{}, err
	}
	if err := d.ended(); err != nil {
		return Sum{}, sourceError(ctx, err)
	}
	return d.hash.Sum(), nil
}
