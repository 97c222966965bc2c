package proto

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"time"

	"ferry/proto/v3"
)

// Limits of a conversation.
const (
	// mostHandshake is how many messages a handshake may take. Old clients repeat
	// what was refused up to three times, one kind of message after the other.
	mostHandshake = 16
	// mostUseless is how many messages in a row may come after it that ask for
	// nothing a session can give.
	mostUseless = 16
	// mostSkipped is how much of a refused file is read before the connection is
	// given up: more than any window, and what a client has on the way that only
	// listens when it has sent everything.
	mostSkipped = 64 << 20
	// firstBuffer holds the longest message that is not a packet, and the
	// headers of one that is.
	firstBuffer = 512
)

// A sessionV3 is one connection of version 3.
type sessionV3 struct {
	wire
	cfg     SessionConfig
	client  Registration
	claimed string // the name that the client gave last in its handshake
	key     v3.Key
	room    *roomV3 // the larger buffers, while a file needs them
	current *transferV3
	err     error // why there is no next file
	useless int   // messages in a row that were answered 1607
	come    int   // bytes of the file that is coming, until it has moved
	newID   func() ClientID

	// A refused file whose packets may still come, or nil, and what to do if its
	// last packet comes again.
	refused *refusedV3
	// ackDiffers: the client waits for an answer to 901.
	ackDiffers bool
}

// AcceptV3 is the [Accept] of wire version 3. The session's Transfers refuse as
// [Transfer] says; how the reason is told is described beside the type that
// implements it.
//
// A client is recorded once it has sent its public key. 826 is taken only in
// the connection that registered, or with the key that is on record. The AES
// key is new for each connection and kept nowhere else.
func AcceptV3(ctx context.Context, conn net.Conn, cfg SessionConfig) (Session, error) {
	return acceptV3(ctx, conn, cfg, v3.NewKey(), newID)
}

func newID() ClientID {
	var id ClientID
	_, _ = rand.Read(id[:]) // never fails
	return id
}

func acceptV3(ctx context.Context, conn net.Conn, cfg SessionConfig, key v3.Key, newID func() ClientID) (Session, error) {
	s := &sessionV3{
		wire:  wire{conn: conn, pacing: pacing{idle: cmp.Or(cfg.IdleTimeout, 30*time.Second)}, in: make([]byte, firstBuffer)},
		cfg:   cfg,
		key:   key,
		newID: newID,
	}
	s.cfg.MaxFileSize = cmp.Or(cfg.MaxFileSize, math.MaxInt64)
	s.cfg.MinRate = cmp.Or(cfg.MinRate, 1<<10)
	s.until = time.Now().Add(cmp.Or(cfg.HandshakeTimeout, 10*time.Second))
	defer s.under(ctx)()
	if err := s.handshake(ctx); err != nil {
		err = s.cause(ctx, err)
		if s.claimed != "" {
			return nil, fmt.Errorf("handshake of %q: %w", s.claimed, err)
		}
		return nil, fmt.Errorf("handshake: %w", err)
	}
	s.until = time.Time{}
	return s, nil
}

// cause is what ended the context, if that is why err came up.
func (s *sessionV3) cause(ctx context.Context, err error) error {
	if s.hasEnded() && ctx.Err() != nil && !decided(err) {
		return context.Cause(ctx)
	}
	return err
}

// Client is who was registered or recognised.
func (s *sessionV3) Client() Registration { return s.client }

// handshake goes on until the client is recognised: a refusal is not the end,
// since the client may try something else.
func (s *sessionV3) handshake(ctx context.Context) error {
	var pending Registration // given out with 1600, not recorded yet
	for range mostHandshake {
		h, err := s.header()
		if err != nil {
			return err
		}
		var done bool
		switch h.Code {
		case v3.CodeRegister:
			pending, err = s.register(ctx, h)
		case v3.CodePublicKey:
			done, err = s.takeKey(ctx, h, pending)
		case v3.CodeReconnect:
			done, err = s.reconnect(ctx, h)
		default:
			err = s.violation("%v before the handshake", h.Code)
		}
		if err != nil {
			return err
		}
		if err := s.flush(); err != nil {
			return err
		}
		if done {
			return nil
		}
	}
	return s.violation("no client after %d messages", mostHandshake)
}

// register answers 825 with an id that means something once 826 has come.
func (s *sessionV3) register(ctx context.Context, h v3.RequestHeader) (Registration, error) {
	var none Registration
	m, err := message(s, h, v3.ParseRegister)
	if err != nil {
		return none, err
	}
	s.claimed = m.Name
	name, err := ParseClientName(m.Name)
	if err != nil {
		s.answer(v3.CodeGeneralError)
		s.refusing(m.Name, "", err)
		return none, nil // the client has been told, and may know another name
	}
	id, err := s.cfg.Directory.Admits(ctx, name, s.newID(), "")
	switch {
	case errors.Is(err, ErrNameTaken):
		s.answer(v3.CodeNameTaken)
		s.refusing(m.Name, "", err)
		return none, nil
	case errors.Is(err, ErrUnauthorized):
		s.answer(v3.CodeGeneralError)
		s.refusing(m.Name, "", err)
		return none, nil
	case err != nil:
		return none, s.broken(err)
	}
	r := Registration{ID: id, Name: name}
	s.say(v3.CodeRegistered, v3.IDSize)
	s.out = v3.Registered{Client: v3.ID(r.ID)}.Append(s.out)
	return r, nil
}

// takeKey answers 826.
func (s *sessionV3) takeKey(ctx context.Context, h v3.RequestHeader, pending Registration) (bool, error) {
	m, err := message(s, h, v3.ParsePublicKey)
	if err != nil {
		return false, err
	}
	s.claimed = m.Name
	if _, err := v3.ParsePublicKeyInfo(m.Key); err != nil {
		return false, s.violation("%w", err)
	}
	r := Registration{ID: ClientID(h.Client), Name: pending.Name, PublicKey: m.Key[:]}
	if pending.ID != r.ID || pending.Name.String() != m.Name || m.Name == "" {
		return s.sameKey(ctx, h, m)
	}
	switch err := s.cfg.Directory.Register(ctx, r, ""); {
	case errors.Is(err, ErrNameTaken), errors.Is(err, ErrRefused), errors.Is(err, ErrUnauthorized):
		s.answer(v3.CodeGeneralError)
		_ = s.flush()
		return false, err
	case err != nil:
		return false, s.broken(err)
	}
	return true, s.welcome(ctx, r, v3.CodeKey)
}

// sameKey answers an 826 of a client that is on record already, with that key
// and no other: whoever knows its id and name would take its place otherwise.
func (s *sessionV3) sameKey(ctx context.Context, h v3.RequestHeader, m v3.PublicKey) (bool, error) {
	r, err := s.cfg.Directory.ByID(ctx, ClientID(h.Client))
	switch {
	case errors.Is(err, ErrUnknownClient):
		return false, s.violation("a public key of a client that has not registered")
	case err != nil:
		return false, s.broken(err)
	case r.Name.String() != m.Name || !bytes.Equal(r.PublicKey, m.Key[:]):
		return false, s.violation("another public key for client %s", r.ID)
	}
	return true, s.welcome(ctx, r, v3.CodeKey)
}

// reconnect answers 827.
func (s *sessionV3) reconnect(ctx context.Context, h v3.RequestHeader) (bool, error) {
	m, err := message(s, h, v3.ParseReconnect)
	if err != nil {
		return false, err
	}
	s.claimed = m.Name
	r, err := s.cfg.Directory.ByID(ctx, ClientID(h.Client))
	switch {
	case errors.Is(err, ErrUnknownClient), errors.Is(err, ErrRevoked), err == nil && r.Name.String() != m.Name:
		s.say(v3.CodeUnknown, v3.IDSize)
		s.out = v3.Registered{Client: h.Client}.Append(s.out)
		s.refusing(m.Name, "", fmt.Errorf("%w: id %s", ErrUnknownClient, ClientID(h.Client)))
		return false, nil
	case err != nil:
		return false, s.broken(err)
	}
	return true, s.welcome(ctx, r, v3.CodeReconnected)
}

// welcome gives a client the key of the connection, wrapped for its own.
func (s *sessionV3) welcome(ctx context.Context, r Registration, code v3.Code) error {
	if len(r.PublicKey) != v3.PublicKeySize {
		return s.broken(fmt.Errorf("public key of client %s: %d bytes", r.ID, len(r.PublicKey)))
	}
	public, err := v3.ParsePublicKeyInfo([v3.PublicKeySize]byte(r.PublicKey))
	if err != nil {
		return s.broken(fmt.Errorf("client %s: %w", r.ID, err))
	}
	wrapped, err := v3.WrapKey(public, s.key)
	if err != nil {
		return s.broken(err)
	}
	if err := s.cfg.Directory.Seen(ctx, r.ID); err != nil {
		return s.broken(err)
	}
	s.client = r
	s.say(code, v3.IDSize+v3.WrappedKeySize)
	s.out = v3.WrappedKey{Client: v3.ID(r.ID), Key: wrapped}.Append(s.out)
	return nil
}

// header reads the header of the next message. io.EOF means that the client
// has left between two messages.
func (s *sessionV3) header() (v3.RequestHeader, error) {
	s.begin()
	b, err := s.peek(v3.RequestHeaderSize)
	if err != nil {
		return v3.RequestHeader{}, err
	}
	h, err := v3.ParseRequestHeader(b)
	if err != nil {
		return h, s.violation("%w", err)
	}
	s.take(v3.RequestHeaderSize)
	limit, ok := v3.PayloadLimit(h.Code)
	if !ok || h.Code >= v3.CodeRegistered {
		return h, s.violation("request %v", h.Code)
	}
	if int64(h.PayloadSize) > int64(limit) {
		return h, s.violation("%v with a payload of %d bytes", h.Code, h.PayloadSize)
	}
	if s.client.ID != (ClientID{}) && ClientID(h.Client) != s.client.ID {
		return h, s.violation("%v of client %s", h.Code, ClientID(h.Client))
	}
	return h, nil
}

// payload reads what follows a header that is not a packet's.
func (s *sessionV3) payload(h v3.RequestHeader) ([]byte, error) {
	b, err := s.peek(int(h.PayloadSize))
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, err
	}
	s.take(len(b))
	return b, nil
}

func message[T any](s *sessionV3, h v3.RequestHeader, parse func([]byte) (T, error)) (T, error) {
	var none T
	b, err := s.payload(h)
	if err != nil {
		return none, err
	}
	m, err := parse(b)
	if err != nil {
		return none, s.violation("%v: %w", h.Code, err)
	}
	return m, nil
}

// say begins an answer; its payload is appended to out.
func (s *sessionV3) say(code v3.Code, size int) {
	s.out = v3.ResponseHeader{Code: code, PayloadSize: uint32(size)}.Append(s.out) //nolint:gosec // a constant
}

// answer says something that has no payload.
func (s *sessionV3) answer(code v3.Code) { s.say(code, 0) }

// violation answers 1607 to something the version does not allow. The session
// ends with the error: what follows may not be understood.
func (s *sessionV3) violation(format string, args ...any) error {
	s.answer(v3.CodeGeneralError)
	_ = s.flush() // the client has broken off, or is told
	return fmt.Errorf("%w: %w", ErrProtocol, fmt.Errorf(format, args...))
}

// broken answers 1607 because of something that is not the client's fault, and
// returns it.
func (s *sessionV3) broken(err error) error {
	s.answer(v3.CodeGeneralError)
	_ = s.flush()
	return err
}

// Close does nothing: whatever there was to say was said at once.
func (s *sessionV3) Close() error { return nil }

// Next returns the next file that the client offers.
func (s *sessionV3) Next(ctx context.Context) (Transfer, error) {
	if s.current != nil {
		select {
		case <-s.current.settled:
			s.current = nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	if s.err != nil {
		return nil, s.err
	}
	defer s.under(ctx)()
	t, err := s.next()
	if err != nil {
		s.vacate()
		s.err = s.cause(ctx, err)
		if !errors.Is(err, io.EOF) {
			s.err = fmt.Errorf("wait for a file: %w", s.err)
		}
		return nil, s.err
	}
	s.current = t
	return t, nil
}

func (s *sessionV3) next() (*transferV3, error) {
	for {
		if s.w == s.r {
			s.vacate() // a client that is silent holds no more than it has to
		}
		h, err := s.header()
		if err != nil {
			return nil, err
		}
		if h.Code == v3.CodePacket {
			t, err := s.packet(h)
			if t != nil || err != nil {
				return t, err
			}
			continue
		}
		// A handshake again, or 900, 901 or 902 of a file that is none, or is
		// finished: nothing is touched.
		b, err := s.payload(h)
		if err != nil {
			return nil, err
		}
		file := ""
		if m, err := v3.ParseConfirm(b); err == nil && h.Code >= v3.CodeEqual {
			file = m.Name
		}
		if err := s.pointless(file, "%v, and no file is under way", h.Code); err != nil {
			return nil, err
		}
	}
}

// pointless answers 1607 to a message that is in step, but asks for nothing a
// session can give.
func (s *sessionV3) pointless(file, format string, args ...any) error {
	s.answer(v3.CodeGeneralError)
	why := fmt.Errorf("%w: %w", ErrProtocol, fmt.Errorf(format, args...))
	if s.useless++; s.useless > mostUseless {
		_ = s.flush()
		return why
	}
	s.refusing(s.client.Name.String(), file, why)
	return nil
}

// refusing tells of a refusal that is no error of any call.
func (s *sessionV3) refusing(client, file string, why error) {
	if s.cfg.Refused != nil {
		s.cfg.Refused(client, file, why)
	}
}

// packet takes the headers of a packet between two files: the first of a new
// one, or one more of a file that was refused, which is passed over.
func (s *sessionV3) packet(h v3.RequestHeader) (*transferV3, error) {
	p, err := s.packetHeader(h)
	if err != nil {
		return nil, err
	}
	if s.refused != nil {
		passed, err := s.pass(h.PayloadSize, p)
		if passed || err != nil {
			return nil, err
		}
	}
	u, err := v3.Recognize(s.key, h.PayloadSize, p)
	if err != nil {
		return nil, s.violation("file %q: %w", p.Name, err)
	}
	s.refused = nil
	t := &transferV3{s: s, u: u, plan: u.Plan(), settled: make(chan struct{})}
	name, err := ParseFileName(p.Name)
	if err == nil {
		err = checkPlain(name)
	}
	if err == nil && t.plan.Size > s.cfg.MaxFileSize {
		err = ErrTooLarge
	}
	if err != nil {
		if s.useless++; s.useless > mostUseless {
			return nil, s.violation("%w", err)
		}
		s.refusing(s.client.Name.String(), p.Name, err)
		return nil, t.turnDown(err)
	}
	s.useless = 0
	t.offer = Offer{Name: name, Size: t.plan.Size}
	return t, nil
}

func (s *sessionV3) packetHeader(h v3.RequestHeader) (v3.PacketHeader, error) {
	if h.PayloadSize < v3.PacketHeaderSize {
		return v3.PacketHeader{}, s.violation("packet with a payload of %d bytes", h.PayloadSize)
	}
	b, err := s.peek(v3.PacketHeaderSize)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return v3.PacketHeader{}, err
	}
	p, err := v3.ParsePacketHeader(b)
	if err != nil {
		return v3.PacketHeader{}, s.violation("%w", err)
	}
	s.take(v3.PacketHeaderSize)
	return p, nil
}

// A refusedV3 is a file that was refused, and how far its packets have come.
type refusedV3 struct {
	u    *v3.Unpacker
	left int // what may still be skipped
	// The packet skipped last.
	payload uint32
	header  v3.PacketHeader
	size    int
}

// pass skips a packet of the refused file. It reports whether it was one. The
// client has its 1607; one that sends the packet again has understood, and
// waits for another.
func (s *sessionV3) pass(payload uint32, p v3.PacketHeader) (bool, error) {
	f := s.refused
	again := f.size > 0 && payload == f.payload && p == f.header
	if !again {
		if f.u.Next(payload, p) != nil {
			return false, nil //nolint:nilerr // it is no packet of that file, and may be one of another
		}
		f.payload, f.header, f.size = payload, p, f.u.Left()
		f.u.Skip(f.size)
	}
	if f.left -= f.size; f.left < 0 {
		return true, fmt.Errorf("%w: the client goes on with a refused file", ErrRefused)
	}
	if err := s.drop(f.size); err != nil {
		return true, err
	}
	if again {
		return true, s.pointless(p.Name, "packet of a refused file again")
	}
	return true, nil
}

// drop reads n bytes of a packet and forgets them.
func (s *sessionV3) drop(n int) error {
	for n > 0 {
		b, err := s.some(n)
		if err != nil {
			return err
		}
		s.take(len(b))
		n -= len(b)
	}
	return nil
}
