package e2e_test

import (
	"crypto/sha256"
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// A curlRow is what somebody types, in bash, and what they read then.
type curlRow struct {
	about  string
	script string // in which curl prints the status, and leaves the answer in head and body
	status string
	want   string // patterns that head or body match, a line each; not, after a !
}

// curlPrelude is before each script. GW is a gateway that delivers, DOWN one
// whose two destinations are down, GUARDED one that wants a token and takes at
// most 1 MiB, PACED one that answers one request a second.
const curlPrelude = `
curl() { command curl -sS --max-time 60 -D head -o body -w '%{http_code}\n' "$@"; }
# raw sends what no option of curl's is for.
raw() {
	local at=${GW#http://}
	exec 3<>"/dev/tcp/${at%:*}/${at#*:}"
	cat >&3
	cat <&3 >head
	: >body
	sed -n '1s/^HTTP[^ ]* \([0-9]*\).*/\1/p' head
}
id() { sed -n 's/.*"id":"\([0-9A-Z]*\)".*/\1/p' body | head -n 1; }
header() { sed -n "s/^$1: \(.*\)\r$/\1/p" head; }
sha() { openssl dgst "-$1" -binary "$2" | base64 -w0; }
hex() { sha256sum "$1" | cut -c1-64; }
# held sends a file to DOWN that stays as it is.
held() {
	curl -T small.txt "$DOWN/uploads/$1"
	local id; id=$(id)
	until [ "$(curl -X POST "$DOWN/uploads/$id/hold")" = 200 ]; do sleep 0.05; done
	echo "$id" >held
}
`

// curlRows are in the order in which they are run; what one has sent another asks
// for.
var curlRows = map[string][]curlRow{
	"ways in": {
		{"a file, under its own name", `curl -T big.iso $GW/uploads/`, "202", `^Location: /uploads/[0-9A-Z]{26}\r$
			^Retry-After: \d+\r$
			"name":"big\.iso","size":3000000,
			"state":"queued"`},
		{"under another one, in a folder", `curl -T big.iso $GW/uploads/build-17/app.tar.gz`, "202", `"name":"build-17/app\.tar\.gz"`},
		{"of a length that nobody knows", `cat big.iso | curl -T - $GW/uploads/piped.iso`, "202", `"name":"piped\.iso","size":3000000,`},
		{"raw", `curl --data-binary @big.iso "$GW/uploads?name=raw.iso"`, "202", `"name":"raw\.iso","size":3000000,`},
		{"raw, in chunks", `curl -H 'Transfer-Encoding: chunked' --data-binary @big.iso "$GW/uploads?name=chunked.iso"`, "202", `"name":"chunked\.iso","size":3000000,`},
		{"a form of two", `curl -F file=@big.iso -F 'file=@small.txt;filename=second.txt' -F name=form.iso $GW/uploads || true
			curl -F 'file=@big.iso;filename=form.iso' -F 'file=@small.txt;filename=second.txt' $GW/uploads`, "202", `^\{"uploads":\[\{"id":".*"name":"form\.iso".*"name":"second\.txt"`},
		{"a form, with a slash at the end", `curl -F 'file=@small.txt;filename=slash.txt' $GW/uploads/`, "202", `"name":"slash\.txt"`},
		{"what is possible there", `curl -X OPTIONS $GW/uploads/`, "204", `^Allow: PUT, POST, OPTIONS\r$`},
		{"nothing at all", `curl -T /dev/null $GW/uploads/empty`, "202", `"name":"empty","size":0,`},
		{"mode and time in the header", `curl -T small.txt -H 'X-Ferry-Mode: 0640' -H 'X-Ferry-Mtime: 2026-03-14T15:09:26Z' $GW/uploads/by-header`, "202", `"mode":"0640","modified_at":"2026-03-14T15:09:26Z"`},
		{"as fields", `curl -F mode=0640 -F mtime=2026-03-14T15:09:26Z -F 'file=@small.txt;filename=by-field' $GW/uploads`, "202", `"mode":"0640","modified_at":"2026-03-14T15:09:26Z"`},
		{"in the address", `curl -T small.txt "$GW/uploads/by-address?mode=0640&mtime=2026-03-14T15:09:26Z"`, "202", `"mode":"0640","modified_at":"2026-03-14T15:09:26Z"`},
		{"a parameter that is misspelt", `curl -T big.iso "$GW/uploads/misspelt?destnatoin=none"`, "400", `"type":"/problems/unknown-parameter"
			perhaps destination was meant`},
		{"in a form's address", `curl -F 'file=@small.txt;filename=misspelt' "$GW/uploads?lable=build=17"`, "400", `perhaps label was meant`},
		{"a form's field that is", `curl -F destnatoin=none -F 'file=@small.txt;filename=misspelt' $GW/uploads`, "400", `"type":"/problems/unknown-parameter"`},
		{"of which nothing is kept", `curl "$GW/uploads?name=misspelt"`, "200", `\{"uploads":\[\]\}`},
		{"a part of a file", `curl -T small.txt -H 'Content-Range: bytes 5-10/20' $GW/uploads/part`, "400", `"type":"/problems/parameter"`},
	},
	"names and reruns": {
		{"the same again", `curl -T big.iso $GW/uploads/build-17/app.tar.gz`, "200", `"name":"build-17/app\.tar\.gz"
			!^Retry-After`},
		{"other content", `curl -T small.txt $GW/uploads/build-17/app.tar.gz`, "409", `"type":"/problems/conflict"
			"sha256":"[0-9a-f]{64}","existing_sha256":"[0-9a-f]{64}"`},
		{"only if it is new", `curl -T small.txt -H 'If-None-Match: *' $GW/uploads/new`, "202", `"name":"new"`},
		{"which it is not", `curl -T small.txt -H 'If-None-Match: *' $GW/uploads/new`, "412", `"type":"/problems/precondition"
			"upload":"/uploads/[0-9A-Z]{26}","existing_sha256":"[0-9a-f]{64}"`},
		{"said before the file is sent", `command curl -sv -o body -T big.iso -H 'Expect: 100-continue' -H 'If-None-Match: *' $GW/uploads/new 2>trace; ! grep -q '100 Continue' trace; sed -n 's/^< HTTP[^ ]* //p' trace | cut -c1-3`, "412", ""},
		{"in a form", `curl -H 'If-None-Match: *' -F 'file=@small.txt;filename=newer' -F 'file=@small.txt;filename=new' $GW/uploads`, "412", `"type":"/problems/precondition"`},
		{"of which nothing is kept", `curl "$GW/uploads?name=newer"`, "200", `\{"uploads":\[\]\}`},
		{"with an ETag, which no file has", `curl -T small.txt -H 'If-None-Match: "x"' $GW/uploads/new`, "200", `"name":"new"`},
		{"with a key", `curl -T small.txt -H 'Idempotency-Key: "k1"' $GW/uploads/keyed; cp body keyed`, "202", `"name":"keyed"`},
		{"with the same key", `curl -T small.txt -H 'Idempotency-Key: "k1"' $GW/uploads/keyed; cmp body keyed`, "202", `"name":"keyed"`},
		{"another file with that key", `curl -T other.txt -H 'Idempotency-Key: "k1"' $GW/uploads/keyed`, "422", `"type":"/problems/idempotency-key-reused"`},
		{"while the first is still sent", `mkfifo slow; command curl -sS -o first -T - -H 'Idempotency-Key: "k2"' $GW/uploads/slow <slow & exec 4>slow; echo begun >&4
			until command curl -sS "$GW/uploads?state=receiving" | grep -q '"name":"slow"'; do sleep 0.05; done
			curl -T small.txt -H 'Idempotency-Key: "k2"' $GW/uploads/slow; exec 4>&-; wait; grep -q '"state":"queued"' first`, "409", `"type":"/problems/idempotency-key-running"`},
	},
	"digests": {
		{"Repr-Digest", `curl -T small.txt -H "Repr-Digest: sha-256=:$(sha sha256 small.txt):" $GW/uploads/repr-256`, "202", `^Repr-Digest: sha-256=:`},
		{"with sha-512", `curl -T small.txt -H "Repr-Digest: sha-512=:$(sha sha512 small.txt):" $GW/uploads/repr-512`, "202", ""},
		{"Content-Digest", `curl -T small.txt -H "Content-Digest: sha-256=:$(sha sha256 small.txt):" $GW/uploads/content-256`, "202", ""},
		{"Content-MD5", `curl -T small.txt -H "Content-MD5: $(sha md5 small.txt)" $GW/uploads/md5`, "202", ""},
		{"X-Checksum-Sha256", `curl -T small.txt -H "X-Checksum-Sha256: $(hex small.txt)" $GW/uploads/checksum; grep -q "^X-Checksum-Sha256: $(hex small.txt)" head`, "202", ""},
		{"in the trailer", `printf 'PUT /uploads/trailer HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nTrailer: Repr-Digest\r\n\r\n6\r\nsmall\n\r\n0\r\nRepr-Digest: sha-256=:%s:\r\n\r\n' $(sha sha256 small.txt) | raw`, "202", `"name":"trailer"`},
		{"wrong in the trailer", `printf 'PUT /uploads/wrong HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nTrailer: Repr-Digest\r\n\r\n6\r\nsmalL\n\r\n0\r\nRepr-Digest: sha-256=:%s:\r\n\r\n' $(sha sha256 small.txt) | raw`, "400", `"type":"/problems/mismatch"`},
		{"wrong Repr-Digest", `curl -T other.txt -H "Repr-Digest: sha-512=:$(sha sha512 small.txt):" $GW/uploads/wrong`, "400", `"type":"/problems/mismatch"`},
		{"wrong Content-Digest of a large file", `curl -T big.iso -H "Content-Digest: sha-256=:$(sha sha256 small.txt):" $GW/uploads/wrong`, "400", `"type":"/problems/mismatch"`},
		{"wrong Content-MD5", `curl -T other.txt -H "Content-MD5: $(sha md5 small.txt)" $GW/uploads/wrong`, "400", `"type":"/problems/mismatch"`},
		{"wrong X-Checksum-Sha256", `curl -T other.txt -H "X-Checksum-Sha256: $(hex small.txt)" $GW/uploads/wrong`, "400", `"type":"/problems/mismatch"
			"retryable":false`},
		{"none of them is kept", `curl "$GW/uploads?name=wrong"`, "200", `\{"uploads":\[\]\}`},
		{"what is known", `curl "$GW/uploads?sha256=$(hex big.iso)"`, "200", `"name":"big\.iso"`},
		{"what is not", `curl "$GW/uploads?sha256=$(hex other.txt)"`, "200", `\{"uploads":\[\]\}`},
		{"what is known, by HEAD", `curl --head "$GW/uploads?sha256=$(hex big.iso)"`, "200", `^X-Ferry-Count: [1-9]\d*\r$`},
		{"what is not, by HEAD", `curl --head "$GW/uploads?sha256=$(hex other.txt)"`, "200", `^X-Ferry-Count: 0\r$`},
	},
	"waiting": {
		{"until it is delivered", `curl -T small.txt -H 'Prefer: wait=60' $GW/uploads/waited; id >waited`, "201", `^Preference-Applied: wait=60\r$
			"state":"delivered"`},
		{"not in time", `curl -T small.txt -H 'Prefer: wait=1' $DOWN/uploads/late`, "202", `^Preference-Applied: wait=1\r$
			^Retry-After: \d+\r$
			"state":"(queued|delivering|waiting)"`},
		{"and it fails", `curl -T small.txt -H 'Prefer: wait=60' $GW/uploads/twice; curl -X DELETE $GW/uploads/$(id)
			curl -T other.txt -H 'Prefer: wait=60' $GW/uploads/twice`, "424", `"type":"/problems/undelivered"
			"upload":"/uploads/[0-9A-Z]{26}"`},
		{"how that was done", `curl $GW/uploads/$(cat waited)/attempts`, "200", `^\{"count":1,"attempts":\[\{"number":1,"began_at":"20[^"]+","ended_at":"20[^"]+","outcome":"delivered","error":null,"bytes":6,"resumed_from":0,"sends":1,"destination":"v4://[^"]+"\}\]\}$`},
		{"how it was tried in vain", `curl -T small.txt $DOWN/uploads/tried; tried=$(id)
			until curl -X POST $DOWN/uploads/$tried/retry; curl $DOWN/uploads/$tried/attempts; grep -q '"number":2' body; do sleep 0.05; done`, "200", `"attempts":\[\{"number":1,"began_at":"20[^"]+","ended_at":"20[^"]+","outcome":"postponed","error":"[^"]+","bytes":0,"resumed_from":0,"sends":0,`},
		{"a long poll of what is over", `curl "$GW/uploads/$(cat waited)?wait=60"`, "200", `^Etag: ".*"\r$`},
		{"of what does not change", `held polled; curl $DOWN/uploads/$(cat held); curl -H "If-None-Match: $(header Etag)" "$DOWN/uploads/$(cat held)?wait=1"`, "304", ""},
		{"of what does", `curl $DOWN/uploads/$(cat held); etag=$(header Etag)
			(sleep 0.3; command curl -sS -o other -X POST $DOWN/uploads/$(cat held)/cancel) &
			curl -H "If-None-Match: $etag" "$DOWN/uploads/$(cat held)?wait=60"; wait`, "200", `"state":"cancelled"`},
	},
	"events": {
		{"of one, until it is over", `curl -N $GW/uploads/$(cat waited)/events`, "200", `^Content-Type: text/event-stream
			^X-Accel-Buffering: no\r$
			^event: upload$
			"state":"delivered"`},
		{"of all", `curl -N --max-time 1 $GW/events || true`, "200", `^event: ready$
			^id: \d+$`},
		{"of all, what was missed", `curl -N --max-time 1 -H 'Last-Event-ID: 1' $GW/events || true`, "200", `^id: \d+$
			^data: \{"id":"[0-9A-Z]{26}","name":"big\.iso"`},
	},
	"lists": {
		{"by state and prefix", `curl "$GW/uploads?state=delivered&name=wait"`, "200", `^\{"uploads":\[\{"id":"[0-9A-Z]{26}","name":"waited"[^[]*\]\}`},
		{"by destination and time", `curl "$GW/uploads?destination=none&since=2026-01-01T00:00:00Z&until=2200-01-01T00:00:00Z"`, "200", `\{"uploads":\[\]\}`},
		{"by a state that is misspelt", `curl "$GW/uploads?stat=failed"`, "400", `"type":"/problems/unknown-parameter"
			perhaps state was meant`},
		{"page by page", `curl "$GW/uploads?limit=2"; first=$(id); curl "$GW$(header Link | sed 's/.*<\(.*\)>.*/\1/')"; [ "$(id)" != "$first" ]`, "200", `^Link: </uploads\?cursor=.*>; rel="next"\r$`},
		{"as lines", `curl -H 'Accept: application/x-ndjson' $GW/uploads; [ $(wc -l <body) -gt 20 ]`, "200", `^Content-Type: application/x-ndjson\r$
			^\{"id":"[0-9A-Z]{26}",.*\}$`},
		{"as a table", `curl -H 'Accept: text/csv' $GW/uploads`, "200", `^id,name,size,state,sha256,
			^[0-9A-Z]{26},big\.iso,3000000,`},
	},
	"control": {
		{"only what is as it was", `curl -T small.txt -H 'Prefer: wait=60' $GW/uploads/matched; u=$GW/uploads/$(id); curl -X DELETE -H 'If-Match: "other"' $u; test "$(cut -d, -f3 body)" = '"status":412'
			curl $u; tag=$(header Etag); curl -X DELETE -H "If-Match: $tag" $u`, "204", ""},
		{"hold", `held kept; curl $DOWN/uploads/$(cat held)`, "200", `"held":true`},
		{"release", `curl -X POST $DOWN/uploads/$(cat held)/release`, "200", `"held":false`},
		{"cancel", `curl -X POST $DOWN/uploads/$(cat held)/cancel`, "200", `"state":"cancelled"`},
		{"retry", `curl -X POST $DOWN/uploads/$(cat held)/retry`, "202", `"state":"queued"`},
		{"cancel what is delivered", `curl -X POST $GW/uploads/$(cat waited)/cancel`, "200", `"state":"delivered"`},
		{"many at once", `curl --json "{\"action\":\"cancel\",\"ids\":[\"$(cat held)\",\"01K62Q3V7N5CW0M8DJ4RXEBZ9T\"]}" $DOWN/uploads/bulk`, "200", `"status":200,"upload":\{.*"state":"cancelled"
			"id":"01K62Q3V7N5CW0M8DJ4RXEBZ9T","status":404`},
		{"delete", `curl -X DELETE $DOWN/uploads/$(cat held)`, "204", ""},
		{"and it is gone", `curl $DOWN/uploads/$(cat held)`, "404", `"type":"/problems/not-found"`},
	},
	"labels": {
		{"are kept", `curl -T small.txt "$GW/uploads/labelled?label=build=17&label=branch=main"`, "202", `"labels":\{"branch":"main","build":"17"\}`},
		{"and found", `curl "$GW/uploads?label=branch=main&label=build=17"`, "200", `"name":"labelled"`},
		{"all of them", `curl "$GW/uploads?label=branch=main&label=build=18"`, "200", `\{"uploads":\[\]\}`},
	},
	"destinations": {
		{"one of several", `curl -T small.txt "$DOWN/uploads/elsewhere?destination=two"`, "202", `"destination_name":"two"`},
		{"one that there is not", `curl -T small.txt "$DOWN/uploads/elsewhere?destination=three"`, "400", `"type":"/problems/destination"`},
		{"what goes there", `curl "$DOWN/uploads?destination=two"`, "200", `^\{"uploads":\[\{"id":"[0-9A-Z]{26}","name":"elsewhere"[^[]*\]\}`},
		{"how they stand", `curl $DOWN/destinations`, "200", `"name":"one"
			"name":"two"`},
		{"pause", `curl -X POST $DOWN/destinations/two/pause`, "200", `"paused":true`},
		{"resume", `curl -X POST $DOWN/destinations/two/resume`, "200", `"paused":false`},
	},
	"limits": {
		{"too many requests", `until [ "$(curl $PACED/uploads)" = 429 ]; do :; done; echo 429`, "429", `^Retry-After: \d+\r$
			"type":"/problems/pace"
			"retryable":true`},
		{"that curl --retry gets over", `curl --retry 5 $PACED/uploads`, "200", ""},
		{"too large, before the body", `curl -T big.iso -H 'Expect: 100-continue' -H "$AUTH" $GUARDED/uploads/`, "413", `"type":"/problems/too-large"
			"size":3000000,"limit":1048576
			!100 Continue`},
		{"no room, before the body", `truncate -s 4T huge; curl -T huge -H 'Expect: 100-continue' $GW/uploads/`, "507", `"type":"/problems/full"
			"size":4398046511104
			!100 Continue`},
		{"what fits is asked for", `curl -T big.iso -H 'Expect: 100-continue' $GW/uploads/asked`, "202", `^HTTP/1\.1 100 Continue\r$`},
	},
	"tokens": {
		{"without one", `curl $GUARDED/uploads`, "401", `^Www-Authenticate: Bearer realm="ferry"`},
		{"a wrong one", `curl -H 'Authorization: Bearer ferry-token-x' $GUARDED/uploads`, "401", ""},
		{"upload alone", `curl -T small.txt -H "$AUTH" $GUARDED/uploads/`, "202", ""},
		{"what is not its own to do", `curl -X POST -H "$AUTH" $GUARDED/uploads/$(id)/hold`, "403", `"type":"/problems/forbidden"`},
		{"what is another's, or nobody's", `curl -T small.txt -H "$OTHER" $GUARDED/uploads/theirs; theirs=$(id)
			curl -H "$AUTH" $GUARDED/uploads/$theirs; cut -d, -f1-5 body | sed "s/$theirs/ID/g" >theirs
			curl -H "$AUTH" $GUARDED/uploads/01K62Q3V7N5CW0M8DJ4RXEBZ9T; cut -d, -f1-5 body | sed 's/01K62Q3V7N5CW0M8DJ4RXEBZ9T/ID/g' | cmp - theirs`, "404", ""},
	},
	"errors": {
		{"are problems", `curl $GW/uploads/01K62Q3V7N5CW0M8DJ4RXEBZ9T; grep -q "\"request_id\":\"$(header X-Request-Id)\"" body`, "404", `^Content-Type: application/problem\+json\r$
			"retryable":false`},
		{"whose type is a page", `curl $GW/uploads/none; curl $GW$(sed 's/.*"type":"\([^"]*\)".*/\1/' body)`, "200", `^Content-Type: text/html`},
		{"that end curl --retry", `! curl --fail-with-body --retry 5 -T other.txt $GW/uploads/build-17/app.tar.gz`, "409", ""},
		{"or do not come at all", `curl --fail-with-body --retry 5 -T big.iso $GW/uploads/retried`, "202", ""},
	},
	"the description": {
		{"is a page", `curl -L $GW/docs/`, "200", `<link rel="stylesheet" href="docs/`},
		{"is served", `curl $GW/openapi.yaml`, "200", `^openapi: "3\.1\.\d"$`},
	},
}

// pauseRow is run before the gateway is killed, curlRowsAgain after it was started
// anew.
var (
	pauseRow      = curlRow{"pause", `curl -X POST $GW/destinations/default/pause`, "200", `"paused":true`}
	curlRowsAgain = []curlRow{
		{"what was paused", `curl $GW/destinations/default`, "200", `"paused":true`},
		{"and is resumed", `curl -X POST $GW/destinations/default/resume`, "200", `"paused":false`},
		{"the answer to a key", `curl -T small.txt -H 'Idempotency-Key: "k1"' $GW/uploads/keyed; cmp body keyed`, "202", ""},
		{"the same again", `curl -T big.iso $GW/uploads/build-17/app.tar.gz`, "200", ""},
		{"events that were missed", `curl -N --max-time 1 -H 'Last-Event-ID: 1' $GW/events || true`, "200", `^data: \{"id":"[0-9A-Z]{26}","name":"big\.iso"`},
		{"labels", `curl "$GW/uploads?label=branch=main"`, "200", `"name":"labelled"`},
	}
)

// TestCurl has Debian's curl do all that the API is there for, with real
// gateways and a real server.
func TestCurl(t *testing.T) {
	t.Parallel()
	data, guarded, address, native := t.TempDir(), t.TempDir(), closedAddress(t), closedAddress(t)
	giveIdentity(t, filepath.Join(data, "server"))
	gateway := func() *process {
		return start(t, "up", "--data", data, "--http", address, "--listen", native)
	}
	live := gateway().tap()
	nowhere := "v4://" + closedAddress(t) + "?ca=system"
	down := start(t, "gateway", "--data", t.TempDir(), "--http", "127.0.0.1:0", "--to", "one="+nowhere, "--to", "two=v4://"+closedAddress(t)+"?ca=system").tap()
	paced := start(t, "gateway", "--data", t.TempDir(), "--http", "127.0.0.1:0", "--to", nowhere, "--rate", "1").tap()
	ci, other := makeToken(t, guarded, "ci", "upload"), makeToken(t, guarded, "other", "upload")
	closed := start(t, "gateway", "--data", guarded, "--http", "127.0.0.1:0", "--to", nowhere, "--max-size", "1MiB").tap()

	work := t.TempDir()
	writeFile(t, filepath.Join(work, "big.iso"), 1, 3_000_000)
	for name, content := range map[string]string{"small.txt": "small\n", "other.txt": "other\n"} {
		if err := os.WriteFile(filepath.Join(work, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	environ := append(os.Environ(), "GW="+live.http, "DOWN="+down.http, "GUARDED="+closed.http, "PACED="+paced.http,
		"AUTH=Authorization: Bearer "+ci, "OTHER=Authorization: Bearer "+other)
	for _, heading := range []string{"ways in", "names and reruns", "digests", "waiting", "events", "lists", "control", "labels", "destinations", "limits", "tokens", "errors", "the description"} {
		t.Run(heading, func(t *testing.T) {
			for _, row := range curlRows[heading] {
				t.Run(row.about, func(t *testing.T) { row.run(t, work, environ) })
			}
		})
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		var list struct{ Uploads []upload }
		if err := getJSON(t.Context(), live.http+"/uploads?state=queued&state=delivering&state=waiting", &list); err != nil || time.Now().After(deadline) {
			t.Fatalf("still on their way: %+v, %v", list, err)
		}
		if len(list.Uploads) == 0 {
			break
		}
	}
	t.Run("before a restart", func(t *testing.T) { pauseRow.run(t, work, environ) })
	live.kill()
	gateway()
	for _, row := range curlRowsAgain {
		t.Run("after a restart, "+row.about, func(t *testing.T) { row.run(t, work, environ) })
	}

	stored := storedFolder(t, filepath.Join(data, "server"))
	for _, name := range []string{"big.iso", "build-17/app.tar.gz", "piped.iso", "raw.iso", "chunked.iso", "form.iso"} {
		wantSame(t, filepath.Join(work, "big.iso"), filepath.Join(stored, filepath.FromSlash(name)))
	}
	for _, name := range []string{"by-header", "by-field", "by-address"} {
		info, err := os.Stat(filepath.Join(stored, name))
		if err != nil {
			t.Fatal(err)
		}
		if at := time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC); info.Mode() != 0o640 || !info.ModTime().Equal(at) {
			t.Errorf("%s is stored with mode %v, of %v; want 0640, of %v", name, info.Mode(), info.ModTime(), at)
		}
	}
}

// run types the row's script.
func (row curlRow) run(t *testing.T, work string, environ []string) {
	cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", curlPrelude+row.script)
	cmd.Dir, cmd.Env = work, environ
	out, err := cmd.CombinedOutput()
	head, headErr := os.ReadFile(filepath.Join(work, "head"))
	body, bodyErr := os.ReadFile(filepath.Join(work, "body"))
	answer := string(head) + "\n" + string(body)
	lines := strings.Fields(string(out))
	if err != nil || headErr != nil || bodyErr != nil || len(lines) == 0 || lines[len(lines)-1] != row.status {
		t.Fatalf("%v, %v, %v, status %q, want %s\n%.3000s", err, headErr, bodyErr, out, row.status, answer)
	}
	for line := range strings.Lines(row.want) {
		pattern, unwanted := strings.CutPrefix(strings.TrimSpace(line), "!")
		if regexp.MustCompile("(?m)"+pattern).MatchString(answer) == unwanted {
			t.Errorf("matching %s is %v\n%.3000s", pattern, !unwanted, answer)
		}
	}
	wantReprDigest(t, string(head), body)
}

// wantReprDigest compares an answer's Repr-Digest with the answer.
func wantReprDigest(t *testing.T, head string, body []byte) {
	t.Helper()
	field := regexp.MustCompile(`(?m)^Repr-Digest: (\S+)\r$`).FindStringSubmatch(head)
	if field == nil || len(body) == 0 {
		return
	}
	sum := sha256.Sum256(body)
	if want := "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"; field[1] != want {
		t.Errorf("Repr-Digest is %s, want %s", field[1], want)
	}
}
