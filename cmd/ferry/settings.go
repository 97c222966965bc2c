package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// configFlag names the file of settings; it cannot be set in that file.
const configFlag = "config"

// registerConfig gives a subcommand the flag that names a file of settings.
func registerConfig(flags *pflag.FlagSet, path *string) {
	flags.StringVar(path, configFlag, "", "`FILE` with a line \"flag = value\" for each flag, without its dashes; # begins a comment line")
}

// loadSettings completes cmd's flags, in this order: what the command line set
// stays, then the environment's FERRY_ variables, then the file. An unknown
// variable or key is an error that says which one was probably meant, and so
// is a value that does not parse. An empty variable counts as unset.
func loadSettings(cmd *cobra.Command, environ []string) error {
	fromEnvironment, err := variables(cmd, environ)
	if err != nil {
		return err
	}
	if err := apply(cmd.Flags(), fromEnvironment); err != nil {
		return err
	}
	path, err := cmd.Flags().GetString(configFlag)
	if err != nil || path == "" {
		return err
	}
	fromFile, err := readConfig(cmd, path)
	if err != nil {
		return err
	}
	return apply(cmd.Flags(), fromFile)
}

// setting is a value and where it was found, for messages.
type setting struct{ value, origin string }

// apply sets the flags that have no value yet, in the order of their names.
func apply(flags *pflag.FlagSet, settings map[string]setting) error {
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		if flags.Changed(name) {
			continue
		}
		s := settings[name]
		if err := flags.Set(name, s.value); err != nil {
			return usagef("%s: %q for --%s: %s", s.origin, s.value, name, wanted(flags.Lookup(name)))
		}
	}
	return nil
}

// variables finds the environment's settings for cmd. Variables of other
// subcommands are left alone, so that one environment serves them all.
func variables(cmd *cobra.Command, environ []string) (map[string]setting, error) {
	own := flagByVariable(cmd)
	all := map[string]string{}
	for _, c := range descendants(cmd.Root()) {
		maps.Copy(all, flagByVariable(c))
	}
	found := map[string]setting{}
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, variablePrefix) {
			continue
		}
		if _, known := all[name]; !known {
			return nil, usagef("unknown variable %s; did you mean %s?", name, nearest(name, slices.Collect(maps.Keys(all))))
		}
		if flag, ok := own[name]; ok && value != "" {
			found[flag] = setting{value, name}
		}
	}
	return found, nil
}

// descendants are the subcommands of cmd, theirs, and so on.
func descendants(cmd *cobra.Command) []*cobra.Command {
	var all []*cobra.Command
	for _, c := range cmd.Commands() {
		all = append(append(all, c), descendants(c)...)
	}
	return all
}

func flagByVariable(cmd *cobra.Command) map[string]string {
	m := map[string]string{}
	for _, name := range flagNames(cmd) {
		if name != "help" {
			m[variable(name)] = name
		}
	}
	return m
}

// readConfig reads a file of lines "key = value", the keys being flags without
// their dashes. Empty lines and lines that begin with # are skipped.
func readConfig(cmd *cobra.Command, path string) (_ map[string]setting, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, usagef("--%s: %w", configFlag, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return parseConfig(cmd, f, path)
}

func parseConfig(cmd *cobra.Command, r io.Reader, path string) (map[string]setting, error) {
	found := map[string]setting{}
	lines := bufio.NewScanner(r)
	for number := 1; lines.Scan(); number++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		origin := fmt.Sprintf("%s:%d", path, number)
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			return nil, usagef(`%s: want a line "key = value", got %q`, origin, line)
		}
		key = strings.TrimSpace(key)
		if err := checkKey(cmd, key); err != nil {
			return nil, usagef("%s: %w", origin, err)
		}
		if first, twice := found[key]; twice {
			return nil, usagef("%s: %s was set already at %s", origin, key, first.origin)
		}
		found[key] = setting{strings.TrimSpace(value), origin}
	}
	if err := lines.Err(); err != nil {
		return nil, usagef("--%s: read %s: %w", configFlag, path, err)
	}
	return found, nil
}

func checkKey(cmd *cobra.Command, key string) error {
	known := slices.DeleteFunc(flagNames(cmd), func(name string) bool { return name == "help" || name == configFlag })
	if slices.Contains(known, key) {
		return nil
	}
	for _, other := range descendants(cmd.Root()) {
		if key != configFlag && key != "help" && other.Flags().Lookup(key) != nil {
			return fmt.Errorf("%s is a setting of %q, not of %q", key, other.CommandPath(), cmd.CommandPath())
		}
	}
	return fmt.Errorf("unknown key %s; did you mean %s?", key, nearest(key, known))
}

// nearest returns the candidate that takes the fewest edits to become s.
func nearest(s string, candidates []string) string {
	return slices.MinFunc(candidates, func(a, b string) int {
		if d := distance(s, a) - distance(s, b); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
}

// distance is Levenshtein's, in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
