// Package testdata holds the recorded conversations of wire version 3 for
// package prototest, its only importer. The build fails without them.
package testdata

import "embed"

// Files has manifest.json and, beside it, the recordings it names.
//
//go:embed manifest.json */*.bin
var Files embed.FS
