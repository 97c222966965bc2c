package proto

import (
	"crypto"
	"crypto/tls"
)

// CertificateOf is what an identity shows in TLS.
func CertificateOf(id ServerIdentity) tls.Certificate { return id.certificate() }

// ReceiptFits is [ServerIdentity.fits].
func ReceiptFits(id ServerIdentity, client Registration, files []Stored) int {
	return id.fits(client, files)
}

// SelfSigned is a certificate for any key, in DER.
var SelfSigned = selfSigned

// SignPAE signs whatever it is told to as receipts are signed.
func SignPAE(key crypto.Signer, payload []byte) ([]byte, error) { return signPAE(key, pae(payload)) }
