package e2e_test

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"ferry/proto/v4"
)

var (
	flippedBytes = flag.Int("flipped-bytes", 40, "how many bytes of a sealed message TestAgainstV4 flips a bit in, each in a connection of its own; 0 is every byte")
	offersLeft   = flag.Int("offers-left", 100, "how many offers TestAgainstV4 leaves behind, each in a connection of its own; 10000 in a long run")
)

// foes are the rows of docs/security.md about version 4, in its order.
var foes = []foe{
	{
		what: "reader of the network", attack: readerOfTheNetwork,
		stored: []string{"mallory/secret name", "mallory/secret large"},
	},
	{
		what: "changer of the network", attack: changerOfTheNetwork,
		stored: []string{"mallory/changed*"},
		logged: [][]string{{"address=127.0.0.1:", "bad record MAC"}},
	},
	{
		what: "wrong pin", attack: wrongPin,
		logged: [][]string{{"address=127.0.0.1:", "err="}},
	},
	{
		what: "swapped certificate", attack: swappedCertificate,
		stored: []string{"sender/sent.bin"},
		logged: [][]string{{"address=127.0.0.1:", "err="}},
	},
	{
		what: "intercepting proxy", attack: interceptingProxy,
		stored: []string{"sender/sent.bin", "joins later/file"},
		logged: [][]string{{"address=127.0.0.1:", "does not open"}},
	},
	{
		what: "replayed session", attack: replayedSession,
		stored: []string{"mallory/recorded"},
		logged: [][]string{{"address=127.0.0.1:", "does not open"}},
	},
	{
		what: "key that was replaced", attack: replacedKey,
		stored: []string{"sender/sent.bin"},
		logged: [][]string{{"sender", "address=127.0.0.1:", "err="}},
	},
	{
		what: "id and name without the key", attack: withoutTheKey,
		logged: [][]string{{"victim", "address=127.0.0.1:", "does not open"}},
	},
	{
		what: "tokens", attack: badTokens,
		stored: []string{"first/file", "racer*"},
		logged: [][]string{{"second", "address=127.0.0.1:", "token"}},
	},
	{
		what: "revoked in mid-transfer", attack: revoked,
		stored: []string{"mallory/restored"},
		logged: [][]string{{"client=mallory", "address=127.0.0.1:", "revoked"}},
	},
	{
		what: "packets", attack: badPackets,
		stored: []string{"mallory/repeated", "mallory/left out 1"},
		logged: [][]string{{"client=mallory", "address=127.0.0.1:", "err="}},
	},
	{
		what: "flipped bits", attack: flippedBits, args: []string{"--idle-timeout", "2s"},
		logged: [][]string{{"client=mallory", "address=127.0.0.1:", "does not open"}},
	},
	{
		what: "offers and no files", attack: offersAlone,
	},
	{
		what: "staging to the limit", attack: stagesToLimit, args: []string{"--max-staged", "64MiB", "--max-staged-per-client", "16MiB"},
		logged: [][]string{{"client=mallory", "address=127.0.0.1:", "quota"}},
	},
	{
		what: "names", attack: trickyNames,
		stored: []string{"mallory/good*"},
		logged: [][]string{{"client=mallory", "address=127.0.0.1:", "name not allowed"}},
	},
	{
		what: "does not listen", attack: doesNotListen, args: []string{"--idle-timeout", "3s"},
		stored: []string{"mallory/unheard*"},
	},
	{
		what: "stops in the middle", attack: stopsInTheMiddle, args: []string{"--idle-timeout", "1s"},
		logged: [][]string{{"client=mallory", "address=127.0.0.1:", "file=\"stops 1\"", "err="}},
	},
	{
		what: "other protocols", attack: otherProtocols,
		logged: [][]string{{"no client became known", "address=127.0.0.1:", "err="}},
	},
	{
		what: "silent connections", attack: silentConnections, args: roomy,
		stored: []string{"joins beside/file"},
	},
	{
		what: "slow handshakes", attack: slowHandshakes, args: []string{"--handshake-timeout", "1s"},
		logged: [][]string{{"no client became known", "address=127.0.0.1:", "err="}},
	},
}

// withoutTheKey is somebody who has seen the victim's id and name.
func withoutTheKey(s *siegeV4) error {
	hello := clearMessage(v4.CodeReconnect, v4.Reconnect{ID: s.victim.id, Name: "victim"}.Append(nil))
	var random v4.Secret
	_, _ = rand.Read(random[:]) // never fails
	for _, secret := range []v4.Secret{{}, random} {
		if err := s.guess(hello, secret); err != nil {
			return err
		}
	}
	// Its own key in the victim's place, and the victim's name for itself.
	r, err := s.raw()
	if err != nil {
		return err
	}
	defer r.close()
	if err := r.write(hello); err != nil {
		return err
	}
	if _, err := r.expect("the victim's id", v4.CodeReconnKey); err != nil {
		return err
	}
	if err := errors.Join(r.write(clearMessage(v4.CodePublicKey, v4.PublicKey{Key: bytesOf(1, 400)}.Append(nil))), r.expectEnd("another key")); err != nil {
		return err
	}
	return s.takesNames()
}

// guess goes on with a made-up secret after the server has wrapped one for
// somebody else.
func (s *siegeV4) guess(hello []byte, secret v4.Secret) error {
	r, err := s.raw()
	if err != nil {
		return err
	}
	defer r.close()
	if err := r.write(hello); err != nil {
		return err
	}
	if _, err := r.expect("the victim's id", v4.CodeReconnKey); err != nil {
		return err
	}
	r.id = s.victim.id
	if err := r.agree(secret); err != nil {
		return err
	}
	b := bytesOf(1, 100)
	err = errors.Join(
		r.say(v4.CodeProve, 0, v4.Prove{Packet: v4.MaxPacket}.Append(nil)),
		r.file(1, offerOf("forged", b), b))
	if err != nil {
		return err
	}
	if err := r.expectRefusal("a made-up secret", v4.ReasonUnauthorized); err != nil {
		return err
	}
	return r.expectEnd("a made-up secret")
}

// takesNames has the attacker register under names that are taken or none.
func (s *siegeV4) takesNames() error {
	token := s.token()
	for name, want := range map[string]v4.Code{"victim": v4.CodeNameTaken, "../victim": v4.CodeRefused, "victim/..": v4.CodeRefused, "": v4.CodeRefused, "a\x00b": v4.CodeRefused, "\xff": v4.CodeRefused} {
		r, err := s.raw()
		if err != nil {
			return err
		}
		err = r.write(clearMessage(v4.CodeRegister, v4.Register{Name: name, Token: token}.Append(nil)))
		if err == nil {
			_, err = r.expect(fmt.Sprintf("register %q", name), want)
		}
		r.close()
		if err != nil {
			return err
		}
	}
	return nil
}

// badTokens are used up, used twice at once, expired, for somebody else, and
// made up.
func badTokens(s *siegeV4) error {
	used := s.token()
	if err := s.joins("first", used); err != nil {
		return err
	}
	expired := s.token("--expires", "1ms")
	for what, token := range map[string]string{
		"used": used, "expired": expired, "for another name": s.token("--client", "third"), "made up": "ferry-join-" + strings.Repeat("a", 32), "none": "",
	} {
		r, err := s.raw()
		if err != nil {
			return err
		}
		err = r.write(clearMessage(v4.CodeRegister, v4.Register{Name: "second", Token: token}.Append(nil)))
		if err == nil {
			err = r.expectRefusal("a token that is "+what, v4.ReasonUnauthorized)
		}
		r.close()
		if err != nil {
			return err
		}
	}
	return s.racers()
}

// joins registers a client that stores a file.
func (s *siegeV4) joins(name, token string) error {
	m, err := join(s.server.v4, name, token)
	if err != nil {
		return err
	}
	_, err = m.deliver(s.t.Context(), s.url(), "file", bytesOf(3, 1000))
	return err
}

// racers use a token that is good once at the same moment.
func (s *siegeV4) racers() error {
	token := s.token()
	key, err := keyOf("mallory")
	if err != nil {
		return err
	}
	var all []*rawV4
	for i := range 4 {
		r, err := s.raw()
		if err != nil {
			return err
		}
		defer r.close()
		if err := r.askToRegister(fmt.Sprintf("racer %d", i), token, key); err != nil {
			return err
		}
		all = append(all, r)
	}
	var proofs sync.WaitGroup
	won := make([]error, len(all))
	for i, r := range all {
		proofs.Go(func() { won[i] = r.prove() })
	}
	proofs.Wait()
	welcome := 0
	for _, err := range won {
		if err == nil {
			welcome++
		}
	}
	if welcome != 1 {
		return fmt.Errorf("a token that is good once was good %d times: %w", welcome, errors.Join(won...))
	}
	return nil
}

// revoked has the operator shut the attacker out in the middle of a file.
func revoked(s *siegeV4) error {
	const within = 5 * time.Second // 2 on a machine that has time
	r, err := s.dial(s.mallory)
	if err != nil {
		return err
	}
	defer r.close()
	o := offerOf("endless", nil)
	o.Size, o.Known = 1<<34, false
	if _, err := r.offer(1, o); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(s.t.Context())
	defer stop()
	var sending sync.WaitGroup
	defer sending.Wait()
	sending.Go(func() {
		for at := uint64(0); ctx.Err() == nil; at += v4.MinPacket {
			if r.say(v4.CodePacket, at, make([]byte, v4.MinPacket)) != nil {
				return
			}
			if at%(4*v4.MinPacket) == 0 {
				time.Sleep(time.Millisecond) // a slow network; on a machine that is busy this is longer
			}
		}
	})
	// What is kept of it so far is thanked for now and then.
	if _, err := r.expect("a packet", v4.CodeThanks); err != nil {
		return err
	}
	if got := ferry(s.t, "", "server", "clients", "revoke", "mallory", "--data", s.server.data); got.status != 0 {
		return fmt.Errorf("ferry server clients revoke: %+v", got)
	}
	start := time.Now()
	if err := r.conn.SetDeadline(start.Add(rawLimit)); err != nil { // what came before may have taken long
		return err
	}
	for {
		a, err := r.hear()
		if err != nil {
			return fmt.Errorf("the revoked client: %w, want a refusal", err)
		}
		if a.code == v4.CodeThanks {
			continue
		}
		if a.refusal().Reason != v4.ReasonRevoked {
			return fmt.Errorf("the revoked client is answered %v, %+v", a.code, a.refusal())
		}
		break
	}
	if err := r.expectEnd("the revoked client"); err != nil {
		return err
	}
	if took := time.Since(start); took > within {
		return fmt.Errorf("it took %v to cut the revoked client, want at most %v", took, within)
	}
	stop()
	return s.restored()
}

// restored wants the revoked client to stay out until it is let in.
func (s *siegeV4) restored() error {
	r, err := s.raw()
	if err != nil {
		return err
	}
	defer r.close()
	if err := r.write(clearMessage(v4.CodeReconnect, v4.Reconnect{ID: s.mallory.id, Name: "mallory"}.Append(nil))); err != nil {
		return err
	}
	if err := r.expectRefusal("the revoked client that comes back", v4.ReasonRevoked); err != nil {
		return err
	}
	if got := ferry(s.t, "", "server", "clients", "restore", "mallory", "--data", s.server.data); got.status != 0 {
		return fmt.Errorf("ferry server clients restore: %+v", got)
	}
	return s.asMallory(func(r *rawV4) error { return r.store(1, "restored", bytesOf(1, 100)) })
}

// badPackets are messages that the version does not allow, each in a session of
// its own: the session ends, and nothing of the file is stored.
func badPackets(s *siegeV4) error {
	for what, do := range wrongMessages {
		err := s.asMallory(func(r *rawV4) error {
			if err := do(r); err != nil {
				return err
			}
			return r.expectEnd(what)
		})
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	return nil
}

// offered offers a file of so many bytes.
func offered(r *rawV4, size int64) error {
	o := offerOf("wrong", nil)
	o.Size, o.Known = size, false
	_, err := r.offer(1, o)
	return err
}

func packet(r *rawV4, at uint64, size int) error {
	return r.say(v4.CodePacket, at, make([]byte, size))
}

// wrongMessages end the session, by what they are.
var wrongMessages = map[string]func(r *rawV4) error{
	"a packet larger than agreed": func(r *rawV4) error {
		return errors.Join(offered(r, 10<<20), packet(r, 0, int(r.welcome.Packet)+1))
	},
	"a length of 4 GiB": func(r *rawV4) error {
		return errors.Join(offered(r, 10<<20), r.write(v4.Header{Code: v4.CodePacket, Length: 1<<32 - 1}.Append(nil)))
	},
	"a packet too far ahead": func(r *rawV4) error { return errors.Join(offered(r, 100_000), packet(r, 8192, 8192)) },
	"a packet twice":         func(r *rawV4) error { return errors.Join(offered(r, 100_000), packet(r, 0, 8192), packet(r, 0, 8192)) },
	"a packet behind the end": func(r *rawV4) error {
		return errors.Join(offered(r, 100_000), packet(r, 0, 65_536), packet(r, 65_536, 65_536))
	},
	"an empty packet":     func(r *rawV4) error { return errors.Join(offered(r, 100_000), packet(r, 0, 0)) },
	"a packet of no file": func(r *rawV4) error { return packet(r, 0, 8192) },
	"an end that is too early": func(r *rawV4) error {
		return errors.Join(offered(r, 100_000), packet(r, 0, 8192), r.say(v4.CodeEnd, 1, v4.Sum{}.Append(nil)))
	},
	"an end of no file": func(r *rawV4) error { return r.say(v4.CodeEnd, 1, v4.Sum{}.Append(nil)) },
	"an offer within a file": func(r *rawV4) error {
		return errors.Join(offered(r, 100_000), r.say(v4.CodeOffer, 2, offerOf("other", nil).Append(nil)))
	},
	"a small file within a file": func(r *rawV4) error {
		return errors.Join(offered(r, 100_000), r.file(2, offerOf("other", []byte("b")), []byte("b")))
	},
	"a small file of other size": func(r *rawV4) error { return r.file(1, offerOf("wrong", []byte("ab")), []byte("a")) },
	"a small file without a sum": func(r *rawV4) error {
		o := offerOf("wrong", []byte("a"))
		o.Known = false
		return r.file(1, o, []byte("a"))
	},
	"an offer of negative size": func(r *rawV4) error {
		o := offerOf("wrong", nil)
		o.Size = -1
		return r.say(v4.CodeOffer, 1, o.Append(nil))
	},
	"an unknown code":        func(r *rawV4) error { return r.say(899, 1, nil) },
	"the server's own words": func(r *rawV4) error { return r.say(v4.CodeStored, 1, v4.Stored{Numbers: []uint64{1}}.Append(nil)) },
	"a second proof":         func(r *rawV4) error { return r.say(v4.CodeProve, 0, v4.Prove{Packet: 8192}.Append(nil)) },
	"to register again": func(r *rawV4) error {
		return r.say(v4.CodeRegister, 0, v4.Register{Name: "x", Token: "x"}.Append(nil))
	},
	"a key that signs nothing": func(r *rawV4) error {
		return r.say(v4.CodeRotate, 0, v4.Rotate{Key: bytesOf(1, 400), Signature: bytesOf(2, 384)}.Append(nil))
	},
	"a message that is not sealed": func(r *rawV4) error {
		return r.write(clearMessage(v4.CodeOffer, offerOf("wrong", nil).Append(nil)))
	},
	"garbage": func(r *rawV4) error {
		m := clearMessage(v4.CodeFile, bytesOf(9, 500))
		return r.write(m)
	},
	"a name of 1025 bytes": func(r *rawV4) error {
		return r.say(v4.CodeOffer, 1, offerOf(strings.Repeat("n/", 512)+"n", nil).Append(nil))
	},
	"bytes left over": func(r *rawV4) error {
		return r.say(v4.CodeOffer, 1, append(offerOf("wrong", nil).Append(nil), 0))
	},
	"a message twice": func(r *rawV4) error {
		b := []byte("b")
		m, err := r.sealed(v4.CodeFile, 1, append(offerOf("repeated", b).Append(nil), b...))
		if err != nil {
			return err
		}
		if err := r.write(m); err != nil {
			return err
		}
		if _, err := r.expect("the message, once", v4.CodeStored); err != nil {
			return err
		}
		return r.write(m)
	},
	"a message left out": func(r *rawV4) error {
		for i := range 3 {
			b := []byte("b")
			m, err := r.sealed(v4.CodeFile, uint64(i), append(offerOf(fmt.Sprintf("left out %d", i+1), b).Append(nil), b...))
			if err != nil {
				return err
			}
			if i == 1 {
				continue
			}
			if err := r.write(m); err != nil {
				return err
			}
			if i == 0 {
				if _, err := r.expect("the first message", v4.CodeStored); err != nil {
					return err
				}
			}
		}
		return nil
	},
	"messages in the wrong order": func(r *rawV4) error {
		var all [][]byte
		for i := range 2 {
			b := []byte("b")
			m, err := r.sealed(v4.CodeFile, uint64(i), append(offerOf(fmt.Sprintf("swapped %d", i+1), b).Append(nil), b...))
			if err != nil {
				return err
			}
			all = append(all, m)
		}
		return r.write(append(all[1], all[0]...))
	},
}

// flippedBits changes one bit of a sealed message, whatever it is in: header,
// payload or tag. Inside TLS nobody but the client can; so the attacker is the
// client, and the server must not take it from it either.
func flippedBits(s *siegeV4) error {
	b := bytesOf(1, 60)
	name := "flipped"
	size := v4.HeaderSize + len(offerOf(name, b).Append(nil)) + len(b) + v4.TagSize
	positions := mathrand.Perm(size)
	if n := *flippedBytes; n > 0 {
		positions = positions[:min(n, size)]
		for at := range v4.HeaderSize { // of which each says something else
			positions = append(positions, at)
		}
	}
	for _, at := range positions {
		err := s.asMallory(func(r *rawV4) error {
			m, err := r.sealed(v4.CodeFile, 1, append(offerOf(name, b).Append(nil), b...))
			if err != nil {
				return err
			}
			if len(m) != size {
				return fmt.Errorf("the message has %d bytes, want %d", len(m), size)
			}
			m[at] ^= 1 << mathrand.IntN(8)
			if err := errors.Join(r.write(m), r.conn.CloseWrite()); err != nil {
				return err
			}
			return r.expectEnd("a flipped bit")
		})
		if err != nil {
			return fmt.Errorf("byte %d of %d: %w", at, size, err)
		}
	}
	return nil
}

// offersAlone offers 10,000 files and sends none: in one connection, taking each
// back, and leaving some behind, each in a connection of its own.
func offersAlone(s *siegeV4) error {
	const offers = 10_000
	err := s.asMallory(func(r *rawV4) error {
		if err := r.conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			return err
		}
		for i := range offers {
			o := offerOf(fmt.Sprintf("offered %d", i), nil)
			o.Size, o.Known = 1<<20, false
			if _, err := r.offer(uint64(i), o); err != nil {
				return err
			}
			if err := r.say(v4.CodeGiveUp, uint64(i), nil); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i := range *offersLeft {
		err := s.asMallory(func(r *rawV4) error {
			o := offerOf(fmt.Sprintf("left %d", i), nil)
			o.Size, o.Known = 1<<20, false
			if err := r.say(v4.CodeOffer, 1, o.Append(nil)); err != nil {
				return err
			}
			a, err := r.hear()
			if err != nil || a.code != v4.CodeGo && a.refusal().Reason != v4.ReasonQuota {
				return fmt.Errorf("offer %d: %v, %+v, %w", i, a.code, a.refusal(), err)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// stagesToLimit sends parts of files until the server takes no more of this
// client; others are not affected.
func stagesToLimit(s *siegeV4) error {
	const each = 5 << 20
	full := false
	for i := range 8 {
		err := s.asMallory(func(r *rawV4) error {
			o := offerOf(fmt.Sprintf("staged %d", i), nil)
			o.Size, o.Known = each, false
			if err := r.say(v4.CodeOffer, 1, o.Append(nil)); err != nil {
				return err
			}
			a, err := r.hear()
			if err != nil || a.code != v4.CodeGo {
				full = full || a.refusal().Reason == v4.ReasonQuota
				if !full {
					return fmt.Errorf("offer %d: %v, %+v, %w", i, a.code, a.refusal(), err)
				}
				return nil
			}
			for at := 0; at < each-v4.MinPacket; at += v4.MinPacket {
				if err := packet(r, uint64(at), v4.MinPacket); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		s.serves()
	}
	if !full {
		return errors.New("the attacker was never told that this is its limit")
	}
	staged, err := stagedBytes(s.server.data)
	if err == nil && staged > 16<<20+each {
		err = fmt.Errorf("%d bytes are staged, want at most the limit", staged)
	}
	return err
}

// trickyNames are names that lead out of the folder, or are none. Each is
// refused, both for small files and for large ones, and the session goes on.
func trickyNames(s *siegeV4) error {
	names := []string{
		"", ".", "..", "/", "//", "a//b", "/etc/escaped", "../escaped", "../victim/escaped", "a/../../victim/escaped", "./escaped", "a/./b", "escaped/", "/escaped",
		"..\\escaped", "a\\..\\..\\escaped", "C:\\escaped", "esc\x00aped", "esc\naped", "esc\x7faped", "esc\u0085aped", "\xff\xfeescaped", "e\u0301scaped",
		strings.Repeat("n", 256), strings.Repeat("a", 255) + "/" + strings.Repeat("b", 256),
	}
	return s.asMallory(func(r *rawV4) error {
		b := bytesOf(1, 100)
		for i, name := range names {
			o := offerOf(name, b)
			if err := r.file(uint64(2*i), o, b); err != nil {
				return err
			}
			if err := r.expectRefusal(fmt.Sprintf("a small file named %q", name), v4.ReasonName); err != nil {
				return err
			}
			o.Size, o.Known = 1<<20, false
			if err := r.say(v4.CodeOffer, uint64(2*i+1), o.Append(nil)); err != nil {
				return err
			}
			if err := r.expectRefusal(fmt.Sprintf("an offer of %q", name), v4.ReasonName); err != nil {
				return err
			}
			if err := r.say(v4.CodeGiveUp, uint64(2*i+1), nil); err != nil {
				return err
			}
		}
		return errors.Join(r.store(1000, "good/folder/file", b), filesAndFolders(r, b), linksBeside(s, r, b))
	})
}

// filesAndFolders wants a file where a folder is, and a folder where a file is,
// to be refused like any other name that is taken.
func filesAndFolders(r *rawV4, b []byte) error {
	for i, name := range []string{"good/folder", "good/folder/file/below", "good"} {
		if err := r.file(uint64(2000+i), offerOf(name, b), b); err != nil {
			return err
		}
		if a, err := r.expect(name, v4.CodeRefused); err != nil || a.refusal().Reason == v4.ReasonInternal {
			return fmt.Errorf("%s: %w, %+v; want a refusal that says why", name, err, a.refusal())
		}
	}
	return nil
}

// linksBeside wants links that lie in the attacker's folder, whoever made them,
// to lead nowhere.
func linksBeside(s *siegeV4, r *rawV4, b []byte) error {
	outside := s.t.TempDir()
	folder := filepath.Dir(s.server.stored("mallory", "x"))
	link := filepath.Join(folder, "link")
	if err := os.Symlink(outside, link); err != nil {
		return err
	}
	if err := r.file(3000, offerOf("link/escaped", b), b); err != nil {
		return err
	}
	a, err := r.hear()
	if err != nil || a.code != v4.CodeRefused {
		return fmt.Errorf("a file behind a link: %v, %w; want a refusal", a.code, err)
	}
	left, err := os.ReadDir(outside)
	err = errors.Join(err, os.Remove(link))
	if err == nil && len(left) > 0 {
		err = errors.New("a file was stored behind a link")
	}
	return err
}

// doesNotListen sends files and reads no answer: the server stops reading, and
// holds little.
func doesNotListen(s *siegeV4) error {
	return s.asMallory(func(r *rawV4) error {
		b := bytesOf(1, v4.MaxSmall)
		err := r.conn.SetWriteDeadline(time.Now().Add(2 * time.Second))
		for i := 0; err == nil; i++ {
			// The same file again and again: answered each time.
			err = r.file(uint64(i), offerOf("unheard", b), b)
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, io.ErrClosedPipe) && !strings.Contains(err.Error(), "reset") && !strings.Contains(err.Error(), "broken pipe") {
			return err
		}
		return nil
	})
}

// stopsInTheMiddle begins files, and then says nothing, or a byte now and then:
// both are cut.
func stopsInTheMiddle(s *siegeV4) error {
	const idle = time.Second // --idle-timeout
	start := time.Now()
	var slow sync.WaitGroup
	errs := make([]error, 6)
	for i := range errs {
		slow.Go(func() {
			errs[i] = s.asMallory(func(r *rawV4) error {
				o := offerOf(fmt.Sprintf("stops %d", i), nil)
				o.Size, o.Known = 1<<20, false
				if _, err := r.offer(1, o); err != nil {
					return err
				}
				if i%2 == 0 {
					return r.expectEnd("a file that stops")
				}
				cut := make(chan struct{})
				slow.Go(func() {
					tick := time.NewTicker(idle / 4)
					defer tick.Stop()
					for at := uint64(0); packet(r, at, 1) == nil; at++ {
						select {
						case <-tick.C:
						case <-cut:
							return
						}
					}
				})
				defer close(cut)
				return r.expectEnd("a file of a byte now and then")
			})
		})
	}
	s.serves()
	slow.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if took := time.Since(start); took > 10*idle {
		return fmt.Errorf("the last of them was cut after %v, want about %v", took, idle)
	}
	return nil
}
