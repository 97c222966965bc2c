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

func list(uploads ...any) object { return object{"uploads": uploads} }

const (
	asRequest = "requestBody/content/"
	jsonBody  = "/content/application/json"
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
		"responses/200" + jsonBody:       {"list": list(delivered("build-17/notes.txt"))},
		"responses/200/content/text/csv": {"table": exampleRow},
	},
	"/uploads/{id} put": {
		asRequest + "application/octet-stream": {"raw": exampleText},
		"responses/202" + jsonBody:             {"raw": queued("build-17/app.txt")},
	},
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
