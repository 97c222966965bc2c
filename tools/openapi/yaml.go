package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// keyOrder are keys in the order in which people look for them; others follow,
// sorted.
var keyOrder = []string{
	"openapi", "info", "servers", "security", "tags", "paths", "components",
	"title", "name", "in", "operationId", "summary", "description", "required", "version",
	"get", "post", "delete", "parameters", "requestBody", "responses",
	"$ref", "type", "format", "properties", "items", "schema", "headers", "content",
	"schemas",
}

// plain are strings that YAML reads as strings without quotes; some that are
// not here would be as well.
var plain = regexp.MustCompile(`^[A-Za-z/$][A-Za-z0-9_/.;'(){}+*-]*( [A-Za-z0-9_/.;'(){}+*-]+)*$`)

// reserved are plain strings that YAML 1.1 or 1.2 reads as something else.
var reserved = regexp.MustCompile(`(?i)^(y|n|yes|no|on|off|true|false|null|~)$`)

// encode writes decoded JSON as YAML in block style, always in the same way.
func encode(o object) []byte {
	var b bytes.Buffer
	encodeObject(&b, o, "")
	return b.Bytes()
}

func encodeObject(b *bytes.Buffer, o object, indent string) {
	for i, key := range sortedKeys(o) {
		if i > 0 {
			b.WriteString(indent)
		}
		b.WriteString(scalar(key) + ":")
		encodeValue(b, o[key], indent)
	}
}

func sortedKeys(o object) []string {
	rank := func(key string) int {
		if i := slices.Index(keyOrder, key); i >= 0 {
			return i
		}
		return len(keyOrder)
	}
	return slices.SortedFunc(maps.Keys(o), func(x, y string) int {
		if d := rank(x) - rank(y); d != 0 {
			return d
		}
		return strings.Compare(x, y)
	})
}

// encodeValue writes what follows a colon or a dash.
func encodeValue(b *bytes.Buffer, value any, indent string) {
	switch v := value.(type) {
	case object:
		if len(v) == 0 {
			b.WriteString(" {}\n")
			return
		}
		b.WriteString("\n" + indent + "  ")
		encodeObject(b, v, indent+"  ")
	case []any:
		encodeList(b, v, indent)
	case string:
		encodeString(b, v, indent)
	default:
		b.WriteString(" " + scalar(v) + "\n")
	}
}

func encodeList(b *bytes.Buffer, list []any, indent string) {
	if len(list) == 0 {
		b.WriteString(" []\n")
		return
	}
	b.WriteString("\n")
	for _, item := range list {
		b.WriteString(indent + "  -")
		if o, ok := item.(object); ok && len(o) > 0 {
			b.WriteString(" ")
			encodeObject(b, o, indent+"    ")
			continue
		}
		encodeValue(b, item, indent+"  ")
	}
}

// encodeString writes text of several lines as a block.
func encodeString(b *bytes.Buffer, s, indent string) {
	lines := strings.Split(s, "\n")
	if len(lines) == 1 || strings.HasPrefix(s, " ") || strings.HasSuffix(s, "\n") || strings.ContainsFunc(s, isSpecial) {
		b.WriteString(" " + scalar(s) + "\n")
		return
	}
	b.WriteString(" |-\n")
	for _, line := range lines {
		if line != "" {
			b.WriteString(indent + "  " + line)
		}
		b.WriteString("\n")
	}
}

// scalar writes a value on one line. JSON is YAML.
func scalar(value any) string {
	if s, ok := value.(string); ok && plain.MatchString(s) && !reserved.MatchString(s) {
		return s
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		panic("internal error: " + err.Error()) // it came from JSON
	}
	return escapeSpecial(strings.TrimSuffix(b.String(), "\n"))
}

// isSpecial reports whether JSON may have r in a string as it is and YAML, at
// least as some read it, may not.
func isSpecial(r rune) bool {
	return r >= 0x7f && r <= 0x9f || r == '\ufeff' || r == '\u2028' || r == '\u2029'
}

func escapeSpecial(s string) string {
	if !strings.ContainsFunc(s, isSpecial) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if isSpecial(r) {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}
