package main

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// object is a JSON object.
type object = map[string]any

const (
	schemaRef   = "#/components/schemas/"
	responseRef = "#/components/responses/"
	headerRef   = "#/components/headers/"

	problemType = "application/problem+json"
)

// always are the problems that every request may meet.
var always = map[int]string{
	http.StatusForbidden:                   "A page of another origin is behind the request, or the token lacks a scope",
	http.StatusMisdirectedRequest:          "The request is for another host: the gateway answers as localhost and under loopback addresses",
	http.StatusRequestHeaderFieldsTooLarge: "The request's address and header are too long",
	http.StatusTooManyRequests:             "More requests came with the token, or from the address, than are answered",
	http.StatusInternalServerError:         "A mistake of the gateway's, which its log describes",
}

// mend makes OpenAPI 3.1 of what swag and kin-openapi left.
func mend(doc object, f facts) error {
	doc["openapi"] = "3.1.0"
	doc["servers"] = []any{object{"url": "/", "description": "The gateway that serves this description"}}
	info, err := child(doc, "info")
	if err != nil {
		return err
	}
	delete(info, "contact")
	// Swagger 2.0 knows no identifier, and there is no page to link to.
	info["license"] = object{"name": "None granted yet: all rights reserved", "identifier": "LicenseRef-All-Rights-Reserved"}
	components, err := child(doc, "components")
	if err != nil {
		return err
	}
	schemas, err := child(components, "schemas")
	if err != nil {
		return err
	}
	if err := mendSchemas(schemas, f); err != nil {
		return err
	}
	components["schemas"] = renamed(schemas)
	components["headers"] = commonHeaders()
	components["responses"] = commonResponses()
	components["securitySchemes"] = securitySchemes()
	paths, err := child(doc, "paths")
	if err != nil {
		return err
	}
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		item, err := child(paths, path)
		if err != nil {
			return err
		}
		for _, method := range slices.Sorted(maps.Keys(item)) {
			if err := mendOperation(item, method); err != nil {
				return fmt.Errorf("%s %s: %w", method, path, err)
			}
			if err := mendSecurity(item, path, method); err != nil {
				return fmt.Errorf("%s %s: %w", method, path, err)
			}
		}
	}
	if err := mendUploads(paths); err != nil {
		return err
	}
	if err := mendProblems(doc); err != nil {
		return err
	}
	mendStrings(doc)
	return nil
}

// child returns the object under a key.
func child(o object, keys ...string) (object, error) {
	for _, key := range keys {
		next, ok := o[key].(object)
		if !ok {
			return nil, fmt.Errorf("the annotations made no %s", strings.Join(keys, " / "))
		}
		o = next
	}
	return o, nil
}

// renamed gives the schemas of unexported types names of the same form as the
// others'.
func renamed(schemas object) object {
	all := object{}
	for name, s := range schemas {
		all[exported(name)] = s
	}
	return all
}

func exported(name string) string { return strings.ToUpper(name[:1]) + name[1:] }

func commonHeaders() object {
	text := object{"type": "string"}
	return object{
		"X-Request-Id":      object{"description": "Names the request in the gateway's log", "schema": text, "example": "4TQ7LJ2XRVNSX6KDKQZPHGZB3M"},
		"Repr-Digest":       object{"description": "The digest of the answer's own JSON, sha-256", "schema": text, "example": "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"},
		"X-Checksum-Sha256": object{"description": "The SHA-256 of the file, in hexadecimal digits, once it is known; not with a list", "schema": text},
		"WWW-Authenticate":  object{"description": "As RFC 6750 has it, if a token is what the request lacks", "schema": text, "example": `Bearer realm="ferry", error="invalid_token"`},
	}
}

// refer are references to the common header fields of these names.
func refer(names ...string) object {
	all := object{}
	for _, name := range names {
		all[name] = object{"$ref": headerRef + name}
	}
	return all
}

func commonResponses() object {
	all := object{}
	for status, description := range always {
		headers := refer("X-Request-Id")
		switch status {
		case http.StatusForbidden:
			headers = refer("X-Request-Id", "WWW-Authenticate")
		case http.StatusTooManyRequests:
			headers["Retry-After"] = object{"description": "When to send it again, in seconds", "schema": object{"type": "integer"}, "example": 1}
		}
		all[commonName(status)] = object{
			"description": description, "headers": headers,
			"content": object{problemType: object{"schema": object{"$ref": schemaRef + "Problem"}}},
		}
	}
	return all
}

func commonName(status int) string { return strings.ReplaceAll(http.StatusText(status), " ", "") }

// mendOperation makes problems of its errors and adds those that any request
// may meet.
func mendOperation(item object, method string) error {
	responses, err := child(item, method, "responses")
	if err != nil {
		return err
	}
	for _, code := range slices.Sorted(maps.Keys(responses)) {
		r, err := child(responses, code)
		if err != nil {
			return err
		}
		status, err := strconv.Atoi(code)
		if err != nil {
			return err
		}
		if status >= http.StatusBadRequest {
			content, err := child(r, "content")
			if err != nil {
				return err
			}
			for _, said := range content { // under the type of what is hoped for
				r["content"] = object{problemType: said}
			}
		}
		headers, _ := r["headers"].(object)
		if headers == nil {
			headers = object{}
		}
		maps.Copy(headers, refer("X-Request-Id"))
		if isUpload(r) && headers["ETag"] == nil { // else that is what it can be compared by
			maps.Copy(headers, refer("Repr-Digest", "X-Checksum-Sha256"))
		}
		r["headers"] = headers
	}
	for status := range always {
		if responses[strconv.Itoa(status)] == nil {
			responses[strconv.Itoa(status)] = object{"$ref": responseRef + commonName(status)}
		}
	}
	return nil
}

// isUpload reports whether a response shows an upload.
func isUpload(response object) bool {
	schema, err := child(response, "content", "application/json", "schema")
	return err == nil && schema["$ref"] == schemaRef+"Upload"
}

// mendStrings mends, everywhere, what is not in schemas alone: references to
// schemas that were renamed, and quotes that swag leaves escaped.
func mendStrings(value any) {
	switch v := value.(type) {
	case object:
		for key, inner := range v {
			if s, ok := inner.(string); ok {
				v[key] = mendString(key, s)
			}
			mendStrings(inner)
		}
	case []any:
		for _, inner := range v {
			mendStrings(inner)
		}
	}
}

func mendString(key, s string) string {
	if name, ok := strings.CutPrefix(s, schemaRef); ok && key == "$ref" {
		return schemaRef + exported(name)
	}
	if key == "description" {
		return strings.ReplaceAll(s, `\"`, `"`)
	}
	return s
}
