package proto_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"io"
	"slices"
	"testing"

	"ferry/proto"
	"ferry/proto/v4"
)

// A discarding sink takes everything and keeps nothing.
type discarding struct{}

func (discarding) Write(p []byte) (int, error) { return len(p), nil }
func (discarding) Reset() error                { return nil }
func (discarding) Kept() (int64, []byte)       { return 0, nil }
func (discarding) Keep([]byte) error           { return nil }

// BenchmarkV4Large is one large file through TLS over loopback, from a client
// that neither reads nor hashes, into nothing: what is measured is mostly the
// session.
func BenchmarkV4Large(b *testing.B) {
	const size = 256 << 20
	h := newHostV4(alice(b))
	h.take = func(ctx context.Context, t proto.Transfer) error {
		sum, err := t.Receive(ctx, discarding{})
		if err != nil {
			return err
		}
		return t.Accept(ctx, h.publish(t.Offer(), &stageV4{}, sum))
	}
	r := h.rawTCP(b).enter()
	block := content(64 << 10)
	sums := proto.NewSummer()
	for range size / len(block) {
		_, _ = sums.Write(block)
	}
	sum := sums.Sum()
	end := v4.Sum{Cksum: sum.Cksum, SHA256: sum.SHA256}.Append(nil)
	batch := make([]byte, 0, 1<<20)
	number := uint64(0)
	b.SetBytes(size)
	for b.Loop() {
		number++
		r.say(v4.CodeOffer, number, v4.Offer{Transfer: proto.TransferID{byte(number)}, Size: size, ModTime: v4.NoTime, Name: "f"}.Append(nil))
		r.expect(v4.CodeGo)
		answers := make(chan error, 1)
		go func() {
			for {
				m, err := r.tryRead()
				if err != nil || m.Code != v4.CodeThanks {
					answers <- err
					return
				}
			}
		}()
		batch = batch[:0]
		for at := uint64(0); at < size; at += uint64(len(block)) {
			var err error
			if batch, err = r.sealer.Append(batch, v4.CodePacket, at, block); err != nil {
				b.Fatal(err)
			}
			if len(batch) >= 256<<10 {
				if _, err := r.tls.Write(batch); err != nil {
					b.Fatal(err)
				}
				batch = batch[:0]
			}
		}
		r.write(batch, r.message(v4.CodeEnd, number, end))
		if err := <-answers; err != nil {
			b.Fatal(err)
		}
	}
	r.bye()
	if errs := h.errors(); len(errs) != 0 {
		b.Fatal(errs)
	}
}

// BenchmarkV4Small is files of 4 KiB in one message each, many on their way, that
// are taken at once: what is measured is the session and its signatures.
func BenchmarkV4Small(b *testing.B) {
	h := newHostV4(alice(b))
	h.take = func(ctx context.Context, t proto.Transfer) error {
		sum, err := t.Receive(ctx, discarding{})
		if err != nil {
			return err
		}
		return t.Accept(ctx, h.publish(t.Offer(), &stageV4{}, sum))
	}
	r := h.rawTCP(b).enter()
	c := bytes.Repeat([]byte{7}, 4096)
	window := make(chan struct{}, r.welcome.Unanswered)
	ended := make(chan error, 1)
	go func() {
		for {
			m, err := r.tryRead()
			if err != nil {
				ended <- err
				return
			}
			stored, err := v4.ParseStored(m.Payload)
			if err != nil {
				ended <- err
				return
			}
			for range stored.Numbers {
				<-window
			}
		}
	}()
	number := uint64(0)
	b.SetBytes(int64(len(c)))
	for b.Loop() {
		number++
		window <- struct{}{}
		r.write(r.small(number, "f", c))
	}
	if err := r.tls.CloseWrite(); err != nil {
		b.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, io.EOF) {
		b.Fatal(err)
	}
	if len(window) > 0 {
		b.Fatalf("%d files were not answered", len(window))
	}
}

// BenchmarkArithmeticV4 is what the protocol asks of one end's processor for the bytes of a file,
// and nothing else: both sums, the packets' encryption and that of TLS. Nothing that goes
// through it can be faster on one processor.
func BenchmarkArithmeticV4(b *testing.B) {
	seal := func(key int) cipher.AEAD {
		block, err := aes.NewCipher(make([]byte, key))
		if err != nil {
			b.Fatal(err)
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			b.Fatal(err)
		}
		return aead
	}
	const packet, record = 64 << 10, 16 << 10
	packets, records := seal(32), seal(16)
	nonce, plain := make([]byte, packets.NonceSize()), make([]byte, packet)
	sealed, sent := make([]byte, 0, packet+packets.Overhead()), make([]byte, 0, record+records.Overhead())
	sum := proto.NewSummer()
	b.SetBytes(packet)
	for b.Loop() {
		if _, err := sum.Write(plain); err != nil {
			b.Fatal(err)
		}
		sealed = packets.Seal(sealed[:0], nonce, plain, nil)
		for part := range slices.Chunk(sealed, record) {
			sent = records.Seal(sent[:0], nonce, part, nil)
		}
	}
}
