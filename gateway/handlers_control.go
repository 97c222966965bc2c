package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/oklog/ulid/v2"
)

// cancelUpload cancels an upload and never forgets one.
//
//	@Summary		Cancel an upload
//	@ID				cancelUpload
//	@Tags			uploads
//	@Produce	json
//	@Description	Cancels an upload that is under way and answers what it is then: it may have been delivered meanwhile. One that is delivered, failed or cancelled stays as it is, and is the answer. Of one whose bytes are still coming in nothing is kept.
//	@Param			id	path		string	true	"The upload's id"
//	@Param			If-Match	header	string	false	"The ETag that the upload must still have: else nothing is changed"
//	@Param			If-None-Match	header	string	false	"An ETag that the upload must not have: else nothing is changed"
//	@Success		200	{object}	Upload	"No longer under way"
//	@Failure		400	{object}	problem	"The address has a parameter: there are none"
//	@Failure		404	{object}	problem	"There is no such upload"
//	@Failure		412	{object}	problem	"It is not any more as If-Match has it, or is what If-None-Match has"
//	@Router			/uploads/{id}/cancel [post]
func (a *httpAPI) cancelUpload(x *exchange, r *http.Request) error {
	return a.control(x, r, a.core.cancel)
}

// holdUpload keeps an upload from being delivered.
//
//	@Summary		Hold an upload
//	@ID				holdUpload
//	@Tags			uploads
//	@Produce	json
//	@Description	Keeps an upload that is queued or waits from being delivered until it is released or retried, over restarts as well. Those of the same name that came later wait behind it.
//	@Param			id	path		string	true	"The upload's id"
//	@Param			If-Match	header	string	false	"The ETag that the upload must still have: else nothing is changed"
//	@Param			If-None-Match	header	string	false	"An ETag that the upload must not have: else nothing is changed"
//	@Success		200	{object}	Upload	"It is held"
//	@Failure		400	{object}	problem	"The address has a parameter: there are none"
//	@Failure		404	{object}	problem	"There is no such upload"
//	@Failure		412	{object}	problem	"It is not any more as If-Match has it, or is what If-None-Match has"
//	@Failure		409	{object}	problem	"It is coming in, being delivered, or final"
//	@Router			/uploads/{id}/hold [post]
func (a *httpAPI) holdUpload(x *exchange, r *http.Request) error {
	return a.control(x, r, a.core.hold)
}

// releaseUpload lets an upload be delivered that was held.
//
//	@Summary		Release an upload
//	@ID				releaseUpload
//	@Tags			uploads
//	@Produce	json
//	@Description	Lets an upload that is held be delivered, at once. One that is not held stays as it is.
//	@Param			id	path		string	true	"The upload's id"
//	@Param			If-Match	header	string	false	"The ETag that the upload must still have: else nothing is changed"
//	@Param			If-None-Match	header	string	false	"An ETag that the upload must not have: else nothing is changed"
//	@Success		200	{object}	Upload	"It is not held"
//	@Failure		400	{object}	problem	"The address has a parameter: there are none"
//	@Failure		404	{object}	problem	"There is no such upload"
//	@Failure		412	{object}	problem	"It is not any more as If-Match has it, or is what If-None-Match has"
//	@Failure		409	{object}	problem	"It is coming in, being delivered, or final"
//	@Router			/uploads/{id}/release [post]
func (a *httpAPI) releaseUpload(x *exchange, r *http.Request) error {
	return a.control(x, r, a.core.release)
}

func (a *httpAPI) control(x *exchange, r *http.Request, act func(context.Context, ulid.ULID) (Upload, error)) error {
	id, err := uploadID(r)
	if err != nil {
		return err
	}
	u, err := act(r.Context(), id)
	if err != nil {
		return err
	}
	x.represent(http.StatusOK, u, u.SHA256)
	return nil
}

// Limits of bulkUploads.
const (
	bulkPath    = uploadsPath + "bulk"
	maxBulk     = 1000
	maxBulkBody = 64 << 10 // bytes: an id has 26 characters
)

// bulkOrder is what to do with many uploads.
type bulkOrder struct {
	Action string   `json:"action" enums:"cancel,delete,retry,hold,release" validate:"required"`
	IDs    []string `json:"ids" validate:"required"`
}

// bulkAnswer says what became of each upload, in the order of the ids.
type bulkAnswer struct {
	Results []bulkResult `json:"results"`
}

// bulkResult is the answer that a request for one upload would have had.
type bulkResult struct {
	ID      string   `json:"id"`
	Status  int      `json:"status" example:"200"`
	Upload  *Upload  `json:"upload"`  // null if it was forgotten, or if there is a problem
	Problem *problem `json:"problem"` // null if there is none
}

// bulkUploads does the same with many uploads.
//
//	@Summary		Control many uploads
//	@ID				bulkUploads
//	@Tags			uploads
//	@Accept			json
//	@Produce	json
//	@Description	Does one thing with up to 1,000 uploads, one after another, and answers for each as a request for it alone would have been answered: one that cannot be done keeps none of the others from it. To cancel those that are being delivered may take 5 seconds for all together, and a quarter of a second more for each; one that is `delivering` in the answer ends once it is known what becomes of it.
//	@Param			order	body		bulkOrder	true	"What to do, and with which uploads"
//	@Success		200	{object}	bulkAnswer	"What became of each"
//	@Failure		400	{object}	problem	"The body cannot be read, or the address has a parameter"
//	@Router			/uploads/bulk [post]
func (a *httpAPI) bulkUploads(x *exchange, r *http.Request) error {
	order, err := readOrder(r.Body)
	if err != nil {
		return err
	}
	act := map[string]func(context.Context, ulid.ULID) (int, *Upload, error){
		"cancel":  orderly(http.StatusOK, a.core.cancel),
		"retry":   orderly(http.StatusAccepted, a.core.retry),
		"hold":    orderly(http.StatusOK, a.core.hold),
		"release": orderly(http.StatusOK, a.core.release),
		"delete": func(ctx context.Context, id ulid.ULID) (int, *Upload, error) {
			u, gone, err := a.core.remove(ctx, id)
			if gone {
				return http.StatusNoContent, nil, err
			}
			return http.StatusOK, &u, err
		},
	}[order.Action]
	if act == nil {
		return refusal(kindBody, "The action is %.40q; it is cancel, delete, retry, hold or release. Nothing was done.", order.Action)
	}
	ctx := sharingWait(r.Context())
	answer := bulkAnswer{Results: make([]bulkResult, 0, len(order.IDs))}
	for _, text := range order.IDs {
		result := bulkResult{ID: text}
		id, err := ulid.ParseStrict(text)
		if err != nil {
			err = errNotFound
		} else if err = a.door.within(r.Context(), text, callerOf(r.Context())); err == nil {
			result.Status, result.Upload, err = act(ctx, id)
		}
		if err != nil {
			if r.Context().Err() != nil {
				return err
			}
			p := a.problemOf(x, a.explain(r, err))
			result.Status, result.Upload, result.Problem = p.Status, nil, &p
		}
		answer.Results = append(answer.Results, result)
	}
	x.json(http.StatusOK, jsonType, answer)
	return nil
}

// orderly gives an action its status.
func orderly(status int, act func(context.Context, ulid.ULID) (Upload, error)) func(context.Context, ulid.ULID) (int, *Upload, error) {
	return func(ctx context.Context, id ulid.ULID) (int, *Upload, error) {
		u, err := act(ctx, id)
		return status, &u, err
	}
}

func readOrder(body io.Reader) (o bulkOrder, err error) {
	b, err := io.ReadAll(io.LimitReader(body, maxBulkBody+1))
	if err != nil {
		return bulkOrder{}, err
	}
	if len(b) > maxBulkBody {
		return bulkOrder{}, refusal(kindBody, "The body has more than %s bytes. Nothing was done. Send fewer ids at once.", grouped(maxBulkBody))
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&o); err == nil {
		_, err = d.Token()
		if errors.Is(err, io.EOF) {
			return o, checkIDs(o.IDs)
		}
	}
	return bulkOrder{}, refusal(kindBody, `The body is not as it is to be. Nothing was done. Send {"action": "cancel", "ids": ["01K62Q3V7N5CW0M8DJ4RXEBZ9T"]}.`)
}

// checkIDs wants each id once: what the second was to do could not be told from
// what the first did.
func checkIDs(ids []string) error {
	if len(ids) == 0 || len(ids) > maxBulk {
		return refusal(kindBody, "There are %d ids; 1 to %s can be given at once. Nothing was done.", len(ids), grouped(maxBulk))
	}
	sorted := slices.Sorted(func(yield func(string) bool) {
		for _, id := range ids {
			if !yield(strings.ToUpper(id)) {
				return
			}
		}
	})
	if len(slices.Compact(sorted)) != len(ids) {
		return refusal(kindBody, "An id is given more than once. Nothing was done. Give each once.")
	}
	return nil
}
