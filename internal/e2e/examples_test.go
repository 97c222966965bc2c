package e2e_test

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
)

// examplesUpload is the id that the upload of all examples has.
const examplesUpload = "01KKPXQ7M7C1WB0K8VQ0N4Y6TJ"

// An exampleStep is a request that is made of examples of the description. It
// names the operation, its parameters and the example of its body; a status, and
// the example that the answer is to be like, if there is one.
type exampleStep struct {
	operation, parameters, body string
	status                      int
	answer                      string
}

// exampleSteps are made one after another; what is made in them is delivered before
// the next, unless the destination is paused.
var exampleSteps = []exampleStep{
	{"health", "", "", 200, "ok"},
	{"readiness", "", "", 200, "ready"},
	{"getDestinations", "", "", 200, "list"},
	{"getDestination", "name", "", 200, "ready"},
	{"pauseDestination", "name", "", 200, "paused"},
	{"postUploads", "name label mode mtime", "raw", 202, ""},
	{"holdUpload", "id", "", 200, "held"},
	{"releaseUpload", "id", "", 200, "released"},
	{"cancelUpload", "id", "", 200, "cancelled"},
	{"retryUpload", "id", "", 202, "queued"},
	{"deleteUpload", "id", "", 200, "cancelled"},
	{"deleteUpload", "id", "", 204, ""},
	{"resumeDestination", "name", "", 200, "resumed"},
	{"getEvents", "", "", 200, "ready"},

	{"putUpload", "id label mode mtime If-None-Match", "raw", 202, "raw"},
	{"putUpload", "id If-None-Match", "raw", 412, ""},
	{"putUpload", "id destination Last-Modified X-Ferry-Mode X-Ferry-Mtime Repr-Digest Content-Digest Content-MD5 X-Checksum-Sha256 Idempotency-Key Prefer", "raw", 200, "raw"},
	{"deleteUpload", "id", "", 204, ""},
	{"putUpload", "id label mode mtime Prefer", "raw", 201, "raw"},
	{"deleteUpload", "id", "", 204, ""},

	{"postUploads", "name label mode mtime", "raw", 202, "raw"},
	{"listUploads", "name label since", "", 200, "list"},
	{"listUploads", "name", "", 200, "table"},
	{"listUploads", "name", "", 200, "lines"},
	{"listUploads", "until", "", 200, ""},
	{"listUploads", "before", "", 200, ""},
	{"postUploads", "name destination Last-Modified", "raw", 200, "raw"},
	{"postUploads", "name If-None-Match", "raw", 412, ""},
	{"postUploads", "label Content-Disposition X-Ferry-Mode X-Ferry-Mtime Repr-Digest Content-Digest Content-MD5 X-Checksum-Sha256 Idempotency-Key Prefer", "raw", 201, "raw"},
	{"postUploads", "", "form", 202, "form"},
	{"postUploads", "", "form", 200, "form"},
	{"postUploads", "Prefer", "form", 201, "form"},
	{"getUpload", "id wait", "", 200, "delivered"},
	{"getAttempts", "id", "", 200, "delivered"},
	{"getReceipt", "id", "", 200, "receipt"},
	{"getEvents", "Last-Event-ID", "", 200, ""},
	{"getUploadEvents", "id", "", 200, "delivered"},
	{"getUploadEvents", "id Last-Event-ID", "", 200, ""}, // no event has had that id yet
	{"holdUpload", "id", "", 409, ""},
	{"releaseUpload", "id", "", 409, ""},
	{"retryUpload", "id", "", 409, ""},
	{"bulkUploads", "", "cancel", 200, "cancel"},
	{"getProblem", "name", "", 200, ""},
}

// TestExamples sends the examples of the description to a gateway, and wants the
// answers to be like those in it.
func TestExamples(t *testing.T) {
	t.Parallel()
	doc, err := openapi3.NewLoader().LoadFromFile(description)
	if err != nil {
		t.Fatal(err)
	}
	e := &exampled{t: t, base: up(t, t.TempDir()).tap().http, operations: map[string]*exampleOperation{}, unused: map[string]bool{}}
	e.read(doc)
	for _, s := range exampleSteps {
		e.take(s)
	}
	for _, what := range slices.Sorted(maps.Keys(e.unused)) {
		t.Errorf("the description has an example that no step sends or expects: %s", what)
	}
}

// exampled is a description whose examples are sent to a gateway.
type exampled struct {
	t          *testing.T
	base       string
	operations map[string]*exampleOperation // by their ids
	unused     map[string]bool              // examples, by what they are of
	id         string                       // of the first upload that is not forgotten
	paused     bool                         // nothing is delivered
}

type exampleOperation struct {
	*openapi3.Operation
	method, path string
}

func (e *exampled) read(doc *openapi3.T) {
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			e.operations[op.OperationID] = &exampleOperation{op, method, path}
			for _, p := range op.Parameters {
				if exampleOf(p.Value) != nil {
					e.unused[op.OperationID+" "+p.Value.Name] = true
				}
			}
			if op.RequestBody != nil {
				e.note(op.OperationID+" body", op.RequestBody.Value.Content)
			}
			for status, r := range op.Responses.Map() {
				e.note(op.OperationID+" "+status, r.Value.Content)
			}
		}
	}
	if len(e.unused) == 0 {
		e.t.Fatal("the description has no examples")
	}
}

// exampleOf is that of a parameter, or of its schema.
func exampleOf(p *openapi3.Parameter) any {
	if p.Example == nil && len(p.Schema.Value.Examples) > 0 {
		return p.Schema.Value.Examples[0]
	}
	return p.Example
}

func (e *exampled) note(of string, content openapi3.Content) {
	for _, c := range content {
		if c.Example != nil {
			e.t.Errorf("%s has an example without a name", of)
		}
		for name, x := range c.Examples {
			if x.Ref == "" { // problems are provoked elsewhere
				e.unused[of+" "+name] = true
			}
		}
	}
}

// example finds one by its name, and notes that it is used.
func (e *exampled) example(of, name string, content openapi3.Content) (mediaType string, value any) {
	e.t.Helper()
	for mediaType, c := range content {
		if x := c.Examples[name]; x != nil {
			delete(e.unused, of+" "+name)
			return mediaType, x.Value.Value
		}
	}
	e.t.Fatalf("%s has no example %s", of, name)
	return "", nil
}

func (e *exampled) take(s exampleStep) {
	e.t.Helper()
	op := e.operations[s.operation]
	if op == nil {
		e.t.Fatalf("there is no operation %s", s.operation)
	}
	var mediaType string
	var want any
	if s.answer != "" {
		mediaType, want = e.example(fmt.Sprintf("%s %d", s.operation, s.status), s.answer, op.Responses.Status(s.status).Value.Content)
	}
	req := e.request(op, s, want)
	if mediaType != "" {
		req.Header.Set("Accept", mediaType)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		e.t.Fatal(err)
	}
	defer res.Body.Close()
	var body []byte
	if s.operation == "getEvents" && res.StatusCode == s.status { // they have no end
		body, err = readEvents(res.Body, want)
	} else {
		body, err = io.ReadAll(res.Body)
	}
	if err != nil || res.StatusCode != s.status {
		e.t.Fatalf("%s %s with %s: %s, %v; want %d\n%s", req.Method, req.URL, s.parameters, res.Status, err, s.status, body)
	}
	if got := decoded(e.t, mediaType, body); s.answer != "" {
		for _, d := range differences("", got, decoded(e.t, mediaType, encoded(e.t, mediaType, want))) {
			e.t.Errorf("%s, %d, example %s: %s", s.operation, s.status, s.answer, d)
		}
	}
	e.follow(s, body)
}

// follow notes what a step has made, and waits until that is delivered.
func (e *exampled) follow(s exampleStep, body []byte) {
	e.t.Helper()
	switch {
	case s.operation == "pauseDestination", s.operation == "resumeDestination":
		e.paused = s.operation == "pauseDestination"
	case s.operation == "deleteUpload" && s.status == http.StatusNoContent:
		e.id = ""
	case s.status == http.StatusAccepted, s.status == http.StatusCreated:
		for _, id := range regexp.MustCompile(`"id":"([0-9A-Z]{26})"`).FindAllSubmatch(body, -1) {
			if !e.paused {
				waitDelivered(e.t, e.base, string(id[1]), time.Minute)
			}
			if e.id == "" {
				e.id = string(id[1])
			}
		}
	}
}

// readEvents reads as many events as an example has.
func readEvents(r io.Reader, example any) (stream []byte, err error) {
	text, _ := example.(string)
	for lines := bufio.NewReader(r); err == nil && bytes.Count(stream, []byte("\n\n")) < strings.Count(text, "\n\n"); {
		var line []byte
		line, err = lines.ReadBytes('\n')
		stream = append(stream, line...)
	}
	return stream, err
}

// request makes a request of a step's examples. A form's files have the names
// that they have in the answer.
func (e *exampled) request(op *exampleOperation, s exampleStep, want any) *http.Request {
	e.t.Helper()
	path, query, header := op.path, url.Values{}, http.Header{}
	for name := range strings.FieldsSeq(s.parameters) {
		i := slices.IndexFunc(op.Parameters, func(p *openapi3.ParameterRef) bool { return p.Value.Name == name })
		if i < 0 || exampleOf(op.Parameters[i].Value) == nil {
			e.t.Fatalf("%s has no parameter %s with an example", s.operation, name)
		}
		delete(e.unused, s.operation+" "+name)
		p := op.Parameters[i].Value
		example := exampleOf(p)
		values, ok := example.([]any)
		if !ok {
			values = []any{example}
		}
		for _, v := range values {
			text := strings.ReplaceAll(fmt.Sprint(v), examplesUpload, e.id)
			switch p.In {
			case openapi3.ParameterInPath:
				path = strings.Replace(path, "{"+name+"}", url.PathEscape(text), 1)
			case openapi3.ParameterInQuery:
				query.Add(name, text)
			default:
				header.Add(name, text)
			}
		}
	}
	var body []byte
	if s.body != "" {
		mediaType, example := e.example(s.operation+" body", s.body, op.RequestBody.Value.Content)
		if mediaType == "multipart/form-data" {
			body, mediaType = form(e.t, example.(map[string]any), want)
		} else {
			body = bytes.ReplaceAll(encoded(e.t, mediaType, example), []byte(examplesUpload), []byte(e.id))
		}
		header.Set("Content-Type", mediaType)
	}
	req, err := http.NewRequestWithContext(e.t.Context(), op.method, e.base+path+"?"+query.Encode(), bytes.NewReader(body))
	if err != nil {
		e.t.Fatal(err)
	}
	req.Header = header
	return req
}

func form(t *testing.T, fields map[string]any, want any) (body []byte, mediaType string) {
	t.Helper()
	name := want.(map[string]any)["uploads"].([]any)[0].(map[string]any)["name"].(string)
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for field, value := range fields {
		values, ok := value.([]any)
		if !ok {
			values = []any{value}
		}
		for _, v := range values {
			part, err := w.CreateFormField(field)
			if field == "file" {
				part, err = w.CreateFormFile(field, name)
			}
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(part, v.(string)) // to memory
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), w.FormDataContentType()
}

// encoded is an example as it is sent, decoded what can be compared of it.
func encoded(t *testing.T, mediaType string, value any) []byte {
	t.Helper()
	if !strings.HasSuffix(mediaType, "json") {
		return []byte(value.(string))
	}
	b, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func decoded(t *testing.T, mediaType string, body []byte) (value any) {
	t.Helper()
	if mediaType == "" {
		return nil
	}
	if mediaType == "text/event-stream" {
		return decodedEvents(t, body)
	}
	if mediaType != "text/csv" {
		if err := json.Unmarshal(body, &value); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		return value
	}
	rows, err := csv.NewReader(bytes.NewReader(body)).ReadAll()
	if err != nil || len(rows) == 0 {
		t.Fatalf("%v: %s", err, body)
	}
	var table []any
	for _, row := range rows[1:] {
		cells := map[string]any{}
		for i, column := range rows[0] {
			cells[column] = row[i]
		}
		table = append(table, cells)
	}
	return table
}

func decodedEvents(t *testing.T, stream []byte) (all []any) {
	t.Helper()
	for event := range bytes.SplitSeq(bytes.TrimSuffix(stream, []byte("\n\n")), []byte("\n\n")) {
		fields := map[string]any{}
		for line := range bytes.Lines(event) {
			name, value, _ := strings.Cut(strings.TrimSuffix(string(line), "\n"), ": ")
			fields[name] = value
		}
		data, _ := fields["data"].(string)
		fields["data"] = decoded(t, "application/json", []byte(data))
		all = append(all, fields)
	}
	return all
}

// another are the names of what is another one each time: then the kind alone
// has to be that of the example, and nothing must not be something.
var another = []string{
	"id", "created_at", "updated_at", "delivered_at", "began_at", "ended_at", "destination", "receipt", "count", "attempts",
	"url", "version", "payload", "keyid", "sig",
}

// differences tells where an answer is not as an example is.
func differences(at string, got, want any) (all []string) {
	switch want := want.(type) {
	case map[string]any:
		got, _ := got.(map[string]any)
		both := maps.Clone(want)
		maps.Copy(both, got)
		for _, key := range slices.Sorted(maps.Keys(both)) {
			g, inGot := got[key]
			w, inWant := want[key]
			_, nested := w.(map[string]any)
			_, listed := w.([]any)
			if inGot == inWant && slices.Contains(another, key) && !nested && !listed && reflect.TypeOf(g) == reflect.TypeOf(w) && (g == "") == (w == "") {
				continue
			}
			if inGot != inWant {
				all = append(all, fmt.Sprintf("%s.%s: it is there: %t, want %t", at, key, inGot, inWant))
				continue
			}
			all = append(all, differences(at+"."+key, g, w)...)
		}
		return all
	case []any:
		got, _ := got.([]any)
		if len(got) != len(want) {
			return []string{fmt.Sprintf("%s: %d, want %d", at, len(got), len(want))}
		}
		for i := range want {
			all = append(all, differences(at+"."+strconv.Itoa(i), got[i], want[i])...)
		}
		return all
	}
	if !reflect.DeepEqual(got, want) {
		return []string{fmt.Sprintf("%s: %v, want %v", at, got, want)}
	}
	return nil
}

// TestExampleReceipt checks the receipt of the description as anybody can, with the
// file that it is of.
func TestExampleReceipt(t *testing.T) {
	t.Parallel()
	doc, err := openapi3.NewLoader().LoadFromFile(description)
	if err != nil {
		t.Fatal(err)
	}
	e := &exampled{t: t, unused: map[string]bool{}}
	_, receipt := e.example("", "receipt", doc.Paths.Value("/uploads/{id}/receipt").Get.Responses.Status(200).Value.Content)
	_, text := e.example("", "raw", doc.Paths.Value("/uploads").Post.RequestBody.Value.Content)
	dir := t.TempDir()
	var envelope struct { // in the order that receipts have
		PayloadType string `json:"payloadType"`
		Payload     string `json:"payload"`
		Signatures  []struct {
			KeyID string `json:"keyid"`
			Sig   string `json:"sig"`
		} `json:"signatures"`
	}
	if err := json.Unmarshal(encoded(t, "application/json", receipt), &envelope); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "receipt"), encoded(t, "application/json", envelope))
	write(t, filepath.Join(dir, "notes.txt"), []byte(text.(string)))
	pin := envelope.Signatures[0].KeyID
	out, err := exec.CommandContext(t.Context(), ferryBinary, "verify", filepath.Join(dir, "receipt"), filepath.Join(dir, "notes.txt"), "--pin", pin).CombinedOutput()
	if err != nil {
		t.Errorf("ferry verify: %v\n%s", err, out)
	}
}

var describedCommand = regexp.MustCompile("`(curl [^`]+)`")

// TestDescribedCommands runs the commands that the description has.
func TestDescribedCommands(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(description)
	if err != nil {
		t.Fatal(err)
	}
	dir, data := t.TempDir(), t.TempDir()
	content := randomBytes(1000)
	write(t, filepath.Join(dir, "app.tar.gz"), content)
	p := up(t, data).tap()
	commands := describedCommand.FindAllSubmatch(text, -1)
	if len(commands) < 3 {
		t.Fatalf("the description has %d commands, want some", len(commands))
	}
	for _, c := range commands {
		command := strings.Replace(string(c[1]), "curl ", "curl --silent --show-error --fail-with-body -H 'Prefer: wait=60' ", 1)
		command = strings.ReplaceAll(command, "http://127.0.0.1:8080", p.http)
		cmd := exec.CommandContext(t.Context(), "sh", "-c", command)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", command, err, out)
		}
	}
	wantStored(t, data, map[string][]byte{"app.tar.gz": content})
}
