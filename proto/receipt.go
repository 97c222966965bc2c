package proto

import "time"

// A Statement is what a receipt says: that the server held these files, verified
// and durable.
type Statement struct {
	Server   Pin
	Client   ClientName
	ClientID ClientID
	Files    []Stored
}

// VerifyReceipt checks a receipt with nothing but the pin of the server that
// signed it. Any byte that is not what [docs/protocol-v4.md] prescribes is an
// error, so that a receipt that was changed in whatever way is none.
func VerifyReceipt(envelope []byte, server Pin) (Statement, error) { panic("not built") }

var _ = time.Time{}
