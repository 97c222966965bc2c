package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"

	"ferry/proto"
	"ferry/proto/v3"
)

// attackerVariable makes this program an attacker's process instead of tests.
const attackerVariable = "FERRY_TEST_ATTACKER"

// A muster is what the attacker's process is told: which attack, and what an
// attacker knows, and the keys of the clients in whose name it records what to
// say again.
type muster struct {
	Attack       int // its index
	Address      string
	Data         string
	Mallory      identity
	Victim, Bulk identity
	Count        int64 // of names that were used
}

type identity struct {
	Name string
	ID   v3.ID
	Key  []byte
}

func (k *memoryKeyring) export() identity {
	k.mu.Lock()
	defer k.mu.Unlock()
	return identity{k.id.Name.String(), v3.ID(k.id.ID), k.id.PrivateKey}
}

func (i identity) keyring() (*memoryKeyring, error) {
	name, err := proto.ParseClientName(i.Name)
	return &memoryKeyring{id: proto.Identity{Name: name, ID: proto.ClientID(i.ID), PrivateKey: i.Key}}, err
}

// Orders go to the attacker's process, and for each a report comes back: as the
// attacking begins, and behind the last attack.
const (
	begin = "begin"
	end   = "end"
)

type report struct {
	Attacks int
	Err     string
	Stored  map[string]string // see siege.extra
	Secrets map[string][]byte
}

// attackers are a process that attacks on order.
type attackers struct {
	s       *siege
	cmd     *exec.Cmd
	orders  io.WriteCloser
	send    *json.Encoder
	reports *json.Decoder
}

// attackerNice leaves the processors to the server and to honest clients: what
// they have to do comes first, as if the attacker had a machine of its own.
const attackerNice = "19"

// muster starts the attacker's process.
func (s *siege) muster(attack int) *attackers {
	s.t.Helper()
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	a := &attackers{s: s, cmd: exec.CommandContext(s.ctx, "nice", "-n", attackerNice, self)}
	a.cmd.Env = append(withoutFerryVariables(os.Environ()), attackerVariable+"=1")
	a.cmd.Stderr = os.Stderr
	if a.orders, err = a.cmd.StdinPipe(); err != nil {
		s.t.Fatal(err)
	}
	out, err := a.cmd.StdoutPipe()
	if err == nil {
		err = a.cmd.Start()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	a.send, a.reports = json.NewEncoder(a.orders), json.NewDecoder(out)
	key, err := v3.MarshalPrivateKey(s.mallory.key)
	if err == nil {
		err = a.send.Encode(muster{
			Attack: attack, Address: s.server.native, Data: s.data,
			Mallory: identity{"mallory", s.mallory.id, key}, Victim: s.victim.export(), Bulk: s.bulk.export(),
			Count: s.count.Load(),
		})
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}

// attack returns once the attacking has begun.
func (a *attackers) attack() {
	a.s.t.Helper()
	var r report
	if err := errors.Join(a.send.Encode(begin), a.reports.Decode(&r)); err != nil {
		a.s.t.Fatalf("the attacker's process: %v", err)
	}
}

// stop waits for the last attack, notes what the attacks have stored and found
// out, and returns how many there were.
func (a *attackers) stop() int {
	s := a.s
	s.t.Helper()
	var r report
	if err := errors.Join(a.send.Encode(end), a.reports.Decode(&r)); err != nil {
		s.t.Fatalf("the attacker's process: %v", err)
	}
	for path, sum := range r.Stored {
		s.storesAt(path, sum)
	}
	for what, secret := range r.Secrets {
		s.mallory.learn(what, secret)
	}
	if r.Err != "" {
		s.t.Fatalf("while others deliver: %s", r.Err)
	}
	return r.Attacks
}

func (a *attackers) dismiss() {
	a.s.t.Helper()
	if err := errors.Join(a.orders.Close(), a.cmd.Wait()); err != nil {
		a.s.t.Fatalf("the attacker's process: %v", err)
	}
}

// beAttacker is the attacker's process.
func beAttacker() error {
	ctx := context.Background()
	orders, reports := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	var m muster
	if err := orders.Decode(&m); err != nil {
		return err
	}
	s, err := m.siege(ctx)
	if err != nil {
		return err
	}
	for {
		var order string
		if err := orders.Decode(&order); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := reports.Encode(report{}); err != nil {
			return err
		}
		var stop context.CancelCauseFunc
		s.while, stop = context.WithCancelCause(s.ctx)
		go func() { stop(orders.Decode(&order)) }()
		if err := reports.Encode(s.attackOn(abuses[m.Attack].attack)); err != nil {
			return err
		}
	}
}

// siege is the attacker's view.
func (m muster) siege(ctx context.Context) (*siege, error) {
	key, err := v3.ParsePrivateKey(m.Mallory.Key)
	if err != nil {
		return nil, err
	}
	s := &siege{
		ctx: ctx, data: m.Data, server: &process{native: m.Address},
		mallory:  &attacker{address: m.Address, key: key, id: m.Mallory.ID, secrets: map[string][]byte{}},
		victimID: m.Victim.ID, extra: map[string]string{},
	}
	s.count.Store(m.Count)
	if s.victim, err = m.Victim.keyring(); err != nil {
		return nil, err
	}
	s.bulk, err = m.Bulk.keyring()
	return s, err
}

// attackOn attacks again and again, at least once, until the order comes to end
// it.
func (s *siege) attackOn(attack func(*siege) error) report {
	var r report
	for r.Attacks == 0 || r.Err == "" && s.while.Err() == nil {
		if err := attack(s); err != nil {
			r.Err = err.Error()
		}
		r.Attacks++
	}
	<-s.while.Done()
	if err := context.Cause(s.while); err != nil && !errors.Is(err, context.Canceled) {
		r.Err = err.Error()
	}
	r.Stored, r.Secrets = s.extra, s.mallory.secrets
	s.extra, s.mallory.secrets = map[string]string{}, map[string][]byte{}
	return r
}
