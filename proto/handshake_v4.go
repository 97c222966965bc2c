package proto

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"

	"ferry/proto/v4"
)

// connect returns a connection on which the server has welcomed the client, by
// its identity or by registering it. Only one connection registers at a time;
// the others wait for it and share its failure.
//
// The identity is saved between the server's 1600 and the proof. So a crash, or
// a connection that breaks:
//
//   - before the save, loses an id that the server has not recorded;
//   - between the save and the proof leaves an id that the server answers 1606,
//     and we register anew;
//   - after the proof leaves an id and key that the server has, or 1606 again.
func (c *clientV4) connect(ctx context.Context) (_ *lineV4, err error) {
	var l *lineV4 // on which the server does not know us
	defer func() {
		if err != nil && l != nil {
			l.close()
		}
	}()
	for range mostTurns {
		me, err := c.recall(ctx)
		if err != nil {
			return nil, err
		}
		if me.known {
			if l == nil {
				if l, err = c.dial(ctx); err != nil {
					return nil, err
				}
			}
			err := c.reconnect(ctx, l, me)
			if err == nil {
				return c.enter(l), nil
			}
			if !errors.Is(err, ErrUnknownClient) {
				return nil, err
			}
			if err := c.forget(ctx, me); err != nil {
				return nil, err
			}
			continue
		}
		led, err := c.me.joining.do(ctx, func() error { return c.join(ctx, &l) })
		if err != nil {
			return nil, err
		}
		if led && l != nil && l.entered {
			return c.enter(l), nil
		}
		if l != nil { // a conversation in which another identity was asked about
			l.close()
			l = nil
		}
	}
	return nil, ErrUnknownClient
}

// enter makes a line of a connection whose handshake is done.
func (c *clientV4) enter(l *lineV4) *lineV4 {
	l.reusable = true
	l.listen()
	return l
}

// join registers on *l, or on a connection that it makes, unless another Client
// with the same keyring has done so.
func (c *clientV4) join(ctx context.Context, l **lineV4) error {
	me, err := c.recall(ctx)
	if err != nil || me.known {
		return err
	}
	key, err := c.freshKey()
	if err != nil {
		return err
	}
	if *l == nil {
		if *l, err = c.dial(ctx); err != nil {
			return err
		}
	}
	return c.register(ctx, *l, key)
}

// register is the handshake of a new client.
func (c *clientV4) register(ctx context.Context, l *lineV4, key *rsa.PrivateKey) error {
	defer context.AfterFunc(ctx, l.hangUp)()
	me, err := c.apply(ctx, l, key)
	if err == nil {
		err = l.prove()
	}
	c.me.mu.Lock()
	defer c.me.mu.Unlock()
	c.me.asked = Identity{}
	switch {
	case !me.known:
	case err == nil:
		me.before = nil
		c.me.identityV4, c.me.fresh = me, nil
	case errors.Is(err, ErrRefused): // and not recorded
		c.me.refuted = me.id
		return errors.Join(c.needsToken(err), c.putBack(ctx, me))
	default: // and perhaps recorded
		c.me.identityV4 = me
	}
	return err
}

// apply says 825, saves the identity that this gives the client, and says 826.
// The identity is known if it was saved.
func (c *clientV4) apply(ctx context.Context, l *lineV4, key *rsa.PrivateKey) (me identityV4, err error) {
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return me, err
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return me, err
	}
	b, err := l.ask(v4.CodeRegister, v4.Register{Name: c.cfg.Name.String(), Token: c.cfg.Join}.Append(nil), v4.CodeRegistered)
	switch {
	case errors.Is(err, ErrNameTaken):
		return me, fmt.Errorf("register: %w: %q is registered at the server, and not with the identity kept here. "+
			"A join token for that name (ferry server token create --client) puts this client in its place", err, c.cfg.Name.String())
	case err != nil:
		return me, c.needsToken(fmt.Errorf("register: %w", err))
	}
	m, err := v4.ParseClient(b)
	if err != nil {
		return me, fmt.Errorf("register: %w: %w", ErrProtocol, err)
	}
	me = identityV4{key: key, id: Identity{Name: c.cfg.Name, ID: m.ID, PrivateKey: private}}
	if err := c.adopt(ctx, &me); err != nil {
		return me, err
	}
	if b, err = l.ask(v4.CodePublicKey, v4.PublicKey{Key: public}.Append(nil), v4.CodeKey); err != nil {
		return me, fmt.Errorf("send the public key: %w", err)
	}
	_, err = l.unwrap(me, b)
	return me, err
}

// needsToken says what to do about a refusal for want of a token.
func (c *clientV4) needsToken(err error) error {
	if !errors.Is(err, ErrUnauthorized) {
		return err
	}
	if c.cfg.Join == "" {
		return fmt.Errorf("%w. Ask the server's operator for a join token (ferry server token create) and give it with --join", err)
	}
	return fmt.Errorf("%w. The join token may be used up, expired or for another name: "+
		"ask the server's operator for another (ferry server token create) and give it with --join", err)
}

// reconnect is the handshake of a known client.
func (c *clientV4) reconnect(ctx context.Context, l *lineV4, me identityV4) error {
	defer context.AfterFunc(ctx, l.hangUp)()
	b, err := l.ask(v4.CodeReconnect, v4.Reconnect{ID: me.id.ID, Name: me.id.Name.String()}.Append(nil), v4.CodeReconnKey)
	if err != nil {
		return fmt.Errorf("reconnect: %w", err)
	}
	next, err := l.unwrap(me, b)
	if errors.Is(err, errOtherKey) { // another process may have replaced it
		if me, next, err = c.unwrapAsSaved(ctx, l, b, me, err); err != nil {
			return fmt.Errorf("reconnect: %w", err)
		}
	}
	if err != nil {
		return fmt.Errorf("reconnect: %w", err)
	}
	if err := l.prove(); err != nil {
		return fmt.Errorf("reconnect: %w", err)
	}
	return c.welcomed(ctx, me, next)
}

// unwrapAsSaved tries the keys that the keyring has by now. why is returned if
// there are no others.
func (c *clientV4) unwrapAsSaved(ctx context.Context, l *lineV4, wrapped []byte, me identityV4, why error) (identityV4, bool, error) {
	c.me.mu.Lock()
	defer c.me.mu.Unlock()
	id, ok, err := c.cfg.Keyring.Load(ctx)
	if err != nil {
		return me, false, fmt.Errorf("load the client's identity: %w", err)
	}
	if !ok || id.ID != me.id.ID || same(id, me.id) && bytes.Equal(id.NextKey, me.id.NextKey) {
		return me, false, why
	}
	saved, err := parseIdentity(id)
	if err != nil {
		return me, false, fmt.Errorf("the client's identity: %w", err)
	}
	next, err := l.unwrap(saved, wrapped)
	if err == nil {
		c.me.identityV4 = saved
	}
	return saved, next, err
}

// errOtherKey: what the server has wrapped is for another key.
var errOtherKey = fmt.Errorf("%w: the server has another key registered for this client than the one kept here", ErrUnauthorized)

// ask says a message of the handshake, not sealed, and returns the payload of the
// answer that is wanted. It is valid until the next.
func (l *lineV4) ask(code v4.Code, payload []byte, want v4.Code) ([]byte, error) {
	said := l.frames.say(code, 0, payload)
	got, b, err := l.hear()
	if err != nil {
		return nil, errors.Join(said, err)
	}
	switch {
	case got == want:
		return b, nil
	case got == v4.CodeRefused:
		return nil, l.refusal(b)
	case got == v4.CodeNameTaken && code == v4.CodeRegister:
		return nil, ErrNameTaken
	case got == v4.CodeUnknown && code == v4.CodeReconnect:
		return nil, ErrUnknownClient
	}
	return nil, fmt.Errorf("%w: answer %v", ErrProtocol, got)
}

func (l *lineV4) refusal(b []byte) error {
	m, err := v4.ParseRefused(b)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return refusalV4(m)
}

// hear waits for an answer of the handshake.
func (l *lineV4) hear() (v4.Code, []byte, error) {
	l.frames.socket.expect()
	defer l.frames.socket.settle()
	h, err := l.frames.header()
	if err != nil {
		return 0, nil, fmt.Errorf("wait for an answer: %w", err)
	}
	b, err := l.frames.body(nil)
	if err != nil {
		return 0, nil, fmt.Errorf("wait for an answer: %w", err)
	}
	if h.Number != 0 {
		return 0, nil, fmt.Errorf("%w: answer %v has the number %d", ErrProtocol, h.Code, h.Number)
	}
	return h.Code, b, nil
}

// unwrap makes the session's keys from the secret in a 1602 or 1605. next is true
// if it was wrapped for the key that is to be the next one.
func (l *lineV4) unwrap(me identityV4, wrapped []byte) (next bool, err error) {
	m, err := v4.ParseWrapped(wrapped)
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	if m.ID != me.id.ID {
		return false, fmt.Errorf("%w: a secret for client %s, not for %s", ErrProtocol, ClientID(m.ID), me.id.ID)
	}
	secret, err := v4.UnwrapSecret(me.key, m.Secret)
	if err != nil && me.next != nil {
		next = true
		secret, err = v4.UnwrapSecret(me.next, m.Secret)
	}
	if err != nil {
		return false, errOtherKey
	}
	exporter, err := l.frames.exporter()
	if err != nil {
		return false, err
	}
	toServer, toClient, err := v4.Keys(secret, exporter, m.ID)
	if err != nil {
		return false, err
	}
	l.id = ClientID(m.ID)
	return next, l.frames.key(toServer, toClient)
}

// prove says 829 and waits for the welcome.
func (l *lineV4) prove() error {
	said := l.frames.say(v4.CodeProve, 0, v4.Prove{Packet: uint32(l.packet)}.Append(nil)) //nolint:gosec // at most v4.MaxPacket
	code, b, err := l.hear()
	switch {
	case err != nil:
		return errors.Join(said, err)
	case code == v4.CodeRefused:
		err := l.refusal(b)
		if errors.Is(err, ErrUnauthorized) && !l.frames.opened {
			return fmt.Errorf("%w. The two ends have different keys although the client's key is the registered one: "+
				"a proxy that opens TLS is in between, which version 4 does not pass (let it pass TCP through), "+
				"or something is wrong with the server", err)
		}
		return err
	case code != v4.CodeWelcome:
		return fmt.Errorf("%w: answer %v to the proof", ErrProtocol, code)
	}
	if l.welcome, err = v4.ParseWelcome(b); err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	if int(l.welcome.Packet) > l.packet {
		return fmt.Errorf("%w: packets of %d bytes are welcome, %d were asked for", ErrProtocol, l.welcome.Packet, l.packet)
	}
	l.entered = true
	return nil
}
