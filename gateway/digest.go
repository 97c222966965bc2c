package gateway

import (
	"bytes"
	"crypto/md5" //nolint:gosec // Content-MD5 finds what broke by accident
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"io"
	"net/http"
	"strings"
)

const (
	reprDigest     = "Repr-Digest"
	contentDigest  = "Content-Digest"
	contentMD5     = "Content-Md5" // as net/http writes it
	sha256Checksum = "X-Checksum-Sha256"

	algorithmSHA256 = "sha-256"
	algorithmSHA512 = "sha-512"
	algorithmMD5    = "md5"
)

// digestFields are what may say what a request's body adds up to, in its header
// or its trailer. As bodies have no Content-Encoding, and are whole, the content
// is the representation: Content-Digest and Repr-Digest of RFC 9530 are of the
// same bytes.
var digestFields = []string{reprDigest, contentDigest, contentMD5, sha256Checksum}

// A stated digest is one that a field has.
type stated struct {
	field, algorithm string
	sum              []byte
}

// digests checks a request's body against what its sender says of it. Only what
// may be needed is computed.
type digests struct {
	header  []stated
	trailer http.Header          // filled at the end of the body
	late    []string             // the fields of it that were announced
	hashes  map[string]hash.Hash // nil if nothing is needed
}

// newDigests reads the digests in the header of a request, and sees from Trailer
// what may come after its body. own tells that somebody else computes SHA-256.
func newDigests(r *http.Request, own bool) (*digests, error) {
	d := &digests{trailer: r.Trailer}
	var err error
	if d.header, err = statedDigests(r.Header); err != nil {
		return nil, err
	}
	for _, s := range d.header {
		d.need(s.algorithm)
	}
	for field := range r.Trailer {
		d.late = append(d.late, field)
		switch field {
		case reprDigest, contentDigest: // of which algorithm it will be nobody knows yet
			d.need(algorithmSHA256)
			d.need(algorithmSHA512)
		case contentMD5:
			d.need(algorithmMD5)
		case sha256Checksum:
			d.need(algorithmSHA256)
		}
	}
	if own {
		delete(d.hashes, algorithmSHA256)
	}
	return d, nil
}

func (d *digests) need(algorithm string) {
	if d.hashes[algorithm] != nil {
		return
	}
	if d.hashes == nil {
		d.hashes = map[string]hash.Hash{}
	}
	switch algorithm {
	case algorithmSHA256:
		d.hashes[algorithm] = sha256.New()
	case algorithmSHA512:
		d.hashes[algorithm] = sha512.New()
	case algorithmMD5:
		d.hashes[algorithm] = md5.New() //nolint:gosec // as above
	}
}

// announcedSHA256 is the one that the header states.
func (d *digests) announcedSHA256() (sum [sha256.Size]byte, ok bool) {
	for _, s := range d.header {
		if s.algorithm == algorithmSHA256 {
			return [sha256.Size]byte(s.sum), true
		}
	}
	return sum, false
}

// writer is what all of the body has to be written to; nil if nothing.
func (d *digests) writer() io.Writer {
	var all []io.Writer
	for _, h := range d.hashes {
		all = append(all, h)
	}
	if len(all) == 0 {
		return nil
	}
	return io.MultiWriter(all...)
}

// check compares, after the end of the body. sum256 is its SHA-256 where somebody
// else has computed that, else nil.
func (d *digests) check(sum256 []byte) error {
	late, err := statedDigests(d.announced())
	if err != nil {
		return err
	}
	for _, s := range append(d.header, late...) {
		got := sum256
		if h := d.hashes[s.algorithm]; h != nil {
			got = h.Sum(nil)
		}
		if !bytes.Equal(got, s.sum) {
			return refusal(kindMismatch, "Its %s says that the %s of its body is %x, and what came has %x. It was dropped, and nothing of this request was kept. Send it again; if that does not help, the file changed after its digest was computed, or something between here and there changes it.",
				s.field, s.algorithm, s.sum, got)
		}
	}
	return nil
}

// announced is what has come of the trailer, without the fields that nothing was
// computed for as their sender did not announce them.
func (d *digests) announced() http.Header {
	h := http.Header{}
	for _, field := range d.late {
		h[field] = d.trailer[field]
	}
	return h
}

// statedDigests reads the digests that a header or trailer has. Algorithms that
// are not known here are left out, as RFC 9530 wants.
func statedDigests(h http.Header) (all []stated, err error) {
	for _, field := range digestFields {
		values := h.Values(field)
		if len(values) == 0 || len(values) == 1 && values[0] == "" {
			continue
		}
		joined := strings.Join(values, ", ")
		var more []stated
		switch field {
		case contentMD5:
			sum, err := base64.StdEncoding.DecodeString(joined)
			if err != nil || len(sum) != md5.Size {
				return nil, refusal(kindDigest, "Content-MD5 is %.80q; it is the 16 bytes of an MD5 in base64. Nothing of this request was kept.", joined)
			}
			more = []stated{{field, algorithmMD5, sum}}
		case sha256Checksum:
			sum, err := hex.DecodeString(joined)
			if err != nil || len(sum) != sha256.Size {
				return nil, refusal(kindDigest, "X-Checksum-Sha256 is %.80q; it has 64 hexadecimal digits. Nothing of this request was kept.", joined)
			}
			more = []stated{{field, algorithmSHA256, sum}}
		default:
			if more, err = dictionaryDigests(field, joined); err != nil {
				return nil, err
			}
		}
		all = append(all, more...)
	}
	return all, nil
}

// dictionaryDigests reads a field of RFC 9530.
func dictionaryDigests(field, value string) (all []stated, err error) {
	members, ok := parseByteDictionary(value)
	for algorithm, size := range map[string]int{algorithmSHA256: sha256.Size, algorithmSHA512: sha512.Size} {
		sum, given := members[algorithm]
		switch {
		case !ok || given && len(sum) != size:
			return nil, refusal(kindDigest, "%s is %.120q; it is a dictionary such as sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=: with the bytes in base64 between colons. Nothing of this request was kept.", field, value)
		case given:
			all = append(all, stated{field, algorithm, sum})
		}
	}
	return all, nil
}

// represent answers with what uploads look like; file is the SHA-256 of the
// file, nil if it is not known or there are several.
//
// Repr-Digest is, as RFC 9530 has it, of the representation that the answer
// carries, and that is what the upload looks like, not the file: no answer has a
// Content-Location that says otherwise (RFC 9530, appendix B.7). So it is of the
// JSON, and X-Checksum-Sha256 has the digest of the file, as sha256 in the JSON.
func (x *exchange) represent(status int, value any, file *string) {
	x.representJSON(status, encodeJSON(value), file)
}

func (x *exchange) representJSON(status int, b []byte, file *string) {
	sum := sha256.Sum256(b)
	h := x.Header()
	h[reprDigest] = []string{algorithmSHA256 + "=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"}
	if file != nil {
		h[sha256Checksum] = []string{*file}
	}
	h["Content-Type"] = typeJSON
	h["Cache-Control"] = noStore
	x.WriteHeader(status)
	x.write(b)
}
