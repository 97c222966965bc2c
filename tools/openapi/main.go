// Command openapi writes api/openapi.yaml from the annotations of the gateway's
// handlers: swag reads them as Swagger 2.0, kin-openapi makes OpenAPI 3.0 of
// that, and what those cannot say is mended here, as OpenAPI 3.1.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"

	"github.com/getkin/kin-openapi/openapi2"
	"github.com/getkin/kin-openapi/openapi2conv"
	"github.com/swaggo/swag"
)

const header = "# Generated from the annotations of the gateway's handlers by tools/openapi: make generate\n"

func main() {
	gateway := flag.String("gateway", "gateway", "`DIR` of the handlers; doc.go has what is said of the whole")
	proto := flag.String("proto", "proto", "`DIR` of the types that they use")
	out := flag.String("out", "api/openapi.yaml", "`FILE` to write")
	flag.Parse()
	document, err := generate(*gateway, *proto)
	if err == nil {
		err = os.WriteFile(*out, document, 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "openapi:", err)
		os.Exit(1)
	}
}

// generate returns the document in YAML.
func generate(gateway, proto string) ([]byte, error) {
	doc, err := convert(gateway, proto)
	if err != nil {
		return nil, err
	}
	facts, err := readFacts(gateway)
	if err != nil {
		return nil, err
	}
	if err := mend(doc, facts); err != nil {
		return nil, err
	}
	kinds, err := readKinds(gateway)
	if err != nil {
		return nil, err
	}
	problemType, err := child(doc, "components", "schemas", "Problem", "properties", "type")
	if err != nil {
		return nil, err
	}
	problemType["enum"] = kinds
	return append([]byte(header), encode(doc)...), nil
}

// convert reads the annotations and returns OpenAPI 3.0 as decoded JSON.
func convert(gateway, proto string) (object, error) {
	p := swag.New(
		swag.SetDebugger(log.New(io.Discard, "", 0)),
		swag.SetStrict(true),
		swag.SetUseStructName(true),
		swag.SetOverrides(map[string]string{"ulid.ULID": "string"}),
	)
	p.RequiredByDefault = true
	if err := p.ParseAPIMultiSearchDir([]string{gateway, proto}, "doc.go", 1); err != nil {
		return nil, fmt.Errorf("read annotations: %w", err)
	}
	var v2 openapi2.T
	var swagger object
	if err := errors.Join(recode(p.GetSwagger(), &v2), recode(p.GetSwagger(), &swagger)); err != nil {
		return nil, err
	}
	v3, err := openapi2conv.ToV3(&v2)
	if err != nil {
		return nil, fmt.Errorf("convert to OpenAPI 3: %w", err)
	}
	var doc object
	if err := recode(v3, &doc); err != nil {
		return nil, err
	}
	paths, err := child(doc, "paths")
	if err != nil {
		return nil, err
	}
	return doc, mendParameters(paths, swagger)
}

// recode copies a value by way of JSON.
func recode(from, to any) error {
	b, err := json.Marshal(from)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, to)
}
