// Package web holds Ferry's page: static files without a build step.
package web

import (
	"embed"
	"io/fs"
)

//go:embed static
var files embed.FS

// Files returns the page's files; index.html is the page.
func Files() fs.FS {
	sub, err := fs.Sub(files, "static")
	if err != nil {
		panic("internal error: " + err.Error()) // the folder is embedded above
	}
	return sub
}
