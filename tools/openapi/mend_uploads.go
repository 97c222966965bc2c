package main

import (
	"encoding/json"
	"fmt"
)

// requestBody is what POST /uploads takes. Swagger 2.0 has no body of any kind
// of bytes, and no two kinds of body for one operation.
const requestBody = `{
	"description": "A file, or a form with files",
	"required": true,
	"content": {
		"application/octet-stream": {
			"schema": {"type": "string", "description": "The bytes of one file. Any other type is taken in the same way, save multipart/*."}
		},
		"multipart/form-data": {
			"schema": {
				"type": "object",
				"description": "Up to 1,000 parts with a filename, each of which is a file whatever its field is called and has no folders in its filename, and up to 100 others of up to 64 KiB, in any order.",
				"properties": {
					"file": {"type": "array", "minItems": 1, "maxItems": 1000, "items": {"type": "string", "contentMediaType": "application/octet-stream"}},
					"name": {"type": "string", "minLength": 1, "maxLength": 1024, "description": "Another name for the file; only if there is exactly one. It may come before or after it, and may have folders where the query's may."},
					"label": {"type": "array", "maxItems": 16, "items": {"type": "string", "examples": ["build=17"]}, "description": "Labels of all files, key=value, as in the query. It may come before or after them."},
					"destination": {"type": "string", "maxLength": 63, "examples": ["default"], "description": "The name of the destination, as in the query. It comes before the files and their name."},
					"mode": {"type": "string", "examples": ["0644"], "description": "The permission bits of all files, in octal. It may come before or after them."},
					"mtime": {"type": "string", "format": "date-time", "description": "When the files were changed last. It may come before or after them."}
				},
				"required": ["file"]
			},
			"encoding": {"file": {"contentType": "application/octet-stream"}}
		}
	}
}`

// accepted is the body of its answers.
const accepted = `{
	"schema": {
		"description": "A raw body is answered with the upload, a form with the list of its files, in their order",
		"anyOf": [{"$ref": "#/components/schemas/Upload"}, {"$ref": "#/components/schemas/UploadList"}]
	}
}`

// mendUploads says of POST /uploads what Swagger 2.0 cannot.
func mendUploads(paths object) error {
	post, err := child(paths, "/uploads", "post")
	if err != nil {
		return err
	}
	var body object
	if err := json.Unmarshal([]byte(requestBody), &body); err != nil {
		return fmt.Errorf("request body: %w", err)
	}
	post["requestBody"] = body
	put, err := child(paths, "/uploads/{id}", "put")
	if err != nil {
		return err
	}
	put["requestBody"] = object{
		"description": "The bytes of the file. Any other type is taken in the same way.", "required": true,
		"content": object{"application/octet-stream": object{"schema": object{"type": "string"}}},
	}
	for _, status := range []string{"200", "201", "202"} {
		content, err := child(post, "responses", status, "content")
		if err != nil {
			return err
		}
		var answer object
		if err := json.Unmarshal([]byte(accepted), &answer); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
		content["application/json"] = answer
	}
	if err := mendList(paths); err != nil {
		return err
	}
	return mendExamples(paths)
}

// mendList says of GET /uploads in which other forms it answers.
func mendList(paths object) error {
	content, err := child(paths, "/uploads", "get", "responses", "200", "content")
	if err != nil {
		return err
	}
	content["application/x-ndjson"] = object{"schema": object{
		"$ref": "#/components/schemas/Upload", "description": "An upload a line",
	}}
	content["text/csv"] = object{"schema": object{"type": "string", "description": "RFC 4180, the names of the columns first"}}
	return nil
}
