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

// addLabel adds KEY=VALUE to labels. The same label twice is one.
func addLabel(labels map[string]string, given string) error {
	key, value, err := parseLabel(given)
	if err != nil {
		return err
	}
	before, known := labels[key]
	switch {
	case known && before != value:
		return refusal(kindLabel, "The label %s is given with two values. Nothing of this request was kept. Give each label one value.", key)
	case !known && len(labels) == maxLabels:
		return &refusalError{problemKind: kindLabel, limit: maxLabels, detail: fmt.Sprintf("An upload has %d labels at most. Nothing of this request was kept. Give fewer.", maxLabels)}
	}
	labels[key] = value
	return nil
}

// parseLabel takes KEY=VALUE apart. A value may have more of =.
func parseLabel(given string) (key, value string, err error) {
	key, value, ok := strings.Cut(given, "=")
	switch {
	case !ok || key == "" || len(key) > maxLabelKey || strings.Trim(key, labelKeyChars) != "":
		return "", "", refusal(kindLabel, "%.80q is not a label. Nothing of this request was kept. Write it as key=value; the key has 1 to %d characters of a-z, 0-9, dot, underscore, slash and hyphen.", given, maxLabelKey)
	case !utf8.ValidString(value) || utf8.RuneCountInString(value) > maxLabelValue || strings.ContainsFunc(value, isUnprintable):
		return "", "", refusal(kindLabel, "The value of the label %s cannot be kept. Nothing of this request was kept. A value has up to %d printable characters of UTF-8.", key, maxLabelValue)
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
