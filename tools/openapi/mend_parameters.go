package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// examples are those of parameters without a line of their own in the
// annotations.
var examples = map[string]any{
	"get /problems/{name} name": "too-large",
	"put /uploads/{id} id":      "build-17/app.txt",
	"id":                        exampleID,
}

// asGood are header fields of the operations that take files which say the same
// as others that the annotations have.
const asGood = `[
	{"name": "Content-Digest", "in": "header", "schema": {"type": "string", "examples": ["sha-256=:y2Ry/HrB375HT0MPi5JhRFjGYN9wgiPl84SGUbpgZI8=:"]},
		"description": "The same as Repr-Digest"},
	{"name": "Content-MD5", "in": "header", "schema": {"type": "string", "examples": ["V7JZoBdnGO4FMpmFYkyohw=="]},
		"description": "The MD5 of the body, in base64"},
	{"name": "X-Checksum-Sha256", "in": "header", "schema": {"type": "string", "minLength": 64, "maxLength": 64, "examples": ["cb6472fc7ac1dfbe474f430f8b92614458c660df708223e5f3848651ba60648f"]},
		"description": "The SHA-256 of the body, in hexadecimal digits; not with a form"},
	{"name": "Last-Modified", "in": "header", "schema": {"type": "string", "examples": ["Sat, 14 Mar 2026 15:09:26 GMT"]},
		"description": "The same as X-Ferry-Mtime, which goes before it, in whole seconds"}
]`

// mendParameters says of parameters what is lost on the way from Swagger 2.0, the
// examples and bounds of lists, and adds those that say the same as others.
func mendParameters(paths, swagger object) error {
	var more []any
	if err := json.Unmarshal([]byte(asGood), &more); err != nil {
		return fmt.Errorf("parameters: %w", err)
	}
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		for method, op := range paths[path].(object) {
			op, ok := op.(object)
			if !ok {
				continue
			}
			given, err := child(swagger, "paths", path, method)
			if err != nil {
				return err
			}
			all, _ := op["parameters"].([]any)
			for _, p := range all {
				mendParameter(p.(object), given, method+" "+path)
			}
			if takesFiles(path, method) {
				op["parameters"] = append(all, more...)
			}
		}
	}
	return nil
}

func takesFiles(path, method string) bool {
	return path == "/uploads" && method == "post" || method == "put"
}

// mendParameter gives a parameter the example that was given, and the bound of
// labels. Of what need not be there, it is one of the schema: Swagger UI sends
// those of parameters with every request, as long as nobody takes them out.
func mendParameter(p, given object, operation string) {
	name, schema := p["name"].(string), p["schema"].(object)
	example := exampleOf(p, given, operation)
	if example != nil && schema["type"] == "array" {
		example = []any{example}
	}
	switch {
	case example == nil:
	case p["required"] == true:
		p["example"] = example
	default:
		schema["examples"] = []any{example}
	}
	if name == "label" {
		schema["maxItems"] = 16
	}
}

func exampleOf(p, given object, operation string) any {
	name := p["name"].(string)
	was, _ := given["parameters"].([]any)
	for _, w := range was {
		if w := w.(object); w["name"] == name && w["in"] == p["in"] && w["example"] != nil {
			return w["example"]
		}
	}
	if example, ok := examples[operation+" "+name]; ok {
		return example
	}
	return examples[name]
}
