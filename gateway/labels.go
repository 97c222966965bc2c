package gateway

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/oklog/ulid/v2"
)

const (
	maxLabels     = 16
	maxLabelKey   = 63  // bytes
	maxLabelValue = 256 // characters
)

const labelKeyChars = "abcdefghijklmnopqrstuvwxyz0123456789._/-"

// CheckLabels returns why an upload cannot have these labels, each given as
// KEY=VALUE, and nil if it can. It is the rule that requests are held to, for
// those who want to know before they make one.
func CheckLabels(given []string) error {
	labels := map[string]string{}
	for _, label := range given {
		if wrong := putLabel(labels, label); wrong != nil {
			return wrong
		}
	}
	return nil
}

// parseLabels reads the labels that a request's address gives: label=KEY=VALUE,
// repeated. They are for all files of the request.
func parseLabels(q url.Values) (map[string]string, error) {
	labels := map[string]string{}
	for _, given := range q["label"] {
		if err := addLabel(labels, given); err != nil {
			return nil, err
		}
	}
	return labels, nil
}

// addLabel adds KEY=VALUE to the labels of a request.
func addLabel(labels map[string]string, given string) error {
	wrong := putLabel(labels, given)
	if wrong == nil {
		return nil
	}
	return &refusalError{problemKind: kindLabel, limit: wrong.limit, detail: wrong.fault + " Nothing of this request was kept. " + wrong.remedy}
}

// A labelError says in sentences what is wrong with a label.
type labelError struct {
	fault, remedy string
	limit         int64
}

func (e *labelError) Error() string { return e.fault + " " + e.remedy }

// putLabel adds KEY=VALUE to labels. The same label twice is one.
func putLabel(labels map[string]string, given string) *labelError {
	key, value, wrong := parseLabel(given)
	if wrong != nil {
		return wrong
	}
	before, known := labels[key]
	switch {
	case known && before != value:
		return &labelError{fault: fmt.Sprintf("The label %s is given with two values.", key), remedy: "Give each label one value."}
	case !known && len(labels) == maxLabels:
		return &labelError{fault: fmt.Sprintf("An upload has %d labels at most.", maxLabels), remedy: "Give fewer.", limit: maxLabels}
	}
	labels[key] = value
	return nil
}

// parseLabel takes KEY=VALUE apart. A value may have more of =.
func parseLabel(given string) (key, value string, wrong *labelError) {
	key, value, ok := strings.Cut(given, "=")
	switch {
	case !ok || key == "" || len(key) > maxLabelKey || strings.Trim(key, labelKeyChars) != "":
		return "", "", &labelError{
			fault:  fmt.Sprintf("%.80q is not a label.", given),
			remedy: fmt.Sprintf("Write it as key=value; the key has 1 to %d characters of a-z, 0-9, dot, underscore, slash and hyphen.", maxLabelKey),
		}
	case !utf8.ValidString(value) || utf8.RuneCountInString(value) > maxLabelValue || strings.ContainsFunc(value, isUnprintable):
		return "", "", &labelError{
			fault:  fmt.Sprintf("The value of the label %s cannot be kept.", key),
			remedy: fmt.Sprintf("A value has up to %d printable characters of UTF-8.", maxLabelValue),
		}
	}
	return key, value, nil
}

func isUnprintable(r rune) bool { return !unicode.IsPrint(r) }

// keepLabels records by what an upload can be found, and returns them as its
// row has them.
func keepLabels(ctx context.Context, tx *sql.Tx, id ulid.ULID, labels map[string]string) (row sql.Null[string], err error) {
	if len(labels) == 0 {
		return row, nil
	}
	for key, value := range labels {
		if _, err := tx.ExecContext(ctx, "insert into labels (key, value, upload) values ($1, $2, $3)", key, value, id); err != nil {
			return row, fmt.Errorf("keep labels: %w", err)
		}
	}
	return orNull(encodeLabels(labels)), nil
}

// dropLabels forgets the labels that a row has.
func dropLabels(ctx context.Context, tx *sql.Tx, id ulid.ULID, row sql.Null[string]) error {
	labels, err := decodeLabels(row)
	if err != nil {
		return err
	}
	for key, value := range labels {
		if _, err := tx.ExecContext(ctx, "delete from labels where key = $1 and value = $2 and upload = $3", key, value, id); err != nil {
			return fmt.Errorf("drop labels: %w", err)
		}
	}
	return nil
}

// encodeLabels writes labels in the order of their keys.
func encodeLabels(labels map[string]string) string {
	return strings.TrimSuffix(string(encodeJSON(labels)), "\n")
}

func decodeLabels(row sql.Null[string]) (map[string]string, error) {
	labels := map[string]string{}
	if !row.Valid {
		return labels, nil
	}
	if err := json.Unmarshal([]byte(row.V), &labels); err != nil {
		return nil, fmt.Errorf("read labels: %w", err)
	}
	return labels, nil
}
