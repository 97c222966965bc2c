package proto

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"

	"ferry/proto/v3"
)

// mostTurns bounds how often a client tries another identity in one handshake.
const mostTurns = 4

// enter makes the server know the client, by its id or by registering, and
// leaves id and key in l. The identity is saved between the server's 1600 and
// our 826. So a crash, or a connection that breaks:
//
//   - before the save, loses an id that a Ferry server has not recorded: 825
//     alone records nothing there. An old server has the name by then and
//     gives it to nobody again; there is no way to be earlier than its answer.
//   - between the save and 826 leaves an id that a Ferry server answers 1606,
//     and we register anew.
//   - after 826 leaves an id and key that the server has, or 1606 again.
func (c *clientV3) enter(ctx context.Context, l *lineV3) error {
	var unknown ClientID // the id that the server does not know
	for range mostTurns {
		me, err := c.self(ctx, unknown)
		if err != nil {
			return err
		}
		if !me.known || me.id.ID == unknown {
			me, err = c.register(ctx, l, unknown)
			if err != nil || l.entered {
				return err
			}
		}
		switch err := l.reconnect(me); {
		case err == nil:
			return nil
		case !errors.Is(err, ErrUnknownClient):
			return err
		}
		unknown = me.id.ID
	}
	return ErrUnknownClient
}

// self returns who the client is by now: known is false if it has never
// registered under its name.
func (c *clientV3) self(ctx context.Context, unknown ClientID) (identityV3, error) {
	if err := c.lockSelf(ctx); err != nil {
		return identityV3{}, err
	}
	defer c.unlockSelf()
	if !c.me.known {
		if err := c.recall(ctx, unknown); err != nil {
			return identityV3{}, err
		}
	}
	return c.me.identityV3, nil
}

// recall takes from the keyring who the client is, unless that is unknown to
// the server, too.
func (c *clientV3) recall(ctx context.Context, unknown ClientID) error {
	id, ok, err := c.cfg.Keyring.Load(ctx)
	if err != nil {
		return fmt.Errorf("load the client's identity: %w", err)
	}
	if !ok || id.Name != c.cfg.Name || id.ID == unknown {
		return nil
	}
	key, err := v3.ParsePrivateKey(id.PrivateKey)
	if err != nil {
		return fmt.Errorf("the client's identity: %w", err)
	}
	c.me.identityV3 = identityV3{known: true, id: id, key: key}
	return nil
}

func (c *clientV3) lockSelf(ctx context.Context) error {
	select {
	case c.me.lock <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (c *clientV3) unlockSelf() { <-c.me.lock }

// register makes a new identity, unless another connection, or another Client
// with the same keyring, has done so since the server did not know that id; then
// it returns that one, and l has not been entered.
func (c *clientV3) register(ctx context.Context, l *lineV3, unknown ClientID) (identityV3, error) {
	if err := c.lockSelf(ctx); err != nil {
		return identityV3{}, err
	}
	defer c.unlockSelf()
	if c.me.known && c.me.id.ID == unknown {
		if err := c.recall(ctx, unknown); err != nil {
			return identityV3{}, err
		}
	}
	if c.me.known && c.me.id.ID != unknown {
		return c.me.identityV3, nil
	}
	key, err := v3.GenerateKey()
	if err != nil {
		return identityV3{}, err
	}
	id, err := l.register(c.cfg.Name)
	switch {
	case errors.Is(err, ErrNameTaken) && c.me.half:
		// By us: an old server takes the name with 825, and the connection broke
		// behind it.
	case errors.Is(err, ErrNameTaken):
		return identityV3{}, fmt.Errorf("%w: %q is registered at the server, and not with the identity kept here", err, c.cfg.Name.String())
	case err != nil:
		return identityV3{}, err
	default:
		if err := c.become(ctx, id, key); err != nil {
			return identityV3{}, err
		}
	}
	if err := l.giveKey(c.me.identityV3); err != nil {
		return identityV3{}, err
	}
	c.me.half = false
	return c.me.identityV3, nil
}

// become keeps the identity that the server has just given out, durably.
func (c *clientV3) become(ctx context.Context, id ClientID, key *rsa.PrivateKey) error {
	der, err := v3.MarshalPrivateKey(key)
	if err != nil {
		return err
	}
	me := Identity{Name: c.cfg.Name, ID: id, PrivateKey: der}
	if err := c.cfg.Keyring.Save(ctx, me); err != nil {
		return fmt.Errorf("save the client's identity: %w", err)
	}
	c.me.identityV3 = identityV3{known: true, id: me, key: key, half: true}
	return nil
}

// An identityV3 is an Identity with its key parsed.
type identityV3 struct {
	known bool
	id    Identity
	key   *rsa.PrivateKey
	// half: the server has given out the id, but not yet answered the key.
	half bool
}

// register says 825.
func (l *lineV3) register(name ClientName) (ClientID, error) {
	a, err := l.ask(v3.Register{Name: name.String()}.Append(request(v3.ID{}, v3.CodeRegister, v3.NameSize)))
	if err != nil {
		return ClientID{}, fmt.Errorf("register: %w", err)
	}
	switch a.code {
	case v3.CodeRegistered:
		m, err := v3.ParseRegistered(a.payload())
		if err != nil {
			return ClientID{}, fmt.Errorf("register: %w: %w", ErrProtocol, err)
		}
		return ClientID(m.Client), nil
	case v3.CodeNameTaken:
		return ClientID{}, ErrNameTaken
	}
	return ClientID{}, fmt.Errorf("register: %w", a.unwanted())
}

// giveKey says 826.
func (l *lineV3) giveKey(me identityV3) error {
	field, err := v3.MarshalPublicKeyInfo(&me.key.PublicKey)
	if err != nil {
		return err
	}
	m := v3.PublicKey{Name: me.id.Name.String(), Key: field}
	a, err := l.ask(m.Append(request(v3.ID(me.id.ID), v3.CodePublicKey, v3.NameSize+v3.PublicKeySize)))
	if err != nil {
		return fmt.Errorf("send the public key: %w", err)
	}
	if a.code != v3.CodeKey {
		return fmt.Errorf("send the public key: %w", a.unwanted())
	}
	return l.unwrap(me, a)
}

// reconnect says 827.
func (l *lineV3) reconnect(me identityV3) error {
	m := v3.Reconnect{Name: me.id.Name.String()}
	a, err := l.ask(m.Append(request(v3.ID(me.id.ID), v3.CodeReconnect, v3.NameSize)))
	if err != nil {
		return fmt.Errorf("reconnect: %w", err)
	}
	switch a.code {
	case v3.CodeReconnected:
		return l.unwrap(me, a)
	case v3.CodeUnknown:
		return ErrUnknownClient
	case v3.CodeGeneralError:
		if me.half { // an old server has the id, and no key to answer with
			return ErrUnknownClient
		}
	}
	return fmt.Errorf("reconnect: %w", a.unwanted())
}

// unwrap takes the key of the connection.
func (l *lineV3) unwrap(me identityV3, a answerV3) error {
	m, err := v3.ParseWrappedKey(a.payload())
	if err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	if ClientID(m.Client) != me.id.ID {
		return fmt.Errorf("%w: a key for client %s, not for %s", ErrProtocol, ClientID(m.Client), me.id.ID)
	}
	if l.key, err = v3.UnwrapKey(me.key, m.Key); err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	l.id, l.entered = m.Client, true
	return nil
}

// request begins a message that has a payload of that size.
func request(id v3.ID, code v3.Code, size int) []byte {
	b := make([]byte, 0, v3.RequestHeaderSize+size)
	return v3.RequestHeader{Client: id, Code: code, PayloadSize: uint32(size)}.Append(b) //nolint:gosec // a constant below 1 KiB
}

// unwanted is the error of an answer that was not hoped for.
func (a *answerV3) unwanted() error {
	if a.code == v3.CodeGeneralError {
		return ErrRefused
	}
	return fmt.Errorf("%w: answer %v", ErrProtocol, a.code)
}

// CheckKeyV3 wants what a client of version 3 can be known by: its public key as
// it sends it with 826.
func CheckKeyV3(der []byte) error {
	if len(der) != v3.PublicKeySize {
		return fmt.Errorf("public key: %d bytes, want %d", len(der), v3.PublicKeySize)
	}
	_, err := v3.ParsePublicKeyInfo([v3.PublicKeySize]byte(der))
	return err
}
