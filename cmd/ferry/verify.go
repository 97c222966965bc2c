package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"ferry/proto"
)

// maxReceipt is several times what a receipt for as many files as can share one
// takes, with the longest names.
const maxReceipt = 8 << 20

// verifySettings are the flags of ferry verify.
type verifySettings struct {
	pin    string
	json   bool
	config string
}

func (p *program) verifyCommand() *cobra.Command {
	s := &verifySettings{}
	cmd := &cobra.Command{
		Use:                   "verify RECEIPT [FILE] --pin FINGERPRINT",
		DisableFlagsInUseLine: true,
		Short:                 "Check a receipt, and that a file is the one it is for",
		Long: `Check a server's receipt and print what it says: that the server with that
fingerprint held these files then, verified and durable. With FILE, also check
that FILE is one of them. Nothing is asked over the network: the fingerprint
alone tells whether the server signed it.

The exit status is 0 if all is as the receipt says; 6 if it is not: the server
did not sign it, a byte of it was changed, or FILE has other content; 8 if
RECEIPT or FILE cannot be read.`,
		Example: `  ferry verify app.receipt app.tar.gz --pin sha256:1c5f...
  curl -s http://127.0.0.1:8080/uploads/ID/receipt | ferry verify - --pin sha256:1c5f... --json`,
	}
	cmd.Flags().StringVar(&s.pin, "pin", "", "`FINGERPRINT` of the server, sha256:..., as \"ferry server fingerprint\" prints it (required)")
	cmd.Flags().BoolVar(&s.json, "json", false, "print a line of JSON for each file of the receipt")
	registerConfig(cmd.Flags(), &s.config)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := loadSettings(cmd, p.environ); err != nil {
			return err
		}
		if len(args) < 1 || len(args) > 2 {
			return usagef("want a RECEIPT and perhaps a FILE, and there are %d arguments", len(args))
		}
		if s.pin == "" {
			return usagef("--pin is missing: the fingerprint of the server that is to have signed the receipt")
		}
		pin, err := proto.ParsePin(s.pin)
		if err != nil {
			return usagef("--pin: %w", err)
		}
		p.started = true
		return p.verifyReceipt(cmd.Context(), args, pin, s.json)
	}
	return cmd
}

// verifyReceipt is ferry verify with its command line read.
func (p *program) verifyReceipt(ctx context.Context, args []string, pin proto.Pin, asJSON bool) error {
	envelope, err := p.readReceipt(args[0])
	if err != nil {
		return p.failed(exitNoFile, "the receipt: %v", err)
	}
	s, err := proto.VerifyReceipt(envelope, pin)
	if err != nil {
		return p.failed(exitIntegrity, "the receipt is not one of that server: %v", err)
	}
	if len(args) == 1 {
		return p.printReceipt(s, "", nil, asJSON)
	}
	sum, err := sumOfFile(ctx, args[1])
	if err != nil {
		return p.failed(exitNoFile, "%s: %v", printable(args[1]), err)
	}
	var same []proto.Stored
	for _, f := range s.Files {
		if f.Sum == sum {
			same = append(same, f)
		}
	}
	if len(same) == 0 {
		return p.failed(exitIntegrity, "%s is not what the receipt is for: it has %d bytes, cksum %d, SHA-256 %x; %s",
			printable(args[1]), sum.Size, sum.Cksum, sum.SHA256, receiptFiles(s))
	}
	s.Files = same
	return p.printReceipt(s, args[1], same, asJSON)
}

// receiptFiles says what a receipt is for, briefly.
func receiptFiles(s proto.Statement) string {
	if len(s.Files) != 1 {
		return fmt.Sprintf("the receipt is for %d others", len(s.Files))
	}
	f := s.Files[0]
	return fmt.Sprintf("the receipt is for %s, %d bytes, cksum %d, SHA-256 %x", printable(f.Name.String()), f.Sum.Size, f.Sum.Cksum, f.Sum.SHA256)
}

// failed says what is wrong and returns the status to end with.
func (p *program) failed(status int, format string, args ...any) error {
	fmt.Fprintf(p.stderr, "ferry verify: "+format+"\n", args...)
	return exitError(status)
}

// readReceipt reads an envelope, from stdin if path is "-". A line end behind it
// does not count: ferry send and editors write one.
func (p *program) readReceipt(path string) (_ []byte, err error) {
	from := p.stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close() //nolint:errcheck // only read
		from = f
	}
	b, err := io.ReadAll(io.LimitReader(from, maxReceipt+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxReceipt {
		return nil, fmt.Errorf("%s: more than %d bytes", path, maxReceipt)
	}
	return bytes.TrimSuffix(b, []byte("\n")), nil
}

// sumOfFile adds a file up.
func sumOfFile(ctx context.Context, path string) (_ proto.Sum, err error) {
	src, err := openSource(path)
	if err != nil {
		return proto.Sum{}, pathless(err)
	}
	defer src.Close() //nolint:errcheck // only read
	return src.sum(ctx)
}

// printReceipt says what a receipt says, of the files that are left in it.
func (p *program) printReceipt(s proto.Statement, path string, same []proto.Stored, asJSON bool) error {
	if asJSON {
		return p.printReceiptJSON(s, path)
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "The receipt was signed by the server %s.\n\n", s.Server)
	fmt.Fprintf(&out, "  client     %s, %s\n", printable(s.Client.String()), s.ClientID)
	for _, f := range s.Files {
		fmt.Fprintf(&out, "  file       %s\n  stored     %s\n  size       %d\n  sha256     %x\n  cksum      %d\n",
			printable(f.Name.String()), f.At.UTC().Format(time.RFC3339Nano), f.Sum.Size, f.Sum.SHA256, f.Sum.Cksum)
		if f.Transfer != (proto.TransferID{}) {
			fmt.Fprintf(&out, "  transfer   %s\n", f.Transfer)
		}
		out.WriteString("\n")
	}
	if len(same) > 0 {
		fmt.Fprintf(&out, "%s is what was stored.\n", printable(path))
	}
	_, err := p.stdout.Write(out.Bytes())
	return err
}

func (p *program) printReceiptJSON(s proto.Statement, path string) error {
	t := newTable(p.stdout, true, "")
	var errs []error
	for _, f := range s.Files {
		errs = append(errs, t.add(struct {
			Name     string    `json:"name"`
			Size     int64     `json:"size"`
			SHA256   string    `json:"sha256"`
			Cksum    uint32    `json:"cksum"`
			StoredAt time.Time `json:"stored_at"`
			Transfer string    `json:"transfer"`
			Client   string    `json:"client"`
			ClientID string    `json:"client_id"`
			Server   string    `json:"server"`
			File     string    `json:"file,omitempty"` // that was found to be the same
		}{f.Name.String(), f.Sum.Size, hex.EncodeToString(f.Sum.SHA256[:]), f.Sum.Cksum, f.At.UTC(), f.Transfer.String(),
			s.Client.String(), s.ClientID.String(), s.Server.String(), path}, ""))
	}
	return errors.Join(append(errs, t.end())...)
}
