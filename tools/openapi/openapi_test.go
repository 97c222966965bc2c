package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/go-cmp/cmp"
)

// TestCommitted wants api/openapi.yaml as it is generated, twice the same.
func TestCommitted(t *testing.T) {
	committed, err := os.ReadFile("../../api/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		generated, err := generate("../../gateway", "../../proto")
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(committed), string(generated)); d != "" {
			t.Fatalf("api/openapi.yaml is out of date: make generate (-committed +generated):\n%s", d)
		}
	}
}

// normal reads a document in YAML or JSON and returns it in JSON.
func normal(t *testing.T, document []byte) string {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(document)
	if err != nil {
		t.Fatalf("%v:\n%s", err, document)
	}
	b, err := json.MarshalIndent(doc, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestYAMLSaysTheSame reads what was written as YAML, and as JSON.
func TestYAMLSaysTheSame(t *testing.T) {
	var strange []any
	for _, s := range []string{
		"", " ", "a", " a", "a ", "a: b", "a #b", "# a", "- a", "-", "?", "!a", "&a", "*a", "%a", "@a", "`a`", "'a'", `"a"`, "{a}", "[a]", "a,b", "|", ">", "<<",
		"yes", "No", "on", "OFF", "y", "N", "true", "null", "~", "1", "1.5", "1e3", "0x1f", "0o7", ".5", ".inf", ".nan", "12:30", "2026-03-14", "=", "\t", "a\tb",
		"a\nb", "a\n\nb", "a\n  b\nc", "a\n", "\na", " a\nb", "a\n b: c\n# d", "a \nb", "grüße 🚢", "\u0085", "\u2028", "\ufeff", `\`, `\n`, "a:", ":a", "$ref", "/a/{b}", "a'b", "(a)",
	} {
		strange = append(strange, s, object{s: s})
	}
	doc := object{
		"openapi": "3.1.0", "info": object{"title": "x", "version": "1"}, "paths": object{},
		"x-strange": append(strange, nil, true, false, float64(0), 1.5, float64(1<<32-1), []any{}, object{}, []any{[]any{"a", []any{}}, object{"a": []any{object{"b": nil}}}}),
	}
	asJSON, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(normal(t, asJSON), normal(t, encode(doc))); d != "" {
		t.Errorf("as YAML it says something else (-json +yaml):\n%s", d)
	}
	if !bytes.Equal(encode(doc), encode(doc)) {
		t.Error("it is not always written in the same way")
	}
}

// TestMendRefuses has annotations go missing that mend relies on.
func TestMendRefuses(t *testing.T) {
	f, err := readFacts("../../gateway")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		spoil func(doc object)
		says  string
	}{
		"nothing":          {func(object) {}, ""},
		"unknown property": {func(doc object) { spoil(t, doc, "Upload")["colour"] = object{"type": "string"} }, "colour"},
		"lost property":    {func(doc object) { delete(spoil(t, doc, "Upload"), "sha256") }, "sha256"},
		"lost example":     {func(doc object) { respond(t, doc)["201"] = object{"content": object{"application/json": object{}}} }, "201 has no example"},
		"new problem":      {func(doc object) { respond(t, doc)["402"] = object{"content": object{"application/json": object{}}} }, "no example of 402"},
		"no upload route":  {func(doc object) { delete(doc["paths"].(object), "/uploads") }, "/uploads"},
	} {
		doc, err := convert("../../gateway", "../../proto")
		if err != nil {
			t.Fatal(err)
		}
		c.spoil(doc)
		err = mend(doc, f)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want an error with %q", name, err, c.says)
		}
	}
	if _, err := readFacts(t.TempDir()); err == nil {
		t.Error("a folder without code has facts")
	}
}

// respond are the answers of an operation.
func respond(t *testing.T, doc object) object {
	t.Helper()
	responses, err := child(doc, "paths", "/readyz", "get", "responses")
	if err != nil {
		t.Fatal(err)
	}
	return responses
}

func spoil(t *testing.T, doc object, schema string) object {
	t.Helper()
	properties, err := child(doc, "components", "schemas", schema, "properties")
	if err != nil {
		t.Fatal(err)
	}
	return properties
}
