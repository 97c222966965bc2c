package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ferry/proto"
)

// provocations make the gateway answer with the examples of problems that the
// description has, by their names.
var provocations = map[string]func(t *testing.T) answer{
	"parameter": onReal("PUT", "/uploads/notes.txt?mode=rw-r--r--"),
	"filter":    onReal("GET", "/uploads?limit=501"),
	"wait":      onReal("GET", "/uploads/"+anID+"?wait=61"),
	"last-event-id": func(t *testing.T) answer {
		return newRealAPI(t).ask(t, "GET", "/events", nil, "Last-Event-ID", "next")
	},
	"unknown-send": onReal("POST", "/uploads?name=notes.txt&destnatoin=prod"),
	"unknown-put":  onReal("PUT", "/uploads/notes.txt?tag=build-17"),
	"unknown-list": onReal("GET", "/uploads?stat=failed"),
	"unknown-show": onReal("GET", "/uploads/"+anID+"?timeout=30"),
	"unknown":      onReal("POST", "/uploads/"+anID+"/retry?wait=30"),
	"name":         onReal("PUT", "/uploads/build-17/../notes.txt"),
	"destination":  onReal("PUT", "/uploads/notes.txt?destination=nowhere"),
	"label":        onReal("PUT", "/uploads/notes.txt?label=build"),
	"digest":       onReal("PUT", "/uploads/notes.txt", sha256Checksum, "cb6472fc"),
	"mismatch":     onReal("PUT", "/uploads/notes.txt", sha256Checksum, sum([]byte("Hello, ferry!\n"))),
	"body": func(t *testing.T) answer {
		return newRealAPI(t).ask(t, "POST", bulkPath, strings.NewReader("{}"), "Content-Type", jsonType)
	},
	"form": func(t *testing.T) answer {
		whole := browser(file("notes.txt", aText))
		return newRealAPI(t).form(t, whole[:len(whole)/2])
	},
	"no-file": func(t *testing.T) answer { return newRealAPI(t).form(t, browser(field("name", "notes.txt"))) },
	"too-many": func(t *testing.T) answer {
		return newRealAPI(t).form(t, browser(slices.Repeat([]part{field("x", "y")}, maxFields+1)...))
	},
	"incomplete": onSocket("PUT /uploads/notes.txt HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
	"length":     onSocket("PUT /uploads/notes.txt HTTP/1.1\r\nHost: localhost\r\n\r\n"),
	"too-large":  onSocket("PUT /uploads/notes.txt HTTP/1.1\r\nHost: localhost\r\nContent-Length: 600000000\r\nExpect: 100-continue\r\n\r\n"),
	"encoding":   onReal("PUT", "/uploads/notes.txt.gz", "Content-Encoding", "gzip"),
	"key":        onReal("PUT", "/uploads/notes.txt", "Idempotency-Key", `""`),
	"key-reused": func(t *testing.T) answer {
		s := newRealAPI(t)
		s.keyedPut(t, `"build-17"`, "/uploads/notes.txt", aText).upload(t, http.StatusAccepted)
		return s.keyedPut(t, `"build-17"`, "/uploads/notes.txt", "Hello, ferry!\n")
	},
	"key-running": func(t *testing.T) answer {
		s := newRealAPI(t)
		s.raw(t, "PUT /uploads/notes.txt HTTP/1.1\r\nHost: localhost\r\nIdempotency-Key: \"build-17\"\r\nContent-Length: 14\r\n\r\nHello")
		for len(s.ask(t, "GET", "/uploads?state=receiving", nil).uploads(t, http.StatusOK)) == 0 {
		}
		return s.keyedPut(t, `"build-17"`, "/uploads/notes.txt", aText)
	},
	"conflict": func(t *testing.T) answer {
		s := newRealAPI(t)
		s.ask(t, "PUT", "/uploads/notes.txt", strings.NewReader(aText)).upload(t, http.StatusAccepted)
		return s.ask(t, "PUT", "/uploads/notes.txt", strings.NewReader("Hello, ferry!\n"))
	},
	"changed": func(t *testing.T) answer {
		s := newRealAPI(t)
		u := s.ask(t, "PUT", "/uploads/notes.txt", strings.NewReader(aText)).upload(t, http.StatusAccepted)
		return s.ask(t, "DELETE", u.address(), nil, "If-Match", `"of-before"`)
	},
	"occupied": func(t *testing.T) answer {
		s := newRealAPI(t)
		s.ask(t, "PUT", "/uploads/notes.txt", strings.NewReader(aText)).upload(t, http.StatusAccepted)
		return s.ask(t, "PUT", "/uploads/notes.txt", strings.NewReader(aText), "If-None-Match", "*")
	},
	"no-match": onReal("PUT", "/uploads/notes.txt", "If-Match", "*"),
	"origin":   onReal("PUT", "/uploads/notes.txt", "Origin", "https://www.example.org"),
	"host":     onReal("PUT", "/uploads/notes.txt", "Host", "www.example.org"),
	"header":   onReal("PUT", "/uploads/notes.txt", "Cookie", strings.Repeat("x", maxRequestHeader)),
	"no-token": func(t *testing.T) answer {
		s := newGuarded(t)
		s.token(t, "ci", ScopeUpload)
		return s.ask(t, "GET", "/uploads", nil)
	},
	"bad-token": func(t *testing.T) answer {
		s := newGuarded(t)
		s.token(t, "ci", ScopeUpload)
		return s.as(t, "Bearer ferry-token-of-another-gateway", "GET", "/uploads", "")
	},
	"forbidden": func(t *testing.T) answer {
		s := newGuarded(t)
		return s.as(t, s.token(t, "ci", ScopeUpload), "POST", "/uploads/"+anID+"/retry", "")
	},
	"pace": func(t *testing.T) answer {
		s := newRealAPI(t)
		s.api.pace, _ = stillPace(1000)
		s.api.pace.until["address 127.0.0.1"] = s.api.pace.now().Add(paceBurst * 1e9)
		return s.ask(t, "GET", "/uploads", nil)
	},
	"not-found":      onReal("GET", "/uploads/"+anID),
	"no-destination": onReal("GET", "/destinations/nowhere"),
	"no-kind":        onReal("GET", "/problems/nothing"),
	"no-receipt": func(t *testing.T) answer {
		s := newRealAPI(t)
		u := s.ask(t, "PUT", "/uploads/notes.txt", strings.NewReader(aText)).upload(t, http.StatusAccepted)
		return s.ask(t, "GET", u.address()+receiptPath, nil)
	},
	"state": func(t *testing.T) answer {
		s := newRealAPI(t)
		u := s.ask(t, "PUT", "/uploads/notes.txt", strings.NewReader(aText)).upload(t, http.StatusAccepted)
		return s.ask(t, "POST", u.address()+"/retry", nil)
	},
	"delivering":  onFake("hold", errDelivering, "POST", "/uploads/"+anID+"/hold"),
	"internal":    onFake("list", errors.New("the disk is on fire"), "GET", "/uploads"),
	"not-ready":   onFake("ready", errors.New("the database is gone"), "GET", "/readyz"),
	"busy-waits":  onFake("get", errWaiting, "GET", "/uploads/"+anID+"?wait=1"),
	"forgotten":   onFake("await", errNotFound, "PUT", "/uploads/notes.txt", "Prefer", "wait=60"),
	"slow":        whileComing(&bodyError{os.ErrDeadlineExceeded}),
	"cancelled":   whileComing(errInterrupted),
	"stopping":    whileComing(errGivenBack),
	"full":        whileComing(&fullError{600_000_000, 83_576_340}),
	"undelivered": whileWaiting(fails(proto.ErrTooLarge)),
	"cancelled-later": func(t *testing.T) answer {
		at := newGate()
		c := openCore(t, t.TempDir(), newRemote())
		c.remote.expect("notes.txt", at.then((*sending).deliver))
		s := newTestAPI(t, c.httpAPI())
		c.deliverAll()
		waits := asked(t, s, "POST", "/uploads?name=notes.txt", "Prefer", "wait=60")
		at.await(t)
		u := s.ask(t, "GET", "/uploads", nil).uploads(t, http.StatusOK)[0]
		s.ask(t, "POST", u.address()+"/cancel", nil).upload(t, http.StatusOK)
		return <-waits
	},
	"busy": func(t *testing.T) answer {
		s := newRealAPI(t)
		for range maxRequests {
			s.api.slots <- struct{}{}
		}
		return s.ask(t, "PUT", "/uploads/notes.txt", strings.NewReader(aText))
	},
	"busy-events": func(t *testing.T) answer {
		s := newRealAPI(t)
		for range maxStreams {
			s.api.streams <- struct{}{}
		}
		return s.ask(t, "GET", "/events", nil)
	},
}

const (
	anID  = "01KKPXQ7M7C1WB0K8VQ0N4Y6TJ"
	aText = "Hello, Ferry!\n"
)

// onReal sends a request to a gateway that delivers nothing, with a small file.
func onReal(method, path string, header ...string) func(t *testing.T) answer {
	return func(t *testing.T) answer {
		s := newRealAPITo(t, "v4://files.example.org:1257?pin=sha256:"+strings.Repeat("1", 64))
		if method != "PUT" {
			return s.ask(t, method, path, nil, header...)
		}
		return s.ask(t, method, path, strings.NewReader(aText), header...)
	}
}

func onSocket(request string) func(t *testing.T) answer {
	return func(t *testing.T) answer { return read(t, newRealAPI(t).raw(t, request)) }
}

// onFake has one method of the core fail.
func onFake(fails string, err error, method, path string, header ...string) func(t *testing.T) answer {
	return func(t *testing.T) answer {
		s := newFakeAPI(t, func(_ *httpAPI, c *fakeCore) { c.fail[fails] = err })
		var body io.Reader
		if method == "PUT" {
			body = strings.NewReader(aText)
		}
		return s.ask(t, method, path, body, header...)
	}
}

// whileComing has an upload end so while its bytes come in.
func whileComing(err error) func(t *testing.T) answer {
	return func(t *testing.T) answer {
		s := newFakeAPI(t, func(a *httpAPI, _ *fakeCore) {
			a.receive = func(context.Context) receiver { return refusing{err: err} }
		})
		return s.ask(t, "PUT", "/uploads/notes.txt", strings.NewReader(aText))
	}
}

func whileWaiting(does step) func(t *testing.T) answer {
	return func(t *testing.T) answer {
		c := openCore(t, t.TempDir(), newRemote())
		c.remote.expect("notes.txt", does)
		s := newTestAPI(t, c.httpAPI())
		c.deliverAll()
		return s.ask(t, "PUT", "/uploads/notes.txt", strings.NewReader(aText), "Prefer", "wait=60")
	}
}

var anyID = regexp.MustCompile(`\b01[0-9A-HJKMNP-TV-Z]{24}\b`)

// TestProblemExamples wants each problem that the description shows as the gateway
// answers it, word for word but for the ids.
func TestProblemExamples(t *testing.T) {
	examples := description(t).Components.Examples
	for _, name := range slices.Sorted(maps.Keys(examples)) {
		if provocations[name] == nil {
			t.Errorf("the example %s is not provoked", name)
		}
	}
	for name, provoke := range provocations {
		t.Run(name, func(t *testing.T) {
			a := provoke(t)
			example := examples[name]
			if example == nil {
				t.Fatalf("it is not shown: %s", a.body)
			}
			var got map[string]any
			if err := json.Unmarshal(anyID.ReplaceAll(a.body, []byte(anID)), &got); err != nil {
				t.Fatalf("%v: %s", err, a.body)
			}
			want := maps.Clone(example.Value.Value.(map[string]any))
			want["request_id"] = a.Header.Get("X-Request-Id")
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("-shown +answered:\n%s", d)
			}
		})
	}
}
