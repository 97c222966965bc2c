package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/pflag"
)

const (
	// joinPrefix is what every join token begins with.
	joinPrefix = "ferry-join-"
	// maxJoin bounds a file with a token, in bytes.
	maxJoin = 4 << 10

	// joinUsage ends what is said of --join.
	joinUsage = "@FILE reads it from a file. Others on this machine can see a command line (ps): FERRY_JOIN, a file of settings or @FILE keep it from them"
)

// registerJoin gives a subcommand the flag of the token to register with.
func registerJoin(flags *pflag.FlagSet, join *string) {
	flags.StringVar(join, "join", "", "`TOKEN` to register with at the server, as its operator's \"ferry server token create\" printed it; needed until the client is known there. "+joinUsage)
}

// readJoin returns the token that --join names. Errors do not show it.
func readJoin(join string) (string, error) {
	path, isFile := strings.CutPrefix(join, "@")
	if isFile {
		b, err := readFileLimited(path, maxJoin)
		if err != nil {
			return "", fmt.Errorf("--join: %w", err)
		}
		join = strings.TrimSpace(string(b))
	}
	rest, ok := strings.CutPrefix(join, joinPrefix)
	if join != "" && (!ok || rest == "" || strings.Trim(rest, "abcdefghijklmnopqrstuvwxyz234567") != "") {
		return "", fmt.Errorf("--join: that is no join token: want one that begins with %s, as \"ferry server token create\" prints it, or @FILE", joinPrefix)
	}
	if isFile && join == "" {
		return "", fmt.Errorf("--join: %s is empty", path)
	}
	return join, nil
}

// readFileLimited is os.ReadFile for files that are small.
func readFileLimited(path string, most int64) ([]byte, error) {
	b, _, err := readFileMode(path, most)
	return b, err
}

// readFileMode returns a small file's mode as well.
func readFileMode(path string, most int64) (_ []byte, _ fs.FileMode, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("%s: more than %d bytes", path, most)
	}
	return b, info.Mode(), err
}
