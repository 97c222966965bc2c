package gateway

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"path"

	"github.com/oklog/ulid/v2"
)

const (
	// receiptPath follows an upload's address.
	receiptPath = "/receipt"
	// receiptType is what DSSE envelopes go by where they are kept and carried; no
	// type is registered for them.
	receiptType = "application/vnd.dsse.envelope.v1+json"
)

// keepReceipt keeps an envelope, if there is one, and returns what an upload
// refers to it by. Those that share one keep it once.
func keepReceipt(ctx context.Context, tx *sql.Tx, envelope []byte) (key []byte, err error) {
	if len(envelope) == 0 {
		return nil, nil
	}
	sum := sha256.Sum256(envelope)
	if _, err := tx.ExecContext(ctx, "insert into receipts (id, envelope) values ($1, $2) on conflict do nothing", sum[:], envelope); err != nil {
		return nil, fmt.Errorf("keep receipt: %w", err)
	}
	return sum[:], nil
}

// dropReceipt forgets an envelope that no upload refers to any more.
func dropReceipt(ctx context.Context, tx *sql.Tx, key []byte) error {
	if key == nil {
		return nil
	}
	if _, err := tx.ExecContext(ctx, "delete from receipts where id = $1 and not exists (select 1 from uploads where receipt = $1)", key); err != nil {
		return fmt.Errorf("drop receipt: %w", err)
	}
	return nil
}

// receipt returns an upload and what the destination signed for it, nil if it
// has not, or errNotFound.
func (g *Gateway) receipt(ctx context.Context, id ulid.ULID) (u Upload, envelope []byte, err error) {
	if u, err = g.get(ctx, id); err != nil || u.Receipt == nil {
		return u, nil, err
	}
	err = g.db.Read().QueryRowContext(ctx, "select envelope from receipts where id = (select receipt from uploads where id = $1)", id).Scan(&envelope)
	if errors.Is(err, sql.ErrNoRows) { // forgotten meanwhile
		return Upload{}, nil, errNotFound
	}
	if err != nil {
		return Upload{}, nil, fmt.Errorf("read receipt: %w", err)
	}
	return u, envelope, nil
}

// envelope is what the description says of a receipt, which is passed on as it
// came.
type envelope struct {
	// What the payload is.
	PayloadType string `json:"payloadType" enums:"application/vnd.in-toto+json"`
	// An in-toto statement, in base64: its subjects are the files that the server held then, verified and durable, this upload's among them.
	Payload string `json:"payload"`
	// The server's signature over both, as DSSE has it.
	Signatures []signature `json:"signatures"`
}

// signature is the server's.
type signature struct {
	// The server's pin.
	KeyID string `json:"keyid" example:"sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"`
	// By its identity key, in base64.
	Sig string `json:"sig"`
}

// getReceipt returns what the destination signed.
//
//	@Summary		Get an upload's receipt
//	@ID				getReceipt
//	@Tags			uploads
//	@Produce	application/vnd.dsse.envelope.v1+json
//	@Description	What the destination signed when it had made the file durable: a DSSE envelope with an in-toto statement, byte by byte as it came. It may speak of other files that became durable together with this one. Anybody who knows the server's pin can check it, without the server: ferry verify RECEIPT FILE --pin sha256:...
//	@Description
//	@Description	It never changes, and is kept for as long as the upload is. Servers of wire version 3 give none.
//	@Param			id	path		string	true	"The upload's id"
//	@Success		200	{object}	envelope	"The receipt"
//	@Header			200	{string}	Content-Disposition	"The name to keep it under: the file's, and .receipt.json"
//	@Header			200	{string}	ETag	"Names the receipt"
//	@Success		304	"It is the one that If-None-Match names"
//	@Header			304	{string}	ETag	"Names the receipt"
//	@Failure		400	{object}	problem	"The address has a parameter: there are none"
//	@Failure		404	{object}	problem	"There is no such upload, or no receipt of it, or none yet"
//	@Router			/uploads/{id}/receipt [get]
func (a *httpAPI) getReceipt(x *exchange, r *http.Request) error {
	id, err := uploadID(r)
	if err != nil {
		return err
	}
	u, content, err := a.core.receipt(r.Context(), id)
	if err != nil {
		return err
	}
	if content == nil {
		return noReceipt(u)
	}
	s := static{content: content, mediaType: receiptType, etag: entityTag(content), saveAs: path.Base(u.Name) + ".receipt.json"}
	return s.serve(x, r)
}

// noReceipt says why there is none.
func noReceipt(u Upload) error {
	if u.State != StateDelivered {
		return refusal(kindNoReceipt, "The upload is %s, and a receipt comes with the delivery. GET the upload to see how it stands: its receipt is null until there is one.", u.State)
	}
	return refusal(kindNoReceipt, "The upload was delivered to %s, which gave no receipt for it: servers of wire version 3 have none. The upload's SHA-256 is that of the file that the server has.", u.Destination)
}
