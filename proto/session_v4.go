package proto

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net"
	"sync"
	"time"

	"ferry/proto/v4"
)

// Limits of a session.
const (
	// unansweredV4 is how many files may be on their way and not answered: as
	// many as can be made durable at once, which is twice what shares a signature.
	unansweredV4 = 256
	// windowV4 is how much of a file may be on its way beyond what is kept: twice
	// what a line of 1 Gbit/s holds in 50 ms.
	windowV4 = 16 << 20
	// keepEvery is after how much of a file what came is kept: a quarter of the
	// window, so that a client need not wait.
	keepEvery = windowV4 / 4
	// mostUselessV4 is how many messages in a row may come that ask for nothing.
	mostUselessV4 = unansweredV4
)

// A sessionV4 is one connection of version 4.
type sessionV4 struct {
	frames   *framesV4
	identity ServerIdentity
	cfg      SessionConfig
	exporter []byte
	answers  *answersV4

	knows  sync.Mutex
	client Registration // guarded by knows

	// Of the goroutine that calls Next and Receive.
	room    []byte // for all payloads but files
	file    []byte // the small file that is being dealt with, or nil
	current *transferV4
	passing *passingV4 // a refused file of which packets may still come, or nil
	sum     *Summer
	useless int // messages in a row that asked for nothing

	end      sync.Mutex
	err      error   // guarded by end: why there is no next file
	parted   bool    // guarded by end: the client is told that the session ends
	farewell *saidV4 // guarded by end: in that, when all else has been said
}

// A passingV4 is a file that was refused while it came.
type passingV4 struct {
	number uint64
	left   int64 // bytes that may still come
	again  bool  // 901 has come
}

// AcceptV4 returns the [Accept] of wire version 4, for a server with that
// identity.
//
// A session answers from a goroutine of its own, so that Accept, Exists and
// Refuse wait for nobody: receipts are signed for as many files at once as wait
// for one. What a client may be told of an error that was given to Refuse, or
// that a Sink returned, is which of this package's it is; a [RefusedError] says
// in addition its words, and when to come again.
func AcceptV4(id ServerIdentity) Accept {
	cfg := serverTLS(id)
	return func(ctx context.Context, conn net.Conn, sessions SessionConfig) (Session, error) {
		s := newSessionV4(newServerFrames(conn, cmp.Or(sessions.IdleTimeout, 30*time.Second), cfg), id, sessions)
		if err := s.accept(ctx); err != nil {
			return nil, fmt.Errorf("handshake: %w", err)
		}
		return s, nil
	}
}

func newSessionV4(f *framesV4, id ServerIdentity, cfg SessionConfig) *sessionV4 {
	cfg.HandshakeTimeout = cmp.Or(cfg.HandshakeTimeout, 10*time.Second)
	cfg.MinRate = cmp.Or(cfg.MinRate, 1<<10)
	cfg.MaxFileSize = cmp.Or(cfg.MaxFileSize, math.MaxInt64)
	return &sessionV4{
		frames:   f,
		identity: id,
		cfg:      cfg,
		room:     make([]byte, 0, v4.MaxClear+v4.TagSize),
	}
}

// Client is who was registered or recognised.
func (s *sessionV4) Client() Registration {
	s.knows.Lock()
	defer s.knows.Unlock()
	return s.client
}

// cause is what ended the context, or the writing, if that is why err came up.
func (s *sessionV4) cause(ctx context.Context, err error) error {
	switch {
	case err == nil || decided(err):
		return err
	case s.frames.socket.hasEnded() && ctx.Err() != nil:
		return context.Cause(ctx)
	}
	if broken := s.frames.failed(); broken != nil {
		return broken
	}
	return err
}

// Next returns the next file that the client offers.
func (s *sessionV4) Next(ctx context.Context) (Transfer, error) {
	if s.current != nil {
		select {
		case <-s.current.settled:
		case <-ctx.Done():
			return nil, s.fail(0, context.Cause(ctx))
		}
	}
	s.current = nil
	putBuffer(s.file)
	s.file = nil
	if err := s.ended(); err != nil {
		return nil, err
	}
	if ctx.Err() != nil { // what has come already would be taken, and the client not told why
		return nil, s.fail(0, context.Cause(ctx))
	}
	t, err := s.next(ctx)
	if err != nil {
		return nil, err
	}
	s.current = t
	return t, nil
}

func (s *sessionV4) next(ctx context.Context) (*transferV4, error) {
	release := s.frames.socket.under(ctx)
	t, err := s.await(ctx)
	release()
	switch err = s.cause(ctx, err); {
	case err == nil:
		return t, nil
	case errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return nil, s.fail(0, io.EOF)
	}
	return nil, s.fail(0, fmt.Errorf("wait for a file: %w", err))
}

// await reads until a file is offered that can be taken.
func (s *sessionV4) await(ctx context.Context) (*transferV4, error) {
	for {
		s.frames.socket.resting = s.passing == nil
		h, err := s.frames.header()
		s.frames.socket.resting = false
		if err != nil {
			return nil, err
		}
		t, err := s.request(ctx, h)
		if err != nil {
			return nil, err
		}
		if t == nil {
			continue
		}
		s.useless = 0
		return t, s.answers.owe(ctx, t.number)
	}
}

// request deals with a message between two files, the body of which has not been
// read.
func (s *sessionV4) request(ctx context.Context, h v4.Header) (*transferV4, error) {
	if s.passing != nil {
		if passed, err := s.pass(h); passed || err != nil {
			return nil, err
		}
	}
	switch h.Code {
	case v4.CodeOffer:
		return s.offer(h)
	case v4.CodeFile:
		return s.small(h)
	case v4.CodeRotate:
		return nil, s.rotate(ctx)
	case v4.CodeGiveUp: // of a file that has been answered meanwhile
		if s.useless++; s.useless > mostUselessV4 {
			return nil, fmt.Errorf("%w: %d messages that ask for nothing", ErrProtocol, s.useless)
		}
		return nil, s.frames.skip(s.room)
	}
	return nil, fmt.Errorf("%w: %v between two files", ErrProtocol, h.Code)
}

// pass passes over what is on its way of a refused file. It reports whether the
// message was that.
func (s *sessionV4) pass(h v4.Header) (bool, error) {
	p := s.passing
	switch {
	case h.Code == v4.CodePacket:
		if p.left -= int64(h.Length); p.left < 0 {
			return true, fmt.Errorf("%w: the client goes on with a refused file", ErrProtocol)
		}
		b, err := s.frames.body(getBuffer(int(h.Length)))
		putBuffer(b)
		return true, err
	case h.Code == v4.CodeAgain && h.Number == p.number && !p.again:
		p.again = true // packets may follow, and may not
		return true, s.frames.skip(s.room)
	case (h.Code == v4.CodeGiveUp || h.Code == v4.CodeEnd) && h.Number == p.number:
		s.passed()
		return true, s.frames.skip(s.room)
	case p.again:
		s.passed()
		return false, nil
	}
	return true, fmt.Errorf("%w: %v within a refused file", ErrProtocol, h.Code)
}

func (s *sessionV4) passed() {
	s.passing = nil
	s.frames.socket.pace(0)
}

// read reads the payload of a message other than a file's.
func read[T any](s *sessionV4, h v4.Header, parse func([]byte) (T, error)) (T, error) {
	var none T
	b, err := s.frames.body(s.room)
	if err != nil {
		return none, err
	}
	m, err := parse(b)
	if err != nil {
		return none, fmt.Errorf("%w: %v: %w", ErrProtocol, h.Code, err)
	}
	return m, nil
}

// offer takes the offer of a large file.
func (s *sessionV4) offer(h v4.Header) (*transferV4, error) {
	m, err := read(s, h, v4.ParseOffer)
	if err != nil {
		return nil, err
	}
	return s.check(h, m, nil)
}

// small takes a file in one message.
func (s *sessionV4) small(h v4.Header) (*transferV4, error) {
	s.file = getBuffer(int(h.Length))
	b, err := s.frames.body(s.file)
	if err != nil {
		return nil, err
	}
	m, content, err := v4.ParseFile(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %v: %w", ErrProtocol, h.Code, err)
	}
	t, err := s.check(h, m, content)
	if t == nil {
		putBuffer(s.file)
		s.file = nil
	}
	return t, err
}

// check refuses what no server can take.
func (s *sessionV4) check(h v4.Header, m v4.Offer, content []byte) (*transferV4, error) {
	t := &transferV4{
		s:       s,
		number:  h.Number,
		small:   h.Code == v4.CodeFile,
		content: content,
		offer:   Offer{ID: m.Transfer, Size: m.Size, Mode: fs.FileMode(m.Mode)},
		settled: make(chan struct{}),
	}
	if m.ModTime != v4.NoTime {
		t.offer.ModTime = time.Unix(0, m.ModTime)
	}
	if m.Known {
		t.offer.Sum = &Sum{Size: m.Size, Cksum: m.Sum.Cksum, SHA256: m.Sum.SHA256}
	}
	name, err := ParseFileName(m.Name)
	if err == nil {
		err = checkNFC(name)
	}
	if err == nil && m.Size > s.cfg.MaxFileSize {
		err = fmt.Errorf("%w: %d bytes, %d are the limit", ErrTooLarge, m.Size, s.cfg.MaxFileSize)
	}
	if err != nil {
		s.refusing(s.Client().Name.String(), m.Name, err)
		refusal := refusedV4(&RefusedError{Why: err, Words: err.Error()}) // it speaks of nothing but the offer
		return nil, s.frames.say(v4.CodeRefused, h.Number, refusal.Append(nil))
	}
	t.offer.Name = name
	return t, nil
}

// refusing tells of a refusal that is no error of any call.
func (s *sessionV4) refusing(client, file string, why error) {
	if s.cfg.Refused != nil {
		s.cfg.Refused(client, file, why)
	}
}

// rotate answers 833.
func (s *sessionV4) rotate(ctx context.Context) error {
	m, err := read(s, s.frames.head, v4.ParseRotate)
	if err != nil {
		return err
	}
	client := s.Client()
	public, err := v4.ParseKey(m.Key)
	if err != nil {
		return notGood("the new key is not one of RSA with 3072 to 8192 bits", err)
	}
	if err := v4.CheckRotate(public, v4.RotateContext(s.exporter, client.ID, m.Key), m.Signature); err != nil {
		return notGood("the new key's signature is not good", err)
	}
	fresh := append([]byte(nil), m.Key...)
	switch err := s.cfg.Directory.Replace(ctx, client.ID, client.PublicKey, fresh); {
	case errors.Is(err, ErrUnauthorized):
		return notGood("the key was replaced by another connection", err)
	case err != nil:
		s.refusing(client.Name.String(), "", err)
		return s.frames.say(v4.CodeRefused, 0, refusedV4(err).Append(nil))
	}
	s.knows.Lock()
	s.client.PublicKey = fresh
	s.knows.Unlock()
	return s.frames.say(v4.CodeThanks, 0, v4.Offset{}.Append(nil))
}

// notGood is the refusal of a token, key or proof, in words for the client.
func notGood(words string, err error) error {
	why := ErrUnauthorized
	if err != nil && !errors.Is(err, ErrUnauthorized) {
		why = fmt.Errorf("%w: %w", ErrUnauthorized, err)
	}
	return &RefusedError{Why: why, Words: words}
}

// ended is why there is no next file, or nil.
func (s *sessionV4) ended() error {
	s.end.Lock()
	defer s.end.Unlock()
	return s.err
}

// fail makes err the end of the session. The client is told by Close, behind
// the answers that it has to come, if it is for it to know. number is that of the
// file that was under way.
func (s *sessionV4) fail(number uint64, err error) error {
	s.end.Lock()
	defer s.end.Unlock()
	if s.err != nil {
		return err
	}
	s.err = err
	if !s.parted && (endsSession(err) || errors.Is(err, ErrBusy)) {
		s.parted = true
		s.farewell = &saidV4{number, refusedV4(err)}
	}
	return err
}

// part makes why, which is about to be told to the client, the end of the
// session.
func (s *sessionV4) part(why error) {
	s.end.Lock()
	defer s.end.Unlock()
	s.parted = true
	if s.err == nil {
		s.err = fmt.Errorf("the session has ended with a file's refusal: %w", why)
	}
}

// Close waits until what was acknowledged or refused has been said, and ends the
// conversation. A client that was told why is given a moment to hear it: bytes of
// it that nobody took would make the kernel drop what it has not read.
func (s *sessionV4) Close() error {
	s.answers.ends.Wait()
	s.answers.still.end()
	putBuffer(s.file)
	s.file = nil
	s.end.Lock()
	parted, farewell := s.parted, s.farewell
	s.farewell = nil
	s.end.Unlock()
	s.frames.socket.within(time.Now().Add(lastWords)) // nobody need hear the rest
	if farewell != nil {
		_ = s.frames.say(v4.CodeRefused, farewell.number, farewell.m.Append(nil))
	}
	_ = s.frames.bye()
	if parted {
		s.frames.socket.drain(windowV4+v4.MaxPacket, lastWords)
	}
	return s.answers.failed()
}
