package e2e_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ferry/proto"
)

var receiptBytes = flag.Int("receipt-bytes", 40, "how many bytes of a receipt TestReceiptV4 changes, one at a time, before it asks ferry verify; 0 is each one")

// What ferry verify ends with for a receipt or a file that is not what it ought
// to be.
const exitIntegrity = 6

// TestReceiptV4 has the gateway and ferry send get a receipt each, and ferry
// verify and openssl check them with nothing but the pin.
func TestReceiptV4(t *testing.T) {
	server := startV4(t, filepath.Join(t.TempDir(), "server"))
	dir := t.TempDir()
	small, large := filepath.Join(dir, "small.bin"), filepath.Join(dir, "large.bin")
	writeFile(t, small, 1, 4096)
	writeFile(t, large, 2, 300_000)

	g := server.startGatewayV4(filepath.Join(t.TempDir(), "gateway"), server.v4, "ci")
	for _, path := range []string{small, large} {
		t.Run("gateway, "+filepath.Base(path), func(t *testing.T) {
			receipt := gatewayReceipt(t, g, path, filepath.Join(t.TempDir(), "receipt"))
			wantReceipt(t, server.pin, receipt, path, "ci")
		})
	}
	for i, path := range []string{small, large} {
		t.Run("ferry send, "+filepath.Base(path), func(t *testing.T) {
			receipt := filepath.Join(t.TempDir(), "receipt")
			r := ferry(t, dir, "send", "--to", server.url(server.v4), "--join", server.token(), "--name", "sender", "--receipt", receipt, path)
			if r.status != 0 {
				t.Fatalf("ferry send: %+v", r)
			}
			wantReceipt(t, server.pin, receipt, path, "sender")
			if i == 0 {
				wantEachByteToCount(t, server.pin, receipt)
			}
		})
	}
}

// gatewayReceipt uploads a file and keeps the receipt that the gateway has of
// it.
func gatewayReceipt(t *testing.T, g *gatewayV4, path, to string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	u, err := post(t.Context(), g.http, filepath.Base(path), bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	deliveredSoon(t, g.http, u.ID, time.Minute)
	res, err := http.Get(g.http + "/uploads/" + u.ID + "/receipt")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	envelope, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, envelope)
	}
	if err := errors.Join(err, os.WriteFile(to, envelope, 0o600)); err != nil {
		t.Fatal(err)
	}
	return to
}

// wantReceipt wants a receipt to be the server's, for that file and nobody
// else's.
func wantReceipt(t *testing.T, pin, receipt, path, client string) {
	t.Helper()
	sum, err := sha256OfFile(path)
	if err != nil {
		t.Fatal(err)
	}
	verify := func(args ...string) result { return ferry(t, "", append([]string{"verify"}, args...)...) }
	for _, args := range [][]string{{receipt}, {receipt, path}} {
		if r := verify(append(args, "--pin", pin)...); r.status != 0 || !r.says(sum, filepath.Base(path), client, pin) {
			t.Errorf("ferry verify %q: %+v; want status 0, the file's name and SHA-256, the client and the pin", args, r)
		}
	}
	other := filepath.Join(t.TempDir(), "other")
	writeFile(t, other, 99, 4096)
	if r := verify(receipt, other, "--pin", pin); r.status != exitIntegrity {
		t.Errorf("ferry verify of another file: %+v; want status %d", r, exitIntegrity)
	}
	if r := verify(receipt, "--pin", "sha256:"+strings.Repeat("5a", 32)); r.status != exitIntegrity {
		t.Errorf("ferry verify with another pin: %+v; want status %d", r, exitIntegrity)
	}
	wantOpenSSL(t, receipt)
}

// wantEachByteToCount changes bytes of a receipt: each of them in this process,
// and some before ferry verify.
func wantEachByteToCount(t *testing.T, pin, receipt string) {
	t.Helper()
	p, err := proto.ParsePin(pin)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(receipt)
	if err != nil {
		t.Fatal(err)
	}
	b = bytes.TrimSuffix(b, []byte("\n"))
	if _, err := proto.VerifyReceipt(b, p); err != nil {
		t.Fatal(err)
	}
	for at := range b {
		if _, err := proto.VerifyReceipt(changedAt(b, at), p); err == nil {
			t.Errorf("a receipt with another byte at %d is good", at)
		}
	}
	positions := rand.Perm(len(b))
	if n := *receiptBytes; n > 0 {
		positions = positions[:min(n, len(b))]
	}
	changed := filepath.Join(t.TempDir(), "changed")
	for _, at := range positions {
		if err := os.WriteFile(changed, changedAt(b, at), 0o600); err != nil {
			t.Fatal(err)
		}
		if r := ferry(t, "", "verify", changed, "--pin", pin); r.status != exitIntegrity {
			t.Errorf("ferry verify of a receipt with another byte at %d: %+v; want status %d", at, r, exitIntegrity)
		}
	}
}

// changedAt is b with another byte at one place, of the same kind where that is
// possible: it must not be the form alone that tells.
func changedAt(b []byte, at int) []byte {
	b = bytes.Clone(b)
	switch c := b[at]; {
	case c >= 'a' && c < 'z', c >= 'A' && c < 'Z', c >= '0' && c < '9':
		b[at]++
	case c == 'z', c == 'Z', c == '9':
		b[at]--
	default:
		b[at] ^= 1
	}
	return b
}

// wantOpenSSL has openssl check the signature over DSSE's pre-authentication
// encoding, with the key that the receipt has in it.
func wantOpenSSL(t *testing.T, receipt string) {
	t.Helper()
	var envelope struct {
		PayloadType string
		Payload     []byte
		Signatures  []struct{ Sig []byte }
	}
	var statement struct{ Predicate struct{ ServerKey []byte } }
	b, err := os.ReadFile(receipt)
	if err == nil {
		err = json.Unmarshal(b, &envelope)
	}
	if err == nil {
		err = json.Unmarshal(envelope.Payload, &statement)
	}
	if err != nil || len(envelope.Signatures) != 1 {
		t.Fatalf("%s: %v, %+v", b, err, envelope)
	}
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	pae := fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(envelope.PayloadType), envelope.PayloadType, len(envelope.Payload), envelope.Payload)
	pem := "-----BEGIN PUBLIC KEY-----\n" + base64.StdEncoding.EncodeToString(statement.Predicate.ServerKey) + "\n-----END PUBLIC KEY-----\n"
	for name, b := range map[string][]byte{"signed": pae, "signature": envelope.Signatures[0].Sig, "key.pem": []byte(pem)} {
		if err := os.WriteFile(at(name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	verify := []string{"dgst", "-sha256", "-verify", at("key.pem"), "-signature", at("signature"), at("signed")}
	if out, err := exec.CommandContext(t.Context(), "openssl", verify...).CombinedOutput(); err != nil || !strings.Contains(string(out), "Verified OK") {
		t.Errorf("openssl: %v, %s", err, out)
	}
	if err := os.WriteFile(at("signed"), changedAt(pae, len(pae)/2), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "openssl", verify...).CombinedOutput(); err == nil {
		t.Errorf("openssl takes what was changed: %s", out)
	}
}
