package proto

import (
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"ferry/proto/v4"
)

// serverTLS is TLS 1.3 without tickets: every connection has keys of its own.
func serverTLS(id ServerIdentity) *tls.Config {
	return &tls.Config{
		Certificates:                []tls.Certificate{id.certificate()},
		MinVersion:                  tls.VersionTLS13,
		NextProtos:                  []string{v4.Protocol},
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true,
	}
}

// clientTLS checks the server at address, HOST:PORT, as the destination says:
// by the pin of its key, or by the system's authorities and the host's name. The
// error of a server that is another one, or of a destination that says neither,
// is an [ErrPin].
func clientTLS(to destinationV4, address string) (*tls.Config, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	cfg := &tls.Config{
		ServerName:                  host,
		MinVersion:                  tls.VersionTLS13,
		NextProtos:                  []string{v4.Protocol},
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true,
	}
	switch {
	case to.ca:
	case to.pin != Pin{}:
		// The name and the dates of a certificate say nothing here; its key does, and
		// VerifyConnection compares it with the pin.
		cfg.InsecureSkipVerify = true
		cfg.VerifyConnection = func(state tls.ConnectionState) error {
			if got := pinOf(state); got != to.pin {
				return fmt.Errorf("%w: it has the key %s, and %s is expected", ErrPin, got, to.pin)
			}
			return nil
		}
	default:
		return nil, fmt.Errorf("%w: there is no pin for %s", ErrPin, address)
	}
	return cfg, nil
}

// pinOf is the pin of the key that the other end has shown, and proved in the
// handshake to have.
func pinOf(state tls.ConnectionState) Pin {
	if len(state.PeerCertificates) == 0 {
		return Pin{}
	}
	return Pin(sha256.Sum256(state.PeerCertificates[0].RawSubjectPublicKeyInfo))
}

// notVouchedFor makes an [ErrPin] of a certificate that the system's authorities
// do not vouch for.
func notVouchedFor(err error) error {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return fmt.Errorf("%w: the system's certificate authorities do not vouch for it: %w", ErrPin, err)
	}
	return err
}
