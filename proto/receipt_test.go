package proto_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"ferry/proto"
)

var compareStatements = cmp.AllowUnexported(proto.FileName{}, proto.ClientName{})

// receiptOf signs, and must.
func receiptOf(t testing.TB, m made, client proto.Registration, files ...proto.Stored) []byte {
	t.Helper()
	envelope, err := m.identity.SignReceipt(client, files)
	if err != nil {
		t.Fatal(err)
	}
	return envelope
}

var receiptDay = time.Date(2026, 1, 2, 3, 4, 5, 678_000_000, time.UTC)

func receiptFile(t testing.TB, name, content string) proto.Stored {
	t.Helper()
	return proto.Stored{Name: fileName(t, name), Sum: sumOf([]byte(content)), Transfer: proto.TransferID{1, 2, 0xFE}, At: receiptDay}
}

func receiptClient(t testing.TB) proto.Registration {
	t.Helper()
	return proto.Registration{ID: proto.ClientID{0xC1, 15: 0x0F}, Name: clientName(t, "ci")}
}

// takeApart is an envelope's payload and signature.
func takeApart(t testing.TB, envelope []byte) (payload string, signature []byte) {
	t.Helper()
	var e struct {
		Payload    []byte
		Signatures []struct{ Sig []byte }
	}
	if err := json.Unmarshal(envelope, &e); err != nil {
		t.Fatal(err)
	}
	return string(e.Payload), e.Signatures[0].Sig
}

// putTogether is an envelope, written as the documentation has it.
func putTogether(payload string, pin proto.Pin, signature []byte) string {
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf(`{"payloadType":"application/vnd.in-toto+json","payload":"%s","signatures":[{"keyid":"%s","sig":"%s"}]}`,
		b64([]byte(payload)), pin, b64(signature))
}

// The payload, byte for byte.
func TestReceiptForm(t *testing.T) {
	m := identityOf(t, "RSA-3072")
	first := receiptFile(t, "build-17/app.tar.gz", "content")
	second := receiptFile(t, "a \"b\" <&>\u2028 é 日本 \U0001F600", "")
	second.Transfer, second.At = proto.TransferID{}, time.Date(2030, 12, 31, 23, 0, 0, 999_999, time.FixedZone("", -3600))
	second.Sum.Size, second.Sum.Cksum = math.MaxInt64, math.MaxUint32
	envelope := receiptOf(t, m, receiptClient(t), first, second)
	payload, signature := takeApart(t, envelope)
	want := `{"_type":"https://in-toto.io/Statement/v1","subject":[` +
		`{"name":"build-17/app.tar.gz","digest":{"sha256":"ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"}},` +
		`{"name":"a \"b\" <&>` + "\u2028" + ` é 日本 😀","digest":{"sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}}` +
		`],"predicateType":"https://ferry.invalid/receipt/v1","predicate":{"client":{"name":"ci","id":"c100000000000000000000000000000f"},` +
		`"serverKey":"` + base64.StdEncoding.EncodeToString(m.subjectInfo) + `","files":[` +
		fmt.Sprintf(`{"size":"7","cksum":%d,"transfer":"0102fe00000000000000000000000000","storedAt":"2026-01-02T03:04:05.678Z"},`, naiveCksum([]byte("content"))) +
		`{"size":"9223372036854775807","cksum":4294967295,"transfer":"00000000000000000000000000000000","storedAt":"2031-01-01T00:00:00.000Z"}]}}`
	if d := cmp.Diff(want, payload); d != "" {
		t.Errorf("payload (-want +got):\n%s", d)
	}
	if got, want := string(envelope), putTogether(payload, m.identity.Pin(), signature); got != want {
		t.Errorf("envelope: got\n%s\nwant\n%s", got, want)
	}
	got, err := proto.VerifyReceipt(envelope, m.identity.Pin())
	if err != nil {
		t.Fatal(err)
	}
	second.At = time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC)
	if d := cmp.Diff(proto.Statement{
		Server: m.identity.Pin(), Client: clientName(t, "ci"), ClientID: receiptClient(t).ID,
		Files: []proto.Stored{first, second},
	}, got, compareStatements); d != "" {
		t.Errorf("statement (-want +got):\n%s", d)
	}
}

func TestStatementFile(t *testing.T) {
	a, b := receiptFile(t, "a", "one"), receiptFile(t, "b", "two")
	again := receiptFile(t, "c", "one")
	s := proto.Statement{Files: []proto.Stored{a, b, again}}
	for _, test := range []struct {
		name proto.FileName
		sum  proto.Sum
		want proto.Stored
		ok   bool
	}{
		{a.Name, a.Sum, a, true},
		{again.Name, a.Sum, again, true},
		{proto.FileName{}, b.Sum, b, true},
		{proto.FileName{}, a.Sum, a, true},
		{a.Name, b.Sum, proto.Stored{}, false},
		{fileName(t, "d"), a.Sum, proto.Stored{}, false},
		{proto.FileName{}, proto.Sum{}, proto.Stored{}, false},
	} {
		if got, ok := s.File(test.name, test.sum); got != test.want || ok != test.ok {
			t.Errorf("File(%q, %v): got %v, %t, want %v, %t", test.name, test.sum, got, ok, test.want, test.ok)
		}
	}
}

// Whatever is changed in a receipt, it is one no more.
func TestReceiptChanged(t *testing.T) {
	for kind, flips := range map[string][]byte{"RSA-3072": {0x01, 0x20}, "P-256": {0x01}, "Ed25519": {0x01, 0x02, 0x08, 0x40, 0x80}} {
		t.Run(kind, func(t *testing.T) {
			m := identityOf(t, kind)
			envelope := receiptOf(t, m, receiptClient(t), receiptFile(t, "a/b \"c\"", "one"), receiptFile(t, "d", "two"))
			check := func(what string, at int, changed []byte) {
				t.Helper()
				if s, err := proto.VerifyReceipt(changed, m.identity.Pin()); err == nil {
					t.Errorf("%s at %d: verified, as %+v", what, at, s)
				} else if s.Files != nil || s.Server != (proto.Pin{}) {
					t.Errorf("%s at %d: a statement beside the error: %+v", what, at, s)
				}
			}
			for i := range envelope {
				for _, flip := range flips {
					changed := bytes.Clone(envelope)
					changed[i] ^= flip
					check(fmt.Sprintf("flipped %#x", flip), i, changed)
				}
				if kind != "Ed25519" { // the others' signatures take longer
					continue
				}
				check("cut", i, envelope[:i])
				check("left out", i, join(envelope[:i], envelope[i+1:]))
				check("blank put in", i, join(envelope[:i], []byte(" "), envelope[i:]))
				check("twice", i, join(envelope[:i+1], envelope[i:]))
			}
			check("line end", len(envelope), append(bytes.Clone(envelope), '\n'))
			if _, err := proto.VerifyReceipt(envelope, m.identity.Pin()); err != nil {
				t.Errorf("unchanged: %v", err)
			}
		})
	}
}

// What JSON or base64 would take for the same is not the same. Each of these is
// signed well, so that only the form is wrong.
func TestReceiptInOtherForm(t *testing.T) {
	m := identityOf(t, "Ed25519")
	payload, _ := takeApart(t, receiptOf(t, m, receiptClient(t), receiptFile(t, "a/b", "one")))
	replace := func(old, fresh string) func(string) string {
		return func(s string) string {
			if strings.Count(s, old) != 1 {
				t.Fatalf("%q is %d times in %s", old, strings.Count(s, old), s)
			}
			return strings.Replace(s, old, fresh, 1)
		}
	}
	same := func(s string) string { return s }
	sign := func(payload string) string {
		signature, err := proto.SignPAE(m.key, []byte(payload))
		if err != nil {
			t.Fatal(err)
		}
		return putTogether(payload, m.identity.Pin(), signature)
	}
	if _, err := proto.VerifyReceipt([]byte(sign(payload)), m.identity.Pin()); err != nil {
		t.Fatalf("as it should be: %v", err)
	}
	pin := m.identity.Pin().String()
	for name, change := range map[string]struct{ payload, envelope func(string) string }{
		"blank in the envelope":          {same, replace(`,"payload":`, `, "payload":`)},
		"line end behind the envelope":   {same, func(s string) string { return s + "\n" }},
		"order in the envelope":          {same, func(s string) string { return reorder(t, s) }},
		"field twice in the envelope":    {same, replace(`{"payloadType"`, `{"payloadType":"x","payloadType"`)},
		"another field in the envelope":  {same, replace(`{"payloadType"`, `{"x":1,"payloadType"`)},
		"field's name in upper case":     {same, replace(`"payloadType"`, `"PayloadType"`)},
		"another payload type":           {same, replace(`vnd.in-toto+json`, `vnd.in-toto+jsom`)},
		"escaped type":                   {same, replace(`application/vnd`, `application\/vnd`)},
		"no signature":                   {same, func(s string) string { return s[:strings.Index(s, `[{`)] + `[]}` }},
		"two signatures":                 {same, replace(`"}]}`, `"},{"keyid":"`+pin+`","sig":"AA=="}]}`)},
		"the same signature twice":       {same, func(s string) string { return strings.TrimSuffix(s, "]}") + "," + s[strings.Index(s, `[{`)+1:] }},
		"another field in the signature": {same, replace(`"}]}`, `","x":null}]}`)},
		"key id in upper case":           {same, replace(pin, "sha256:"+strings.ToUpper(pin[7:]))},
		"another key id":                 {same, replace(pin, "sha256:"+strings.Repeat("0", 64))},
		"no key id":                      {same, replace(`"keyid":"`+pin+`",`, ``)},
		"base64 with a line end":         {same, replace(`"}]}`, `\n"}]}`)},
		"base64 without its end":         {same, replace(`=="}]}`, `"}]}`)},
		"base64 with other unused bits":  {same, func(s string) string { return otherBits(t, s) }},
		"null":                           {same, func(string) string { return "null" }},
		"an array":                       {same, func(s string) string { return "[" + s + "]" }},
		"nothing":                        {same, func(string) string { return "" }},
		"blank in the payload":           {replace(`{"_type"`, `{ "_type"`), same},
		"line end behind the payload":    {func(s string) string { return s + "\n" }, same},
		"field twice in the payload":     {replace(`"predicateType"`, `"subject":[{"name":"a/b"}],"predicateType"`), same},
		"another field in the payload":   {replace(`"predicateType"`, `"x":1,"predicateType"`), same},
		"another field in a file":        {replace(`"storedAt"`, `"x":1,"storedAt"`), same},
		"another digest":                 {replace(`{"sha256"`, `{"sha1":"00","sha256"`), same},
		"order in the payload":           {replace(`"name":"ci","id":"c100000000000000000000000000000f"`, `"id":"c100000000000000000000000000000f","name":"ci"`), same},
		"another statement type":         {replace(`Statement/v1`, `Statement/v0.1`), same},
		"another predicate type":         {replace(`receipt/v1`, `receipt/v2`), same},
		"escaped name":                   {replace(`"a/b"`, `"\u0061/b"`), same},
		"escaped slash":                  {replace(`"a/b"`, `"a\/b"`), same},
		"name that leaves the folder":    {replace(`"a/b"`, `"a/../b"`), same},
		"name with a control character":  {replace(`"a/b"`, `"a\u0007b"`), same},
		"name that is not UTF-8":         {replace(`"a/b"`, "\"a\xff\""), same},
		"no name":                        {replace(`"a/b"`, `""`), same},
		"client's name with a slash":     {replace(`"ci"`, `"c/i"`), same},
		"client's id in upper case":      {replace(`"c1000`, `"C1000`), same},
		"client's id too short":          {replace(`"c1000`, `"c100`), same},
		"digest in upper case":           {func(s string) string { return upperAfter(t, s, `{"sha256":"`, 64) }, same},
		"digest too short":               {func(s string) string { return cutAfter(t, s, `{"sha256":"`) }, same},
		"size as a number":               {replace(`"size":"3"`, `"size":3`), same},
		"size with zeros":                {replace(`"size":"3"`, `"size":"03"`), same},
		"size with a sign":               {replace(`"size":"3"`, `"size":"+3"`), same},
		"size below 0":                   {replace(`"size":"3"`, `"size":"-3"`), same},
		"size of 2^63":                   {replace(`"size":"3"`, `"size":"9223372036854775808"`), same},
		"cksum as a string":              {replace(`"cksum":`, `"cksum":"1","x":`), same},
		"cksum with a fraction":          {replace(`,"transfer"`, `.0,"transfer"`), same},
		"cksum with an exponent":         {replace(`,"transfer"`, `e0,"transfer"`), same},
		"cksum of 2^32":                  {func(s string) string { return upTo(t, s, `"cksum":`, `,"transfer"`, "4294967296") }, same},
		"transfer in upper case":         {replace(`"0102fe`, `"0102FE`), same},
		"time without milliseconds":      {replace(`05.678Z`, `05Z`), same},
		"time with microseconds":         {replace(`05.678Z`, `05.678000Z`), same},
		"time with a comma":              {replace(`05.678Z`, `05,678Z`), same},
		"time elsewhere":                 {replace(`05.678Z`, `05.678+00:00`), same},
		"time that is none":              {replace(`2026-01-02`, `2026-02-30`), same},
		"more subjects than files":       {replace(`"subject":[`, `"subject":[{"name":"x","digest":{"sha256":"`+strings.Repeat("0", 64)+`"}},`), same},
		"more files than subjects":       {replace(`"files":[`, `"files":[{"size":"1","cksum":1,"transfer":"`+strings.Repeat("0", 32)+`","storedAt":"2026-01-02T03:04:05.678Z"},`), same},
		"no file": {func(s string) string {
			return upTo(t, upTo(t, s, `"subject":[`, `],"pred`, ""), `"files":[`, `]}}`, "")
		}, same},
		"no client":                         {replace(`"name":"ci","id":"c100000000000000000000000000000f"`, ``), same},
		"server's key in another form":      {func(s string) string { return upTo(t, s, `"serverKey":"`, `","files`, "AAAA") }, same},
		"payload that is null":              {func(string) string { return "null" }, same},
		"payload that is something else":    {func(string) string { return `{"a":1}` }, same},
		"payload deeper than anybody reads": {func(string) string { return strings.Repeat("[", 20_000) }, same},
	} {
		t.Run(name, func(t *testing.T) {
			changed := change.envelope(sign(change.payload(payload)))
			if s, err := proto.VerifyReceipt([]byte(changed), m.identity.Pin()); err == nil {
				t.Errorf("verified as %+v: %s", s, changed)
			} else if !strings.HasPrefix(err.Error(), "receipt: ") || len(err.Error()) > 600 {
				t.Errorf("the error is %q", err)
			}
		})
	}
}

// reorder is the envelope with its first two fields the other way round.
func reorder(t *testing.T, s string) string {
	t.Helper()
	first, rest, ok := strings.Cut(strings.TrimPrefix(s, "{"), ",")
	second, rest, ok2 := strings.Cut(rest, ",")
	if !ok || !ok2 {
		t.Fatal("no three fields")
	}
	return "{" + second + "," + first + "," + rest
}

// otherBits changes the bits of the signature's base64 that stand for nothing.
func otherBits(t *testing.T, s string) string {
	t.Helper()
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	at := strings.LastIndex(s, `=="}]}`) - 1
	if at < 0 {
		t.Fatal("the signature's base64 has no unused bits")
	}
	return s[:at] + string(alphabet[strings.IndexByte(alphabet, s[at])^1]) + s[at+1:]
}

// upTo replaces what is between two texts.
func upTo(t *testing.T, s, after, before, fresh string) string {
	t.Helper()
	start := strings.Index(s, after) + len(after)
	length := strings.Index(s[start:], before)
	if start < len(after) || length < 0 {
		t.Fatalf("no %q and %q in %s", after, before, s)
	}
	return s[:start] + fresh + s[start+length:]
}

func upperAfter(t *testing.T, s, after string, n int) string {
	t.Helper()
	at := strings.Index(s, after) + len(after)
	return s[:at] + strings.ToUpper(s[at:at+n]) + s[at+n:]
}

func cutAfter(t *testing.T, s, after string) string {
	t.Helper()
	at := strings.Index(s, after) + len(after)
	return s[:at] + s[at+2:]
}

// A receipt counts for the server that signed it alone.
func TestReceiptOfAnotherServer(t *testing.T) {
	m, other := identityOf(t, "RSA-3072"), identityOf(t, "P-256")
	envelope := receiptOf(t, m, receiptClient(t), receiptFile(t, "a", "one"))
	for _, pin := range []proto.Pin{other.identity.Pin(), {}} {
		_, err := proto.VerifyReceipt(envelope, pin)
		if err == nil || !strings.Contains(err.Error(), m.identity.Pin().String()) || !strings.Contains(err.Error(), pin.String()) {
			t.Errorf("with another pin: got %v, want both pins", err)
		}
	}
	payload, signature := takeApart(t, envelope)
	theirs, err := proto.SignPAE(other.key, []byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	claimed := strings.ReplaceAll(payload, base64.StdEncoding.EncodeToString(m.subjectInfo), base64.StdEncoding.EncodeToString(other.subjectInfo))
	theirsOfClaimed, err := proto.SignPAE(other.key, []byte(claimed))
	if err != nil {
		t.Fatal(err)
	}
	for name, forged := range map[string]string{
		"signed by another key":              putTogether(payload, m.identity.Pin(), theirs),
		"another key, and its signature":     putTogether(claimed, m.identity.Pin(), theirsOfClaimed),
		"another key id":                     putTogether(payload, other.identity.Pin(), signature),
		"signature of the payload elsewhere": putTogether(claimed, m.identity.Pin(), signature),
	} {
		if _, err := proto.VerifyReceipt([]byte(forged), m.identity.Pin()); err == nil {
			t.Errorf("%s: verified", name)
		}
	}
	if _, err := proto.VerifyReceipt([]byte(putTogether(claimed, other.identity.Pin(), theirsOfClaimed)), other.identity.Pin()); err != nil {
		t.Errorf("what the other server signed: %v", err)
	}
}

// A key that no server may have counts for nothing even if the pin is its own.
func TestReceiptOfWeakKey(t *testing.T) {
	key, err := rsaOf(1024)()
	if err != nil {
		t.Fatal(err)
	}
	info, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	m := identityOf(t, "RSA-3072")
	payload, _ := takeApart(t, receiptOf(t, m, receiptClient(t), receiptFile(t, "a", "one")))
	payload = strings.Replace(payload, base64.StdEncoding.EncodeToString(m.subjectInfo), base64.StdEncoding.EncodeToString(info), 1)
	signature, err := proto.SignPAE(key, []byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	pin := proto.Pin(sha256.Sum256(info))
	_, err = proto.VerifyReceipt([]byte(putTogether(payload, pin, signature)), pin)
	if err == nil || !strings.Contains(err.Error(), "RSA of 1024 bits") {
		t.Errorf("got %v, want that the key is weak", err)
	}
}

// ECDSA has two signatures for each that is made. Only one is a receipt's.
func TestReceiptWithOtherS(t *testing.T) {
	for _, kind := range []string{"P-256", "P-384"} {
		m := identityOf(t, kind)
		for range 8 { // both forms are as likely to be made
			envelope := receiptOf(t, m, receiptClient(t), receiptFile(t, "a", "one"))
			payload, signature := takeApart(t, envelope)
			if _, err := proto.VerifyReceipt(envelope, m.identity.Pin()); err != nil {
				t.Fatal(err)
			}
			var form struct{ R, S *big.Int }
			if _, err := asn1.Unmarshal(signature, &form); err != nil {
				t.Fatal(err)
			}
			form.S.Sub(m.key.Public().(*ecdsa.PublicKey).Params().N, form.S)
			other, err := asn1.Marshal(form)
			if err != nil {
				t.Fatal(err)
			}
			digest := sha256.Sum256(paeOf(payload))
			if !ecdsa.VerifyASN1(m.key.Public().(*ecdsa.PublicKey), digest[:], other) {
				t.Fatal("the other form is no signature")
			}
			if _, err := proto.VerifyReceipt([]byte(putTogether(payload, m.identity.Pin(), other)), m.identity.Pin()); err == nil {
				t.Errorf("%s: the other form of the signature is a receipt, too", kind)
			}
		}
	}
}

// paeOf is DSSE's pre-authentication encoding, from its specification.
func paeOf(payload string) []byte {
	const kind = "application/vnd.in-toto+json"
	return []byte("DSSEv1 " + fmt.Sprint(len(kind)) + " " + kind + " " + fmt.Sprint(len(payload)) + " " + payload)
}

// The signature is one that openssl takes.
func TestReceiptAgainstOpenSSL(t *testing.T) {
	for _, k := range goodKeys {
		m := identityOf(t, k.name)
		payload, signature := takeApart(t, receiptOf(t, m, receiptClient(t), receiptFile(t, "a/b", "one"), receiptFile(t, "é", "two")))
		public := writeFile(t, "public.pem", m.publicKeyPEM)
		sig := writeFile(t, "sig", signature)
		signed := writeFile(t, "pae", paeOf(payload))
		var out []byte
		if k.name == "Ed25519" {
			out = runOpenSSL(t, nil, "pkeyutl", "-verify", "-pubin", "-inkey", public, "-rawin", "-in", signed, "-sigfile", sig)
		} else {
			out = runOpenSSL(t, nil, "dgst", "-sha256", "-verify", public, "-signature", sig, signed)
		}
		if !strings.Contains(string(out), "erified") {
			t.Errorf("%s: openssl says %s", k.name, out)
		}
	}
}

// readReceipt has Node read a receipt.
func readReceipt(t *testing.T, envelope []byte, pin proto.Pin) (out []byte, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "node", filepath.Join("testdata", "receipt.mjs"), pin.String())
	cmd.Stdin = bytes.NewReader(envelope)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if out, err = cmd.Output(); err != nil {
		err = fmt.Errorf("node: %w: %s", err, stderr.Bytes())
	}
	return out, err
}

// So does an independent reader, which checks the form as well.
func TestReceiptAgainstNode(t *testing.T) {
	first, second := receiptFile(t, "build-17/app.tar.gz", "one"), receiptFile(t, "a \"b\" <&>\u2028\u2029 é 日本 \U0001F600", "two")
	want := func(f proto.Stored) string {
		name, err := json.Marshal(f.Name.String())
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf(`{"name":%s,"sha256":"%s","size":"%d","cksum":%d,"transfer":"%s","storedAt":"2026-01-02T03:04:05.678Z"}`,
			name, hex.EncodeToString(f.Sum.SHA256[:]), f.Sum.Size, f.Sum.Cksum, f.Transfer)
	}
	for _, k := range goodKeys {
		m := identityOf(t, k.name)
		envelope := receiptOf(t, m, receiptClient(t), first, second)
		out, err := readReceipt(t, envelope, m.identity.Pin())
		if err != nil {
			t.Errorf("%s: %v", k.name, err)
			continue
		}
		var got, wanted any
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(`{"client":"ci","id":"c100000000000000000000000000000f","files":[`+want(first)+`,`+want(second)+`]}`), &wanted); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(wanted, got); d != "" {
			t.Errorf("%s: node reads (-want +got):\n%s", k.name, d)
		}
		if k.name != "RSA-3072" {
			continue
		}
		changed := bytes.Replace(envelope, []byte(`"sig":"`), []byte(`"sig":"A`), 1)
		if _, err := readReceipt(t, changed, m.identity.Pin()); err == nil {
			t.Errorf("%s: node takes a receipt that was changed", k.name)
		}
	}
}

func TestSignReceiptRefuses(t *testing.T) {
	m, client, good := identityOf(t, "P-256"), receiptClient(t), receiptFile(t, "a", "one")
	with := func(change func(*proto.Stored)) []proto.Stored {
		f := good
		change(&f)
		return []proto.Stored{good, f}
	}
	for name, test := range map[string]struct {
		client proto.Registration
		files  []proto.Stored
	}{
		"no file":           {client, nil},
		"129 files":         {client, many(good, 129)},
		"client of no name": {proto.Registration{ID: client.ID}, []proto.Stored{good}},
		"file of no name":   {client, with(func(f *proto.Stored) { f.Name = proto.FileName{} })},
		"size below 0":      {client, with(func(f *proto.Stored) { f.Sum.Size = -1 })},
		"no time":           {client, with(func(f *proto.Stored) { f.At = time.Time{} })},
		"year 10000":        {client, with(func(f *proto.Stored) { f.At = time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC) })},
		"too long":          {client, many(receiptFile(t, longName(1023), ""), 64)},
	} {
		if envelope, err := m.identity.SignReceipt(test.client, test.files); err == nil || envelope != nil {
			t.Errorf("%s: got %d bytes, %v, want an error", name, len(envelope), err)
		}
	}
}

func many(f proto.Stored, n int) []proto.Stored {
	files := make([]proto.Stored, n)
	for i := range files {
		files[i] = f
	}
	return files
}

// longName is a name of n bytes that all have to be escaped, as far as names go.
func longName(n int) string {
	var s strings.Builder
	for s.Len() < n {
		if s.Len()%256 == 255 {
			s.WriteByte('/')
		} else {
			s.WriteByte('"')
		}
	}
	return s.String()
}

// As many files as fit are signed, and the next one would not have fitted.
func TestReceiptFits(t *testing.T) {
	client := receiptClient(t)
	for _, k := range goodKeys {
		m := identityOf(t, k.name)
		for _, length := range []int{1, 200, 400, 600, 800, 1023} {
			files := many(receiptFile(t, longName(length), ""), 140)
			n := proto.ReceiptFits(m.identity, client, files)
			if n < 1 || n > 128 || length == 1 && n != 128 || length == 1023 && n > 30 {
				t.Errorf("%s: %d files with names of %d bytes fit", k.name, n, length)
			}
			envelope := receiptOf(t, m, client, files[:n]...)
			s, err := proto.VerifyReceipt(envelope, m.identity.Pin())
			if err != nil || len(s.Files) != n {
				t.Errorf("%s: a receipt of %d files with names of %d bytes: %d files, %v", k.name, n, length, len(s.Files), err)
			}
			// A longer signature than these keys have is reckoned with.
			if _, err := m.identity.SignReceipt(client, files[:min(n+4, 140)]); err == nil && n < 128 {
				t.Errorf("%s: %d files with names of %d bytes fit, but four more do as well", k.name, n, length)
			}
		}
		if n := proto.ReceiptFits(m.identity, client, nil); n != 0 {
			t.Errorf("of no files %d fit", n)
		}
	}
}

// Past the limit nothing is parsed.
func TestReceiptTooLong(t *testing.T) {
	m := identityOf(t, "Ed25519")
	envelope := receiptOf(t, m, receiptClient(t), receiptFile(t, "a", "one"))
	padded := append(envelope, bytes.Repeat([]byte(" "), 64<<10)...)
	_, err := proto.VerifyReceipt(padded, m.identity.Pin())
	if err == nil || !strings.Contains(err.Error(), "65536 are the limit") {
		t.Errorf("got %v, want that it is too long", err)
	}
	const size = 64 << 10
	junk := bytes.Repeat([]byte("["), size)
	if n := testing.AllocsPerRun(3, func() { _, _ = proto.VerifyReceipt(append(junk, '['), proto.Pin{}) }); n > 20 {
		t.Errorf("%v allocations for what is too long", n)
	}
}

func TestReceiptRoundTrip(t *testing.T) {
	var kinds []made
	for _, k := range goodKeys[1:] {
		kinds = append(kinds, identityOf(t, k.name))
	}
	rapid.Check(t, func(t *rapid.T) {
		m := rapid.SampledFrom(kinds).Draw(t, "identity")
		client := proto.Registration{Name: drawClientName(t)}
		copy(client.ID[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
		want := proto.Statement{Server: m.identity.Pin(), Client: client.Name, ClientID: client.ID}
		for range rapid.IntRange(1, 6).Draw(t, "files") {
			want.Files = append(want.Files, drawStored(t))
		}
		envelope, err := m.identity.SignReceipt(client, want.Files)
		if err != nil {
			t.Fatal(err)
		}
		got, err := proto.VerifyReceipt(envelope, m.identity.Pin())
		if err != nil {
			t.Fatalf("%v: %s", err, envelope)
		}
		for i := range want.Files {
			want.Files[i].At = want.Files[i].At.UTC().Truncate(time.Millisecond)
		}
		if d := cmp.Diff(want, got, compareStatements); d != "" {
			t.Fatalf("statement (-want +got):\n%s", d)
		}
		if !json.Valid(envelope) {
			t.Fatalf("no JSON: %s", envelope)
		}
	})
}

// drawPart is a part of a name: any characters that are allowed, the odd ones
// more often.
func drawPart(t *rapid.T) string {
	runes := rapid.OneOf(
		rapid.SampledFrom([]rune("\"<>&'{}[]:,%+ \u00a0\u2028\u2029\ufeff\ufffd\u0301é日\U0001F600\U0010FFFF")),
		rapid.Rune().Filter(func(r rune) bool { return !unicode.IsControl(r) && r != '/' && r != '\\' }))
	return rapid.StringOfN(runes, 1, 40, 250).Filter(func(s string) bool { return s != "." && s != ".." }).Draw(t, "part")
}

func drawClientName(t *rapid.T) proto.ClientName {
	n, err := proto.ParseClientName(drawPart(t))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func drawStored(t *rapid.T) proto.Stored {
	var parts []string
	for range rapid.IntRange(1, 4).Draw(t, "parts") {
		parts = append(parts, drawPart(t))
	}
	name, err := proto.ParseFileName(strings.Join(parts, "/"))
	if err != nil {
		t.Fatal(err)
	}
	f := proto.Stored{Name: name}
	f.Sum.Size = rapid.Int64Range(0, math.MaxInt64).Draw(t, "size")
	f.Sum.Cksum = rapid.Uint32().Draw(t, "cksum")
	copy(f.Sum.SHA256[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "sha256"))
	copy(f.Transfer[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "transfer"))
	zone := time.FixedZone("", rapid.IntRange(-12*3600, 14*3600).Draw(t, "zone"))
	f.At = time.Unix(rapid.Int64Range(-2_000_000_000, 200_000_000_000).Draw(t, "at"), rapid.Int64Range(0, 999_999_999).Draw(t, "nanoseconds")).In(zone)
	return f
}

// FuzzVerifyReceipt: what is verified is what was signed, byte for byte.
func FuzzVerifyReceipt(f *testing.F) {
	m := identityOf(f, "Ed25519")
	envelope := receiptOf(f, m, receiptClient(f), receiptFile(f, "a/b \"c\"", "one"), receiptFile(f, "d", "two"))
	f.Add(envelope)
	f.Add([]byte(`{"payloadType":"application/vnd.in-toto+json","payload":"e30=","signatures":[{"keyid":"` + m.identity.Pin().String() + `","sig":""}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := proto.VerifyReceipt(b, m.identity.Pin()); err == nil && !bytes.Equal(b, envelope) {
			t.Errorf("a receipt that nobody signed is verified: %+v", s)
		}
	})
}

func BenchmarkSignReceipt(b *testing.B) {
	for _, n := range []int{1, 64} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			m, client, files := identityOf(b, "RSA-3072"), receiptClient(b), many(receiptFile(b, "build-17/app.tar.gz", "one"), n)
			for b.Loop() {
				receiptOf(b, m, client, files...)
			}
		})
	}
}

func BenchmarkVerifyReceipt(b *testing.B) {
	m := identityOf(b, "RSA-3072")
	envelope := receiptOf(b, m, receiptClient(b), many(receiptFile(b, "build-17/app.tar.gz", "one"), 64)...)
	for b.Loop() {
		if _, err := proto.VerifyReceipt(envelope, m.identity.Pin()); err != nil {
			b.Fatal(err)
		}
	}
}
