package proto

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"fmt"

	"ferry/proto/v4"
)

// rotate puts another key in the place of the client's. Whatever happens between
// the save of it and the end of it, the keyring has the one that the server
// has, and [clientV4.reconnect] finds out which that is.
func (c *clientV4) rotate(ctx context.Context) error {
	_, err := c.turn.do(ctx, func() error {
		fresh, err := c.newKey()
		if err != nil {
			return fmt.Errorf("make the client's key: %w", err)
		}
		l, err := c.open(ctx)
		if err != nil {
			return err
		}
		stop := context.AfterFunc(ctx, l.hangUp)
		err = c.rotateOn(ctx, l, fresh)
		if stop() && err == nil && c.keep(l) {
			return nil
		}
		l.close()
		return err
	})
	return err
}

func (c *clientV4) rotateOn(ctx context.Context, l *lineV4, fresh *rsa.PrivateKey) error {
	l.reusable = false
	me, err := c.announce(ctx, fresh)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(&me.next.PublicKey)
	if err != nil {
		return err
	}
	exporter, err := l.frames.exporter()
	if err != nil {
		return err
	}
	signature, err := v4.SignRotate(me.next, v4.RotateContext(exporter, me.id.ID, public))
	if err != nil {
		return err
	}
	a, err := l.inquire(v4.CodeRotate, 0, v4.Rotate{Key: public, Signature: signature}.Append(nil))
	l.frames.socket.settle()
	switch {
	case err != nil:
		return err
	case a.code == v4.CodeRefused:
		return refusalV4(a.refused)
	case a.code != v4.CodeThanks || a.number != 0 || a.offset != 0:
		return fmt.Errorf("%w: answer %v", ErrProtocol, a.code)
	}
	l.reusable = true
	c.me.mu.Lock()
	defer c.me.mu.Unlock()
	return c.promote(ctx, me)
}

// announce saves a key beside the client's own before the server is asked to
// take it. One that the server may have been asked to take before comes first.
func (c *clientV4) announce(ctx context.Context, fresh *rsa.PrivateKey) (identityV4, error) {
	c.me.mu.Lock()
	defer c.me.mu.Unlock()
	me := c.me.identityV4
	switch {
	case !me.known:
		return me, ErrUnknownClient
	case me.next != nil:
		return me, nil
	}
	der, err := x509.MarshalPKCS8PrivateKey(fresh)
	if err != nil {
		return me, err
	}
	me.id.NextKey, me.next = der, fresh
	return me, c.save(ctx, me)
}
