package main

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// problems are examples of problems by their names, as the gateway answers them: a
// test provokes each.
//
//go:embed problems.json
var problems []byte

const exampleRef = "#/components/examples/"

// anywhere are the examples of what any operation may answer with a status.
var anywhere = map[int][]string{
	http.StatusUnauthorized:                {"no-token", "bad-token"},
	http.StatusForbidden:                   {"forbidden", "origin"},
	http.StatusMisdirectedRequest:          {"host"},
	http.StatusTooManyRequests:             {"pace"},
	http.StatusRequestHeaderFieldsTooLarge: {"header"},
	http.StatusInternalServerError:         {"internal"},
}

// taking are those of what operations that take files answer.
var taking = map[int][]string{
	http.StatusBadRequest:            {"parameter", "name", "destination", "label", "digest", "mismatch", "key", "incomplete"},
	http.StatusNotFound:              {"forgotten"},
	http.StatusRequestTimeout:        {"slow"},
	http.StatusConflict:              {"conflict", "cancelled", "cancelled-later", "key-running"},
	http.StatusLengthRequired:        {"length"},
	http.StatusPreconditionFailed:    {"occupied", "no-match"},
	http.StatusRequestEntityTooLarge: {"too-large"},
	http.StatusUnsupportedMediaType:  {"encoding"},
	http.StatusUnprocessableEntity:   {"key-reused"},
	http.StatusFailedDependency:      {"undelivered"},
	http.StatusServiceUnavailable:    {"busy", "stopping"},
	http.StatusInsufficientStorage:   {"full"},
}

// answering are those of what single operations answer.
var answering = map[string]map[int][]string{
	"/uploads post": with(taking, map[int][]string{
		http.StatusBadRequest:            {"unknown-send", "form", "no-file"},
		http.StatusRequestEntityTooLarge: {"too-many"},
	}),
	"/uploads/{id} put":                with(taking, map[int][]string{http.StatusBadRequest: {"unknown-put"}}),
	"/uploads get":                     {http.StatusBadRequest: {"filter", "unknown-list", "label"}},
	"/uploads/{id} get":                {http.StatusBadRequest: {"wait", "unknown-show"}, http.StatusNotFound: {"not-found"}, http.StatusServiceUnavailable: {"busy-waits"}},
	"/uploads/{id} delete":             {http.StatusBadRequest: {"unknown"}, http.StatusNotFound: {"not-found"}, http.StatusPreconditionFailed: {"changed"}},
	"/uploads/{id}/receipt get":        {http.StatusBadRequest: {"unknown"}, http.StatusNotFound: {"no-receipt", "not-found"}},
	"/uploads/{id}/events get":         {http.StatusBadRequest: {"last-event-id", "unknown"}, http.StatusNotFound: {"not-found"}, http.StatusServiceUnavailable: {"busy-events", "busy-waits"}},
	"/uploads/{id}/attempts get":       {http.StatusBadRequest: {"unknown"}, http.StatusNotFound: {"not-found"}},
	"/uploads/{id}/cancel post":        {http.StatusBadRequest: {"unknown"}, http.StatusNotFound: {"not-found"}, http.StatusPreconditionFailed: {"changed"}},
	"/uploads/{id}/retry post":         {http.StatusBadRequest: {"unknown"}, http.StatusNotFound: {"not-found"}, http.StatusPreconditionFailed: {"changed"}, http.StatusConflict: {"state"}},
	"/uploads/{id}/hold post":          {http.StatusBadRequest: {"unknown"}, http.StatusNotFound: {"not-found"}, http.StatusPreconditionFailed: {"changed"}, http.StatusConflict: {"delivering", "state"}},
	"/uploads/{id}/release post":       {http.StatusBadRequest: {"unknown"}, http.StatusNotFound: {"not-found"}, http.StatusPreconditionFailed: {"changed"}, http.StatusConflict: {"delivering", "state"}},
	"/uploads/bulk post":               {http.StatusBadRequest: {"body", "unknown"}},
	"/events get":                      {http.StatusBadRequest: {"last-event-id", "unknown"}, http.StatusServiceUnavailable: {"busy-events"}},
	"/destinations get":                {http.StatusBadRequest: {"unknown"}},
	"/destinations/{name} get":         {http.StatusBadRequest: {"unknown"}, http.StatusNotFound: {"no-destination"}},
	"/destinations/{name}/pause post":  {http.StatusBadRequest: {"unknown"}, http.StatusNotFound: {"no-destination"}},
	"/destinations/{name}/resume post": {http.StatusBadRequest: {"unknown"}, http.StatusNotFound: {"no-destination"}},
	"/problems/{name} get":             {http.StatusNotFound: {"no-kind"}},
	"/readyz get":                      {http.StatusServiceUnavailable: {"not-ready"}},
}

// with adds the names of others.
func with(all, others map[int][]string) map[int][]string {
	both := maps.Clone(all)
	for status, names := range others {
		both[status] = slices.Concat(both[status], names)
	}
	return both
}

// mendProblems gives every answer that is a problem its examples.
func mendProblems(doc object) error {
	var examples object
	if err := json.Unmarshal(problems, &examples); err != nil {
		return fmt.Errorf("problems.json: %w", err)
	}
	shown := object{}
	show := func(response object, operation string, status int) error {
		content, err := child(response, "content", problemType)
		if err != nil {
			return nil //nolint:nilerr // it is no problem
		}
		names := slices.Concat(answering[operation][status], anywhere[status])
		if len(names) == 0 {
			return fmt.Errorf("%s: no example of %d", operation, status)
		}
		all := object{}
		for _, name := range names {
			value, ok := examples[name].(object)
			if !ok || value["status"] != float64(status) {
				return fmt.Errorf("%s: the example %s is none of %d", operation, name, status)
			}
			all[name] = object{"$ref": exampleRef + name}
			shown[name] = object{"value": value}
		}
		content["examples"] = all
		return nil
	}
	if err := eachResponse(doc, show); err != nil {
		return err
	}
	if len(shown) != len(examples) {
		return fmt.Errorf("problems.json has %d examples, and %d are shown", len(examples), len(shown))
	}
	components, err := child(doc, "components")
	if err != nil {
		return err
	}
	components["examples"] = shown
	return eachResponse(doc, wantExamples)
}

// wantExamples wants every answer with data in it to have an example.
func wantExamples(response object, operation string, status int) error {
	content, _ := response["content"].(object)
	for mediaType, c := range content {
		if mediaType == "text/html" || mediaType == "application/yaml" { // the pages, and the description itself
			continue
		}
		if examples, _ := c.(object)["examples"].(object); len(examples) == 0 {
			return fmt.Errorf("%s: %d has no example in %s", operation, status, mediaType)
		}
	}
	return nil
}

// eachResponse visits the answers that are written out, those of all operations
// included.
func eachResponse(doc object, visit func(response object, operation string, status int) error) error {
	common, err := child(doc, "components", "responses")
	if err != nil {
		return err
	}
	for status := range always {
		r, err := child(common, commonName(status))
		if err != nil {
			return err
		}
		if err := visit(r, "any operation", status); err != nil {
			return err
		}
	}
	paths, err := child(doc, "paths")
	if err != nil {
		return err
	}
	for path, item := range paths {
		for method := range item.(object) {
			responses, err := child(paths, path, method, "responses")
			if err != nil {
				return err
			}
			for code, r := range responses {
				status, err := strconv.Atoi(code)
				if err != nil {
					return err
				}
				if err := visit(r.(object), strings.Join([]string{path, method}, " "), status); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
