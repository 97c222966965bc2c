package proto

import (
	"context"
	"errors"
	"fmt"
	"io"

	"ferry/proto/v4"
)

// sendSmall delivers a file in one message, over the connection that all such
// files share.
func (d *deliveryV4) sendSmall(ctx context.Context) (Receipt, error) {
	content, err := d.readSmall(ctx)
	if err != nil {
		return Receipt{}, err
	}
	defer putBuffer(content)
	sum := d.offer.Sum
	if sum == nil {
		s := sumOfBytes(content)
		sum = &s
	}
	d.phase(PhaseConnecting)
	for rested := 0; ; {
		r, again, err := d.sendContent(ctx, content, *sum)
		switch {
		case errors.Is(err, errRested) && rested == 0:
			rested++
		case err != nil || !again:
			return r, err
		case sumOfBytes(content) != *sum:
			return Receipt{}, fmt.Errorf("%w: its bytes are not those that were recorded", ErrSource)
		case d.now.Send == v4.MaxSends:
			return Receipt{}, fmt.Errorf("%w: sent %d times", ErrChecksum, d.now.Send)
		default:
			d.now.Send++
		}
	}
}

func sumOfBytes(b []byte) Sum {
	s := NewSummer()
	_, _ = s.Write(b)
	return s.Sum()
}

// readSmall reads the whole source.
func (d *deliveryV4) readSmall(ctx context.Context) ([]byte, error) {
	defer d.closeSource()
	if err := d.seek(ctx, 0); err != nil {
		return nil, err
	}
	b := getBuffer(int(d.offer.Size))[:d.offer.Size]
	n, err := io.ReadFull(d.in, b)
	if err != nil {
		err = shorter(err, int64(n), d.offer.Size)
	} else {
		err = d.ended()
	}
	if err != nil {
		putBuffer(b)
		return nil, sourceError(ctx, err)
	}
	return b, nil
}

// sendContent sends the file once. again is true if the sums differ.
func (d *deliveryV4) sendContent(ctx context.Context, content []byte, sum Sum) (r Receipt, again bool, err error) {
	s, err := d.client.sharedLine(ctx, d)
	if err != nil {
		return Receipt{}, false, err
	}
	if err := s.enter(ctx); err != nil {
		return Receipt{}, false, err
	}
	d.matched = false
	d.phase(PhaseSending)
	if err := d.match(ctx); err != nil {
		s.leave()
		return Receipt{}, false, err
	}
	m := offerV4(d.offer, &sum)
	f := &fileV4{
		payload: append(m.Append(getBuffer(v4.PayloadLimit(v4.CodeOffer, 0)+len(content))), content...),
		answer:  make(chan answerV4, 1),
	}
	if err := s.post(f); err != nil {
		return Receipt{}, false, err
	}
	d.phase(PhaseVerifying)
	a, err := s.await(ctx, f)
	if err != nil {
		return Receipt{}, false, err
	}
	switch a.code {
	case v4.CodeStored:
		stored, err := a.vouched.of(d.offer, &sum)
		if err != nil {
			return Receipt{}, false, err
		}
		d.now.Bytes, d.now.Packets = d.now.TotalBytes, d.now.TotalPackets
		d.report()
		sends := d.now.Send
		if stored.Transfer != d.offer.ID {
			sends = 0
		}
		return a.vouched.receipt(s.line, stored, sends), false, nil
	case v4.CodeDiffers:
		return Receipt{}, true, nil
	}
	return Receipt{}, false, d.refused(a)
}
