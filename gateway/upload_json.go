package gateway

import (
	"bytes"
	"maps"
	"slices"
	"strconv"
	"time"
)

// appendJSON writes what encoding/json does, in a part of the time: nearly every answer is one upload.
func (u *Upload) appendJSON(b []byte) []byte {
	b = appendString(append(b, `{"id":`...), u.ID.String())
	b = appendString(append(b, `,"name":`...), u.Name)
	b = appendOrNull(append(b, `,"size":`...), u.Size, appendInt)
	b = appendString(append(b, `,"state":`...), u.State)
	b = strconv.AppendBool(append(b, `,"held":`...), u.Held)
	b = appendOrNull(append(b, `,"phase":`...), u.Phase, appendString)
	b = appendInt(append(b, `,"progress":{"bytes":`...), u.Progress.Bytes)
	b = appendInt(append(b, `,"total_bytes":`...), u.Progress.TotalBytes)
	b = appendInt(append(b, `,"packets":`...), u.Progress.Packets)
	b = appendInt(append(b, `,"total_packets":`...), u.Progress.TotalPackets)
	b = appendInt(append(b, `},"attempts":{"count":`...), u.Attempts.Count)
	b = appendOrNull(append(b, `,"last_error":`...), u.Attempts.LastError, appendString)
	b = appendOrNull(append(b, `,"next_at":`...), u.Attempts.NextAt, appendTime)
	b = appendOrNull(append(b, `},"mode":`...), u.Mode, appendString)
	b = appendOrNull(append(b, `,"modified_at":`...), u.ModifiedAt, appendTime)
	b = appendOrNull(append(b, `,"sha256":`...), u.SHA256, appendString)
	b = appendOrNull(append(b, `,"cksum":`...), u.Cksum, appendInt)
	b = appendString(append(b, `,"destination":`...), u.Destination)
	b = appendString(append(b, `,"destination_name":`...), u.DestinationName)
	b = appendOrNull(append(b, `,"blocked":`...), u.Blocked, appendString)
	b = appendTime(append(b, `,"created_at":`...), u.CreatedAt)
	b = appendTime(append(b, `,"updated_at":`...), u.UpdatedAt)
	b = appendOrNull(append(b, `,"delivered_at":`...), u.DeliveredAt, appendTime)
	b = appendOrNull(append(b, `,"receipt":`...), u.Receipt, appendString)
	b = appendOrNull(append(b, `,"error":`...), u.Error, appendString)
	b = append(b, `,"labels":`...)
	if u.Labels == nil {
		return append(b, "null}"...)
	}
	b = append(b, '{')
	for i, key := range slices.Sorted(maps.Keys(u.Labels)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, key)
		b = appendString(append(b, ':'), u.Labels[key])
	}
	return append(b, "}}"...)
}

func appendOrNull[T any](b []byte, v *T, write func([]byte, T) []byte) []byte {
	if v == nil {
		return append(b, "null"...)
	}
	return write(b, *v)
}

func appendInt[T int | int64 | uint32](b []byte, v T) []byte {
	return strconv.AppendInt(b, int64(v), 10)
}

func appendString[T ~string](b []byte, v T) []byte {
	for i := range len(v) {
		if c := v[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return append(b, bytes.TrimSuffix(encodeJSON(string(v)), []byte("\n"))...)
		}
	}
	b = append(append(b, '"'), v...)
	return append(b, '"')
}

// appendTime writes a time of a year with four digits, as all of an upload are.
func appendTime(b []byte, t time.Time) []byte {
	return append(t.AppendFormat(append(b, '"'), time.RFC3339Nano), '"')
}
