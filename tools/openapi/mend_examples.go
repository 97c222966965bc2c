package main

import (
	"encoding/json"
	"fmt"
	"strings"
)

// exampleID is the id of the upload in all examples.
const exampleID = "01KKPXQ7M7C1WB0K8VQ0N4Y6TJ"

// exampleText is the file that all examples send. Requests and answers of one
// name belong together: a test sends the one and wants the other.
const exampleText = "Hello, Ferry!\n"

// exampleUpload is how it is shown, once it is kept and once it is delivered.
const exampleUpload = `{
	"id": "` + exampleID + `", "name": "NAME", "size": 14, "state": "queued", "held": false, "phase": null,
	"progress": {"bytes": 0, "total_bytes": 14, "packets": 0, "total_packets": 0},
	"attempts": {"count": 0, "last_error": null, "next_at": null},
	"mode": "0644", "modified_at": "2026-03-14T15:09:26Z", "sha256": "` + exampleSHA256 + `", "cksum": 4226662281,
	"destination": "v4://files.example.org:1257", "destination_name": "default", "blocked": null,
	"created_at": "2026-03-14T15:09:26.535897Z", "updated_at": "2026-03-14T15:09:26.535897Z", "delivered_at": null, "receipt": null, "error": null, "labels": {"build": "17"}
}`

const exampleSHA256 = "cb6472fc7ac1dfbe474f430f8b92614458c660df708223e5f3848651ba60648f"

// exampleRow is it in CSV.
const exampleRow = "id,name,size,state,sha256,cksum,destination,attempts,created_at,updated_at,delivered_at,error,last_error,labels,destination_name\r\n" +
	exampleID + ",build-17/notes.txt,14,delivered," + exampleSHA256 + ",4226662281,v4://files.example.org:1257,1," +
	"2026-03-14T15:09:26.535897Z,2026-03-14T15:09:27.135421Z,2026-03-14T15:09:27.135421Z,,,\"{\"\"build\"\":\"\"17\"\"}\",default\r\n"

func queued(name string) object {
	var u object
	if err := json.Unmarshal([]byte(strings.Replace(exampleUpload, "NAME", name, 1)), &u); err != nil {
		panic("internal error: " + err.Error()) // it is constant
	}
	return u
}

func delivered(name string) object {
	u := queued(name)
	u["state"], u["receipt"] = "delivered", "/uploads/"+exampleID+"/receipt"
	u["updated_at"], u["delivered_at"] = "2026-03-14T15:09:27.135421Z", "2026-03-14T15:09:27.135421Z"
	u["progress"] = object{"bytes": 14, "total_bytes": 14, "packets": 1, "total_packets": 1}
	u["attempts"] = object{"count": 1, "last_error": nil, "next_at": nil}
	return u
}

// paused is it while nothing is delivered to its destination.
func paused(name string) object {
	u := queued(name)
	u["blocked"] = "the destination default is paused: the upload is delivered when it is resumed"
	return u
}

func but(u object, key string, value any) object {
	u[key] = value
	return u
}

// exampleDestination is where it is delivered to.
func exampleDestination(state string) object {
	return object{
		"name": "default", "url": "v4://files.example.org:1257", "state": state, "paused": state == "paused",
		"queued": 0, "delivering": 0, "deliveries": 32, "last_error": nil, "last_error_at": nil, "next_at": nil,
	}
}

// exampleEvent is one of a stream's.
func exampleEvent(name string, id int, data object) string {
	text, err := json.Marshal(data)
	if err != nil {
		panic("internal error: " + err.Error()) // it is constant
	}
	return fmt.Sprintf("event: %s\nid: %d\ndata: %s\n\n", name, id, text)
}

// exampleReceipt is that of the upload, signed by a server that was made for it.
const (
	receiptPayload = `eyJfdHlwZSI6Imh0dHBzOi8vaW4tdG90by5pby9TdGF0ZW1lbnQvdjEiLCJzdWJqZWN0IjpbeyJuYW1lIjoiYnVpbGQtMTcvbm90ZXMudHh0IiwiZGlnZXN0Ijp7InNoYTI1NiI6ImNiNjQ3MmZjN2FjMWRmYmU0NzRmNDMwZjhiOTI2MTQ0NThjNjYwZGY3MDgyMjNlNWYzODQ4NjUxYmE2MDY0OGYifX1dLCJwcmVkaWNhdGVUeXBlIjoiaHR0cHM6Ly9mZXJyeS5pbnZhbGlkL3JlY2VpcHQvdjEiLCJwcmVkaWNhdGUiOnsiY2xpZW50Ijp7Im5hbWUiOiJsb2NhbCIsImlkIjoiYTZlMTQ3NWZiOGI3MzIzOTg3YjUzY2Q2YzRkODM4ODIifSwic2VydmVyS2V5IjoiTUlJQm9qQU5CZ2txaGtpRzl3MEJBUUVGQUFPQ0FZOEFNSUlCaWdLQ0FZRUF2dnlPNUFFNFoyUmw5QytaQk4vOHFhUk93blg4eFZXaVcwMFlGY2lFdVlLMzBYcHB6akQrN2FGY1ZTc256djQ1ZGhpQW9hYnJRUXhndUN3RDM4aHg0dnVOeTJtRDQvS2dTU2d5bkc3S3cxN1NQV0JzbERwQU1nV2FLYXFaNzRDYm55UGhubnVtOURVYUR5SVNWTE1CV1VYTjF3cEZaMENMN0RVVGxIS0FqUWtmZjhFZFU1eW44QllUU1V5KzhjSUVteXhYMUcydU02WmF4Y0Q3L0RXVFR0d2JLR3J6NFUyUXRaM3doeG5VbGdydkpkeVpuSkVyNGhHcWtLSUhmZDNkMXdGN2hkV3I5NVdDWjc4Kys1OUR4TkhWbi8wbHhBUWxVSWpiVjVyZTZKbENwRmZCUmpIdys4QkNsUTJaNFB6RmhKczRNR1hISFhiRnU3NzJxVUtJc0JLTkdKTCtUS2tRMkc4V2pTbW1CTWNybzRNeTM0TFBidXZ6YTFkOURmRmo5aHgzZDA4bERRTVBQWGZjMXlxbmhMa0FjWll0S3FBU3cwc3NGRnNjelpJaUFSUEFNUnZiNThoOHR2WUlIblUwZGVsRzlBSTFZV2lUSUV5a1g5aUtXTVk2eGszZVZnNC96bDhqc2tFRjhCclRPMEZhVVl1UmxIWHI5eUNXbjgwWkFnTUJBQUU9IiwiZmlsZXMiOlt7InNpemUiOiIxNCIsImNrc3VtIjo0MjI2NjYyMjgxLCJ0cmFuc2ZlciI6IjAxYTIyODgzNWMzYTk2ZTk3NjhjODQwZWRmYzBkNjA4Iiwic3RvcmVkQXQiOiIyMDI2LTExLTI5VDE4OjEzOjQ3LjIwOVoifV19fQ==`
	receiptKey     = `sha256:e3c4eb03fd3611bb1896ca79b70c5dd5aaa161bdb40fec3ddde2f8c814bc88d5`
	receiptSig     = `Hbn3n9041HP+F5EwMavZCtghY7y40YT1VJQcbZFaLaw5XfzagfMf/sMZNwN6fZ5hQ2YDSD2BUOapMPawPagYhpSvTCXIIxTtUr9LnjX6nIRtGqXHLB3MKUOzUwW4DopfdwkdkcYkOxsvp7SLWmws9jBnsfcxpUQqS5Jh6U64KozDkRcXVEmHfz9hBL8OrOrwR9j9awZeXwx9miKDTlMAzEXcA7FvIvQBCeZt0HZ0mTHGQcFjPkPrw/qY0oRiGM4L5zE2st+MBUQZfaZzE7Lx+4yhT502Lj3btupusQ5Gj2vmp+6JliMiL4B3xZ9Y/AB6BJi22TX3PEY35tMQEu6Fiv9C3QBvziI4waL2wgrqKWBQWxkKISm+62JPhl4sYOeGnUD4c7l27ckgIY5IarHUCAy/d1z9N8WSRXvy3sqlTEtiWEBby6JUhGFLTDOesZ9wUbdA8/2AZ1Rxx//ggY4W6uOAuo1Jg5JUGFQ9MISiLS0wPcOP8sh8F/XbTMsf/jxx`
)

func list(uploads ...any) object { return object{"uploads": uploads} }

const (
	asRequest  = "requestBody/content/"
	jsonBody   = "/content/application/json"
	eventsBody = "/content/text/event-stream"
)

// bodyExamples are the examples of bodies by operation, and by where they are in it.
var bodyExamples = map[string]map[string]object{
	"/uploads post": {
		asRequest + "application/octet-stream": {"raw": exampleText},
		asRequest + "multipart/form-data": {"form": object{
			"file": []any{exampleText}, "label": []any{"build=17"}, "mode": "0644", "mtime": "2026-03-14T15:09:26Z",
		}},
		"responses/202" + jsonBody: {"raw": queued("build-17/notes.txt"), "form": list(queued("form.txt"))},
		"responses/200" + jsonBody: {"raw": delivered("build-17/notes.txt"), "form": list(delivered("form.txt"))},
		"responses/201" + jsonBody: {"raw": delivered("app.tar.gz"), "form": list(delivered("other.txt"))},
	},
	"/uploads get": {
		"responses/200" + jsonBody:                   {"list": list(delivered("build-17/notes.txt"))},
		"responses/200/content/text/csv":             {"table": exampleRow},
		"responses/200/content/application/x-ndjson": {"lines": delivered("build-17/notes.txt")},
	},
	"/uploads/{id} put": {
		asRequest + "application/octet-stream": {"raw": exampleText},
		"responses/202" + jsonBody:             {"raw": queued("build-17/app.txt")},
		"responses/200" + jsonBody:             {"raw": delivered("build-17/app.txt")},
		"responses/201" + jsonBody:             {"raw": delivered("build-17/app.txt")},
	},
	"/uploads/{id} delete":             {"responses/200" + jsonBody: {"cancelled": but(queued("build-17/notes.txt"), "state", "cancelled")}},
	"/uploads/{id}/cancel post":        {"responses/200" + jsonBody: {"cancelled": but(queued("build-17/notes.txt"), "state", "cancelled")}},
	"/uploads/{id}/retry post":         {"responses/202" + jsonBody: {"queued": paused("build-17/notes.txt")}},
	"/uploads/{id}/hold post":          {"responses/200" + jsonBody: {"held": but(paused("build-17/notes.txt"), "held", true)}},
	"/uploads/{id}/release post":       {"responses/200" + jsonBody: {"released": paused("build-17/notes.txt")}},
	"/uploads/{id}/events get":         {"responses/200" + eventsBody: {"delivered": exampleEvent("upload", 42, delivered("build-17/notes.txt"))}},
	"/events get":                      {"responses/200" + eventsBody: {"ready": exampleEvent("ready", 41, object{})}},
	"/destinations get":                {"responses/200" + jsonBody: {"list": object{"destinations": []any{exampleDestination("ready")}}}},
	"/destinations/{name} get":         {"responses/200" + jsonBody: {"ready": exampleDestination("ready")}},
	"/destinations/{name}/pause post":  {"responses/200" + jsonBody: {"paused": exampleDestination("paused")}},
	"/destinations/{name}/resume post": {"responses/200" + jsonBody: {"resumed": exampleDestination("ready")}},
	"/healthz get":                     {"responses/200" + jsonBody: {"ok": object{"status": "ok", "version": "v1.0.0"}}},
	"/readyz get":                      {"responses/200" + jsonBody: {"ready": object{"status": "ready"}}},
	"/uploads/{id}/receipt get": {"responses/200/content/application/vnd.dsse.envelope.v1+json": {"receipt": object{
		"payloadType": "application/vnd.in-toto+json", "payload": receiptPayload,
		"signatures": []any{object{"keyid": receiptKey, "sig": receiptSig}},
	}}},
	"/uploads/{id} get": {
		"responses/200" + jsonBody: {"delivered": delivered("build-17/notes.txt")},
	},
	"/uploads/{id}/attempts get": {
		"responses/200" + jsonBody: {"delivered": object{"count": 1, "attempts": []any{object{
			"number": 1, "began_at": "2026-03-14T15:09:26.736215Z", "ended_at": "2026-03-14T15:09:27.135421Z", "outcome": "delivered", "error": nil,
			"bytes": 14, "resumed_from": 0, "sends": 1, "destination": "v4://files.example.org:1257",
		}}}},
	},
	"/uploads/bulk post": {
		asRequest + "application/json": {"cancel": object{"action": "cancel", "ids": []any{exampleID}}},
		"responses/200" + jsonBody: {"cancel": object{"results": []any{
			object{"id": exampleID, "status": 200, "upload": delivered("build-17/notes.txt"), "problem": nil},
		}}},
	},
}

// mendExamples gives bodies their examples.
func mendExamples(paths object) error {
	for operation, bodies := range bodyExamples {
		path, method, _ := strings.Cut(operation, " ")
		for at, named := range bodies {
			before, mediaType, _ := strings.Cut(at, "content/")
			keys := append([]string{path, method}, strings.Split(before, "/")...)
			keys[len(keys)-1] = "content"
			content, err := child(paths, append(keys, mediaType)...)
			if err != nil {
				return fmt.Errorf("example of %s: %w", operation, err)
			}
			all := object{}
			for name, value := range named {
				all[name] = object{"value": value}
			}
			content["examples"] = all
		}
	}
	return nil
}
