package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"ferry/gateway"
	"ferry/proto"
)

// destinationFlags say where ferry gateway delivers to. Each may be given several
// times, and a value may have several with spaces between them: the environment and
// a file of settings have a flag once.
type destinationFlags struct{ to, join, deliveries []string }

func (f *destinationFlags) register(flags *pflag.FlagSet) {
	flags.StringArrayVar(&f.to, "to", nil, "`[NAME=]URL` of a server to deliver to, v4://HOST:PORT?pin=sha256:... (required); without a pin, as \"ferry trust\" has remembered it. "+
		"Several are given one after another, each with a name that uploads choose it by; those that name none go to the first. One without a name is called default. "+
		"v3://HOST:PORT is for wire version 3: ?window=N has N packets in flight and several files at once, for a server that copes, as Ferry's does; "+
		"?dialect=mainstream or per-slice, and &slice=N, for old servers that speak so")
	flags.StringArrayVar(&f.join, "join", nil, "`[NAME=]TOKEN` to register with at the server, of several at that of the name, as its operator's \"ferry server token create\" printed it; needed until the gateway is known there. "+joinUsage)
	flags.StringArrayVar(&f.deliveries, "deliveries", nil, "`NAME=N` deliveries at once to the destination of that name, instead of --workers; can be repeated")
}

// read returns the destinations in the order in which they were given.
func (f *destinationFlags) read(p *program, workers int) ([]gateway.Destination, error) {
	var all []gateway.Destination
	for _, given := range spaced(f.to) {
		name, url, err := cutName(given)
		if err != nil {
			return nil, fmt.Errorf("--to: %w", err)
		}
		d := gateway.Destination{Name: name, Deliveries: workers}
		if d.To, err = proto.ParseDestination(url); err != nil {
			return nil, fmt.Errorf("--to: %w", err)
		}
		all = append(all, d)
	}
	if len(all) == 0 {
		return nil, errors.New("--to is missing: the server to deliver to, such as v4://127.0.0.1:1257")
	}
	if err := errors.Join(f.readJoins(all), f.readDeliveries(all)); err != nil {
		return nil, err
	}
	if err := gateway.CheckDestinations(all); err != nil {
		return nil, fmt.Errorf("--to: %w", err)
	}
	for i := range all {
		var err error
		if all[i].To, err = p.identified(all[i].To); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// readJoins gives each destination its token.
func (f *destinationFlags) readJoins(all []gateway.Destination) error {
	for _, given := range tokens(f.join) {
		name, token, err := cutName(given)
		if err != nil {
			return fmt.Errorf("--join: %w", err)
		}
		d := find(all, name)
		switch {
		case d == nil && name == gateway.DefaultDestination:
			return errors.New("--join: there are several destinations, each with a name: want NAME=TOKEN")
		case d == nil:
			return fmt.Errorf("--join: no --to has the name %s", name)
		case d.Join != "":
			return fmt.Errorf("--join: there are two tokens for %s", d.Name)
		}
		if d.Join, err = readJoin(token); err != nil {
			return err
		}
	}
	return nil
}

func (f *destinationFlags) readDeliveries(all []gateway.Destination) error {
	for _, given := range spaced(f.deliveries) {
		name, number, err := cutName(given)
		if err != nil {
			return fmt.Errorf("--deliveries: %w", err)
		}
		d := find(all, name)
		if d == nil {
			return fmt.Errorf("--deliveries: no --to has the name %s", name)
		}
		if d.Deliveries, err = strconv.Atoi(number); err != nil || d.Deliveries < 1 {
			return fmt.Errorf("--deliveries %s: want NAME=N with a number from 1 on", given)
		}
	}
	return nil
}

// find returns the destination of a name. Where there is only one, no name means it
// as well.
func find(all []gateway.Destination, name string) *gateway.Destination {
	if len(all) == 1 && name == gateway.DefaultDestination {
		return &all[0]
	}
	for i := range all {
		if all[i].Name == name {
			return &all[i]
		}
	}
	return nil
}

// cutName returns what stands before the first = and after it, if that can be meant
// for a name, and else the name of the destination that was given none.
func cutName(s string) (name, value string, err error) {
	name, value, ok := strings.Cut(s, "=")
	if !ok || strings.ContainsAny(name, ":/?@") {
		return gateway.DefaultDestination, s, nil
	}
	return name, value, gateway.CheckDestinationName(name)
}

// spaced are the values between spaces.
func spaced(values []string) (all []string) {
	for _, v := range values {
		all = append(all, strings.Fields(v)...)
	}
	return all
}

// tokens is spaced for tokens, of which @FILE may have a space in the file's name.
func tokens(values []string) (all []string) {
	for _, v := range values {
		fields := strings.Fields(v)
		for _, field := range fields {
			_, token, _ := cutName(field)
			if !strings.HasPrefix(token, joinPrefix) && !strings.HasPrefix(token, "@") {
				fields = []string{v}
				break
			}
		}
		all = append(all, fields...)
	}
	return all
}
