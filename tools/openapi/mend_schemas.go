package main

import (
	"fmt"
	"strings"
)

// goTypes is what JSON Schema can say of a Go type beyond what swag says.
var goTypes = map[string]object{
	"int64":     {"format": "int64", "minimum": 0},
	"int":       {"minimum": 0},
	"uint32":    {"format": "int64", "minimum": 0, "maximum": 1<<32 - 1}, // int32 has no room for it
	"time.Time": {"format": "date-time", "examples": []any{"2026-03-14T15:09:26.535897Z"}},
	"ulid.ULID": {"pattern": "^[0-7][0-9A-HJKMNP-TV-Z]{25}$", "description": "A ULID: ids sort by the time at which uploads began", "examples": []any{"01KKPXQ7M7C1WB0K8VQ0N4Y6TJ"}},
}

// more is what no Go type says, by schema and property.
var more = map[string]map[string]object{
	"Upload": {
		"name":        {"minLength": 1, "maxLength": 1024, "description": "Under which it is stored at the destination, with / between folders", "examples": []any{"app.tar.gz"}},
		"sha256":      {"pattern": "^[0-9a-f]{64}$"},
		"labels":      {"maxProperties": 16, "examples": []any{object{"build": "17"}}},
		"destination": {"description": "The native server's URL", "examples": []any{"v3://127.0.0.1:1256?window=64"}},
		"receipt":     {"format": "uri-reference", "examples": []any{"/uploads/01KKPXQ7M7C1WB0K8VQ0N4Y6TJ/receipt"}},
	},
	"AttemptStatus": {
		"destination": {"examples": []any{"v4://files.example.org:1257"}},
	},
	"attemptList": {
		"attempts": {"maxItems": 21},
	},
	"bulkOrder": {
		"ids": {"minItems": 1, "maxItems": 1000},
	},
	"envelope": {
		"payload":    {"contentEncoding": "base64"},
		"signatures": {"minItems": 1, "maxItems": 1},
	},
	"signature": {
		"sig": {"contentEncoding": "base64"},
	},
}

// goNames are names in Go comments that the API has others for.
var goNames = strings.NewReplacer("Attempts.NextAt", "attempts.next_at", "see Error", "see error")

func mendSchemas(schemas object, f facts) error {
	for name := range schemas {
		schema, err := child(schemas, name)
		if err != nil {
			return err
		}
		if schema["enum"] != nil {
			mendEnum(schema)
			continue
		}
		properties, err := child(schema, "properties")
		if err != nil {
			return fmt.Errorf("schema %s: %w", name, err)
		}
		for property := range properties {
			p, err := child(properties, property)
			if err != nil {
				return err
			}
			goType, ok := f[name][property]
			if !ok {
				return fmt.Errorf("%s.%s is no field of a struct of that name", name, property)
			}
			properties[property] = mendProperty(p, goType, more[name][property])
		}
	}
	return checkMore(schemas)
}

// mendProperty says what swag does not: null, formats and bounds.
func mendProperty(p object, goType string, extra object) object {
	element, nullable := strings.CutPrefix(goType, "*")
	for _, add := range []object{goTypes[element], extra} {
		for key, value := range add {
			if p[key] == nil {
				p[key] = value
			}
		}
	}
	if example, ok := p["example"]; ok {
		p["examples"] = []any{example}
		delete(p, "example")
	}
	if all, ok := p["allOf"].([]any); ok && len(all) == 1 {
		// Swagger 2.0 allows no description beside a reference; 3.1 does.
		delete(p, "allOf")
		p["$ref"] = all[0].(object)["$ref"]
	}
	switch {
	case !nullable:
	case p["$ref"] != nil:
		p["anyOf"] = []any{object{"$ref": p["$ref"]}, object{"type": "null"}}
		delete(p, "$ref")
	default:
		p["type"] = []any{p["type"], "null"}
	}
	return p
}

// mendEnum turns swag's extensions into words.
func mendEnum(schema object) {
	var b strings.Builder
	values, _ := schema["enum"].([]any)
	words, _ := schema["x-enum-descriptions"].([]any)
	for i, value := range values {
		if i < len(words) {
			fmt.Fprintf(&b, "- `%s`: %s\n", value, goNames.Replace(fmt.Sprint(words[i])))
		}
	}
	if b.Len() > 0 {
		schema["description"] = strings.TrimSuffix(b.String(), "\n")
	}
	for key := range schema {
		if strings.HasPrefix(key, "x-") {
			delete(schema, key)
		}
	}
}

// checkMore finds entries of more that describe nothing any longer.
func checkMore(schemas object) error {
	for name, properties := range more {
		for property := range properties {
			if _, err := child(schemas, name, "properties", property); err != nil {
				return err
			}
		}
	}
	return nil
}
