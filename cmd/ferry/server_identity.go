package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"ferry/proto"
	"ferry/server"
)

// identityFlags are the flags of who a server of version 4 is.
type identityFlags struct{ certificate, key string }

// maxPEM bounds the files of a certificate and its key, in bytes.
const maxPEM = 1 << 20

func (i *identityFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&i.certificate, "tls-cert", "", "`FILE` with a certificate of your own, in PEM, its chain behind it; identity.pem in the data folder if not given")
	flags.StringVar(&i.key, "tls-key", "", "`FILE` with the certificate's private key, in PEM, that nobody but its owner can read")
}

func (i *identityFlags) check() error {
	if (i.certificate == "") != (i.key == "") {
		return errors.New("--tls-cert and --tls-key belong together: want both, or neither")
	}
	return nil
}

// load returns who the server on a data folder is, which is made at its first
// start unless the operator has brought it.
func (i *identityFlags) load(data string) (proto.ServerIdentity, error) {
	if i.certificate == "" {
		return server.LoadIdentity(data)
	}
	certificate, _, err := readFileMode(i.certificate, maxPEM)
	if err != nil {
		return proto.ServerIdentity{}, fmt.Errorf("--tls-cert: %w", err)
	}
	key, mode, err := readFileMode(i.key, maxPEM)
	if err != nil {
		return proto.ServerIdentity{}, fmt.Errorf("--tls-key: %w", err)
	}
	if mode.Perm()&0o077 != 0 {
		return proto.ServerIdentity{}, fmt.Errorf("--tls-key: mode %v lets others read or change the private key in %s: if nobody has, make it 0600", mode, i.key)
	}
	id, err := proto.ParseServerIdentity(certificate, key)
	if err != nil {
		return id, fmt.Errorf("--tls-cert %s, --tls-key %s: %w", i.certificate, i.key, err)
	}
	return id, nil
}

func (p *program) serverFingerprintCommand() *cobra.Command {
	var data, config string
	i := &identityFlags{}
	cmd := &cobra.Command{
		Use:   "fingerprint [flags]",
		Short: "Print what clients know the server by",
		Long: `Print the fingerprint of the server's key: what clients say as ?pin= in their
URL, what "ferry trust" shows them, and what "ferry verify" wants. It is that
of DIR/identity.pem, which is made if there is none yet; the server may run
meanwhile.`,
		Example:               "  ferry server fingerprint\n  ferry server fingerprint --data ./server",
		Args:                  noArguments,
		DisableFlagsInUseLine: true,
	}
	cmd.Flags().StringVar(&data, "data", serverData, "`DIR` of the server; it is created if need be")
	i.register(cmd.Flags())
	registerConfig(cmd.Flags(), &config)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := loadSettings(cmd, p.environ); err != nil {
			return err
		}
		if err := i.check(); err != nil {
			return usageError{err}
		}
		if data == "" {
			return usagef("--data is missing: the folder of the server")
		}
		p.started = true
		id, err := i.load(data)
		if err != nil {
			return elsewhere(err)
		}
		_, err = fmt.Fprintln(p.stdout, id.Pin())
		return err
	}
	return cmd
}
