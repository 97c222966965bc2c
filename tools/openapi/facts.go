package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"path/filepath"
	"reflect"
	"strings"
)

// facts are the Go types of structs' fields, by the names of struct and JSON:
// what Swagger 2.0 does not carry over.
type facts map[string]map[string]string

// readFacts reads the structs of a package.
func readFacts(dir string) (facts, error) {
	all := facts{}
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		for n := range ast.Preorder(parsed) {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				continue
			}
			if s, ok := spec.Type.(*ast.StructType); ok {
				all[spec.Name.Name] = fieldTypes(s)
			}
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no struct in %s: %w", dir, fs.ErrNotExist)
	}
	return all, nil
}

// readKinds reads the names of the kinds of problems that a package declares:
// the first field of each problemKind{...}.
func readKinds(dir string) (types []any, err error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		for n := range ast.Preorder(parsed) {
			c, ok := n.(*ast.CompositeLit)
			if !ok || len(c.Elts) == 0 {
				continue
			}
			name, ok := c.Elts[0].(*ast.BasicLit)
			if kind, _ := c.Type.(*ast.Ident); ok && kind != nil && kind.Name == "problemKind" {
				types = append(types, "/problems/"+strings.Trim(name.Value, `"`))
			}
		}
	}
	if len(types) == 0 {
		return nil, fmt.Errorf("no kind of problem in %s: %w", dir, fs.ErrNotExist)
	}
	return types, nil
}

func fieldTypes(s *ast.StructType) map[string]string {
	fields := map[string]string{}
	for _, f := range s.Fields.List {
		if f.Tag == nil {
			continue
		}
		tag := reflect.StructTag(strings.Trim(f.Tag.Value, "`"))
		if name, _, _ := strings.Cut(tag.Get("json"), ","); name != "" {
			fields[name] = types.ExprString(f.Type)
		}
	}
	return fields
}
