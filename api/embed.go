// Package api holds the description of Ferry's HTTP interface.
package api

import _ "embed"

// OpenAPI is openapi.yaml: generated from the handlers' annotations, committed
// and served as it is.
//
//go:embed openapi.yaml
var OpenAPI []byte
