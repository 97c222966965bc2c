package proto

import (
	"context"
	"errors"
	"fmt"
	"time"

	"ferry/proto/v4"
)

// mostHandshakeV4 is how many messages a handshake may take: a client that is
// unknown registers, one whose name is taken tries another.
const mostHandshakeV4 = 16

// A handshakeV4 is how far a client has come in becoming known.
type handshakeV4 struct {
	*sessionV4
	pending Registration // given out with 1600, and not recorded
	token   string       // to register it with
	fresh   bool         // it is to be recorded
	to      Registration // whose proof is awaited
	proving bool
	claimed string // the name that the client gave last
}

// accept performs the handshake. Until the client has proved who it is, nothing
// is recorded.
func (s *sessionV4) accept(ctx context.Context) error {
	s.frames.socket.within(time.Now().Add(s.cfg.HandshakeTimeout))
	defer s.frames.socket.under(ctx)()
	h := &handshakeV4{sessionV4: s}
	err := s.frames.greet()
	if err == nil {
		err = h.run(ctx)
	}
	if err != nil {
		err = h.turnAway(s.cause(ctx, err))
		if h.claimed != "" {
			err = fmt.Errorf("client %q: %w", h.claimed, err)
		}
		return err
	}
	s.frames.socket.within(time.Time{})
	s.answers = newAnswersV4(s)
	return nil
}

// turnAway tells the client, where it is for it to know, and ends the
// conversation.
func (h *handshakeV4) turnAway(err error) error {
	f := h.frames
	if !f.tls.ConnectionState().HandshakeComplete {
		return err
	}
	switch m := refusedV4(err); {
	case errors.Is(err, v4.ErrOpen):
		f.unkey()
		m.Reason, m.Words = v4.ReasonUnauthorized, "the proof does not open"
		_ = f.say(v4.CodeRefused, 0, m.Append(nil))
	case m.Reason != v4.ReasonInternal || h.ours(err):
		_ = f.say(v4.CodeRefused, 0, m.Append(nil))
	}
	_ = f.bye()
	return err
}

// A brokenError is something that is not the client's fault.
type brokenError struct{ error }

func (e brokenError) Unwrap() error { return e.error }

func (h *handshakeV4) ours(err error) bool {
	_, ok := errors.AsType[brokenError](err)
	return ok
}

func (h *handshakeV4) run(ctx context.Context) error {
	var err error
	if h.exporter, err = h.frames.exporter(); err != nil {
		return err
	}
	for range mostHandshakeV4 {
		m, err := h.frames.header()
		if err != nil {
			return err
		}
		switch {
		case h.proving && m.Code == v4.CodeProve:
			return h.prove(ctx, m)
		case h.proving:
			err = fmt.Errorf("%w: %v where a proof is to come", ErrProtocol, m.Code)
		case m.Code == v4.CodeRegister:
			err = h.register(ctx, m)
		case m.Code == v4.CodePublicKey && h.pending.ID != ClientID{}:
			err = h.takeKey(m)
		case m.Code == v4.CodeReconnect:
			err = h.reconnect(ctx, m)
		default:
			err = fmt.Errorf("%w: %v before the client is known", ErrProtocol, m.Code)
		}
		if err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: no client after %d messages", ErrProtocol, mostHandshakeV4)
}

// register answers 825 with an id that means nothing before the proof.
func (h *handshakeV4) register(ctx context.Context, m v4.Header) error {
	asked, err := read(h.sessionV4, m, v4.ParseRegister)
	if err != nil {
		return err
	}
	h.claimed = asked.Name
	name, err := ParseClientName(asked.Name)
	if err != nil {
		return &RefusedError{Why: err, Words: "the client's name is not one"}
	}
	id, err := h.cfg.Directory.Admits(ctx, name, newID(), asked.Token)
	switch {
	case errors.Is(err, ErrNameTaken):
		h.refusing(asked.Name, "", err)
		return h.frames.say(v4.CodeNameTaken, 0, nil)
	case errors.Is(err, ErrUnauthorized):
		if asked.Token == "" {
			return notGood("to register here takes a join token", err)
		}
		return notGood("the join token is not good for that name", err)
	case err != nil:
		return brokenError{err}
	}
	h.pending, h.token = Registration{ID: id, Name: name}, asked.Token
	return h.frames.say(v4.CodeRegistered, 0, v4.Client{ID: id}.Append(nil))
}

// takeKey answers 826.
func (h *handshakeV4) takeKey(m v4.Header) error {
	given, err := read(h.sessionV4, m, v4.ParsePublicKey)
	if err != nil {
		return err
	}
	h.pending.PublicKey = append([]byte(nil), given.Key...)
	h.fresh = true
	return h.wrap(v4.CodeKey, h.pending, "the key is not one of RSA with 3072 to 8192 bits")
}

// reconnect answers 827.
func (h *handshakeV4) reconnect(ctx context.Context, m v4.Header) error {
	asked, err := read(h.sessionV4, m, v4.ParseReconnect)
	if err != nil {
		return err
	}
	h.claimed = asked.Name
	r, err := h.cfg.Directory.ByID(ctx, asked.ID)
	switch {
	case errors.Is(err, ErrUnknownClient), err == nil && r.Name.String() != asked.Name:
		h.refusing(asked.Name, "", fmt.Errorf("%w: id %s", ErrUnknownClient, ClientID(asked.ID)))
		return h.frames.say(v4.CodeUnknown, 0, v4.Client{ID: asked.ID}.Append(nil))
	case errors.Is(err, ErrRevoked):
		return err
	case err != nil:
		return brokenError{err}
	}
	h.fresh = false
	return h.wrap(v4.CodeReconnKey, r, "the key on record is too short for version 4: join anew with a token for that name")
}

// wrap gives a client the secret that only the holder of its key can read, from
// which both sides make the session's keys.
func (h *handshakeV4) wrap(code v4.Code, r Registration, bad string) error {
	public, err := v4.ParseKey(r.PublicKey)
	if err != nil {
		return notGood(bad, err)
	}
	secret := v4.NewSecret()
	wrapped, err := v4.WrapSecret(public, secret)
	if err != nil { // it is RSA of that size, and no key: of an even modulus, say
		return notGood(bad, err)
	}
	toServer, toClient, err := v4.Keys(secret, h.exporter, r.ID)
	if err != nil {
		return brokenError{err}
	}
	if err := h.frames.say(code, 0, v4.Wrapped{ID: r.ID, Secret: wrapped}.Append(nil)); err != nil {
		return err
	}
	h.to, h.proving = r, true
	return h.frames.key(toClient, toServer)
}

// prove takes the client's first sealed message, which only it can have sealed,
// and in this connection alone, and welcomes it. Until here nobody had said that
// the key of a new client is its own.
func (h *handshakeV4) prove(ctx context.Context, m v4.Header) error {
	proof, err := read(h.sessionV4, m, v4.ParseProve)
	if err != nil {
		return err
	}
	if proof.Packet < v4.MinPacket {
		return fmt.Errorf("%w: packets of at most %d bytes, %d are the least", ErrProtocol, proof.Packet, v4.MinPacket)
	}
	if h.fresh {
		if err := h.record(ctx); err != nil {
			return err
		}
	}
	if err := h.cfg.Directory.Seen(ctx, h.to.ID); err != nil {
		return brokenError{err}
	}
	h.client = h.to
	packet := min(proof.Packet, v4.MaxPacket)
	h.frames.packet = int(packet)
	return h.frames.say(v4.CodeWelcome, 0, v4.Welcome{Packet: packet, Window: windowV4, Unanswered: unansweredV4}.Append(nil))
}

// record records a new client.
func (h *handshakeV4) record(ctx context.Context) error {
	switch err := h.cfg.Directory.Register(ctx, h.to, h.token); {
	case errors.Is(err, ErrNameTaken):
		return notGood("the name was taken meanwhile", err)
	case errors.Is(err, ErrUnauthorized):
		return notGood("the join token is not good any more", err)
	case err != nil:
		return brokenError{err}
	}
	return nil
}
