package main

import (
	"net/http"
	"strconv"
	"strings"
)

// bearer is the name of the one way in which requests say who they come from.
const bearer = "bearer"

func securitySchemes() object {
	return object{bearer: object{
		"type": "http", "scheme": "bearer",
		"description": "A token that `ferry token create` made. A gateway that has never had one, on loopback, lets everybody in without. " +
			"The scope upload is to send files, and to see and cancel those sent under the token's name; read is to see all; admin is everything.",
	}}
}

// mendSecurity says which scope an operation needs, and how it is refused without
// a token. The empty alternative is a gateway that has none.
func mendSecurity(item object, path, method string) error {
	op, err := child(item, method)
	if err != nil {
		return err
	}
	if isPublic(path, method) {
		op["security"] = []any{}
		return nil
	}
	op["security"] = []any{object{}, object{bearer: []any{scope(path, method)}}}
	responses, err := child(op, "responses")
	if err != nil {
		return err
	}
	responses[strconv.Itoa(http.StatusUnauthorized)] = object{
		"description": "No token, or one that is not good",
		"headers":     refer("X-Request-Id", "WWW-Authenticate"),
		"content":     object{problemType: object{"schema": object{"$ref": schemaRef + "Problem"}}},
	}
	return nil
}

// isPublic reports whether an operation tells nothing of anybody's uploads; the
// gateway's function of that name decides.
func isPublic(path, method string) bool {
	switch path {
	case "/", "/healthz", "/readyz", "/openapi.yaml", "/docs":
		return true
	}
	return method == "get" && strings.HasPrefix(path, "/problems")
}

// scope is what is enough for an operation on uploads of one's own, or on all
// where there is none on one's own.
func scope(path, method string) string {
	switch {
	case method == "get" && strings.HasPrefix(path, "/uploads"):
		return "upload"
	case method == "get":
		return "read"
	case path == "/uploads" && method == "post", method == "put", method == "delete", strings.HasSuffix(path, "/cancel"):
		return "upload"
	}
	return "admin"
}
