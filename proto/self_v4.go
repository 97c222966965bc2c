package proto

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"sync"

	"ferry/proto/v4"
)

// An identityV4 is an Identity with its keys parsed.
type identityV4 struct {
	known bool
	id    Identity
	key   *rsa.PrivateKey
	next  *rsa.PrivateKey // nil if there is none
	// before is what the keyring had before this identity, until the server has
	// welcomed it.
	before *Identity
}

// selfV4 is what a client knows of itself.
type selfV4 struct {
	joining flight // registering

	mu sync.Mutex // guards what follows, and saving to the keyring
	identityV4
	refuted Identity        // that the server does not know
	asked   Identity        // that is being registered, and in the keyring already
	fresh   *rsa.PrivateKey // to be registered
}

// freshKey is made before anybody is dialled: it takes longer than a server may
// want to wait.
func (c *clientV4) freshKey() (*rsa.PrivateKey, error) {
	c.me.mu.Lock()
	defer c.me.mu.Unlock()
	if c.me.fresh != nil {
		return c.me.fresh, nil
	}
	key, err := c.newKey()
	if err != nil {
		return nil, fmt.Errorf("make the client's key: %w", err)
	}
	c.me.fresh = key
	return key, nil
}

// recall returns who the client is, by now or by what the keyring has: known is
// false if it has to register.
func (c *clientV4) recall(ctx context.Context) (identityV4, error) {
	c.me.mu.Lock()
	defer c.me.mu.Unlock()
	if c.me.known {
		return c.me.identityV4, nil
	}
	return c.me.identityV4, c.load(ctx)
}

// known is who the client is by now; zero if that was not asked yet.
func (c *clientV4) known() Identity {
	c.me.mu.Lock()
	defer c.me.mu.Unlock()
	return c.me.id
}

// rekeyed reports whether the keyring has other keys than the client had before.
func (c *clientV4) rekeyed(ctx context.Context, before Identity) bool {
	c.me.mu.Lock()
	defer c.me.mu.Unlock()
	id, ok, err := c.cfg.Keyring.Load(ctx)
	return err == nil && ok && !same(id, c.me.refuted) && (!same(id, before) || !bytes.Equal(id.NextKey, before.NextKey))
}

// load takes from the keyring who the client is. An identity that the server
// does not know, or not yet, of another name, or with a key that is too short
// (those of version 3 are) is none.
func (c *clientV4) load(ctx context.Context) error {
	id, ok, err := c.cfg.Keyring.Load(ctx)
	if err != nil {
		return fmt.Errorf("load the client's identity: %w", err)
	}
	if !ok || id.Name != c.cfg.Name || same(id, c.me.refuted) || same(id, c.me.asked) {
		return nil
	}
	me, err := parseIdentity(id)
	if err != nil {
		return fmt.Errorf("the client's identity: %w", err)
	}
	if me.key.N.BitLen() < v4.KeyBits {
		return nil
	}
	c.me.identityV4 = me
	return nil
}

// same reports whether two identities are the same at the server.
func same(a, b Identity) bool {
	return a.ID == b.ID && bytes.Equal(a.PrivateKey, b.PrivateKey)
}

func parseIdentity(id Identity) (identityV4, error) {
	me := identityV4{known: true, id: id}
	var err error
	if me.key, err = parsePrivate(id.PrivateKey); err != nil {
		return identityV4{}, err
	}
	if len(id.NextKey) > 0 {
		me.next, err = parsePrivate(id.NextKey)
	}
	return me, err
}

func parsePrivate(der []byte) (*rsa.PrivateKey, error) {
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("its private key: %w", err)
	}
	key, ok := k.(*rsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("its private key is a %T, want RSA", k)
	}
	return key, nil
}

// forget takes note that the server does not know an identity. If it was never
// welcomed, the one that it replaced is put back. Its key is as good as another
// for the next.
func (c *clientV4) forget(ctx context.Context, me identityV4) error {
	c.me.mu.Lock()
	defer c.me.mu.Unlock()
	if !c.me.known || !same(c.me.id, me.id) {
		return nil
	}
	c.me.identityV4, c.me.refuted = identityV4{}, me.id
	if c.me.fresh == nil {
		c.me.fresh = me.key
	}
	return c.putBack(ctx, me)
}

// putBack saves what me has replaced, if anything. The caller holds me.mu.
func (c *clientV4) putBack(ctx context.Context, me identityV4) error {
	if me.before == nil {
		return nil
	}
	if err := c.cfg.Keyring.Save(context.WithoutCancel(ctx), *me.before); err != nil {
		return fmt.Errorf("put the client's identity back: %w", err)
	}
	return nil
}

// adopt saves an identity that has not been welcomed yet, and remembers in it
// what it replaces.
func (c *clientV4) adopt(ctx context.Context, me *identityV4) error {
	c.me.mu.Lock()
	defer c.me.mu.Unlock()
	before, ok, err := c.cfg.Keyring.Load(ctx)
	if err != nil {
		return fmt.Errorf("load the client's identity: %w", err)
	}
	if ok {
		me.before = &before
	}
	if err := c.cfg.Keyring.Save(ctx, me.id); err != nil {
		return fmt.Errorf("save the client's identity: %w", err)
	}
	me.known, c.me.asked = true, me.id
	return nil
}

// welcomed takes note that the server knows me, with the key that was to be the
// next one if next is true: that one takes the other's place.
func (c *clientV4) welcomed(ctx context.Context, me identityV4, next bool) error {
	c.me.mu.Lock()
	defer c.me.mu.Unlock()
	if c.me.known && same(c.me.id, me.id) {
		c.me.before = nil
	}
	if !next {
		return nil
	}
	return c.promote(ctx, me)
}

// promote puts me's next key in the place of its key. The caller holds me.mu.
func (c *clientV4) promote(ctx context.Context, me identityV4) error {
	me.id.PrivateKey, me.id.NextKey = me.id.NextKey, nil
	me.key, me.next, me.before = me.next, nil, nil
	if c.me.known && same(c.me.id, me.id) {
		return nil // another connection has done so
	}
	return c.save(ctx, me)
}

// save keeps me in place of what was there. The caller holds me.mu.
func (c *clientV4) save(ctx context.Context, me identityV4) error {
	if err := c.cfg.Keyring.Save(ctx, me.id); err != nil {
		return fmt.Errorf("save the client's identity: %w", err)
	}
	c.me.identityV4 = me
	return nil
}
