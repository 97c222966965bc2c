package apitest

import "net/http"

// Asks is the check of requests alone.
func Asks(r *http.Request, status int, body []byte) error {
	doc, err := Description()
	if err != nil {
		return err
	}
	return asks(doc, r, status, body)
}
