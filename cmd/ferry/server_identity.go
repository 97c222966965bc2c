package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"ferry/internal/atomicfile"
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

// fingerprintFile is where a server notes its pin when it starts to listen, for
// ferry server fingerprint: the server may be given a certificate of its own.
func fingerprintFile(data string) string { return filepath.Join(data, "fingerprint") }

// maxFingerprint bounds that file, in bytes.
const maxFingerprint = 1 << 10

// notedPin is what the server on a data folder was known by when it last
// started; ok is false if it never did.
func notedPin(data string) (pin proto.Pin, ok bool, err error) {
	b, err := readFileLimited(fingerprintFile(data), maxFingerprint)
	if errors.Is(err, fs.ErrNotExist) {
		return pin, false, nil
	}
	if err == nil {
		pin, err = proto.ParsePin(strings.TrimSpace(string(b)))
	}
	if err != nil {
		return pin, false, fmt.Errorf("%s: %w; it is written anew when the server starts", fingerprintFile(data), err)
	}
	return pin, true, nil
}

// notePin writes it down, if it says anything else.
func notePin(data string, pin proto.Pin) error {
	if noted, ok, err := notedPin(data); err == nil && ok && noted == pin {
		return nil
	}
	return atomicfile.Write(fingerprintFile(data), []byte(pin.String()+"\n"), 0o644)
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
meanwhile. If the server runs with --tls-cert and --tls-key, say them here too:
that of an identity.pem that it last ran without is not printed.`,
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
		pin, err := i.pin(data, p.stderr)
		if err != nil {
			return elsewhere(err)
		}
		_, err = fmt.Fprintln(p.stdout, pin)
		return err
	}
	return cmd
}

// pin is what clients know the server on a data folder by, which may run.
// Of a certificate that the command names the operator may want the fingerprint
// before the server has it.
func (i *identityFlags) pin(data string, warn io.Writer) (proto.Pin, error) {
	noted, ran, err := notedPin(data)
	if err != nil {
		return noted, err
	}
	if ran && i.certificate == "" {
		// A new identity would be nobody's.
		if _, err := os.Lstat(filepath.Join(data, "identity.pem")); errors.Is(err, fs.ErrNotExist) {
			return noted, fmt.Errorf("the server last ran as %s, and its key is not in %s: say --tls-cert and --tls-key as it does", noted, data)
		}
	}
	id, err := i.load(data)
	if err != nil {
		return noted, err
	}
	switch {
	case !ran || id.Pin() == noted:
		return id.Pin(), nil
	case i.certificate != "":
		fmt.Fprintf(warn, "The server last ran with another key, %s.\n", noted)
		return id.Pin(), nil
	default:
		return noted, fmt.Errorf("the server last ran as %s, and not with this key, which is %s: "+
			"say --tls-cert and --tls-key as it does; if it has a new key, start it with that first", noted, id.Pin())
	}
}
