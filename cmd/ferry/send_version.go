package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	"ferry/internal/identity"
	"ferry/internal/oldclient"
	"ferry/proto"
)

// A sendVersion is what ferry send does in its own way for a wire version.
type sendVersion struct {
	scheme string
	title  string
	// atOnce bounds how many files are on their way at once.
	atOnce int
	// bare says that there are no tokens, no receipts, and no folders and no
	// normal form in names.
	bare bool
	// enter opens the client's identity.
	enter func(ctx context.Context, plan sendPlan, show *sendDisplay) (*sendIdentity, error)
}

// versionOf finds the version that the destination's URL names.
func versionOf(to proto.Destination) (sendVersion, error) {
	u, err := url.Parse(to.String())
	if err != nil {
		return sendVersion{}, fmt.Errorf("internal error: %w", err)
	}
	for _, v := range []sendVersion{
		{scheme: "v4", title: "version 4", atOnce: to.Parallel(), enter: enterIdentity},
		{scheme: "v3", title: "version 3", atOnce: 4, bare: true, enter: enterFolder},
	} {
		if v.scheme == u.Scheme {
			return v, nil
		}
	}
	return sendVersion{}, fmt.Errorf("internal error: ferry send does not know %s", u.Scheme)
}

// sendIdentity is a client's identity, held against other processes where two
// at once would harm.
type sendIdentity struct {
	keys  proto.Keyring
	name  proto.ClientName
	leave func() error
}

var _ proto.Keyring = (*sendIdentity)(nil)

// Load and Save mark their errors: sending again does not help against them.
func (i *sendIdentity) Load(ctx context.Context) (proto.Identity, bool, error) {
	id, ok, err := i.keys.Load(ctx)
	return id, ok, identityError(err)
}

// Save is the keyring's.
func (i *sendIdentity) Save(ctx context.Context, id proto.Identity) error {
	return identityError(i.keys.Save(ctx, id))
}

// identityFolder is where a client's identity is kept by default: apart for
// each server, which gives out the ids.
func identityFolder(environ []string, scheme string, to proto.Destination, name proto.ClientName) (string, error) {
	state, err := stateFolder(environ)
	if err != nil {
		return "", fmt.Errorf("--identity is missing: %w the client's id and key could be kept", err)
	}
	return filepath.Join(state, "identities", scheme, to.Address(), name.String()), nil
}

// enterIdentity opens an identity of version 4. Two processes must not register
// at once: the second waits, and then finds the identity.
func enterIdentity(ctx context.Context, plan sendPlan, show *sendDisplay) (_ *sendIdentity, err error) {
	if err := os.MkdirAll(plan.folder, 0o700); err != nil {
		return nil, identityError(err)
	}
	unlock, err := lockFolder(ctx, plan.folder, show.waiting)
	if err != nil {
		return nil, identityError(err)
	}
	file, err := identity.Open(plan.folder)
	if err != nil {
		return nil, errors.Join(identityError(fmt.Errorf("in %s: %w", plan.folder, err)), unlock())
	}
	me := &sendIdentity{keys: file, name: plan.name, leave: func() error { return errors.Join(file.Close(), unlock()) }}
	defer func() {
		if err != nil {
			err = errors.Join(err, me.leave())
		}
	}()
	known, registered, err := me.Load(ctx)
	switch {
	case err != nil:
		return nil, err
	case !registered:
		return me, identityError(file.CheckWritable())
	case plan.named && plan.name != known.Name:
		return nil, usagef("--name %s: the identity in %s is %s's", plan.name, plan.folder, known.Name)
	}
	me.name, me.leave = known.Name, file.Close
	return me, unlock()
}

// enterFolder opens an identity of version 3, as the old clients keep it. Two
// processes must not register at once, and to a server that copes with one
// connection of a client, they must not send at once either: the second waits.
func enterFolder(ctx context.Context, plan sendPlan, show *sendDisplay) (_ *sendIdentity, err error) {
	if plan.made {
		if err := os.MkdirAll(plan.folder, 0o700); err != nil {
			return nil, identityError(err)
		}
	}
	unlock, err := lockFolder(ctx, plan.folder, show.waiting)
	if err != nil {
		return nil, identityError(err)
	}
	folder := oldclient.NewFolder(plan.folder, show.warn)
	me := &sendIdentity{keys: folder, name: plan.name, leave: unlock}
	defer func() {
		if err != nil {
			err = errors.Join(err, unlock())
		}
	}()
	known, registered, err := me.Load(ctx)
	switch {
	case err != nil:
		return nil, err
	case !registered && me.name == (proto.ClientName{}):
		return nil, usagef("--name is missing: there is no identity in %s yet, so under which name to register?", plan.folder)
	case !registered: // a name that is registered and whose key cannot be kept is lost
		return me, identityError(folder.CheckWritable())
	}
	if err := me.adopt(known.Name, plan, show); err != nil {
		return nil, err
	}
	if plan.to.Parallel() > 1 {
		me.leave = func() error { return nil }
		return me, unlock()
	}
	return me, nil
}

// adopt goes on as who is registered. In an old folder that is me.info's name,
// as for the old clients.
func (i *sendIdentity) adopt(known proto.ClientName, plan sendPlan, show *sendDisplay) error {
	if i.name != (proto.ClientName{}) && i.name != known {
		if plan.made {
			return usagef("--name %s: the identity in %s is %s's", i.name, plan.folder, known)
		}
		show.warn(fmt.Sprintf("me.info is %s's, and transfer.info says %s: going on as %[1]s", known, i.name))
	}
	i.name = known
	return nil
}
